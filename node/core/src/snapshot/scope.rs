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

use std::collections::BTreeSet;
use std::ops::{Bound, ControlFlow};

use bytes::{Bytes, BytesMut};

use super::NODE_LOCAL;
use crate::GroupId;
use crate::mvcc::layout::{self, COMPACTION_ROW, RecordHead, Revision};
use crate::proto::Span;
use crate::proto::internal::SnapshotMark;
use crate::range::stored::{self, Stored};
use crate::spine::State;
use crate::spine::ranges::{Range, Ranges};
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
        Ok(widest(spans).map(|span| Self { group, spans: vec![span] }))
    }

    /// The rows that may come with a snapshot: what the group owns as the spine's state in the store
    /// has it, and what a replica of the range there has in its keys, which perhaps has not come to the
    /// cut yet. Without such a replica the snapshot itself may be from before cuts, whose entries wait
    /// for this very node to vouch for them; it may have the keys that were cut off as long as nothing
    /// here has to do with them. `runs` says whether a replica of a range is on this node, be it
    /// without a state. `None` if the spine's state knows no such range.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn to_receive(
        view: &dyn View,
        group: GroupId,
        runs: impl Fn(GroupId) -> bool,
    ) -> Result<Option<Self>, ViewError> {
        let Some(state) = State::load(view)? else {
            return Ok(Self::new(group, &Ranges::default()));
        };
        let ranges = state.ranges();
        let Some(mut known) = Self::new(group, ranges) else { return Ok(None) };
        if group != GroupId::SPINE {
            known.spans.push(match Stored::load(view, group)? {
                Some(stored) => stored.span,
                None => before_cuts(view, ranges, group, runs)?,
            });
            known.spans = Vec::from_iter(widest(known.spans));
        }
        Ok(Some(known))
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

    /// Whether all keys of a scope of the same range are among these.
    fn covers(&self, other: &Self) -> bool {
        widest([&self.spans[..], &other.spans].concat()).as_slice() == self.spans
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

/// What can be sent of a group: where its state stands in a store, and which rows are its own.
///
/// A cut of a range is decided in the spine before it is in the range's own log, and may wait there
/// for a quorum that lacks the very member which needs a snapshot. The keys are the range's up to that
/// entry, and no other range begins on a node where they are. The other way round, a range that is to
/// take over another and has not come there yet, is not sent: who receives it may have nothing of that
/// other, which has ceased and is sent by nobody.
///
/// # Errors
/// The store cannot be read.
pub fn to_send(
    view: &dyn View,
    group: GroupId,
) -> Result<Option<(SnapshotMark, Scope)>, ViewError> {
    let Some(known) = Scope::load(view, group)? else { return Ok(None) };
    if group == GroupId::SPINE {
        let state = State::load(view)?;
        return Ok(state.map(|state| {
            let (position, conf) = (state.position(), Some(state.conf().clone()));
            (SnapshotMark { index: position.index, term: position.term, conf }, known)
        }));
    }
    let Some(stored) = Stored::load(view, group)? else { return Ok(None) };
    let scope = Scope { group, spans: vec![stored.span] };
    if !scope.covers(&known) || !scope.taken_over(view)?.is_empty() {
        return Ok(None);
    }
    let (position, conf) = (stored.position, Some(stored.conf));
    Ok(Some((SnapshotMark { index: position.index, term: position.term, conf }, scope)))
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

/// The span that has all the keys of the others. They begin alike, as a range keeps its first key.
fn widest(spans: Vec<Span>) -> Option<Span> {
    spans.into_iter().max_by(|one, other| match (&one.end, &other.end) {
        (None, None) => std::cmp::Ordering::Equal,
        (None, _) => std::cmp::Ordering::Greater,
        (_, None) => std::cmp::Ordering::Less,
        (Some(one), Some(other)) => one.cmp(other),
    })
}

/// The keys of a range that is not here, with those of the ranges after it that were cut off it, or off
/// one of those, as far as no such range runs here and nothing here has its keys.
fn before_cuts(
    view: &dyn View,
    ranges: &Ranges,
    group: GroupId,
    runs: impl Fn(GroupId) -> bool,
) -> Result<Span, ViewError> {
    let mut here: Vec<Span> = stored::spans(view)?.into_values().collect();
    here.extend(stored::left(view)?.into_iter().map(|(_, span)| span));
    let mut cut_off = BTreeSet::from([group]);
    let mut span = ranges.get(group).expect("the table knows the range").span.clone();
    while let Some(end) = &span.end {
        let next = ranges.owner(end);
        let is_nobodys = !runs(next) && !here.iter().any(|span| span.contains(end));
        let is_cut_off = |range: &&Range| cut_off.contains(&range.parent) && is_nobodys;
        let Some(range) = ranges.get(next).filter(is_cut_off) else { break };
        cut_off.insert(next);
        span.end.clone_from(&range.span.end);
    }
    Ok(span)
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
