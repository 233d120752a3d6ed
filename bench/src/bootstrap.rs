//! Confidence intervals of a ratio of medians, by resampling repetitions.

use serde::Serialize;

use crate::random::Random;

/// Resamples drawn.
const RESAMPLES_COUNT: usize = 4000;
/// Share of the resamples inside the interval.
const CONFIDENCE: f64 = 0.95;

/// A ratio and where it lies with 95 % confidence.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ratio {
    /// Ratio of the medians.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// Median of `target` over median of `baseline`, each a value per repetition. Repetitions are
/// drawn in pairs, since neighbours in time share the machine's mood. Nothing if there is no
/// repetition or a median of the baseline is zero.
#[must_use]
pub fn ratio(target: &[f64], baseline: &[f64], random: &mut Random) -> Option<Ratio> {
    let pairs = target.len().min(baseline.len());
    if pairs == 0 || median(baseline) == 0.0 {
        return None;
    }
    let mut ratios = Vec::with_capacity(RESAMPLES_COUNT);
    for _ in 0..RESAMPLES_COUNT {
        let chosen: Vec<usize> = (0..pairs).map(|_| random.below(pairs as u64) as usize).collect();
        let pick = |values: &[f64]| median(&chosen.iter().map(|n| values[*n]).collect::<Vec<_>>());
        let below = pick(baseline);
        if below != 0.0 {
            ratios.push(pick(target) / below);
        }
    }
    let (low, high) = interval(&mut ratios)?;
    Some(Ratio { value: median(target) / median(baseline), low, high })
}

/// Median of the values themselves, with its interval. Nothing if there are no values.
#[must_use]
pub fn level(values: &[f64], random: &mut Random) -> Option<Ratio> {
    ratio(values, &vec![1.0; values.len()], random)
}

fn interval(resampled: &mut [f64]) -> Option<(f64, f64)> {
    resampled.sort_by(f64::total_cmp);
    let tail = ((1.0 - CONFIDENCE) / 2.0 * resampled.len() as f64) as usize;
    Some((*resampled.get(tail)?, *resampled.get(resampled.len() - 1 - tail)?))
}

/// The middle value, or the mean of the middle two; zero of none.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_holds_the_ratio_and_grows_with_noise() {
        let mut random = Random::new(9, 0);
        let baseline = [100.0, 101.0, 99.0, 100.5, 99.5];
        let calm = ratio(&[200.0, 202.0, 199.0, 201.0, 198.0], &baseline, &mut random).unwrap();
        let rough = ratio(&[200.0, 302.0, 120.0, 260.0, 150.0], &baseline, &mut random).unwrap();
        assert!(
            (calm.value - 2.0).abs() < 0.01 && calm.low <= calm.value && calm.value <= calm.high
        );
        assert!(calm.high - calm.low < 0.1, "{calm:?}");
        assert!(rough.high - rough.low > 0.5, "{rough:?}");
    }

    #[test]
    fn one_repetition_has_no_width_and_zero_has_no_ratio() {
        let mut random = Random::new(9, 0);
        let one = ratio(&[3.0], &[2.0], &mut random).unwrap();
        assert_eq!((one.low, one.value, one.high), (1.5, 1.5, 1.5));
        assert_eq!(ratio(&[3.0], &[0.0], &mut random), None);
        assert_eq!(ratio(&[], &[], &mut random), None);
    }

    #[test]
    fn medians_of_odd_and_even_counts() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
    }
}
