//! Lists that are encoded while they are read: a key lies in the store as it is sent, and what is sent is
//! cut from the buffer that the store was read into.

use bytes::Bytes;
use prost::Message;

use super::draft::header;
use super::history::{self, Encoded, Wanted};
use super::page::Cursor;
use super::read;
use super::{Failure, Head};
use crate::Error;
use crate::proto::Span;
use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::range_request::SortTarget;
use crate::view::View;

/// A `RangeResponse` whose keys are encoded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EncodedRange {
    /// As there.
    pub header: Option<pb::ResponseHeader>,
    /// One after the other, the bytes of the field with its tags.
    pub kvs: Vec<Bytes>,
    /// As there.
    pub more: bool,
    /// As there.
    pub count: i64,
}

impl EncodedRange {
    /// What is sent before the keys and after them: messages that are joined by lying one after the
    /// other.
    pub fn around(&self) -> [pb::RangeResponse; 2] {
        let before = pb::RangeResponse { header: self.header, ..Default::default() };
        let after = pb::RangeResponse { more: self.more, count: self.count, ..Default::default() };
        [before, after]
    }

    /// Bytes of the message.
    pub fn encoded_len(&self) -> usize {
        let around: usize = self.around().iter().map(Message::encoded_len).sum();
        around + self.kvs.iter().map(Bytes::len).sum::<usize>()
    }
}

/// A piece of a list.
#[derive(Clone, Debug, PartialEq)]
pub struct EncodedPage {
    /// The pieces' keys are one after the other those of the list; all else is right in the last.
    pub answer: EncodedRange,
    /// What is left to do.
    pub rest: Rest,
}

/// What follows a piece of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Nothing.
    Done,
    /// The next piece.
    Next(Cursor),
    /// The keys beyond the limit have to be counted.
    Count(Uncounted),
}

/// Keys that are part of the count of a list, and not of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uncounted {
    span: Span,
    revision: i64,
}

/// Whether a checked KV.Range is a list that `read_encoded` reads. One with a target is sorted even without
/// an order.
pub fn is_encodable(request: &pb::RangeRequest) -> bool {
    !request.range_end.is_empty()
        && !request.count_only
        && !request.keys_only
        && request.sort_target() == SortTarget::Key
        && read::is_default_order(request)
        && !read::has_bounds(request)
}

/// Reads a piece of a list: the first one without a cursor. See `read_page`.
///
/// # Errors
/// As `read_page`.
pub fn read_encoded(
    view: &dyn View,
    head: Head,
    request: &pb::RangeRequest,
    cursor: Option<Cursor>,
    bytes_max: usize,
) -> Result<EncodedPage, Failure> {
    let (cursor, span) = Cursor::resume(head, request, cursor)?;
    let keys_max = read::limit(request) - cursor.sent;
    let wanted = Wanted { keys: keys_max, bytes: bytes_max };
    let Encoded { pieces, keys, rest } =
        history::encode_live(view, &span, cursor.revision, wanted)?;
    let sent = cursor.sent + keys;
    let mut answer = EncodedRange { kvs: pieces, ..EncodedRange::default() };
    let rest = match rest {
        Some(start) if keys < keys_max => {
            let next = Cursor { start, sent, ..cursor };
            return Ok(EncodedPage { answer, rest: Rest::Next(next) });
        }
        Some(start) => {
            answer.more = true;
            let span = Span { start, end: span.end };
            Rest::Count(Uncounted { span, revision: cursor.revision })
        }
        None => Rest::Done,
    };
    answer.count = sent as i64;
    answer.header = header(cursor.header_revision);
    Ok(EncodedPage { answer, rest })
}

/// How many keys there are beyond the limit. Takes as long as looking at them, if they were not counted
/// lately.
///
/// # Errors
/// As `read_page`.
pub fn count_rest(view: &dyn View, head: Head, rest: &Uncounted) -> Result<i64, Failure> {
    if rest.revision < head.compact_revision {
        return Err(Error::Compacted.into());
    }
    history::count_live(view, &rest.span, rest.revision)
}
