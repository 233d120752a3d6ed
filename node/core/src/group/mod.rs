//! Consensus of one Raft group, as a machine: `Group::step(Input)` pushes `Effect`s.
//!
//! The only module that names raft-rs. `admit` checks what comes from peers, `outbox` decides what
//! waits for the disk, `ticket` keeps read indexes from being lost, `log` is the log in memory.
//! Never reads a clock, never draws chance of its own, never touches disk or network.

mod admit;
pub mod change;
pub mod conf;
pub mod config;
pub mod effect;
pub mod entry;
mod hurry;
pub mod input;
mod kept;
mod log;
pub mod message;
mod outbox;
pub mod recovered;
pub mod retention;
mod sleep;
mod ticket;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use bytes::Bytes;
use raft::{
    Changer, GetEntriesContext, ProgressState, RawNode, ReadOnlyOption, SnapshotStatus, StateRole,
    eraftpb,
};

pub use admit::NUMBER_MAX;
pub use change::{Change, ChangeStep};
pub use config::{Chance, Config, Error};
pub use effect::{Append, Effect, Ignored, Part, Refusal, Role};
pub use entry::{Entry, EntryKind, HardState, Position};
pub use input::Input;
pub use message::Kind;
pub use recovered::Recovered;
pub use retention::{Flushed, Retention};

use crate::mutant::{self, Mutant};
use crate::proto::internal;
use crate::{GroupId, NodeId};
use kept::Kept;
use log::Log;
use outbox::Outbox;

/// One node's part in one Raft group.
pub struct Group {
    id: NodeId,
    group: GroupId,
    uncommitted_bytes_max: u64,
    election_ticks: usize,
    raft: RawNode<Log>,
    chance: Box<dyn Chance + Send>,
    outbox: Outbox,
    tickets: ticket::Book,
    sleep: sleep::Sleep,
    /// As last told to the driver.
    role: Role,
    /// Ticks after which this node campaigns, drawn anew whenever the role changes, and when an election
    /// is brought forward.
    timeout_ticks: usize,
    /// Commit index after the last step.
    commit: u64,
    /// Newest index handed out as committed, or contained in an installed snapshot.
    handed_out: u64,
    /// Memberships that take effect after the applied index, oldest first.
    confs: VecDeque<(u64, internal::ConfState)>,
    /// The leader's demand to campaign, which came when a membership was not applied yet.
    demand: Option<internal::RaftMessage>,
    /// A snapshot that raft-rs has taken over and that is not yet on disk.
    install: Option<Install>,
    /// What it has vouched for before its state was lost.
    kept: Kept,
    /// Where the log on disk must start anew before anything else, and under which hard state.
    repair: Option<(Position, HardState)>,
}

/// How far a snapshot is.
#[derive(Debug)]
struct Install {
    mark: internal::SnapshotMark,
    /// The append that resets the log.
    token: u64,
}

/// What a leader knows of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The member.
    pub node: NodeId,
    /// Highest index known to be in its log and on its disk.
    pub matched: u64,
    /// It was heard of since the last check, at most two election timeouts ago.
    pub is_recently_active: bool,
    /// It has no vote.
    pub is_learner: bool,
    /// It waits for a snapshot.
    pub is_snapshotting: bool,
}

impl Group {
    /// Starts from what is on disk.
    ///
    /// # Errors
    /// The configuration makes no sense, or what is on disk cannot be explained by a crash.
    pub fn new(
        config: Config,
        mut recovered: Recovered,
        mut chance: Box<dyn Chance + Send>,
    ) -> Result<Self, Error> {
        let durable_term = recovered.hard_state.term;
        let reset = recovered.reconcile()?;
        let hard_state = recovered.hard_state;
        let applied = recovered.applied.index;
        let raft_config = raft::Config {
            id: config.id.0,
            election_tick: config.election_ticks,
            heartbeat_tick: config.heartbeat_ticks,
            applied,
            max_size_per_msg: config.message_bytes_max,
            max_inflight_msgs: config.inflight_messages_max,
            check_quorum: true,
            pre_vote: config.is_pre_vote,
            // The other option answers stale reads: it has no clock.
            read_only_option: ReadOnlyOption::Safe,
            // Followers, and so their readers and watchers, learn of a commit at once.
            skip_bcast_commit: false,
            // Would merge messages beyond their limit.
            batch_append: false,
            max_uncommitted_size: config.uncommitted_bytes_max,
            max_committed_size_per_ready: config.commit_bytes_max,
            ..raft::Config::default()
        };
        raft_config.validate().map_err(|error| Error::Config(error.to_string()))?;
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let mut raft = RawNode::new(&raft_config, Log::new(recovered), &logger)
            .map_err(|error| Error::Raft(error.to_string()))?;
        raft.raft.maybe_free_inflight_buffers();
        let nonce = chance.below(u64::MAX);
        let mut group = Self {
            id: config.id,
            group: config.group,
            uncommitted_bytes_max: config.uncommitted_bytes_max,
            election_ticks: config.election_ticks,
            raft,
            chance,
            outbox: Outbox::new(durable_term),
            tickets: ticket::Book::new(
                config.id,
                nonce,
                config.election_ticks * 2,
                config.tickets_max,
            ),
            sleep: sleep::Sleep::new(config.sleep_after_ticks),
            role: Role { term: hard_state.term, ..Role::default() },
            timeout_ticks: config.election_ticks,
            commit: hard_state.commit,
            handed_out: applied,
            confs: VecDeque::new(),
            demand: None,
            install: None,
            kept: Kept::default(),
            repair: reset.map(|position| (position, hard_state)),
        };
        group.draw_timeout(group.election_ticks, group.election_ticks);
        Ok(group)
    }

    /// Starts without a state, for a leader to send one. What an earlier replica here has left on disk
    /// holds on: whom it may vote for, and the entries after the state that is sent.
    ///
    /// # Errors
    /// The configuration makes no sense, or what is on disk cannot be explained by a crash.
    pub fn empty(
        config: Config,
        left: Recovered,
        chance: Box<dyn Chance + Send>,
    ) -> Result<Self, Error> {
        left.check_log()?;
        left.check_term()?;
        let Recovered { hard_state, truncated, entries, .. } = left;
        let hard_state = HardState { commit: 0, ..hard_state };
        let recovered = Recovered { hard_state, ..Recovered::joining() };
        let group = Self::new(config, recovered, chance)?;
        Ok(Self { kept: Kept::new(truncated, entries), ..group })
    }

    /// Handles one input and pushes what has to be done, in order.
    pub fn step(&mut self, input: Input, out: &mut Vec<Effect>) {
        self.repair_log(out);
        self.wake_for(&input, out);
        match input {
            Input::Tick => self.on_tick(out),
            Input::Message(message) => self.on_message(message, out),
            Input::Propose(commands) => self.on_propose(commands, out),
            Input::ProposeChange { change, context } => self.on_change(&change, context, out),
            Input::Ticket(context) => self.on_ticket(context, out),
            Input::Transfer(to) => self.on_transfer(to, out),
            Input::Campaign => self.on_campaign(out),
            Input::Persisted { token } => self.on_persisted(token, out),
            Input::Applied { index } => self.on_applied(index),
            Input::Truncate { index } => self.on_truncate(index, out),
            Input::SnapshotReceived { message, mark } => self.on_snapshot(message, mark, out),
            Input::RequestSnapshot => self.on_request_snapshot(),
            Input::SnapshotInstalled => self.on_installed(out),
            Input::SnapshotSent { to, is_ok } => {
                let end = if is_ok { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
                self.raft.report_snapshot(to.0, end);
            }
            Input::CommitTo { index } => self.on_commit_to(index),
            Input::Unreachable(node) => self.on_unreachable(node),
            Input::Replaced(node) => self.on_replaced(node),
            Input::Wake => {}
            Input::Alive(alive) => self.on_alive(alive, out),
            Input::Sleep => self.on_sleep(out),
        }
        self.meet_demand(out);
        self.settle(out);
        self.check_sleep();
    }
}

// What the driver may ask at any time.
impl Group {
    /// This node.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// This group.
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// Role, leader and term, as the newest `Effect::Role` said.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Whether this node leads.
    pub fn is_leader(&self) -> bool {
        self.role.part == Part::Leader
    }

    /// Leads, and has committed an entry of its term: it knows everything committed before.
    pub fn is_established(&self) -> bool {
        self.is_leader() && self.raft.raft.commit_to_current_term()
    }

    /// Highest index known to be committed; never goes back.
    pub fn commit(&self) -> u64 {
        self.raft.raft.raft_log.committed
    }

    /// Highest index of the log, on disk or not.
    pub fn last_index(&self) -> u64 {
        self.raft.raft.raft_log.last_index()
    }

    /// Where the log ends.
    pub fn last_position(&self) -> Position {
        let index = self.last_index();
        self.log().position(index).unwrap_or_else(|| self.truncated())
    }

    /// Where the state stands, as reported by the driver.
    pub fn applied(&self) -> Position {
        self.log().applied()
    }

    /// Place before the first entry of the log.
    pub fn truncated(&self) -> Position {
        self.log().truncated()
    }

    /// Whether the log holds the entry at this place, and after it a change, committed or not, that
    /// gives this node a part in the group.
    pub fn is_added_after(&self, place: Position) -> bool {
        self.log().position(place.index) == Some(place)
            && self.log().changes_after(place.index).any(|change| change.adds(self.id))
    }

    /// Whether every `Append` is durable, as the driver has said.
    pub fn is_all_persisted(&self) -> bool {
        self.outbox.is_all_persisted()
    }

    /// Bytes the log takes in memory.
    pub fn log_bytes(&self) -> usize {
        self.log().bytes()
    }

    /// What a member without a log says to a leader that believes it has one: a refusal of an entry
    /// beyond all that it may believe, and that it is there. Either makes the leader look for where the
    /// logs agree, if it does not yet, and it finds that it has to send a snapshot.
    pub(crate) fn has_nothing(&self, leader: NodeId) -> [internal::RaftMessage; 2] {
        let alive = internal::RaftMessage {
            group: self.group.0,
            to: leader.0,
            from: self.id.0,
            kind: Kind::HeartbeatAnswer as u32,
            term: self.role().term,
            ..internal::RaftMessage::default()
        };
        let refusal = internal::RaftMessage {
            kind: Kind::AppendAnswer as u32,
            index: admit::NUMBER_MAX - 1,
            reject: true,
            ..alive.clone()
        };
        [refusal, alive]
    }

    /// What this member has in its log after what it knows to be committed.
    pub(crate) fn uncommitted(&self) -> Vec<Bytes> {
        self.tail_to(u64::MAX)
    }

    /// Of that, what is durable.
    pub(crate) fn uncommitted_durable(&self) -> Vec<Bytes> {
        self.tail_to(self.raft.raft.raft_log.persisted)
    }

    fn tail_to(&self, last: u64) -> Vec<Bytes> {
        let log = &self.raft.raft.raft_log;
        let entries = log.entries(self.commit() + 1, None, GetEntriesContext::empty(false));
        let is_meant = |it: &eraftpb::Entry| {
            it.index <= last && it.get_entry_type() == eraftpb::EntryType::EntryNormal
        };
        entries.unwrap_or_default().into_iter().filter(is_meant).map(|it| it.data).collect()
    }

    /// Bytes of data this leader has proposed and not seen committed.
    pub fn uncommitted_bytes(&self) -> usize {
        self.raft.raft.uncommitted_size()
    }

    /// The membership in force: the newest committed one.
    pub fn conf(&self) -> internal::ConfState {
        conf::from_raft(&self.raft.raft.prs().conf().to_conf_state())
    }

    /// Whether this node is a member without a vote.
    pub fn is_learner(&self) -> bool {
        self.raft.raft.prs().conf().learners().contains(&self.id.0)
    }

    /// A leader's membership change, or possibly one of an earlier leader, is not applied yet.
    pub fn is_change_pending(&self) -> bool {
        self.raft.raft.has_pending_conf()
    }

    /// To whom this leader is handing over.
    pub fn transferee(&self) -> Option<NodeId> {
        self.raft.raft.lead_transferee.map(NodeId)
    }

    /// What a leader knows of every member, itself included, by id; empty on other nodes.
    pub fn progress(&self) -> Vec<Progress> {
        if !self.is_leader() {
            return Vec::new();
        }
        let tracker = self.raft.raft.prs();
        let mut all: Vec<_> = tracker
            .iter()
            .map(|(node, progress)| Progress {
                node: NodeId(*node),
                matched: progress.matched,
                is_recently_active: progress.recent_active || *node == self.id.0,
                is_learner: tracker.conf().learners().contains(node),
                is_snapshotting: progress.state == ProgressState::Snapshot,
            })
            .collect();
        all.sort_unstable_by_key(|progress| progress.node);
        all
    }

    /// Up to where every follower that is there, and can go on from the log, has it, or will have with
    /// the snapshot it is sent. `None` if there is none, or this member does not lead.
    fn slowest_follower(&self) -> Option<u64> {
        if !self.is_leader() {
            return None;
        }
        let followers = self.raft.raft.prs().iter();
        let followers = followers.filter(|(node, it)| **node != self.id.0 && it.recent_active);
        let reached = followers.map(|(_, progress)| match progress.state {
            ProgressState::Snapshot => progress.matched.max(progress.pending_snapshot),
            ProgressState::Probe | ProgressState::Replicate => progress.matched,
        });
        reached.filter(|reached| *reached >= self.truncated().index).min()
    }

    fn log(&self) -> &Log {
        self.raft.store()
    }
}

// One handler for each input.
impl Group {
    fn on_tick(&mut self, out: &mut Vec<Effect>) {
        if self.is_asleep() {
            return;
        }
        self.count_idle_tick();
        self.ask_silent_leader(out);
        for context in self.tickets.tick() {
            out.push(Effect::TicketDropped { context });
        }
        let core = &self.raft.raft;
        let would_campaign = core.state != StateRole::Leader
            && core.promotable()
            && core.election_elapsed + 1 >= core.randomized_election_timeout();
        if !would_campaign || self.can_campaign() {
            self.raft.tick();
        }
    }

    /// As if the member had just been added.
    fn on_replaced(&mut self, node: NodeId) {
        let next = self.last_index() + 1;
        if self.is_leader()
            && let Some(progress) = self.raft.raft.mut_prs().get_mut(node.0)
        {
            progress.matched = 0;
            progress.committed_index = 0;
            progress.pending_snapshot = 0;
            progress.state = ProgressState::Probe;
            progress.paused = false;
            progress.ins.reset();
            progress.next_idx = next;
        }
    }

    fn on_message(&mut self, message: internal::RaftMessage, out: &mut Vec<Effect>) {
        let (from, kind) = (NodeId(message.from), message.kind);
        if let Err(reason) = self.take_message(message, out) {
            out.push(Effect::Ignored { from, kind, reason });
        }
    }

    fn take_message(
        &mut self,
        mut message: internal::RaftMessage,
        out: &mut Vec<Effect>,
    ) -> Result<(), Ignored> {
        let kind = admit::message(&message, &self.standing())?;
        if kind == Kind::Wake && self.raft.raft.prs().get(message.from).is_none() {
            return Err(Ignored::NotMember);
        }
        self.wake_for_message(&message, kind, out);
        match kind {
            Kind::Sleep => return self.take_sleep(message),
            // It has woken this node, or it was awake.
            Kind::Wake => return Ok(()),
            Kind::ReadIndex => {
                if self.raft.raft.prs().get(message.from).is_none() {
                    return Err(Ignored::NotMember);
                }
                if !self.raft.raft.commit_to_current_term() {
                    return if self.tickets.hold(message) { Ok(()) } else { Err(Ignored::Full) };
                }
            }
            Kind::TimeoutNow if !self.knows_to_vote() => {
                self.demand = Some(message);
                return Ok(());
            }
            Kind::Vote | Kind::PreVote => {
                let log_end = Position { index: message.index, term: message.log_term };
                if !self.kept.is_contained_in(log_end) {
                    return Err(Ignored::Busy);
                }
            }
            Kind::AppendAnswer if message.request_snapshot != 0 => self.raise_request(&mut message),
            Kind::ReadIndexAnswer if !self.tickets.is_asked(&message.entries[0].data) => {
                return Err(Ignored::Stale);
            }
            _ => {}
        }
        self.step_raft(message::to_raft(message, kind))
    }

    /// raft-rs forgets a demand to campaign if this node has not heard that it votes, or has not applied
    /// a change of the membership, and the leader takes no proposals until it gives up.
    fn knows_to_vote(&self) -> bool {
        self.raft.raft.promotable() && self.confs.is_empty()
    }

    /// A leader's demand that had to wait is met; if it leads no more, it is ignored.
    fn meet_demand(&mut self, out: &mut Vec<Effect>) {
        if self.demand.is_some()
            && self.knows_to_vote()
            && let Some(demand) = self.demand.take()
        {
            self.on_message(demand, out);
        }
    }

    fn step_raft(&mut self, message: eraftpb::Message) -> Result<(), Ignored> {
        match self.raft.step(message) {
            Ok(()) => Ok(()),
            Err(raft::Error::StepPeerNotFound) => Err(Ignored::NotMember),
            Err(error) => unreachable!("an admitted message was refused: {error}"),
        }
    }

    fn on_propose(&mut self, commands: Vec<Bytes>, out: &mut Vec<Effect>) {
        let is_empty = commands.is_empty() || commands.iter().any(Bytes::is_empty);
        let entries = commands.into_iter().map(|data| {
            let mut entry = eraftpb::Entry::default();
            entry.data = data;
            entry
        });
        let result = if is_empty { Err(Refusal::Empty) } else { self.propose(entries.collect()) };
        report(result, out);
    }

    fn on_change(&mut self, change: &Change, context: Bytes, out: &mut Vec<Effect>) {
        let result = self.check_change(change).and_then(|()| {
            let mut entry = eraftpb::Entry::default();
            entry.set_entry_type(eraftpb::EntryType::EntryConfChangeV2);
            entry.data = change.encode();
            entry.context = context;
            self.propose(vec![entry])
        });
        report(result, out);
    }

    /// raft-rs would put an empty entry in the place of a change that does not fit, and ignore a
    /// committed one.
    fn check_change(&self, change: &Change) -> Result<(), Refusal> {
        let core = &self.raft.raft;
        let tracker = core.prs();
        let is_joint = !self.conf().voters_outgoing.is_empty();
        if core.state != StateRole::Leader {
            return Err(Refusal::NotLeader);
        }
        if core.has_pending_conf() || is_joint {
            return Err(Refusal::ChangePending);
        }
        if change.steps.is_empty() || Change::decode(change.encode()).as_ref() != Some(change) {
            return Err(Refusal::ChangeInvalid);
        }
        let raft_change = change.to_raft();
        let mut changer = Changer::new(tracker);
        let result = match raft_change.enter_joint() {
            Some(auto_leave) => changer.enter_joint(auto_leave, raft_change.get_changes()),
            None => changer.simple(raft_change.get_changes()),
        };
        match result {
            Ok((_, progress)) if tracker.iter().len() + progress.len() <= conf::MEMBERS_MAX => {
                Ok(())
            }
            _ => Err(Refusal::ChangeInvalid),
        }
    }

    /// Appends entries to the leader's log.
    fn propose(&mut self, entries: Vec<eraftpb::Entry>) -> Result<(Position, u64), Refusal> {
        let core = &mut self.raft.raft;
        if core.state != StateRole::Leader {
            return Err(Refusal::NotLeader);
        }
        if core.lead_transferee.is_some() {
            return Err(Refusal::Transferring);
        }
        // Asked here because raft-rs, refusing for it, would still note a membership change as
        // pending.
        let bytes: u64 = entries.iter().map(|entry| entry.data.len() as u64).sum();
        let uncommitted_bytes = core.uncommitted_size() as u64;
        if uncommitted_bytes > 0
            && uncommitted_bytes.saturating_add(bytes) > self.uncommitted_bytes_max
        {
            return Err(Refusal::Full);
        }
        let first = Position { index: core.raft_log.last_index() + 1, term: core.term };
        let count = entries.len() as u64;
        let mut message = eraftpb::Message::default();
        message.set_msg_type(eraftpb::MessageType::MsgPropose);
        message.from = self.id.0;
        message.set_entries(entries.into());
        core.step(message).expect("a leader takes proposals that were checked");
        assert_eq!(core.raft_log.last_index(), first.index + count - 1, "proposals are appended");
        Ok((first, count))
    }

    fn on_ticket(&mut self, context: u64, out: &mut Vec<Effect>) {
        if mutant::is(Mutant::StaleTicket) && self.is_leader() {
            return out.push(Effect::TicketReady { context, index: self.commit() });
        }
        if !self.tickets.take(context) {
            out.push(Effect::TicketDropped { context });
        }
    }

    fn on_transfer(&mut self, to: NodeId, out: &mut Vec<Effect>) {
        let core = &self.raft.raft;
        if core.state != StateRole::Leader {
            out.push(Effect::Refused(Refusal::NotLeader));
        } else if to == self.id || !core.prs().conf().voters().contains(to.0) {
            out.push(Effect::Refused(Refusal::NotVoter));
        } else {
            self.raft.transfer_leader(to.0);
        }
    }

    fn on_campaign(&mut self, out: &mut Vec<Effect>) {
        let core = &self.raft.raft;
        if core.state == StateRole::Leader || !core.promotable() || !self.can_campaign() {
            out.push(Effect::Refused(Refusal::CannotCampaign));
            return;
        }
        self.raft.campaign().expect("an election can always be started");
    }

    fn on_persisted(&mut self, token: u64, out: &mut Vec<Effect>) {
        if !self.outbox.persist(token, out) {
            return;
        }
        // What is committed of the log waits for the state before it.
        if self.install.as_ref().is_none_or(|install| install.token <= token) {
            self.persist_raft();
        }
        if self.install.as_ref().is_some_and(|install| install.token <= token) {
            let install = self.install.take().expect("it was just seen");
            let place = Position { index: install.mark.index, term: install.mark.term };
            self.handed_out = self.handed_out.max(place.index);
            let conf = install.mark.conf.expect("an installed mark has a membership");
            self.set_applied(place, Some(conf));
        }
    }

    fn on_applied(&mut self, index: u64) {
        assert!(
            index <= self.handed_out,
            "applied {index}, but only {} was given",
            self.handed_out
        );
        if index <= self.log().applied().index || self.install.is_some() {
            // A snapshot that contains it is being installed or is already.
            return;
        }
        let place = self.log().position(index).expect("the log continues the state");
        let mut conf = None;
        while self.confs.front().is_some_and(|(changed, _)| *changed <= index) {
            conf = self.confs.pop_front().map(|(_, conf)| conf);
        }
        self.set_applied(place, conf);
    }

    fn set_applied(&mut self, place: Position, conf: Option<internal::ConfState>) {
        let log = self.raft.mut_store();
        log.set_applied(place);
        if let Some(conf) = conf {
            log.set_applied_conf(conf);
        }
        self.raft.advance_apply_to(place.index);
    }

    fn on_commit_to(&mut self, index: u64) {
        let raft_log = &mut self.raft.raft.raft_log;
        if self.install.is_none() && index <= raft_log.last_index() {
            raft_log.commit_to(index);
        }
    }

    fn on_truncate(&mut self, index: u64, out: &mut Vec<Effect>) {
        if self.install.is_some() || index > self.log().applied().index {
            return;
        }
        if let Some(place) = self.raft.mut_store().truncate(index) {
            out.push(Effect::Truncate(place));
        }
    }

    /// From here on raft-rs answers its leader with the request, and refuses entries. It asks for what is
    /// committed, not for all of its log, as it does by itself: the leader may need this very member to
    /// commit the rest. It has committed as much itself only if that is of its term.
    fn on_request_snapshot(&mut self) {
        let is_asked = self.raft.raft.pending_request_snapshot != raft::INVALID_INDEX;
        let is_busy = is_asked || self.install.is_some() || self.raft.snap().is_some();
        let core = &mut self.raft.raft;
        let committed = core.raft_log.committed;
        let is_of_leader = core.raft_log.term(committed).is_ok_and(|term| term == core.term);
        let has_leader = core.state == StateRole::Follower && core.leader_id != raft::INVALID_ID;
        if has_leader && is_of_leader && !is_busy {
            core.pending_request_snapshot = committed;
        }
    }

    /// A member that asks for a snapshot says up to where it has committed, which raft-rs takes for an old
    /// message where it has acknowledged more.
    fn raise_request(&self, message: &mut internal::RaftMessage) {
        if let Some(progress) = self.raft.raft.prs().get(message.from) {
            message.index = message.index.max(progress.matched);
        }
    }

    fn on_snapshot(
        &mut self,
        message: internal::RaftMessage,
        mark: internal::SnapshotMark,
        out: &mut Vec<Effect>,
    ) {
        match self.take_snapshot(message, mark) {
            Ok(()) => self.outbox.withhold(),
            Err(reason) => out.push(Effect::SnapshotRefused(reason)),
        }
    }

    /// Lets raft-rs take a snapshot over; `Ok` if it does.
    fn take_snapshot(
        &mut self,
        mut message: internal::RaftMessage,
        mark: internal::SnapshotMark,
    ) -> Result<(), Ignored> {
        if self.install.is_some() {
            return Err(Ignored::Busy);
        }
        admit::envelope(&message, &self.standing())?;
        // A snapshot is committed state, so it is as good under a later leader, who may have come
        // while it was on its way.
        if message.term < self.role.term {
            let leader = self.role.leader.filter(|leader| *leader != self.id);
            message.from = leader.ok_or(Ignored::Stale)?.0;
            message.term = self.role.term;
        }
        admit::snapshot(&message, &mark, &self.standing())?;
        let place = Position { index: mark.index, term: mark.term };
        let is_old = place.index <= self.commit();
        if is_old && self.log().position(place.index).is_some_and(|known| known != place) {
            return Err(Ignored::Malformed);
        }
        if self.kept.is_beyond(place) {
            return Err(Ignored::Stale);
        }
        if self.raft.raft.pending_request_snapshot != 0 {
            self.kept = self.log().kept_after(place);
        }
        // An old one is handed over as well: the answer tells the leader how far this node is.
        message.snapshot = Some(mark);
        self.raft
            .step(message::to_raft(message, Kind::Snapshot))
            .expect("an admitted snapshot is not refused");
        match self.raft.snap() {
            Some(_) => {
                self.append_kept(place);
                Ok(())
            }
            None => {
                if self.applied().index > 0 {
                    self.kept = Kept::default();
                }
                Err(if is_old { Ignored::Stale } else { Ignored::NotNeeded })
            }
        }
    }

    /// Others may have counted on these entries, so they go into the log with the state before them. The
    /// leader is not told, as its own may be others by now: then it replaces them.
    fn append_kept(&mut self, state: Position) {
        let entries = std::mem::take(&mut self.kept).after(state);
        let entries: Vec<_> = entries.iter().map(message::entry_to_raft).collect();
        self.raft.raft.raft_log.append(&entries);
    }

    fn on_installed(&mut self, out: &mut Vec<Effect>) {
        assert!(self.outbox.release(out), "no snapshot was to be installed");
    }
}

// What follows from an input.
impl Group {
    /// Takes over what raft-rs has decided, until it has nothing more to say.
    fn settle(&mut self, out: &mut Vec<Effect>) {
        self.note_role(out);
        self.leave_joint();
        self.ask_tickets();
        while self.raft.has_ready() {
            self.take_ready(out);
            self.note_role(out);
            self.leave_joint();
            self.ask_tickets();
        }
        // raft-rs draws from a source of its own whenever it starts a term or changes roles.
        self.raft.raft.set_randomized_election_timeout(self.timeout_ticks);
        assert!(self.commit <= self.commit(), "the commit index never goes back");
        self.commit = self.commit();
    }

    fn take_ready(&mut self, out: &mut Vec<Effect>) {
        let mut ready = self.raft.ready();
        let token = ready.number();
        let reads = ready.take_read_states();
        let mut messages = ready.take_messages();
        messages.append(&mut ready.take_persisted_messages());
        let entries: Vec<_> =
            ready.take_entries().into_iter().map(message::entry_from_raft).collect();
        let committed = ready.take_committed_entries();
        let mark = take_mark(&ready);
        let is_append = ready.must_sync();

        let reset = mark.as_ref().map(|mark| Position { index: mark.index, term: mark.term });
        if let Some(place) = reset {
            self.raft.mut_store().reset(place);
        }
        self.raft.mut_store().append(&entries);
        self.raft.advance_append_async(ready);

        let hard_state = self.hard_state();
        let append = is_append
            .then(|| self.outbox.append(Append { token, reset, hard_state, entries }))
            .flatten();
        self.send(messages, hard_state.term, out);
        if let Some(mark) = mark {
            self.confs.clear();
            self.install = Some(Install { mark: mark.clone(), token });
            out.push(Effect::Install { mark });
        }
        out.extend(append);
        if self.outbox.oldest().is_none() {
            self.persist_raft();
        }
        self.hand_out(committed, out);
        for read in reads {
            if let Some(context) = self.tickets.answer(&read.request_ctx) {
                out.push(Effect::TicketReady { context, index: read.index });
            }
        }
    }

    fn send(&mut self, messages: Vec<eraftpb::Message>, term: u64, out: &mut Vec<Effect>) {
        for raft_message in messages {
            let (kind, message) = message::from_raft(self.group.0, raft_message);
            let effect = match kind {
                Kind::Snapshot => Effect::SendSnapshot { to: NodeId(message.to), message },
                _ => Effect::Send(message),
            };
            self.outbox.message(kind, term, effect, out);
        }
    }

    /// Hands out committed entries. A membership change takes effect here, on every node at its
    /// own time after the commit, as Raft allows; a leader starts no other before it is applied.
    fn hand_out(&mut self, committed: Vec<eraftpb::Entry>, out: &mut Vec<Effect>) {
        let mut entries = Vec::with_capacity(committed.len());
        for entry in committed.into_iter().map(message::entry_from_raft) {
            assert!(entry.index > self.handed_out, "entries are handed out once");
            self.handed_out = entry.index;
            if entry.kind == EntryKind::Change {
                let (change, conf) = self.change_conf(&entry);
                out.push(Effect::ConfApplied { index: entry.index, change, conf });
                entries.push(entry);
                out.push(Effect::Commit(std::mem::take(&mut entries)));
                self.step_down_if_removed();
            } else {
                entries.push(entry);
            }
        }
        if !entries.is_empty() {
            out.push(Effect::Commit(entries));
        }
    }

    /// Every node decides alike: all start from the same membership and the same bytes.
    fn change_conf(&mut self, entry: &Entry) -> (Option<Change>, internal::ConfState) {
        let change = Change::decode(entry.data.clone())
            .filter(|change| self.raft.apply_conf_change(&change.to_raft()).is_ok());
        let conf = self.conf();
        if change.is_some() {
            self.confs.push_back((entry.index, conf.clone()));
        }
        (change, conf)
    }

    /// raft-rs leaves a leader in office that is no voter any more. It would panic on the next
    /// answer, and if one voter is left it would answer tickets all alone.
    fn step_down_if_removed(&mut self) {
        let core = &mut self.raft.raft;
        if core.state == StateRole::Leader && !core.promotable() {
            core.become_follower(core.term, raft::INVALID_ID);
        }
    }

    /// raft-rs proposes to leave a joint membership when it has applied the change; if the leader
    /// changed in between it may never do so.
    fn leave_joint(&mut self) {
        let core = &self.raft.raft;
        let is_due = core.state == StateRole::Leader
            && *core.prs().conf().auto_leave()
            && !core.has_pending_conf()
            && core.lead_transferee.is_none();
        if is_due {
            let mut entry = eraftpb::Entry::default();
            entry.set_entry_type(eraftpb::EntryType::EntryConfChangeV2);
            self.propose(vec![entry]).expect("an empty proposal is never too large");
        }
    }

    /// Asks for the tickets that wait, and for those held for peers, once it is of use.
    fn ask_tickets(&mut self) {
        let core = &self.raft.raft;
        let can_ask = match core.state {
            StateRole::Leader => core.commit_to_current_term(),
            StateRole::Follower => core.leader_id != raft::INVALID_ID,
            StateRole::Candidate | StateRole::PreCandidate => false,
        };
        if !can_ask {
            return;
        }
        while let Some(name) = self.tickets.ask_next() {
            self.raft.read_index(name);
        }
        for message in self.tickets.release() {
            self.raft
                .step(message::to_raft(message, Kind::ReadIndex))
                .expect("a leader takes requests that were admitted");
        }
    }

    /// Notices a change of role, leader or term, tells the driver, and does what follows from it.
    fn note_role(&mut self, out: &mut Vec<Effect>) {
        let core = &self.raft.raft;
        let part = match core.state {
            StateRole::Follower => Part::Follower,
            StateRole::Candidate | StateRole::PreCandidate => Part::Candidate,
            StateRole::Leader => Part::Leader,
        };
        let leader = (core.leader_id != raft::INVALID_ID).then_some(NodeId(core.leader_id));
        let role = Role { part, leader, term: core.term };
        if role == self.role {
            return;
        }
        assert!(role.term >= self.role.term, "the term never goes back");
        if role.term > self.role.term {
            // What was asked of one leader means nothing to the next.
            self.raft.raft.pending_request_snapshot = raft::INVALID_INDEX;
        }
        self.role = role;
        out.push(Effect::Role(role));
        for context in self.tickets.change_leader() {
            out.push(Effect::TicketDropped { context });
        }
        self.draw_timeout(self.election_ticks, self.election_ticks);
        if part != Part::Leader {
            self.raft.raft.maybe_free_inflight_buffers();
        }
    }

    /// The one place where an election timeout is drawn: so many of `bound` ticks more than `least`.
    fn draw_timeout(&mut self, least: usize, bound: usize) {
        let extra = self.chance.below(bound as u64);
        assert!(extra < bound as u64, "chance must keep within its bound");
        self.timeout_ticks = least + extra as usize;
        self.raft.raft.set_randomized_election_timeout(self.timeout_ticks);
    }

    /// Tells raft-rs what is on disk: everything before the oldest append that is not.
    fn persist_raft(&mut self) {
        let number = self.outbox.oldest().map_or(u64::MAX, |oldest| oldest - 1);
        self.raft.on_persist_ready(number);
    }

    /// The state was replaced by a snapshot before a crash and the log was not: the log on disk
    /// starts anew, before anything else happens.
    fn repair_log(&mut self, out: &mut Vec<Effect>) {
        if let Some((place, hard_state)) = self.repair.take() {
            let append = Append { token: 0, reset: Some(place), hard_state, entries: Vec::new() };
            out.extend(self.outbox.append(append));
        }
    }

    /// Before the own log is on disk and the state belongs to it, raft-rs must not campaign: it
    /// would panic.
    fn can_campaign(&self) -> bool {
        let raft_log = &self.raft.raft.raft_log;
        self.install.is_none()
            && self.outbox.is_log_persisted()
            && raft_log.persisted == raft_log.last_index()
    }

    fn standing(&self) -> admit::Standing {
        admit::Standing {
            id: self.id,
            group: self.group,
            term: self.role.term,
            leader: self.role.leader,
            is_leader: self.is_leader(),
            last_index: self.last_index(),
            is_log_persisted: self.can_campaign(),
        }
    }

    fn hard_state(&self) -> HardState {
        let raft_hard_state = self.raft.raft.hard_state();
        HardState {
            term: raft_hard_state.term,
            vote: raft_hard_state.vote,
            commit: raft_hard_state.commit,
        }
    }
}

fn report(result: Result<(Position, u64), Refusal>, out: &mut Vec<Effect>) {
    out.push(match result {
        Ok((first, count)) => Effect::Proposed { first, count },
        Err(refusal) => Effect::Refused(refusal),
    });
}

fn take_mark(ready: &raft::Ready) -> Option<internal::SnapshotMark> {
    let metadata = ready.snapshot().get_metadata();
    (metadata.index != 0).then(|| internal::SnapshotMark {
        index: metadata.index,
        term: metadata.term,
        conf: Some(conf::from_raft(metadata.get_conf_state())),
    })
}
