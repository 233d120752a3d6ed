//! A node as the simulator sees it: disks that outlive it, a clock, and one life at a time around
//! a machine of the core.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use flotilla_core::GroupId;
use flotilla_core::memory::MemoryView;
use flotilla_core::mvcc::Head;
use flotilla_core::proto::etcdserverpb::LeaseTimeToLiveResponse;
use flotilla_core::proto::internal::{Forward, PeerFrame, RaftMessage, SnapshotMark};
use flotilla_core::range;
use flotilla_core::snapshot;
use flotilla_core::spine::state::Position;
use flotilla_core::spine::{Replica, Status};
use flotilla_core::stage::{Stage, Work};
use flotilla_core::time::Time;
use flotilla_core::watch::{self, Hub};

use super::blocks::Fetching;
use super::log_disk::LogDisk;
use super::reading::Elsewhere;
use super::store_disk::StoreDisk;

/// A machine and its disks.
pub(super) struct Node {
    pub(super) log: LogDisk,
    pub(super) store: StoreDisk,
    /// Lives it has had; names the present one.
    pub(super) life: u32,
    pub(super) running: Option<Running>,
    /// How much too fast the clock is, in millionths.
    pub(super) drift_ppm: i64,
    /// Nothing happens on this node before this.
    pub(super) paused_until: u64,
    /// Flushes of the log take so many times longer.
    pub(super) slowness: u64,
    /// No flush of the log ends before this.
    pub(super) stuck_until: u64,
    /// It was removed from the cluster, or was never in it.
    pub(super) is_out: bool,
    /// A node that joins knows its peers from elsewhere.
    pub(super) first_peers: Vec<u64>,
}

impl Node {
    pub(super) fn new(drift_ppm: i64) -> Self {
        Self {
            log: LogDisk::default(),
            store: StoreDisk::default(),
            life: 0,
            running: None,
            drift_ppm,
            paused_until: 0,
            slowness: 1,
            stuck_until: 0,
            is_out: false,
            first_peers: Vec::new(),
        }
    }
}

/// Work for the apply stage, done in order.
pub(super) enum Job {
    Apply(Work),
    /// The received snapshot of a group.
    Install(GroupId, MemoryView),
}

/// A node that is up.
pub(super) struct Running {
    pub(super) replica: Replica,
    /// Replicas of other ranges.
    pub(super) ranges: BTreeMap<GroupId, range::Replica>,
    /// Ranges that were split off here and whose leader is not known yet, and how often this node
    /// is still to campaign for them.
    pub(super) campaigns: BTreeMap<GroupId, u32>,
    /// Questions for pieces of blocks that are not wanted any more.
    pub(super) blocks_forgotten: BTreeSet<u64>,
    /// Ranges that the node holds no more, and whose keys are on their way out.
    pub(super) left: VecDeque<(GroupId, snapshot::Clear)>,
    /// Messages to each of them stay in order.
    pub(super) last_mail: BTreeMap<GroupId, u64>,
    /// Names the requests of this life.
    pub(super) origin: u64,
    pub(super) started: u64,
    /// What the clock showed then.
    pub(super) clock_base: u64,
    pub(super) ticked: u64,
    pub(super) is_turn_due: bool,
    /// Handed over and not durable: token and time.
    pub(super) unflushed: VecDeque<(u64, Time)>,
    /// Reports to the machine stay in order.
    pub(super) last_report: u64,
    pub(super) status: Status,

    /// Where the spine's state stands in the store.
    pub(super) position: Position,
    pub(super) stage: Stage,
    pub(super) work: VecDeque<Job>,
    pub(super) is_applying: bool,
    pub(super) is_compacting: bool,
    pub(super) is_compaction_planned: bool,
    pub(super) is_store_flushing: bool,

    pub(super) links: BTreeMap<u64, Link>,
    /// Those of the links that lead to no known member.
    pub(super) guests: BTreeSet<u64>,
    /// Forwards that never left the node, to be given back after the step.
    pub(super) unsent: Vec<Forward>,
    /// Peers whose connection was given up.
    pub(super) dropped: Vec<u64>,
    /// Connections of peers that were given up: sender, its life, number.
    pub(super) dead_connections: BTreeSet<(u64, u32, u64)>,
    pub(super) snapshots: BTreeMap<u64, Transfer>,
    pub(super) snapshots_count: u64,
    pub(super) staged: BTreeMap<GroupId, MemoryView>,

    /// Calls that wait for the machine, by number.
    pub(super) commands: BTreeMap<u64, Waiting>,
    /// Reads that wait for a ticket, by number.
    pub(super) tickets: BTreeMap<u64, usize>,
    /// Answers about leases that lack the keys, by operation.
    pub(super) without_keys: BTreeMap<usize, LeaseTimeToLiveResponse>,
    /// Reads that wait for another node, by number.
    pub(super) elsewhere: BTreeMap<u64, Elsewhere>,
    pub(super) requests_count: u64,
    /// Numbers that the machine has answered, and those that were answered when applied.
    pub(super) replied: BTreeSet<u64>,
    pub(super) applied: BTreeSet<u64>,

    pub(super) hub: Hub,
    pub(super) is_catch_up_planned: bool,
    /// History for the hub that is under way.
    pub(super) fetching: Option<Fetching>,
    pub(super) hub_timer: Option<u64>,
    pub(super) streams: BTreeMap<u64, Stream>,
}

impl Running {
    /// What the clock of the node shows.
    pub(super) fn clock(&self, at: u64, drift_ppm: i64) -> Time {
        let elapsed = i128::from(at - self.started);
        let shown = elapsed * i128::from(1_000_000 + drift_ppm) / 1_000_000;
        Time(self.clock_base + u64::try_from(shown).expect("a drift is far below one"))
    }

    /// What watchers on this node may see.
    pub(super) fn head(&self) -> Head {
        self.stage.reach().shown.head
    }
}

/// A command that waits for its answer.
#[derive(Clone, Copy, Debug)]
pub(super) enum Waiting {
    /// A client's call.
    Call(usize),
    /// A transaction that was decided early, with the branch that was taken.
    Decided(usize, bool),
    /// Asked by the simulator.
    Own(OwnCommand),
}

/// What the simulator itself asks of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OwnCommand {
    MoveLeader,
    Split,
    Drain,
    Decide,
    Conclude,
    Merge,
    MoveReplica,
    ChangeUsers,
    AddMember(u64),
    PromoteMember(u64),
    RemoveMember(u64),
    SpineVote,
}

/// The connection to a peer.
#[derive(Default)]
pub(super) struct Link {
    pub(super) is_up: bool,
    /// Counts the connections.
    pub(super) connection: u64,
    pub(super) peer_life: u32,
    pub(super) gathering: PeerFrame,
    /// Not written yet.
    pub(super) queue: VecDeque<PeerFrame>,
    pub(super) is_write_planned: bool,
    /// Written, and kept by a network that does not get through.
    pub(super) held: VecDeque<Bytes>,
    pub(super) is_break_planned: bool,
    /// When the newest frame arrives.
    pub(super) last_arrival: u64,
}

/// A snapshot on its way.
pub(super) struct Transfer {
    pub(super) to: u64,
    pub(super) to_life: u32,
    pub(super) message: RaftMessage,
    pub(super) mark: SnapshotMark,
    pub(super) view: MemoryView,
    pub(super) sender: snapshot::Sender,
    pub(super) receiver: Option<snapshot::Receiver>,
    pub(super) rows: MemoryView,
}

/// The stream of a watching client.
pub(super) struct Stream {
    pub(super) watcher: usize,
    pub(super) session: u32,
    pub(super) queue: VecDeque<watch::Response>,
    pub(super) is_write_planned: bool,
    pub(super) last_arrival: u64,
    pub(super) is_closing: bool,
}
