//! A sample of the keys that a range is asked for, and the key that parts what is asked in two.

use bytes::Bytes;

use crate::group::Chance;
use crate::time::Length;

/// Keys in a sample.
pub const KEYS_MAX: usize = 128;
/// About as far back a sample reaches.
pub const REMEMBERED_OVER: Length = Length::from_secs(10);
/// Keys a sample needs before it says anything.
const KEYS_MIN: usize = 32;
/// The smaller side of a split must have at least one in so many of the keys, or it would help
/// nobody.
const SMALLER_SIDE_ONE_IN: usize = 10;

/// Keys that were asked for lately. Each new one takes the place of any other, so old ones fade.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    keys: Vec<Bytes>,
}

impl Sample {
    /// A key was asked for, at a time when about so many are in a second. It is taken by chance, so
    /// that the sample reaches as far back at any rate.
    pub fn offer(&mut self, key: &Bytes, per_second: u64, chance: &mut dyn Chance) {
        let offered = per_second.saturating_mul(REMEMBERED_OVER.as_secs());
        let one_in = (offered / KEYS_MAX as u64).max(1);
        if chance.below(one_in) > 0 {
            return;
        }
        if self.keys.len() < KEYS_MAX {
            self.keys.push(key.clone());
        } else if let Ok(place) = usize::try_from(chance.below(KEYS_MAX as u64)) {
            self.keys[place] = key.clone();
        }
    }

    /// Only keys that still belong to the range count.
    pub fn retain(&mut self, is_owned: impl Fn(&[u8]) -> bool) {
        self.keys.retain(|key| is_owned(key));
    }

    /// The key that parts what is asked most evenly: about as much goes before it as from it on.
    /// `None` when there is too little to go by, or when nothing parts it, as with one busy key.
    pub fn split_key(&self) -> Option<Bytes> {
        if self.keys.len() < KEYS_MIN {
            return None;
        }
        let mut sorted: Vec<&Bytes> = self.keys.iter().collect();
        sorted.sort_unstable();
        let smaller = |at: usize| at.min(sorted.len() - at);
        let firsts = (1..sorted.len()).filter(|at| sorted[*at] != sorted[at - 1]);
        let best = firsts.max_by_key(|at| (smaller(*at), std::cmp::Reverse(*at)))?;
        let is_worth_it = smaller(best) * SMALLER_SIDE_ONE_IN >= sorted.len();
        is_worth_it.then(|| sorted[best].clone())
    }
}

/// So many of any number of keys, each with the same chance to be among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reservoir {
    keys: Vec<Bytes>,
    offered: u64,
}

impl Reservoir {
    /// A key, one of a stream.
    pub fn offer(&mut self, key: &[u8], keys_max: usize, chance: &mut dyn Chance) {
        self.offered += 1;
        if self.keys.len() < keys_max {
            self.keys.push(Bytes::copy_from_slice(key));
        } else {
            let place = usize::try_from(chance.below(self.offered)).unwrap_or(usize::MAX);
            if let Some(kept) = self.keys.get_mut(place) {
                *kept = Bytes::copy_from_slice(key);
            }
        }
    }

    /// What was kept, and how many keys it stands for.
    pub fn take(&mut self) -> (Vec<Bytes>, u64) {
        (std::mem::take(&mut self.keys), std::mem::take(&mut self.offered))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Numbers that look drawn and are the same in every run.
    pub(crate) struct Lcg(pub(crate) u64);

    impl Chance for Lcg {
        fn below(&mut self, bound: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (self.0 >> 33) % bound
        }
    }

    fn key(n: u64) -> Bytes {
        format!("k{n:04}").into()
    }

    fn number(key: &Bytes) -> u64 {
        String::from_utf8_lossy(&key[1..]).parse().expect("a number")
    }

    #[test]
    fn even_load_is_parted_in_the_middle() {
        let (mut sample, mut chance) = (Sample::default(), Lcg(1));
        for n in 0..10_000 {
            sample.offer(&key(n * 7 % 1_000), 1_000, &mut chance);
        }
        let middle = number(&sample.split_key().expect("it can be parted"));
        assert!((400..600).contains(&middle), "{middle}");
        assert!(sample.keys.len() <= KEYS_MAX);
    }

    #[test]
    fn load_on_a_few_keys_is_parted_between_them_and_one_busy_key_cannot_be() {
        let (mut sample, mut chance) = (Sample::default(), Lcg(2));
        for n in 0..1_000 {
            sample.offer(&key(500 + n % 2), 100, &mut chance);
        }
        assert_eq!(sample.split_key(), Some(key(501)));
        let mut busy = Sample::default();
        for n in 0..10_000 {
            let n = if n % 50 == 0 { n % 1_000 } else { 300 };
            busy.offer(&key(n), 1_000, &mut chance);
        }
        assert_eq!(busy.split_key(), None);
        assert_eq!(Sample::default().split_key(), None);
    }

    #[test]
    fn what_is_asked_no_more_is_forgotten_and_what_is_not_owned_left_out() {
        let (mut sample, mut chance) = (Sample::default(), Lcg(3));
        for n in 0..5_000 {
            sample.offer(&key(n % 100), 500, &mut chance);
        }
        for n in 0..50_000 {
            sample.offer(&key(800 + n % 100), 500, &mut chance);
        }
        let middle = number(&sample.split_key().expect("it can be parted"));
        assert!((820..880).contains(&middle), "{middle}");
        sample.retain(|key| key < &b"k0800"[..]);
        assert_eq!(sample.split_key(), None);
    }

    #[test]
    fn a_reservoir_is_bounded_and_fair() {
        let (mut reservoir, mut chance) = (Reservoir::default(), Lcg(4));
        for n in 0..10_000 {
            reservoir.offer(&key(n), 200, &mut chance);
        }
        let (keys, offered) = reservoir.take();
        assert_eq!((keys.len(), offered), (200, 10_000));
        let late = keys.iter().filter(|key| number(key) >= 5_000).count();
        assert!((70..130).contains(&late), "{late} of 200 are of the second half");
        assert_eq!(reservoir.take(), (Vec::new(), 0));
    }
}
