//! The way of applied batches to a worker. Publishing never waits: what finds no room is left out,
//! and only how far the state has come is kept, so that the hub reads the rest from the history.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flotilla_core::watch::{Event, Published};
use tokio::sync::Notify;

/// Batches that may wait for a worker.
const BATCHES_MAX: usize = 1_024;
/// Bytes of their events.
const BATCHES_BYTES_MAX: usize = 16 << 20;
/// Bytes reckoned for an event beside its keys and values.
const EVENT_BYTES: usize = 128;

/// Where batches are published to one worker. Cheap to clone.
#[derive(Clone, Debug)]
pub struct HubHandle {
    inbox: Arc<Inbox>,
}

/// Where the worker takes them from.
#[derive(Debug)]
pub struct HubReceiver {
    inbox: Arc<Inbox>,
}

#[derive(Debug, Default)]
struct Inbox {
    waiting: Mutex<Waiting>,
    is_filled: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    batches: VecDeque<(Published, usize)>,
    bytes: usize,
    /// Without events: the newest batch that found no room.
    left_out: Option<Published>,
}

impl HubHandle {
    /// Both ends.
    pub fn channel() -> (Self, HubReceiver) {
        let inbox = Arc::new(Inbox::default());
        (Self { inbox: inbox.clone() }, HubReceiver { inbox })
    }

    /// Hands over a batch. Batches must come in the order they were applied.
    pub fn publish(&self, published: &Published) {
        let bytes = published.events.iter().map(event_bytes).sum();
        self.inbox.waiting().push(published, bytes);
        self.inbox.is_filled.notify_one();
    }
}

impl HubReceiver {
    /// The next batch, if there is one.
    pub(super) fn take(&mut self) -> Option<Published> {
        self.inbox.waiting().pop()
    }

    /// Returns when there may be a batch.
    pub(super) async fn filled(&mut self) {
        self.inbox.is_filled.notified().await;
    }
}

impl Inbox {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // A holder that panicked has ended the process.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn push(&mut self, published: &Published, bytes: usize) {
        let is_full = self.batches.len() >= BATCHES_MAX
            || (self.bytes + bytes > BATCHES_BYTES_MAX && !self.batches.is_empty());
        // Behind one that was left out, the others are read from the history as well.
        if is_full || self.left_out.is_some() {
            let revision = published.revision;
            let compact_revision = published.compact_revision;
            let events = Arc::new([]);
            self.left_out = Some(Published { after: revision, revision, compact_revision, events });
            return;
        }
        self.bytes += bytes;
        self.batches.push_back((published.clone(), bytes));
    }

    fn pop(&mut self) -> Option<Published> {
        match self.batches.pop_front() {
            Some((published, bytes)) => {
                self.bytes -= bytes;
                Some(published)
            }
            None => self.left_out.take(),
        }
    }
}

fn event_bytes(event: &Event) -> usize {
    let change = event.change();
    EVENT_BYTES + change.kv.len() + change.prev.as_ref().map_or(0, |prev| prev.len())
}
