//! What is going to happen, in the order in which it will. Two events of one moment happen in the
//! order in which they were planned.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use bytes::Bytes;
use flotilla_core::GroupId;
use flotilla_core::command::Outcome as CommandOutcome;
use flotilla_core::proto::internal::{Forward, RaftMessage, SnapshotMark};
use flotilla_core::range;
use flotilla_core::spine::apply::Requester;
use flotilla_core::spine::state::Position;
use flotilla_core::stage::Reach;

use crate::history::Outcome;

/// Something that happens to one life of one node.
#[derive(Clone, Debug)]
pub(super) enum NodeEvent {
    /// Half a tick has passed on its clock.
    Timer,
    /// Everything that arrived together has been handed in.
    Turn,
    /// The flush of the log under way ends.
    LogFlushed,
    /// The apply stage takes what waits for it.
    Apply,
    /// A step of compaction.
    Compact,
    /// Something reaches the machine that another thread reported.
    Report(Report),
    /// Something reaches the machine of another range.
    Mail(GroupId, range::replica::Input),
    /// The first `batches` of the unflushed batches of the store are durable.
    StoreFlushed { batches: usize, index: Option<(GroupId, u64)> },
    /// Everything that was sent to the machine of a range that has ended was taken.
    EndRange(GroupId, bool),
    /// Some of the keys that a node holds no more are removed.
    ClearLeft,
    /// The first `batches` of the unflushed batches of the store are durable, and with them that a
    /// range has ended.
    EndFlushed { batches: usize, range: GroupId, keeps_votes: bool },
    /// Frames may go out to a peer.
    Write(u64),
    /// A connection to a peer is tried.
    Dial(u64),
    /// The connection of this number to a peer is found broken.
    Broken(u64, u64),
    /// A frame arrives.
    Frame { from: u64, life: u32, connection: u64, bytes: Bytes },
    /// A client's request arrives.
    Request(usize),
    /// A read has its ticket.
    Evaluate(usize),
    /// The hub reads history.
    CatchUp,
    /// The hub's deadline.
    HubTimer,
    /// The transport takes a response of a stream.
    StreamWrite(u64),
    /// A client of a stream sends a message.
    StreamRequest(u64, Bytes),
    /// A snapshot this node sends goes on.
    Snapshot(u64),
    /// A pause is over.
    Resume,
    /// The processor has done what it was at, where it can do so much only.
    Free,
}

/// What the other threads of a node report to its machine.
#[derive(Clone, Debug)]
pub(super) enum Report {
    Persisted(u64),
    /// What the apply stage has done: where the spine's state stands if it moved, what is shown if
    /// that is more, answers for other nodes, and requests of this node that were answered.
    Applied {
        spine: Option<Position>,
        reach: Option<Reach>,
        remote: Vec<(Requester, CommandOutcome)>,
        answered: Vec<u64>,
        /// Those that may not be answered yet.
        early: Vec<(u64, CommandOutcome)>,
        /// Ranges whose replica begins here.
        begun: Vec<GroupId>,
        ended: Vec<GroupId>,
    },
    /// The machine of another range tells something.
    Tell(GroupId, range::Tell),
    Flushed(u64),
    Connected(u64),
    Disconnected(u64, Vec<Forward>),
    SnapshotReceived(RaftMessage, SnapshotMark),
    SnapshotInstalled,
    SnapshotSent(u64, bool),
}

/// Something that happens.
#[derive(Clone, Debug)]
pub(super) enum Event {
    /// To a node, if this life of it lasts.
    Node(u64, u32, NodeEvent),
    /// A node is started.
    Start(u64),
    /// A client makes its next call.
    Call(usize),
    /// A client gives a call up.
    GiveUp(usize),
    /// A client hears of the outcome of a call.
    Return(usize, Outcome),
    /// A watching client opens its stream.
    WatchOpen(usize),
    /// A response reaches a watching client, in this session of it.
    WatchReceive(usize, u32, Bytes),
    /// A watching client finds this session ended.
    WatchLost(usize, u32),
    /// A watching client asks for something, or goes away, in this session.
    WatchAct(usize, u32),
    /// Trouble.
    Trouble,
    /// A cut between nodes heals.
    Heal(u64),
    /// The disk of a node is well again.
    DiskHeals(u64),
    /// The membership is taken a step on.
    Members,
    /// Trouble in the middle of a cut or a merge.
    Strike,
    /// A node loses power after it gave a vote, if this life of it lasts.
    AfterVote { node: u64, life: u32, start_at: u64 },
    /// Trouble comes that is on the tape of another run, at this place.
    Replay(usize),
    /// A node is lost for good.
    Lose,
    /// Leaders are spread, where it is looked how far a cluster scales.
    Spread,
    /// Looks whether the cluster has come to rest.
    Rest,
}

struct Planned {
    at: u64,
    nth: u64,
    /// Large, and moved at every step through the heap if it were in it.
    event: Box<Event>,
}

impl PartialEq for Planned {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.nth) == (other.at, other.nth)
    }
}

impl Eq for Planned {}

impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Planned {
    /// The earliest is the greatest, since the heap gives the greatest first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.nth).cmp(&(self.at, self.nth))
    }
}

/// All planned events.
#[derive(Default)]
pub(super) struct Queue {
    heap: BinaryHeap<Planned>,
    count: u64,
}

impl Queue {
    pub(super) fn push(&mut self, at: u64, event: Event) {
        self.count += 1;
        self.push_as(at, self.count, event);
    }

    /// As `push`, for what has its place among the events of one moment from elsewhere.
    pub(super) fn push_as(&mut self, at: u64, nth: u64, event: Event) {
        self.heap.push(Planned { at, nth, event: Box::new(event) });
    }

    /// Leaves places free, as if so many events had been planned.
    pub(super) fn skip(&mut self, count: u64) {
        self.count += count;
    }

    /// How many events were planned.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// The next event, with its time and its number.
    pub(super) fn pop(&mut self) -> Option<(u64, u64, Event)> {
        self.heap.pop().map(|planned| (planned.at, planned.nth, *planned.event))
    }
}
