//! Reading ranges that a node does not show itself, because it holds no replica of them or one that
//! is still being filled: another node is asked, which reads at the state that the asking node shows.
//!
//! A question names the range, the index of the spine that must be shown, and the revision to be
//! read. It depends on nothing that the one who answers remembers, so it may be lost, repeated, and
//! put to another. KV.Range is cut into pages (`Reading`), each of which one range answers; for
//! anything else that is evaluated the rows it takes are fetched (`Overlay`). What watchers want of
//! the past is put together of pieces (`Assembly`).

mod assembly;
mod attached;
mod backup;
mod changes;
mod gathering;
mod overlay;
mod owners;
mod reading;
mod recorder;

pub use assembly::Assembly;
pub use attached::Attached;
pub use backup::{Backup, Wanted};
pub use changes::{CHANGES_MAX, CHANGES_ROWS_MAX, backup_page, changes, told_backup};
pub use gathering::Gathering;
pub use overlay::Overlay;
pub use owners::Owners;
pub use reading::Reading;

use bytes::{Bytes, BytesMut};
use prost::Message;

use crate::Error;
use crate::mutant::{self, Mutant};
use crate::mvcc::layout::{self, Record};
use crate::mvcc::{self, Failure, Head, Page};
use crate::proto::Span;
use crate::proto::etcdserverpb as pb;
use crate::proto::internal::{Ask, AskedRows, SnapshotMark, SnapshotRow, Told, ask::What};
use crate::range::stored::Stored;
use crate::view::{Column, View, ViewError};
use crate::{GroupId, LeaseId};
use recorder::Recorder;

/// Bytes of keys and values in one answer, exceeded by at most one key.
pub const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Bytes of the rows fetched for one request.
pub const ROWS_BYTES_MAX: usize = 64 << 20;
/// Bytes of the keys in one range that are attached to one lease, where another node asks for them.
const ATTACHED_BYTES_MAX: usize = 16 << 20;

/// The keys that a question is about; `None` if it is about none.
pub fn spans(ask: &Ask) -> Vec<Span> {
    match &ask.what {
        Some(What::Read(read)) => {
            vec![Span::from_request(read.key.clone(), read.range_end.clone())]
        }
        Some(What::Rows(rows)) => {
            let span = |it: &crate::proto::internal::AskedSpan| {
                Span::from_request(it.key.clone(), it.range_end.clone())
            };
            rows.span.iter().map(span).collect()
        }
        Some(What::Changes(asked)) => vec![changes::span_of(asked)],
        Some(What::Members(_)) | None => Vec::new(),
    }
}

/// Answers a question from a store that shows the range and everything that is asked for.
///
/// # Errors
/// The store cannot be read.
pub fn answer(view: &dyn View, ask: &Ask) -> Result<Told, ViewError> {
    let head = Head { revision: ask.revision, compact_revision: ask.compact_revision };
    let told = Told { origin: ask.origin, n: ask.n, ..Told::default() };
    let result = match &ask.what {
        Some(What::Read(read)) => page(view, head, read).map(|page| {
            let next = page.next.map(|cursor| cursor.start().clone()).unwrap_or_default();
            Told { answer: Some(page.answer), next, ..told.clone() }
        }),
        Some(What::Rows(asked)) => {
            rows(view, head, asked).map(|(rows, next)| Told { rows, next, ..told.clone() })
        }
        Some(What::Members(_)) => {
            // Of members that are not settled nobody can say that they will stay.
            let stored = Stored::load(view, GroupId(ask.range))?;
            let mark = stored.filter(|stored| stored.is_conf_settled).map(|stored| SnapshotMark {
                index: stored.position.index,
                term: stored.position.term,
                conf: Some(stored.conf),
            });
            Ok(Told { mark, ..told.clone() })
        }
        // What is asked for is not shown by then.
        Some(What::Changes(asked)) if asked.to > ask.revision => Ok(refusal(ask)),
        Some(What::Changes(asked)) if asked.is_backup => {
            backup_page(view, asked, head.compact_revision).map(|page| {
                let told = changes::tell_backup(page);
                Told { origin: ask.origin, n: ask.n, ..told }
            })
        }
        Some(What::Changes(asked)) => changes(view, asked).map(|page| {
            let told = changes::tell(page);
            Told { origin: ask.origin, n: ask.n, ..told }
        }),
        None => Ok(refusal(ask)),
    };
    match result {
        Ok(told) => Ok(told),
        Err(Failure::Client(error)) => Ok(Told { error: error.text().to_owned(), ..told }),
        Err(Failure::Overtaken) => Ok(Told { is_overtaken: true, ..told }),
        Err(Failure::View(error)) => Err(error),
    }
}

/// Not here, or not now.
pub fn refusal(ask: &Ask) -> Told {
    Told { origin: ask.origin, n: ask.n, is_refused: true, ..Told::default() }
}

/// What an answer says, if it is one.
///
/// # Errors
/// The client is told, or a newer head is needed.
pub fn outcome(told: Told) -> Result<Told, Failure> {
    if told.is_overtaken {
        return Err(Failure::Overtaken);
    }
    if !told.error.is_empty() {
        let known = Error::ALL.iter().copied().find(|error| error.text() == told.error);
        return Err(known.unwrap_or(Error::UnknownMethod).into());
    }
    Ok(told)
}

/// One page of a read, from a store that shows all of its keys.
///
/// # Errors
/// As `mvcc::read`.
pub fn page(view: &dyn View, head: Head, read: &pb::RangeRequest) -> Result<Page, Failure> {
    if mutant::is(Mutant::PagesAtNewest) && read.revision == head.revision {
        let newest = Head { revision: i64::MAX - 1, ..head };
        let read = pb::RangeRequest { revision: 0, ..read.clone() };
        return mvcc::read_page(view, newest, &read, None, ANSWER_BYTES_MAX);
    }
    mvcc::read_page(view, head, read, None, ANSWER_BYTES_MAX)
}

/// A page of the rows that it takes to read the span, and the first key that is not in it; empty
/// when there is none.
fn rows(
    view: &dyn View,
    head: Head,
    asked: &AskedRows,
) -> Result<(Vec<SnapshotRow>, Bytes), Failure> {
    if asked.lease != 0 {
        return Ok((attached(view, asked)?, Bytes::new()));
    }
    let bytes_max = match asked.bytes_max {
        0 => ANSWER_BYTES_MAX,
        wanted => ANSWER_BYTES_MAX.min(wanted as usize),
    };
    let span = asked.span.clone().unwrap_or_default();
    let request = pb::RangeRequest {
        key: span.key,
        range_end: span.range_end,
        revision: span.revision,
        keys_only: asked.keys_only,
        ..pb::RangeRequest::default()
    };
    let recorder = Recorder::new(view);
    let next = match mvcc::read_page(&recorder, head, &request, None, bytes_max) {
        Ok(page) => page.next.map(|cursor| cursor.start().clone()).unwrap_or_default(),
        // What the request makes of a revision that cannot be read is found when it is evaluated.
        Err(Failure::Client(_)) => Bytes::new(),
        Err(error) => return Err(error),
    };
    let mut rows = Vec::new();
    for (column, key, value) in recorder.into_rows() {
        // To know where the next page begins its first key was looked at. It is read anew with that
        // page, wherever it is by then.
        let of = layout::key_of(column, &key, &value)?;
        if !next.is_empty() && of.is_some_and(|of| *of >= *next) {
            continue;
        }
        let is_record = matches!(column, Column::Key | Column::Revision);
        let value = if asked.keys_only && is_record { without_value(value)? } else { value };
        rows.push(SnapshotRow { column: column as u32, key, value });
    }
    Ok((rows, next))
}

/// The record of a key whose value nobody looks at.
fn without_value(record: Bytes) -> Result<Bytes, ViewError> {
    let Record { head, kv } = Record::decode(record)?;
    let mut kv = layout::decode_key_value(kv)?;
    kv.value = Bytes::new();
    let mut record = BytesMut::with_capacity(head.encoded_len() + kv.encoded_len());
    head.encode(&mut record);
    kv.encode(&mut record).expect("there is room");
    Ok(record.freeze())
}

/// The rows that say which keys are attached to a lease: now, or at the revision that a span names.
///
/// # Errors
/// As `mvcc::read`.
pub fn attached(view: &dyn View, asked: &AskedRows) -> Result<Vec<SnapshotRow>, Failure> {
    let lease = LeaseId(asked.lease);
    let within = asked.span.clone().unwrap_or_default();
    let span = Span::from_request(within.key, within.range_end);
    let keys = match within.revision {
        0 => mvcc::lease_keys(view, lease)?,
        revision => mvcc::lease_keys_at(view, lease, &span, revision)?,
    };
    let mut rows = Vec::new();
    let mut bytes = 0;
    for key in keys.into_iter().filter(|key| span.contains(key)) {
        bytes += key.len();
        let (column, key) = (Column::LeaseKey as u32, mvcc::lease_row(lease, &key));
        rows.push(SnapshotRow { column, key, value: Bytes::new() });
    }
    if bytes > ATTACHED_BYTES_MAX { Err(Error::RequestTooLarge.into()) } else { Ok(rows) }
}
