//! The events of the past, for watchers that are behind.

use std::ops::{Bound, ControlFlow};

use bytes::Bytes;

use super::Failure;
use super::compact;
use super::event::Event;
use super::history;
use super::layout::{KeyValueFields, Record, RecordHead, Revision};
use crate::Error;
use crate::proto::Span;
use crate::view::{Column, View, ViewError};

/// Where a piece of history may end; a revision is never split, so each can be exceeded by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayLimits {
    /// Events of the span.
    pub events_max: usize,
    /// Bytes of their keys and values, and of what was there before.
    pub bytes_max: usize,
    /// Events looked at, be they of the span or not.
    pub rows_max: usize,
}

/// A piece of history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    /// In the order of their revisions.
    pub events: Vec<Event>,
    /// The first revision that was not looked at; above `to` when nothing is left.
    pub next: i64,
}

/// A piece of history that may end within a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayPage {
    /// In the order of their revisions.
    pub events: Vec<Event>,
    /// The first place that was not looked at; above `to` when nothing is left.
    pub next: Revision,
}

/// The events of a span at the revisions `from..=to`, or as many of the first ones as the limits
/// allow. With `wants_prev`, each is given the key as it was before, unless that is compacted.
///
/// # Errors
/// `Compacted` for the client when compaction above `from` has begun to remove events.
pub fn events_from(
    view: &dyn View,
    span: &Span,
    from: i64,
    to: i64,
    wants_prev: bool,
    limits: ReplayLimits,
) -> Result<Replay, Failure> {
    let first = Revision { main: from, sub: 0 };
    let ReplayPage { events, next } = replay(view, span, (first, to), wants_prev, limits, false)?;
    Ok(Replay { events, next: next.main })
}

/// As `events_from`, from a place within the first revision on, and exceeding the limits by no more
/// than one event.
///
/// # Errors
/// As `events_from`.
pub fn events_page(
    view: &dyn View,
    span: &Span,
    from: Revision,
    to: i64,
    wants_prev: bool,
    limits: ReplayLimits,
) -> Result<ReplayPage, Failure> {
    replay(view, span, (from, to), wants_prev, limits, true)
}

fn replay(
    view: &dyn View,
    span: &Span,
    (from, to): (Revision, i64),
    wants_prev: bool,
    limits: ReplayLimits,
    may_split: bool,
) -> Result<ReplayPage, Failure> {
    let mut records = Vec::new();
    let mut next = Revision { main: to.saturating_add(1), sub: 0 }.max(from);
    let mut damage = None;
    let (mut rows_count, mut bytes_count) = (0, 0);
    let mut looking_at = from.main;
    let first = Revision { main: from.main.max(0), ..from }.encode();
    let last = Revision::last_of(to.max(0)).encode();
    let bounds = (Bound::Included(&first[..]), Bound::Included(&last[..]));
    view.scan(Column::Revision, bounds.0, bounds.1, &mut |_, value| {
        let found = match find(value, span) {
            Ok(found) => found,
            Err(error) => {
                damage = Some(error);
                return ControlFlow::Break(());
            }
        };
        let at = found.head.revision;
        let is_full = rows_count >= limits.rows_max
            || records.len() >= limits.events_max
            || bytes_count >= limits.bytes_max;
        if is_full && ((may_split && rows_count > 0) || at.main != looking_at) {
            next = at;
            return ControlFlow::Break(());
        }
        looking_at = at.main;
        rows_count += 1;
        if let Some(kv) = found.kv {
            bytes_count += kv.len();
            records.push(Record { head: found.head, kv: Bytes::copy_from_slice(kv) });
        }
        ControlFlow::Continue(())
    })?;
    if let Some(error) = damage {
        return Err(error.into());
    }

    let mut events: Vec<Event> = Vec::with_capacity(records.len());
    let mut bytes_count = 0;
    for record in records {
        let at = record.head.revision;
        // What was there before may be larger than what is there now.
        let may_end = events.last().is_some_and(|last| may_split || last.revision != at.main);
        if may_end && bytes_count >= limits.bytes_max {
            next = at;
            break;
        }
        let before = if wants_prev { before(view, &record)? } else { None };
        let event = Event::new(&record, before)?;
        bytes_count += record.kv.len() + event.prev.as_ref().map_or(0, Bytes::len);
        events.push(event);
    }
    if compact::compaction_floor(view)? > from.main {
        return Err(Error::Compacted.into());
    }
    Ok(ReplayPage { events, next })
}

struct Found<'a> {
    head: RecordHead,
    /// The encoded `KeyValue`, if the key belongs to the span.
    kv: Option<&'a [u8]>,
}

fn find<'a>(value: &'a [u8], span: &Span) -> Result<Found<'a>, ViewError> {
    let head = RecordHead::decode(value)?;
    let kv = &value[head.encoded_len()..];
    let is_wanted = span.contains(KeyValueFields::decode(kv)?.key);
    Ok(Found { head, kv: is_wanted.then_some(kv) })
}

/// The encoded `KeyValue` before the main revision of a record, unless it is compacted.
fn before(view: &dyn View, record: &Record) -> Result<Option<Bytes>, Failure> {
    let Some(previous) = record.head.previous else { return Ok(None) };
    if previous.main < record.head.revision.main {
        return match view.get(Column::Revision, &previous.encode())? {
            Some(row) => Ok(Some(Record::decode(row)?.kv)),
            None => Ok(None),
        };
    }
    // The key was changed twice at this revision, and what was there before it is further back.
    let key = KeyValueFields::decode(&record.kv)?.key;
    match history::live_at(view, key, previous.main - 1) {
        Ok(before) => Ok(before.map(|before| before.kv)),
        Err(Failure::Overtaken) => Ok(None),
        Err(failure) => Err(failure),
    }
}
