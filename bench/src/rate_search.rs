//! The highest rate that keeps a latency limit: doubling until it breaks, then halving the gap.

/// Steps after which the search ends in any case.
const STEPS_MAX: usize = 24;

/// The search's state; `next` names a rate, `observe` says whether it held.
#[derive(Clone, Debug)]
pub struct RateSearch {
    start: f64,
    /// The gap between a rate that holds and one that does not, relative to the latter.
    tolerance: f64,
    holds: Option<f64>,
    breaks: Option<f64>,
    steps: usize,
}

impl RateSearch {
    /// Begins at `start` requests a second; ends when the answer is known to `tolerance`.
    #[must_use]
    pub fn new(start: f64, tolerance: f64) -> Self {
        Self { start, tolerance, holds: None, breaks: None, steps: 0 }
    }

    /// The next rate to try, or nothing when the search is over.
    #[must_use]
    pub fn next(&self) -> Option<f64> {
        if self.steps >= STEPS_MAX {
            return None;
        }
        match (self.holds, self.breaks) {
            (None, None) => Some(self.start),
            (Some(holds), None) => Some(holds * 2.0),
            // Below one request a second there is nothing to find.
            (None, Some(breaks)) => (breaks > 1.0).then_some(breaks / 2.0),
            (Some(holds), Some(breaks)) => {
                ((breaks - holds) / breaks > self.tolerance).then_some(f64::midpoint(holds, breaks))
            }
        }
    }

    /// Tells whether `rate` kept the limit.
    pub fn observe(&mut self, rate: f64, is_kept: bool) {
        self.steps += 1;
        if is_kept {
            self.holds = Some(self.holds.map_or(rate, |holds| holds.max(rate)));
        } else {
            self.breaks = Some(self.breaks.map_or(rate, |breaks| breaks.min(rate)));
        }
    }

    /// The highest rate that held, if any did.
    #[must_use]
    pub fn best(&self) -> Option<f64> {
        self.holds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(capacity: f64, start: f64) -> Option<f64> {
        let mut search = RateSearch::new(start, 0.02);
        while let Some(rate) = search.next() {
            search.observe(rate, rate <= capacity);
        }
        search.best()
    }

    #[test]
    fn it_finds_the_capacity_from_below_and_above() {
        for start in [100.0, 50_000.0] {
            let best = find(12_345.0, start).unwrap();
            assert!(best <= 12_345.0 && best > 12_345.0 * 0.97, "{best}");
        }
    }

    #[test]
    fn nothing_holds_and_everything_holds() {
        assert_eq!(find(0.0, 1000.0), None);
        assert!(find(f64::INFINITY, 1.0).unwrap() > 1e6, "it ends");
    }
}
