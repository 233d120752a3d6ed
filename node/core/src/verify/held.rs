//! Whose keys are here. The replicas of ranges know their keys better than the spine's state here,
//! which may be older or newer than they are.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

use crate::GroupId;
use crate::proto::Span;
use crate::range::stored::Stored;
use crate::spine::State;
use crate::spine::ranges::Ranges;

/// Who has a key on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    /// A group with a state here.
    Here(GroupId),
    /// It is to be removed: the node holds the range no more.
    Left,
    /// It belongs to a group that is not here.
    Absent(GroupId),
}

/// The keys of a node.
pub(super) struct Held {
    by_start: BTreeMap<Bytes, (GroupId, Span)>,
    left: Vec<Span>,
    table: Option<Ranges>,
}

impl Held {
    pub(super) fn new(
        state: Option<&State>,
        stored: &BTreeMap<GroupId, Stored>,
        left: Vec<Span>,
    ) -> Self {
        let spans = stored.iter().map(|(range, stored)| (*range, stored.span.clone()));
        let by_start = spans.map(|(range, span)| (span.start.clone(), (range, span))).collect();
        Self { by_start, left, table: state.map(|state| state.ranges().clone()) }
    }

    pub(super) fn holder(&self, key: &[u8]) -> Holder {
        let before =
            self.by_start.range::<[u8], _>((Bound::Unbounded, Bound::Included(key))).next_back();
        if let Some((_, (range, _))) = before.filter(|(_, (_, span))| span.contains(key)) {
            return Holder::Here(*range);
        }
        if self.left.iter().any(|span| span.contains(key)) {
            return Holder::Left;
        }
        match self.table.as_ref().map(|table| table.owner(key)) {
            Some(GroupId::SPINE) => Holder::Here(GroupId::SPINE),
            Some(range) => Holder::Absent(range),
            None => Holder::Absent(GroupId::SPINE),
        }
    }
}
