//! When a state is made durable, and how much of the log before it is kept: the same for every
//! group.

use super::Group;
use crate::mutant::{self, Mutant};

/// How much log may pile up, and how much is kept for slow followers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Applied entries after which the store is flushed and the log truncated.
    pub flush_entries: u64,
    /// Bytes of log after which the store is flushed and the log truncated.
    pub flush_bytes: u64,
    /// Applied entries kept in the log for followers that are not there now.
    pub catch_up_entries: u64,
    /// Bytes of applied entries kept in the log for followers, there or not.
    pub catch_up_bytes: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            flush_entries: 10_000,
            flush_bytes: 64 << 20,
            catch_up_entries: 5_000,
            catch_up_bytes: 32 << 20,
        }
    }
}

/// What of a group's state is durable in the store.
#[derive(Clone, Copy, Debug)]
pub struct Flushed {
    /// Everything up to this index of the log.
    index: u64,
    is_asked: bool,
    /// Bytes committed since a flush was last asked for.
    bytes: u64,
}

impl Flushed {
    /// A store that is durable up to this index.
    pub fn new(index: u64) -> Self {
        Self { index, is_asked: false, bytes: 0 }
    }

    /// An entry was committed.
    pub fn add(&mut self, bytes: u64) {
        self.bytes += bytes;
    }

    /// Whether a flush is to be asked for now; one at a time.
    pub fn is_due(&mut self, applied: u64, retention: &Retention) -> bool {
        let entries = applied.saturating_sub(self.index);
        let is_due = entries >= retention.flush_entries || self.bytes >= retention.flush_bytes;
        let is_new = is_due && !self.is_asked;
        if is_new {
            self.is_asked = true;
            self.bytes = 0;
        }
        is_new
    }

    /// The store is durable up to this index: how far the log may be truncated. What is before it
    /// is needed only by followers that lag.
    pub fn advance(
        &mut self,
        index: u64,
        applied: u64,
        group: &Group,
        retention: &Retention,
    ) -> u64 {
        self.index = self.index.max(index);
        self.is_asked = false;
        if mutant::is(Mutant::CutUnflushed) {
            return applied;
        }
        if group.log_bytes() as u64 > retention.catch_up_bytes {
            return self.index.min(applied);
        }
        let kept = applied.saturating_sub(retention.catch_up_entries);
        // Who has just been sent a snapshot would need the next one.
        let followed = group.slowest_follower().unwrap_or(u64::MAX);
        self.index.min(kept).min(followed)
    }

    /// The store was replaced by one that stands at this index and is durable.
    pub fn replace(&mut self, index: u64) {
        self.index = index;
        self.bytes = 0;
    }
}
