//! The checks that need no state: what etcd refuses before looking at the store. Sizes are not
//! among them, since they are measured on the encoded proposal.

use std::collections::BTreeSet;

use bytes::Bytes;
use flotilla_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use flotilla_proto::etcdserverpb::request_op::Request as Op;
use flotilla_proto::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};

use crate::history::Request;
use crate::model::{Limits, Refusal};

/// Refuses what is wrong in any state.
pub fn validate(request: &Request, limits: &Limits) -> Result<(), Refusal> {
    match request {
        Request::Read(request) => check_read(request),
        Request::Put(request) => check_put(request),
        Request::DeleteRange(request) => check_key(&request.key),
        Request::Txn(request) => {
            check_txn(request, limits.txn_ops_max)?;
            check_overlaps(&request.success)?;
            check_overlaps(&request.failure)?;
            Ok(())
        }
        Request::LeaseGrant(request) if request.ttl > limits.lease_ttl_max_seconds => {
            Err(Refusal::LeaseTtlTooLarge)
        }
        Request::LeaseGrant(_)
        | Request::LeaseRevoke(_)
        | Request::LeaseKeepAlive(_)
        | Request::LeaseTimeToLive(_)
        | Request::LeaseLeases(_)
        | Request::Compact(_) => Ok(()),
    }
}

fn check_key(key: &Bytes) -> Result<(), Refusal> {
    if key.is_empty() { Err(Refusal::EmptyKey) } else { Ok(()) }
}

fn check_read(request: &RangeRequest) -> Result<(), Refusal> {
    check_key(&request.key)?;
    let is_order = SortOrder::try_from(request.sort_order).is_ok();
    let is_target = SortTarget::try_from(request.sort_target).is_ok();
    if is_order && is_target { Ok(()) } else { Err(Refusal::InvalidSortOption) }
}

fn check_put(request: &PutRequest) -> Result<(), Refusal> {
    check_key(&request.key)?;
    if request.ignore_value && !request.value.is_empty() {
        return Err(Refusal::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(Refusal::LeaseProvided);
    }
    Ok(())
}

/// A level may be as long as its longest list; what it uses of the budget is gone for the levels
/// inside it, while neighbours do not share.
fn check_txn(request: &TxnRequest, budget: usize) -> Result<(), Refusal> {
    let longest = request.compare.len().max(request.success.len()).max(request.failure.len());
    let remaining = budget.checked_sub(longest).ok_or(Refusal::TooManyOps)?;
    for compare in &request.compare {
        check_key(&compare.key)?;
    }
    for operation in request.success.iter().chain(&request.failure) {
        match operation.request.as_ref() {
            Some(Op::RequestRange(read)) => check_read(read)?,
            Some(Op::RequestPut(put)) => check_put(put)?,
            Some(Op::RequestDeleteRange(delete)) => check_key(&delete.key)?,
            Some(Op::RequestTxn(inner)) => check_txn(inner, remaining)?,
            None => return Err(Refusal::KeyNotFound),
        }
    }
    Ok(())
}

/// What a branch puts and deletes, with everything inside it.
#[derive(Default)]
struct Touched {
    puts: BTreeSet<Bytes>,
    deletes: Vec<DeleteRangeRequest>,
}

/// Refuses a branch that puts a key twice, or puts and deletes it.
///
/// Inner transactions are taken in order, so a put in one of them and a delete in a later one
/// pass. Both branches of one inner transaction may put the same key. An open-ended delete is
/// compared by its literal end of one zero byte and so covers no key.
fn check_overlaps(branch: &[RequestOp]) -> Result<Touched, Refusal> {
    let mut touched = Touched::default();
    for operation in branch {
        if let Some(Op::RequestDeleteRange(delete)) = &operation.request {
            touched.deletes.push(delete.clone());
        }
    }
    for operation in branch {
        if let Some(Op::RequestTxn(inner)) = &operation.request {
            let success = check_overlaps(&inner.success)?;
            let failure = check_overlaps(&inner.failure)?;
            let either: BTreeSet<Bytes> = success.puts.union(&failure.puts).cloned().collect();
            for key in either {
                touched.put(key)?;
            }
            touched.deletes.extend(success.deletes);
            touched.deletes.extend(failure.deletes);
        }
    }
    for operation in branch {
        if let Some(Op::RequestPut(put)) = &operation.request {
            touched.put(put.key.clone())?;
        }
    }
    Ok(touched)
}

impl Touched {
    fn put(&mut self, key: Bytes) -> Result<(), Refusal> {
        if self.deletes.iter().any(|delete| covers(delete, &key)) || !self.puts.insert(key) {
            return Err(Refusal::DuplicateKey);
        }
        Ok(())
    }
}

fn covers(delete: &DeleteRangeRequest, key: &Bytes) -> bool {
    if delete.range_end.is_empty() {
        delete.key == key
    } else {
        delete.key <= key && *key < delete.range_end
    }
}
