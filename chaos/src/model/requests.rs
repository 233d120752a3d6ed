//! Random requests of every form that the model knows, from a seed. They meet on few keys and
//! leases, so that they matter to each other; a part of them is wrong on purpose.
//! Never makes the one request that ends an etcd process (see `strip_kept`).

use bytes::Bytes;
use flotilla_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use flotilla_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use flotilla_proto::etcdserverpb::request_op::Request as Op;
use flotilla_proto::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseKeepAliveRequest,
    LeaseLeasesRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest, PutRequest, RangeRequest,
    RequestOp, TxnRequest,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::history::Request;
use crate::model::Model;

/// Keys that requests meet on, some a prefix of another, some with the bytes that end spans.
const KEYS: [&[u8]; 10] = [b"a", b"a\0", b"ab", b"b", b"b/1", b"b/2", b"c", b"d", b"\xff", b"\0"];
/// Values that come more than once, so that sorting by value meets equals.
const COMMON_VALUES: [&[u8]; 4] = [b"", b"x", b"y", b"yy"];
/// Leases that are asked for by number.
const LEASES: [i64; 5] = [1, 2, 7, -3, 77];
const DEPTH_MAX: usize = 3;

/// A seeded source of requests.
#[derive(Clone, Debug)]
pub struct Requests {
    rng: StdRng,
    values_made: u64,
}

impl Requests {
    /// The same seed gives the same requests to the same states.
    pub fn new(seed: u64) -> Requests {
        Requests { rng: StdRng::seed_from_u64(seed), values_made: 0 }
    }

    /// A request that makes sense, or nearly makes sense, in the state of `model`.
    pub fn next(&mut self, model: &Model) -> Request {
        match self.rng.random_range(0..100) {
            0..22 => Request::Read(self.read(model)),
            22..40 => Request::Put(self.put(model)),
            40..48 => Request::DeleteRange(self.delete()),
            48..78 => {
                let mut txn = self.txn(model, 0);
                if has_open_delete(&txn) {
                    strip_kept(&mut txn);
                }
                Request::Txn(txn)
            }
            78..80 => Request::Compact(self.compact(model)),
            80..86 => Request::LeaseGrant(self.grant()),
            86..89 => Request::LeaseRevoke(LeaseRevokeRequest { id: self.lease(model) }),
            89..92 => Request::LeaseKeepAlive(LeaseKeepAliveRequest { id: self.lease(model) }),
            92..97 => Request::LeaseTimeToLive(LeaseTimeToLiveRequest {
                id: self.lease(model),
                keys: self.chance(70),
            }),
            _ => Request::LeaseLeases(LeaseLeasesRequest {}),
        }
    }

    /// A read of a key or a span.
    pub fn read(&mut self, model: &Model) -> RangeRequest {
        let mut request = RangeRequest {
            key: self.key(),
            range_end: self.range_end(),
            serializable: self.chance(20),
            ..RangeRequest::default()
        };
        if self.chance(40) {
            request.revision = self.revision(model);
        }
        if self.chance(40) {
            request.limit = self.rng.random_range(-1..5);
        }
        if self.chance(40) {
            let order = [SortOrder::None, SortOrder::Ascend, SortOrder::Descend];
            request.set_sort_order(order[self.rng.random_range(0..order.len())]);
            let target = [
                SortTarget::Key,
                SortTarget::Version,
                SortTarget::Create,
                SortTarget::Mod,
                SortTarget::Value,
            ];
            request.set_sort_target(target[self.rng.random_range(0..target.len())]);
        }
        request.keys_only = self.chance(15);
        request.count_only = self.chance(10);
        if self.chance(15) {
            request.min_mod_revision = self.revision(model);
        }
        if self.chance(15) {
            request.max_mod_revision = self.revision(model);
        }
        if self.chance(10) {
            request.min_create_revision = self.revision(model);
        }
        if self.chance(10) {
            request.max_create_revision = self.revision(model);
        }
        request
    }

    /// A put of one key.
    pub fn put(&mut self, model: &Model) -> PutRequest {
        let mut request = PutRequest {
            key: self.key(),
            value: self.value(),
            prev_kv: self.chance(40),
            ignore_value: self.chance(10),
            ignore_lease: self.chance(10),
            ..PutRequest::default()
        };
        if self.chance(30) {
            request.lease = self.lease(model);
        }
        if request.ignore_value && self.chance(90) {
            request.value = Bytes::new();
        }
        if request.ignore_lease && self.chance(90) {
            request.lease = 0;
        }
        request
    }

    /// A delete of a key or a span.
    pub fn delete(&mut self) -> DeleteRangeRequest {
        DeleteRangeRequest {
            key: self.key(),
            range_end: self.range_end(),
            prev_kv: self.chance(50),
        }
    }

    /// A transaction; `depth` is the number of transactions around it.
    pub fn txn(&mut self, model: &Model, depth: usize) -> TxnRequest {
        let compares = self.rng.random_range(0..3);
        let success = self.rng.random_range(0..4);
        let failure = self.rng.random_range(0..4);
        let only_reads = self.chance(15);
        TxnRequest {
            compare: (0..compares).map(|_| self.compare(model)).collect(),
            success: (0..success).map(|_| self.operation(model, depth, only_reads)).collect(),
            failure: (0..failure).map(|_| self.operation(model, depth, only_reads)).collect(),
        }
    }

    /// A grant of a lease that never expires during a test.
    pub fn grant(&mut self) -> LeaseGrantRequest {
        let ttl = match self.rng.random_range(0..20) {
            0 => 9_000_000_001,
            _ => self.rng.random_range(10_000..20_000),
        };
        let id = if self.chance(30) { 0 } else { LEASES[self.rng.random_range(0..LEASES.len())] };
        LeaseGrantRequest { ttl, id }
    }

    fn operation(&mut self, model: &Model, depth: usize, only_reads: bool) -> RequestOp {
        let request = match self.rng.random_range(0..100) {
            _ if only_reads => Some(Op::RequestRange(self.read_in_txn(model))),
            0..30 => Some(Op::RequestRange(self.read_in_txn(model))),
            30..65 => Some(Op::RequestPut(self.put(model))),
            65..85 => Some(Op::RequestDeleteRange(self.delete())),
            85..99 if depth < DEPTH_MAX => Some(Op::RequestTxn(self.txn(model, depth + 1))),
            99 => None,
            _ => Some(Op::RequestPut(self.put(model))),
        };
        RequestOp { request }
    }

    /// Most reads of a transaction must be possible, or hardly any transaction would pass.
    fn read_in_txn(&mut self, model: &Model) -> RangeRequest {
        let mut request = self.read(model);
        if request.revision != 0 && self.chance(60) {
            request.revision = 0;
        }
        request
    }

    fn compare(&mut self, model: &Model) -> Compare {
        let results = [
            CompareResult::Equal,
            CompareResult::NotEqual,
            CompareResult::Greater,
            CompareResult::Less,
        ];
        let targets = [
            CompareTarget::Version,
            CompareTarget::Create,
            CompareTarget::Mod,
            CompareTarget::Value,
            CompareTarget::Lease,
        ];
        let target = targets[self.rng.random_range(0..targets.len())];
        // Now and then the union is missing or of another kind than the target.
        let kind = if self.chance(95) { target } else { targets[self.rng.random_range(0..5)] };
        let target_union = match kind {
            _ if self.chance(5) => None,
            CompareTarget::Version => Some(TargetUnion::Version(self.rng.random_range(0..4))),
            CompareTarget::Create => Some(TargetUnion::CreateRevision(self.revision(model))),
            CompareTarget::Mod => Some(TargetUnion::ModRevision(self.revision(model))),
            CompareTarget::Value => Some(TargetUnion::Value(self.value())),
            CompareTarget::Lease => Some(TargetUnion::Lease(self.lease(model))),
        };
        let result = if self.chance(98) {
            results[self.rng.random_range(0..results.len())].into()
        } else {
            9
        };
        Compare {
            result,
            target: target.into(),
            key: self.key(),
            range_end: if self.chance(30) { self.range_end() } else { Bytes::new() },
            target_union,
        }
    }

    fn compact(&mut self, model: &Model) -> CompactionRequest {
        // Mostly a little way forward, so that most of the history stays readable.
        let low = model.compacted().max(0);
        let revision = if self.chance(96) {
            low + (model.revision() - low).max(0) / 4
        } else {
            self.revision(model)
        };
        CompactionRequest { revision, physical: self.chance(30) }
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    fn key(&mut self) -> Bytes {
        if self.chance(1) {
            return Bytes::new();
        }
        Bytes::from_static(KEYS[self.rng.random_range(0..KEYS.len())])
    }

    fn range_end(&mut self) -> Bytes {
        match self.rng.random_range(0..10) {
            0..5 => Bytes::new(),
            5 => Bytes::from_static(b"\0"),
            _ => Bytes::from_static(KEYS[self.rng.random_range(0..KEYS.len())]),
        }
    }

    /// A value that no other request carries, or one of the common ones.
    fn value(&mut self) -> Bytes {
        if self.chance(40) {
            return Bytes::from_static(COMMON_VALUES[self.rng.random_range(0..4)]);
        }
        self.values_made += 1;
        Bytes::from(format!("v{}", self.values_made))
    }

    fn lease(&mut self, model: &Model) -> i64 {
        let alive: Vec<i64> = model.leases().keys().copied().collect();
        if alive.is_empty() || self.chance(15) {
            return LEASES[self.rng.random_range(0..LEASES.len())];
        }
        alive[self.rng.random_range(0..alive.len())]
    }

    /// Mostly a revision that exists and is not compacted.
    fn revision(&mut self, model: &Model) -> i64 {
        let current = model.revision();
        match self.rng.random_range(0..20) {
            0 => -1,
            1 => self.rng.random_range(0..=current),
            2 => current + 1,
            3 => model.compacted(),
            _ => self.rng.random_range((current - 20).max(model.compacted()).max(1)..=current),
        }
    }
}

fn has_open_delete(txn: &TxnRequest) -> bool {
    txn.success.iter().chain(&txn.failure).any(|operation| match &operation.request {
        Some(Op::RequestDeleteRange(delete)) => delete.range_end == b"\0"[..],
        Some(Op::RequestTxn(inner)) => has_open_delete(inner),
        Some(Op::RequestRange(_) | Op::RequestPut(_)) | None => false,
    })
}

/// Makes every put bring its value and lease. etcd does not count an open-ended delete as
/// touching a key of the same transaction, and ends its process when a later put wants to keep
/// what that delete removed.
fn strip_kept(txn: &mut TxnRequest) {
    for operation in txn.success.iter_mut().chain(&mut txn.failure) {
        match &mut operation.request {
            Some(Op::RequestPut(put)) => {
                put.ignore_value = false;
                put.ignore_lease = false;
            }
            Some(Op::RequestTxn(inner)) => strip_kept(inner),
            Some(Op::RequestRange(_) | Op::RequestDeleteRange(_)) | None => {}
        }
    }
}
