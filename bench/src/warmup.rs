//! When a load has settled: the rate of short windows no longer drifts and varies little.

use std::time::Duration;

/// Length of one window.
pub const WINDOW: Duration = Duration::from_millis(200);
/// Windows looked at together.
const WINDOWS_COUNT: usize = 6;
/// Largest spread of the windows' rates, as a fraction of their mean.
const SPREAD_MAX: f64 = 0.12;
/// Largest difference between the newer and the older half, as a fraction of the mean.
const DRIFT_MAX: f64 = 0.05;

/// Whether the newest windows show a settled rate.
#[must_use]
pub fn is_steady(counts: &[u64]) -> bool {
    let Some(newest) = counts.len().checked_sub(WINDOWS_COUNT).map(|first| &counts[first..]) else {
        return false;
    };
    let mean = |counts: &[u64]| counts.iter().sum::<u64>() as f64 / counts.len() as f64;
    let all = mean(newest);
    if all == 0.0 {
        return false;
    }
    let variance =
        newest.iter().map(|count| (*count as f64 - all).powi(2)).sum::<f64>() / newest.len() as f64;
    let (older, newer) = newest.split_at(WINDOWS_COUNT / 2);
    variance.sqrt() / all <= SPREAD_MAX && (mean(newer) - mean(older)).abs() / all <= DRIFT_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_that_still_climbs_is_not_steady() {
        assert!(!is_steady(&[100, 120, 140, 160, 180, 200]));
        assert!(!is_steady(&[100, 100, 100]), "too few windows");
        assert!(!is_steady(&[0; 10]), "nothing is answered");
    }

    #[test]
    fn noise_without_drift_is_steady() {
        assert!(is_steady(&[10, 900, 1000, 1030, 990, 1010, 985, 1005]));
        assert!(!is_steady(&[500, 1500, 500, 1500, 500, 1500]), "too rough");
    }
}
