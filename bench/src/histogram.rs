//! Latencies: HdrHistograms in nanoseconds, and the figures reported of them.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Longest latency told apart; longer ones count as this.
const LATENCY_NS_MAX: u64 = 600_000_000_000;
/// Significant decimal digits kept.
const DIGITS: u8 = 3;
/// Quantiles of the distribution plot, in [0, 1].
const PLOT_QUANTILES: [f64; 12] =
    [0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9999, 1.0];

/// An empty histogram.
#[must_use]
pub fn new() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, DIGITS).expect("the bounds are constants")
}

/// Counts one latency.
pub fn record(histogram: &mut Histogram<u64>, latency: Duration) {
    let nanos = u64::try_from(latency.as_nanos()).unwrap_or(LATENCY_NS_MAX);
    histogram.saturating_record(nanos);
}

/// The figures of a latency distribution, in milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Percentiles {
    /// Latencies counted.
    pub count: u64,
    /// Smallest.
    pub min_ms: f64,
    /// Mean.
    pub mean_ms: f64,
    /// Standard deviation.
    pub stddev_ms: f64,
    /// Median.
    pub p50_ms: f64,
    /// 90th percentile.
    pub p90_ms: f64,
    /// 99th percentile.
    pub p99_ms: f64,
    /// 99.9th percentile.
    pub p999_ms: f64,
    /// 99.99th percentile.
    pub p9999_ms: f64,
    /// Largest.
    pub max_ms: f64,
    /// Quantile and latency pairs for a plot.
    pub curve: Vec<(f64, f64)>,
}

/// The figures of `histogram`.
#[must_use]
pub fn percentiles(histogram: &Histogram<u64>) -> Percentiles {
    if histogram.is_empty() {
        return Percentiles::default();
    }
    let ms = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e6;
    Percentiles {
        count: histogram.len(),
        min_ms: histogram.min() as f64 / 1e6,
        mean_ms: histogram.mean() / 1e6,
        stddev_ms: histogram.stdev() / 1e6,
        p50_ms: ms(0.5),
        p90_ms: ms(0.9),
        p99_ms: ms(0.99),
        p999_ms: ms(0.999),
        p9999_ms: ms(0.9999),
        max_ms: histogram.max() as f64 / 1e6,
        curve: PLOT_QUANTILES.iter().map(|quantile| (*quantile, ms(*quantile))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_a_known_distribution() {
        let mut histogram = new();
        for ms in 1..=10_000 {
            record(&mut histogram, Duration::from_millis(ms));
        }
        let table = percentiles(&histogram);
        let is_near = |value: f64, expected: f64| (value / expected - 1.0).abs() < 0.002;
        assert!(is_near(table.p50_ms, 5000.0) && is_near(table.p99_ms, 9900.0), "{table:?}");
        assert!(is_near(table.p9999_ms, 9999.0) && is_near(table.max_ms, 10_000.0), "{table:?}");
        assert_eq!(table.count, 10_000);
    }

    #[test]
    fn a_latency_beyond_the_range_still_counts() {
        let mut histogram = new();
        record(&mut histogram, Duration::from_secs(10_000));
        assert_eq!(histogram.len(), 1);
        assert_eq!(percentiles(&new()).count, 0);
    }
}
