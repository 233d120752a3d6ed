//! Which rows of a store belong to a group: the one place that says so, for whoever sends, takes,
//! installs or removes them.
//!
//! | rows | group |
//! |---|---|
//! | of a user key, in every column | the range that owns the key; range 0 owns what no other does |
//! | Meta, `range::stored` | that range |
//! | Meta, `NODE_LOCAL` | none, they never travel |
//! | Meta, the compaction's cursor | travels with every group and is merged, never copied, when it is installed beside other rows: see `mvcc::merge_cursor` |
//! | Meta, all others | the spine |

use std::ops::{Bound, ControlFlow};

use bytes::{Bytes, BytesMut};

use super::NODE_LOCAL;
use crate::GroupId;
use crate::mvcc::layout::{self, COMPACTION_ROW, RecordHead, Revision};
use crate::proto::Span;
use crate::proto::internal::SnapshotMark;
use crate::range::stored::{self, Stored};
use crate::spine::State;
use crate::spine::ranges::Ranges;
use crate::view::{Column, View, ViewError};

/// The rows of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    group: GroupId,
    /// Its keys: in order, without overlap.
    spans: Vec<Span>,
}

impl Scope {
    /// As a state of the spine has it; `None` if that knows no such range.
    pub fn new(group: GroupId, ranges: &Ranges) -> Option<Self> {
        let spans = match group {
            GroupId::SPINE => holes(ranges),
            range => vec![ranges.get(range)?.span.clone()],
        };
        Some(Self { group, spans })
    }

    /// Keys of a range that its node holds no more.
    pub fn of_left(range: GroupId, span: Span) -> Self {
        Self { group: range, spans: vec![span] }
    }

    /// As the spine's state in a store has it, which must be the one that is read or written, so
    /// that both agree. A store without state has no ranges.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn load(view: &dyn View, group: GroupId) -> Result<Option<Self>, ViewError> {
        let state = State::load(view)?;
        Ok(Self::new(group, state.as_ref().map_or(&Ranges::default(), State::ranges)))
    }

    /// The rows that change when a received snapshot takes the place of what a store has of the
    /// group: a range was perhaps cut since the one or the other was written, or has taken over
    /// another. What the spine's state says of its keys does not count: others may still have some
    /// of them here.
    ///
    /// # Errors
    /// A store cannot be read.
    pub fn of_install(
        live: &dyn View,
        staged: &dyn View,
        group: GroupId,
    ) -> Result<Option<Self>, ViewError> {
        if group == GroupId::SPINE {
            return Self::load(live, group);
        }
        let mut spans = Vec::new();
        for stored in [Stored::load(live, group)?, Stored::load(staged, group)?] {
            spans.extend(stored.map(|stored| stored.span));
        }
        // They begin alike, as a range keeps its first key.
        let widest = |one: &Span, other: &Span| match (&one.end, &other.end) {
            (None, _) => std::cmp::Ordering::Greater,
            (_, None) => std::cmp::Ordering::Less,
            (Some(one), Some(other)) => one.cmp(other),
        };
        let widest = spans.into_iter().max_by(widest);
        Ok(widest.map(|span| Self { group, spans: vec![span] }))
    }

    /// The group.
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// Its keys, in order.
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// Whether no other group owns any key.
    pub fn is_whole(&self) -> bool {
        self.group == GroupId::SPINE && self.spans == [Span::all()]
    }

    /// Whether a row belongs to the group.
    ///
    /// # Errors
    /// The row cannot be understood.
    pub fn holds(&self, column: Column, key: &[u8], value: &[u8]) -> Result<bool, ViewError> {
        match column {
            Column::Meta => Ok(self.holds_meta(key)),
            _ if self.is_whole() => Ok(true),
            Column::Revision if RecordHead::decode(value)?.revision != Revision::decode(key)? => {
                Ok(false)
            }
            _ => Ok(layout::key_of(column, key, value)?.is_some_and(|key| self.owns(&key))),
        }
    }

    pub(super) fn holds_meta(&self, key: &[u8]) -> bool {
        if key.first() == Some(&NODE_LOCAL) {
            return false;
        }
        key == COMPACTION_ROW
            || match self.group {
                GroupId::SPINE => !stored::is_row(key),
                range => key == stored::key(range),
            }
    }

    /// Ranges with a replica in the store that begin among these keys, beside the one that they are
    /// of: it has taken them over.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(super) fn taken_over(&self, view: &dyn View) -> Result<Vec<GroupId>, ViewError> {
        let mut taken_over = Vec::new();
        if self.group == GroupId::SPINE {
            return Ok(taken_over);
        }
        for range in stored::ids(view)?.into_iter().filter(|range| *range != self.group) {
            if Stored::load(view, range)?.is_some_and(|stored| self.owns(&stored.span.start)) {
                taken_over.push(range);
            }
        }
        Ok(taken_over)
    }

    fn owns(&self, key: &[u8]) -> bool {
        let after = self.spans.partition_point(|span| span.start[..] <= *key);
        after > 0 && self.spans[after - 1].contains(key)
    }

    /// The keys of the group's rows in Meta. They are few: what the spine keeps is in memory too.
    pub(super) fn meta_keys(&self, view: &dyn View) -> Result<Vec<Bytes>, ViewError> {
        let mut keys = Vec::new();
        view.scan(Column::Meta, Bound::Unbounded, Bound::Unbounded, &mut |key, _| {
            if self.holds_meta(key) {
                keys.push(Bytes::copy_from_slice(key));
            }
            ControlFlow::Continue(())
        })?;
        Ok(keys)
    }
}

/// Where the state of a group stands in a store; `None` if it is not there, or if a cut of the range
/// is known to the spine's state or to the range's own and not to the other: which of its rows are
/// its own would depend on whom one asks.
///
/// # Errors
/// The store cannot be read.
pub fn mark(view: &dyn View, group: GroupId) -> Result<Option<SnapshotMark>, ViewError> {
    if group == GroupId::SPINE {
        return Ok(State::load(view)?.map(|state| SnapshotMark {
            index: state.position().index,
            term: state.position().term,
            conf: Some(state.conf().clone()),
        }));
    }
    let scope = Scope::load(view, group)?;
    let stored = Stored::load(view, group)?;
    let stored =
        stored.filter(|stored| scope.is_some_and(|scope| scope.spans == [stored.span.clone()]));
    Ok(stored.map(|stored| SnapshotMark {
        index: stored.position.index,
        term: stored.position.term,
        conf: Some(stored.conf),
    }))
}

/// The bounds of a span's rows in `Key`.
pub(super) fn key_bounds(span: &Span) -> (Bound<Bytes>, Bound<Bytes>) {
    (
        Bound::Included(span.start.clone()),
        span.end.clone().map_or(Bound::Unbounded, Bound::Excluded),
    )
}

/// The bounds of a span's rows in `History`. Their keys rise as the user keys do, and those of one
/// user key begin with its newest.
pub(super) fn history_bounds(span: &Span) -> (Bound<Bytes>, Bound<Bytes>) {
    let first_row = |key: &Bytes| {
        let mut row = BytesMut::new();
        layout::encode_history_key(key, Revision::last_of(i64::MAX), &mut row);
        row.freeze()
    };
    let end = span.end.as_ref().map_or(Bound::Unbounded, |end| Bound::Excluded(first_row(end)));
    (Bound::Included(first_row(&span.start)), end)
}

/// What no range owns.
fn holes(ranges: &Ranges) -> Vec<Span> {
    let mut owned: Vec<&Span> = ranges.iter().map(|(_, range)| &range.span).collect();
    owned.sort_unstable_by(|one, other| one.start.cmp(&other.start));
    let mut holes = Vec::new();
    let mut start = Some(Bytes::new());
    for span in owned {
        let Some(from) = start else { unreachable!("spans do not overlap (I9)") };
        let hole = Span { start: from, end: Some(span.start.clone()) };
        if !hole.is_empty() {
            holes.push(hole);
        }
        start = span.end.clone();
    }
    holes.extend(start.map(|start| Span { start, end: None }));
    holes
}
