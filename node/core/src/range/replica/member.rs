//! Replicas that come and go: changes of the membership, and when a replica that is new, or was
//! replaced by a snapshot, has everything.

use crate::NodeId;
use crate::group::{self, Change, ChangeStep, Ignored, Kind, Refusal, conf};
use crate::mutant::{self, Mutant};
use crate::proto::internal::{RaftMessage, SnapshotMark};
use crate::range::replica::write::Holder;
use crate::range::replica::{Effect, Replica};

/// A learner may vote when it lacks at most so many entries.
pub(super) const CLOSE_ENTRIES: u64 = 100;

/// How far a replica is with what was numbered or decided before it was here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CatchUp {
    /// It has not asked yet how far that goes.
    Wanted,
    /// The number of the ticket of its own group that it has asked for.
    Asked(u64),
    /// It has everything once it has applied this index.
    Behind(u64),
    Done,
}

impl Replica {
    /// A new membership is proposed by the leader, or refused at once.
    pub(super) fn on_change_replicas(&mut self, change: Change) {
        if self.are_members_locked() {
            self.out.push(Effect::ReplicasRefused(Refusal::ChangePending));
            return;
        }
        self.refusal = None;
        self.drive(group::Input::ProposeChange { change, context: Default::default() });
        if let Some(refusal) = self.refusal.take() {
            self.out.push(Effect::ReplicasRefused(refusal));
        }
    }

    /// The leader takes the next step to the wanted membership, if none is under way: everybody who
    /// is wanted begins as a learner, votes once it has most of the log, and who is not wanted goes
    /// last.
    pub(super) fn follow_members(&mut self) {
        let is_ready = self.is_serving()
            && self.group.transferee().is_none()
            && !self.group.is_change_pending()
            && !self.is_removed
            && !self.are_members_locked();
        let wanted = self.wanted_conf.as_ref().filter(|_| is_ready);
        let Some((wanted, removed)) = wanted else { return };
        let conf = self.group.conf();
        if !conf.voters_outgoing.is_empty() {
            return;
        }
        let last = self.group.last_index();
        let is_close = |id: u64| {
            let progress = self.group.progress();
            let progress = progress.iter().find(|progress| progress.node == NodeId(id));
            progress.is_some_and(|it| {
                it.is_recently_active && !it.is_snapshotting && it.matched + CLOSE_ENTRIES >= last
            })
        };
        let is_in = |id: &u64| conf.voters.contains(id) || conf.learners.contains(id);
        let is_wanted = |id: &u64| wanted.voters.contains(id) || wanted.learners.contains(id);
        let missing = wanted.voters.iter().chain(&wanted.learners).find(|id| !is_in(id));
        let promoted = conf.learners.iter().find(|id| wanted.voters.contains(id) && is_close(**id));
        let unwanted = conf.voters.iter().chain(&conf.learners).find(|id| {
            !is_wanted(id) && (removed.contains(id) || mutant::is(Mutant::StrangersRemoved))
        });
        let step = match (missing, promoted, unwanted) {
            (Some(id), ..) => ChangeStep::AddLearner(NodeId(*id)),
            (_, Some(id), _) => ChangeStep::AddVoter(NodeId(*id)),
            (.., Some(id)) => ChangeStep::Remove(NodeId(*id)),
            (None, None, None) => return,
        };
        self.on_change_replicas(Change::one(step));
    }

    /// A leader has nothing to change in the membership.
    pub(super) fn has_wanted_members(&self) -> bool {
        let wanted = self.wanted_conf.as_ref().filter(|_| self.group.is_leader());
        let Some((wanted, _)) = wanted else {
            return true;
        };
        let conf = self.group.conf();
        let is_in = |id: &u64| conf.voters.contains(id) || conf.learners.contains(id);
        let is_wanted = |id: &u64| wanted.voters.contains(id) || wanted.learners.contains(id);
        wanted.voters.iter().all(|id| conf.voters.contains(id))
            && wanted.learners.iter().all(is_in)
            && conf.voters.iter().chain(&conf.learners).all(is_wanted)
    }

    /// A change has taken effect, and is stored with the task before.
    pub(super) fn on_conf_joined(&mut self) {
        self.out.push(Effect::Replicas(self.joined.place(), self.conf.clone()));
        self.leave_if_removed();
    }

    /// A removed node may find in its log that it was added again. What it has vouched for since
    /// counts, so it stays.
    pub(super) fn leave_if_removed(&mut self) {
        let is_removed = self.joined.index > 0 && !conf::has_member(&self.conf, self.config.node);
        if is_removed && !self.group.is_added_after(self.joined.place()) {
            self.leave();
        }
    }

    /// Nobody sends a removed node the entry that says so, or that it is committed. What it has
    /// vouched for is needed by nobody: whoever is elected after the change, under the membership
    /// before or after it, needs the vote of another who has it, as a replica without state gives
    /// none.
    pub(super) fn on_removed_at(&mut self, place: group::Position) {
        // A replica that has come past it knows its membership itself.
        if self.joined.index < place.index && !self.group.is_added_after(place) {
            self.leave();
        }
    }

    /// A replica that has nothing yet may be the successor of one that had much, and must not vote
    /// for somebody who has less. One that is no successor is needed: where a range was just cut off
    /// another, all but a few of its members may still be without its state.
    pub(super) fn on_message(&mut self, message: RaftMessage) {
        let kind = Kind::from_number(message.kind);
        let is_vote = matches!(kind, Some(Kind::Vote | Kind::PreVote));
        if is_vote && self.joined.index == 0 && !self.is_new {
            self.out.push(Effect::Ignored(NodeId(message.from), message.kind, Ignored::Busy));
            return;
        }
        self.drive(group::Input::Message(message));
    }

    fn leave(&mut self) {
        if std::mem::replace(&mut self.is_removed, true) {
            return;
        }
        // They have no effect, or were not tried yet.
        for (_, holder) in std::mem::take(&mut self.tickets) {
            let (Holder::Answer(to, command) | Holder::Evaluate(to, command)) = holder;
            self.out.push(Effect::Unproposed(to, command));
        }
        self.out.push(Effect::Removed);
    }

    /// The store is being replaced: what stands in it belongs to nothing until that is done.
    pub(super) fn on_install(&mut self, mark: SnapshotMark) {
        assert!(self.drain_index.is_none(), "a leader is not replaced");
        self.catch_up = CatchUp::Wanted;
        self.installing = Some(mark.clone());
        self.out.push(Effect::Install(mark));
    }

    /// Everything that was numbered before, and every share that was decided and of which the log
    /// told the spine before, is committed in the log by then; so it is there when this replica has
    /// applied as much as is committed now, which the leader knows.
    pub(super) fn ask_to_catch_up(&mut self) {
        let has_state = self.applied.index > 0 && self.installing.is_none();
        if self.catch_up == CatchUp::Wanted && has_state {
            self.catch_ups_count += 1;
            self.catch_up = CatchUp::Asked(self.catch_ups_count);
            self.drive(group::Input::Ticket(self.catch_ups_count));
        }
    }

    pub(super) fn on_caught_up_to(&mut self, n: u64, index: Option<u64>) {
        if self.catch_up == CatchUp::Asked(n) {
            self.catch_up = index.map_or(CatchUp::Wanted, CatchUp::Behind);
        }
    }

    /// Ends a step.
    pub(super) fn finish_catch_up(&mut self) {
        let is_there = |index| self.applied.index >= index && self.installing.is_none();
        if matches!(self.catch_up, CatchUp::Behind(index) if is_there(index)) {
            self.catch_up = CatchUp::Done;
            self.out.push(Effect::CaughtUp);
        }
    }

    /// Whether this node is known to be no member any more.
    pub fn is_removed(&self) -> bool {
        self.is_removed
    }
}
