//! The machine of one range's replica: consensus on the range's writes, their evaluation under
//! latches on the leader, and the join of the range's log with the order of the spine.
//!
//! A write goes: latched and evaluated (I5), proposed with its effects (I4), committed in the
//! range's log, where it has the next sequence number, reported to the spine (I2, I3), numbered
//! there, and applied when this replica has both the write and its number (I6). Until it is
//! numbered it is staged. Its client is answered, and its latches are given back, when it is
//! applied (I11).

mod commit;
mod member;
mod merge;
mod report;
mod sleep;
pub(crate) mod txn;
mod write;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::mem;

use crate::auth::Admission;
use crate::command::{Command, Outcome, RequestId};
use crate::group::{self, Change, Flushed, Group, Ignored, Refusal, Retention};
use crate::mutant::{self, Mutant};
use crate::mvcc::Head;
use crate::proto::Span;
use crate::proto::internal::{
    ConfState, Lock, Prepare, RaftMessage, RangeWrite, Ref, Resolve, Run, SnapshotMark,
};
use crate::range::latch::{Guard, Latches};
use crate::range::numbering::Numbering;
use crate::range::stored::{Position, Stored};
use crate::spine::apply::{Requester, Step};
use crate::spine::txns::Decision;
use crate::time::{Length, Time};
use crate::view::{Batch, View, ViewError};
use crate::{GroupId, NodeId};

pub use member::Members;

use commit::Staged;
use member::{CatchUp, Holders};
use report::Reported;
use write::{Holder, Proposed, Waiting};

/// What bounds the machine. Full means a clear refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one proposal (etcd's --max-request-bytes).
    pub request_bytes_max: usize,
    /// Bytes of one write whose keys were resolved here.
    pub write_bytes_max: usize,
    /// Bytes of writes put into one entry; a single larger write has an entry of its own.
    pub entry_bytes_max: usize,
    /// Writes put into one entry.
    pub entry_writes_max: usize,
    /// Writes that hold or wait for latches, are under way or staged; beyond it new ones are
    /// refused.
    pub writes_max: usize,
    /// Runs noted in one entry.
    pub notes_max: usize,
    /// When the store is flushed, and how much of the log is kept.
    pub retention: Retention,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_bytes_max: 1_572_864,
            write_bytes_max: 6 << 20,
            entry_bytes_max: 1 << 20,
            entry_writes_max: 1_024,
            writes_max: 8_000,
            notes_max: 1_024,
            retention: Retention::default(),
        }
    }
}

/// What a replica is told once.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node.
    pub node: NodeId,
    /// The range.
    pub range: GroupId,
    /// Which change of members brought this replica; 0 from the beginning.
    pub since: u64,
    /// Consensus.
    pub group: group::Config,
    /// A report that is not followed by numbers is repeated after this.
    pub report_again_after: Length,
    /// A transaction that is not decided by then is ended.
    pub abort_after: Length,
    /// What is applied is noted after this, even if nothing is written.
    pub note_after: Length,
    /// Limits.
    pub limits: Limits,
}

/// What a replica is told.
#[derive(Clone, Debug)]
pub enum Input {
    /// Time has moved on by one tick.
    Tick,
    /// Consensus, from a peer.
    Message(RaftMessage),
    /// A Put, DeleteRange or Txn whose keys are all in the range's span.
    Submit(Requester, Command),
    /// Everything that arrived together has been handed in: propose it.
    Turn,
    /// An `Append` is durable.
    Persisted(u64),
    /// The spine says how writes were numbered. In any order, and as often as anyone likes.
    Numbered(Vec<Run>),
    /// A transaction over several ranges wants these latches, held until it is resolved. Answered
    /// by `Prepared` or `PrepareFailed`.
    Prepare(RequestId, Vec<Lock>),
    /// The spine has decided a transaction. Also an answer to `WantNumbers`.
    Decided(RequestId, Decision),
    /// The transactions of which the spine does not know that this range's log tells of them, with
    /// the index at which each locks its keys. An answer to `WantNumbers`.
    OpenTxns(Vec<(RequestId, u64)>),
    /// The ticket asked for is good: the store shows everything up to this head, and what was let in
    /// is admitted still if this says so.
    Ticket(u64, Head, Admission),
    /// The ticket asked for will not come.
    TicketFailed(u64, crate::Error),
    /// Tasks are in the store up to here.
    Applied(Position),
    /// The store is durable up to this index.
    Flushed(u64),
    /// All of a snapshot has arrived and is durable in a staging place.
    SnapshotReceived(RaftMessage, SnapshotMark),
    /// The store holds the snapshot that `Install` named.
    SnapshotInstalled,
    /// A snapshot was taken in by its receiver, or not.
    SnapshotSent(NodeId, bool),
    /// The connection to this peer is gone.
    Unreachable(NodeId),
    /// The other nodes that are there, as this node knows; none are before this is said.
    Alive(BTreeSet<NodeId>),
    /// The state here is wrong: have the leader send its own. May be lost.
    RequestSnapshot,
    /// Hand the leadership to this node.
    Transfer(NodeId),
    /// This node hears nothing of the spine's leader, but these others do: what is under way here has
    /// an end only if one of them leads.
    CutOff(BTreeSet<NodeId>),
    /// The log's disk does not answer: what is under way here has an end only if another node leads.
    DiskStalled,
    /// Do not wait for the election timeout.
    Campaign,
    /// Change who holds a replica; only a leader does. Followed by `Replicas` once it takes effect,
    /// or by `ReplicasRefused`; it may be lost with the leadership.
    ///
    /// A node is added only when it has a new replica without a state: a leader believes what an
    /// earlier one has acknowledged since, and would send its successor nothing.
    /// It becomes a voter only as a learner that is close to the end of the log: a replica without a
    /// state acknowledges nothing.
    ChangeReplicas(Change),
    /// The spine's state on this node was replaced by a newer one: find out again when everything
    /// that came before is here. Followed by `CatchingUp` and `CaughtUp`.
    CatchUp,
    /// Who is to hold the range. Its leader gets there by itself, one change after the other.
    Members(Members),
    /// The range was merged away, and its log has everything up to this index on this node: what it
    /// wrote there is committed, whether or not anybody leads it still.
    Finish(u64),
    /// The range was merged away, and the range that has its keys now has taken them over on this
    /// node. Followed by `Retired`.
    Retire,
    /// At this place of the range's log this node has no part any more, and whoever votes knows, as
    /// another replica has said (`Gone`, or its stored state). May come late and more than once.
    RemovedAt(group::Position),
}

/// What the driver must do. Appends, sends and tasks are carried out in the order they come.
#[derive(Debug)]
pub enum Effect {
    /// Write to the log, and say `Persisted` when it is durable.
    Append(group::Append),
    /// Send to a peer; loss is allowed.
    Send(RaftMessage),
    /// The log may forget everything up to here; nothing waits for it.
    Truncate(group::Position),
    /// Stream the range's state to a peer, whose log will not do.
    SendSnapshot(NodeId, RaftMessage),
    /// Replace the range's state by the staged snapshot, after the tasks before it, then say
    /// `SnapshotInstalled`. Until `CaughtUp` comes, the range is not shown here.
    Install(SnapshotMark),
    /// Everything that was numbered or decided when this replica was started, or when its last
    /// snapshot was installed, is applied.
    CaughtUp,
    /// What it said of having caught up before this counts no more.
    CatchingUp,
    /// A change of the membership, at this place of the range's log, has taken effect: from here on
    /// it is this one, and is stored with the task before.
    Replicas(group::Position, ConfState),
    /// A leader's change of membership has left these nodes without a part, and nobody needs them at
    /// this place of the log: they are to hear of it, as nobody sends them the entry.
    Gone(group::Position, Vec<NodeId>),
    /// `ChangeReplicas` was refused and has no effect.
    ReplicasRefused(Refusal),
    /// This node has no part in the range any more: drop the machine, then, after the tasks that
    /// were handed out, what the range has in the store, and then its log but for the term and the
    /// vote, which outlive it. A log that is found without a row of its range in the store is
    /// dropped likewise.
    Removed,
    /// As far as this replica knows, it has no part in the range any more. Those who have may need it
    /// still: find out (`RemovedAt`).
    Outside,
    /// The range is no more on this node, and its row in the store has gone with the task of another
    /// range. Whoever waited here was handed back. Once nothing more comes here, drop the machine,
    /// and when the store is durable, all of its log.
    Retired,
    /// This range is to take over another, and waits until that has applied its log up to an index.
    WantFinish(GroupId, u64),
    /// The staged snapshot is not wanted.
    SnapshotRefused(Ignored),
    /// A peer's message was ignored: its sender, its kind and why.
    Ignored(NodeId, u32, Ignored),
    /// Tell the spine's leader. Only the newest counts; it may be lost.
    Report(Ref),
    /// Hand in what the spine remembers: how writes were numbered, what became of `undecided`
    /// transactions, and which are open.
    WantNumbers,
    /// A transaction's keys are locked, in the entry at this index of the range's log.
    Prepared(RequestId, u64),
    /// They are not, and will not be by this attempt.
    PrepareFailed(RequestId),
    /// A transaction was not decided for too long: end it in the spine.
    AbortTxn(RequestId),
    /// A ticket of the spine, and then an applied state that is not older.
    WantTicket(u64),
    /// Apply, then say `Applied`.
    Apply(Task),
    /// Make the store durable, then say `Flushed` with the index it stood at.
    FlushStore,
    /// Answer a request.
    Reply(Requester, Outcome),
    /// This replica cannot carry the request out, and nothing of it was proposed.
    Unproposed(Requester, Command),
    /// Role, leader or term have changed.
    Role(group::Role),
}

/// Entries of the range's log, joined with the order.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// The range.
    pub range: GroupId,
    /// Where the range's state stands after it.
    pub position: Position,
    /// Its writes in order.
    pub steps: Vec<Step>,
    /// Transactions whose changes, if any, are among them.
    pub resolved: Vec<RequestId>,
    /// Ranges that were split off: a replica of each begins here, as `rows` has it.
    pub begun: Vec<GroupId>,
    /// Ranges that were taken over: their replicas here have ended.
    pub ended: Vec<GroupId>,
    /// The rows that keep the position.
    pub rows: Batch,
}

/// What is under way in a replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Requests that wait until the leader may evaluate.
    pub parked: usize,
    /// Requests that hold latches or wait for some.
    pub latched: usize,
    /// Those of them that wait.
    pub waiting: usize,
    /// Writes that were proposed and are not applied.
    pub proposed: usize,
    /// Requests that wait for a ticket of the spine.
    pub tickets: usize,
    /// Transactions over several ranges that lock keys.
    pub locks: usize,
    /// Committed entries that are not joined.
    pub staged: usize,
}

/// The machine.
pub struct Replica {
    config: Config,
    now: Time,
    /// Its keys.
    span: Span,
    /// Counts changes of the span.
    generation: u64,
    group: Group,
    role: group::Role,
    /// Index up to which a new leader must have applied before it evaluates (I5); `None` when this
    /// node does not lead.
    drain_index: Option<u64>,

    numbering: Numbering,
    /// Sequence number of the last committed write.
    committed: u64,
    /// Where the join stands: everything up to here was handed to the store.
    joined: Position,
    applied: Position,
    flushed: Flushed,
    /// Committed entries that are not joined yet.
    staged: VecDeque<Staged>,
    conf_applied: Option<(u64, Option<Change>, ConfState)>,
    refusal: Option<Refusal>,

    latches: Latches,
    waiting: BTreeMap<Guard, Waiting>,
    /// Latches that are about to be given back, while some are.
    released: Option<Vec<Guard>>,
    proposed: BTreeMap<RequestId, Proposed>,
    /// Latches of joined writes, given back when their index is applied.
    unapplied: VecDeque<(u64, Guard)>,
    /// Locks that are waited for, and when they were last asked for.
    wanted: BTreeMap<RequestId, Time>,
    /// Locks that are granted and not committed yet.
    preparing: BTreeMap<RequestId, Guard>,
    /// Transactions whose locks are committed, until what became of them is joined.
    prepared: BTreeMap<RequestId, txn::Prepared>,
    /// Locks further on in the log of transactions that ended before, by a request that came late. A
    /// replica that lags has them before it has joined the end.
    prepared_late: BTreeMap<RequestId, VecDeque<txn::Prepared>>,
    /// What the log tells became of transactions, as far as the spine may not know it.
    resolved: BTreeSet<RequestId>,
    prepares: Vec<Prepare>,
    resolves: Vec<Resolve>,
    writes: Vec<RangeWrite>,
    writes_bytes: usize,

    /// Requests that wait until this leader may evaluate.
    parked: VecDeque<(Requester, Command)>,
    tickets: BTreeMap<u64, Holder>,
    tickets_count: u64,

    /// Proposed to be noted, by this leader.
    noting: u64,
    note_due: Option<Time>,
    /// The newest report, and when it is due again.
    reported: Reported,
    report_due: Option<Time>,
    /// When the spine's numbers are asked for again.
    numbers_due: Option<Time>,

    /// A snapshot on its way into the store.
    installing: Option<SnapshotMark>,
    catch_up: CatchUp,
    catch_ups_count: u64,
    is_announced: bool,
    /// Its keys are another range's here.
    is_retired: bool,
    /// When a range that is to be taken over is asked for again.
    finish_due: Option<Time>,
    holders: Holders,

    out: Vec<Effect>,
    group_out: Vec<group::Effect>,
}

impl Replica {
    /// A machine of a replica that has no state, for the leader of its range to fill. `log` is what an
    /// earlier replica on this node has left, if there was one.
    ///
    /// # Errors
    /// As `Group::empty`.
    pub fn empty(
        config: Config,
        now: Time,
        log: group::Recovered,
        chance: Box<dyn group::Chance + Send>,
    ) -> Result<Self, group::Error> {
        let group = Group::empty(config.group.clone(), log, chance)?;
        Ok(Self::with_group(config, now, Stored::default(), group))
    }

    /// A machine over a store in which the range stands at `stored`, and a log recovered as
    /// `recovered`.
    ///
    /// # Errors
    /// The log and the store do not fit together.
    pub fn new(
        config: Config,
        now: Time,
        stored: Stored,
        recovered: group::Recovered,
        chance: Box<dyn group::Chance + Send>,
    ) -> Result<Self, group::Error> {
        let group = Group::new(config.group.clone(), recovered, chance)?;
        Ok(Self::with_group(config, now, stored, group))
    }

    fn with_group(config: Config, now: Time, stored: Stored, group: Group) -> Self {
        let holders = Holders::new(&stored);
        let Stored { position, noted, prepared, span, generation, .. } = stored;
        let prepared = txn::from_stored(prepared, now);
        Self {
            role: group.role(),
            span,
            generation,
            config,
            now,
            group,
            drain_index: None,
            numbering: Numbering::new(position.seq, noted),
            committed: position.seq,
            joined: position,
            applied: position,
            flushed: Flushed::new(position.index),
            staged: VecDeque::new(),
            conf_applied: None,
            refusal: None,
            latches: Latches::default(),
            waiting: BTreeMap::new(),
            released: None,
            proposed: BTreeMap::new(),
            unapplied: VecDeque::new(),
            wanted: BTreeMap::new(),
            preparing: BTreeMap::new(),
            prepared,
            prepared_late: BTreeMap::new(),
            resolved: BTreeSet::new(),
            prepares: Vec::new(),
            resolves: Vec::new(),
            writes: Vec::new(),
            writes_bytes: 0,
            parked: VecDeque::new(),
            tickets: BTreeMap::new(),
            tickets_count: 0,
            noting: noted,
            note_due: None,
            reported: Reported::default(),
            report_due: None,
            numbers_due: None,
            installing: None,
            catch_up: CatchUp::Wanted,
            catch_ups_count: 0,
            is_announced: false,
            is_retired: false,
            finish_due: None,
            holders,
            out: Vec::new(),
            group_out: Vec::new(),
        }
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
        // The spine's machine learns that it is here, be it led or not.
        if !mem::replace(&mut self.is_announced, true) {
            self.out.push(Effect::Role(self.role));
        }
        if self.is_retired {
            self.hand_back(input);
            out.append(&mut self.out);
            return Ok(());
        }
        match input {
            Input::Tick => self.on_tick(view)?,
            Input::Message(_) if self.holders.has_left => {}
            Input::Message(message) => self.on_message(message),
            Input::Submit(to, command) => self.on_submit(to, command, view)?,
            Input::Turn => {}
            Input::Persisted(token) => self.drive(group::Input::Persisted { token }),
            Input::Numbered(runs) => {
                runs.iter().for_each(|run| self.numbering.learn(run));
                self.on_numbers_told();
            }
            Input::Prepare(id, locks) => self.on_prepare(id, locks, view)?,
            Input::Decided(id, decision) => self.on_decided(id, decision),
            Input::OpenTxns(open) => self.on_open_txns(&open),
            Input::Ticket(n, head, admission) => self.on_ticket(n, head, admission, view)?,
            Input::TicketFailed(n, error) => self.fail_ticket(n, error),
            Input::Applied(position) => self.on_applied(position, view)?,
            Input::Flushed(index) => self.on_flushed(index),
            Input::SnapshotReceived(..) if self.holders.has_left => {
                self.out.push(Effect::SnapshotRefused(Ignored::Stale));
            }
            Input::SnapshotReceived(message, mark) => {
                self.drive(group::Input::SnapshotReceived { message, mark });
            }
            Input::SnapshotInstalled => self.on_installed(view)?,
            Input::SnapshotSent(to, is_ok) => {
                self.drive(group::Input::SnapshotSent { to, is_ok });
            }
            Input::Unreachable(peer) => self.drive(group::Input::Unreachable(peer)),
            Input::RequestSnapshot if self.holders.has_left => {}
            Input::RequestSnapshot => self.drive(group::Input::RequestSnapshot),
            Input::Transfer(to) => self.hand_over(to, view)?,
            Input::CutOff(others) => self.hand_over_to_any(|it| others.contains(&it), view)?,
            Input::DiskStalled => self.hand_over_to_any(|_| true, view)?,
            Input::Alive(alive) => self.drive(group::Input::Alive(alive)),
            Input::Campaign => self.drive(group::Input::Campaign),
            Input::ChangeReplicas(change) => self.on_change_replicas(change),
            Input::CatchUp => {
                self.catch_up = CatchUp::Wanted;
                self.out.push(Effect::CatchingUp);
            }
            Input::Members(members) => self.on_members(members),
            Input::RemovedAt(place) => self.on_removed_at(place),
            Input::Finish(index) => self.drive(group::Input::CommitTo { index }),
            Input::Retire => {
                self.retire();
                out.append(&mut self.out);
                return Ok(());
            }
        }
        self.turn(view)?;
        out.append(&mut self.out);
        Ok(())
    }

    /// As `step` with `Submit`, but leaves the write unproposed until a `step` follows, so that
    /// writes which arrive together share an entry.
    ///
    /// # Errors
    /// The store cannot be read; the process must stop.
    pub fn gather(
        &mut self,
        now: Time,
        view: &dyn View,
        to: Requester,
        command: Command,
    ) -> Result<(), ViewError> {
        self.now = now.max(self.now);
        if self.is_retired {
            self.out.push(Effect::Unproposed(to, command));
            return Ok(());
        }
        self.on_submit(to, command, view)
    }

    /// Transactions that lock keys here and whose decision this replica does not know.
    pub fn undecided(&self) -> Vec<RequestId> {
        let is_undecided = |it: &txn::Prepared| !it.is_resolving && !it.is_resolved;
        let undecided = self.prepared.iter().filter(|(_, it)| is_undecided(it));
        undecided.map(|(id, _)| *id).collect()
    }

    /// The range.
    pub fn range(&self) -> GroupId {
        self.config.range
    }

    /// Consensus.
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// Role, leader and term.
    pub fn role(&self) -> group::Role {
        self.role
    }

    /// Where the store stands.
    pub fn applied(&self) -> Position {
        self.applied
    }

    /// What is under way here.
    pub fn load(&self) -> Load {
        Load {
            parked: self.parked.len(),
            latched: self.latches.len(),
            waiting: self.waiting.len(),
            proposed: self.proposed.len(),
            tickets: self.tickets.len(),
            locks: self.preparing.len() + self.prepared.len(),
            staged: self.staged.len(),
        }
    }

    /// Sequence number of the last write that is committed here.
    pub fn committed(&self) -> u64 {
        self.committed
    }

    /// A leader that has applied everything it inherited.
    pub fn is_serving(&self) -> bool {
        let is_drained = |index| self.applied.index >= index || mutant::is(Mutant::NoDrain);
        self.drain_index.is_some_and(is_drained)
    }

    fn on_tick(&mut self, view: &dyn View) -> Result<(), ViewError> {
        if self.holders.has_left {
            return Ok(());
        }
        self.drive(group::Input::Tick);
        // A hand-over that came to nothing leaves requests parked.
        if self.is_serving() && self.group.transferee().is_none() {
            self.unpark(view)?;
        }
        self.look_whether_removed();
        self.ask_to_catch_up();
        self.tick_reports();
        self.follow_members(view)?;
        if self.group.is_sleep_due() && self.is_idle() {
            self.drive(group::Input::Sleep);
        }
        Ok(())
    }

    /// Ends a step: joins what can be joined, proposes what was gathered, and reports.
    fn turn(&mut self, view: &dyn View) -> Result<(), ViewError> {
        self.join(view)?;
        self.tell_members_locked();
        self.propose_gathered(view)?;
        self.propose_notes();
        self.settle_members();
        self.report();
        self.finish_catch_up();
        Ok(())
    }

    /// Hands an input to consensus and carries out what comes of it, in order. Handling an effect
    /// never drives consensus itself.
    fn drive(&mut self, input: group::Input) {
        let mut effects = mem::take(&mut self.group_out);
        self.group.step(input, &mut effects);
        for effect in effects.drain(..) {
            self.on_group_effect(effect);
        }
        self.group_out = effects;
    }
}
