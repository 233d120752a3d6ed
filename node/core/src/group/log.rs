//! A group's log in memory, as raft-rs reads it: every entry after the truncated place, persisted
//! or not. Owns the entries and their accounting; the log on disk is written by the driver.

use std::collections::VecDeque;

use raft::{GetEntriesContext, RaftState, StorageError, eraftpb};

use super::change::Change;
use super::conf;
use super::entry::{Entry, EntryKind, Position};
use super::kept::Kept;
use super::message;
use super::recovered::Recovered;
use crate::NodeId;
use crate::proto::internal;

/// The entries of one group, and the state a snapshot would have.
#[derive(Debug)]
pub(super) struct Log {
    /// Place before the first entry; its term is still needed to match the entry after it.
    truncated: Position,
    /// `entries[i]` has index `truncated.index + 1 + i`.
    entries: VecDeque<Entry>,
    entries_bytes: usize,
    /// Where the state stands, and the membership there: what a snapshot carries.
    applied: Position,
    applied_conf: internal::ConfState,
    /// Read once, when raft-rs starts.
    initial: RaftState,
}

impl Log {
    pub(super) fn new(recovered: Recovered) -> Self {
        let Recovered { hard_state, truncated, entries, applied, conf } = recovered;
        let mut raft_hard_state = eraftpb::HardState::default();
        raft_hard_state.term = hard_state.term;
        raft_hard_state.vote = hard_state.vote;
        raft_hard_state.commit = hard_state.commit;
        Self {
            truncated,
            entries_bytes: entries.iter().map(Entry::memory_bytes).sum(),
            entries: entries.into(),
            applied,
            initial: RaftState::new(raft_hard_state, conf::to_raft(&conf)),
            applied_conf: conf,
        }
    }

    pub(super) fn truncated(&self) -> Position {
        self.truncated
    }

    pub(super) fn last(&self) -> Position {
        self.entries.back().map_or(self.truncated, Entry::position)
    }

    pub(super) fn applied(&self) -> Position {
        self.applied
    }

    pub(super) fn bytes(&self) -> usize {
        self.entries_bytes
    }

    /// The place at `index`, if the log still knows it.
    pub(super) fn position(&self, index: u64) -> Option<Position> {
        match index.checked_sub(self.truncated.index)? {
            0 => Some(self.truncated),
            after => self.entries.get(usize::try_from(after - 1).ok()?).map(Entry::position),
        }
    }

    /// What follows a state from there, if it is of this history: entries that others may have counted on.
    pub(super) fn kept_after(&self, state: Position) -> Kept {
        let entries = match self.position(state.index) {
            Some(place) if place == state => {
                self.entries.iter().filter(|entry| entry.index > state.index).cloned().collect()
            }
            _ => Vec::new(),
        };
        Kept::new(state, entries)
    }

    /// The membership changes after `index`, committed or not.
    pub(super) fn changes_after(&self, index: u64) -> impl Iterator<Item = Change> {
        let changes = self
            .entries
            .iter()
            .filter(move |entry| entry.index > index && entry.kind == EntryKind::Change);
        changes.filter_map(|entry| Change::decode(entry.data.clone()))
    }

    /// Adds entries, which replace everything from their first index on.
    pub(super) fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        assert!(
            self.truncated.index < first.index && first.index <= self.last().index + 1,
            "entries must continue the log"
        );
        while self.last().index >= first.index {
            let replaced = self.entries.pop_back().expect("the last entry is after the truncated");
            self.entries_bytes -= replaced.memory_bytes();
        }
        for entry in entries {
            assert_eq!(entry.index, self.last().index + 1, "entries must be contiguous");
            self.entries_bytes += entry.memory_bytes();
            self.entries.push_back(entry.clone());
        }
    }

    /// Forgets everything up to `index`. Returns the new truncated place, if it moved.
    pub(super) fn truncate(&mut self, index: u64) -> Option<Position> {
        if index <= self.truncated.index {
            return None;
        }
        assert!(index <= self.applied.index, "the log must continue the state");
        while self.truncated.index < index {
            let entry = self.entries.pop_front().expect("what is applied is in the log");
            self.entries_bytes -= entry.memory_bytes();
            self.truncated = entry.position();
        }
        if self.entries.capacity() > 64 && self.entries.len() < self.entries.capacity() / 4 {
            self.entries.shrink_to(self.entries.len() * 2);
        }
        Some(self.truncated)
    }

    /// Forgets all entries; the log goes on after `to`, where a snapshot stands.
    pub(super) fn reset(&mut self, to: Position) {
        self.entries = VecDeque::new();
        self.entries_bytes = 0;
        self.truncated = to;
    }

    /// The state has moved to this place, which the log holds.
    pub(super) fn set_applied(&mut self, applied: Position) {
        assert!(applied.index >= self.applied.index, "the state never goes back");
        self.applied = applied;
    }

    /// The membership at the applied place.
    pub(super) fn set_applied_conf(&mut self, conf: internal::ConfState) {
        self.applied_conf = conf;
    }

    fn is_known_to_state(&self, node: u64) -> bool {
        conf::has_member(&self.applied_conf, NodeId(node))
    }
}

impl raft::Storage for Log {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(self.initial.clone())
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<eraftpb::Entry>> {
        if low <= self.truncated.index {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        if high > self.last().index + 1 {
            return Err(raft::Error::Store(StorageError::Unavailable));
        }
        let bytes_max = max_size.into().unwrap_or(u64::MAX);
        let offset = |index: u64| {
            usize::try_from(index - self.truncated.index - 1).expect("the entry is in memory")
        };
        let mut entries = Vec::new();
        let mut bytes = 0u64;
        for entry in self.entries.range(offset(low)..offset(high)) {
            bytes = bytes.saturating_add(entry.wire_bytes() as u64);
            if bytes > bytes_max && !entries.is_empty() {
                break;
            }
            entries.push(message::entry_to_raft(entry));
        }
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index < self.truncated.index {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        match self.position(index) {
            Some(position) => Ok(position.term),
            None => Err(raft::Error::Store(StorageError::Unavailable)),
        }
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.truncated.index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last().index)
    }

    /// Where a snapshot would stand now; the data is added by whoever sends it. Put off while the
    /// state does not know the receiver, which would refuse such a snapshot.
    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<eraftpb::Snapshot> {
        let is_possible = self.applied.index > 0
            && self.applied.index >= request_index
            && self.is_known_to_state(to);
        if !is_possible {
            return Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        Ok(message::snapshot_to_raft(self.applied, &self.applied_conf))
    }
}
