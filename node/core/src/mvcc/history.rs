//! The applied keys as they were at a revision, whatever the store holds by now.
//!
//! A key at revision R is its newest record if that is not above R, else the first superseded one
//! at or below R. Every function here checks after reading that no compaction above R has begun
//! to remove rows meanwhile, so an answer is either exact or `Failure::Overtaken`.

use std::ops::{Bound, ControlFlow, Range};

use bytes::{Bytes, BytesMut};

use super::Failure;
use super::compact;
use super::counts::Found;
use super::layout::{self, Record, RecordHead, Revision};
use crate::proto::Span;
use crate::proto::mvccpb::KeyValue;
use crate::view::{Column, View, ViewError};

/// Rows of one scan; a longer walk is made of several. Few under test, so that most walks are.
const PAGE_ROWS_MAX: usize = if cfg!(test) { 3 } else { 1024 };
/// Bytes of keys and values gathered by one scan, exceeded by at most one row.
const PAGE_BYTES_MAX: usize = 1 << 20;

/// The record of a key at a revision, or `None` if the key was not there.
///
/// # Errors
/// The store cannot be read, or compaction has overtaken the revision.
pub(super) fn live_at(
    view: &dyn View,
    key: &[u8],
    revision: i64,
) -> Result<Option<Record>, Failure> {
    let record = match view.get(Column::Key, key)? {
        Some(row) => {
            let newest = Record::decode(row)?;
            if newest.head.revision.main <= revision {
                return Ok(Some(newest).filter(|newest| !newest.head.is_tombstone));
            }
            superseded_at(view, key, revision)?
        }
        // Either never there, or a delete that may be above `revision` was compacted.
        None => None,
    };
    ensure_not_overtaken(view, revision)?;
    Ok(record)
}

/// Visits the live keys of a span at a revision in ascending order.
///
/// `wanted` is how many the caller expects to take; it only bounds what is read ahead. The key and
/// value handed out are slices of a buffer shared with their neighbours: who keeps few of many
/// should copy them.
///
/// # Errors
/// The store cannot be read, or compaction has overtaken the revision.
pub(super) fn visit_live(
    view: &dyn View,
    span: &Span,
    revision: i64,
    wanted: usize,
    visit: &mut dyn FnMut(KeyValue) -> ControlFlow<()>,
) -> Result<(), Failure> {
    if span.is_empty() {
        return Ok(());
    }
    if let Some(key) = span.single_key() {
        if let Some(record) = live_at(view, key, revision)? {
            let _ = visit(layout::decode_key_value(record.kv)?);
        }
        return Ok(());
    }
    let rows_max = wanted.clamp(1, PAGE_ROWS_MAX);
    let mut resume = None;
    loop {
        let page = Page::read(view, span, resume.as_deref(), revision, rows_max)?;
        let mut kvs = Vec::with_capacity(page.rows.len());
        for row in page.rows {
            match row {
                Row::Live(kv) => kvs.push(page.bytes.slice(kv)),
                Row::Newer(key) => {
                    kvs.extend(superseded_at(view, &page.bytes[key], revision)?.map(|it| it.kv));
                }
            }
        }
        ensure_not_overtaken(view, revision)?;
        for kv in kvs {
            if visit(layout::decode_key_value(kv)?).is_break() {
                return Ok(());
            }
        }
        match page.resume {
            Some(key) => resume = Some(key),
            None => return Ok(()),
        }
    }
}

/// How many keys of a span were live at a revision.
///
/// Walks the keys that the view does not remember to have counted; everything that counts goes through
/// here.
///
/// # Errors
/// The store cannot be read, or compaction has overtaken the revision.
pub(super) fn count_live(view: &dyn View, span: &Span, revision: i64) -> Result<i64, Failure> {
    if span.is_empty() {
        return Ok(0);
    }
    if let Some(key) = span.single_key() {
        return Ok(i64::from(live_at(view, key, revision)?.is_some()));
    }
    let Some(counts) = view.counts() else { return walk_live(view, span, revision, None) };
    let plan = counts.plan(span, revision);
    let mut count = plan.known;
    for piece in &plan.pieces {
        let mut found = plan.found(piece);
        count += walk_live(view, &piece.span, revision, Some(&mut found))?;
        plan.remember(piece, found, revision);
    }
    ensure_not_overtaken(view, revision)?;
    Ok(count)
}

/// Counts by looking at every key, and tells what was found where.
fn walk_live(
    view: &dyn View,
    span: &Span,
    revision: i64,
    mut found: Option<&mut Found>,
) -> Result<i64, Failure> {
    let mut count = 0;
    let mut resume: Option<Bytes> = None;
    loop {
        // Keys changed since are looked up after the scan, a bounded number at a time.
        let mut newer: Vec<Bytes> = Vec::new();
        let mut damage = None;
        view.scan(
            Column::Key,
            start_of(span, resume.as_deref()),
            end_of(span),
            &mut |key, row| {
                match RecordHead::decode(row) {
                    Ok(head) => {
                        let is_newer = head.revision.main > revision;
                        let is_live = !is_newer && !head.is_tombstone;
                        if let Some(found) = &mut found {
                            found.row(key, is_newer, is_live);
                        }
                        if is_newer {
                            newer.push(Bytes::copy_from_slice(key));
                        }
                        count += i64::from(is_live);
                    }
                    Err(error) => damage = Some(error),
                }
                stop_if(damage.is_some() || newer.len() == PAGE_ROWS_MAX)
            },
        )?;
        if let Some(error) = damage {
            return Err(error.into());
        }
        for key in &newer {
            count += i64::from(is_superseded_live_at(view, key, revision)?);
        }
        if newer.len() < PAGE_ROWS_MAX {
            ensure_not_overtaken(view, revision)?;
            return Ok(count);
        }
        resume = newer.pop();
    }
}

/// Fails if rows that a read at `revision` needs may have been removed before this call.
///
/// # Errors
/// The store cannot be read, or compaction has overtaken the revision.
pub(super) fn ensure_not_overtaken(view: &dyn View, revision: i64) -> Result<(), Failure> {
    if compact::compaction_floor(view)? > revision { Err(Failure::Overtaken) } else { Ok(()) }
}

/// Part of the keys of a span, in order, with what belongs to `revision` where a scan can see it.
struct Page {
    bytes: Bytes,
    rows: Vec<Row>,
    /// The last key looked at, unless the span has no more.
    resume: Option<Vec<u8>>,
}

enum Row {
    /// The newest record is the one wanted; where its `KeyValue` lies.
    Live(Range<usize>),
    /// The newest record is too new; where the key lies.
    Newer(Range<usize>),
}

impl Page {
    fn read(
        view: &dyn View,
        span: &Span,
        after: Option<&[u8]>,
        revision: i64,
        rows_max: usize,
    ) -> Result<Self, ViewError> {
        let mut bytes = BytesMut::new();
        let mut rows = Vec::new();
        let mut resume = None;
        let mut damage = None;
        view.scan(Column::Key, start_of(span, after), end_of(span), &mut |key, row| {
            let head = match RecordHead::decode(row) {
                Ok(head) => head,
                Err(error) => {
                    damage = Some(error);
                    return ControlFlow::Break(());
                }
            };
            let start = bytes.len();
            if head.revision.main > revision {
                bytes.extend_from_slice(key);
                rows.push(Row::Newer(start..bytes.len()));
            } else if !head.is_tombstone {
                bytes.extend_from_slice(&row[head.encoded_len()..]);
                rows.push(Row::Live(start..bytes.len()));
            }
            let is_full = rows.len() >= rows_max || bytes.len() >= PAGE_BYTES_MAX;
            if is_full {
                resume = Some(key.to_vec());
            }
            stop_if(is_full)
        })?;
        match damage {
            Some(error) => Err(error),
            None => Ok(Self { bytes: bytes.freeze(), rows, resume }),
        }
    }
}

/// The newest superseded record of a key at or below a revision, if it is a put.
fn superseded_at(view: &dyn View, key: &[u8], revision: i64) -> Result<Option<Record>, Failure> {
    let Some((found, false)) = find_superseded(view, key, revision)? else { return Ok(None) };
    match view.get(Column::Revision, &found.encode())? {
        Some(row) => {
            let record = Record::decode(row)?;
            if record.head.revision == found {
                Ok(Some(record))
            } else {
                Err(layout::damaged("a record lies under another revision").into())
            }
        }
        None => {
            ensure_not_overtaken(view, revision)?;
            Err(layout::damaged("the event of a superseded record is missing").into())
        }
    }
}

fn is_superseded_live_at(view: &dyn View, key: &[u8], revision: i64) -> Result<bool, Failure> {
    Ok(matches!(find_superseded(view, key, revision)?, Some((_, false))))
}

/// The newest superseded record of a key at or below a revision, and whether it is a tombstone.
fn find_superseded(
    view: &dyn View,
    key: &[u8],
    revision: i64,
) -> Result<Option<(Revision, bool)>, ViewError> {
    let mut from = BytesMut::with_capacity(layout::history_key_len(key));
    layout::encode_history_key(key, Revision::last_of(revision), &mut from);
    let mut to = BytesMut::with_capacity(from.len());
    layout::encode_history_key(key, Revision { main: 0, sub: 0 }, &mut to);

    let mut found = None;
    let bounds = (Bound::Included(&from[..]), Bound::Included(&to[..]));
    view.scan(Column::History, bounds.0, bounds.1, &mut |row, value| {
        let decoded = layout::decode_history_revision(row)
            .and_then(|revision| Ok((revision, layout::decode_history_value(value)?)));
        found = Some(decoded);
        ControlFlow::Break(())
    })?;
    found.transpose()
}

fn start_of<'a>(span: &'a Span, after: Option<&'a [u8]>) -> Bound<&'a [u8]> {
    after.map_or(Bound::Included(&span.start), Bound::Excluded)
}

fn end_of(span: &Span) -> Bound<&[u8]> {
    span.end.as_deref().map_or(Bound::Unbounded, Bound::Excluded)
}

fn stop_if(condition: bool) -> ControlFlow<()> {
    if condition { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}
