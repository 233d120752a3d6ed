//! The coordinator of a transaction over several ranges: it has the keys locked in all of them, in
//! the order of their ids so that no two wait for each other, decides on the state before, and puts
//! the decision into the spine, which gives it its revision (I8).
//!
//! One coordinator is one attempt, with a name of its own. What it knows is in memory only: when it
//! is lost, a range that waits too long ends the attempt.

mod cut;

use std::collections::BTreeMap;

use crate::Error;
use crate::GroupId;
use crate::command::{Command, Outcome, RequestId};
use crate::mvcc::{self, Draft, Evaluated, Failure, Head};
use crate::proto::internal::{Lock, Record, Share, TxnCommit, record::Body};
use crate::spine::ranges::Ranges;
use crate::spine::state::StoredLeases;
use crate::time::{Length, Time};
use crate::view::{View, ViewError};

pub use cut::{locks, owners};

/// What was sent and is not answered is sent again after this.
const AGAIN_AFTER: Length = Length::from_ms(500);

/// What a coordinator is told.
#[derive(Clone, Debug)]
pub enum Input {
    /// Time has moved on, or a replica on this node has applied more.
    Tick,
    /// The keys in a range are locked by the entry at this index of its log.
    Prepared(GroupId, u64),
    /// A range will not lock its keys for this attempt.
    PrepareFailed,
    /// The spine has committed it, at this revision.
    Committed(i64),
    /// The spine has refused it: what it relied on is not so.
    Rejected(Error),
    /// Somebody has ended it in the spine.
    Aborted,
    /// The ticket asked for is good: the store shows everything up to this head, and the spine had
    /// not ended the transaction by then.
    Ticket(Head),
}

/// What is to be done for it.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Ask the leader of a range to lock these keys.
    Prepare(GroupId, Vec<Lock>),
    /// Put this into the spine. The first record of that name counts.
    Propose(Record),
    /// A ticket of the spine, and then an applied state that is not older.
    WantTicket,
    /// End it in the spine, so that its locks are given back.
    Abort,
    /// Answer the client; the attempt is over.
    Reply(Outcome),
    /// Nothing has come of the attempt, and nothing will: end it in the spine and make another.
    TryAgain(Command),
}

enum Phase {
    Prepare,
    Decide(Draft, Record),
    Answer,
    Over,
}

/// One attempt.
pub struct Coordinator {
    id: RequestId,
    command: Command,
    /// In the order in which they lock.
    ranges: Vec<(GroupId, Vec<Lock>)>,
    prepared: BTreeMap<GroupId, u64>,
    reads_at: Option<i64>,
    /// Of the ticket of a request that reads the past.
    head: Option<Head>,
    phase: Phase,
    asked: Option<Time>,
}

impl Coordinator {
    /// An attempt at a Put, DeleteRange or Txn whose keys are in more than one range. `id` is never
    /// used again.
    pub fn new(id: RequestId, command: Command, ranges: &Ranges) -> Self {
        let owners = owners(ranges, &command);
        let ranges = owners.into_iter().map(|range| (range, locks(ranges, range, &command)));
        Self {
            id,
            ranges: ranges.collect(),
            prepared: BTreeMap::new(),
            reads_at: mvcc::footprint(&command).reads_at,
            head: None,
            command,
            phase: Phase::Prepare,
            asked: None,
        }
    }

    /// Its name.
    pub fn id(&self) -> RequestId {
        self.id
    }

    /// Takes one input. `view` is the applied state of a node that holds all of the ranges, and
    /// `applied` up to which index it has applied the log of each.
    ///
    /// # Errors
    /// The store cannot be read; the process must stop.
    pub fn step(
        &mut self,
        now: Time,
        view: &dyn View,
        ranges: &Ranges,
        applied: &dyn Fn(GroupId) -> u64,
        input: Input,
        out: &mut Vec<Effect>,
    ) -> Result<(), ViewError> {
        match input {
            Input::Tick => {}
            Input::Prepared(range, index) => {
                self.prepared.insert(range, index);
                self.asked = None;
            }
            Input::PrepareFailed | Input::Aborted => self.try_again(out),
            Input::Committed(revision) => self.on_committed(revision, out),
            Input::Rejected(error) => self.reply(Err(error), out),
            Input::Ticket(head) => self.on_ticket(head, view, out)?,
        }
        let is_due = self.asked.is_none_or(|asked| asked + AGAIN_AFTER <= now);
        match &self.phase {
            Phase::Prepare => {
                let next = self.ranges.iter().find(|(range, _)| !self.prepared.contains_key(range));
                match next {
                    Some((range, locks)) if is_due => {
                        self.asked = Some(now);
                        out.push(Effect::Prepare(*range, locks.clone()));
                    }
                    Some(_) => {}
                    None => self.decide(now, view, ranges, applied, out)?,
                }
            }
            Phase::Decide(_, record) if is_due => {
                self.asked = Some(now);
                out.push(Effect::Propose(record.clone()));
            }
            Phase::Answer if is_due => {
                self.asked = Some(now);
                out.push(Effect::WantTicket);
            }
            Phase::Decide(..) | Phase::Answer | Phase::Over => {}
        }
        Ok(())
    }

    /// All keys are locked: decides, once this node has everything that was written before.
    fn decide(
        &mut self,
        now: Time,
        view: &dyn View,
        ranges: &Ranges,
        applied: &dyn Fn(GroupId) -> u64,
        out: &mut Vec<Effect>,
    ) -> Result<(), ViewError> {
        let is_there = self.prepared.iter().all(|(range, index)| applied(*range) >= *index);
        if !is_there {
            return Ok(());
        }
        if self.reads_at.is_some() && self.head.is_none() {
            if self.asked.is_none_or(|asked| asked + AGAIN_AFTER <= now) {
                self.asked = Some(now);
                out.push(Effect::WantTicket);
            }
            return Ok(());
        }
        let head = self.head.unwrap_or(mvcc::NO_HEAD);
        self.asked = Some(now);
        match mvcc::evaluate_newest(view, head, &mvcc::FoldDecides, &self.command)? {
            Evaluated::NoEffect => {
                self.phase = Phase::Answer;
                out.push(Effect::WantTicket);
            }
            Evaluated::Effects { effects, draft } => {
                let shares = self.shares(view, effects, ranges)?;
                let leases = mvcc::attached_leases(shares.iter().flat_map(|share| &share.effects));
                let reads_at = self.reads_at.unwrap_or(0);
                let body = Body::TxnCommit(TxnCommit { shares, leases, reads_at });
                let RequestId { origin, n } = self.id;
                let record = Record { origin, n, body: Some(body) };
                out.push(Effect::Propose(record.clone()));
                self.phase = Phase::Decide(draft, record);
            }
        }
        Ok(())
    }

    /// Cuts the effects by range. Their sub-revisions follow their order in the whole.
    fn shares(
        &self,
        view: &dyn View,
        effects: Vec<crate::proto::internal::Effect>,
        ranges: &Ranges,
    ) -> Result<Vec<Share>, ViewError> {
        let mut shares: BTreeMap<GroupId, Share> = BTreeMap::new();
        let mut sub = 0;
        for effect in effects {
            for (range, part) in cut::effect(ranges, effect) {
                let keys_count = cut::keys_count(view, &part)?;
                if keys_count == 0 {
                    continue;
                }
                let prepared_at = self.prepared[&range];
                let share = shares.entry(range).or_default();
                (share.range, share.prepared_at) = (range.0, prepared_at);
                share.effects.push(part);
                share.subs.push(sub);
                sub += keys_count;
            }
        }
        Ok(shares.into_values().collect())
    }

    fn on_committed(&mut self, revision: i64, out: &mut Vec<Effect>) {
        if let Phase::Decide(draft, _) = std::mem::replace(&mut self.phase, Phase::Over) {
            // A put whose old value is only known when it is applied is never more than one key.
            out.push(Effect::Reply(Ok(draft.settle(revision, None))));
        }
    }

    fn on_ticket(
        &mut self,
        head: Head,
        view: &dyn View,
        out: &mut Vec<Effect>,
    ) -> Result<(), ViewError> {
        match self.phase {
            Phase::Prepare => {
                self.head = Some(head);
                self.asked = None;
                Ok(())
            }
            Phase::Answer => {
                let leases = StoredLeases(view);
                match mvcc::outcome_without_effect(view, head, &leases, &self.command) {
                    Ok(Some(answer)) => self.reply(Ok(answer), out),
                    Err(Failure::Client(error)) => self.reply(Err(error), out),
                    // A compaction or a lease has come in between, or a state that was not shown.
                    Ok(None) | Err(Failure::Overtaken) => self.try_again(out),
                    Err(Failure::View(error)) => return Err(error),
                }
                Ok(())
            }
            Phase::Decide(..) | Phase::Over => Ok(()),
        }
    }

    fn reply(&mut self, outcome: Outcome, out: &mut Vec<Effect>) {
        if !matches!(self.phase, Phase::Over) {
            self.phase = Phase::Over;
            out.push(Effect::Abort);
            out.push(Effect::Reply(outcome));
        }
    }

    fn try_again(&mut self, out: &mut Vec<Effect>) {
        if !matches!(self.phase, Phase::Over) {
            self.phase = Phase::Over;
            out.push(Effect::TryAgain(self.command.clone()));
        }
    }
}

#[cfg(test)]
mod tests;
