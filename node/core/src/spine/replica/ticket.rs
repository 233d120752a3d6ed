//! Tickets: every linearizable read-only outcome is evaluated at a fresh read index of the spine
//! (I7). One is asked for at a time, and serves everyone who arrived before it was sent; its id is
//! never used again.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;

use crate::command::{Command, RequestId};
use crate::group;
use crate::mutant::{self, Mutant};
use crate::mvcc::{self, Failure};
use crate::range;
use crate::spine::apply::Requester;
use crate::spine::replica::{Effect, Replica};
use crate::time::{Length, Time};
use crate::view::{View, ViewError};
use crate::{Error, GroupId, txn};

/// An unanswered read index is asked for again, under a new id, after this.
const RETRY_AFTER: Length = Length::from_ms(500);

/// Who waits for a ticket.
#[derive(Clone, Debug)]
enum Holder {
    /// A read of a client of this node.
    Read(u64),
    /// A command that turned out to have no effect, or whose answer needs a confirmed leader.
    Command(Requester, Command),
    /// A command that an alarm refuses, as far as this node knows.
    Alarm(Requester, Command),
    /// The leader itself wants to know that it still leads.
    Confirmation,
    /// The leader of another range on this node, by its own number.
    Range(GroupId, u64),
    /// A transaction over several ranges that is coordinated here.
    Txn(RequestId),
}

/// Tickets asked for and not used yet.
#[derive(Debug, Default)]
pub(super) struct Tickets {
    /// Arrived since the last request was sent.
    gathering: Vec<(Time, Holder)>,
    /// Served by the request that is under way.
    asking: Vec<(Time, Holder)>,
    /// The id of that request and when it was sent.
    under_way: Option<(u64, Time)>,
    /// Confirmed, waiting until the index is within reach.
    confirmed: BTreeMap<u64, Vec<(Time, Holder)>>,
    /// The index is, and what they need is not: until the reach is another.
    kept: Vec<(Time, Holder)>,
    /// It is.
    is_look_due: bool,
    unwanted: BTreeSet<u64>,
    count: u64,
}

impl Tickets {
    pub(super) fn want_command(&mut self, to: Requester, command: Command, now: Time) {
        self.gathering.push((now, Holder::Command(to, command)));
    }

    pub(super) fn want_alarm(&mut self, to: Requester, command: Command, now: Time) {
        self.gathering.push((now, Holder::Alarm(to, command)));
    }

    pub(super) fn want_range(&mut self, range: GroupId, n: u64, now: Time) {
        self.gathering.push((now, Holder::Range(range, n)));
    }

    pub(super) fn want_txn(&mut self, id: RequestId, now: Time) {
        self.gathering.push((now, Holder::Txn(id)));
    }

    pub(super) fn want_confirmation(&mut self, now: Time) {
        let is_coming = |list: &[(Time, Holder)]| {
            list.iter().any(|(_, holder)| matches!(holder, Holder::Confirmation))
        };
        if !is_coming(&self.gathering) && !is_coming(&self.asking) {
            self.gathering.push((now, Holder::Confirmation));
        }
    }

    pub(super) fn forget(&mut self, n: u64) {
        let is_waiting = |list: &Vec<(Time, Holder)>| {
            list.iter().any(|(_, holder)| matches!(holder, Holder::Read(other) if *other == n))
        };
        if is_waiting(&self.gathering)
            || is_waiting(&self.asking)
            || self.confirmed.values().any(is_waiting)
        {
            self.unwanted.insert(n);
        }
    }

    pub(super) fn load_text(&self) -> String {
        let confirmed: usize = self.confirmed.values().map(Vec::len).sum();
        format!(
            "tickets: {} gathered, {} asked for, {confirmed} confirmed, {} kept",
            self.gathering.len(),
            self.asking.len(),
            self.kept.len()
        )
    }

    pub(super) fn is_request_due(&self) -> bool {
        self.under_way.is_none() && !self.gathering.is_empty()
    }

    /// Something else can be read than before.
    pub(super) fn look_again(&mut self) {
        self.is_look_due = !self.kept.is_empty();
    }

    /// The request that is under way got lost; its holders share the next one.
    fn give_up(&mut self) {
        self.under_way = None;
        let newer = mem::take(&mut self.gathering);
        self.gathering = mem::take(&mut self.asking);
        self.gathering.extend(newer);
    }
}

impl Replica {
    pub(super) fn on_ticket(&mut self, n: u64) {
        self.tickets.gathering.push((self.now, Holder::Read(n)));
    }

    /// Sends the next request, if anyone waits and none is under way.
    pub(super) fn request_ticket(&mut self) {
        if !self.tickets.is_request_due() {
            return;
        }
        let is_reachable = self.status.is_leader
            || self.status.leader.is_some_and(|leader| self.connected.contains_key(&leader));
        self.tickets.count += u64::from(!mutant::is(Mutant::TicketReused));
        let id = self.config.origin.wrapping_add(self.tickets.count);
        self.tickets.under_way = Some((id, self.now));
        self.tickets.asking = mem::take(&mut self.tickets.gathering);
        // Without a leader the request waits here and is sent by the retry.
        if is_reachable {
            self.drive(group::Input::Ticket(id));
        }
    }

    pub(super) fn on_ticket_ready(&mut self, id: u64, index: u64) {
        let Some((asked, since)) = self.tickets.under_way else { return };
        if asked != id {
            return;
        }
        self.tickets.under_way = None;
        if self.status.is_leader {
            self.confirmed = Some(since);
        }
        let holders = mem::take(&mut self.tickets.asking);
        self.tickets.confirmed.entry(index).or_default().extend(holders);
    }

    pub(super) fn on_ticket_dropped(&mut self, id: u64) {
        if let Some((asked, since)) = self.tickets.under_way
            && asked == id
        {
            // Asked for again by the retry, not at once: there may be nobody to answer.
            self.tickets.under_way = Some((0, since));
        }
    }

    /// A leader is known, or another one is: ask it now.
    pub(super) fn retry_ticket(&mut self) {
        if self.tickets.under_way.is_some() {
            self.tickets.give_up();
        }
    }

    pub(super) fn is_serving_due(&self) -> bool {
        let first = self.tickets.confirmed.first_key_value();
        let is_confirmed = first.is_some_and(|(index, _)| *index <= self.reach.shown.index);
        is_confirmed || self.tickets.is_look_due
    }

    /// Serves the tickets whose index is within reach.
    pub(super) fn serve_shown(&mut self, view: &dyn View) -> Result<(), ViewError> {
        if mem::take(&mut self.tickets.is_look_due) {
            let kept = mem::take(&mut self.tickets.kept);
            self.serve(kept, view)?;
        }
        while let Some(entry) = self.tickets.confirmed.first_entry() {
            if *entry.key() > self.reach.shown.index && !mutant::is(Mutant::ReadNoWait) {
                break;
            }
            let holders = entry.remove();
            self.serve(holders, view)?;
        }
        Ok(())
    }

    /// Whether what the holder evaluates can be read here. Readers see for themselves, and
    /// transactions have fetched what they need.
    fn can_be_served(&self, holder: &Holder) -> bool {
        match holder {
            Holder::Read(_) | Holder::Confirmation | Holder::Txn(_) | Holder::Alarm(..) => true,
            Holder::Command(..) => self.reach.has(GroupId::SPINE),
            Holder::Range(range, _) => self.reach.has(*range),
        }
    }

    pub(super) fn expire_tickets(&mut self) {
        if let Some((_, since)) = self.tickets.under_way
            && since + RETRY_AFTER <= self.now
        {
            self.tickets.give_up();
        }
        let horizon = self.now - self.config.request_timeout;
        let mut late = Vec::new();
        let mut part = |list: &mut Vec<(Time, Holder)>| {
            if list.first().is_some_and(|(since, _)| *since <= horizon) {
                let kept = list.partition_point(|(since, _)| *since <= horizon);
                late.extend(list.drain(..kept));
            }
        };
        part(&mut self.tickets.gathering);
        part(&mut self.tickets.asking);
        self.tickets.kept.sort_by_key(|(since, _)| *since);
        part(&mut self.tickets.kept);
        self.tickets.confirmed.values_mut().for_each(&mut part);
        self.tickets.confirmed.retain(|_, holders| !holders.is_empty());
        for (_, holder) in late {
            match holder {
                Holder::Read(n) => self.answer_read(n, Err(Error::Timeout)),
                Holder::Command(to, _) | Holder::Alarm(to, _) => {
                    self.reply(to, Err(Error::Timeout));
                }
                Holder::Confirmation => {}
                Holder::Range(range, n) => {
                    self.tell(range, range::replica::Input::TicketFailed(n, Error::Timeout));
                }
                Holder::Txn(id) => self.txns.input(id, txn::Input::TicketFailed(Error::Timeout)),
            }
        }
    }

    fn answer_read(&mut self, n: u64, result: Result<(), Error>) {
        if !self.tickets.unwanted.remove(&n) {
            self.out.push(Effect::TicketReady(n, result));
        }
    }

    fn serve(&mut self, holders: Vec<(Time, Holder)>, view: &dyn View) -> Result<(), ViewError> {
        let admission = self.state.auth().admission();
        for (since, holder) in holders {
            if !self.can_be_served(&holder) {
                self.tickets.kept.push((since, holder));
                continue;
            }
            match holder {
                Holder::Read(n) => self.answer_read(n, Ok(())),
                Holder::Command(to, command) => self.answer_command(to, command, view)?,
                Holder::Alarm(to, command) => self.refuse_or_route(to, command, view)?,
                Holder::Confirmation => {}
                Holder::Range(range, n) => {
                    let ticket = range::replica::Input::Ticket(n, self.reach.shown.head, admission);
                    self.tell(range, ticket);
                }
                Holder::Txn(id) => match admission.admits(self.txns.pass(id)) {
                    Ok(()) => self.begin_gathering(id),
                    Err(error) => self.txns.input(id, txn::Input::TicketFailed(error)),
                },
            }
        }
        Ok(())
    }

    pub(super) fn answer_command(
        &mut self,
        to: Requester,
        command: Command,
        view: &dyn View,
    ) -> Result<(), ViewError> {
        // Everything up to the ticket is folded here.
        if let Err(error) = self.state.auth().admission().admits(to.pass) {
            self.reply(to, Err(error));
            return Ok(());
        }
        match command {
            Command::LeaseKeepAlive(request) => self.keep_alive(to, request.id, view),
            Command::LeaseTimeToLive(request) => self.time_to_live(to, request, view),
            Command::LeaseRevoke(request) => {
                if self.state.leases().contains_key(&request.id) {
                    return self.route(to, Command::LeaseRevoke(request), view);
                }
                self.reply(to, Err(Error::LeaseNotFound));
                Ok(())
            }
            command => {
                let head = self.applied_head();
                match mvcc::outcome_without_effect(view, head, &self.state, &command) {
                    Ok(Some(answer)) => self.reply(to, Ok(answer)),
                    // It has an effect by now: back to the write path.
                    Ok(None) => self.route(to, command, view)?,
                    Err(Failure::Client(error)) => self.reply(to, Err(error)),
                    // A compaction was applied that is not reported yet: once more, with it.
                    Err(Failure::Overtaken) => self.tickets.want_command(to, command, self.now),
                    Err(Failure::View(error)) => return Err(error),
                }
                Ok(())
            }
        }
    }
}
