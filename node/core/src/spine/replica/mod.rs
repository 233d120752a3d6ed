//! The spine's machine on one node: consensus, the fold, range 0 and the leader's duties; the
//! requests of the node's clients on their way to whatever range owns their keys; and what the
//! replicas of other ranges on this node tell and are told. All behind one `step`, which production
//! and simulator drive alike.
//!
//! Every submitted request gets exactly one reply: an answer, a typed error, or a time-out error
//! when its outcome is unknown. Nothing that was proposed is ever proposed again.

mod alive;
mod ask;
mod commit;
mod gather;
mod held;
mod lease;
mod member;
mod ranges;
mod replicas;
mod request;
mod ticket;
mod txn;
mod write;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::mem;

use prost::Message;

use crate::auth::{News, Pass};
use crate::command::{Command, Outcome, RequestId};
use crate::group::{self, Change, Flushed, Group, Ignored, Refusal, Retention};
use crate::lease::Book;
use crate::membership::Policy;
use crate::mutant::{self, Mutant};
use crate::mvcc::{self, Head};
use crate::proto::internal::{
    self, Ask, Forward, ForwardAnswer, Heartbeat, RaftMessage, RangeLeft, Record, Ref,
    SnapshotMark, Told, TransferRange, TxnMessage,
};
use crate::range::latch::Guard;
use crate::range::{self, Latches, Tell};
use crate::spine::apply::{Requester, Task};
use crate::spine::state::{Position, State};
use crate::stage::Reach;
use crate::time::{Length, Time};
use crate::view::{View, ViewError};
use crate::{Error, GroupId, NodeId};

pub use ask::Question;
pub use lease::LeaseCounts;

use ask::Asks;
use gather::Gathers;
use held::Held;
use request::Open;
use ticket::Tickets;
use write::{Proposed, Waiting};

/// What bounds the machine. Full means a clear refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one proposal (etcd's --max-request-bytes).
    pub request_bytes_max: usize,
    /// Bytes of one record whose keys were resolved here.
    pub record_bytes_max: usize,
    /// Bytes of records put into one entry; a single larger record has an entry of its own.
    pub entry_bytes_max: usize,
    /// Records put into one entry.
    pub entry_records_max: usize,
    /// Requests of one node that are not answered yet.
    pub open_requests_max: usize,
    /// Committed entries that are not applied yet, beyond which writes are refused.
    pub unapplied_entries_max: u64,
    /// When the store is flushed, and how much of the log is kept.
    pub retention: Retention,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_bytes_max: 1_572_864,
            record_bytes_max: 6 << 20,
            entry_bytes_max: 1 << 20,
            entry_records_max: 1_024,
            open_requests_max: 8_000,
            unapplied_entries_max: 5_000,
            retention: Retention::default(),
        }
    }
}

/// What a replica is told once.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node.
    pub node: NodeId,
    /// Drawn at this start; names the node's requests and tickets. Never zero.
    pub origin: u64,
    /// Time between ticks.
    pub tick: Length,
    /// Consensus.
    pub group: group::Config,
    /// The configured election timeout.
    pub election_timeout: Length,
    /// After this a request is answered with a time-out.
    pub request_timeout: Length,
    /// Membership rules.
    pub policy: Policy,
    /// Limits.
    pub limits: Limits,
    /// The version the first leader writes down for the cluster.
    pub cluster_version: String,
}

/// What a replica is told.
#[derive(Debug)]
pub enum Input {
    /// Time has moved on by one tick.
    Tick,
    /// A frame from a peer.
    Frame(NodeId, internal::PeerFrame),
    /// A request of a client of this node, and what it was let in with; `n` rises.
    Submit(u64, Pass, Command),
    /// A read of a client of this node wants a ticket; `n` is never used again.
    Ticket(u64),
    /// A client went away; its ticket is not wanted any more.
    TicketUnwanted(u64),
    /// Everything that arrived together has been handed in: propose it.
    Turn,
    /// An `Append` is durable.
    Persisted(u64),
    /// Tasks are in the store up to here.
    Applied(Position),
    /// What of the node's state may be read has changed (I10).
    Reach(Reach),
    /// A reader of this node wants to know something of a range that is not read here; `n` is never
    /// used again.
    Question(u64, Question),
    /// The reader went away.
    QuestionUnwanted(u64),
    /// These requests of clients of this node were answered when they were applied.
    Answered(Vec<u64>),
    /// These were applied, and tell of a revision that the node does not show yet.
    Early(Vec<(u64, Outcome)>),
    /// The replica of another range on this node has something to say.
    Range(GroupId, Tell),
    /// The store is durable up to this spine index.
    Flushed(u64),
    /// The log's disk has had a flush under way for this long (zero: none).
    DiskStalled(Length),
    /// All of a snapshot has arrived and is durable in a staging place.
    SnapshotReceived(RaftMessage, SnapshotMark),
    /// The store holds the snapshot that `Install` named.
    SnapshotInstalled,
    /// A snapshot was taken in by its receiver, or not.
    SnapshotSent(NodeId, bool),
    /// There is a live connection to this peer.
    Connected(NodeId),
    /// The connection to this peer is gone.
    Disconnected(NodeId),
    /// These forwards never left the node.
    Unsent(Vec<Forward>),
    /// The node is stopping: hand leadership over.
    HandOver,
    /// The state here is wrong: have the leaders send theirs, of the spine and of all ranges. May be lost,
    /// and does nothing where this node leads.
    RequestSnapshots,
    /// The leader of a range, here or elsewhere, is to hand over to this member. May be lost.
    TransferRange(GroupId, NodeId),
    /// Do not wait for the election timeout: there is nobody to wait for.
    Campaign,
}

/// What the driver must do. Appends, sends and tasks are carried out in the order they come.
#[derive(Debug)]
pub enum Effect {
    /// Write to the log, and say `Persisted` when it is durable.
    Append(group::Append),
    /// Send to a peer; messages to one peer stay in order, loss is allowed.
    Send(NodeId, Parcel),
    /// The log may forget everything up to here; nothing waits for it.
    Truncate(group::Position),
    /// Stream the state to a peer, whose log will not do.
    SendSnapshot(NodeId, RaftMessage),
    /// Replace the state of the store by the staged snapshot, then say `SnapshotInstalled`.
    Install(SnapshotMark),
    /// The staged snapshot is not wanted.
    SnapshotRefused(Ignored),
    /// A peer's message was ignored: its sender, its kind and why.
    Ignored(NodeId, u32, Ignored),
    /// Apply a folded entry, then say `Applied`.
    Apply(Task),
    /// Make the store durable, then say `Flushed` with the index it stood at.
    FlushStore,
    /// Answer a request of this node.
    Reply(u64, Outcome),
    /// A request of this node is a transaction over several ranges, which has its locks and was
    /// evaluated: the spine is asked to decide it. Nothing but measuring goes by this.
    Deciding(u64),
    /// Answer a ticket of this node: the store has everything the read must see.
    TicketReady(u64, Result<(), Error>),
    /// The answer to a question of this node; if it is a refusal, the reader looks anew where the
    /// keys are.
    Told(u64, Told),
    /// Answer a node's question (`remote::answer`) from the store as it is now or later, unless the
    /// range is taken away or replaced meanwhile.
    Answer(NodeId, Ask),
    /// Members, alarms or the cluster's version have changed.
    Cluster(Cluster),
    /// Users, roles, permissions or tokens have changed. What the store shows before the entry that
    /// changed them comes later.
    Auth(News),
    /// This node was removed from the cluster.
    Removed,
    /// Role, leader or term have changed.
    Status(Status),
    /// For the replica of another range on this node.
    Range(GroupId, range::replica::Input),
    /// This node is to hold a replica of a range and has nothing of it: begin one without a state,
    /// for the leader to fill.
    Begin {
        /// Which.
        range: GroupId,
        /// The change of members that brings it (`range::replica::Config::since`). To be kept in the
        /// store (`stored::set_since`) before anything of the replica is.
        since: u64,
    },
    /// The replica of a range that was merged away is of no use here, as nobody will take it over: end
    /// it.
    Drop(GroupId),
    /// Nobody will ask for what the log has of this range, which was merged away and has no replica here.
    Forget(GroupId),
    /// The replica of a range that was merged away has ended here: after what it was sent, drop its
    /// machine, and once the store is durable, its log.
    End {
        /// Which.
        range: GroupId,
        /// The node may hold the range again: its log keeps where it ended, and how the node has
        /// voted.
        keeps_votes: bool,
    },
    /// The replica of a range has no part in it any more: end it, and remove its keys.
    Leave(GroupId),
}

/// One message between two nodes.
#[derive(Clone, Debug, PartialEq)]
pub enum Parcel {
    /// Consensus.
    Raft(RaftMessage),
    /// A request for the leader of a range.
    Forward(Forward),
    /// Its answer.
    Answer(ForwardAnswer),
    /// For the spine's leader: what is committed in a range.
    Ref(Ref),
    /// For the spine's leader: a record to be folded.
    Record(Record),
    /// Between the coordinator of a transaction and the leader of one of its ranges.
    Txn(TxnMessage),
    /// For the leader of a range: hand over.
    Transfer(TransferRange),
    /// For the spine's leader: what a node has and does. The driver's, not the machine's.
    Heartbeat(Heartbeat),
    /// To a node that shows a range.
    Ask(Ask),
    /// Its answer.
    Told(Told),
    /// To a node that has no part in a range any more.
    Left(RangeLeft),
    /// The sender is there.
    Beat {
        /// It leads the spine or hears from who does.
        follows_spine: bool,
    },
}

impl Parcel {
    /// Adds it to the next frame for its receiver.
    pub fn gather(self, frame: &mut internal::PeerFrame) {
        match self {
            Self::Raft(message) => frame.raft.push(message),
            Self::Forward(forward) => frame.forwards.push(forward),
            Self::Answer(answer) => frame.answers.push(answer),
            Self::Ref(reference) => frame.refs.push(reference),
            Self::Record(record) => frame.records.push(record),
            Self::Txn(message) => frame.txns.push(message),
            Self::Transfer(transfer) => frame.transfers.push(transfer),
            Self::Heartbeat(heartbeat) => frame.heartbeats = vec![heartbeat],
            Self::Ask(ask) => frame.asks.push(ask),
            Self::Told(told) => frame.told.push(told),
            Self::Left(left) => frame.left.push(left),
            Self::Beat { follows_spine } => {
                frame.is_beat = true;
                frame.follows_spine = follows_spine;
            }
        }
    }
}

/// How far a node shows its state (I10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Everything that the spine has folded up to this index.
    pub index: u64,
    /// The revisions there.
    pub head: Head,
}

/// What the state says of the cluster.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cluster {
    /// The members by id.
    pub members: Vec<internal::Member>,
    /// (kind, member) of every active alarm, kinds as in etcd's API.
    pub alarms: BTreeSet<(i32, u64)>,
    /// The version the cluster agreed on; empty until it is known.
    pub version: String,
    /// Members that were removed; their ids never come back.
    pub removed: BTreeSet<u64>,
}

/// What others on the node may know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Whether this node leads.
    pub is_leader: bool,
    /// The leader, if one is known.
    pub leader: Option<NodeId>,
    /// The current term.
    pub term: u64,
    /// Whether this node is a learner.
    pub is_learner: bool,
}

/// The machine.
pub struct Replica {
    config: Config,
    now: Time,
    state: State,
    group: Group,
    status: Status,
    leader_since: Time,
    /// Spine index up to which a new leader must have applied before it evaluates (I5); `None`
    /// when this node does not lead.
    drain_index: Option<u64>,
    applied: Position,
    reach: Reach,
    /// Who leads ranges of which there is no replica here, as others have said.
    hints: BTreeMap<GroupId, ranges::Hint>,
    gathers: Gathers,
    flushed: Flushed,
    /// The membership that the next committed change brings.
    conf_applied: Option<(u64, Option<Change>, internal::ConfState)>,
    /// Why consensus did not take the last proposal.
    refusal: Option<Refusal>,

    latches: Latches,
    waiting: BTreeMap<Guard, Waiting>,
    /// Latches that are about to be given back, while some are.
    released: Option<Vec<Guard>>,
    proposed: BTreeMap<RequestId, Proposed>,
    /// Counts the proposals that no client asked for.
    own_n: u64,
    /// Latches of folded writes, given back when their index is applied.
    unapplied: VecDeque<(u64, Vec<Guard>)>,
    records: Vec<Record>,
    records_bytes: usize,

    open: BTreeMap<u64, Open>,
    held: Held,
    deadlines: VecDeque<(Time, u64)>,
    parked: VecDeque<(Requester, Command)>,
    tickets: Tickets,
    asks: Asks,

    book: Book,
    lease_counts: LeaseCounts,
    disk_stalled: Length,
    /// When a quorum last confirmed this leader.
    confirmed: Option<Time>,
    /// Keep-alives that wait for the revocation of their lease.
    overdue: BTreeMap<i64, Vec<Requester>>,
    /// Keep-alives that wait until their lease's mark is forgotten.
    clearing: BTreeMap<i64, Vec<Requester>>,
    revoking: BTreeSet<i64>,

    /// What the replicas of other ranges on this node said of themselves.
    ranges: ranges::Here,
    txns: txn::Txns,

    connected: BTreeMap<NodeId, Time>,
    peers: alive::Peers,
    change: Option<member::Pending>,
    transfer: Option<member::Transfer>,
    /// Parked requests may find their way now.
    is_unpark_due: bool,
    /// A new leader is known: ask it for a ticket.
    is_retry_due: bool,
    /// A new leader has applied what it inherited.
    is_start_due: bool,

    out: Vec<Effect>,
    group_out: Vec<group::Effect>,
}

impl Replica {
    /// A machine over a store that stands at `state` and a log recovered as `recovered`.
    ///
    /// # Errors
    /// The log and the store do not fit together.
    pub fn new(
        config: Config,
        now: Time,
        state: State,
        recovered: group::Recovered,
        chance: Box<dyn group::Chance + Send>,
    ) -> Result<Self, group::Error> {
        assert!(config.origin != 0, "an origin is never zero");
        let applied = state.position();
        // The driver tells.
        let shown = Shown { index: 0, head: mvcc::NO_HEAD };
        let group = Group::new(config.group.clone(), recovered, chance)?;
        let status = Status { term: group.role().term, is_learner: false, ..Status::default() };
        Ok(Self {
            config,
            now,
            state,
            group,
            status,
            leader_since: now,
            drain_index: None,
            applied,
            reach: Reach::none(shown),
            hints: BTreeMap::new(),
            gathers: Gathers::default(),
            flushed: Flushed::new(applied.index),
            conf_applied: None,
            refusal: None,
            latches: Latches::default(),
            waiting: BTreeMap::new(),
            released: None,
            proposed: BTreeMap::new(),
            own_n: 0,
            unapplied: VecDeque::new(),
            records: Vec::new(),
            records_bytes: 0,
            open: BTreeMap::new(),
            held: Held::default(),
            deadlines: VecDeque::new(),
            parked: VecDeque::new(),
            tickets: Tickets::default(),
            asks: Asks::default(),
            book: Book::new(),
            lease_counts: LeaseCounts::default(),
            disk_stalled: Length(0),
            confirmed: None,
            overdue: BTreeMap::new(),
            clearing: BTreeMap::new(),
            revoking: BTreeSet::new(),
            ranges: ranges::Here::default(),
            txns: txn::Txns::default(),
            connected: BTreeMap::new(),
            peers: alive::Peers::default(),
            change: None,
            transfer: None,
            is_unpark_due: false,
            is_retry_due: false,
            is_start_due: false,
            out: Vec::new(),
            group_out: Vec::new(),
        })
    }

    /// Takes one input. `view` is the applied state. Effects are appended to `out`.
    ///
    /// # Errors
    /// The store cannot be read; the process must stop.
    pub fn step(
        &mut self,
        now: Time,
        view: &dyn View,
        input: Input,
        out: &mut Vec<Effect>,
    ) -> Result<(), ViewError> {
        self.now = now.max(self.now);
        match input {
            Input::Tick => self.on_tick(view)?,
            Input::Frame(from, frame) => self.on_frame(from, frame, view)?,
            Input::Submit(n, pass, command) => self.on_submit(n, pass, command, view)?,
            Input::Ticket(n) => self.on_ticket(n),
            Input::TicketUnwanted(n) => self.tickets.forget(n),
            Input::Turn => {}
            Input::Persisted(token) => self.drive(group::Input::Persisted { token }),
            Input::Applied(position) => self.on_applied(position, view)?,
            Input::Reach(reach) => self.on_reach(reach),
            Input::Question(n, question) => self.on_question(n, question),
            Input::QuestionUnwanted(n) => self.forget_question(n),
            Input::Answered(numbers) => {
                for n in numbers {
                    self.open.remove(&n);
                }
            }
            Input::Early(answers) => {
                for (n, outcome) in answers {
                    self.answer_when_shown(n, 0, outcome);
                }
            }
            Input::Range(range, tell) => self.on_tell(range, tell),
            Input::Flushed(index) => self.on_flushed(index),
            Input::DiskStalled(length) => self.disk_stalled = length,
            Input::SnapshotReceived(message, mark) => {
                self.drive(group::Input::SnapshotReceived { message, mark });
            }
            Input::SnapshotInstalled => self.on_installed(view)?,
            Input::SnapshotSent(to, is_ok) => {
                self.drive(group::Input::SnapshotSent { to, is_ok });
            }
            Input::Connected(peer) => {
                self.connected.insert(peer, self.now);
            }
            Input::Disconnected(peer) => self.on_disconnected(peer),
            Input::Unsent(forwards) => self.on_unsent(forwards),
            Input::HandOver => self.on_hand_over(view)?,
            Input::RequestSnapshots => {
                self.drive(group::Input::RequestSnapshot);
                self.tell_all(|| range::replica::Input::RequestSnapshot);
            }
            Input::TransferRange(range, to) => self.transfer_range(range, to, view)?,
            Input::Campaign => self.drive(group::Input::Campaign),
        }
        self.turn(view)?;
        out.append(&mut self.out);
        Ok(())
    }

    /// As `step`, but leaves what was handed in unproposed until an input by `step` follows, so
    /// that requests which arrive together share an entry.
    ///
    /// # Errors
    /// The store cannot be read; the process must stop.
    pub fn gather(
        &mut self,
        now: Time,
        view: &dyn View,
        n: u64,
        pass: Pass,
        command: Command,
    ) -> Result<(), ViewError> {
        self.now = now.max(self.now);
        self.on_submit(n, pass, command, view)
    }

    /// As `gather`, for a read's ticket.
    pub fn gather_ticket(&mut self, now: Time, n: u64) {
        self.now = now.max(self.now);
        self.on_ticket(n);
    }

    /// The folded state.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Consensus.
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// Role, leader and term.
    pub fn status(&self) -> Status {
        self.status
    }

    /// Where the store stands.
    pub fn applied(&self) -> Position {
        self.applied
    }

    /// What is under way here, in words.
    pub fn load_text(&self) -> String {
        format!(
            "{} open, {} parked, {} latched, {} waiting, {} proposed, {}, {}",
            self.open.len(),
            self.parked.len(),
            self.latches.len(),
            self.waiting.len(),
            self.proposed.len(),
            self.txns.load_text(),
            self.tickets.load_text(),
        )
    }

    /// Requests of this node that wait for an answer.
    pub fn open_count(&self) -> usize {
        self.open.len()
    }

    fn node(&self) -> NodeId {
        self.config.node
    }

    /// A leader that has applied everything it inherited.
    fn is_serving(&self) -> bool {
        let is_drained = |index| self.applied.index >= index || mutant::is(Mutant::NoDrain);
        self.drain_index.is_some_and(is_drained)
    }

    fn on_tick(&mut self, view: &dyn View) -> Result<(), ViewError> {
        self.drive(group::Input::Tick);
        self.tick_peers();
        self.hand_over_if_stalled(view)?;
        self.expire_requests();
        self.expire_tickets();
        self.tick_members();
        self.tick_txns();
        self.tick_asks();
        self.tick_gathers();
        self.leave_ranges();
        if self.is_look_due() {
            self.look_for_absent(view)?;
            self.look_for_left_behind(view)?;
            self.ask_whether_left();
            self.forget_hints();
        }
        // A hand-over that came to nothing leaves requests parked.
        self.is_unpark_due |= !self.parked.is_empty();
        self.tick_leases(view)
    }

    fn on_frame(
        &mut self,
        from: NodeId,
        frame: internal::PeerFrame,
        view: &dyn View,
    ) -> Result<(), ViewError> {
        self.hear(from);
        if frame.is_beat {
            self.hear_beat(from, frame.follows_spine);
        }
        for message in frame.raft {
            if message.group == GroupId::SPINE.0 {
                self.drive(group::Input::Message(message));
            } else {
                let range = GroupId(message.group);
                self.tell(range, range::replica::Input::Message(message));
            }
        }
        for forward in frame.forwards {
            self.on_forward(from, forward, view)?;
        }
        for answer in frame.answers {
            self.on_forward_answer(from, answer);
        }
        self.on_refs(frame.refs);
        for record in frame.records {
            self.on_record(record, view)?;
        }
        for message in frame.txns {
            self.on_txn_message(from, message, view)?;
        }
        for transfer in frame.transfers {
            self.hand_over_range(GroupId(transfer.range), NodeId(transfer.to), view)?;
        }
        for ask in frame.asks {
            self.on_ask(from, ask);
        }
        for told in frame.told {
            self.on_told(from, told);
        }
        for left in frame.left {
            self.on_left(&left);
        }
        Ok(())
    }

    fn on_reach(&mut self, reach: Reach) {
        assert!(
            self.reach.shown.index <= reach.shown.index && reach.shown.index <= self.applied.index,
            "{reach:?} can be read after {:?}, with {:?} applied (I10)",
            self.reach.shown,
            self.applied
        );
        self.reach = reach;
        self.tickets.look_again();
        self.answer_kept();
        self.answer_held();
    }

    /// Ends a step: carries out what the handling of consensus put off, proposes what was gathered
    /// and asks for tickets, until there is nothing left to do.
    fn turn(&mut self, view: &dyn View) -> Result<(), ViewError> {
        loop {
            if mem::take(&mut self.is_retry_due) {
                self.retry_ticket();
            }
            if mem::take(&mut self.is_start_due) {
                self.start_leading(view)?;
            }
            if mem::take(&mut self.is_unpark_due) {
                self.unpark(view)?;
            }
            self.step_txns(view)?;
            self.serve_shown(view)?;
            self.report(view)?;
            self.propose_records(view)?;
            self.request_ticket();
            let is_done = self.records.is_empty()
                && !self.txns.is_step_due()
                && !self.is_unpark_due
                && !self.is_retry_due
                && !self.is_start_due
                && !self.tickets.is_request_due()
                && !self.is_serving_due();
            if is_done {
                return Ok(());
            }
        }
    }

    fn push_record(&mut self, record: Record, view: &dyn View) -> Result<(), ViewError> {
        let record_bytes = record.encoded_len();
        let limits = &self.config.limits;
        if self.records_bytes + record_bytes > limits.entry_bytes_max
            || self.records.len() >= limits.entry_records_max
        {
            self.propose_records(view)?;
        }
        self.records_bytes += record_bytes;
        self.records.push(record);
        Ok(())
    }

    /// Hands an input to consensus and carries out what comes of it, in order. Handling an effect
    /// never drives consensus itself: what it leads to is put off until the turn.
    fn drive(&mut self, input: group::Input) {
        let mut effects = mem::take(&mut self.group_out);
        self.group.step(input, &mut effects);
        for effect in effects.drain(..) {
            self.on_group_effect(effect);
        }
        self.group_out = effects;
    }

    fn reply(&mut self, to: Requester, outcome: Outcome) {
        if to.node == self.node() {
            let is_client = to.id.origin == self.config.origin;
            let is_open = self.open.get(&to.id.n).is_some_and(|open| !open.is_decided);
            if is_client && is_open {
                self.answer_when_shown(to.id.n, 0, outcome);
            }
        } else {
            let answer = encode_answer(to.id, &outcome, 0);
            self.out.push(Effect::Send(to.node, Parcel::Answer(answer)));
        }
    }

    fn refuse_unproposed(&mut self, to: Requester, command: Command) {
        self.hand_back(GroupId::SPINE, to, command);
    }

    /// A request is given back to the node that sent it here for a range, with the leader of that
    /// range if it is another. Whose keys the range has may be known better at one end or the other.
    fn hand_back(&mut self, range: GroupId, to: Requester, command: Command) {
        if to.node == self.node() {
            self.parked.push_back((to, command));
        } else {
            let answer = ForwardAnswer {
                origin: to.id.origin,
                n: to.id.n,
                is_unproposed: true,
                leader: self.ranges.leader(range).map_or(0, |leader| leader.0),
                ..ForwardAnswer::default()
            };
            self.out.push(Effect::Send(to.node, Parcel::Answer(answer)));
        }
    }

    /// What the folded state says of the cluster.
    pub fn cluster(&self) -> Cluster {
        Cluster {
            members: self.state.members().values().cloned().collect(),
            alarms: self.state.alarms().clone(),
            version: self.state.cluster_version().to_owned(),
            removed: self.state.removed().clone(),
        }
    }

    fn publish_cluster(&mut self) {
        let cluster = self.cluster();
        self.out.push(Effect::Cluster(cluster));
    }

    fn requester(&self, n: u64) -> Requester {
        // Nobody waits for one that is not open.
        let pass = self.open.get(&n).map_or(Pass::NOBODY, |open| open.pass);
        Requester { id: RequestId { origin: self.config.origin, n }, node: self.node(), pass }
    }

    /// Names a proposal of the node itself, which nobody waits for.
    fn own_requester(&mut self) -> Requester {
        self.own_n += 1;
        // The complement keeps these ids apart from those of clients.
        let id = RequestId { origin: !self.config.origin, n: self.own_n };
        Requester { id, node: self.node(), pass: Pass::NODE }
    }

    fn position(&self) -> Position {
        self.state.position()
    }
}

/// An outcome on its way to the node whose client waits for it.
pub fn encode_answer(id: RequestId, outcome: &Outcome, index: u64) -> ForwardAnswer {
    let RequestId { origin, n } = id;
    let mut answer = ForwardAnswer { origin, n, index, ..ForwardAnswer::default() };
    match outcome {
        Ok(content) => {
            answer.kind = content.kind();
            answer.body = content.encode();
        }
        Err(error) => {
            answer.error_code = error.code() as u32;
            answer.error_text = error.text().to_owned();
        }
    }
    answer
}
