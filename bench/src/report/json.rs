//! The report as data. Field names carry their units; they are what scripts rely on.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;

use crate::check::Violations;
use crate::histogram::{self, Percentiles};
use crate::load::{Outcome, Warmup};
use crate::machine::{Flush, Machine};
use crate::process::Usage;
use crate::recorder::{Failure, Interval};
use crate::verdict::Verdict;

/// Version of the report's form.
pub const FORM: u32 = 1;

/// One load of one store.
#[derive(Clone, Debug, Serialize)]
pub struct Load {
    /// The workload's name.
    pub workload: String,
    /// `closed` or `open`.
    pub shape: &'static str,
    /// Requests under way at most.
    pub outstanding: usize,
    /// Requests answered a second.
    pub rate: f64,
    /// Requests answered.
    pub answered: u64,
    /// Requests due, in an open loop.
    pub due: Option<u64>,
    /// Requests never sent because too many were overdue.
    pub dropped: u64,
    /// Length of the measurement.
    pub elapsed_secs: f64,
    /// Bytes of answers to reads.
    pub bytes: u64,
    /// Latency of all requests; in an open loop from when they were due.
    pub latency: Percentiles,
    /// Latency of each kind of operation.
    pub by_operation: BTreeMap<&'static str, Percentiles>,
    /// A line a second.
    pub timeline: Vec<Interval>,
    /// Failures by operation and code.
    pub failures: Vec<Failure>,
    /// The warm-up.
    pub warmup: Warmup,
    /// CPU and memory.
    pub usage: Usage,
    /// CPU of all servers for each answered request.
    pub servers_cpu_us_per_op: Option<f64>,
    /// CPU of this process for each answered request.
    pub generator_cpu_us_per_op: f64,
}

impl Load {
    /// The report of a finished load.
    #[must_use]
    pub fn new(workload: &str, is_open: bool, outstanding: usize, outcome: &Outcome) -> Self {
        let recorded = &outcome.recorded;
        let per_op = |secs: f64| secs * 1e6 / recorded.answered.max(1) as f64;
        Self {
            workload: workload.into(),
            shape: if is_open { "open" } else { "closed" },
            outstanding,
            rate: recorded.rate(),
            answered: recorded.answered,
            due: outcome.due,
            dropped: outcome.dropped,
            elapsed_secs: recorded.elapsed.as_secs_f64(),
            bytes: recorded.bytes,
            latency: histogram::percentiles(&recorded.latency),
            by_operation: recorded.by_kind.clone(),
            timeline: recorded.timeline.clone(),
            failures: recorded.failures.clone(),
            warmup: outcome.warmup,
            usage: outcome.usage,
            servers_cpu_us_per_op: outcome.usage.servers_cpu_secs.map(per_op),
            generator_cpu_us_per_op: per_op(outcome.usage.generator_cpu_secs),
        }
    }
}

/// A run of one store.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// Version of this form.
    pub form: u32,
    /// The store's name.
    pub target: String,
    /// What the store says its version is.
    pub version: String,
    /// Seed of all draws.
    pub seed: u64,
    /// Connections.
    pub connections: usize,
    /// The machine.
    pub machine: Machine,
    /// Flush latency before the run.
    pub flush_before: Option<Flush>,
    /// Flush latency after the run.
    pub flush_after: Option<Flush>,
    /// The load, or each step of a search.
    pub loads: Vec<Load>,
    /// The highest rate within the limit, of a search.
    pub highest_rate: Option<f64>,
    /// Wrong answers.
    pub violations: Violations,
    /// Whether the figures may be quoted.
    pub verdict: Verdict,
}

/// Writes any report.
///
/// # Errors
/// The file cannot be written.
pub fn write(path: &Path, report: &impl Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(report)?;
    std::fs::write(path, text + "\n").with_context(|| path.display().to_string())
}
