//! What a group asks of the log, and what it hears back. Owns the words of the boundary; knows
//! nothing of bytes, files or Raft's rules beyond the order of indexes.

use std::time::Duration;

use bytes::Bytes;
use flotilla_proto::ids::GroupId;

/// One slot of a group's Raft log. Two entries of one group with the same index and term are the
/// same entry, as Raft guarantees; the log relies on it when it moves entries forward.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub index: u64,
    pub term: u64,
    /// A small number of the caller's, which the log only keeps.
    pub kind: u8,
    pub data: Bytes,
}

/// What a Raft group must remember besides its entries. The log only keeps it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    pub term: u64,
    pub vote: u64,
    pub commit: u64,
}

/// One change to one group's part of the log. A group comes into being with its first operation
/// other than `Remove`; its log is then empty and continues after index 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Entries with consecutive indexes. The first follows the group's last entry, or replaces an
    /// entry and all that follow it.
    Entries(Vec<Entry>),
    HardState(HardState),
    /// Entries up to and including `index` may be forgotten. `index` is not beyond the last entry;
    /// one that is already truncated changes nothing.
    Truncate {
        index: u64,
        /// The term of the entry at `index`.
        term: u64,
    },
    /// A snapshot was installed: the log is empty and continues after `index`.
    Reset {
        index: u64,
        term: u64,
    },
    /// The group has left this node; the log forgets all of it.
    Remove,
}

/// Operations of one group, which become durable together or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    pub group: GroupId,
    /// Chosen by the caller and given back in [`Done`].
    pub token: u64,
    /// False for what may be lost with the power, such as a commit index on its own. Such an
    /// append causes no flush and waits for none: it keeps its place in the group's order and
    /// reaches the disk with the next flush.
    pub is_flush_needed: bool,
    pub operations: Vec<Operation>,
}

/// An append that the log has dealt with. If a flush was needed it is durable, and so is every
/// earlier append of all groups. If not, it is ordered behind every earlier append, nothing more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    pub group: GroupId,
    pub token: u64,
}

/// What one pass of the log's thread has finished, in the order of the appends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub done: Vec<Done>,
    /// Absent when none of the appends needed a flush, so that none was made.
    pub flush: Option<Flush>,
}

/// One write and flush.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flush {
    /// Bytes written to the active segment, padding included.
    pub bytes: u64,
    /// Time to hand the bytes to the operating system.
    pub write_duration: Duration,
    /// Time until the disk had them.
    pub sync_duration: Duration,
}

/// What the log remembers of one group after a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupLog {
    pub hard_state: HardState,
    /// Index and term of the entry before the first one kept; zeros when nothing was truncated.
    pub truncated: (u64, u64),
    /// Consecutive from the index after `truncated`.
    pub entries: Vec<Entry>,
}
