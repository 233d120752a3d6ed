//! The load itself: slots that carry out operations in a closed or an open loop.
//!
//! Closed: each slot sends its next request when the last is answered. Open: requests are due by
//! a schedule whatever the answers do, and latency counts from the due time, so that a server
//! that stalls is not asked less and thereby flattered (coordinated omission).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::arrivals::{Arrivals, Profile, Spacing};
use crate::check::Check;
use crate::connect::Pool;
use crate::pacer::Pacer;
use crate::perform::Performer;
use crate::process::{self, Meter, Usage};
use crate::progress::Progress;
use crate::random::Random;
use crate::recorder::{Recorded, Recorder};
use crate::trace::TraceWriter;
use crate::warmup;
use crate::workload::{Plan, Source};

/// Pause of a slot after a failure, so that a refusing server is not hammered.
const FAILURE_PAUSE: Duration = Duration::from_millis(1);
/// Length of an interval of the timeline.
const INTERVAL: Duration = Duration::from_secs(1);
/// Requests of an open loop that may be overdue at once; more are counted as dropped.
const OVERDUE_MAX: usize = 1_000_000;
/// How long requests under way may take to finish after the end.
const DRAIN_MAX: Duration = Duration::from_secs(15);

/// When the requests of an open loop are due.
#[derive(Clone, Debug, PartialEq)]
pub enum Schedule {
    /// A rate over time.
    Profile {
        /// The rate.
        profile: Profile,
        /// How arrivals are spaced.
        spacing: Spacing,
    },
    /// These times, from the beginning.
    Recorded(Vec<Duration>),
}

/// How requests are issued.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// So many requests are always under way.
    Closed {
        /// How many.
        outstanding: usize,
    },
    /// Requests are due by a schedule.
    Open {
        /// When they are due.
        schedule: Schedule,
        /// Most requests under way; others wait, and their latency counts the wait.
        outstanding_max: usize,
    },
}

impl Shape {
    /// Slots it needs.
    #[must_use]
    pub fn slots(&self) -> usize {
        match self {
            Self::Closed { outstanding } => *outstanding,
            Self::Open { outstanding_max, .. } => *outstanding_max,
        }
    }
}

/// What a load runs on.
pub struct Scene<'a> {
    /// Connections to the store.
    pub pool: &'a Pool,
    /// Judges the answers.
    pub check: &'a Arc<Check>,
    /// Server processes to measure; none if they run elsewhere.
    pub pids: &'a [u32],
    /// Seed of all draws.
    pub seed: u64,
    /// Where progress is shown.
    pub progress: &'a Progress,
    /// Where operations are recorded, if they are.
    pub trace: Option<Arc<TraceWriter>>,
}

/// How the warm-up went.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Warmup {
    /// How long it took.
    pub secs: f64,
    /// The rate had settled at its end.
    pub is_steady: bool,
}

/// A finished load.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Latencies, timeline and failures.
    pub recorded: Recorded,
    /// The warm-up.
    pub warmup: Warmup,
    /// What it cost.
    pub usage: Usage,
    /// Requests due, in an open loop.
    pub due: Option<u64>,
    /// Requests never sent because too many were overdue.
    pub dropped: u64,
}

struct Slot {
    performer: Performer,
    source: Box<dyn Source>,
    random: Random,
}

struct Run {
    recorder: Recorder,
    is_over: AtomicBool,
    trace: Option<Arc<TraceWriter>>,
    due: AtomicU64,
    dropped: AtomicU64,
}

impl Run {
    /// One operation of `slot`, whose latency counts from `due`.
    async fn step(&self, slot: &mut Slot, due: Option<Instant>) {
        let op = slot.source.next(&mut slot.random);
        if let Some(trace) = &self.trace {
            trace.write(&op);
        }
        let began = due.unwrap_or_else(Instant::now);
        let answer = slot.performer.perform(&op).await;
        let latency = began.elapsed();
        match &answer {
            Ok(answer) => self.recorder.on_answer(op.kind(), latency, answer.bytes),
            Err(status) => self.recorder.on_failure(op.kind(), status),
        }
        let has_failed = answer.is_err();
        slot.source.on_answer(&op, &answer);
        if has_failed {
            tokio::time::sleep(FAILURE_PAUSE).await;
        }
    }
}

/// Runs `plan` until its load is steady, or for at most `warmup_max`; then measures for `length`.
/// An open loop's profile begins with the measurement; its warm-up runs at the first rate.
///
/// # Errors
/// A server has died, or the kernel refuses a timer. Failed requests are not errors.
pub async fn run(
    scene: &Scene<'_>,
    plan: &Plan,
    shape: &Shape,
    warmup_max: Duration,
    length: Duration,
) -> anyhow::Result<Outcome> {
    let mut slots: Vec<Slot> = (0..shape.slots())
        .map(|slot| Slot {
            performer: Performer::new(scene.pool.channel(slot), scene.check.clone()),
            source: (plan.source)(slot),
            random: Random::new(scene.seed, slot as u64),
        })
        .collect();
    let run = Arc::new(Run {
        recorder: Recorder::default(),
        is_over: AtomicBool::new(false),
        trace: scene.trace.clone(),
        due: AtomicU64::new(0),
        dropped: AtomicU64::new(0),
    });
    let mut tasks = tokio::task::JoinSet::new();
    let mut free: Option<Arc<Mutex<Vec<Slot>>>> = None;
    let warmup = match shape {
        Shape::Closed { .. } => {
            for slot in slots.drain(..) {
                tasks.spawn(closed_slot(run.clone(), slot));
            }
            warm_up(&run.recorder, warmup_max).await
        }
        Shape::Open { schedule, .. } => {
            let free = free.insert(Arc::new(Mutex::new(slots)));
            let warmup = match schedule {
                Schedule::Profile { profile, spacing } => {
                    let first = profile.segments.first().map_or(0.0, |segment| segment.from_rate);
                    let constant = Profile::constant(first.max(1.0), warmup_max);
                    let random = Random::new(scene.seed, u64::MAX - 1);
                    let warm = Arrivals::new(constant, *spacing, random);
                    let pacing = tokio::spawn(open_loop(run.clone(), free.clone(), warm));
                    let warmup = warm_up(&run.recorder, warmup_max).await;
                    pacing.abort();
                    warmup
                }
                // What was recorded is played once, from its beginning.
                Schedule::Recorded(_) => Warmup { secs: 0.0, is_steady: false },
            };
            run.due.store(0, Ordering::Relaxed);
            run.dropped.store(0, Ordering::Relaxed);
            match schedule.clone() {
                Schedule::Profile { profile, spacing } => {
                    let arrivals =
                        Arrivals::new(profile, spacing, Random::new(scene.seed, u64::MAX));
                    tasks.spawn(open_loop(run.clone(), free.clone(), arrivals));
                }
                Schedule::Recorded(due) => {
                    tasks.spawn(open_loop(run.clone(), free.clone(), due.into_iter()));
                }
            }
            warmup
        }
    };
    let meter = Meter::start(scene.pids)?;
    run.recorder.start();
    let meter = measure(&run.recorder, meter, length, scene.progress).await;
    run.recorder.cut_interval();
    let recorded = run.recorder.finish();
    let usage = meter.finish()?;
    run.is_over.store(true, Ordering::Relaxed);
    scene.progress.done();
    // What still hangs after that is cancelled with its task or its connection.
    let _ = tokio::time::timeout(DRAIN_MAX, async {
        while tasks.join_next().await.is_some() {}
        if let Some(free) = free {
            while lock(&free).len() < shape.slots() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    })
    .await;
    let is_open = matches!(shape, Shape::Open { .. });
    Ok(Outcome {
        recorded,
        warmup,
        usage,
        due: is_open.then(|| run.due.load(Ordering::Relaxed)),
        dropped: run.dropped.load(Ordering::Relaxed),
    })
}

async fn measure(
    recorder: &Recorder,
    mut meter: Meter,
    length: Duration,
    progress: &Progress,
) -> Meter {
    let began = Instant::now();
    let mut next_interval = began + INTERVAL;
    loop {
        let now = Instant::now();
        if now >= began + length {
            return meter;
        }
        let next = (began + length).min(now + process::MEMORY_INTERVAL);
        tokio::time::sleep_until(next.into()).await;
        meter.sample();
        if Instant::now() >= next_interval {
            next_interval += INTERVAL;
            if let Some(interval) = recorder.cut_interval() {
                progress.show(&interval, length);
            }
        }
    }
}

async fn warm_up(recorder: &Recorder, warmup_max: Duration) -> Warmup {
    let began = Instant::now();
    let mut counts = Vec::new();
    let mut last = recorder.total();
    while began.elapsed() < warmup_max {
        tokio::time::sleep(warmup::WINDOW.min(warmup_max)).await;
        let total = recorder.total();
        counts.push(total - last);
        last = total;
        if warmup::is_steady(&counts) {
            return Warmup { secs: began.elapsed().as_secs_f64(), is_steady: true };
        }
    }
    Warmup { secs: began.elapsed().as_secs_f64(), is_steady: false }
}

async fn closed_slot(run: Arc<Run>, mut slot: Slot) {
    while !run.is_over.load(Ordering::Relaxed) {
        run.step(&mut slot, None).await;
    }
}

/// Releases requests when they are due. A free slot takes each at once; if there is none, it
/// waits for the next slot that becomes free.
async fn open_loop(
    run: Arc<Run>,
    free: Arc<Mutex<Vec<Slot>>>,
    arrivals: impl Iterator<Item = Duration> + Send,
) {
    let Ok(pacer) = Pacer::new() else {
        // Nothing is due then, which the report shows as no requests.
        return;
    };
    let overdue = Arc::new(Mutex::new(VecDeque::new()));
    let began = Instant::now();
    for due in arrivals {
        let due = began + due;
        if pacer.until(due).await.is_err() || run.is_over.load(Ordering::Relaxed) {
            return;
        }
        run.due.fetch_add(1, Ordering::Relaxed);
        let slot = lock(&free).pop();
        let Some(slot) = slot else {
            let mut overdue = lock(&overdue);
            if overdue.len() < OVERDUE_MAX {
                overdue.push_back(due);
            } else {
                run.dropped.fetch_add(1, Ordering::Relaxed);
            }
            continue;
        };
        let (run, free, overdue) = (run.clone(), free.clone(), overdue.clone());
        tokio::spawn(async move {
            let mut slot = slot;
            let mut due = due;
            loop {
                run.step(&mut slot, Some(due)).await;
                let next = lock(&overdue).pop_front();
                match next {
                    Some(next) if !run.is_over.load(Ordering::Relaxed) => due = next,
                    _ => break,
                }
            }
            lock(&free).push(slot);
        });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
