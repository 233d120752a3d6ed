//! The summary as etcd's `benchmark` prints it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;

use super::Results;

/// Percentiles of the summary.
const PERCENTILES: [f64; 8] = [10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.9];
/// Intervals of the histogram.
const BUCKETS: usize = 10;
/// Length of the longest bar.
const BAR_LENGTH: usize = 40;

/// How figures are written.
#[derive(Clone, Copy)]
pub(super) struct Style {
    /// All digits.
    pub(super) is_precise: bool,
    /// A line for each second.
    pub(super) has_samples: bool,
}

impl Style {
    fn number(self, value: f64) -> String {
        if self.is_precise { format!("{value}") } else { format!("{value:.4}") }
    }
}

/// Prints text.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    Ok(std::io::stdout().lock().write_all(text.as_bytes())?)
}

/// The rate alone.
pub(super) fn rate(count: u64, secs: f64, style: Style) -> String {
    format!(" Requests/sec:\t{}\n", style.number(count as f64 / secs))
}

/// The whole summary.
pub(super) fn summary(results: &Results, style: Style) -> String {
    let mut text = String::new();
    if !results.latencies.is_empty() {
        text.push_str(&latencies(results, style));
    }
    if !results.errors.is_empty() {
        text.push_str("\nError distribution:\n");
        for (error, count) in &results.errors {
            let _ = writeln!(text, "  [{count}]\t{error}");
        }
    }
    text
}

fn latencies(results: &Results, style: Style) -> String {
    let mut secs: Vec<f64> =
        results.latencies.iter().map(|(_, latency)| latency.as_secs_f64()).collect();
    secs.sort_by(f64::total_cmp);
    let count = secs.len() as f64;
    let average = secs.iter().sum::<f64>() / count;
    let variance = secs.iter().map(|secs| (secs - average).powi(2)).sum::<f64>() / count;
    let (fastest, slowest) = (secs[0], secs[secs.len() - 1]);
    let mut text = String::from("\nSummary:\n");
    for (name, value) in [
        ("Total", results.total.as_secs_f64()),
        ("Slowest", slowest),
        ("Fastest", fastest),
        ("Average", average),
        ("Stddev", variance.sqrt()),
    ] {
        let _ = writeln!(text, "  {name}:\t{} secs.", style.number(value));
    }
    let _ =
        writeln!(text, "  Requests/sec:\t{}", style.number(count / results.total.as_secs_f64()));
    text.push_str("\nResponse time histogram:\n");
    for (bound, count, bar) in histogram(&secs) {
        let _ = writeln!(text, "  {} [{count}]\t|{}", style.number(bound), "∎".repeat(bar));
    }
    text.push_str("\nLatency distribution:\n");
    for percentile in PERCENTILES {
        let rank = (percentile * (count + 1.0) / 100.0).ceil() as usize;
        let value = secs[rank.saturating_sub(1).min(secs.len() - 1)];
        let _ = writeln!(text, "  {percentile}% in {:.3} ms.", value * 1000.0);
    }
    if style.has_samples {
        text.push_str(&samples(results));
    }
    text
}

/// Upper bound, count and bar of each interval; `secs` is sorted and not empty.
fn histogram(secs: &[f64]) -> Vec<(f64, usize, usize)> {
    let (fastest, slowest) = (secs[0], secs[secs.len() - 1]);
    let step = (slowest - fastest) / BUCKETS as f64;
    let bound = |n: usize| if n == BUCKETS { slowest } else { fastest + step * n as f64 };
    let mut counts = [0usize; BUCKETS + 1];
    let mut bucket = 0;
    for value in secs {
        while *value > bound(bucket) && bucket < BUCKETS {
            bucket += 1;
        }
        counts[bucket] += 1;
    }
    let most = counts.iter().copied().max().unwrap_or(0).max(1);
    counts
        .iter()
        .enumerate()
        .map(|(n, count)| (bound(n), *count, count * BAR_LENGTH / most))
        .collect()
}

fn samples(results: &Results) -> String {
    let mut seconds: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
    for (at, latency) in &results.latencies {
        seconds.entry(at.as_secs()).or_default().push(latency.as_secs_f64() * 1000.0);
    }
    let began = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |now| now.as_secs().saturating_sub(results.total.as_secs()));
    let mut text = String::from(
        "\nSample in one second (unix latency throughput):\n\
         UNIX-SECOND,MIN-LATENCY-MS,AVG-LATENCY-MS,MAX-LATENCY-MS,AVG-THROUGHPUT\n",
    );
    for (second, latencies) in seconds {
        let least = latencies.iter().copied().fold(f64::INFINITY, f64::min);
        let most = latencies.iter().copied().fold(0.0, f64::max);
        let average = latencies.iter().sum::<f64>() / latencies.len() as f64;
        let _ = writeln!(
            text,
            "{},{least:.6},{average:.6},{most:.6},{}",
            began + second,
            latencies.len()
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn results() -> Results {
        let mut results = Results { total: Duration::from_secs(2), ..Results::default() };
        for ms in 1..=100 {
            results.add(Duration::ZERO, Duration::from_millis(ms), Ok(()));
        }
        results
    }

    #[test]
    fn the_summary_has_etcds_lines() {
        let text = summary(&results(), Style { is_precise: false, has_samples: false });
        for line in [
            "Summary:",
            "  Total:\t2.0000 secs.",
            "  Slowest:\t0.1000 secs.",
            "  Fastest:\t0.0010 secs.",
            "  Average:\t0.0505 secs.",
            "  Stddev:\t0.0289 secs.",
            "  Requests/sec:\t50.0000",
            "Response time histogram:",
            "Latency distribution:",
            "  50% in 51.000 ms.",
            "  99.9% in 100.000 ms.",
        ] {
            assert!(text.lines().any(|seen| seen == line), "{line:?} is not in\n{text}");
        }
    }

    #[test]
    fn the_histogram_counts_everything_once() {
        let secs: Vec<f64> = (1..=100).map(f64::from).collect();
        let buckets = histogram(&secs);
        assert_eq!(buckets.len(), 11);
        assert_eq!(buckets.iter().map(|(_, count, _)| count).sum::<usize>(), 100);
        assert_eq!(histogram(&[1.0])[0], (1.0, 1, 40));
    }
}
