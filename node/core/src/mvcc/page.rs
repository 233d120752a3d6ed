//! KV.RangeStream: a read in pieces. All pieces show one revision, and nothing is held between
//! them but a cursor.

use std::ops::ControlFlow;

use bytes::Bytes;
use prost::Message;

use super::draft::header;
use super::history::Wanted;
use super::keyspace::Keyspace;
use super::read;
use super::{Failure, Head};
use crate::Error;
use crate::proto::Span;
use crate::proto::etcdserverpb as pb;
use crate::view::View;

/// Where the next piece of a read goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The lowest key not yet sent.
    pub(crate) start: Bytes,
    /// The revision read at.
    pub(crate) revision: i64,
    /// The store's revision when the first piece was read.
    pub(crate) header_revision: i64,
    /// Keys sent so far.
    pub(crate) sent: usize,
}

impl Cursor {
    /// Where a read goes on, or begins, and what of its span is left.
    ///
    /// # Errors
    /// As `read_page`.
    pub(crate) fn resume(
        head: Head,
        request: &pb::RangeRequest,
        cursor: Option<Self>,
    ) -> Result<(Self, Span), Failure> {
        let span = Span::from_request(request.key.clone(), request.range_end.clone());
        let cursor = match cursor {
            Some(cursor) if cursor.revision < head.compact_revision => {
                return Err(Error::Compacted.into());
            }
            Some(cursor) => cursor,
            None => Self {
                start: span.start,
                revision: read::readable_revision(head, request.revision)?,
                header_revision: head.revision,
                sent: 0,
            },
        };
        let span = Span { start: cursor.start.clone(), end: span.end };
        Ok((cursor, span))
    }

    /// The lowest key not yet sent.
    pub fn start(&self) -> &Bytes {
        &self.start
    }
}

/// A piece of a read.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// Header, count and `more` are set in the last piece only, so that the pieces merged in
    /// order are the answer of KV.Range.
    pub answer: pb::RangeResponse,
    /// Reads the next piece; `None` after the last one.
    pub next: Option<Cursor>,
}

/// Reads one piece of a checked KV.RangeStream: the first one without a cursor. A piece holds at
/// least one key if there is one, and its size exceeds `bytes_max` by at most one key. `head` may
/// move on from piece to piece.
///
/// # Errors
/// As `read`; also `Compacted` once the store is compacted above the revision of the first piece.
pub fn read_page(
    view: &dyn View,
    head: Head,
    request: &pb::RangeRequest,
    cursor: Option<Cursor>,
    bytes_max: usize,
) -> Result<Page, Failure> {
    if request.count_only {
        return Ok(Page { answer: read::read(view, head, request)?, next: None });
    }
    let (cursor, span) = Cursor::resume(head, request, cursor)?;
    let keys = Keyspace::new(view, cursor.revision);
    let limit_left = read::limit(request) - cursor.sent;

    let mut answer = pb::RangeResponse::default();
    let mut bytes = 0;
    let mut rest = None;
    let wanted = Wanted { keys: limit_left.saturating_add(1), bytes: bytes_max };
    keys.visit(&span, wanted, &mut |kv| {
        if answer.kvs.len() == limit_left || (bytes >= bytes_max && !answer.kvs.is_empty()) {
            rest = Some(kv.key);
            return ControlFlow::Break(());
        }
        let kv = read::trim(request, kv);
        bytes += kv.encoded_len();
        answer.kvs.push(kv);
        ControlFlow::Continue(())
    })?;
    if request.keys_only {
        for kv in &mut answer.kvs {
            kv.value = Bytes::new();
        }
    }

    let sent = cursor.sent + answer.kvs.len();
    if let Some(start) = rest {
        if answer.kvs.len() < limit_left {
            let start = Bytes::copy_from_slice(&start);
            return Ok(Page { answer, next: Some(Cursor { start, sent, ..cursor }) });
        }
        answer.more = true;
        answer.count = keys.count(&Span { start, end: span.end })?;
    }
    answer.count += sent as i64;
    answer.header = header(cursor.header_revision);
    Ok(Page { answer, next: None })
}
