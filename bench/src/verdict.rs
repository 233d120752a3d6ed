//! Whether a run is fit to quote, and why not. Only figures go in, so the rules can be tested.

use serde::Serialize;

use crate::machine::Flush;
use crate::report::json::Load;

/// Fewest interleaved repetitions.
pub const REPETITIONS_MIN: usize = 5;
/// Largest share of the machine other processes may take.
pub const OTHERS_SHARE_MAX: f64 = 0.05;
/// Largest share of the machine the hypervisor may take away.
pub const STOLEN_SHARE_MAX: f64 = 0.02;
/// Largest factor between flush latencies before and after.
pub const FLUSH_FACTOR_MAX: f64 = 2.0;
/// Flushes faster than this differ by noise only.
const FLUSH_MS_MIN: f64 = 0.3;
/// Largest share of one processor for each thread of the generator.
pub const GENERATOR_SHARE_MAX: f64 = 0.9;
/// Largest share of failed requests.
pub const FAILED_SHARE_MAX: f64 = 0.001;
/// Smallest share of an open loop's requests that must be answered in time to count.
pub const ACHIEVED_SHARE_MIN: f64 = 0.98;

/// The figures that decide.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// Stores that were loaded in turns.
    pub targets: usize,
    /// Repetitions of each.
    pub repetitions: usize,
    /// Largest share of the machine other processes took in any repetition.
    pub others_share: Option<f64>,
    /// Largest share of the machine the hypervisor took away in any repetition.
    pub stolen_share: f64,
    /// Flush latency before and after.
    pub flushes: Option<(Flush, Flush)>,
    /// Largest share of one processor for each thread of the generator.
    pub generator_share: f64,
    /// Requests that failed, and all.
    pub failed: (u64, u64),
    /// Wrong answers.
    pub violations: u64,
    /// Warm-ups that did not settle, and all.
    pub unsteady: (usize, usize),
    /// Smallest share of an open loop's due requests that were answered.
    pub achieved_share: Option<f64>,
}

impl Evidence {
    /// What the loads themselves tell; the rest is as of no evidence. The shares are the largest
    /// of any load, so that one disturbed load shows.
    #[must_use]
    pub fn of_loads<'a>(loads: impl Iterator<Item = &'a Load>, threads: usize) -> Self {
        let mut evidence = Self { others_share: Some(0.0), ..Self::default() };
        for load in loads {
            let usage = &load.usage;
            let others = usage.others_share();
            evidence.others_share = evidence.others_share.zip(others).map(|(a, b)| a.max(b));
            evidence.stolen_share = evidence
                .stolen_share
                .max(usage.stolen_secs / usage.elapsed_secs / usage.processors as f64);
            let share = usage.generator_cpu_secs / usage.elapsed_secs / threads.max(1) as f64;
            evidence.generator_share = evidence.generator_share.max(share);
            let failed: u64 = load.failures.iter().map(|failure| failure.count).sum();
            evidence.failed.0 += failed;
            evidence.failed.1 += failed + load.answered;
            evidence.unsteady.0 += usize::from(!load.warmup.is_steady);
            evidence.unsteady.1 += 1;
            if let Some(due) = load.due {
                let share = load.answered as f64 / due.max(1) as f64;
                evidence.achieved_share =
                    Some(evidence.achieved_share.map_or(share, |least| least.min(share)));
            }
        }
        evidence
    }
}

/// The judgement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Nothing speaks against quoting the figures.
    pub is_fit: bool,
    /// What does.
    pub reasons: Vec<String>,
}

/// Judges a run.
#[must_use]
pub fn judge(evidence: &Evidence) -> Verdict {
    let mut reasons = Vec::new();
    let mut against = |is_so: bool, reason: String| {
        if is_so {
            reasons.push(reason);
        }
    };
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    against(evidence.violations > 0, format!("{} wrong answers", evidence.violations));
    against(evidence.targets < 2, "one store alone; ratios need two in one run".into());
    against(
        evidence.repetitions < REPETITIONS_MIN,
        format!("{} repetitions, fewer than {REPETITIONS_MIN}", evidence.repetitions),
    );
    match evidence.others_share {
        Some(share) => against(
            share > OTHERS_SHARE_MAX,
            format!("other processes took {} of the machine", percent(share)),
        ),
        None => against(true, "the servers run elsewhere, so other load is unknown".into()),
    }
    against(
        evidence.stolen_share > STOLEN_SHARE_MAX,
        format!("the hypervisor took {} of the machine", percent(evidence.stolen_share)),
    );
    match evidence.flushes {
        Some((before, after)) => {
            let (low, high) = (before.p50_ms.min(after.p50_ms), before.p50_ms.max(after.p50_ms));
            against(
                high > FLUSH_MS_MIN && high > low * FLUSH_FACTOR_MAX,
                format!(
                    "a flush took {:.2} ms before and {:.2} ms after",
                    before.p50_ms, after.p50_ms
                ),
            );
        }
        None => against(true, "flush latency was not measured".into()),
    }
    against(
        evidence.generator_share > GENERATOR_SHARE_MAX,
        format!("the generator used {} of a processor", percent(evidence.generator_share)),
    );
    let (failed, all) = evidence.failed;
    against(
        all == 0 || failed as f64 > all as f64 * FAILED_SHARE_MAX,
        format!("{failed} of {all} requests failed"),
    );
    let (unsteady, warmups) = evidence.unsteady;
    against(unsteady * 2 > warmups, format!("{unsteady} of {warmups} warm-ups did not settle"));
    if let Some(share) = evidence.achieved_share {
        against(
            share < ACHIEVED_SHARE_MIN,
            format!("only {} of the requests due were answered", percent(share)),
        );
    }
    Verdict { is_fit: reasons.is_empty(), reasons }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Evidence {
        let flush = Flush { p50_ms: 0.1, p99_ms: 0.5 };
        Evidence {
            targets: 2,
            repetitions: 5,
            others_share: Some(0.01),
            flushes: Some((flush, flush)),
            generator_share: 0.5,
            failed: (0, 1000),
            unsteady: (0, 10),
            ..Evidence::default()
        }
    }

    #[test]
    fn a_clean_run_is_fit() {
        assert_eq!(judge(&good()), Verdict { is_fit: true, reasons: vec![] });
    }

    #[test]
    fn each_fault_has_its_reason() {
        let slow = Flush { p50_ms: 2.0, p99_ms: 9.0 };
        let fast = Flush { p50_ms: 0.5, p99_ms: 9.0 };
        let faults = [
            (Evidence { targets: 1, ..good() }, "one store"),
            (Evidence { repetitions: 4, ..good() }, "4 repetitions"),
            (Evidence { others_share: Some(0.2), ..good() }, "20.0 %"),
            (Evidence { others_share: None, ..good() }, "elsewhere"),
            (Evidence { stolen_share: 0.1, ..good() }, "hypervisor"),
            (Evidence { flushes: Some((fast, slow)), ..good() }, "0.50 ms before"),
            (Evidence { generator_share: 0.95, ..good() }, "generator"),
            (Evidence { failed: (2, 1000), ..good() }, "2 of 1000"),
            (Evidence { violations: 1, ..good() }, "1 wrong"),
            (Evidence { unsteady: (6, 10), ..good() }, "did not settle"),
            (Evidence { achieved_share: Some(0.9), ..good() }, "90.0 %"),
        ];
        for (evidence, words) in faults {
            let verdict = judge(&evidence);
            assert!(!verdict.is_fit && verdict.reasons.len() == 1, "{verdict:?}");
            assert!(verdict.reasons[0].contains(words), "{verdict:?}");
        }
    }
}
