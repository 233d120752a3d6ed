//! Replicas that come and go: changes of the membership, and when a replica that is new, or was
//! replaced by a snapshot, has everything.

use std::collections::{BTreeMap, BTreeSet};

use crate::NodeId;
use prost::Message;

use crate::group::{self, Change, ChangeStep, Ignored, Part, Refusal, conf};
use crate::mutant::{self, Mutant};
use crate::proto::internal::{ConfState, RaftMessage, RangeEntry, SnapshotMark};
use crate::range::replica::write::Holder;
use crate::range::replica::{Effect, Replica};
use crate::range::stored::Stored;
use crate::view::{View, ViewError};

/// Who is to hold a range, as a node's state of the spine has it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Members {
    /// Who is to vote, and who is to follow.
    pub conf: ConfState,
    /// Members of the cluster that were removed for good.
    pub removed: BTreeSet<u64>,
    /// How many changes led to that, and after how many the range was held as it was to be then.
    pub changes: u64,
    /// See `changes`.
    pub settled: u64,
    /// Which changes of members brought replicas that were not there from the beginning
    /// (`spine::ranges::Range::since`).
    pub since: BTreeMap<NodeId, u64>,
}

/// What a replica knows of who is to hold its range.
#[derive(Debug, Default)]
pub(super) struct Holders {
    /// Who holds it, as far as the log is joined.
    pub(super) conf: ConfState,
    /// The entry that made it so.
    pub(super) changed_at: u64,
    /// The log tells that whoever votes knows. Until then a vote of those who were left out may be
    /// needed: others may still go by the members before.
    pub(super) is_settled: bool,
    /// This leader has proposed to tell so, of that entry.
    settling: u64,
    /// Who was left out by changes under this leader that are not settled.
    gone: BTreeSet<NodeId>,
    /// This replica is not among them.
    is_outside: bool,
    /// And nobody needs it.
    pub(super) has_left: bool,
    /// Before it leaves.
    numbers: Numbers,
    members: Option<Members>,
    /// Whether a leader may go by it.
    freshness: Freshness,
    /// Who was the last to be given a vote.
    newest_voter: Option<NodeId>,
    /// Which change brought the replicas of others, as their messages say.
    since: BTreeMap<NodeId, u64>,
}

/// Whether what is wanted is at least as new as anything that an earlier leader went by: a leader that
/// went back to less would undo what it did, and take away replicas that were only just begun.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Freshness {
    #[default]
    Unknown,
    Asked,
    /// A ticket of the spine was taken since this leadership began.
    Good,
}

/// Whether a replica that is about to leave has heard all that the spine remembers of its writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Numbers {
    #[default]
    Unknown,
    Asked,
    Told,
}

impl Holders {
    pub(super) fn new(stored: &Stored) -> Self {
        let mut holders = Self::default();
        holders.replace(stored);
        holders
    }

    /// As it was stored.
    pub(super) fn replace(&mut self, stored: &Stored) {
        self.conf = stored.conf.clone();
        self.changed_at = stored.conf_changed;
        self.is_settled = stored.is_conf_settled;
    }
}

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

/// What a leader does next about its members.
enum Next {
    Change(ChangeStep),
    Transfer(NodeId),
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

    pub(super) fn on_members(&mut self, members: Members) {
        self.holders.members = Some(members);
        self.leave_if_replaced();
        if self.group.is_leader() && !(self.has_wanted_members() && self.is_settled_known()) {
            self.drive(group::Input::Wake);
        }
    }

    /// The leader takes the next step to the wanted membership, if none is under way.
    pub(super) fn follow_members(&mut self, view: &dyn View) -> Result<(), ViewError> {
        let is_ready = self.is_serving()
            && self.group.transferee().is_none()
            && !self.group.is_change_pending()
            && !self.is_removed()
            && self.holders.is_settled
            && !self.are_members_locked();
        let next = if is_ready { self.next_step() } else { None };
        let is_unknown = is_ready && !self.is_settled_known();
        if next.is_none() && !is_unknown {
            return Ok(());
        }
        let freshness = match mutant::is(Mutant::StrangersRemoved) {
            true => Freshness::Good,
            false => self.holders.freshness,
        };
        match (next, freshness) {
            (_, Freshness::Unknown) => {
                self.holders.freshness = Freshness::Asked;
                self.want_ticket(Holder::Members);
            }
            (Some(Next::Change(step)), Freshness::Good) => {
                self.on_change_replicas(Change::one(step));
            }
            (Some(Next::Transfer(to)), Freshness::Good) => {
                self.hand_over(to, view)?;
            }
            (None, _) | (_, Freshness::Asked) => {}
        }
        Ok(())
    }

    /// What was gathered is proposed before: from here on it would be refused.
    pub(super) fn hand_over(&mut self, to: NodeId, view: &dyn View) -> Result<(), ViewError> {
        self.propose_gathered(view)?;
        self.drive(group::Input::Transfer(to));
        Ok(())
    }

    /// Nothing is handed over where nothing waits: whoever leads a range that nobody uses may go on.
    pub(super) fn hand_over_to_any(
        &mut self,
        can_lead: impl Fn(NodeId) -> bool,
        view: &dyn View,
    ) -> Result<(), ViewError> {
        if self.group.transferee().is_some() || self.is_idle() {
            return Ok(());
        }
        let progress = self.group.progress();
        let ready = progress.iter().filter(|it| {
            it.node != self.group.id()
                && can_lead(it.node)
                && it.is_recently_active
                && !it.is_learner
                && !it.is_snapshotting
        });
        match ready.max_by_key(|it| it.matched).map(|it| it.node) {
            Some(to) => self.hand_over(to, view),
            None => Ok(()),
        }
    }

    /// A ticket has come: what was told before is as new as can be, until the leadership ends.
    pub(super) fn on_members_ticket(&mut self, is_good: bool) {
        self.holders.freshness = if is_good { Freshness::Good } else { Freshness::Unknown };
    }

    /// Another leadership begins.
    pub(super) fn doubt_members(&mut self) {
        self.holders.freshness = Freshness::Unknown;
        self.holders.settling = 0;
        self.holders.gone.clear();
    }

    /// Everybody who is wanted begins as a learner and votes once it has most of the log. Whoever is not
    /// wanted goes when all those vote and are there, so that there are never fewer; who was removed
    /// from the cluster can go before. A leader that is not wanted hands over first.
    fn next_step(&self) -> Option<Next> {
        let wanted = self.holders.members.as_ref()?;
        let conf = self.group.conf();
        if !conf.voters_outgoing.is_empty() {
            return None;
        }
        let last = self.group.last_index();
        let is_close = |id: u64| {
            let progress = self.group.progress();
            let progress = progress.iter().find(|progress| progress.node == NodeId(id));
            // In a short log somebody who has nothing lacks little.
            progress.is_some_and(|it| {
                let is_near = it.matched > 0 && it.matched + CLOSE_ENTRIES >= last;
                it.is_recently_active && !it.is_snapshotting && is_near
            })
        };
        let is_in = |id: &u64| conf.voters.contains(id) || conf.learners.contains(id);
        let Members { conf: wanted, removed, .. } = wanted;
        let is_wanted = |id: &u64| wanted.voters.contains(id) || wanted.learners.contains(id);
        let missing = wanted.voters.iter().chain(&wanted.learners).find(|id| !is_in(id));
        let promoted = conf.learners.iter().find(|id| wanted.voters.contains(id) && is_close(**id));
        let do_all_vote = wanted.voters.iter().all(|id| conf.voters.contains(id) && is_close(*id));
        let keeps_quorum = |id: &u64| {
            let left = conf.voters.iter().filter(|voter| *voter != id);
            2 * left.clone().filter(|voter| is_close(**voter)).count() > left.count()
        };
        // Who is gone for good goes first: it only makes a quorum harder.
        let is_stranger = mutant::is(Mutant::StrangersRemoved);
        let may_go = |id: &&u64| !is_wanted(id) && (keeps_quorum(id) || is_stranger);
        let all = || conf.voters.iter().chain(&conf.learners);
        let gone = all().find(|id| may_go(id) && removed.contains(id));
        let unwanted = gone.or_else(|| all().find(|id| may_go(id) && (do_all_vote || is_stranger)));
        let me = self.config.node;
        Some(Next::Change(match (missing, promoted, unwanted) {
            (Some(id), ..) => ChangeStep::AddLearner(NodeId(*id)),
            (_, Some(id), _) => ChangeStep::AddVoter(NodeId(*id)),
            (.., Some(id)) if NodeId(*id) == me && conf.voters.len() > 1 => {
                let heirs = wanted.voters.iter().map(|id| NodeId(*id));
                let heirs = heirs.filter(|id| *id != me && is_close(id.0));
                // Who votes for a moment only may have a state to take over first.
                let to = heirs.min_by_key(|id| self.holders.newest_voter == Some(*id))?;
                return Some(Next::Transfer(to));
            }
            (.., Some(id)) => ChangeStep::Remove(NodeId(*id)),
            (None, None, None) => return None,
        }))
    }

    /// A leader has nothing to change in the membership.
    pub(super) fn has_wanted_members(&self) -> bool {
        let wanted = self.holders.members.as_ref().filter(|_| self.group.is_leader());
        let Some(Members { conf: wanted, .. }) = wanted else {
            return true;
        };
        let conf = self.group.conf();
        let is_in = |id: &u64| conf.voters.contains(id) || conf.learners.contains(id);
        let is_wanted = |id: &u64| wanted.voters.contains(id) || wanted.learners.contains(id);
        wanted.voters.iter().all(|id| conf.voters.contains(id))
            && wanted.learners.iter().all(is_in)
            && conf.voters.iter().chain(&conf.learners).all(is_wanted)
    }

    /// How many changes of who is to hold the range are carried out and known to whoever votes; 0 if
    /// there is something to do, or the spine knows. Only a leader knows.
    pub(super) fn settled_changes(&self) -> u64 {
        let members = self.holders.members.as_ref();
        let is_done = self.role.part == Part::Leader
            && !self.is_settled_known()
            && self.holders.is_settled
            // Consensus goes by a change that is committed, what is known of it here is joined.
            && !self.group.is_change_pending()
            && self.holders.freshness == Freshness::Good
            && self.has_wanted_members();
        members.filter(|_| is_done).map_or(0, |members| members.changes)
    }

    /// The spine knows.
    pub(super) fn is_settled_known(&self) -> bool {
        let members = self.holders.members.as_ref();
        members.is_none_or(|members| members.settled == members.changes)
    }

    /// A change takes effect here.
    pub(super) fn join_conf(&mut self, conf: ConfState) {
        let before = std::mem::replace(&mut self.holders.conf, conf);
        let newest = self.holders.conf.voters.iter().find(|id| !before.voters.contains(id));
        self.holders.newest_voter = newest.map(|id| NodeId(*id)).or(self.holders.newest_voter);
        if self.role.part == Part::Leader {
            let before = [before.voters, before.learners, before.voters_outgoing].concat();
            self.holders.gone.extend(before.into_iter().map(NodeId));
            let now = &self.holders.conf;
            self.holders.gone.retain(|node| !conf::has_member(now, *node));
        }
        self.holders.changed_at = self.joined.index;
        self.holders.is_settled = false;
    }

    /// It is stored with the task before.
    pub(super) fn on_conf_joined(&mut self) {
        let conf = self.holders.conf.clone();
        self.out.push(Effect::Replicas(self.joined.place(), conf));
        self.look_whether_removed();
    }

    /// A leader that has joined a change has those who vote from then on acknowledge an entry after
    /// it: with that they have written down that the change is committed.
    pub(super) fn settle_members(&mut self) {
        let changed_at = self.holders.changed_at;
        let is_due = !self.holders.is_settled && self.holders.settling != changed_at;
        if is_due && self.is_serving() && self.group.transferee().is_none() {
            self.refusal = None;
            let entry = RangeEntry { settles: changed_at, ..RangeEntry::default() };
            self.drive(group::Input::Propose(vec![entry.encode_to_vec().into()]));
            if self.refusal.take().is_none() {
                self.holders.settling = changed_at;
            }
        }
    }

    pub(super) fn join_settled(&mut self, settles: u64) {
        if settles == 0 || settles != self.holders.changed_at {
            return;
        }
        self.holders.is_settled = true;
        let gone: Vec<NodeId> = std::mem::take(&mut self.holders.gone).into_iter().collect();
        if !gone.is_empty() {
            self.out.push(Effect::Gone(self.joined.place(), gone));
        }
    }

    /// Nothing that comes after a removal is this node's, unless it was added again: it may find that
    /// in its log. What it has vouched for since counts, so it goes on.
    pub(super) fn look_whether_removed(&mut self) {
        let is_outside = self.joined.index > 0
            && self.installing.is_none()
            && !conf::has_member(&self.holders.conf, self.config.node)
            && !self.group.is_added_after(self.joined.place());
        if is_outside && !self.holders.is_outside {
            self.drop_tickets();
            self.out.push(Effect::Outside);
        }
        self.holders.is_outside = is_outside;
        self.leave_if_replaced();
    }

    /// Nobody sends a removed node the entry that says so, or that it is committed. What it has
    /// vouched for is needed by nobody: those who vote without it know that they do.
    pub(super) fn on_removed_at(&mut self, place: group::Position) {
        // A replica that has come past it knows its membership itself.
        let is_behind = self.joined.index < place.index && self.installing.is_none();
        if is_behind && !self.group.is_added_after(place) && !self.has_more_to_join() {
            self.leave();
        }
    }

    /// What is known here to be committed is joined before the replica leaves: a range may have been
    /// cut off there, whose replica on this node was lost in a crash, and may be needed. Unless nobody
    /// tells any more how its writes were numbered, or what it waits for may never come.
    fn has_more_to_join(&mut self) -> bool {
        if self.joined.index >= self.group.commit() || self.installing.is_some() {
            return false;
        }
        if self.staged.is_empty() {
            return true;
        }
        let is_told = self.holders.numbers == Numbers::Told;
        if !self.lacks_numbers() || is_told {
            return false;
        }
        self.holders.numbers = Numbers::Asked;
        self.out.push(Effect::WantNumbers);
        true
    }

    /// An answer to `WantNumbers`, or to something else: then it is asked too soon, and no harm done.
    pub(super) fn on_numbers_told(&mut self) {
        if self.holders.numbers == Numbers::Asked {
            self.holders.numbers = Numbers::Told;
        }
    }

    /// The node is to hold the range anew: that is decided only when it has no part in it any more, and
    /// whoever votes knows.
    pub(super) fn leave_if_replaced(&mut self) {
        let members = self.holders.members.as_ref();
        let wanted = members.and_then(|members| members.since.get(&self.config.node));
        let is_replaced = wanted.is_some_and(|since| *since > self.config.since);
        if is_replaced && !self.holders.has_left && !self.has_more_to_join() {
            self.leave();
        }
    }

    fn leave(&mut self) {
        if self.installing.is_none() && !std::mem::replace(&mut self.holders.has_left, true) {
            self.drop_tickets();
            self.out.push(Effect::Removed);
        }
    }

    /// A node may have held a replica, dropped it, and hold another now. What the earlier one said does
    /// not count any more, and what the leader believes of it is not true of the later.
    pub(super) fn on_message(&mut self, message: RaftMessage) {
        let (from, since) = (NodeId(message.from), message.since);
        let members = self.holders.members.as_ref();
        let wanted = members.and_then(|members| members.since.get(&from)).copied().unwrap_or(0);
        let known = self.holders.since.entry(from).or_insert(since);
        if since < wanted.max(*known) {
            self.out.push(Effect::Ignored(from, message.kind, Ignored::Stale));
            return;
        }
        if std::mem::replace(known, since) < since {
            self.drive(group::Input::Replaced(from));
        }
        self.drive(group::Input::Message(message));
    }

    /// What waits for tickets has no effect, or was not tried yet.
    pub(super) fn drop_tickets(&mut self) {
        for (_, holder) in std::mem::take(&mut self.tickets) {
            match holder {
                Holder::Answer(to, command) | Holder::Evaluate(to, command) => {
                    self.out.push(Effect::Unproposed(to, command));
                }
                Holder::Members => self.doubt_members(),
            }
        }
    }

    /// The change of members that brought this replica.
    pub fn since(&self) -> u64 {
        self.config.since
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
        self.holders.is_outside || self.holders.has_left
    }
}
