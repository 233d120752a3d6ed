//! What this node has and does, as it tells the spine's leader about once a second.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use flotilla_core::GroupId;
use flotilla_core::load::Rate;
use flotilla_core::proto::internal::{Heartbeat, LedRange, RangeInfo, RangeReads};
use flotilla_core::time::Time;

use super::measure::{Found, Job, Limit, Span};
use super::sizes::{Amount, Led, Sizes};
use crate::range::{Looked, Meters};
use crate::router::{Board, owner};

/// Ranges in one heartbeat: as many as a cluster may have.
const LED_MAX: usize = 20_000;
/// No range is split at a longer key. Heartbeats stay far below what peers take in one frame.
const SPLIT_KEY_BYTES_MAX: usize = 1 << 10;

/// Makes heartbeats.
pub(super) struct Beater {
    meters: Arc<Meters>,
    board: Arc<Board>,
    zone: String,
    sizes: Sizes,
    led: Vec<Led>,
    requests: Rate,
    requests_seen: u64,
    written: Rate,
    written_seen: Option<u64>,
    /// Of clients of this node, by range.
    reads: BTreeMap<u64, Rate>,
}

impl Beater {
    pub(super) fn new(meters: Arc<Meters>, board: Arc<Board>, zone: String, limit: Limit) -> Self {
        let now = meters.now();
        Self {
            meters,
            board,
            zone,
            sizes: Sizes::new(limit),
            led: Vec::new(),
            requests: Rate::new(now),
            requests_seen: 0,
            written: Rate::new(now),
            written_seen: None,
            reads: BTreeMap::new(),
        }
    }

    /// A heartbeat by what is known now.
    pub(super) fn beat(&mut self, now: Time, looked: &Looked) -> Heartbeat {
        self.count_reads(now, &looked.ranges);
        let requests = self.board.usage().requests();
        self.requests.add(requests - self.requests_seen);
        self.requests_seen = requests;
        let machine = self.sizes.machine();
        let before = self.written_seen.replace(machine.written_bytes);
        self.written.add(machine.written_bytes.saturating_sub(before.unwrap_or(u64::MAX)));
        Heartbeat {
            zone: self.zone.clone(),
            capacity_bytes: machine.capacity_bytes,
            used_bytes: machine.used_bytes,
            write_bytes_per_second: self.written.per_second(now),
            requests_per_second: self.requests.per_second(now),
            led: self.led_ranges(now, looked),
            reads: self
                .reads
                .iter_mut()
                .map(|(range, rate)| (*range, rate.per_second(now)))
                .filter(|(_, rate)| *rate > 0)
                .map(|(range, reads_per_second)| RangeReads { range, reads_per_second })
                .collect(),
        }
    }

    fn count_reads(&mut self, now: Time, ranges: &[RangeInfo]) {
        let (reads, keys) = self.board.usage().take_reads();
        let kept = keys.len() as u64;
        let mut by_range: BTreeMap<u64, Vec<Bytes>> = BTreeMap::new();
        for key in keys {
            by_range.entry(owner(ranges, &key)).or_default().push(key);
        }
        for (range, keys) in by_range {
            let share = reads * keys.len() as u64 / kept.max(1);
            self.reads.entry(range).or_insert_with(|| Rate::new(now)).add(share);
            self.meters.count_reads(GroupId(range), share, &keys);
        }
        // Of ranges that are gone, or were not read for minutes, nothing is left to tell.
        let there: BTreeSet<u64> = ranges.iter().map(|it| it.range).collect();
        self.reads.retain(|range, rate| {
            there.contains(range) && (rate.per_second(now) > 0 || rate.is_young(now))
        });
    }

    fn led_ranges(&mut self, now: Time, looked: &Looked) -> Vec<LedRange> {
        let known: BTreeMap<u64, &RangeInfo> =
            looked.ranges.iter().map(|range| (range.range, range)).collect();
        let (mut led, mut told) = (Vec::new(), Vec::new());
        self.meters.for_each(|range, meters| {
            // A range that has just begun may not be in the table that was looked at.
            let Some(info) = known.get(&range.0) else { return };
            if led.len() >= LED_MAX {
                return;
            }
            let spans = spans(&looked.ranges, info);
            let is_owned = |key: &[u8]| owner(&looked.ranges, key) == range.0;
            let (writes_per_second, write_bytes_per_second) = meters.meter.rates(now);
            told.push(LedRange {
                range: range.0,
                generation: info.generation,
                writes_per_second,
                write_bytes_per_second,
                load_split_key: told_key(meters.meter.split_key(is_owned)),
                replicas: match range {
                    GroupId::SPINE => Vec::new(),
                    _ => meters.replicas.clone(),
                },
                ..LedRange::default()
            });
            let (keys, bytes) = meters.meter.totals();
            let written = Amount { bytes, keys };
            led.push(Led { range, generation: info.generation, spans, written });
        });
        self.sizes.keep(&led);
        self.led = led;
        for told in &mut told {
            let size = self.sizes.of(GroupId(told.range));
            (told.bytes, told.keys) = (size.amount.bytes, size.amount.keys);
            told.size_split_key = told_key(size.middle);
            told.is_counted = size.is_counted;
        }
        told
    }

    /// What the measuring thread should do next.
    pub(super) fn next_job(&mut self, now: Time) -> Option<Job> {
        self.sizes.next_job(now, &self.led)
    }

    /// It has not come to that.
    pub(super) fn not_taken(&mut self, job: &Job) {
        self.sizes.not_taken(job);
    }

    /// It has found something out.
    pub(super) fn learn(&mut self, found: Found) {
        self.sizes.learn(found);
    }
}

/// Empty: there is none, or it is too long.
fn told_key(key: Option<Bytes>) -> Bytes {
    key.filter(|key| key.len() <= SPLIT_KEY_BYTES_MAX).unwrap_or_default()
}

/// The keys of a range; of range 0 what no other has.
pub(super) fn spans(ranges: &[RangeInfo], range: &RangeInfo) -> Vec<Span> {
    if range.range != 0 {
        let end = (!range.end.is_empty()).then(|| range.end.clone());
        return vec![(range.start.clone(), end)];
    }
    let (mut pieces, mut next) = (Vec::new(), Some(Bytes::new()));
    for other in ranges.iter().filter(|range| range.range != 0) {
        let Some(from) = next.take() else { break };
        if from < other.start {
            pieces.push((from, Some(other.start.clone())));
        }
        next = (!other.end.is_empty()).then(|| other.end.clone());
    }
    pieces.extend(next.map(|from| (from, None)));
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(range: u64, start: &'static str, end: &'static str) -> RangeInfo {
        RangeInfo { range, start: start.into(), end: end.into(), ..RangeInfo::default() }
    }

    #[test]
    fn every_key_has_its_owner_and_range_0_the_rest() {
        let ranges = [range(3, "b", "d"), range(1, "f", "m"), range(2, "m", ""), range(0, "", "")];
        let owners =
            ["", "a", "b", "cc", "d", "e", "f", "m", "z"].map(|key| owner(&ranges, key.as_bytes()));
        assert_eq!(owners, [0, 0, 3, 3, 0, 0, 1, 2, 2]);
        let rest = spans(&ranges, &ranges[3]);
        let expected: Vec<Span> =
            vec![(Bytes::new(), Some("b".into())), ("d".into(), Some("f".into()))];
        assert_eq!(rest, expected);
        assert_eq!(spans(&ranges, &ranges[2]), [("m".into(), None)]);
        let whole = [range(0, "", "")];
        assert_eq!(
            (owner(&whole, b"x"), spans(&whole, &whole[0])),
            (0, vec![(Bytes::new(), None)])
        );
    }
}
