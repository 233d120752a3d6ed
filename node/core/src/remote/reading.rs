//! KV.Range over any number of ranges, page by page. Where a page is read is for the driver to say:
//! here, if this node shows the range, or elsewhere.

use bytes::Bytes;

use super::table::{self, Table};
use crate::GroupId;
use crate::mvcc::{self, Failure, Head};
use crate::proto::Span;
use crate::proto::etcdserverpb as pb;

/// A read under way. It holds what it has read.
#[derive(Debug)]
pub struct Reading {
    request: pb::RangeRequest,
    head: Head,
    revision: i64,
    /// What is not read yet; `None` when all is.
    rest: Option<Span>,
    /// Keys that are still wanted; the others only count.
    wanted: usize,
    answer: pb::RangeResponse,
}

impl Reading {
    /// Of a checked request, at a head.
    ///
    /// # Errors
    /// The revision cannot be read.
    pub fn new(head: Head, request: pb::RangeRequest) -> Result<Self, Failure> {
        let revision = mvcc::readable_revision(head, request.revision)?;
        let span = Span::from_request(request.key.clone(), request.range_end.clone());
        let wanted = mvcc::wanted_in_key_order(&request);
        let rest = (!span.is_empty()).then_some(span);
        Ok(Self { request, head, revision, rest, wanted, answer: pb::RangeResponse::default() })
    }

    /// The next page: whom it belongs to, and what to read there at the head. Asked again, it answers
    /// by the table as it is then.
    pub fn next(&self, table: &dyn Table) -> Option<(GroupId, pb::RangeRequest)> {
        let rest = self.rest.as_ref()?;
        let (range, span) = table::first_piece(table, rest);
        let (key, range_end) = span.into_request();
        let is_over = self.answer.kvs.len() >= self.wanted;
        let read = pb::RangeRequest {
            key,
            range_end,
            revision: self.revision,
            count_only: self.request.count_only || is_over,
            keys_only: self.request.keys_only && !mvcc::is_sorted_by_value(&self.request),
            limit: if self.wanted == usize::MAX || is_over {
                0
            } else {
                i64::try_from(self.wanted - self.answer.kvs.len()).unwrap_or(0)
            },
            ..pb::RangeRequest::default()
        };
        Some((range, read))
    }

    /// Takes the page that `next` asked for, and where the one after it begins if its keys were not
    /// all read.
    pub fn take(&mut self, read: &pb::RangeRequest, page: pb::RangeResponse, next: Option<Bytes>) {
        let Some(rest) = &mut self.rest else { return };
        let count = match &next {
            Some(_) => i64::try_from(page.kvs.len()).unwrap_or(i64::MAX),
            None => page.count,
        };
        self.answer.count += count;
        self.answer.kvs.extend(page.kvs);
        let asked = Span::from_request(read.key.clone(), read.range_end.clone());
        match next.or(asked.end).filter(|next| rest.contains(next)) {
            Some(next) => rest.start = next,
            None => self.rest = None,
        }
    }

    /// Keys read so far, for a driver that sends them on at once; they count, and are in no later
    /// answer.
    pub fn drain(&mut self) -> Vec<crate::proto::mvccpb::KeyValue> {
        let kvs = std::mem::take(&mut self.answer.kvs);
        if self.wanted != usize::MAX {
            self.wanted -= kvs.len();
        }
        kvs
    }

    /// The answer, when there is no next page.
    pub fn finish(mut self) -> pb::RangeResponse {
        mvcc::arrange(&self.request, &mut self.answer);
        self.answer.header = mvcc::header(self.head.revision);
        self.answer
    }
}
