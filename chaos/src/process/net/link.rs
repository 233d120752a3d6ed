//! What happens to a packet from one port to another, as a function of chance and time: when it
//! arrives, how often, or that it never does.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use crate::sim::chance::Chance;

/// A packet that would wait longer than this for its turn is lost, as in a full queue.
const QUEUE_MAX: Duration = Duration::from_millis(200);
/// How much later a packet that is overtaken arrives, at most.
const OVERTAKEN_BY_US: u64 = 10_000;

/// How one direction between two ports is disturbed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Nothing arrives.
    pub is_cut: bool,
    /// Packets lost in a million.
    pub lost_ppm: u64,
    /// Packets that arrive twice, in a million.
    pub doubled_ppm: u64,
    /// Packets that are overtaken by later ones, in a million.
    pub overtaken_ppm: u64,
    /// Added to every packet.
    pub delay: Duration,
    /// At most this much is added to that, evenly.
    pub jitter: Duration,
    /// Most bytes a second; `None`: as many as come.
    pub bytes_per_second: Option<NonZeroU64>,
}

/// What a direction remembers of the packets before.
#[derive(Clone, Debug, Default)]
pub struct Pipe {
    /// When the packet before is through, if there is a rate.
    free_at: Option<Instant>,
    /// When the last one that was not overtaken arrives.
    last_at: Option<Instant>,
}

impl Link {
    /// Both disturbances at once.
    pub fn and(&self, other: &Link) -> Link {
        let rates = [self.bytes_per_second, other.bytes_per_second];
        Link {
            is_cut: self.is_cut || other.is_cut,
            lost_ppm: self.lost_ppm.max(other.lost_ppm),
            doubled_ppm: self.doubled_ppm.max(other.doubled_ppm),
            overtaken_ppm: self.overtaken_ppm.max(other.overtaken_ppm),
            delay: self.delay + other.delay,
            jitter: self.jitter + other.jitter,
            bytes_per_second: rates.into_iter().flatten().min(),
        }
    }

    /// When the copies of a packet that comes `now` arrive; empty if it is lost.
    pub fn pass(
        &self,
        pipe: &mut Pipe,
        now: Instant,
        bytes: usize,
        chance: &mut Chance,
    ) -> Vec<Instant> {
        if self.is_cut || chance.happens(self.lost_ppm) {
            return Vec::new();
        }
        let mut at = now;
        if let Some(rate) = self.bytes_per_second {
            let begins = pipe.free_at.map_or(now, |free_at| free_at.max(now));
            if begins - now > QUEUE_MAX {
                return Vec::new();
            }
            let micros = bytes as u64 * 1_000_000 / rate;
            at = begins + Duration::from_micros(micros);
            pipe.free_at = Some(at);
        }
        at += self.delay;
        if !self.jitter.is_zero() {
            at += Duration::from_micros(chance.below(self.jitter.as_micros() as u64 + 1));
        }
        if chance.happens(self.overtaken_ppm) {
            at += Duration::from_micros(chance.below(OVERTAKEN_BY_US));
        } else {
            // Jitter alone does not change the order.
            at = pipe.last_at.map_or(at, |last| last.max(at));
            pipe.last_at = Some(at);
        }
        if chance.happens(self.doubled_ppm) { vec![at, at] } else { vec![at] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(link: &Link, packets: usize) -> Vec<Vec<Duration>> {
        let (mut pipe, mut chance) = (Pipe::default(), Chance::new(5));
        let began = Instant::now();
        (0..packets)
            .map(|_| {
                let arrivals = link.pass(&mut pipe, began, 1_000, &mut chance);
                arrivals.into_iter().map(|at| at - began).collect()
            })
            .collect()
    }

    #[test]
    fn an_undisturbed_link_passes_everything_at_once_and_a_cut_one_nothing() {
        assert!(pass(&Link::default(), 50).iter().all(|it| *it == [Duration::ZERO]));
        let cut = Link { is_cut: true, ..Link::default() };
        assert!(pass(&cut, 50).iter().all(Vec::is_empty));
    }

    #[test]
    fn packets_are_lost_and_doubled_as_often_as_was_asked() {
        let link = Link { lost_ppm: 200_000, doubled_ppm: 100_000, ..Link::default() };
        let passed = pass(&link, 10_000);
        let count = |n: usize| passed.iter().filter(|it| it.len() == n).count();
        assert!((1_800..2_200).contains(&count(0)), "{}", count(0));
        assert!((650..950).contains(&count(2)), "{}", count(2));
    }

    #[test]
    fn jitter_keeps_the_order_and_overtaking_does_not() {
        let jitter = Duration::from_millis(20);
        let link = Link { delay: jitter, jitter, ..Link::default() };
        let in_order = pass(&link, 100).concat();
        assert!(in_order.windows(2).all(|pair| pair[0] <= pair[1]));
        assert!(in_order.iter().all(|at| (jitter..=2 * jitter).contains(at)));
        let link = Link { overtaken_ppm: 300_000, ..link };
        assert!(pass(&link, 100).concat().windows(2).any(|pair| pair[0] > pair[1]));
    }

    #[test]
    fn a_rate_spreads_packets_out_and_a_full_queue_loses_them() {
        let link = Link { bytes_per_second: NonZeroU64::new(100_000), ..Link::default() };
        let passed = pass(&link, 100);
        assert_eq!(passed[9], [Duration::from_millis(100)]);
        assert!(passed.iter().filter(|it| it.is_empty()).count() > 70);
    }

    #[test]
    fn two_disturbances_add_up() {
        let cut = Link { is_cut: true, ..Link::default() };
        let slow = Link {
            delay: Duration::from_millis(5),
            bytes_per_second: NonZeroU64::new(10),
            lost_ppm: 3,
            ..Link::default()
        };
        let both = cut.and(&slow).and(&slow);
        assert!(both.is_cut);
        assert_eq!(both.delay, Duration::from_millis(10));
        assert_eq!(both.bytes_per_second, NonZeroU64::new(10));
    }
}
