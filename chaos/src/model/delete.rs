//! DeleteRange: deletes every key of a span, in key order.

use flotilla_proto::Span;
use flotilla_proto::etcdserverpb::{DeleteRangeRequest, DeleteRangeResponse};

use crate::model::draft::Draft;

impl Draft<'_> {
    pub(super) fn delete_range(&mut self, request: &DeleteRangeRequest) -> DeleteRangeResponse {
        let span = Span::from_request(request.key.clone(), request.range_end.clone());
        let previous = self.span(&span);
        for pair in &previous {
            self.remove(&pair.key);
        }
        DeleteRangeResponse {
            header: self.header(),
            deleted: previous.len() as i64,
            prev_kvs: if request.prev_kv { previous } else { Vec::new() },
        }
    }
}
