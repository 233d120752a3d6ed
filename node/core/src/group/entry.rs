//! What stands in a group's log, and where. Owns the shape of an entry and its form on the wire;
//! never looks into its data.

use bytes::Bytes;

use crate::proto::internal;

/// Bytes that an entry costs in memory beside its data and context, for accounting.
pub const ENTRY_OVERHEAD_BYTES: usize = 96;

/// Bytes that an entry costs in a message beside its data and context, about.
const ENTRY_HEAD_BYTES: usize = 16;

/// A place in a log: an index and the term of the entry there. `(0, 0)` is before everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Counts entries from 1.
    pub index: u64,
    /// Term in which the entry was proposed.
    pub term: u64,
}

/// What an entry is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum EntryKind {
    /// A command. Empty data: a new leader's first entry, nothing to apply.
    #[default]
    Normal = 0,
    /// A membership change, carried out by the group; its `context` belongs to the proposer. Empty
    /// data and context: the group leaves a joint membership.
    Change = 2,
}

impl EntryKind {
    /// From its number on the wire and in the write-ahead log.
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::Normal),
            2 => Some(Self::Change),
            _ => None,
        }
    }

    /// Its number on the wire and in the write-ahead log.
    pub const fn number(self) -> u32 {
        self as u32
    }
}

/// One slot of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Its place; the first is 1.
    pub index: u64,
    /// Term of the leader that proposed it.
    pub term: u64,
    /// What it is for.
    pub kind: EntryKind,
    /// A command, or an encoded membership change. Shared, never copied.
    pub data: Bytes,
    /// The proposer's own bytes beside a membership change; empty otherwise.
    pub context: Bytes,
}

impl Entry {
    /// Where it stands.
    pub const fn position(&self) -> Position {
        Position { index: self.index, term: self.term }
    }

    /// Bytes it is accounted for in memory.
    pub fn memory_bytes(&self) -> usize {
        ENTRY_OVERHEAD_BYTES + self.data.len() + self.context.len()
    }

    /// Bytes it takes in a message, about.
    pub fn wire_bytes(&self) -> usize {
        ENTRY_HEAD_BYTES + self.data.len() + self.context.len()
    }

    /// From its form on the wire; `None` for an unknown kind.
    pub fn from_proto(entry: internal::LogEntry) -> Option<Self> {
        Some(Self {
            index: entry.index,
            term: entry.term,
            kind: EntryKind::from_number(entry.kind)?,
            data: entry.data,
            context: entry.context,
        })
    }

    /// Its form on the wire.
    pub fn into_proto(self) -> internal::LogEntry {
        internal::LogEntry {
            index: self.index,
            term: self.term,
            kind: self.kind.number(),
            data: self.data,
            context: self.context,
        }
    }
}

/// What a node must not forget beside the entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// Highest term seen.
    pub term: u64,
    /// Node voted for in that term, zero if none.
    pub vote: u64,
    /// Highest index known to be committed when this was written; a later one may have been known.
    pub commit: u64,
}
