//! A rate that is smoothed over time: a mean in which the past fades exponentially.

use crate::time::{Length, Time};

/// What is this long ago has a third of the weight of what is now. Together, about a minute counts.
pub const SMOOTHED_OVER: Length = Length::from_secs(30);

/// What was counted is taken into the mean when it has come together over this, so that a burst of
/// questions is not answered from a burst of work.
const TAKEN_AFTER: Length = Length::from_ms(500);

/// Events in a second. A young rate is the plain mean of its life, so it is right from the start
/// but jumps about.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rate {
    /// Weighted sum of rates, and of their weights.
    sum: f64,
    weight: f64,
    /// Not in the sum yet.
    counted: u64,
    since: Time,
    born: Time,
}

impl Rate {
    /// Nothing has happened by now.
    pub fn new(now: Time) -> Self {
        Self { since: now, born: now, ..Self::default() }
    }

    /// It was begun so lately that nothing in it has faded.
    pub fn is_young(&self, now: Time) -> bool {
        now.since(self.born) < SMOOTHED_OVER
    }

    /// So many events.
    pub fn add(&mut self, count: u64) {
        self.counted = self.counted.saturating_add(count);
    }

    /// Events in a second, as they are smoothed by now.
    pub fn per_second(&mut self, now: Time) -> u64 {
        let elapsed = now.since(self.since);
        if elapsed >= TAKEN_AFTER {
            let fading = (-(elapsed.0 as f64) / SMOOTHED_OVER.0 as f64).exp();
            let rate = self.counted as f64 * Length::from_secs(1).0 as f64 / elapsed.0 as f64;
            self.sum = self.sum * fading + rate * (1.0 - fading);
            self.weight = self.weight * fading + (1.0 - fading);
            (self.counted, self.since) = (0, now);
        }
        if self.weight == 0.0 { 0 } else { (self.sum / self.weight).round() as u64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(n: u64) -> Time {
        Time(0) + Length::from_secs(n)
    }

    #[test]
    fn a_steady_rate_is_told_from_the_first_second_on() {
        let mut rate = Rate::new(second(0));
        assert_eq!(rate.per_second(second(0)), 0);
        for n in 1..=120 {
            rate.add(250);
            assert_eq!(rate.per_second(second(n)), 250, "after {n} s");
        }
    }

    #[test]
    fn a_burst_of_a_second_is_not_a_rate_and_what_ended_fades_in_minutes() {
        let mut rate = Rate::new(second(0));
        for n in 1..=120 {
            rate.per_second(second(n));
        }
        rate.add(30_000);
        let burst = rate.per_second(second(121));
        assert!((900..1_100).contains(&burst), "{burst}");

        let mut rate = Rate::new(second(0));
        for n in 1..=120 {
            rate.add(1_000);
            rate.per_second(second(n));
        }
        let after = |rate: &mut Rate, n: u64| rate.per_second(second(120 + n));
        let (half_minute, two_minutes) = (after(&mut rate, 30), after(&mut rate, 120));
        assert!((300..500).contains(&half_minute) && two_minutes < 30, "{half_minute}");
    }

    #[test]
    fn questions_do_not_change_the_answer() {
        let (mut often, mut seldom) = (Rate::new(Time(0)), Rate::new(Time(0)));
        for ms in 1..=20_000 {
            often.add(1);
            seldom.add(1);
            if ms % 10 == 0 {
                often.per_second(Time(0) + Length::from_ms(ms));
            }
        }
        assert_eq!(often.per_second(second(20)), 1_000);
        assert_eq!(seldom.per_second(second(20)), 1_000);
    }
}
