//! The keyspace as a strip: which range has the keys from where to where, in the order of keys. Range 0
//! has what no other has, which may be in several places.

use std::ops::Range;

use bytes::Bytes;
use flotilla_core::proto::internal::RangeInfo;

use super::KEY_BYTES_SHOWN_MAX;

/// Neighbouring keys of one range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) start: Bytes,
    /// None: there is no later key.
    pub(super) end: Option<Bytes>,
    /// Where its range is in the table of ranges.
    pub(super) at: usize,
}

/// All keys, piece by piece. `ranges` are in the order of their keys, range 0 comes last.
pub(super) fn pieces(ranges: &[RangeInfo]) -> Vec<Piece> {
    let rest = ranges.iter().position(|range| range.range == 0);
    let (mut pieces, mut next) = (Vec::new(), Some(Bytes::new()));
    for (at, range) in ranges.iter().enumerate().filter(|(_, range)| range.range != 0) {
        let Some(from) = next.take() else { break };
        if let Some(rest) = rest.filter(|_| from < range.start) {
            pieces.push(Piece { start: from, end: Some(range.start.clone()), at: rest });
        }
        next = (!range.end.is_empty()).then(|| range.end.clone());
        pieces.push(Piece { start: range.start.clone(), end: next.clone(), at });
    }
    if let (Some(start), Some(at)) = (next, rest) {
        pieces.push(Piece { start, end: None, at });
    }
    pieces
}

/// `count` things in a row as at most `max` groups of neighbours of about the same size.
pub(super) fn groups(count: usize, max: usize) -> impl Iterator<Item = Range<usize>> {
    let groups = count.min(max);
    (0..groups).map(move |n| n * count / groups..(n + 1) * count / groups)
}

/// A key as `flotilla ctl` shows it: what is not printable is escaped. The end of a long one is left out.
pub(super) fn shown(key: &[u8]) -> String {
    let is_cut = key.len() > KEY_BYTES_SHOWN_MAX;
    let shown = key[..key.len().min(KEY_BYTES_SHOWN_MAX)].escape_ascii().to_string();
    if is_cut { shown + "…" } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn range_0_is_wherever_no_other_is() {
        let range = |range, start: &'static str, end: &'static str| RangeInfo {
            range,
            start: start.into(),
            end: end.into(),
            ..RangeInfo::default()
        };
        let told = |ranges: &[RangeInfo]| {
            let pieces = pieces(ranges).into_iter().map(|piece| {
                let end = piece.end.map_or_else(|| "end".to_owned(), |end| shown(&end));
                format!("{}..{end}={}", shown(&piece.start), ranges[piece.at].range)
            });
            pieces.collect::<Vec<_>>().join(" ")
        };
        let some = [range(3, "b", "d"), range(1, "f", "m"), range(2, "m", ""), range(0, "", "")];
        assert_eq!(told(&some), "..b=0 b..d=3 d..f=0 f..m=1 m..end=2");
        assert_eq!(told(&[range(0, "", "")]), "..end=0");
        assert_eq!(told(&[range(1, "", "m"), range(0, "", "")]), "..m=1 m..end=0");
        assert_eq!(told(&[]), "");
    }

    #[test]
    fn groups_are_of_neighbours_and_leave_nothing_out() {
        for (count, max) in [(0, 4), (1, 4), (4, 4), (5, 4), (1_000, 160)] {
            let groups: Vec<Range<usize>> = groups(count, max).collect();
            assert_eq!(groups.len(), count.min(max));
            assert!(groups.iter().all(|group| !group.is_empty()));
            assert!(groups.windows(2).all(|pair| pair[0].end == pair[1].start));
            assert_eq!(groups.last().map_or(0, |last| last.end), count);
        }
    }

    #[test]
    fn a_key_is_shown_escaped_and_not_too_long() {
        assert_eq!(shown(b"/a\x00\xff\""), r#"/a\x00\xff\""#);
        assert_eq!(
            shown(&[b'x'; KEY_BYTES_SHOWN_MAX + 1]).chars().count(),
            KEY_BYTES_SHOWN_MAX + 1
        );
    }
}
