//! What the ranges that this node leads hold: an estimate by the files of the store, and a count
//! where it matters. Decides what the measuring thread does next.
//!
//! The estimate of a range misses what is only in memory, but for what was written under this
//! leader. A count is exact when it is made. Until the next it stands for a range, whose real size
//! is off by what was written since: at most a quarter of what was counted, and never so much that
//! the range could be above its limit by more than a sixteenth of it.

use std::collections::BTreeMap;

use bytes::Bytes;
use flotilla_core::GroupId;
use flotilla_core::time::{Length, Time};

use super::measure::{Found, Job, Limit, Machine, Span};
use crate::store::{Contents, Estimate};

/// The estimate of a range that is written to is made anew after this.
const ESTIMATE_EVERY: Length = Length::from_secs(2);
/// That of every range: the store becomes smaller in its own time.
const ESTIMATE_ALL_EVERY: Length = Length::from_secs(300);
/// A range is counted when it may hold this part of its limit, as one part of so many.
const COUNTED_FROM_ONE_IN: u64 = 2;
/// No range is counted again before this part of its limit was written, likewise.
const COUNTED_AGAIN_ONE_IN: u64 = 16;
/// What was counted is trusted until a part of it was written, likewise.
const TRUSTED_ONE_IN: u64 = 4;

/// A range that is led here.
#[derive(Clone, Debug)]
pub(super) struct Led {
    pub(super) range: GroupId,
    pub(super) generation: u64,
    /// More than one for range 0 only.
    pub(super) spans: Vec<Span>,
    /// Writes and their bytes since it is led here.
    pub(super) written: Amount,
}

/// Bytes and keys, or bytes and writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) bytes: u64,
    pub(super) keys: u64,
}

/// What a range holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) amount: Amount,
    /// Found by the newest count.
    pub(super) middle: Option<Bytes>,
    /// It was counted.
    pub(super) is_counted: bool,
}

/// Of all ranges led here.
#[derive(Debug)]
pub(super) struct Sizes {
    limit: Limit,
    known: BTreeMap<GroupId, Known>,
    contents: Contents,
    machine: Machine,
    /// The ranges that an estimate was asked for, one for each span.
    estimating: Option<Vec<GroupId>>,
    estimated: Option<Time>,
    /// When all of them were estimated.
    estimated_all: Option<Time>,
    /// The range that is being counted, and what was written to it when that began.
    counting: Option<(GroupId, Amount)>,
}

#[derive(Clone, Debug, Default)]
struct Known {
    generation: u64,
    estimate: Estimate,
    /// What was written when the estimate was asked for.
    estimated: Option<Amount>,
    written: Amount,
    counted: Option<Counted>,
}

#[derive(Clone, Debug)]
struct Counted {
    amount: Amount,
    middle: Option<Bytes>,
    /// All of the range was seen.
    is_whole: bool,
    /// What was written when the count began.
    written: Amount,
}

impl Sizes {
    /// Nothing is known yet. Ranges are split above the limit.
    pub(super) fn new(limit: Limit) -> Self {
        Self {
            limit,
            known: BTreeMap::new(),
            contents: Contents::default(),
            machine: Machine::default(),
            estimating: None,
            estimated: None,
            estimated_all: None,
            counting: None,
        }
    }

    /// These are led here by now.
    pub(super) fn keep(&mut self, led: &[Led]) {
        let mut known = std::mem::take(&mut self.known);
        for led in led {
            let before = known.remove(&led.range);
            // A leadership that was lost and came back counts from zero.
            let is_same = |before: &Known| {
                before.generation == led.generation && before.written.bytes <= led.written.bytes
            };
            let mut now = before.filter(is_same).unwrap_or_default();
            (now.generation, now.written) = (led.generation, led.written);
            self.known.insert(led.range, now);
        }
    }

    /// What the measuring thread should do next, if anything. It is told once.
    pub(super) fn next_job(&mut self, now: Time, led: &[Led]) -> Option<Job> {
        let is_stale = self.estimated.is_none_or(|at| now.since(at) >= ESTIMATE_EVERY);
        if is_stale && self.estimating.is_none() {
            let is_all = self.estimated_all.is_none_or(|at| now.since(at) >= ESTIMATE_ALL_EVERY);
            if is_all {
                self.estimated_all = Some(now);
            }
            let (mut ranges, mut spans) = (Vec::new(), Vec::new());
            for led in led {
                let Some(known) = self.known.get_mut(&led.range) else { continue };
                if is_all || known.estimated != Some(led.written) {
                    known.estimated = Some(led.written);
                    ranges.extend(led.spans.iter().map(|_| led.range));
                    spans.extend(led.spans.iter().cloned());
                }
            }
            (self.estimating, self.estimated) = (Some(ranges), Some(now));
            return Some(Job::Estimate(spans));
        }
        if self.counting.is_some() || self.estimating.is_some() {
            return None;
        }
        // The one with most writes since it was counted comes first.
        let due = led.iter().filter(|it| self.is_count_due(it.range));
        let next = due.max_by_key(|it| self.uncounted(it.range).bytes)?;
        self.counting = Some((next.range, next.written));
        let (range, generation, spans) = (next.range, next.generation, next.spans.clone());
        Some(Job::Count { range, generation, spans, limit: self.limit })
    }

    /// A job that was told was not taken.
    pub(super) fn not_taken(&mut self, job: &Job) {
        match job {
            Job::Estimate(_) => {
                for range in self.estimating.take().unwrap_or_default() {
                    if let Some(known) = self.known.get_mut(&range) {
                        known.estimated = None;
                    }
                }
                self.estimated = None;
            }
            Job::Count { .. } => self.counting = None,
        }
    }

    /// The thread has found something out.
    pub(super) fn learn(&mut self, found: Found) {
        match found {
            Found::Estimates(estimates, contents, machine) => {
                (self.contents, self.machine) = (contents, machine);
                let of = self.estimating.take().unwrap_or_default();
                let mut sums: BTreeMap<GroupId, Estimate> = BTreeMap::new();
                for (range, estimate) in of.into_iter().zip(estimates) {
                    let sum = sums.entry(range).or_default();
                    sum.bytes += estimate.bytes;
                    sum.rows += estimate.rows;
                }
                for (range, known) in &mut self.known {
                    known.estimate = sums.remove(range).unwrap_or(known.estimate);
                }
            }
            Found::Counted { range, generation, marks, is_whole } => {
                let (_, written) = self.counting.take().expect("a count was asked for");
                let Some(known) = self.known.get_mut(&range) else { return };
                // The range was cut, or leadership was lost and came back.
                if known.generation != generation || written.bytes > known.written.bytes {
                    return;
                }
                let amount = Amount { bytes: marks.bytes(), keys: marks.rows() };
                known.counted = Some(Counted { amount, middle: marks.middle(), is_whole, written });
            }
        }
    }

    fn is_count_due(&self, range: GroupId) -> bool {
        let Some(known) = self.known.get(&range) else { return false };
        let Limit { bytes, keys } = self.limit;
        let Some(counted) = &known.counted else {
            let (estimate, all) = (known.estimate, &self.contents);
            return estimate.bytes + all.memory_bytes >= bytes / COUNTED_FROM_ONE_IN
                || estimate.rows + all.memory_rows >= keys / COUNTED_FROM_ONE_IN;
        };
        let written = self.uncounted(range);
        let is_due = |limit: u64, counted: u64, written: u64| {
            let is_enough = written >= (limit / COUNTED_AGAIN_ONE_IN).max(1);
            is_enough && (written >= counted / TRUSTED_ONE_IN || counted + written > limit)
        };
        is_due(bytes, counted.amount.bytes, written.bytes)
            || is_due(keys, counted.amount.keys, written.keys)
    }

    /// What was written since the count.
    fn uncounted(&self, range: GroupId) -> Amount {
        let Some(known) = self.known.get(&range) else { return Amount::default() };
        let before = known.counted.as_ref().map(|it| it.written).unwrap_or_default();
        Amount {
            bytes: known.written.bytes.saturating_sub(before.bytes),
            keys: known.written.keys.saturating_sub(before.keys),
        }
    }

    /// What a range holds.
    pub(super) fn of(&self, range: GroupId) -> Size {
        let Some(known) = self.known.get(&range) else { return Size::default() };
        let (estimate, all) = (known.estimate, &self.contents);
        let estimate = Amount {
            bytes: estimate.bytes + all.memory_bytes.min(known.written.bytes),
            keys: estimate.rows + all.memory_rows.min(known.written.keys),
        };
        let Some(counted) = &known.counted else {
            return Size { amount: estimate, ..Size::default() };
        };
        let middle = counted.middle.clone();
        if counted.is_whole {
            return Size { amount: counted.amount, middle, is_counted: true };
        }
        let bytes = counted.amount.bytes.max(estimate.bytes);
        let keys = counted.amount.keys.max(estimate.keys);
        Size { amount: Amount { bytes, keys }, middle, is_counted: false }
    }

    /// How the machine stood last.
    pub(super) fn machine(&self) -> Machine {
        self.machine
    }
}

#[cfg(test)]
mod tests {
    use flotilla_core::load::Marks;

    use super::*;

    const LIMIT: Limit = Limit { bytes: 16_000, keys: 1_600 };

    fn led(generation: u64, writes: u64) -> Vec<Led> {
        let written = Amount { bytes: writes * 10, keys: writes };
        let spans = vec![(Bytes::new(), None)];
        vec![Led { range: GroupId(7), generation, spans, written }]
    }

    fn marks(rows: u64) -> Marks {
        let mut marks = Marks::default();
        (0..rows).for_each(|n| marks.add(format!("{n:06}").as_bytes(), 10));
        marks
    }

    /// The thread has nothing in its files yet, and this in memory.
    fn estimate(sizes: &mut Sizes, now: Time, led: &[Led], rows: u64) {
        sizes.keep(led);
        assert!(matches!(sizes.next_job(now, led), Some(Job::Estimate(_))));
        assert!(sizes.next_job(now, led).is_none(), "one thing at a time");
        let contents =
            Contents { memory_bytes: rows * 10, memory_rows: rows, ..Contents::default() };
        sizes.learn(Found::Estimates(vec![Estimate::default()], contents, Machine::default()));
    }

    #[test]
    fn a_range_that_nobody_writes_to_is_estimated_once_in_a_while() {
        let (mut sizes, mut now) = (Sizes::new(LIMIT), Time(0));
        let spans_count = |sizes: &mut Sizes, now: Time, writes: u64| {
            let led = led(1, writes);
            sizes.keep(&led);
            let Some(Job::Estimate(spans)) = sizes.next_job(now, &led) else {
                panic!("at {now:?}")
            };
            let estimates = vec![Estimate { bytes: 70, rows: 7 }; spans.len()];
            sizes.learn(Found::Estimates(estimates, Contents::default(), Machine::default()));
            assert_eq!(sizes.of(GroupId(7)).amount.keys, 7, "what is known stays");
            spans.len()
        };
        let mut step = |writes, length| {
            now = now + length;
            spans_count(&mut sizes, now, writes)
        };
        assert_eq!(step(0, ESTIMATE_EVERY), 1);
        assert_eq!(step(0, ESTIMATE_EVERY), 0);
        assert_eq!(step(3, ESTIMATE_EVERY), 1);
        assert_eq!(step(3, ESTIMATE_EVERY), 0);
        assert_eq!(step(3, ESTIMATE_ALL_EVERY), 1);
        // It is asked again if nobody came to it.
        let led = led(1, 4);
        sizes.keep(&led);
        now = now + ESTIMATE_EVERY;
        let job = sizes.next_job(now, &led).expect("it was written to");
        sizes.not_taken(&job);
        assert!(
            matches!(sizes.next_job(now, &led), Some(Job::Estimate(spans)) if spans.len() == 1)
        );
    }

    fn counted(sizes: &mut Sizes, now: Time, led: &[Led], rows: u64) -> bool {
        sizes.keep(led);
        let Some(Job::Count { range, generation, .. }) = sizes.next_job(now, led) else {
            return false;
        };
        let is_whole = rows <= LIMIT.keys;
        sizes.learn(Found::Counted { range, generation, marks: marks(rows), is_whole });
        true
    }

    #[test]
    fn a_small_range_is_estimated_and_a_larger_one_counted_when_it_matters() {
        let (mut sizes, now) = (Sizes::new(LIMIT), Time(0));
        estimate(&mut sizes, now, &led(1, 300), 700);
        assert!(!counted(&mut sizes, now, &led(1, 300), 300), "far below its limit");
        let size = sizes.of(GroupId(7));
        assert_eq!(size.amount, Amount { bytes: 3_000, keys: 300 }, "what was written here");

        let later = now + ESTIMATE_EVERY;
        estimate(&mut sizes, later, &led(1, 900), 900);
        assert!(counted(&mut sizes, later, &led(1, 900), 850));
        let size = sizes.of(GroupId(7));
        assert_eq!(size.amount, Amount { bytes: 8_500, keys: 850 });
        assert!(size.is_counted && size.middle.is_some());
        // A sixteenth of the limit is 100, a quarter of what was counted 212.
        assert!(!counted(&mut sizes, later, &led(1, 1_100), 0));
        assert!(counted(&mut sizes, later, &led(1, 1_113), 1_550));
        assert!(!counted(&mut sizes, later, &led(1, 1_200), 0));
        assert!(counted(&mut sizes, later, &led(1, 1_213), 1_650), "it may be above its limit");
        assert!(!sizes.of(GroupId(7)).is_counted, "not to its end");
    }

    #[test]
    fn a_count_of_what_is_no_more_is_not_believed() {
        let (mut sizes, now) = (Sizes::new(LIMIT), Time(0));
        estimate(&mut sizes, now, &led(1, 1_000), 1_000);
        let before = led(1, 1_000);
        let job = sizes.next_job(now, &before);
        assert!(matches!(job, Some(Job::Count { .. })));
        sizes.keep(&led(2, 1_000));
        let count =
            |marks| Found::Counted { range: GroupId(7), generation: 1, marks, is_whole: true };
        sizes.learn(count(marks(900)));
        assert_eq!(sizes.of(GroupId(7)).middle, None, "the range was cut meanwhile");
        // It is counted again, and again in vain: leadership was lost and came back.
        let now_led = led(2, 1_000);
        assert!(matches!(sizes.next_job(now, &now_led), Some(Job::Count { .. })));
        sizes.keep(&led(2, 10));
        sizes.learn(Found::Counted {
            range: GroupId(7),
            generation: 2,
            marks: marks(900),
            is_whole: true,
        });
        assert_eq!(sizes.of(GroupId(7)).middle, None);
        sizes.keep(&[]);
        assert_eq!(sizes.of(GroupId(7)), Size::default());
    }
}
