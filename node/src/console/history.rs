//! The load of the keyspace over the last half an hour: a sample for each look at the cluster, with the
//! spans of keys as they were then. The number of samples, of spans in one, and the bytes of all are
//! bounded.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::collect::Picture;
use super::keyspace::{groups, pieces};
use super::{HISTORY_BYTES_MAX, SAMPLES_MAX, SPANS_PER_SAMPLE_MAX};

/// What one span was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) writes_per_second: u64,
    pub(super) reads_per_second: u64,
}

impl Load {
    fn add(&mut self, other: Load) {
        self.writes_per_second = self.writes_per_second.saturating_add(other.writes_per_second);
        self.reads_per_second = self.reads_per_second.saturating_add(other.reads_per_second);
    }
}

/// A span of a sample: one range, or several that are next to each other.
#[derive(Clone, Copy, Debug)]
struct Span {
    /// `None` of several.
    range: Option<u64>,
    load: Load,
}

/// The keyspace at one moment.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    time_ms: u64,
    /// Where each span starts; it ends where the next starts. The first starts with the first key.
    starts: Arc<[Bytes]>,
    /// Of each span. None if the leader was not reached.
    spans: Option<Vec<Span>>,
}

impl Sample {
    pub(super) fn of(picture: &Picture) -> Self {
        let time_ms = picture.time_ms;
        let Some(survey) = &picture.survey else {
            return Self { time_ms, starts: Arc::new([]), spans: None };
        };
        let ranges = &picture.notice.ranges;
        let pieces = pieces(ranges);
        let (mut starts, mut spans) = (Vec::new(), Vec::new());
        for group in groups(pieces.len(), SPANS_PER_SAMPLE_MAX) {
            starts.push(pieces[group.start].start.clone());
            let of_group = &pieces[group];
            let ids: BTreeSet<u64> = of_group.iter().map(|piece| ranges[piece.at].range).collect();
            let mut load = Load::default();
            for survey in ids.iter().filter_map(|id| survey.ranges.get(id)) {
                load.add(Load {
                    writes_per_second: survey.writes_per_second,
                    reads_per_second: survey.reads_per_second,
                });
            }
            let range = ids.first().copied().filter(|_| ids.len() == 1);
            spans.push(Span { range, load });
        }
        Self { time_ms, starts: starts.into(), spans: Some(spans) }
    }

    /// What the keys from `start` on, before `end` if there is one, were asked for: all of the ranges
    /// that had some of them. None if it is not known.
    fn load(&self, start: &[u8], end: Option<&[u8]>) -> Option<Load> {
        let spans = self.spans.as_ref()?;
        let first = self.starts.partition_point(|it| it[..] <= *start).saturating_sub(1);
        let last = end.map_or(spans.len(), |end| self.starts.partition_point(|it| it[..] < *end));
        let (mut load, mut counted) = (Load::default(), BTreeSet::new());
        for span in spans.get(first..last)? {
            // Range 0 may be there in several places.
            if span.range.is_none_or(|range| counted.insert(range)) {
                load.add(span.load);
            }
        }
        Some(load)
    }

    /// Without the starts, which samples share.
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.spans.as_ref().map_or(0, Vec::len) * size_of::<Span>()
    }
}

/// The samples that are kept.
#[derive(Debug, Default)]
pub(super) struct History {
    samples: VecDeque<Sample>,
    bytes: usize,
}

impl History {
    /// Adds a sample; the oldest go for lack of room.
    pub(super) fn push(&mut self, mut sample: Sample) {
        let is_same = |last: &&Sample| last.starts == sample.starts;
        if let Some(last) = self.samples.back().filter(is_same) {
            sample.starts = last.starts.clone();
        } else {
            self.bytes += starts_bytes(&sample.starts);
        }
        self.bytes += sample.bytes();
        self.samples.push_back(sample);
        while self.samples.len() > SAMPLES_MAX
            || self.bytes > HISTORY_BYTES_MAX && self.samples.len() > 1
        {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some(oldest) = self.samples.pop_front() else { return };
        self.bytes -= oldest.bytes();
        let is_shared =
            self.samples.front().is_some_and(|next| Arc::ptr_eq(&next.starts, &oldest.starts));
        if !is_shared {
            self.bytes -= starts_bytes(&oldest.starts);
        }
    }

    /// For each sample, the oldest first: its time in milliseconds since 1970, and what each of these
    /// spans of keys was asked for then; `None` if it is not known.
    pub(super) fn columns(&self, rows: &[(Bytes, Option<Bytes>)]) -> Vec<(u64, Option<Vec<Load>>)> {
        let column = |sample: &Sample| {
            let loads = rows.iter().map(|(start, end)| sample.load(start, end.as_deref()));
            (sample.time_ms, loads.collect())
        };
        self.samples.iter().map(column).collect()
    }
}

fn starts_bytes(starts: &[Bytes]) -> usize {
    starts.iter().map(|start| size_of::<Bytes>() + start.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(time_ms: u64, spans: &[(&str, u64, u64)]) -> Sample {
        let starts: Vec<Bytes> =
            spans.iter().map(|(start, ..)| Bytes::copy_from_slice(start.as_bytes())).collect();
        let spans = spans.iter().map(|(_, range, writes_per_second)| Span {
            range: Some(*range),
            load: Load { writes_per_second: *writes_per_second, reads_per_second: 1 },
        });
        Sample { time_ms, starts: starts.into(), spans: Some(spans.collect()) }
    }

    fn row(start: &'static str, end: &'static str) -> (Bytes, Option<Bytes>) {
        (start.into(), (!end.is_empty()).then(|| end.into()))
    }

    #[test]
    fn keys_have_the_load_of_the_ranges_that_had_them_then() {
        let mut history = History::default();
        history.push(sample(1, &[("", 0, 10)]));
        history.push(sample(2, &[("", 0, 4), ("m", 1, 7), ("t", 0, 4)]));
        history.push(Sample { time_ms: 3, starts: Arc::new([]), spans: None });
        let rows = [row("", "m"), row("m", "t"), row("n", "o"), row("", ""), row("a", "n")];
        let columns = history.columns(&rows);
        let writes = |n: usize| -> Option<Vec<u64>> {
            let loads = columns[n].1.as_ref()?;
            Some(loads.iter().map(|load| load.writes_per_second).collect())
        };
        assert_eq!(columns.iter().map(|it| it.0).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(writes(0), Some(vec![10, 10, 10, 10, 10]), "one range had them all");
        assert_eq!(writes(1), Some(vec![4, 7, 7, 11, 11]), "a range in two places counts once");
        assert_eq!(writes(2), None);
    }

    #[test]
    fn samples_are_bounded_in_number() {
        let mut history = History::default();
        for n in 0..3 * SAMPLES_MAX as u64 {
            history.push(sample(n, &[("", 0, n), ("m", 1, n)]));
        }
        assert_eq!(history.samples.len(), SAMPLES_MAX);
        let first = &history.samples[0];
        assert_eq!(first.time_ms, 2 * SAMPLES_MAX as u64);
        assert!(history.samples.iter().all(|it| Arc::ptr_eq(&it.starts, &first.starts)), "shared");
        let expected = SAMPLES_MAX * first.bytes() + starts_bytes(&first.starts);
        assert_eq!(history.bytes, expected);
    }

    #[test]
    fn samples_are_bounded_in_bytes() {
        let mut history = History::default();
        // The border moves with each sample, so that no two share their keys.
        let long = "x".repeat(HISTORY_BYTES_MAX / 10);
        for n in 0..40 {
            history.push(sample(n, &[("", 0, n), (&format!("{n:02}{long}"), 1, n)]));
            assert!(history.bytes <= HISTORY_BYTES_MAX);
        }
        assert_eq!(history.samples.len(), 9);
        while !history.samples.is_empty() {
            history.forget_oldest();
        }
        assert_eq!(history.bytes, 0);
    }
}
