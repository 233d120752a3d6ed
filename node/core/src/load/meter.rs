//! What is written to one range, as its leader applies it, and what is read of it on that node.

use bytes::Bytes;

use crate::group::Chance;
use crate::load::{Rate, Sample};
use crate::spine::apply::Step;
use crate::time::Time;

/// Counts for one range on the node that leads it.
#[derive(Clone, Debug)]
pub struct Meter {
    writes: Rate,
    write_bytes: Rate,
    reads: Rate,
    /// As of the last look: what a sample goes by.
    asked_per_second: u64,
    sample: Sample,
    total_writes: u64,
    total_bytes: u64,
}

impl Meter {
    /// Nothing was asked by now.
    pub fn new(now: Time) -> Self {
        Self {
            writes: Rate::new(now),
            write_bytes: Rate::new(now),
            reads: Rate::new(now),
            asked_per_second: 0,
            sample: Sample::default(),
            total_writes: 0,
            total_bytes: 0,
        }
    }

    /// Applied writes. A delete of many keys counts as one, with the first of them.
    pub fn count(&mut self, steps: &[Step], chance: &mut dyn Chance) {
        for effect in steps.iter().flat_map(|step| &step.effects) {
            let bytes = (effect.key.len() + effect.value.len()) as u64;
            self.writes.add(1);
            self.write_bytes.add(bytes);
            self.total_writes += 1;
            self.total_bytes += bytes;
            if !effect.key.is_empty() {
                self.sample.offer(&effect.key, self.asked_per_second, chance);
            }
        }
    }

    /// Reads of a client of this node, of which these keys are a sample.
    pub fn count_reads(&mut self, reads: u64, keys: &[Bytes], chance: &mut dyn Chance) {
        self.reads.add(reads);
        // Each key of the sample stands for several reads, so it is offered at the rate of the keys.
        let share = reads.max(1) / (keys.len() as u64).max(1);
        for key in keys {
            self.sample.offer(key, self.asked_per_second / share.max(1), chance);
        }
    }

    /// Writes in a second, and bytes of keys and values in them, smoothed.
    pub fn rates(&mut self, now: Time) -> (u64, u64) {
        let writes = self.writes.per_second(now);
        self.asked_per_second = writes.saturating_add(self.reads.per_second(now));
        (writes, self.write_bytes.per_second(now))
    }

    /// Writes so far, and bytes of keys and values in them.
    pub fn totals(&self) -> (u64, u64) {
        (self.total_writes, self.total_bytes)
    }

    /// The key that parts the load in two, of those that belong to the range.
    pub fn split_key(&mut self, is_owned: impl Fn(&[u8]) -> bool) -> Option<Bytes> {
        self.sample.retain(is_owned);
        self.sample.split_key()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::sample::tests::Lcg;
    use crate::proto::internal::Effect;
    use crate::time::Length;

    fn step(key: String, value: &'static str) -> Step {
        let effect = Effect { key: key.into(), value: value.into(), ..Effect::default() };
        Step { effects: vec![effect], ..Step::default() }
    }

    #[test]
    fn writes_bytes_and_the_busiest_point_are_told() {
        let mut chance = Lcg(7);
        let mut meter = Meter::new(Time(0));
        let mut rates = (0, 0);
        for second in 1..=60 {
            let steps: Vec<Step> =
                (0..100).map(|n| step(format!("k{:02}", n % 20), "1234567")).collect();
            meter.count(&steps, &mut chance);
            rates = meter.rates(Time(0) + Length::from_secs(second));
        }
        assert_eq!(rates, (100, 1_000));
        assert_eq!(meter.totals(), (6_000, 60_000));
        let middle = meter.split_key(|_| true).expect("twenty keys can be parted");
        assert!((&b"k06"[..]..&b"k15"[..]).contains(&&middle[..]), "{middle:?}");
        // The range was cut: what is left is parted anew.
        let middle = meter.split_key(|key| key < &b"k10"[..]).expect("ten keys can, too");
        assert!((&b"k02"[..]..&b"k08"[..]).contains(&&middle[..]), "{middle:?}");
    }

    #[test]
    fn reads_move_the_busiest_point() {
        let mut chance = Lcg(8);
        let mut meter = Meter::new(Time(0));
        for second in 1..=60 {
            meter.count(&[step("a".to_owned(), "")], &mut chance);
            let keys: Vec<Bytes> = (0..100).map(|n| format!("r{n:02}").into()).collect();
            meter.count_reads(5_000, &keys, &mut chance);
            meter.rates(Time(0) + Length::from_secs(second));
        }
        let middle = meter.split_key(|_| true).expect("reads can be parted");
        assert!((&b"r30"[..]..&b"r70"[..]).contains(&&middle[..]), "{middle:?}");
    }
}
