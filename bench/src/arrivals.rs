//! When requests of an open loop are due: a profile of the rate, and regular or Poisson gaps.

use std::time::Duration;

use crate::random::Random;

/// How requests are spaced at a given rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spacing {
    /// Equal gaps.
    Constant,
    /// Independent arrivals: gaps are exponential.
    Poisson,
}

/// A piece of a profile, over which the rate changes evenly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Segment {
    /// How long it lasts.
    pub length: Duration,
    /// Requests a second at its beginning.
    pub from_rate: f64,
    /// Requests a second at its end.
    pub to_rate: f64,
}

impl Segment {
    /// Requests due within the first `secs` of it.
    fn requests_until(&self, secs: f64) -> f64 {
        let slope = (self.to_rate - self.from_rate) / self.length.as_secs_f64();
        self.from_rate * secs + slope * secs * secs / 2.0
    }

    /// When `requests` are due, in seconds from its beginning.
    fn secs_at(&self, requests: f64) -> f64 {
        let slope = (self.to_rate - self.from_rate) / self.length.as_secs_f64();
        let root = (self.from_rate * self.from_rate + 2.0 * slope * requests).max(0.0).sqrt();
        // This form of the quadratic's solution also holds for a slope of zero.
        2.0 * requests / (self.from_rate + root)
    }
}

/// A rate that changes over time.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// Its pieces, in order.
    pub segments: Vec<Segment>,
}

impl Profile {
    /// The same rate throughout.
    #[must_use]
    pub fn constant(rate: f64, length: Duration) -> Self {
        Self { segments: vec![Segment { length, from_rate: rate, to_rate: rate }] }
    }

    /// From one rate to another, evenly.
    #[must_use]
    pub fn ramp(from_rate: f64, to_rate: f64, length: Duration) -> Self {
        Self { segments: vec![Segment { length, from_rate, to_rate }] }
    }

    /// `count` equal steps from one rate to another.
    #[must_use]
    pub fn steps(from_rate: f64, to_rate: f64, count: u32, length: Duration) -> Self {
        let rate =
            |n: u32| from_rate + (to_rate - from_rate) * f64::from(n) / f64::from(count.max(2) - 1);
        let piece = length / count.max(1);
        let segment = |n| Segment { length: piece, from_rate: rate(n), to_rate: rate(n) };
        Self { segments: (0..count.max(1)).map(segment).collect() }
    }

    /// A base rate, with another rate in the middle third.
    #[must_use]
    pub fn spike(base_rate: f64, peak_rate: f64, length: Duration) -> Self {
        let part = |rate| Segment { length: length / 3, from_rate: rate, to_rate: rate };
        Self { segments: vec![part(base_rate), part(peak_rate), part(base_rate)] }
    }

    /// How long all of it lasts.
    #[must_use]
    pub fn length(&self) -> Duration {
        self.segments.iter().map(|segment| segment.length).sum()
    }
}

/// The due times of a profile, one after the other.
#[derive(Clone, Debug)]
pub struct Arrivals {
    profile: Profile,
    spacing: Spacing,
    random: Random,
    segment: usize,
    segment_began: f64,
    /// Requests of this segment already due, with the fraction of the next.
    requests: f64,
}

impl Arrivals {
    /// The schedule of `profile`.
    #[must_use]
    pub fn new(profile: Profile, spacing: Spacing, random: Random) -> Self {
        Self { profile, spacing, random, segment: 0, segment_began: 0.0, requests: 0.0 }
    }
}

impl Iterator for Arrivals {
    type Item = Duration;

    /// The next due time from the beginning, or nothing after the profile's end.
    fn next(&mut self) -> Option<Duration> {
        let gap = match self.spacing {
            Spacing::Constant => 1.0,
            Spacing::Poisson => self.random.exponential(),
        };
        self.requests += gap;
        loop {
            let segment = self.profile.segments.get(self.segment)?;
            let length = segment.length.as_secs_f64();
            let capacity = segment.requests_until(length);
            if self.requests <= capacity {
                let secs = self.segment_began + segment.secs_at(self.requests).min(length);
                return Some(Duration::from_secs_f64(secs));
            }
            self.requests -= capacity;
            self.segment_began += length;
            self.segment += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(profile: Profile, spacing: Spacing) -> Vec<f64> {
        Arrivals::new(profile, spacing, Random::new(5, 0)).map(|due| due.as_secs_f64()).collect()
    }

    #[test]
    fn constant_arrivals_are_equally_spaced() {
        let due = due(Profile::constant(100.0, Duration::from_secs(2)), Spacing::Constant);
        assert_eq!(due.len(), 200);
        assert!(due.windows(2).all(|pair| (pair[1] - pair[0] - 0.01).abs() < 1e-6));
    }

    #[test]
    fn a_ramp_has_the_mean_rate_and_shrinking_gaps() {
        let due = due(Profile::ramp(0.0, 200.0, Duration::from_secs(2)), Spacing::Constant);
        assert_eq!(due.len(), 200);
        let half = due.iter().filter(|secs| **secs < 1.0).count();
        assert!((49..=51).contains(&half), "a quarter of the requests in half the time: {half}");
    }

    #[test]
    fn a_spike_triples_its_third() {
        let due = due(Profile::spike(100.0, 300.0, Duration::from_secs(3)), Spacing::Constant);
        let middle = due.iter().filter(|secs| (1.0..2.0).contains(*secs)).count();
        assert!((299..=301).contains(&middle), "{middle}");
    }

    #[test]
    fn steps_reach_both_ends() {
        let profile = Profile::steps(100.0, 500.0, 5, Duration::from_secs(5));
        let rates: Vec<f64> = profile.segments.iter().map(|segment| segment.from_rate).collect();
        assert_eq!(rates, [100.0, 200.0, 300.0, 400.0, 500.0]);
    }

    #[test]
    fn poisson_gaps_vary_as_much_as_their_mean() {
        let due = due(Profile::constant(1000.0, Duration::from_secs(50)), Spacing::Poisson);
        let gaps: Vec<f64> = due.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((mean - 0.001).abs() < 5e-5, "{mean}");
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.05, "{}", variance.sqrt() / mean);
    }
}
