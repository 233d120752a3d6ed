//! Where all chance of a run comes from: one number, forked by label so that a draw in one place
//! does not move the draws of another. Never asks the operating system.

use flotilla_core::group;

/// A stream of numbers that is fully determined by how it was made (SplitMix64).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chance {
    state: u64,
}

impl Chance {
    /// The stream of a seed.
    pub fn new(seed: u64) -> Self {
        let mut chance = Self { state: seed };
        chance.state = chance.draw();
        chance
    }

    /// A stream of its own, named by `label`; this one moves on by one draw.
    pub fn fork(&mut self, label: u64) -> Self {
        let start = self.draw();
        Self::new(start ^ label.wrapping_mul(0xd6e8_feb8_6659_fd93))
    }

    /// Any number.
    pub fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number in `0..bound`; `bound` is not zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "there is nothing to draw from");
        // The high half of a product: even enough, and without a division.
        u64::try_from((u128::from(self.draw()) * u128::from(bound)) >> 64)
            .expect("the high half of a product of two words is a word")
    }

    /// A number in `from..=to`.
    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to - from + 1)
    }

    /// True `millionths` times in a million.
    pub fn happens(&mut self, millionths: u64) -> bool {
        self.below(1_000_000) < millionths
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One of a list that is not empty.
    pub fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        let at = self.below(list.len() as u64);
        &list[usize::try_from(at).expect("an index of a list fits")]
    }

    /// A waiting time with this mean, exponentially distributed and at most twelve means long. In
    /// whole numbers, so that it is the same on every machine.
    pub fn wait(&mut self, mean: u64) -> u64 {
        // The position of the first one bit is geometric with mean two; the bits after it fill the
        // gap between two powers evenly.
        let bits = self.draw();
        let zeros = u64::from(bits.trailing_zeros()).min(16);
        let part = self.below(1_000);
        // -ln(2^-zeros * (1 - part/2000)), with the logarithm's chord in between.
        let thousandths = 693 * zeros + part * 693 / 1_000;
        (mean.saturating_mul(thousandths) / 1_000).min(mean.saturating_mul(12))
    }
}

impl group::Chance for Chance {
    fn below(&mut self, bound: u64) -> u64 {
        Self::below(self, bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_have_their_mean_and_draws_stay_below_their_bound() {
        let mut chance = Chance::new(7);
        let total: u64 = (0..20_000).map(|_| chance.wait(1_000)).sum();
        assert!((900..1_150).contains(&(total / 20_000)), "mean {}", total / 20_000);
        assert!((0..10_000).all(|_| chance.below(3) < 3));
        let hits = (0..100_000).filter(|_| chance.happens(100_000)).count();
        assert!((9_000..11_000).contains(&hits), "{hits}");
    }

    #[test]
    fn forks_differ_by_label_and_repeat_by_seed() {
        let draws = |seed: u64, label: u64| {
            let mut fork = Chance::new(seed).fork(label);
            (fork.draw(), fork.draw())
        };
        assert_eq!(draws(1, 2), draws(1, 2));
        assert_ne!(draws(1, 2), draws(1, 3));
        assert_ne!(draws(1, 2), draws(2, 2));
    }
}
