//! Collects what all slots measure: latencies by kind, a line per interval, errors by code.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::histogram::{self, Percentiles};
use crate::operation::Kind;
use crate::wire::Status;

/// Intervals kept of one run; a longer run keeps its beginning.
const INTERVALS_MAX: usize = 100_000;

/// One line of the timeline.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// End of the interval, seconds after the measurement began.
    pub at_secs: f64,
    /// Requests answered a second.
    pub rate: f64,
    /// Median latency.
    pub p50_ms: f64,
    /// 99th percentile.
    pub p99_ms: f64,
    /// Largest latency.
    pub max_ms: f64,
    /// Failed requests.
    pub errors: u64,
}

/// Failures of one kind with one code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The operation.
    pub operation: &'static str,
    /// gRPC's name of the code.
    pub code: &'static str,
    /// How many.
    pub count: u64,
    /// The message of the first.
    pub message: String,
}

/// What was recorded between `start` and `finish`.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Requests answered without error.
    pub answered: u64,
    /// How long it took.
    pub elapsed: Duration,
    /// Latency of all answered requests.
    pub latency: Histogram<u64>,
    /// Figures of each kind of operation.
    pub by_kind: BTreeMap<&'static str, Percentiles>,
    /// The timeline.
    pub timeline: Vec<Interval>,
    /// Failures.
    pub failures: Vec<Failure>,
    /// Bytes of answers to reads.
    pub bytes: u64,
}

impl Recorded {
    /// Answered requests a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.answered as f64 / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// Failed requests.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failures.iter().map(|failure| failure.count).sum()
    }
}

#[derive(Default)]
struct Tally {
    is_recording: bool,
    began: Option<Instant>,
    kinds: [Option<Histogram<u64>>; Kind::COUNT],
    interval: Option<Histogram<u64>>,
    interval_began: Option<Instant>,
    interval_errors: u64,
    timeline: Vec<Interval>,
    failures: BTreeMap<(Kind, u8), (u64, String)>,
    answered: u64,
    bytes: u64,
    /// Requests answered since the recorder was made, recorded or not.
    total: u64,
}

/// Shared by all slots.
#[derive(Default)]
pub struct Recorder {
    tally: Mutex<Tally>,
}

impl Recorder {
    fn lock(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets everything recorded and begins anew.
    pub fn start(&self) {
        let mut tally = self.lock();
        let now = Instant::now();
        *tally = Tally {
            is_recording: true,
            began: Some(now),
            interval: Some(histogram::new()),
            interval_began: Some(now),
            total: tally.total,
            ..Tally::default()
        };
    }

    /// An operation was answered.
    pub fn on_answer(&self, kind: Kind, latency: Duration, bytes: u64) {
        let mut tally = self.lock();
        tally.total += 1;
        if !tally.is_recording {
            return;
        }
        tally.answered += 1;
        tally.bytes += bytes;
        let of_kind = tally.kinds[kind as usize].get_or_insert_with(histogram::new);
        histogram::record(of_kind, latency);
        if let Some(interval) = &mut tally.interval {
            histogram::record(interval, latency);
        }
    }

    /// An operation failed.
    pub fn on_failure(&self, kind: Kind, status: &Status) {
        let mut tally = self.lock();
        if !tally.is_recording {
            return;
        }
        tally.interval_errors += 1;
        let failure = tally.failures.entry((kind, status.code.0)).or_default();
        if failure.0 == 0 {
            failure.1.clone_from(&status.message);
        }
        failure.0 += 1;
    }

    /// Requests answered since the recorder was made.
    pub fn total(&self) -> u64 {
        self.lock().total
    }

    /// Closes the current interval of the timeline and returns it.
    pub fn cut_interval(&self) -> Option<Interval> {
        let mut tally = self.lock();
        let now = Instant::now();
        let began = tally.began?;
        let length = now - tally.interval_began?;
        let finished = tally.interval.as_mut()?;
        let table = histogram::percentiles(finished);
        finished.reset();
        let interval = Interval {
            at_secs: (now - began).as_secs_f64(),
            rate: table.count as f64 / length.as_secs_f64().max(1e-9),
            p50_ms: table.p50_ms,
            p99_ms: table.p99_ms,
            max_ms: table.max_ms,
            errors: std::mem::take(&mut tally.interval_errors),
        };
        tally.interval_began = Some(now);
        if tally.timeline.len() < INTERVALS_MAX {
            tally.timeline.push(interval.clone());
        }
        Some(interval)
    }

    /// Ends recording and hands over what was recorded.
    pub fn finish(&self) -> Recorded {
        let mut tally = self.lock();
        let total = tally.total;
        let done = std::mem::replace(&mut *tally, Tally { total, ..Tally::default() });
        drop(tally);
        let mut latency = histogram::new();
        let mut by_kind = BTreeMap::new();
        for (kind, histogram) in Kind::ALL.iter().zip(&done.kinds) {
            if let Some(histogram) = histogram {
                latency.add(histogram).expect("all histograms have the same bounds");
                by_kind.insert(kind.name(), histogram::percentiles(histogram));
            }
        }
        let failures = done.failures.into_iter().map(|((kind, code), (count, message))| Failure {
            operation: kind.name(),
            code: crate::wire::Code(code).name(),
            count,
            message,
        });
        Recorded {
            answered: done.answered,
            elapsed: done.began.map_or(Duration::ZERO, |began| began.elapsed()),
            latency,
            by_kind,
            timeline: done.timeline,
            failures: failures.collect(),
            bytes: done.bytes,
        }
    }
}
