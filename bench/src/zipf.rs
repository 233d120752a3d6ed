//! Zipfian numbers by rejection-inversion (Hörmann and Derflinger 1996): no table, any size.

use crate::random::Random;

/// Draws n in 0..count with probability proportional to 1 / (n + 1)^exponent.
#[derive(Clone, Debug)]
pub struct Zipf {
    count: f64,
    exponent: f64,
    integral_first: f64,
    integral_last: f64,
    shortcut: f64,
}

impl Zipf {
    /// `count` is at least one; YCSB's exponent is 0.99.
    #[must_use]
    pub fn new(count: u64, exponent: f64) -> Self {
        let count = count.max(1) as f64;
        let integral_first = integral(1.5, exponent) - 1.0;
        let integral_last = integral(count + 0.5, exponent);
        let shortcut =
            2.0 - integral_inverse(integral(2.5, exponent) - density(2.0, exponent), exponent);
        Self { count, exponent, integral_first, integral_last, shortcut }
    }

    /// One number; small ones are frequent.
    pub fn draw(&self, random: &mut Random) -> u64 {
        loop {
            let u = self.integral_last + random.unit() * (self.integral_first - self.integral_last);
            let x = integral_inverse(u, self.exponent);
            let k = x.round().clamp(1.0, self.count);
            let is_accepted = k - x <= self.shortcut
                || u >= integral(k + 0.5, self.exponent) - density(k, self.exponent);
            if is_accepted {
                return k as u64 - 1;
            }
        }
    }
}

fn density(x: f64, exponent: f64) -> f64 {
    (-exponent * x.ln()).exp()
}

/// The integral of the density from 1 to x.
fn integral(x: f64, exponent: f64) -> f64 {
    let log = x.ln();
    let t = (1.0 - exponent) * log;
    if t.abs() > 1e-8 { t.exp_m1() / t * log } else { log }
}

fn integral_inverse(y: f64, exponent: f64) -> f64 {
    let t = (y * (1.0 - exponent)).max(-1.0);
    if t.abs() > 1e-8 { (t.ln_1p() / t * y).exp() } else { y.exp() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequencies_follow_the_law() {
        let zipf = Zipf::new(1000, 0.99);
        let mut random = Random::new(1, 0);
        let mut counts = vec![0u32; 1000];
        let draws = 400_000;
        for _ in 0..draws {
            counts[zipf.draw(&mut random) as usize] += 1;
        }
        let weights: f64 = (1..=1000).map(|n| f64::from(n).powf(-0.99)).sum();
        for n in [0usize, 1, 9, 99] {
            let expected = f64::from(draws) * ((n + 1) as f64).powf(-0.99) / weights;
            let seen = f64::from(counts[n]);
            assert!((seen - expected).abs() < 5.0 * expected.sqrt(), "{n}: {seen} {expected}");
        }
    }

    #[test]
    fn one_item_is_always_drawn() {
        assert_eq!(Zipf::new(1, 0.99).draw(&mut Random::new(3, 0)), 0);
    }
}
