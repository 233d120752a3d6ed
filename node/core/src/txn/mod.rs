//! The coordinator of a transaction over several ranges: it has the keys locked in all of them, in
//! the order of their ids so that no two wait for each other, decides on the state before, and puts
//! the decision into the spine, which gives it its revision (I8).
//!
//! One coordinator is one attempt, with a name of its own. What it knows is in memory only: when it
//! is lost, a range that waits too long ends the attempt.

mod cut;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::command::{Answer, Command, Outcome, RequestId};
use crate::mutant::{self, Mutant};
use crate::mvcc::{self, Draft, Evaluated, Failure, Head};
use crate::proto::Span;
use crate::proto::etcdserverpb as pb;
use crate::proto::internal::{self, Lock, Record, Share, TxnCommit, record::Body};
use crate::spine::ranges::Ranges;
use crate::spine::state::StoredLeases;
use crate::time::{Length, Time};
use crate::view::{View, ViewError};
use crate::{Error, GroupId, LeaseId};

pub use cut::owners;

/// What was sent and is not answered is sent again after this.
const AGAIN_AFTER: Length = Length::from_ms(500);

/// What is to be done at once in several ranges.
#[derive(Clone, Debug, PartialEq)]
pub enum Job {
    /// A Put, DeleteRange or Txn.
    Change(Command),
    /// A lease ends, and its keys are deleted.
    LeaseEnd {
        /// The lease.
        id: i64,
        /// See `internal::LeaseRevoke`.
        expired_in_term: u64,
        /// See `internal::LeaseRevoke`.
        granted_at: u64,
        /// The ranges other than 0 in which it may have keys.
        ranges: BTreeSet<u64>,
    },
    /// A range is cut.
    Split {
        /// The range.
        range: GroupId,
        /// The first key of the new one.
        key: Bytes,
        /// Its keys can be read on this node.
        is_here: bool,
    },
    /// A range takes over the keys of the next one.
    Merge {
        /// It stays.
        left: GroupId,
        /// It ceases.
        right: GroupId,
    },
}

/// What a coordinator is told.
#[derive(Clone, Debug)]
pub enum Input {
    /// Time has moved on.
    Tick,
    /// The keys in a range are locked by the entry at this index of its log; in range 0 by the
    /// spine's leader of this term.
    Prepared(GroupId, u64),
    /// A range will not lock its keys for this attempt. It may be late: a later leader of the range
    /// may have locked them meanwhile.
    PrepareFailed(GroupId),
    /// Somebody else leads a range than who was asked to lock its keys.
    AskAgain(GroupId),
    /// The spine has committed it, at this revision or, if it changes no key, without one; the
    /// second is that of the state after it.
    Committed(i64, i64),
    /// The spine has refused it: what it relied on is not so.
    Rejected(Error),
    /// It has ended in the spine without effect.
    Ended,
    /// The ticket asked for is good: the store shows everything up to this head, and the spine had
    /// not ended the transaction by then.
    Ticket(Head),
    /// The ticket asked for will not come.
    TicketFailed(Error),
}

/// What is to be done for it.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Ask the leader of a range to lock these.
    Prepare(GroupId, Vec<Lock>),
    /// Put this into the spine. The first record of that name counts.
    Propose(Record),
    /// A ticket of the spine, and then an applied state that is not older.
    WantTicket,
    /// End it in the spine, so that its locks are given back.
    Abort,
    /// The attempt is over, and this came of it.
    Reply(Outcome),
    /// Nothing has come of the attempt, and nothing will: make another.
    TryAgain(Job),
}

enum Phase {
    /// Locks are being taken.
    Prepare,
    /// All are held: a ticket makes sure that everything written before is seen.
    Read,
    /// It is decided, and the spine has to say so.
    Decide(Box<Decided>),
    Over,
}

struct Decided {
    /// The answer but for the revision; nothing of the end of a lease.
    draft: Option<Draft>,
    record: Record,
}

/// One attempt.
pub struct Coordinator {
    id: RequestId,
    job: Job,
    /// In the order in which they lock.
    locks: BTreeMap<GroupId, Vec<Lock>>,
    prepared: BTreeMap<GroupId, u64>,
    phase: Phase,
    asked: Option<Time>,
}

impl Coordinator {
    /// An attempt. `id` is never used again.
    pub fn new(id: RequestId, job: Job, ranges: &Ranges) -> Self {
        let locks = match &job {
            Job::Change(command) => cut::locks(ranges, command),
            Job::LeaseEnd { id, ranges, .. } => {
                let lock = Lock { lease: *id, is_write: true, ..Lock::default() };
                let ids = [GroupId::SPINE].into_iter().chain(ranges.iter().copied().map(GroupId));
                ids.map(|range| (range, vec![lock.clone()])).collect()
            }
            Job::Split { range, key, .. } => {
                let mut lock = cut::rest_of_range(ranges, key);
                if mutant::is(Mutant::SplitNoDrain) {
                    lock.range_end.clear();
                }
                BTreeMap::from([(*range, vec![lock])])
            }
            Job::Merge { left, right } => cut::merge(ranges, *left, *right),
        };
        let (prepared, asked) = (BTreeMap::new(), None);
        Self { id, job, locks, prepared, phase: Phase::Prepare, asked }
    }

    /// Takes one input. `view` is the applied state of a node that holds all of the ranges.
    ///
    /// # Errors
    /// The store cannot be read; the process must stop.
    pub fn step(
        &mut self,
        now: Time,
        view: &dyn View,
        ranges: &Ranges,
        input: Input,
        out: &mut Vec<Effect>,
    ) -> Result<(), ViewError> {
        match input {
            Input::Tick => {}
            Input::Prepared(range, at) => self.on_prepared(range, at),
            Input::PrepareFailed(range)
                if matches!(self.phase, Phase::Prepare) && !self.prepared.contains_key(&range) =>
            {
                self.abort(out);
                self.try_again(out);
            }
            Input::PrepareFailed(_) => {}
            Input::AskAgain(range) => {
                if matches!(self.phase, Phase::Prepare) && !self.prepared.contains_key(&range) {
                    self.asked = None;
                }
            }
            Input::Ended => self.try_again(out),
            Input::Committed(revision, head) => self.on_committed(revision, head, ranges, out),
            Input::Rejected(error) => self.reply(Err(error), out),
            Input::TicketFailed(error) if matches!(self.phase, Phase::Read) => {
                self.abort(out);
                self.reply(Err(error), out);
            }
            Input::TicketFailed(_) => {}
            Input::Ticket(head) if matches!(self.phase, Phase::Read) => {
                self.decide(now, head, view, ranges, out)?;
            }
            Input::Ticket(_) => {}
        }
        let is_due = self.asked.is_none_or(|asked| asked + AGAIN_AFTER <= now);
        let has_ceased = |range: &GroupId| *range != GroupId::SPINE && ranges.get(*range).is_none();
        match &self.phase {
            // It was merged away, and would never answer.
            Phase::Prepare if self.locks.is_empty() || self.locks.keys().any(has_ceased) => {
                self.give_up(out)?;
            }
            Phase::Prepare => {
                let next = self.locks.iter().find(|(range, _)| !self.prepared.contains_key(range));
                match next {
                    Some((range, locks)) if is_due => {
                        self.asked = Some(now);
                        out.push(Effect::Prepare(*range, locks.clone()));
                    }
                    Some(_) => {}
                    None => {
                        self.phase = Phase::Read;
                        out.push(Effect::WantTicket);
                    }
                }
            }
            Phase::Decide(decided) if is_due => {
                self.asked = Some(now);
                out.push(Effect::Propose(decided.record.clone()));
            }
            Phase::Read | Phase::Decide(_) | Phase::Over => {}
        }
        Ok(())
    }

    /// The ticket has come: what could be read on this node at the beginning may be gone.
    pub fn look_again(&mut self, can_read: impl Fn(GroupId) -> bool) {
        if let Job::Split { range, is_here, .. } = &mut self.job {
            *is_here = *is_here && can_read(*range);
        }
    }

    /// The attempt's name.
    pub fn id(&self) -> RequestId {
        self.id
    }

    /// What it is to do.
    pub fn job(&self) -> &Job {
        &self.job
    }

    /// Whether it may have been committed.
    pub fn is_decided(&self) -> bool {
        matches!(self.phase, Phase::Decide(_))
    }

    fn on_prepared(&mut self, range: GroupId, at: u64) {
        // A repeated answer of range 0 may come from a later leader; the first was relied on.
        if self.locks.contains_key(&range) && !self.prepared.contains_key(&range) {
            self.prepared.insert(range, at);
            self.asked = None;
        }
    }

    /// All keys are locked, and this node has everything that was written before: decides.
    fn decide(
        &mut self,
        now: Time,
        head: Head,
        view: &dyn View,
        ranges: &Ranges,
        out: &mut Vec<Effect>,
    ) -> Result<(), ViewError> {
        self.asked = Some(now);
        let (commit, draft) = match &self.job {
            Job::Change(command) => {
                match mvcc::evaluate_newest(view, head, &mvcc::FoldDecides, command)? {
                    Evaluated::NoEffect => return self.answer(head, view, out),
                    Evaluated::Effects { effects, draft, reads_at } => {
                        let Some(shares) = self.shares(view, effects, ranges)? else {
                            return self.give_up(out);
                        };
                        let effects = shares.iter().flat_map(|share| &share.effects);
                        let leases = mvcc::attached_leases(effects);
                        let commit = TxnCommit { shares, leases, reads_at, ..TxnCommit::default() };
                        (commit, Some(draft))
                    }
                }
            }
            Job::LeaseEnd { id, expired_in_term, granted_at, .. } => {
                let effects = cut::lease_end(*id, mvcc::lease_keys(view, LeaseId(*id))?);
                // A key may have been attached elsewhere before the locks were held.
                let Some(shares) = self.shares(view, effects, ranges)? else {
                    return self.give_up(out);
                };
                let lease_end = Some(internal::LeaseEnd {
                    id: *id,
                    expired_in_term: *expired_in_term,
                    granted_at: *granted_at,
                });
                (TxnCommit { shares, lease_end, ..TxnCommit::default() }, None)
            }
            Job::Split { range, key, is_here } => {
                let lock = cut::rest_of_range(ranges, key);
                let is_locked =
                    self.locks[range] == [lock.clone()] || mutant::is(Mutant::SplitNoDrain);
                if ranges.owner(key) != *range || !is_locked {
                    return self.give_up(out);
                }
                let end = lock.range_end.clone();
                let span = Span::from_request(lock.key, lock.range_end);
                let split = internal::Split {
                    end,
                    parent: range.0,
                    key: key.clone(),
                    child: 0,
                    leases: if *is_here {
                        mvcc::leases_within(view, &span)?.into_iter().collect()
                    } else {
                        Vec::new()
                    },
                    is_any_lease: !is_here,
                    prepared_at: self.prepared[range],
                };
                (TxnCommit { split: Some(split), ..TxnCommit::default() }, None)
            }
            Job::Merge { left, right } => {
                let end = self.locks[right].first().map(|lock| lock.range_end.clone());
                let merge = internal::Merge {
                    left: left.0,
                    right: right.0,
                    end: end.unwrap_or_default(),
                    left_at: self.prepared[left],
                    right_at: self.prepared[right],
                };
                (TxnCommit { merge: Some(merge), ..TxnCommit::default() }, None)
            }
        };
        let spine_term = self.prepared.get(&GroupId::SPINE).copied().unwrap_or(0);
        let ranges = self.locks.keys().map(|range| range.0).collect();
        let body = Some(Body::TxnCommit(TxnCommit { spine_term, ranges, ..commit }));
        let record = Record { origin: self.id.origin, n: self.id.n, body };
        out.push(Effect::Propose(record.clone()));
        self.phase = Phase::Decide(Box::new(Decided { draft, record }));
        Ok(())
    }

    /// What was decided does not fit what is locked, because the locks were lost.
    fn give_up(&mut self, out: &mut Vec<Effect>) -> Result<(), ViewError> {
        self.abort(out);
        self.try_again(out);
        Ok(())
    }

    /// Cuts the effects by range. Their sub-revisions follow their order in the whole. `None` if a
    /// range is not among those that are locked.
    fn shares(
        &self,
        view: &dyn View,
        effects: Vec<internal::Effect>,
        ranges: &Ranges,
    ) -> Result<Option<Vec<Share>>, ViewError> {
        let mut shares: BTreeMap<GroupId, Share> = BTreeMap::new();
        let mut sub = 0;
        for effect in effects {
            for (range, part) in cut::effect(ranges, effect) {
                let keys_count = cut::keys_count(view, &part)?;
                if keys_count == 0 {
                    continue;
                }
                let Some(prepared_at) = self.prepared.get(&range).copied() else {
                    return Ok(None);
                };
                let share = shares.entry(range).or_default();
                (share.range, share.prepared_at) = (range.0, prepared_at);
                share.effects.push(part);
                share.subs.push(sub);
                sub += keys_count;
            }
        }
        Ok(Some(shares.into_values().collect()))
    }

    fn on_committed(&mut self, revision: i64, head: i64, ranges: &Ranges, out: &mut Vec<Effect>) {
        let Phase::Decide(decided) = std::mem::replace(&mut self.phase, Phase::Over) else {
            return;
        };
        let answer = match (decided.draft, &self.job) {
            // A put whose old value is only known when it is applied is never more than one key.
            (Some(draft), _) => draft.settle(revision, None),
            (None, Job::Split { key, .. }) => {
                Answer::Split(internal::SplitAnswer { range: ranges.owner(key).0 })
            }
            (None, Job::Merge { left, .. }) => {
                Answer::Merge(internal::MergeAnswer { range: left.0 })
            }
            (None, _) => {
                let header = pb::ResponseHeader { revision: head, ..pb::ResponseHeader::default() };
                Answer::LeaseRevoke(pb::LeaseRevokeResponse { header: Some(header) })
            }
        };
        out.push(Effect::Reply(Ok(answer)));
    }

    /// It has no effect, at a ticket that was asked for when all keys were locked.
    fn answer(
        &mut self,
        head: Head,
        view: &dyn View,
        out: &mut Vec<Effect>,
    ) -> Result<(), ViewError> {
        let Job::Change(command) = &self.job else { return Ok(()) };
        let outcome = mvcc::outcome_without_effect(view, head, &StoredLeases(view), command);
        self.abort(out);
        match outcome {
            Ok(Some(answer)) => self.reply(Ok(answer), out),
            Err(Failure::Client(error)) => self.reply(Err(error), out),
            // A compaction or a lease has come in between, or a state that was not shown.
            Ok(None) | Err(Failure::Overtaken) => self.try_again(out),
            Err(Failure::View(error)) => return Err(error),
        }
        Ok(())
    }

    /// Gives the locks back, if there are any; not when it may be committed yet.
    fn abort(&self, out: &mut Vec<Effect>) {
        if matches!(self.phase, Phase::Prepare | Phase::Read) && !self.prepared.is_empty() {
            out.push(Effect::Abort);
        }
    }

    fn reply(&mut self, outcome: Outcome, out: &mut Vec<Effect>) {
        if !matches!(self.phase, Phase::Over) {
            self.phase = Phase::Over;
            out.push(Effect::Reply(outcome));
        }
    }

    fn try_again(&mut self, out: &mut Vec<Effect>) {
        if !matches!(self.phase, Phase::Over) {
            self.phase = Phase::Over;
            out.push(Effect::TryAgain(self.job.clone()));
        }
    }
}

#[cfg(test)]
mod tests;
