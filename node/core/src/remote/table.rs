//! Who owns which keys, as a reader needs to know it.

use bytes::Bytes;

use crate::GroupId;
use crate::proto::Span;
use crate::proto::internal::RangeInfo;
use crate::spine::ranges::Ranges;

/// Who owns keys, as a node knows it now.
pub trait Table {
    /// The range that owns a key, and where its keys from there on end.
    fn piece_at(&self, key: &[u8]) -> (GroupId, Option<Bytes>);
}

impl Table for Ranges {
    fn piece_at(&self, key: &[u8]) -> (GroupId, Option<Bytes>) {
        let owner = self.owner(key);
        match self.get(owner) {
            Some(range) => (owner, range.span.end.clone()),
            None => (owner, self.first_start_after(key).cloned()),
        }
    }
}

/// In the order of the first keys; range 0, which owns what is left, is not looked at.
impl Table for Vec<RangeInfo> {
    fn piece_at(&self, key: &[u8]) -> (GroupId, Option<Bytes>) {
        let others = self.len() - self.iter().rev().take_while(|it| it.range == 0).count();
        let others = &self[..others];
        let after = others.partition_point(|it| it.start[..] <= *key);
        let end = |it: &RangeInfo| (!it.end.is_empty()).then(|| it.end.clone());
        let owner = after.checked_sub(1).map(|at| &others[at]);
        match owner.filter(|it| end(it).is_none_or(|end| *key < *end)) {
            Some(owner) => (GroupId(owner.range), end(owner)),
            None => (GroupId::SPINE, others.get(after).map(|it| it.start.clone())),
        }
    }
}

/// The first keys of a span that belong to one range.
pub(super) fn first_piece(table: &(impl Table + ?Sized), span: &Span) -> (GroupId, Span) {
    let (range, end) = table.piece_at(&span.start);
    let end = match (&span.end, end) {
        (Some(one), Some(other)) => Some(other.min(one.clone())),
        (one, other) => one.clone().or(other),
    };
    (range, Span { start: span.start.clone(), end })
}
