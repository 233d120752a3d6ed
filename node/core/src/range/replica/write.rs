//! Writes on the leader: latch, evaluate on complete state (I5), propose effects that are decided
//! (I4); or, when there is no effect, answer at a ticket of the spine (I7).

use prost::Message;

use crate::Error;
use crate::auth::Admission;
use crate::command::{Command, RequestId};
use crate::group::{self, Part, Refusal};
use crate::mutant::{self, Mutant};
use crate::mvcc::{self, Draft, Evaluated, Failure, Head};
use crate::proto::internal::{Effect as Change, Lock, RangeEntry, RangeWrite};
use crate::range::latch::{Footprint, Guard};
use crate::range::lock;
use crate::range::replica::{Effect, Replica};
use crate::spine::apply::Requester;
use crate::spine::state::StoredLeases;
use crate::time::Time;
use crate::view::{View, ViewError};

/// What waits for its latches.
#[derive(Clone, Debug)]
pub(super) enum Waiting {
    /// A client's write.
    Write {
        to: Requester,
        command: Command,
        /// If it reads the past, the head of a ticket.
        past: Option<Head>,
        /// When it asked for them.
        since: Time,
    },
    /// Locks of a transaction over several ranges.
    Prepare { id: RequestId, locks: Vec<Lock> },
}

/// Who asks for a write, and since when it has asked for its latches.
#[derive(Clone, Copy)]
struct Asker {
    to: Requester,
    since: Time,
}

/// A write on its way through the log.
#[derive(Clone, Debug)]
pub(super) struct Proposed {
    /// When its latches were asked for.
    pub(super) started: Time,
    /// Given back once the write is applied; `None` when the leadership it belonged to ended.
    pub(super) guard: Option<Guard>,
    /// The answer but for the revision.
    pub(super) draft: Draft,
}

/// What a ticket is for.
#[derive(Clone, Debug)]
pub(super) enum Holder {
    /// It has no effect: answer it there.
    Answer(Requester, Command),
    /// It reads the past: evaluate it with that head.
    Evaluate(Requester, Command),
    /// A leader wants to know whether it knows who is to hold the range.
    Members,
}

impl Replica {
    pub(super) fn on_submit(
        &mut self,
        to: Requester,
        command: Command,
        view: &dyn View,
    ) -> Result<(), ViewError> {
        // A duplicated message.
        if self.proposed.contains_key(&to.id) {
            return Ok(());
        }
        let footprint = mvcc::footprint(&command);
        if self.role.part != Part::Leader || !self.owns(&footprint) {
            self.out.push(Effect::Unproposed(to, command));
            return Ok(());
        }
        let count = self.waiting.len() + self.proposed.len() + self.parked.len();
        if count >= self.config.limits.writes_max {
            self.out.push(Effect::Reply(to, Err(Error::TooManyRequests)));
            return Ok(());
        }
        if !self.is_serving() || self.group.transferee().is_some() {
            self.parked.push_back((to, command));
            return Ok(());
        }
        if footprint.reads_at.is_some() {
            self.want_ticket(Holder::Evaluate(to, command));
            return Ok(());
        }
        let waiting = Waiting::Write { to, command, past: None, since: self.now };
        self.latch(footprint.into(), waiting, view)
    }

    /// Whether all keys of a request are the range's. They may have been when it came, and not be
    /// when it has its latches.
    fn owns(&self, footprint: &mvcc::Footprint) -> bool {
        if mutant::is(Mutant::SpanUnchecked) {
            return true;
        }
        footprint.keys.iter().all(|(key, _)| self.span.contains(key))
            && footprint.spans.iter().all(|(inner, _)| lock::is_within(inner, &self.span))
    }

    /// Tries everything again that waited for the leader to be ready.
    pub(super) fn unpark(&mut self, view: &dyn View) -> Result<(), ViewError> {
        for _ in 0..self.parked.len() {
            let Some((to, command)) = self.parked.pop_front() else { break };
            self.on_submit(to, command, view)?;
        }
        Ok(())
    }

    pub(super) fn latch(
        &mut self,
        footprint: Footprint,
        waiting: Waiting,
        view: &dyn View,
    ) -> Result<(), ViewError> {
        let (guard, is_granted) = self.latches.acquire(footprint);
        if !is_granted {
            self.waiting.insert(guard, waiting);
            return Ok(());
        }
        self.on_latched(guard, waiting, view)
    }

    /// Gives latches back and goes on with whoever waited for them.
    ///
    /// Whoever goes on may give back its latches at once. Then the one that is under way takes them
    /// over: thousands may wait for one key, and the stack is not theirs to fill.
    pub(super) fn unlatch(&mut self, guards: Vec<Guard>, view: &dyn View) -> Result<(), ViewError> {
        if let Some(released) = &mut self.released {
            released.extend(guards);
            return Ok(());
        }
        self.released = Some(guards);
        let mut result = Ok(());
        while let Some(guards) = self.released.as_mut().map(std::mem::take)
            && !guards.is_empty()
            && result.is_ok()
        {
            result = self.release(guards, view);
        }
        self.released = None;
        result
    }

    fn release(&mut self, guards: Vec<Guard>, view: &dyn View) -> Result<(), ViewError> {
        let mut granted = Vec::new();
        for guard in guards {
            self.latches.release(guard, &mut granted);
        }
        for guard in granted {
            let waiting = self.waiting.remove(&guard).expect("a granted guard was waiting");
            self.on_latched(guard, waiting, view)?;
        }
        Ok(())
    }

    fn on_latched(
        &mut self,
        guard: Guard,
        waiting: Waiting,
        view: &dyn View,
    ) -> Result<(), ViewError> {
        match waiting {
            // It would be refused. Kept, it goes to the new leader.
            Waiting::Write { to, command, .. } if self.group.transferee().is_some() => {
                self.parked.push_back((to, command));
                self.unlatch(vec![guard], view)
            }
            Waiting::Write { to, command, past, since } => {
                self.evaluate(guard, Asker { to, since }, command, past, view)
            }
            Waiting::Prepare { id, locks } => self.propose_prepare(guard, id, locks, view),
        }
    }

    fn evaluate(
        &mut self,
        guard: Guard,
        asker: Asker,
        command: Command,
        past: Option<Head>,
        view: &dyn View,
    ) -> Result<(), ViewError> {
        if !self.owns(&mvcc::footprint(&command)) {
            self.out.push(Effect::Unproposed(asker.to, command));
            return self.unlatch(vec![guard], view);
        }
        let head = past.unwrap_or(mvcc::NO_HEAD);
        match mvcc::evaluate_newest(view, head, &mvcc::FoldDecides, &command)? {
            Evaluated::NoEffect => {
                self.want_ticket(Holder::Answer(asker.to, command));
                self.unlatch(vec![guard], view)
            }
            Evaluated::Effects { effects, draft, reads_at } => {
                self.propose(asker, guard, effects, draft, reads_at, view)
            }
        }
    }

    fn propose(
        &mut self,
        asker: Asker,
        guard: Guard,
        effects: Vec<Change>,
        draft: Draft,
        reads_at: i64,
        view: &dyn View,
    ) -> Result<(), ViewError> {
        let Asker { to, since } = asker;
        let limits = &self.config.limits;
        // The keys that a delete names are not the client's bytes.
        let bytes_max = match effects.iter().any(|effect| effect.is_delete) {
            true => limits.write_bytes_max.max(limits.request_bytes_max),
            false => limits.request_bytes_max,
        };
        let (origin, n, node) = (to.id.origin, to.id.n, to.node.0);
        let pass = to.pass.number();
        let write = RangeWrite { origin, n, node, effects, reads_at, pass };
        let write_bytes = write.encoded_len();
        if write_bytes > bytes_max {
            self.out.push(Effect::Reply(to, Err(Error::RequestTooLarge)));
            return self.unlatch(vec![guard], view);
        }
        if self.writes_bytes + write_bytes > limits.entry_bytes_max
            || self.writes.len() >= limits.entry_writes_max
        {
            self.propose_gathered(view)?;
        }
        self.writes_bytes += write_bytes;
        self.writes.push(write);
        let proposed = Proposed { started: since, guard: Some(guard), draft };
        self.proposed.insert(to.id, proposed);
        Ok(())
    }

    /// Proposes what was gathered; a refusal answers every request in it.
    pub(super) fn propose_gathered(&mut self, view: &dyn View) -> Result<(), ViewError> {
        while !(self.writes.is_empty() && self.prepares.is_empty() && self.resolves.is_empty()) {
            let entry = RangeEntry {
                writes: std::mem::take(&mut self.writes),
                notes: self.take_notes(),
                prepares: std::mem::take(&mut self.prepares),
                resolves: std::mem::take(&mut self.resolves),
                settles: 0,
            };
            self.writes_bytes = 0;
            self.refusal = None;
            self.drive(group::Input::Propose(vec![entry.encode_to_vec().into()]));
            let Some(refusal) = self.refusal.take() else { continue };
            self.untake_notes();
            (self.writes, self.prepares) = (entry.writes, entry.prepares);
            self.resolves = entry.resolves;
            let guards = self.drop_gathered(match refusal {
                Refusal::Full => Error::TooManyRequests,
                _ => Error::LeaderChanged,
            });
            self.unlatch(guards, view)?;
        }
        Ok(())
    }

    pub(super) fn want_ticket(&mut self, holder: Holder) {
        self.tickets_count += 1;
        self.tickets.insert(self.tickets_count, holder);
        self.out.push(Effect::WantTicket(self.tickets_count));
    }

    pub(super) fn on_ticket(
        &mut self,
        n: u64,
        head: Head,
        admission: Admission,
        view: &dyn View,
    ) -> Result<(), ViewError> {
        // A leadership that has ended wants none any more.
        let Some(holder) = self.tickets.remove(&n) else { return Ok(()) };
        assert!(self.installing.is_none(), "nothing is shown of a state that is being replaced");
        match holder {
            Holder::Answer(to, command) => match admission.admits(to.pass) {
                Ok(()) => self.answer(to, command, head, view),
                Err(error) => {
                    self.out.push(Effect::Reply(to, Err(error)));
                    Ok(())
                }
            },
            Holder::Evaluate(to, command) if self.is_serving() => {
                let footprint = mvcc::footprint(&command).into();
                let waiting = Waiting::Write { to, command, past: Some(head), since: self.now };
                self.latch(footprint, waiting, view)
            }
            Holder::Evaluate(to, command) => self.on_submit(to, command, view),
            Holder::Members => {
                self.on_members_ticket(true);
                Ok(())
            }
        }
    }

    fn answer(
        &mut self,
        to: Requester,
        command: Command,
        head: Head,
        view: &dyn View,
    ) -> Result<(), ViewError> {
        match mvcc::outcome_without_effect(view, head, &StoredLeases(view), &command) {
            Ok(Some(answer)) => self.out.push(Effect::Reply(to, Ok(answer))),
            // It has an effect by now: back to the write path.
            Ok(None) => self.on_submit(to, command, view)?,
            Err(Failure::Client(error)) => self.out.push(Effect::Reply(to, Err(error))),
            Err(Failure::Overtaken) => self.want_ticket(Holder::Answer(to, command)),
            Err(Failure::View(error)) => return Err(error),
        }
        Ok(())
    }

    pub(super) fn fail_ticket(&mut self, n: u64, error: Error) {
        match self.tickets.remove(&n) {
            Some(Holder::Answer(to, _) | Holder::Evaluate(to, _)) => {
                self.out.push(Effect::Reply(to, Err(error)));
            }
            Some(Holder::Members) => self.on_members_ticket(false),
            None => {}
        }
    }
}
