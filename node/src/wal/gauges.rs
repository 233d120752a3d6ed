//! Numbers that the log's thread lets others see while it works. Owns only their storage; never
//! takes part in a decision, except that the queue's bytes limit the queue.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::operation::Flush;
use super::writer::Writer;

/// Each number is right by itself; two of them may be of different moments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Appends that wait for the log's thread.
    pub queue_appends: u64,
    /// The same in bytes as recorded.
    pub queue_bytes: u64,
    /// Segments of the log, the active one included, spares not.
    pub segments: u64,
    /// Their length in bytes.
    pub retained_bytes: u64,
    /// Bytes of entries that some group still needs, about.
    pub live_bytes: u64,
    pub groups: u64,
    /// Frames written and flushed since the log was opened.
    pub flushes: u64,
    /// Bytes of those frames.
    pub flushed_bytes: u64,
    /// Of those, entries of idle groups that were copied forward.
    pub copied_bytes: u64,
    pub last_flush: Flush,
}

#[derive(Debug, Default)]
pub(super) struct Gauges {
    pub(super) queued_bytes: AtomicU64,
    segments: AtomicU64,
    retained_bytes: AtomicU64,
    live_bytes: AtomicU64,
    groups: AtomicU64,
    flushes: AtomicU64,
    flushed_bytes: AtomicU64,
    copied_bytes: AtomicU64,
    last_bytes: AtomicU64,
    last_write_nanos: AtomicU64,
    last_sync_nanos: AtomicU64,
}

impl Gauges {
    pub(super) fn note_extent(&self, writer: &Writer) {
        self.segments.store(writer.segments.len() as u64, Relaxed);
        self.retained_bytes.store(writer.retained_bytes(), Relaxed);
        self.live_bytes.store(writer.book.live_bytes(), Relaxed);
        self.groups.store(writer.book.groups_count() as u64, Relaxed);
        self.copied_bytes.store(writer.copied_bytes, Relaxed);
    }

    pub(super) fn note_flush(&self, flush: &Flush) {
        self.flushes.fetch_add(1, Relaxed);
        self.flushed_bytes.fetch_add(flush.bytes, Relaxed);
        self.last_bytes.store(flush.bytes, Relaxed);
        self.last_write_nanos.store(nanos(flush.write_duration), Relaxed);
        self.last_sync_nanos.store(nanos(flush.sync_duration), Relaxed);
    }

    pub(super) fn stats(&self, queue_appends: usize) -> Stats {
        Stats {
            queue_appends: queue_appends as u64,
            queue_bytes: self.queued_bytes.load(Relaxed),
            segments: self.segments.load(Relaxed),
            retained_bytes: self.retained_bytes.load(Relaxed),
            live_bytes: self.live_bytes.load(Relaxed),
            groups: self.groups.load(Relaxed),
            flushes: self.flushes.load(Relaxed),
            flushed_bytes: self.flushed_bytes.load(Relaxed),
            copied_bytes: self.copied_bytes.load(Relaxed),
            last_flush: Flush {
                bytes: self.last_bytes.load(Relaxed),
                write_duration: Duration::from_nanos(self.last_write_nanos.load(Relaxed)),
                sync_duration: Duration::from_nanos(self.last_sync_nanos.load(Relaxed)),
            },
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
