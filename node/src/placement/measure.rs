//! The thread that finds out how much ranges hold and where their middle is. It reads the store with
//! a budget, so that clients do not notice, and does one thing at a time.
//!
//! A pass over a range ends when it has seen as much as the range may hold: of one that holds far
//! more, the first part is cut off, and no pass is longer than the limit of splitting.

use std::ops::{Bound, ControlFlow};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use flotilla_core::GroupId;
use flotilla_core::load::Marks;
use flotilla_core::view::{Column, View};
use tokio::sync::mpsc;

use crate::store::{Contents, Estimate, Store};
use crate::supervise::fatal;

/// Bytes of rows read in a second.
const BYTES_PER_SECOND: u64 = 32 << 20;
/// Bytes of rows read between two pauses: a few milliseconds.
const PIECE_BYTES: u64 = 256 << 10;
/// A pass goes this much beyond the limit, as one part of so many, so that a range just above it is
/// seen whole.
const BEYOND_ONE_IN: u64 = 16;
/// How often a pausing thread looks whether it is to stop.
const STOP_POLL: Duration = Duration::from_millis(50);

/// Keys from the first on, before the second if there is one.
pub(super) type Span = (Bytes, Option<Bytes>);

/// What is to be found out.
#[derive(Debug)]
pub(super) enum Job {
    /// About how much these spans hold, and how the machine stands.
    Estimate(Vec<Span>),
    /// What a range holds, and its middle. It is named by its generation, too.
    Count { range: GroupId, generation: u64, spans: Vec<Span>, limit: Limit },
}

/// Where a pass may end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    pub(super) bytes: u64,
    pub(super) keys: u64,
}

/// What was found out.
#[derive(Debug)]
pub(super) enum Found {
    /// For each span of the job.
    Estimates(Vec<Estimate>, Contents, Machine),
    /// All of the range, or so much of it that it is above the limit.
    Counted { range: GroupId, generation: u64, marks: Marks, is_whole: bool },
}

/// How the machine stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Machine {
    /// Of the disk with the data directory; 0 = not known.
    pub(super) capacity_bytes: u64,
    pub(super) used_bytes: u64,
    /// Bytes that this process has had disks write.
    pub(super) written_bytes: u64,
}

/// The thread. It ends with `stop`.
pub struct Measurer {
    jobs: Sender<Job>,
    is_stopping: Arc<AtomicBool>,
    thread: thread::JoinHandle<()>,
}

/// The way to the thread.
#[derive(Clone)]
pub(super) struct Jobs(Sender<Job>);

impl Jobs {
    /// # Errors
    /// The job: the thread has not come to the last one yet.
    pub(super) fn try_send(&self, job: Job) -> Result<(), Job> {
        self.0.try_send(job).map_err(TrySendError::into_inner)
    }
}

impl Measurer {
    /// Starts the thread. What it finds out goes to the other end of the second result.
    ///
    /// # Errors
    /// The operating system refuses a thread.
    pub fn start(store: Store, data_dir: PathBuf) -> std::io::Result<(Self, Findings)> {
        let (jobs, waiting) = bounded(1);
        let (sender, findings) = mpsc::channel(1);
        let is_stopping = Arc::new(AtomicBool::new(false));
        let worker = Worker { store, data_dir, waiting, sender, is_stopping: is_stopping.clone() };
        let thread =
            thread::Builder::new().name("measure".to_owned()).spawn(move || worker.run())?;
        Ok((Self { jobs, is_stopping, thread }, Findings(findings)))
    }

    pub(super) fn jobs(&self) -> Jobs {
        Jobs(self.jobs.clone())
    }

    /// Ends the thread: it must not read a store that is being closed. Blocks for as long as a piece
    /// takes.
    pub fn stop(self) {
        self.is_stopping.store(true, Ordering::Release);
        drop(self.jobs);
        // A thread that panicked has ended the process already.
        let _ = self.thread.join();
    }
}

/// What the thread finds out.
pub struct Findings(pub(super) mpsc::Receiver<Found>);

struct Worker {
    store: Store,
    data_dir: PathBuf,
    waiting: Receiver<Job>,
    sender: mpsc::Sender<Found>,
    is_stopping: Arc<AtomicBool>,
}

impl Worker {
    fn run(self) {
        while !self.is_stopping.load(Ordering::Acquire) {
            let Ok(job) = self.waiting.recv_timeout(STOP_POLL) else { continue };
            self.carry_out(job);
        }
    }

    fn carry_out(&self, job: Job) {
        match job {
            Job::Estimate(spans) => self.estimate(&spans),
            Job::Count { range, generation, spans, limit } => {
                if let Some((marks, is_whole)) = self.count(&spans, limit) {
                    self.tell(Found::Counted { range, generation, marks, is_whole });
                }
            }
        }
    }

    fn tell(&self, found: Found) {
        // Who asked ends before this thread only when the node stops.
        let _ = self.sender.blocking_send(found);
    }

    fn estimate(&self, spans: &[Span]) {
        match self.store.estimate(Column::Key, spans) {
            Ok((estimates, contents)) => {
                self.tell(Found::Estimates(estimates, contents, self.machine()));
            }
            Err(error) => fatal(&error.to_string()),
        }
    }

    fn machine(&self) -> Machine {
        let mut machine = Machine::default();
        if let Ok(disk) = rustix::fs::statvfs(&self.data_dir) {
            machine.capacity_bytes = disk.f_blocks.saturating_mul(disk.f_frsize);
            let free_bytes = disk.f_bfree.saturating_mul(disk.f_frsize);
            machine.used_bytes = machine.capacity_bytes.saturating_sub(free_bytes);
        }
        if let Ok(text) = std::fs::read_to_string("/proc/self/io") {
            let line = text.lines().find_map(|line| line.strip_prefix("write_bytes:"));
            machine.written_bytes = line.and_then(|it| it.trim().parse().ok()).unwrap_or(0);
        }
        machine
    }

    /// Rows and bytes of the newest records, with those that say that a key was deleted, until they
    /// are removed: they are looked at and sent like any other. `None` when the node stops.
    fn count(&self, spans: &[Span], limit: Limit) -> Option<(Marks, bool)> {
        let mut marks = Marks::default();
        for (start, end) in spans {
            let mut next = Some(Bound::Included(start.clone()));
            while let Some(from) = next.take() {
                let began = Instant::now();
                let before = marks.bytes();
                let mut last = None;
                let to = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
                let from = from.as_ref().map(|key| &key[..]);
                let result = self.store.with_snapshot(|view: &dyn View| {
                    view.scan(Column::Key, from, to, &mut |key, value| {
                        marks.add(key, (key.len() + value.len()) as u64);
                        if marks.bytes() - before < PIECE_BYTES {
                            return ControlFlow::Continue(());
                        }
                        last = Some(Bytes::copy_from_slice(key));
                        ControlFlow::Break(())
                    })
                });
                if let Err(error) = result {
                    fatal(&error.to_string());
                }
                let beyond = |limit: u64| limit.saturating_add(limit / BEYOND_ONE_IN);
                let is_enough =
                    marks.bytes() > beyond(limit.bytes) || marks.rows() > beyond(limit.keys);
                if is_enough && last.is_some() {
                    return Some((marks, false));
                }
                next = last.map(Bound::Excluded);
                if !self.pause(began, marks.bytes() - before) {
                    return None;
                }
            }
        }
        Some((marks, true))
    }

    /// So long that the budget is kept. False if the node stops. An estimate that is asked for
    /// meanwhile does not wait for the end of a pass.
    fn pause(&self, began: Instant, bytes: u64) -> bool {
        let due = began + Duration::from_micros(bytes * 1_000_000 / BYTES_PER_SECOND);
        loop {
            if self.is_stopping.load(Ordering::Acquire) {
                return false;
            }
            match self.waiting.try_recv() {
                Ok(Job::Estimate(spans)) => self.estimate(&spans),
                Ok(Job::Count { range, .. }) => {
                    unreachable!("range {range} is to be counted while another is")
                }
                Err(_) => {}
            }
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            thread::sleep(left.min(STOP_POLL));
        }
    }
}
