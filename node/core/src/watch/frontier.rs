//! How far the hub is. A watch may show revision x, or say that nothing is missing up to x, only
//! when every source of its keys is known complete up to x (spine invariant I10). What is published is
//! complete, here or, for the ranges that the node lacks, on others; `delivered` follows it with the
//! events, which come with what is published or in blocks of history.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frontier {
    delivered: i64,
    published: i64,
    seen: i64,
    compact_revision: i64,
}

impl Frontier {
    pub(super) fn new(revision: i64, compact_revision: i64) -> Self {
        Self { delivered: revision, published: revision, seen: revision, compact_revision }
    }

    /// Up to here each live watcher has been sent, or will find in the history, all it wants.
    pub(super) fn delivered(&self) -> i64 {
        self.delivered
    }

    /// The highest revision known to be applied.
    pub(super) fn published(&self) -> i64 {
        self.published
    }

    /// The store's revision as far as anyone told: a request may have seen revisions whose batch
    /// is still on its way.
    pub(super) fn seen(&self) -> i64 {
        self.seen
    }

    /// Events below may be gone.
    pub(super) fn compact_revision(&self) -> i64 {
        self.compact_revision
    }

    /// Batches were left out and must be read from the history.
    pub(super) fn has_gap(&self) -> bool {
        self.delivered < self.published
    }

    pub(super) fn on_published(&mut self, revision: i64, compact_revision: i64) {
        self.published = self.published.max(revision);
        self.on_seen(revision);
        self.on_compacted(compact_revision);
    }

    pub(super) fn on_seen(&mut self, revision: i64) {
        self.seen = self.seen.max(revision);
    }

    pub(super) fn on_compacted(&mut self, compact_revision: i64) {
        self.compact_revision = self.compact_revision.max(compact_revision);
    }

    pub(super) fn advance(&mut self, through: i64) {
        assert!(through >= self.delivered, "a frontier never goes back");
        self.delivered = through;
        self.published = self.published.max(through);
        self.seen = self.seen.max(through);
    }
}
