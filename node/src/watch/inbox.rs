//! The way of applied batches to a worker. Publishing never waits: what finds no room is left out,
//! and only how far the state has come is kept, so that the hub reads the rest from the history.
//! A worker without watch streams is not woken at all.

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
    pub(super) inbox: Arc<Inbox>,
}

#[derive(Debug, Default)]
pub(super) struct Inbox {
    waiting: Mutex<Waiting>,
    is_filled: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    /// There are streams to whom batches matter.
    is_open: bool,
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
        let mut waiting = self.inbox.waiting();
        if waiting.is_open {
            waiting.push(published);
            drop(waiting);
            self.inbox.is_filled.notify_one();
        }
    }
}

impl Inbox {
    /// Batches that are applied from now on are kept.
    pub(super) fn open(&self) {
        self.waiting().is_open = true;
    }

    /// Batches are not wanted, nor are those that wait.
    pub(super) fn close(&self) {
        *self.waiting() = Waiting::default();
    }

    /// The next batch, if there is one.
    pub(super) fn take(&self) -> Option<Published> {
        self.waiting().pop()
    }

    /// Returns when there may be a batch.
    pub(super) async fn filled(&self) {
        self.is_filled.notified().await;
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // A holder that panicked has ended the process.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn push(&mut self, published: &Published) {
        let bytes: usize = published.events.iter().map(event_bytes).sum();
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
