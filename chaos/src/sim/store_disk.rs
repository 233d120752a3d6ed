//! The disk under a node's store: batches are visible at once and durable only after a flush; a
//! crash loses any suffix of those that were not, each batch whole. Knows nothing of time.

use std::collections::VecDeque;

use flotilla_core::memory::MemoryView;
use flotilla_core::view::Batch;

use super::chance::Chance;

/// The store of a node.
#[derive(Clone, Debug, Default)]
pub struct StoreDisk {
    /// What the running node sees.
    pub view: MemoryView,
    durable: MemoryView,
    /// Visible and not durable, oldest first.
    unflushed: VecDeque<Batch>,
}

impl StoreDisk {
    /// Applies a batch.
    pub fn apply(&mut self, batch: Batch) {
        self.view.apply(&batch);
        self.unflushed.push_back(batch);
    }

    /// Applies a batch that is durable before all that was not, as no real store would.
    pub fn apply_durably(&mut self, batch: &Batch) {
        self.view.apply(batch);
        self.durable.apply(batch);
    }

    /// Batches that a crash could lose.
    pub fn unflushed_count(&self) -> usize {
        self.unflushed.len()
    }

    /// The oldest `count` of them are durable.
    pub fn flush(&mut self, count: usize) {
        for batch in self.unflushed.drain(..count.min(self.unflushed.len())) {
            self.durable.apply(&batch);
        }
    }

    /// Puts another state in the place of this one, durably.
    pub fn replace(&mut self, view: MemoryView) {
        self.durable = view.clone();
        self.view = view;
        self.unflushed.clear();
    }

    /// The node is gone. Returns how many batches were lost.
    pub fn crash(&mut self, chance: &mut Chance) -> usize {
        let kept = chance.between(0, self.unflushed.len() as u64);
        let kept = usize::try_from(kept).expect("a queue fits in memory");
        let lost = self.unflushed.len() - kept;
        self.flush(kept);
        self.unflushed.clear();
        self.view = self.durable.clone();
        lost
    }
}
