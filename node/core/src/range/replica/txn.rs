//! The part of a transaction over several ranges that is this range's: its keys are locked by an
//! entry of the log, and stay locked until another entry tells what became of it, with its changes
//! (I8). So the locks outlive the leader, and the log explains itself.

use std::collections::BTreeMap;
use std::mem;

use crate::GroupId;
use crate::command::RequestId;
use crate::group::Part;
use crate::mutant::{self, Mutant};
use crate::proto::Span;
use crate::proto::internal::{Lock, Prepare, PreparedTxn, Resolve, Share, Split};
use crate::range::latch::Guard;
use crate::range::lock;
use crate::range::replica::write::Waiting;
use crate::range::replica::{Effect, Replica};
use crate::range::stored::Stored;
use crate::spine::apply::Step;
use crate::spine::txns::{self, Decision};
use crate::time::{Length, Time};
use crate::view::{View, ViewError};

/// A transaction whose locks are committed.
#[derive(Clone, Debug)]
pub(super) struct Prepared {
    pub(super) prepare: Prepare,
    /// Where it stands in the log.
    pub(super) index: u64,
    /// On the leader.
    pub(super) guard: Option<Guard>,
    since: Time,
    /// What became of it is proposed.
    pub(super) is_resolving: bool,
    /// What became of it is committed.
    pub(super) is_resolved: bool,
    /// Of the membership: its coordinator has heard since it asked last.
    pub(super) is_told: bool,
}

impl Prepared {
    fn new(prepare: Prepare, index: u64, guard: Option<Guard>, since: Time) -> Self {
        let (is_resolving, is_resolved, is_told) = (false, false, false);
        Self { prepare, index, guard, since, is_resolving, is_resolved, is_told }
    }

    /// The membership that is locked, if it is.
    pub(super) fn membership(&self) -> Option<&Lock> {
        lock::membership(&self.prepare.locks)
    }
}

/// Locks that nobody has asked for again for so long, while they were waited for, are not taken:
/// their coordinator is gone. It would ask several times in that time.
pub(crate) const UNWANTED_AFTER: Length = Length::from_ms(2_000);

/// As it was stored.
pub(super) fn from_stored(stored: Vec<PreparedTxn>, now: Time) -> BTreeMap<RequestId, Prepared> {
    let from = |it: PreparedTxn| {
        let prepare = it.prepare.unwrap_or_default();
        let id = txns::id_of(prepare.id.as_ref());
        (id, Prepared::new(prepare, it.index, None, now))
    };
    stored.into_iter().map(from).collect()
}

impl Replica {
    pub(super) fn on_prepare(
        &mut self,
        id: RequestId,
        locks: Vec<Lock>,
        view: &dyn View,
    ) -> Result<(), ViewError> {
        let is_waiting = self
            .waiting
            .values()
            .any(|waiting| matches!(waiting, Waiting::Prepare { id: other, .. } if *other == id));
        if is_waiting {
            self.wanted.insert(id, self.now);
        }
        if is_waiting || self.preparing.contains_key(&id) {
            return Ok(());
        }
        if let Some(prepared) = self.prepared.get_mut(&id) {
            if prepared.membership().is_some() {
                // Said when it is so.
                prepared.is_told = false;
            } else {
                self.out.push(Effect::Prepared(id, prepared.index));
            }
            return Ok(());
        }
        let is_full = self.waiting.len() + self.proposed.len() >= self.config.limits.writes_max;
        let is_inside = lock::are_within(&locks, &self.span);
        let is_ready = self.is_serving() && self.group.transferee().is_none();
        if !is_ready || is_full || !is_inside || !self.may_lock_members(&locks) {
            self.out.push(Effect::PrepareFailed(id));
            return Ok(());
        }
        self.wanted.insert(id, self.now);
        let span = &self.span;
        let locks = lock::with_attached_keys(view, locks, Some(span), |key| span.contains(key))?;
        self.latch(lock::footprint(&locks), Waiting::Prepare { id, locks }, view)
    }

    /// The locks are held in memory. Nobody can attach a key to a lease that is locked, but one may
    /// have been attached while the locks were waited for; then they are taken anew.
    pub(super) fn propose_prepare(
        &mut self,
        guard: Guard,
        id: RequestId,
        locks: Vec<Lock>,
        view: &dyn View,
    ) -> Result<(), ViewError> {
        let wanted = self.wanted.remove(&id);
        let is_wanted = wanted.is_some_and(|at| at + UNWANTED_AFTER > self.now);
        let is_possible = lock::are_within(&locks, &self.span) && self.may_lock_members(&locks);
        if !is_wanted || !is_possible {
            self.out.push(Effect::PrepareFailed(id));
            return self.unlatch(vec![guard], view);
        }
        let span = &self.span;
        let needed =
            lock::with_attached_keys(view, locks.clone(), Some(span), |key| span.contains(key))?;
        if needed.len() > locks.len() {
            self.unlatch(vec![guard], view)?;
            self.wanted.insert(id, self.now);
            return self.latch(
                lock::footprint(&needed),
                Waiting::Prepare { id, locks: needed },
                view,
            );
        }
        self.preparing.insert(id, guard);
        self.prepares.push(Prepare { id: Some(txns::to_proto(id)), locks });
        Ok(())
    }

    /// A committed entry locks keys, or tells what became of a transaction.
    pub(super) fn stage_txns(&mut self, index: u64, prepares: Vec<Prepare>, resolves: &[Resolve]) {
        for prepare in prepares {
            let id = txns::id_of(prepare.id.as_ref());
            let guard = self.preparing.remove(&id);
            let prepared = Prepared::new(prepare, index, guard, self.now);
            if guard.is_some() && prepared.membership().is_none() {
                self.out.push(Effect::Prepared(id, index));
            }
            match self.newest_prepared(id) {
                None => {
                    self.prepared.insert(id, prepared);
                }
                Some(before) => {
                    assert!(before.is_resolved, "transaction {id:?} locks its keys once at a time");
                    self.prepared_late.entry(id).or_default().push_back(prepared);
                }
            }
        }
        for resolve in resolves {
            let id = txns::id_of(resolve.id.as_ref());
            if let Some(prepared) = self.newest_prepared(id) {
                prepared.is_resolved = true;
                self.resolved.insert(id);
            }
        }
    }

    /// As far as the log is known here.
    fn newest_prepared(&mut self, id: RequestId) -> Option<&mut Prepared> {
        match self.prepared_late.get_mut(&id) {
            Some(late) => late.back_mut(),
            None => self.prepared.get_mut(&id),
        }
    }

    /// Only the first that is told of a transaction counts: a leader and its successor may both
    /// tell it.
    pub(super) fn join_resolve(
        &mut self,
        index: u64,
        resolve: Resolve,
        steps: &mut Vec<Step>,
    ) -> Option<RequestId> {
        let id = txns::id_of(resolve.id.as_ref());
        let prepared = self.prepared.remove(&id)?;
        if let Some(late) = self.prepared_late.get_mut(&id) {
            let next = late.pop_front().expect("none is kept that is empty");
            if late.is_empty() {
                self.prepared_late.remove(&id);
            }
            self.prepared.insert(id, next);
        }
        self.unapplied.extend(prepared.guard.map(|guard| (index, guard)));
        let Resolve { revision, effects, subs, .. } = resolve;
        if revision != 0 {
            steps.push(Step { revision, effects, subs, ..Step::default() });
        }
        Some(id)
    }

    /// Keys from one on are a range of their own from here. Everything that this range did to them
    /// is before, on every replica.
    pub(super) fn split_off(&mut self, split: &Split) -> (GroupId, Stored) {
        let start = split.key.clone();
        assert!(
            self.span.contains(&start) && start != self.span.start,
            "{start:?} is split off {:?}",
            self.span
        );
        let end = self.span.end.replace(start.clone());
        self.generation += 1;
        let stored = Stored::first(self.holders.conf.clone(), Span { start, end });
        (GroupId(split.child), stored)
    }

    /// What the store keeps of the locks, with everything up to what is joined.
    pub(super) fn stored_prepared(&self) -> Vec<PreparedTxn> {
        let joined = self.prepared.values().filter(|it| it.index <= self.joined.index);
        let stored =
            |it: &Prepared| PreparedTxn { index: it.index, prepare: Some(it.prepare.clone()) };
        joined.map(stored).collect()
    }

    /// A new leader holds the locks that are in the log, before it evaluates anything (I5).
    pub(super) fn lock_again(&mut self) {
        for (id, prepared) in &mut self.prepared {
            let is_skipped = mutant::is(Mutant::LocksNotRetaken);
            if prepared.guard.is_some() || prepared.is_resolved || is_skipped {
                continue;
            }
            let (guard, is_granted) =
                self.latches.acquire(lock::footprint(&prepared.prepare.locks));
            assert!(is_granted, "the locks of {id:?} are in conflict with others");
            prepared.guard = Some(guard);
            prepared.since = self.now;
        }
        self.out.push(Effect::WantNumbers);
    }

    /// The leader writes into the log what became of a transaction.
    pub(super) fn on_decided(&mut self, id: RequestId, decision: Decision) {
        let is_ready = self.is_serving() && self.group.transferee().is_none();
        let Some(prepared) = self.prepared.get_mut(&id).filter(|_| is_ready) else { return };
        if prepared.is_resolving || prepared.is_resolved {
            return;
        }
        prepared.is_resolving = true;
        let id = Some(txns::to_proto(id));
        self.resolves.push(match decision {
            Decision::Abort => Resolve { id, ..Resolve::default() },
            // These locks are of a request that came late; what was decided is in the log before them.
            Decision::Commit(_, share) if share.prepared_at < prepared.index => {
                Resolve { id, ..Resolve::default() }
            }
            Decision::Commit(revision, share) => {
                assert!(
                    share.prepared_at == prepared.index
                        && (revision > 0 || share.split.is_some() || share.merge.is_some()),
                    "it was decided on the locks at {}, not at {}",
                    share.prepared_at,
                    prepared.index
                );
                let Share { effects, subs, split, merge, .. } = share;
                Resolve { id, revision, effects, subs, split, merge }
            }
        });
    }

    /// The spine does not know yet that the log tells of these, if it does.
    pub(super) fn on_open_txns(&mut self, open: &[(RequestId, u64)]) {
        let last = self.staged.back().map_or(self.joined.index, |staged| staged.index);
        let is_told = |(id, prepared_at): &&(RequestId, u64)| {
            let is_locked = self.prepared.get(id).is_some_and(|it| !it.is_resolved);
            *prepared_at <= last && !is_locked
        };
        self.resolved = open.iter().filter(is_told).map(|(id, _)| *id).collect();
    }

    /// Whether anything is to be asked of the spine.
    pub(super) fn tick_txns(&mut self) -> bool {
        if self.role.part != Part::Leader {
            return false;
        }
        let horizon = self.now - self.config.abort_after;
        let undecided = self.undecided();
        for id in &undecided {
            let prepared = self.prepared.get_mut(id).expect("listed above");
            if prepared.since <= horizon {
                prepared.since = self.now;
                self.out.push(Effect::AbortTxn(*id));
            }
        }
        !undecided.is_empty() || !self.resolved.is_empty()
    }

    pub(super) fn stop_txns(&mut self) {
        self.preparing.clear();
        self.wanted.clear();
        for prepared in self.prepared.values_mut() {
            prepared.guard = None;
            prepared.is_resolving = false;
            prepared.is_told = false;
        }
    }

    /// What was gathered of transactions is in no log.
    pub(super) fn drop_gathered_txns(&mut self) -> Vec<Guard> {
        let mut guards = Vec::new();
        for prepare in mem::take(&mut self.prepares) {
            let id = txns::id_of(prepare.id.as_ref());
            guards.extend(self.preparing.remove(&id));
            self.out.push(Effect::PrepareFailed(id));
        }
        for resolve in mem::take(&mut self.resolves) {
            let id = txns::id_of(resolve.id.as_ref());
            if let Some(prepared) = self.prepared.get_mut(&id) {
                prepared.is_resolving = false;
            }
        }
        guards
    }
}
