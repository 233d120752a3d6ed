//! KV.Range over any number of ranges, page by page. Where a page is read is for the driver to say:
//! here, if this node shows the range, or elsewhere.

use bytes::Bytes;

use super::Owners;
use crate::GroupId;
use crate::mvcc::{self, Cursor, Failure};
use crate::proto::Span;
use crate::proto::etcdserverpb as pb;
use crate::proto::mvccpb::KeyValue;
use crate::spine::Shown;

/// A read under way. It holds what it has read.
#[derive(Debug)]
pub struct Reading {
    request: pb::RangeRequest,
    shown: Shown,
    revision: i64,
    /// What the header says.
    header_revision: i64,
    /// What is not read yet; `None` when all is.
    rest: Option<Span>,
    /// Keys that are still wanted; the others only count.
    wanted: usize,
    /// Keys that were sent on already.
    drained: usize,
    answer: pb::RangeResponse,
}

impl Reading {
    /// Of a checked request, at a state that is shown.
    ///
    /// # Errors
    /// The revision cannot be read.
    pub fn new(shown: Shown, request: pb::RangeRequest) -> Result<Self, Failure> {
        Self::resume(shown, request, None)
    }

    /// One that was begun page by page on this node, which does not show all of the rest any more.
    ///
    /// # Errors
    /// The revision cannot be read, or not any more.
    pub fn resume(
        shown: Shown,
        request: pb::RangeRequest,
        cursor: Option<Cursor>,
    ) -> Result<Self, Failure> {
        let (cursor, span) = Cursor::resume(shown.head, &request, cursor)?;
        let Cursor { revision, header_revision, sent, .. } = cursor;
        let count = i64::try_from(sent).unwrap_or(i64::MAX);
        Ok(Self {
            shown,
            revision,
            header_revision,
            rest: (!span.is_empty()).then_some(span),
            wanted: mvcc::wanted_in_key_order(&request),
            drained: sent,
            answer: pb::RangeResponse { count, ..pb::RangeResponse::default() },
            request,
        })
    }

    /// What was read and not sent on.
    pub fn kvs(&self) -> &[KeyValue] {
        &self.answer.kvs
    }

    /// The next page: whom it belongs to, and what to read there at the state. Asked again, it answers
    /// by the owners as they are then.
    pub fn next(&self, owners: &Owners) -> Option<(GroupId, pb::RangeRequest)> {
        let rest = self.rest.as_ref()?;
        let (range, span) = owners.first_piece(rest);
        let (key, range_end) = span.into_request();
        let read_count = self.drained + self.answer.kvs.len();
        let is_over = read_count >= self.wanted;
        let read = pb::RangeRequest {
            key,
            range_end,
            revision: self.revision,
            count_only: self.request.count_only || is_over,
            keys_only: self.request.keys_only && !mvcc::is_sorted_by_value(&self.request),
            limit: if self.wanted == usize::MAX || is_over {
                0
            } else {
                i64::try_from(self.wanted - read_count).unwrap_or(0)
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

    /// The state that is read.
    pub fn shown(&self) -> Shown {
        self.shown
    }

    /// Keys read so far, for a driver that sends them on at once; only for a request whose keys are
    /// wanted as they come (`mvcc::check_range_stream`). They are not in the answer again.
    pub fn drain(&mut self) -> Vec<KeyValue> {
        let left = self.wanted.saturating_sub(1).saturating_sub(self.drained);
        let count = left.min(self.answer.kvs.len());
        self.drained += count;
        self.answer.kvs.drain(..count).collect()
    }

    /// The answer, when there is no next page.
    pub fn finish(mut self) -> pb::RangeResponse {
        let is_more = self.drained + self.answer.kvs.len() >= self.wanted;
        if self.drained > 0 && is_more {
            // The one key too many only tells that there are more.
            self.answer.kvs.truncate(self.wanted - 1 - self.drained);
        }
        mvcc::arrange(&self.request, &mut self.answer);
        self.answer.more |= self.drained > 0 && is_more;
        self.answer.header = mvcc::header(self.header_revision);
        self.answer
    }
}
