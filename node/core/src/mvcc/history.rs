//! The applied keys as they were at a revision, whatever the store holds by now.
//!
//! A key at revision R is its newest record if that is not above R, else the first superseded one
//! at or below R. Every function here checks after reading that no compaction above R has begun
//! to remove rows meanwhile, so an answer is either exact or `Failure::Overtaken`.

use std::mem;
use std::ops::{Bound, ControlFlow, Range};

use bytes::{BufMut, Bytes, BytesMut};
use prost::encoding::{self, WireType};

use super::Failure;
use super::compact;
use super::counts::Found;
use super::layout::{self, KeyValueFields, Record, RecordHead, Revision};
use crate::proto::Span;
use crate::proto::mvccpb::KeyValue;
use crate::view::{Column, View, ViewError};

/// Rows of one scan; a longer walk is made of several. Few under test, so that most walks are.
const PAGE_ROWS_MAX: usize = if cfg!(test) { 3 } else { 1024 };
/// Bytes of keys and values gathered by one scan, exceeded by at most one row.
const PAGE_BYTES_MAX: usize = 1 << 20;
/// A scan that has gathered more than so many bytes gets room for all that is wanted.
const SMALL_BYTES: usize = 128 << 10;

/// How much of a span its caller expects to take; it only bounds what is read ahead.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    /// Keys.
    pub(super) keys: usize,
    /// Bytes of keys and values.
    pub(super) bytes: usize,
}

impl Wanted {
    /// Whatever there is.
    pub(super) const ALL: Self = Self::keys(usize::MAX);

    /// So many keys.
    pub(super) const fn keys(keys: usize) -> Self {
        Self { keys, bytes: usize::MAX }
    }

    fn of_one_scan(self) -> Self {
        Self { keys: self.keys.clamp(1, PAGE_ROWS_MAX), bytes: self.bytes.min(PAGE_BYTES_MAX) }
    }
}

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
/// The key and value handed out are slices of a buffer shared with their neighbours: who keeps few of
/// many should copy them.
///
/// # Errors
/// The store cannot be read, or compaction has overtaken the revision.
pub(super) fn visit_live(
    view: &dyn View,
    span: &Span,
    revision: i64,
    wanted: Wanted,
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
    let wanted = wanted.of_one_scan();
    let mut resume = None;
    loop {
        let page = Page::read(view, span, resume.as_deref(), revision, wanted)?;
        let mut kvs = Vec::with_capacity(page.rows.len());
        for row in page.rows {
            match row {
                Row::Live { kv, .. } => kvs.push(page.bytes.slice(kv)),
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

/// Keys as they are sent.
#[derive(Debug, Default)]
pub(super) struct Encoded {
    /// One after the other, the bytes of the field `kvs` of a `RangeResponse`, with its tags.
    pub(super) pieces: Vec<Bytes>,
    /// How many keys these are.
    pub(super) keys: usize,
    /// The first key that is live and not among them.
    pub(super) rest: Option<Bytes>,
}

/// The first live keys of a span at a revision, no more than are wanted, and at least one if there is
/// one. Their bytes are exceeded by at most one key.
///
/// # Errors
/// The store cannot be read, or compaction has overtaken the revision.
pub(super) fn encode_live(
    view: &dyn View,
    span: &Span,
    revision: i64,
    wanted: Wanted,
) -> Result<Encoded, Failure> {
    let mut taken = Encoded::default();
    if span.is_empty() {
        return Ok(taken);
    }
    let (mut bytes, mut resume) = (0, None);
    loop {
        let is_enough = |keys, bytes| keys == wanted.keys || (bytes >= wanted.bytes && keys > 0);
        // What is sent keeps its whole buffer in memory: nothing else is read into it. Who has enough
        // looks for the next key alone.
        let left = if is_enough(taken.keys, bytes) {
            Wanted::keys(1)
        } else {
            let bytes = wanted.bytes.saturating_sub(bytes);
            Wanted { keys: wanted.keys - taken.keys, bytes }.of_one_scan()
        };
        let page = Page::read(view, span, resume.as_deref(), revision, left)?;
        // What was taken of the page and lies together.
        let mut run = 0..0;
        for row in &page.rows {
            let superseded = match row {
                Row::Live { .. } => None,
                Row::Newer(key) => match superseded_at(view, &page.bytes[key.clone()], revision)? {
                    Some(record) => Some(record.kv),
                    None => continue,
                },
            };
            let kv = match (row, &superseded) {
                (Row::Live { kv, .. }, _) => &page.bytes[kv.clone()],
                (Row::Newer(_), kv) => kv.as_deref().expect("it was found above"),
            };
            if is_enough(taken.keys, bytes) {
                let key = KeyValueFields::decode(kv)?.key;
                taken.rest = Some(Bytes::copy_from_slice(key));
                break;
            }
            taken.keys += 1;
            bytes += kv.len();
            match row {
                Row::Live { field, kv } if *field == run.end => run.end = kv.end,
                Row::Live { field, kv } => {
                    taken.push(page.bytes.slice(run));
                    run = *field..kv.end;
                }
                Row::Newer(_) => {
                    taken.push(page.bytes.slice(mem::take(&mut run)));
                    let mut field = BytesMut::with_capacity(FIELD_HEAD_BYTES_MAX + kv.len());
                    begin_field(kv.len(), &mut field);
                    field.put_slice(kv);
                    taken.push(field.freeze());
                }
            }
        }
        taken.push(page.bytes.slice(run));
        ensure_not_overtaken(view, revision)?;
        match page.resume {
            Some(key) if taken.rest.is_none() => resume = Some(key),
            _ => return Ok(taken),
        }
    }
}

impl Encoded {
    fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.pieces.push(piece);
        }
    }
}

/// Bytes before a `KeyValue` in the field `kvs` of a `RangeResponse`, at most.
const FIELD_HEAD_BYTES_MAX: usize = 11;

/// Writes what comes before a `KeyValue` of so many bytes in the field `kvs` of a `RangeResponse`.
fn begin_field(bytes: usize, buf: &mut BytesMut) {
    const KVS: u32 = 2;
    encoding::encode_key(KVS, WireType::LengthDelimited, buf);
    encoding::encode_varint(bytes as u64, buf);
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
    /// The newest record is the one wanted; where its `KeyValue` lies, and where what comes before it
    /// when it is sent.
    Live { field: usize, kv: Range<usize> },
    /// The newest record is too new; where the key lies.
    Newer(Range<usize>),
}

impl Page {
    fn read(
        view: &dyn View,
        span: &Span,
        after: Option<&[u8]>,
        revision: i64,
        wanted: Wanted,
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
                let kv = &row[head.encoded_len()..];
                let more = FIELD_HEAD_BYTES_MAX + kv.len();
                // Small lists take what they need; of larger ones there is mostly more to come.
                if bytes.capacity() - start < more && start + more > SMALL_BYTES {
                    let left = wanted.bytes.saturating_sub(start);
                    bytes.reserve(more + left);
                }
                begin_field(kv.len(), &mut bytes);
                let kv_start = bytes.len();
                bytes.extend_from_slice(kv);
                rows.push(Row::Live { field: start, kv: kv_start..bytes.len() });
            }
            let is_full = rows.len() >= wanted.keys || bytes.len() >= wanted.bytes;
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
