//! KV.DeleteRange, alone and within a transaction.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::Failure;
use super::draft::header;
use super::history::Wanted;
use super::txn::Execution;
use crate::proto::Span;
use crate::proto::etcdserverpb as pb;
use crate::proto::internal::Effect;

/// Deletes the keys of the span that are there, in their order.
///
/// # Errors
/// See `Failure`; never one for the client.
pub(super) fn execute(
    execution: &mut Execution<'_>,
    request: &pb::DeleteRangeRequest,
) -> Result<pb::DeleteRangeResponse, Failure> {
    let span = Span::from_request(request.key.clone(), request.range_end.clone());
    let mut keys = Vec::new();
    let mut prev_kvs = Vec::new();
    execution.keys.visit(&span, Wanted::ALL, &mut |kv| {
        if request.prev_kv {
            keys.push(kv.key.clone());
            prev_kvs.push(kv);
        } else {
            keys.push(Bytes::copy_from_slice(&kv.key));
        }
        ControlFlow::Continue(())
    })?;
    let deleted = keys.len() as i64;
    for key in keys {
        execution.keys.delete(key.clone());
        execution.effects.push(Effect { key, is_delete: true, ..Default::default() });
    }
    Ok(pb::DeleteRangeResponse { header: header(execution.revision_now()), deleted, prev_kvs })
}
