//! Sleep of a group that has nothing to do: its leader sends no heartbeats, nobody counts ticks.
//!
//! A leader that has been idle for a while, and whose members that are there have all of its log,
//! tells them to sleep and sleeps itself. Who is there is news of the whole node, not of one group:
//! one beat between two nodes stands for the heartbeats of all groups that sleep. A follower sleeps
//! only behind a leader whose node is there, and wakes when it is not any more; then its election
//! timeout begins. Everything else that happens to a sleeping member wakes it.
//!
//! Nothing depends on it but who waits for what: a leader that wakes knows no more of its leadership
//! than any other, and answers tickets and commits by a quorum.

use std::collections::BTreeSet;

use raft::{ProgressState, StateRole};

use super::{Effect, Group, Ignored, Input, Kind, Part, message};
use crate::NodeId;
use crate::mutant::{self, Mutant};
use crate::proto::internal::RaftMessage;

/// Whether a member sleeps, and what it needs to know for that.
#[derive(Debug, Default)]
pub(super) struct Sleep {
    /// Idle ticks after which a leader sleeps; 0 for never.
    after_ticks: usize,
    /// Ticks since something has happened.
    idle_ticks: usize,
    is_asleep: bool,
    /// Other nodes that are there, as this node knows.
    alive: BTreeSet<NodeId>,
}

impl Sleep {
    pub(super) fn new(after_ticks: usize) -> Self {
        Self { after_ticks, ..Self::default() }
    }
}

impl Group {
    /// Whether this member needs no ticks. A leader that sleeps has all of its log committed and
    /// applied; a follower that does has all of its log committed, though not yet applied.
    pub fn is_asleep(&self) -> bool {
        self.sleep.is_asleep
    }

    /// Nothing has happened to this leader for so long that it may be told to sleep.
    pub fn is_sleep_due(&self) -> bool {
        let Sleep { after_ticks, idle_ticks, is_asleep, .. } = self.sleep;
        self.is_leader() && !is_asleep && after_ticks > 0 && idle_ticks >= after_ticks
    }

    pub(super) fn count_idle_tick(&mut self) {
        self.sleep.idle_ticks += 1;
    }

    /// Before an input is handled. Whether a message wakes is known only when it was looked at.
    pub(super) fn wake_for(&mut self, input: &Input, out: &mut Vec<Effect>) {
        match input {
            Input::Propose(_)
            | Input::ProposeChange { .. }
            | Input::Ticket(_)
            | Input::Transfer(_)
            | Input::Wake
            | Input::Campaign
            | Input::CommitTo { .. }
            | Input::RequestSnapshot
            | Input::SnapshotReceived { .. } => self.wake(None, out),
            Input::Tick
            | Input::Message(_)
            | Input::Persisted { .. }
            | Input::Applied { .. }
            | Input::Truncate { .. }
            | Input::SnapshotInstalled
            | Input::SnapshotSent { .. }
            | Input::Unreachable(_)
            | Input::Replaced(_)
            | Input::Alive(_)
            | Input::Sleep => {}
        }
    }

    /// An admitted message wakes, unless it says no more than that its sender is there.
    pub(super) fn wake_for_message(
        &mut self,
        message: &RaftMessage,
        kind: Kind,
        out: &mut Vec<Effect>,
    ) {
        let is_old = message.term < self.role.term;
        let is_news = match kind {
            // A later term ends what this member has slept behind.
            _ if message.term > self.role.term => true,
            Kind::Sleep | Kind::HeartbeatAnswer | Kind::ReadIndexAnswer => false,
            Kind::AppendAnswer => message.reject && !is_old,
            Kind::Append
            | Kind::Snapshot
            | Kind::Heartbeat
            | Kind::TimeoutNow
            | Kind::VoteAnswer
            | Kind::PreVoteAnswer => !is_old,
            // Whoever asks knows no leader.
            Kind::Vote | Kind::PreVote | Kind::ReadIndex | Kind::Wake => true,
        };
        if is_news {
            self.wake(Some(NodeId(message.from)), out);
        }
    }

    /// Ends idleness, and sleep if need be. A leader makes itself heard at once. A follower has the
    /// leader woken, unless it is who woke it: nobody else would keep it from campaigning.
    fn wake(&mut self, by: Option<NodeId>, out: &mut Vec<Effect>) {
        self.sleep.idle_ticks = 0;
        if !std::mem::replace(&mut self.sleep.is_asleep, false) {
            return;
        }
        if self.is_leader() {
            // The followers have a whole election timeout to be heard of.
            self.raft.raft.election_elapsed = 0;
            self.raft.ping();
            return;
        }
        if self.role.leader != by {
            self.wake_leader(out);
        }
    }

    fn wake_leader(&mut self, out: &mut Vec<Effect>) {
        let leader = self.role.leader.filter(|leader| self.sleep.alive.contains(leader));
        if let Some(leader) = leader {
            let wake = self.message_to(leader, Kind::Wake);
            self.outbox.message(Kind::Wake, self.role.term, Effect::Send(wake), out);
        }
    }

    /// Who has no vote does not campaign when a leader is silent, and so would not notice that it
    /// sleeps: it was not told, or could not follow.
    pub(super) fn ask_silent_leader(&mut self, out: &mut Vec<Effect>) {
        let core = &self.raft.raft;
        let silent_ticks = core.election_elapsed;
        let is_due = silent_ticks > 0 && silent_ticks.is_multiple_of(self.timeout_ticks);
        if self.role.part == Part::Follower && !core.promotable() && is_due {
            self.wake_leader(out);
        }
    }

    /// Which other nodes are there has changed. A leader that sleeps has to hear of one that has
    /// come, and to make sure of its quorum without one that has gone.
    pub(super) fn on_alive(&mut self, alive: BTreeSet<NodeId>, out: &mut Vec<Effect>) {
        let before = std::mem::replace(&mut self.sleep.alive, alive);
        let is_leader_gone = self
            .role
            .leader
            .is_some_and(|leader| before.contains(&leader) && !self.sleep.alive.contains(&leader));
        let members = self.raft.raft.prs();
        let is_member_news = before
            .symmetric_difference(&self.sleep.alive)
            .any(|node| members.get(node.0).is_some());
        let is_noticed = is_leader_gone && !mutant::is(Mutant::WakeSkipped);
        if is_noticed || (self.is_leader() && is_member_news) {
            self.wake(self.role.leader, out);
        }
    }

    /// The driver has nothing to do for this leader. Sleeps, if the group may.
    pub(super) fn on_sleep(&mut self, out: &mut Vec<Effect>) {
        if !self.is_sleep_due() || !self.may_sleep() {
            return;
        }
        let last = self.last_index();
        let members = self.raft.raft.prs().iter().map(|(node, _)| NodeId(*node));
        let here: Vec<NodeId> = members.filter(|node| self.sleep.alive.contains(node)).collect();
        for node in here {
            let message =
                RaftMessage { index: last, commit: last, ..self.message_to(node, Kind::Sleep) };
            self.outbox.message(Kind::Sleep, self.role.term, Effect::Send(message), out);
        }
        self.sleep.is_asleep = true;
    }

    /// A leader that leaves nothing open: neither here, nor at any member that is there, nor for a
    /// read. A member that is not there is told when it comes back.
    fn may_sleep(&self) -> bool {
        let core = &self.raft.raft;
        let last = self.last_index();
        let is_done = self.is_established()
            && self.is_still()
            && self.commit() == last
            && self.handed_out == last
            && self.applied().index == last
            && core.pending_read_count() == 0
            && core.lead_transferee.is_none()
            && !core.has_pending_conf()
            && self.conf().voters_outgoing.is_empty();
        if !is_done {
            return false;
        }
        let tracker = core.prs();
        let mut here = vec![self.id.0];
        for (node, progress) in tracker.iter() {
            if *node == self.id.0 || !self.sleep.alive.contains(&NodeId(*node)) {
                continue;
            }
            let is_in_step = progress.matched == last
                && progress.recent_active
                && progress.pending_request_snapshot == 0
                && progress.state != ProgressState::Snapshot;
            if !is_in_step {
                return false;
            }
            here.push(*node);
        }
        tracker.has_quorum(&here.into_iter().collect())
    }

    /// The leader sleeps. It has been obeyed as one that sends a heartbeat; this node sleeps, too,
    /// if it has the log that the leader takes it to have.
    pub(super) fn follow_to_sleep(&mut self, from: NodeId, term: u64, last: u64) {
        let core = &self.raft.raft;
        let is_follower = core.state == StateRole::Follower
            && core.leader_id == from.0
            && core.term == term
            && self.role.part == Part::Follower;
        let has_all = self.last_index() == last && self.commit() == last;
        if is_follower && has_all && self.is_still() && self.sleep.alive.contains(&from) {
            self.sleep.is_asleep = true;
        }
    }

    /// Nothing is on its way to the disk, no ticket waits, and no snapshot is asked for.
    fn is_still(&self) -> bool {
        self.can_campaign()
            && self.outbox.oldest().is_none()
            && self.tickets.is_empty()
            && self.raft.raft.pending_request_snapshot == 0
    }

    fn message_to(&self, to: NodeId, kind: Kind) -> RaftMessage {
        RaftMessage {
            group: self.group.0,
            to: to.0,
            from: self.id.0,
            kind: kind as u32,
            term: self.role.term,
            ..RaftMessage::default()
        }
    }

    /// What a sleeping member may not have.
    pub(super) fn check_sleep(&self) {
        let is_alone = self.role.leader.is_none() || self.role.part == Part::Candidate;
        assert!(
            !self.sleep.is_asleep || (!is_alone && self.tickets.is_empty()),
            "a member sleeps behind a leader, and nobody waits for it: {:?}",
            self.role
        );
    }

    /// Handles `Sleep` as what it is beside: a heartbeat.
    pub(super) fn take_sleep(&mut self, sleep: RaftMessage) -> Result<(), Ignored> {
        let (from, term, last) = (NodeId(sleep.from), sleep.term, sleep.index);
        let heartbeat = RaftMessage { index: 0, ..sleep };
        self.step_raft(message::to_raft(heartbeat, Kind::Heartbeat))?;
        self.follow_to_sleep(from, term, last);
        Ok(())
    }
}
