//! What happened to the keys of a range, as it is asked for and told.

use bytes::Bytes;

use crate::mvcc::layout::{KeyValueFields, Record, RecordHead, Revision};
use crate::mvcc::{self, Below, Failure, KeptPage, ReplayLimits, ReplayPage};
use crate::proto::Span;
use crate::proto::internal::{AskedChanges, Change, Told};
use crate::view::View;

/// Changes in one answer.
pub const CHANGES_MAX: u32 = 10_000;
/// Changes of any range looked at for one answer.
pub const CHANGES_ROWS_MAX: u32 = 100_000;

/// The keys asked for.
pub(super) fn span_of(asked: &AskedChanges) -> Span {
    Span::from_request(asked.key.clone(), asked.range_end.clone())
}

/// A piece of history, from a store that shows its keys and its last revision.
///
/// # Errors
/// As `mvcc::events_from`.
pub fn changes(view: &dyn View, asked: &AskedChanges) -> Result<ReplayPage, Failure> {
    let (from, limits) = (first_of(asked), limits_of(asked));
    mvcc::events_page(view, &span_of(asked), from, asked.to, asked.wants_prev, limits)
}

fn first_of(asked: &AskedChanges) -> Revision {
    Revision { main: asked.from.max(0), sub: asked.from_sub.max(0) }
}

fn limits_of(asked: &AskedChanges) -> ReplayLimits {
    let count = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
    ReplayLimits {
        events_max: count(asked.changes_max.min(CHANGES_MAX)),
        bytes_max: count(asked.bytes_max).min(super::ANSWER_BYTES_MAX),
        rows_max: count(asked.rows_max.min(CHANGES_ROWS_MAX)),
    }
}

/// A piece of a backup, from a store that shows its keys and its last revision.
///
/// # Errors
/// As `mvcc::kept_page`.
pub fn backup_page(
    view: &dyn View,
    asked: &AskedChanges,
    compact_revision: i64,
) -> Result<KeptPage, Failure> {
    let span = span_of(asked);
    let is_wanted = |key: &[u8]| span.contains(key);
    let (from, limits) = (first_of(asked), limits_of(asked));
    let below = match asked.newest_at {
        0 => Below::Readable,
        revision => Below::Newest(revision),
    };
    mvcc::kept_page(view, &is_wanted, from, asked.to, (compact_revision, below), limits)
}

/// As it is told.
pub(super) fn tell_backup(page: KeptPage) -> Told {
    let change = |record: Record| Change {
        revision: record.head.revision.main,
        sub: record.head.revision.sub,
        is_delete: record.head.is_tombstone,
        kv: record.kv,
        prev: Bytes::new(),
    };
    Told {
        changes: page.records.into_iter().map(change).collect(),
        next_revision: page.next.main,
        next_sub: page.next.sub,
        compact_revision: page.compact_revision,
        ..Told::default()
    }
}

/// As it was told; `None` if that is no answer to what was asked.
pub fn told_backup(asked: &AskedChanges, told: Told) -> Option<KeptPage> {
    let first = Revision { main: asked.from, sub: asked.from_sub };
    let next = Revision { main: told.next_revision, sub: told.next_sub };
    let span = span_of(asked);
    let (mut records, mut last) = (Vec::with_capacity(told.changes.len()), None);
    for change in told.changes {
        let revision = Revision { main: change.revision, sub: change.sub };
        let fields = KeyValueFields::decode(&change.kv).ok()?;
        let is_after = last.is_none_or(|last| last < revision);
        let is_within = first <= revision && revision < next && span.contains(fields.key);
        if !is_after || !is_within {
            return None;
        }
        last = Some(revision);
        // Which put it superseded is nothing that a backup has.
        let head = RecordHead { revision, is_tombstone: change.is_delete, previous: None };
        records.push(Record { head, kv: change.kv });
    }
    let is_answer = first < next && next.main <= asked.to + 1;
    let compact_revision = told.compact_revision;
    is_answer.then_some(KeptPage { records, next, compact_revision })
}

/// As it is told.
pub(super) fn tell(page: ReplayPage) -> Told {
    let change = |event: mvcc::Event| Change {
        revision: event.revision,
        sub: event.sub,
        is_delete: event.is_delete,
        kv: event.kv,
        prev: event.prev.unwrap_or_default(),
    };
    Told {
        changes: page.events.into_iter().map(change).collect(),
        next_revision: page.next.main,
        next_sub: page.next.sub,
        ..Told::default()
    }
}

/// As it was told; `None` if that is no answer to what was asked.
pub(super) fn page(asked: &AskedChanges, told: Told) -> Option<ReplayPage> {
    let first = Revision { main: asked.from, sub: asked.from_sub };
    let next = Revision { main: told.next_revision, sub: told.next_sub };
    let span = span_of(asked);
    let (mut events, mut last) = (Vec::with_capacity(told.changes.len()), None);
    for change in told.changes {
        let place = Revision { main: change.revision, sub: change.sub };
        let fields = KeyValueFields::decode(&change.kv).ok()?;
        let is_create = !change.is_delete && fields.create_revision == change.revision;
        let is_after = last.is_none_or(|last| last < place);
        if !is_after || place < first || place >= next || !span.contains(fields.key) {
            return None;
        }
        last = Some(place);
        let key = change.kv.slice_ref(fields.key);
        events.push(mvcc::Event {
            revision: change.revision,
            sub: change.sub,
            key,
            is_delete: change.is_delete,
            is_create,
            kv: change.kv,
            prev: (!change.prev.is_empty()).then_some(change.prev),
        });
    }
    let is_answer = first < next && next.main <= asked.to + 1;
    is_answer.then_some(ReplayPage { events, next })
}

/// Bytes of an event that limits speak of.
pub(super) fn bytes(event: &mvcc::Event) -> usize {
    event.kv.len() + event.prev.as_ref().map_or(0, Bytes::len)
}
