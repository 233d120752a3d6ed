//! A deterministic simulator of whole clusters: the machines of the core, driven by an event queue
//! with a simulated network, disks and clocks, all from one seed. What clients see is judged by
//! [`crate::check`], what must hold inside after every event by the simulator itself.
//!
//! It mirrors the order in which a real node drives its machine; it holds no threads, no clock
//! and no chance but the seed's.

mod applied;
mod apply_stage;
mod blocks;
pub mod chance;
mod client;
mod ddmin;
mod disk_check;
mod drive;
mod event;
pub mod finding;
mod finish;
pub mod flags;
mod invariants;
pub mod log_disk;
pub mod mutant;
mod network;
mod node;
pub mod plan;
mod ranges;
mod reading;
pub mod reduction;
pub mod scale;
pub mod shrink;
mod snapshots;
pub mod store_disk;
pub mod sweep;
pub mod tape;
pub mod trace;
mod trouble;
mod users;
mod watcher;
mod world;

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::check::{Summary, Verdict, judge};

pub use finding::{Class, Finding};
pub use mutant::Mutant;
pub use plan::{Focus, Options};
pub use reduction::Reduction;
use tape::Tape;
use trace::Trace;
use world::World;

/// What became of a run.
#[derive(Clone, Debug, PartialEq)]
pub enum End {
    /// Nothing was found.
    Clean(Summary),
    /// A promise was broken, or the run proves nothing.
    Found(String),
}

/// How large a run was when it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Founding members.
    pub founders: u64,
    /// Ranges.
    pub ranges: usize,
    /// Clients.
    pub clients: u32,
    /// Watchers, beside the one of each founding member that is evidence.
    pub watchers: usize,
}

/// A run and its end.
#[derive(Clone, Debug)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// What became of it.
    pub end: End,
    /// What was found, if anything was.
    pub findings: Vec<Finding>,
    /// Hash of everything that happened.
    pub hash: u64,
    /// Simulated microseconds.
    pub duration: u64,
    /// The troubles that came.
    pub tape: Tape,
    /// How large it was.
    pub size: Size,
    /// What happened how often.
    pub seen: BTreeMap<&'static str, u64>,
    /// The last lines, if they were asked for.
    pub trace: String,
}

impl Report {
    /// True if nothing was found.
    pub fn is_clean(&self) -> bool {
        matches!(self.end, End::Clean(_))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.end {
            End::Clean(summary) => write!(
                f,
                "seed {}: clean after {} ms: {} answered, {} refused, {} unknown, {} revisions, \
                 {} events, trace {:016x}",
                self.seed,
                self.duration / plan::MS,
                summary.answered,
                summary.refused,
                summary.unknown,
                summary.revisions,
                summary.events,
                self.hash
            ),
            End::Found(what) => write!(
                f,
                "seed {}: FOUND after {} ms: {what}, trace {:016x}",
                self.seed,
                self.duration / plan::MS,
                self.hash
            ),
        }
    }
}

/// Runs one seed. Never panics: a machine that does is a finding.
pub fn run(seed: u64, options: &Options) -> Report {
    if options.reduction.is_whole() {
        return run_with(seed, options, None);
    }
    let tape = run_whole(seed, options).tape;
    run_with(seed, options, Some(tape))
}

/// The same run with nothing left out, and without words.
fn run_whole(seed: u64, options: &Options) -> Report {
    let whole = Options { reduction: Reduction::default(), lines_max: 0, ..options.clone() };
    run_with(seed, &whole, None)
}

fn run_with(seed: u64, options: &Options, replayed: Option<Tape>) -> Report {
    let _planted = plant(options);
    let mut world = World::new(seed, options, replayed);
    let result = catch_unwind(AssertUnwindSafe(|| {
        world.run();
        // What clients saw is judged in any case: it may say more than that a cluster is stuck.
        world.take_history()
    }));
    let mut findings = Vec::new();
    let end = match result {
        Err(panic) => {
            let text = text_of(panic.as_ref());
            let class = Class::Assertion(finding::take_panic_site());
            findings.push(Finding { class, text: text.clone() });
            End::Found(format!("a panic: {text}"))
        }
        Ok((history, rules)) => {
            world.trace.bytes(format!("{:?}", history.operations).as_bytes());
            let verdict = judge(&history, &rules);
            findings.extend(world.invariants.found().cloned());
            findings.extend(of_verdict(&verdict));
            match (world.invariants.found(), verdict) {
                (None, Verdict::Pass(summary)) => End::Clean(summary),
                (None, verdict) => End::Found(verdict.to_string()),
                (Some(found), Verdict::Fail(violations)) => {
                    End::Found(format!("{}; {}", found.text, Verdict::Fail(violations)))
                }
                (Some(found), Verdict::Pass(_) | Verdict::Invalid(_)) => {
                    End::Found(found.text.clone())
                }
            }
        }
    };
    Report {
        seed,
        end,
        findings,
        hash: world.trace.hash(),
        duration: world.now,
        size: world.size(),
        tape: world.tape,
        seen: world.seen,
        trace: trace_text(&world.trace),
    }
}

#[cfg(feature = "mutants")]
fn plant(options: &Options) -> flotilla_core::mutant::Planted {
    flotilla_core::mutant::plant(options.machine_mutant)
}

/// Stands where a planted bug would.
#[cfg(not(feature = "mutants"))]
struct NothingPlanted;

#[cfg(not(feature = "mutants"))]
fn plant(options: &Options) -> NothingPlanted {
    assert!(options.machine_mutant.is_none(), "this build has no bugs to plant in the machines");
    NothingPlanted
}

fn of_verdict(verdict: &Verdict) -> Vec<Finding> {
    match verdict {
        Verdict::Pass(_) => Vec::new(),
        Verdict::Fail(violations) => violations
            .iter()
            .map(|violation| Finding {
                class: Class::Promise(violation.check()),
                text: violation.to_string(),
            })
            .collect(),
        Verdict::Invalid(invalid) => {
            vec![Finding { class: Class::Invalid, text: invalid.to_string() }]
        }
    }
}

fn trace_text(trace: &Trace) -> String {
    trace.to_string()
}

pub(crate) fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "without a message".to_owned())
}
