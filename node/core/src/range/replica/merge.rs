//! A range is merged into the one before it. The right range locks all of its keys, and says so once
//! its whole log is on the disk of every member: then each replica can finish alone. The left one
//! takes over, replica by replica, when the right one has finished there. See
//! docs/life-of-a-merge.md.

use std::mem;

use crate::GroupId;
use crate::command::RequestId;
use crate::group::{self, Part};
use crate::mutant::{self, Mutant};
use crate::proto::Span;
use crate::proto::internal::{ConfState, Lock, Merge, Resolve};
use crate::range::lock;
use crate::range::replica::member::CLOSE_ENTRIES;
use crate::range::replica::txn::Prepared;
use crate::range::replica::write::Waiting;
use crate::range::replica::{Effect, Input, Replica};
use crate::range::stored::Stored;
use crate::spine::txns;
use crate::view::{View, ViewError};

/// Whether the replica of the right range on this node has applied everything that the range ever
/// wrote.
///
/// # Errors
/// The store cannot be read.
pub(super) fn is_finished(merge: &Merge, view: &dyn View) -> Result<bool, ViewError> {
    let stored = Stored::load(view, GroupId(merge.right))?;
    Ok(stored.is_some_and(|stored| stored.position.index >= merge.right_at))
}

// The range that ceases.
impl Replica {
    /// Whether the membership can be locked as it is asked for. Clients of a range that is to cease
    /// wait while it is locked, so nobody is waited for who is known to be down.
    pub(super) fn may_lock_members(&self, locks: &[Lock]) -> bool {
        let Some(lock) = lock::membership(locks) else { return true };
        let last = self.group.last_index();
        let progress = self.group.progress();
        let is_close = progress.iter().all(|it| {
            it.is_recently_active && !it.is_snapshotting && it.matched + CLOSE_ENTRIES >= last
        });
        // Keys that are not locked could still be cut off, and the range be again what was asked for.
        let locks_all = || lock::spans(locks).eq([self.span.clone()]);
        self.has_members(lock) && (!lock.is_write || (is_close && locks_all()))
    }

    fn has_members(&self, lock: &Lock) -> bool {
        let ConfState { mut voters, learners, voters_outgoing, .. } = self.group.conf();
        voters.extend(learners);
        voters.sort_unstable();
        voters_outgoing.is_empty() && voters == lock.members && !self.group.is_change_pending()
    }

    /// Nobody comes or goes while a merge is under way.
    pub(super) fn are_members_locked(&self) -> bool {
        self.prepared.values().any(|it| !it.is_resolved && it.membership().is_some())
    }

    /// Whether the log has locked the membership for a merge of which it does not tell yet.
    pub fn is_merging(&self) -> bool {
        self.prepared.values().any(|it| it.membership().is_some())
    }

    /// A locked membership counts once nobody can come or go any more. Of a range that is to cease,
    /// the log has come to its end as well; once every member has all of it, and it tells how
    /// everything was numbered, nobody needs anybody else to finish.
    pub(super) fn tell_members_locked(&mut self) {
        if self.role.part != Part::Leader {
            return;
        }
        let is_due = |it: &Prepared| {
            it.guard.is_some() && !it.is_told && !it.is_resolved && it.membership().is_some()
        };
        let due: Vec<RequestId> =
            self.prepared.iter().filter(|(_, it)| is_due(it)).map(|(id, _)| *id).collect();
        for id in due {
            let prepared = &self.prepared[&id];
            let lock = prepared.membership().expect("listed above").clone();
            let at = if lock.is_write { self.end_of_log() } else { Some(prepared.index) };
            let Some(at) = at.filter(|at| *at >= prepared.index) else { continue };
            if self.has_members(&lock) {
                self.prepared.get_mut(&id).expect("listed above").is_told = true;
                self.out.push(Effect::Prepared(id, at));
            }
        }
    }

    /// The index up to which every member has the log, if that tells of everything that was written,
    /// how it was numbered, and what became of every transaction but the merge.
    fn end_of_log(&self) -> Option<u64> {
        let end = self.joined.index;
        let is_all_joined = self.staged.is_empty() && self.joined.seq == self.committed;
        let is_noted =
            self.numbering.noted() == self.committed || mutant::is(Mutant::MergeNotNoted);
        assert!(self.prepared.len() == 1, "a range that is to cease is locked by nobody else");
        let is_everywhere = || {
            self.group.progress().iter().all(|it| it.matched >= end)
                || mutant::is(Mutant::MergeNotEverywhere)
        };
        (self.is_serving() && is_all_joined && is_noted && is_everywhere()).then_some(end)
    }

    /// Another range has the keys here.
    pub(super) fn retire(&mut self) {
        self.is_retired = true;
        self.span = Span { start: self.span.start.clone(), end: Some(self.span.start.clone()) };
        for (_, waiting) in mem::take(&mut self.waiting) {
            self.out.push(match waiting {
                Waiting::Write { to, command, .. } => Effect::Unproposed(to, command),
                Waiting::Prepare { id, .. } => Effect::PrepareFailed(id),
            });
        }
        for (to, command) in mem::take(&mut self.parked) {
            self.out.push(Effect::Unproposed(to, command));
        }
        self.drop_tickets();
        assert!(self.writes.is_empty(), "nothing is written to a range that has ceased");
        self.tell_retired();
    }

    /// The log is durable to its end: nothing more will be heard of this machine's appends, which
    /// another machine of this range on this node could take for its own.
    fn tell_retired(&mut self) {
        if self.group.is_all_persisted() {
            self.out.push(Effect::Retired);
        }
    }

    /// What comes late.
    pub(super) fn hand_back(&mut self, input: Input) {
        match input {
            Input::Submit(to, command) => self.out.push(Effect::Unproposed(to, command)),
            Input::Prepare(id, _) => self.out.push(Effect::PrepareFailed(id)),
            // It may have been lost.
            Input::Retire => self.tell_retired(),
            Input::Persisted(token) => {
                // What waited for it is wanted by nobody.
                self.group.step(group::Input::Persisted { token }, &mut Vec::new());
                self.tell_retired();
            }
            _ => {}
        }
    }
}

// The range that takes over.
impl Replica {
    /// What a committed entry says of a range that is to be taken over, if that was not done.
    pub(super) fn merge_to_join(&self, resolve: &Resolve) -> Option<Merge> {
        let is_open = self.prepared.contains_key(&txns::id_of(resolve.id.as_ref()));
        resolve.merge.clone().filter(|_| is_open)
    }

    /// The right range may lag, and nobody may lead it any more.
    pub(super) fn ask_to_finish(&mut self, merge: &Merge) {
        if self.finish_due.is_none_or(|due| due <= self.now) {
            self.finish_due = Some(self.now + self.config.report_again_after);
            self.out.push(Effect::WantFinish(GroupId(merge.right), merge.right_at));
        }
    }

    /// The keys after this range's are its own from here on. Everything that was done to them before
    /// is in the store.
    pub(super) fn take_over(&mut self, merge: &Merge) -> GroupId {
        let end = Span::from_request(self.span.start.clone(), merge.end.clone()).end;
        assert!(
            merge.left == self.config.range.0 && self.span.end.is_some() && end != self.span.end,
            "{merge:?} is taken over by {:?}",
            self.span
        );
        self.span.end = end;
        self.generation += 1;
        GroupId(merge.right)
    }
}
