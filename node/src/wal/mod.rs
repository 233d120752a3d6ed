//! The write-ahead log: ONE per node, shared by all Raft groups, so that one flush serves them
//! all. Owns its directory, its thread and the promise that what it reports done survives; knows
//! nothing of Raft beyond the order of indexes. Never retries a failed write or flush, and never
//! cuts anything that may have been acknowledged. See docs/decisions/0001-wal.md.

mod book;
mod copy;
mod error;
mod flusher;
mod format;
mod gauges;
mod inspect;
mod operation;
mod options;
mod record;
mod recovery;
mod replay;
mod segment;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::VecDeque;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crossbeam::channel::{Sender, TrySendError, bounded};

pub use error::{Error, Refused, RefusedReason};
pub use gauges::Stats;
pub use inspect::{Inspection, inspect};
pub use operation::{Append, Done, Entry, Flush, GroupLog, HardState, Operation, Report};
pub use options::Options;
pub use recovery::{Recovered, TornTail};

use crate::failpoint::Failpoint;
use crate::io::{Disk, RealDisk};
use flusher::{Flusher, Message};
use format::{FrameKind, SegmentHeader};
use gauges::Gauges;
use recovery::Found;
use segment::Directory;
use writer::{Segment, Writer};

/// Opens the log in `options.dir`, creating it if there is none, and starts its thread.
///
/// `on_done` and `on_failure` run on that thread and must be quick. Reports come in the order of
/// the appends. `on_failure` is called at most once, and no report follows it; the process should
/// stop, because the groups' memory is ahead of their disk.
pub fn open(
    options: Options,
    on_done: Box<dyn Fn(Report) + Send>,
    on_failure: Box<dyn Fn(Error) + Send>,
) -> Result<(Handle, Recovered), Error> {
    open_on(Box::new(RealDisk), options, rand::random(), on_done, on_failure)
}

/// The log, for any thread. When the last clone is dropped without [`Handle::close`], the thread
/// finishes what is queued and needs a flush, and ends.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

struct Shared {
    sender: Sender<Message>,
    gauges: Arc<Gauges>,
    append_bytes_max: u64,
    queue_bytes_max: u64,
    is_closed: AtomicBool,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Handle {
    /// Queues one append. Appends of one thread keep their order.
    pub fn try_append(&self, append: Append) -> Result<(), Refused> {
        let shared = &self.shared;
        let bytes = match record::append_bytes(&append) {
            Ok(bytes) if bytes <= shared.append_bytes_max => bytes,
            Ok(bytes) => {
                let limit = shared.append_bytes_max;
                return Err(Refused { append, reason: RefusedReason::TooLarge { bytes, limit } });
            }
            Err(reason) => return Err(Refused { append, reason }),
        };
        if shared.is_closed.load(Acquire) {
            return Err(Refused { append, reason: RefusedReason::Closed });
        }
        let queued_bytes = &shared.gauges.queued_bytes;
        let queued = queued_bytes.fetch_add(bytes, Relaxed);
        if queued > 0 && queued + bytes > shared.queue_bytes_max {
            queued_bytes.fetch_sub(bytes, Relaxed);
            return Err(Refused { append, reason: RefusedReason::Full });
        }
        let (message, reason) = match shared.sender.try_send(Message::Append(append, bytes)) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Full(message)) => (message, RefusedReason::Full),
            Err(TrySendError::Disconnected(message)) => (message, RefusedReason::Closed),
        };
        queued_bytes.fetch_sub(bytes, Relaxed);
        match message {
            Message::Append(append, _) => Err(Refused { append, reason }),
            Message::Close => unreachable!("an append was sent"),
        }
    }

    /// Refuses further appends, writes those queued, marks the log as closed in order, and waits
    /// for its thread. After a failure it only waits. Must not be called from a callback.
    pub fn close(self) {
        if !self.shared.is_closed.swap(true, AcqRel) {
            // An error says that the thread is gone already, for a reason it has reported.
            let _ = self.shared.sender.send(Message::Close);
        }
        let thread = self.shared.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // The thread catches its own panics; one in `on_failure` was already printed.
            let _ = thread.join();
        }
    }

    pub fn stats(&self) -> Stats {
        self.shared.gauges.stats(self.shared.sender.len())
    }
}

/// [`open`] with everything from outside as an argument. `new_log_id` names the log if it has to
/// be created.
fn open_on(
    disk: Box<dyn Disk>,
    options: Options,
    new_log_id: u64,
    on_done: Box<dyn Fn(Report) + Send>,
    on_failure: Box<dyn Fn(Error) + Send>,
) -> Result<(Handle, Recovered), Error> {
    let dir = options.dir.clone();
    let (queue_appends_max, queue_bytes_max) = (options.queue_appends_max, options.queue_bytes_max);
    let append_bytes_max = options.append_bytes_max();
    let (writer, recovered) = open_writer(disk, options, new_log_id)?;
    let (sender, receiver) = bounded(queue_appends_max);
    let gauges = Arc::new(Gauges::default());
    let flusher = Flusher::new(writer, receiver, Arc::clone(&gauges), on_done);
    let thread = std::thread::Builder::new()
        .name("wal".to_owned())
        .spawn(move || flusher.run(&*on_failure))
        .map_err(|source| Error::Io { doing: "start a thread for", path: dir, source })?;
    let shared = Shared {
        sender,
        gauges,
        append_bytes_max,
        queue_bytes_max,
        is_closed: AtomicBool::new(false),
        thread: Mutex::new(Some(thread)),
    };
    Ok((Handle { shared: Arc::new(shared) }, recovered))
}

/// Reads the log, or creates it, and makes it ready for the next frame.
fn open_writer(
    disk: Box<dyn Disk>,
    options: Options,
    new_log_id: u64,
) -> Result<(Writer, Recovered), Error> {
    options.check()?;
    let directory = Directory::new(disk, options.dir.clone());
    let lock = directory.lock()?;
    let listing = directory.list()?;
    for sequence in &listing.unfinished {
        directory.delete_unfinished(*sequence)?;
    }
    let Found { recovered, book, segments, active, number, prepared } =
        if listing.segments.is_empty() {
            create(&directory, &options, new_log_id)?
        } else {
            recovery::recover(&directory, &listing.segments)?
        };
    Failpoint::StartLogRead.reached();
    let spares = tidy(&directory, &options, &listing.spares, prepared)?;
    let mut writer = Writer {
        directory,
        options,
        book,
        active,
        segments,
        spares,
        number,
        copier: None,
        copied_bytes: 0,
        buffer: Vec::new(),
        _lock: lock,
    };
    if !recovered.is_clean {
        // Makes the cut durable and confirms the frame before it, so that damage to it from here
        // on cannot pass for a second crash.
        writer.write(FrameKind::Confirm, &[], 0)?;
    }
    Ok((writer, recovered))
}

fn create(directory: &Directory, options: &Options, log_id: u64) -> Result<Found, Error> {
    let bytes = options.segment_bytes;
    let header = SegmentHeader { log_id, sequence: 1, bytes, is_recycled: false };
    Ok(Found {
        recovered: Recovered { is_clean: true, ..Recovered::default() },
        book: book::Book::default(),
        segments: VecDeque::from([Segment { sequence: 1, bytes }]),
        active: directory.create(header)?,
        number: 1,
        prepared: None,
    })
}

/// Makes what recovery saw of the directory durable and removes what is of no use. Answers the
/// spares that are kept.
fn tidy(
    directory: &Directory,
    options: &Options,
    listed: &[u64],
    prepared: Option<u64>,
) -> Result<Vec<u64>, Error> {
    let mut spares = Vec::new();
    for &sequence in listed {
        let is_fit = directory.spare_bytes(sequence)? == options.segment_bytes;
        if is_fit && spares.len() < options.recycled_segments_max {
            spares.push(sequence);
        } else {
            directory.delete_spare(sequence)?;
        }
    }
    match prepared {
        Some(sequence) => directory.delete(sequence)?,
        None => directory.sync()?,
    }
    Ok(spares)
}
