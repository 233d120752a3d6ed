//! What a request is reckoned to add to the store, for the space quota.

use crate::command::Command;
use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::request_op::Request;

/// Bytes reckoned for a key and its numbers, on top of key and value.
const PUT_BYTES: u64 = 256;
/// Bytes reckoned for a lease.
const LEASE_BYTES: u64 = 64;

/// Bytes that a request may add. A request of zero cost is let through when space is exceeded.
pub fn quota_cost(command: &Command) -> u64 {
    match command {
        Command::Put(put) => put_cost(put),
        Command::Txn(txn) => txn_cost(txn),
        Command::LeaseGrant(_) => LEASE_BYTES,
        Command::DeleteRange(_)
        | Command::Compact(_)
        | Command::LeaseRevoke(_)
        | Command::LeaseKeepAlive(_)
        | Command::LeaseTimeToLive(_)
        | Command::MemberAdd(_)
        | Command::MemberRemove(_)
        | Command::MemberUpdate(_)
        | Command::MemberPromote(_)
        | Command::SpineVote(_)
        | Command::MemberAttributes(_)
        | Command::MemberDrain(_)
        | Command::Decide(_)
        | Command::Conclude(_)
        | Command::Replicas(_)
        | Command::ReplicasWanted(_)
        | Command::Alarm(_)
        | Command::MoveLeader(_)
        | Command::Split(_)
        | Command::Merge(_)
        | Command::AuthChange(_)
        | Command::AuthToken(_) => 0,
    }
}

fn put_cost(put: &pb::PutRequest) -> u64 {
    PUT_BYTES + put.key.len() as u64 + put.value.len() as u64
}

/// The dearer branch counts.
fn txn_cost(txn: &pb::TxnRequest) -> u64 {
    let branch = |ops: &[pb::RequestOp]| ops.iter().map(op_cost).sum::<u64>();
    branch(&txn.success).max(branch(&txn.failure))
}

fn op_cost(op: &pb::RequestOp) -> u64 {
    match &op.request {
        Some(Request::RequestPut(put)) => put_cost(put),
        Some(Request::RequestTxn(txn)) => txn_cost(txn),
        Some(Request::RequestRange(_) | Request::RequestDeleteRange(_)) | None => 0,
    }
}
