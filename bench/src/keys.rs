//! Which keys are touched and how long values are.

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;

use crate::random::Random;
use crate::zipf::Zipf;

/// Exponent of YCSB's zipfian distribution.
const ZIPF_EXPONENT: f64 = 0.99;
/// Largest value etcd takes by default, with room for the request around it.
const VALUE_BYTES_MAX: usize = 16 << 20;

/// How keys are chosen among a keyspace.
#[derive(Clone, Debug)]
pub enum Choice {
    /// All alike.
    Uniform,
    /// A few very often; which ones is scattered over the keyspace.
    Zipf(Zipf),
    /// One after the other.
    Sequential,
    /// A share of the requests to a share of the keys, both in percent.
    Hot {
        /// Percent of the keys.
        keys: u64,
        /// Percent of the requests.
        requests: u64,
    },
}

impl Choice {
    /// Reads `uniform`, `zipf`, `zipf:EXPONENT`, `sequential` or `hot:KEYS%:REQUESTS%`.
    ///
    /// # Errors
    /// Anything else.
    pub fn parse(text: &str, count: u64) -> anyhow::Result<Self> {
        let parts: Vec<&str> = text.split(':').collect();
        let percent = |text: &str| -> anyhow::Result<u64> {
            let percent = text.trim_end_matches('%').parse()?;
            ensure!(percent <= 100, "{text} is more than 100 %");
            Ok(percent)
        };
        Ok(match parts[..] {
            ["uniform"] => Self::Uniform,
            ["zipf"] => Self::Zipf(Zipf::new(count, ZIPF_EXPONENT)),
            ["zipf", exponent] => {
                let exponent: f64 = exponent.parse().context("zipf exponent")?;
                ensure!(exponent > 0.0, "a zipf exponent is positive");
                Self::Zipf(Zipf::new(count, exponent))
            }
            ["sequential"] => Self::Sequential,
            ["hot", keys, requests] => {
                Self::Hot { keys: percent(keys)?, requests: percent(requests)? }
            }
            _ => bail!(
                "unknown key distribution {text:?}: uniform, zipf[:EXPONENT], sequential, hot:KEYS:REQUESTS"
            ),
        })
    }
}

/// Numbered keys below a prefix.
#[derive(Clone, Debug)]
pub struct Keyspace {
    /// What all keys begin with.
    pub prefix: String,
    /// How many keys.
    pub count: u64,
    /// Length of a key; shorter than prefix and number means as long as needed.
    pub key_bytes: usize,
    /// How keys are chosen.
    pub choice: Choice,
}

impl Keyspace {
    /// `count` keys below `prefix`, chosen uniformly.
    #[must_use]
    pub fn uniform(prefix: &str, count: u64) -> Self {
        Self { prefix: prefix.into(), count, key_bytes: 0, choice: Choice::Uniform }
    }

    /// The key of this number.
    #[must_use]
    pub fn key(&self, number: u64) -> Bytes {
        let digits = self.key_bytes.saturating_sub(self.prefix.len()).max(10);
        let mut key = Vec::with_capacity(self.prefix.len() + digits);
        key.extend_from_slice(self.prefix.as_bytes());
        let first = key.len();
        key.resize(first + digits, b'0');
        let mut rest = number;
        for digit in key[first..].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        Bytes::from(key)
    }

    /// Draws the number of a key; `turn` counts the draws of this slot.
    pub fn draw(&self, turn: u64, random: &mut Random) -> u64 {
        match &self.choice {
            Choice::Uniform => random.below(self.count),
            Choice::Zipf(zipf) => scatter(zipf.draw(random)) % self.count.max(1),
            Choice::Sequential => turn % self.count.max(1),
            Choice::Hot { keys, requests } => {
                let hot = (self.count * keys / 100).max(1);
                if random.below(100) < *requests {
                    random.below(hot)
                } else {
                    hot + random.below(self.count.saturating_sub(hot))
                }
            }
        }
        .min(self.count.saturating_sub(1))
    }
}

/// A fixed permutation-like hash, so that frequent keys are not neighbours.
#[must_use]
pub fn scatter(number: u64) -> u64 {
    let mixed = (number ^ (number >> 31)).wrapping_mul(0x7fb5_d329_728e_a185);
    (mixed ^ (mixed >> 27)).wrapping_mul(0x81da_def4_bc2d_d44d) >> 1
}

/// How long values are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ValueLength {
    /// All alike.
    Fixed(usize),
    /// Uniform between two lengths, both inclusive.
    Uniform(usize, usize),
    /// Exponential with this mean, cut at sixteen times the mean.
    Exponential(usize),
}

impl ValueLength {
    /// Reads `256`, `100-1000` or `exp:1024`, in bytes.
    ///
    /// # Errors
    /// Anything else, or more than the limit.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let bytes = |text: &str| -> anyhow::Result<usize> {
            let bytes =
                text.parse().with_context(|| format!("{text:?} is not a number of bytes"))?;
            ensure!(bytes <= VALUE_BYTES_MAX, "values are at most {VALUE_BYTES_MAX} bytes");
            Ok(bytes)
        };
        if let Some(mean) = text.strip_prefix("exp:") {
            return Ok(Self::Exponential(bytes(mean)?));
        }
        match text.split_once('-') {
            Some((least, most)) => {
                let (least, most) = (bytes(least)?, bytes(most)?);
                ensure!(least <= most, "{text}: the first length is the smaller one");
                Ok(Self::Uniform(least, most))
            }
            None => Ok(Self::Fixed(bytes(text)?)),
        }
    }

    /// Draws a length in bytes.
    pub fn draw(self, random: &mut Random) -> usize {
        match self {
            Self::Fixed(bytes) => bytes,
            Self::Uniform(least, most) => least + random.below((most - least + 1) as u64) as usize,
            Self::Exponential(mean) => {
                ((random.exponential() * mean as f64) as usize).min(16 * mean)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_their_length_and_sort_by_number() {
        let mut keyspace = Keyspace::uniform("/k/", 100);
        assert_eq!(keyspace.key(42), "/k/0000000042");
        keyspace.key_bytes = 20;
        assert_eq!(keyspace.key(42).len(), 20);
        assert!(keyspace.key(9) < keyspace.key(10));
    }

    #[test]
    fn draws_stay_inside_and_hot_keys_are_hot() {
        let mut random = Random::new(1, 0);
        for text in ["uniform", "zipf", "zipf:1.2", "sequential", "hot:10:90"] {
            let choice = Choice::parse(text, 50).unwrap();
            let keyspace = Keyspace { choice, ..Keyspace::uniform("", 50) };
            let draws: Vec<u64> = (0..2000).map(|turn| keyspace.draw(turn, &mut random)).collect();
            assert!(draws.iter().all(|number| *number < 50), "{text}");
            if text.starts_with("hot") {
                let hot = draws.iter().filter(|number| **number < 5).count();
                assert!((1700..1900).contains(&hot), "{hot}");
            }
        }
        assert!(Choice::parse("pareto", 50).is_err() && Choice::parse("hot:10:900", 50).is_err());
    }

    #[test]
    fn lengths_parse_and_draw() {
        let mut random = Random::new(1, 0);
        assert_eq!(ValueLength::parse("256").unwrap().draw(&mut random), 256);
        let uniform = ValueLength::parse("100-200").unwrap();
        assert!((0..1000).all(|_| (100..=200).contains(&uniform.draw(&mut random))));
        assert!(ValueLength::parse("exp:1000").unwrap().draw(&mut random) <= 16_000);
        assert!(ValueLength::parse("200-100").is_err() && ValueLength::parse("1GiB").is_err());
    }
}
