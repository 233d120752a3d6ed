//! One client stream: its watchers, and the bytes queued towards its client. Owns the ids of its
//! watchers and the counts that say whether it may be told progress.

use std::collections::{BTreeMap, BTreeSet};

use super::StreamId;
use super::slab::Slot;
use crate::time::{Length, Time};

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) id: StreamId,
    /// Every registered watcher by its id.
    pub(super) watchers: BTreeMap<i64, Slot>,
    /// Where the search for the next free id begins: ids are not given out twice.
    next_id: i64,
    /// Watchers that wait for room or for their turn, by the revision they are to go on from.
    pub(super) parked: BTreeSet<(i64, Slot)>,
    /// Watchers that read history, that were cut off by compaction, that begin in the future.
    pub(super) ready_count: usize,
    pub(super) compacted_count: usize,
    pub(super) waiting_count: usize,
    /// Charges of responses that the transport has not taken.
    pub(super) queued_bytes: usize,
    /// The budget was used up, and less than half of it has been given back since.
    pub(super) is_blocked: bool,
    /// Ids of the watchers that want progress by interval.
    pub(super) notified: BTreeSet<i64>,
    pub(super) progress_interval: Length,
    /// The end of the present interval; the first begins with the first such watcher.
    pub(super) progress_at: Option<Time>,
}

impl Stream {
    pub(super) fn new(id: StreamId, progress_interval: Length) -> Self {
        Self {
            id,
            watchers: BTreeMap::new(),
            next_id: 0,
            parked: BTreeSet::new(),
            ready_count: 0,
            compacted_count: 0,
            waiting_count: 0,
            queued_bytes: 0,
            is_blocked: false,
            notified: BTreeSet::new(),
            progress_interval,
            progress_at: None,
        }
    }

    /// The next id of the member's choice.
    pub(super) fn draw_id(&mut self) -> i64 {
        while self.watchers.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }

    /// Whether "nothing is missing up to the frontier" holds for the stream as a whole.
    pub(super) fn is_synced(&self) -> bool {
        !self.watchers.is_empty()
            && self.parked.is_empty()
            && self.ready_count + self.compacted_count + self.waiting_count == 0
    }

    /// Bytes on the heap, without what the allocator adds.
    pub(super) fn heap_bytes(&self) -> usize {
        /// A B-tree's nodes are two thirds full on average and at least half full.
        const FILL_INVERSE: usize = 2;
        let watchers = self.watchers.len() * size_of::<(i64, Slot)>();
        let parked = self.parked.len() * size_of::<(i64, Slot)>();
        let notified = self.notified.len() * size_of::<i64>();
        (watchers + parked + notified) * FILL_INVERSE
    }
}
