//! What a replica had in its log when its state was lost. It cannot go on from there, as nothing says
//! what came before; but it has vouched for those entries, and they are still on its disk.

use super::entry::{Entry, Position};

/// A log that nothing is applied from: it waits for a snapshot that it can continue.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Place before the first entry.
    truncated: Position,
    entries: Vec<Entry>,
}

impl Kept {
    pub(super) fn new(truncated: Position, entries: Vec<Entry>) -> Self {
        Self { truncated, entries }
    }

    /// Whether somebody whose log ends there has all that may be committed of this one, as Raft
    /// compares logs.
    pub(super) fn is_contained_in(&self, log_end: Position) -> bool {
        let last = self.entries.last().map_or(self.truncated, Entry::position);
        (last.term, last.index) <= (log_end.term, log_end.index)
    }

    /// Whether a state from there leaves out entries that this log no longer has.
    pub(super) fn is_beyond(&self, state: Position) -> bool {
        state.index < self.truncated.index
    }

    /// The entries that follow a state from there; none if the state is of another history, or is newer.
    pub(super) fn after(self, state: Position) -> Vec<Entry> {
        let is_same = |entry: &Entry| entry.position() == state;
        let at = match self.truncated == state {
            true => Some(0),
            false => self.entries.iter().position(is_same).map(|at| at + 1),
        };
        let mut entries = self.entries;
        at.map(|at| entries.split_off(at)).unwrap_or_default()
    }
}
