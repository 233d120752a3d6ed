//! Who owns which keys, as a reader needs to know it.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

use crate::GroupId;
use crate::proto::Span;
use crate::spine::ranges::Ranges;

/// All keys, each with its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owners {
    /// By the first of the keys that it owns; they end where the next entry begins.
    by_start: BTreeMap<Bytes, GroupId>,
}

impl Default for Owners {
    /// Everything belongs to range 0.
    fn default() -> Self {
        Self { by_start: BTreeMap::from([(Bytes::new(), GroupId::SPINE)]) }
    }
}

impl Owners {
    /// As the spine's state has it.
    pub fn new(ranges: &Ranges) -> Self {
        let mut owners = Self::default();
        for (range, known) in ranges.iter() {
            owners.by_start.insert(known.span.start.clone(), range);
            if let Some(end) = &known.span.end {
                owners.by_start.entry(end.clone()).or_insert(GroupId::SPINE);
            }
        }
        owners
    }

    /// The keys from this one on that have belonged together belong to another range.
    pub fn split(&mut self, key: Bytes, child: GroupId) {
        self.by_start.insert(key, child);
    }

    /// The keys of a range belong to the one before it.
    pub fn merge(&mut self, left: GroupId, right: GroupId) {
        let mut before = None;
        self.by_start.retain(|_, owner| {
            let is_taken_over = *owner == right;
            assert!(
                !is_taken_over || before == Some(left),
                "range {left} has the keys before range {right}"
            );
            before = Some(*owner);
            !is_taken_over
        });
    }

    /// All ranges that own anything; those with keys in several places more than once.
    pub fn ranges(&self) -> impl Iterator<Item = GroupId> {
        self.by_start.values().copied()
    }

    /// Who owns keys of a span.
    pub fn of(&self, span: &Span) -> Vec<GroupId> {
        let first = self.first_piece(span).0;
        let after_start = (Bound::Excluded(&span.start[..]), Bound::Unbounded);
        let rest = self.by_start.range::<[u8], _>(after_start);
        let rest = rest.take_while(|(start, _)| span.contains(start)).map(|(_, owner)| *owner);
        [first].into_iter().chain(rest).collect()
    }

    /// Every owner with its keys, in the order of the keys; range 0 may have several pieces.
    pub fn pieces(&self) -> Vec<(GroupId, Span)> {
        let ends = self.by_start.keys().skip(1).cloned().map(Some).chain([None]);
        let pieces = self.by_start.iter().zip(ends);
        pieces.map(|((start, owner), end)| (*owner, Span { start: start.clone(), end })).collect()
    }

    /// Whether a range owns all keys of a span.
    pub fn owns(&self, range: GroupId, span: &Span) -> bool {
        let mut rest = span.clone();
        loop {
            let (owner, piece) = self.first_piece(&rest);
            if owner != range {
                return false;
            }
            match piece.end.filter(|end| rest.contains(end)) {
                Some(end) => rest.start = end,
                None => return true,
            }
        }
    }

    /// The first keys of a span that belong together.
    pub fn first_piece(&self, span: &Span) -> (GroupId, Span) {
        let from_start = (Bound::Unbounded, Bound::Included(&span.start[..]));
        let (_, owner) =
            self.by_start.range::<[u8], _>(from_start).next_back().expect("every key has an owner");
        let after_start = (Bound::Excluded(&span.start[..]), Bound::Unbounded);
        let next = self.by_start.range::<[u8], _>(after_start).next().map(|(start, _)| start);
        let end = match (&span.end, next) {
            (Some(one), Some(other)) => Some(one.min(other).clone()),
            (one, other) => one.as_ref().or(other).cloned(),
        };
        (*owner, Span { start: span.start.clone(), end })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NodeId;
    use crate::spine::ranges::Range;

    fn span(start: &'static str, end: &'static str) -> Span {
        let end = (!end.is_empty()).then_some(Bytes::from_static(end.as_bytes()));
        Span { start: Bytes::from_static(start.as_bytes()), end }
    }

    #[test]
    fn keys_have_the_owners_of_the_table_before_and_after_a_split() {
        let mut ranges = Ranges::default();
        for (id, start, end) in [(1, "b", "d"), (2, "d", "f"), (3, "x", "")] {
            ranges.insert(GroupId(id), Range::new(span(start, end), vec![NodeId(1)]));
        }
        let mut owners = Owners::new(&ranges);
        for (parent, child, key) in [(0, 4, "h"), (2, 5, "e"), (3, 6, "y"), (0, 7, "a"), (0, 8, "")]
        {
            let key = Bytes::from_static(key.as_bytes());
            ranges.split(GroupId(parent), GroupId(child), key.clone(), vec![NodeId(1)]);
            owners.split(key, GroupId(child));
            for key in ["", "a", "b", "c", "d", "e", "e1", "f", "g", "h", "i", "x", "y", "z"] {
                let (owner, piece) = owners.first_piece(&span(key, ""));
                assert_eq!(owner, ranges.owner(key.as_bytes()), "{key} after {child}");
                assert_eq!(vec![(owner, piece.clone())], ranges.pieces(&piece));
                assert!(owners.owns(owner, &piece) && !owners.owns(GroupId(99), &piece));
                let rest = ranges.pieces(&span(key, ""));
                let is_last = rest.iter().all(|(range, _)| *range == owner);
                assert_eq!(owners.owns(owner, &span(key, "")), is_last);
            }
        }
        assert_eq!(owners, Owners::new(&ranges));
        // 2 has d and 5 has e; 3 has x, and 6 what comes after y.
        owners.merge(GroupId(3), GroupId(6));
        owners.merge(GroupId(2), GroupId(5));
        owners.merge(GroupId(1), GroupId(2));
        for (key, owner) in [("b", 1), ("c", 1), ("d", 1), ("e", 1), ("f", 0), ("x", 3), ("z", 3)] {
            assert_eq!(owners.first_piece(&span(key, "")).0, GroupId(owner), "{key}");
        }
        assert_eq!(owners.first_piece(&span("b", "")).1, span("b", "f"));
    }

    #[test]
    #[should_panic(expected = "range 1 has the keys before range 2")]
    fn only_neighbours_are_merged() {
        let mut owners = Owners::default();
        for (id, key) in [(1, "b"), (3, "d"), (2, "f")] {
            owners.split(Bytes::from_static(key.as_bytes()), GroupId(id));
        }
        owners.merge(GroupId(1), GroupId(2));
    }
}
