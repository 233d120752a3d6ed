//! What a request may read and write, whichever way it goes: the union of all of its parts, nested
//! to any depth. A request is permitted if all of it is.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::Access;
use crate::LeaseId;
use crate::proto::Span;
use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::request_op::Request;

/// The keys that a request needs permission for. Spans are parsed here and nowhere else on the way
/// to a check, by the rule by which the request is carried out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// In the order in which etcd looks at them.
    pub spans: Vec<(Span, Access)>,
    /// Leases to which a key is to be attached, or that are to be ended or renewed: every key that is
    /// attached to one must be writable. Otherwise a user could have a lease delete a key that he may
    /// not, or keep another from ending it.
    pub leases: BTreeSet<LeaseId>,
    /// Leases whose keys are to be told.
    pub listed_leases: BTreeSet<LeaseId>,
}

impl Needs {
    /// Of KV.Range and KV.RangeStream.
    pub fn of_range(request: &pb::RangeRequest) -> Self {
        let mut needs = Self::default();
        needs.add(&request.key, &request.range_end, Access::Read);
        needs
    }

    /// Of KV.Put.
    pub fn of_put(request: &pb::PutRequest) -> Self {
        let mut needs = Self::default();
        needs.add_put(request);
        needs
    }

    /// Of KV.DeleteRange.
    pub fn of_delete(request: &pb::DeleteRangeRequest) -> Self {
        let mut needs = Self::default();
        needs.add_delete(request);
        needs
    }

    /// Of KV.Txn: compares, and both branches.
    pub fn of_txn(request: &pb::TxnRequest) -> Self {
        let mut needs = Self::default();
        needs.add_txn(request);
        needs
    }

    /// Of a watcher. An empty key means the lowest one, as when it is created.
    pub fn of_watch(request: &pb::WatchCreateRequest) -> Self {
        let mut needs = Self::default();
        let lowest = Bytes::from_static(b"\0");
        let key = if request.key.is_empty() { &lowest } else { &request.key };
        needs.add(key, &request.range_end, Access::Read);
        needs
    }

    /// Of ending or renewing a lease.
    pub fn of_lease(lease: LeaseId) -> Self {
        Self { leases: BTreeSet::from([lease]), ..Self::default() }
    }

    /// Of telling which keys are attached to a lease.
    pub fn of_lease_keys(lease: LeaseId) -> Self {
        Self { listed_leases: BTreeSet::from([lease]), ..Self::default() }
    }

    fn add_txn(&mut self, txn: &pb::TxnRequest) {
        for compare in &txn.compare {
            self.add(&compare.key, &compare.range_end, Access::Read);
        }
        for op in txn.success.iter().chain(&txn.failure) {
            match &op.request {
                Some(Request::RequestRange(range)) => {
                    self.add(&range.key, &range.range_end, Access::Read);
                }
                Some(Request::RequestPut(put)) => self.add_put(put),
                Some(Request::RequestDeleteRange(delete)) => self.add_delete(delete),
                Some(Request::RequestTxn(txn)) => self.add_txn(txn),
                None => {}
            }
        }
    }

    fn add_put(&mut self, put: &pb::PutRequest) {
        let one_key = Bytes::new();
        self.add(&put.key, &one_key, Access::Write);
        if put.lease != 0 {
            self.leases.insert(LeaseId(put.lease));
        }
        if put.prev_kv {
            self.add(&put.key, &one_key, Access::Read);
        }
    }

    fn add_delete(&mut self, delete: &pb::DeleteRangeRequest) {
        if delete.prev_kv {
            self.add(&delete.key, &delete.range_end, Access::Read);
        }
        self.add(&delete.key, &delete.range_end, Access::Write);
    }

    fn add(&mut self, key: &Bytes, range_end: &Bytes, access: Access) {
        self.spans.push((Span::from_request(key.clone(), range_end.clone()), access));
    }
}
