//! Random requests of every form of KV and Lease, valid and not, from a seed. Keeps only what it
//! must know to aim well: the revision, the compacted revision. Sends nothing itself.

use bytes::Bytes;
use flotilla_proto::etcdserverpb as pb;
use pb::compare::TargetUnion;
use pb::request_op::Request as Op;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

/// Ids of all leases: clients may choose any but zero.
pub(crate) const LEASES: [i64; 8] = [1, 2, 3, 4, 5, 0x7fff_ffff_ffff_ffff, -3, 0x0102_0304_0506];

/// An id that is never granted.
const UNKNOWN_LEASE: i64 = 99;
/// No lease of the run may expire: no clock decides an answer.
const TTL_SECONDS: std::ops::Range<i64> = 3_600..7_200;
/// Leases may live no longer than this many seconds.
const TTL_SECONDS_MAX: i64 = 9_000_000_000;
/// Operations or comparisons that one transaction may have.
const TXN_OPS_MAX: usize = 128;
/// Transactions inside transactions.
const TXN_DEPTH_MAX: u32 = 2;

/// Enough keys for unstable sorting to show, few enough to meet the same key often.
const KEYS: [&[u8]; 30] = [
    b"\0",
    b"\0\0",
    b"a",
    b"a\0",
    b"a/",
    b"a/1",
    b"a/2",
    b"a/3",
    b"a/\xff",
    b"a0",
    b"b",
    b"b/1",
    b"b/2",
    b"c",
    b"d",
    b"k00",
    b"k01",
    b"k02",
    b"k03",
    b"k04",
    b"k05",
    b"k06",
    b"k07",
    b"k08",
    b"k09",
    b"k10",
    b"k11",
    b"z",
    b"\xff",
    b"\xff\xff",
];

/// One call.
#[derive(Clone, Debug)]
pub(crate) enum Request {
    Range(pb::RangeRequest),
    Put(pb::PutRequest),
    DeleteRange(pb::DeleteRangeRequest),
    Txn(pb::TxnRequest),
    Compact(pb::CompactionRequest),
    LeaseGrant(pb::LeaseGrantRequest),
    LeaseRevoke(pb::LeaseRevokeRequest),
    LeaseTimeToLive(pb::LeaseTimeToLiveRequest),
    LeaseLeases(pb::LeaseLeasesRequest),
    HashKv(pb::HashKvRequest),
}

impl Request {
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Range(_) => "Range",
            Self::Put(_) => "Put",
            Self::DeleteRange(_) => "DeleteRange",
            Self::Txn(_) => "Txn",
            Self::Compact(_) => "Compact",
            Self::LeaseGrant(_) => "LeaseGrant",
            Self::LeaseRevoke(_) => "LeaseRevoke",
            Self::LeaseTimeToLive(_) => "LeaseTimeToLive",
            Self::LeaseLeases(_) => "LeaseLeases",
            Self::HashKv(_) => "HashKV",
        }
    }
}

/// Writes requests. The same seed and the same answers give the same requests.
pub(crate) struct Generator {
    chance: StdRng,
    /// The store's revision after the last answer.
    pub(crate) revision: i64,
    /// Revision of the last compaction that succeeded, or -1.
    pub(crate) compacted: i64,
    values: u64,
}

impl Generator {
    pub(crate) fn new(seed: u64) -> Self {
        Self { chance: StdRng::seed_from_u64(seed), revision: 1, compacted: -1, values: 0 }
    }

    /// A number below `bound`, for choices of the caller.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.chance.random_range(0..bound)
    }

    pub(crate) fn next(&mut self) -> Request {
        match self.chance.random_range(0..1000) {
            0..250 => Request::Range(self.range()),
            250..530 => Request::Put(self.put()),
            530..600 => Request::DeleteRange(self.delete()),
            600..880 => Request::Txn(self.txn()),
            880..895 => Request::Compact(self.compact()),
            895..925 => Request::LeaseGrant(self.grant()),
            925..935 => Request::LeaseRevoke(pb::LeaseRevokeRequest { id: self.lease() }),
            935..970 => {
                let (id, keys) = (self.lease(), self.one_in(2));
                Request::LeaseTimeToLive(pb::LeaseTimeToLiveRequest { id, keys })
            }
            970..980 => Request::LeaseLeases(pb::LeaseLeasesRequest {}),
            _ => Request::HashKv(pb::HashKvRequest { revision: self.revision_or_zero() }),
        }
    }

    fn range(&mut self) -> pb::RangeRequest {
        let (key, range_end) = self.span(2);
        let mut request = pb::RangeRequest {
            key,
            range_end,
            revision: if self.one_in(2) { self.revision_or_zero() } else { 0 },
            serializable: self.one_in(4),
            keys_only: self.one_in(5),
            count_only: self.one_in(12),
            ..pb::RangeRequest::default()
        };
        if self.one_in(2) {
            request.limit = self.choose(&[-1, 1, 1, 2, 3, 4, 5, 8, 12, 20, 30, 1000, i64::MAX]);
        }
        // Only known orders and targets: an unknown target ends the process of etcd 3.4.
        if self.one_in(2) {
            request.sort_order = self.chance.random_range(0..3);
            request.sort_target = self.chance.random_range(0..5);
        }
        if self.one_in(4) {
            for bound in [
                &mut request.min_mod_revision,
                &mut request.max_mod_revision,
                &mut request.min_create_revision,
                &mut request.max_create_revision,
            ] {
                if self.one_in(3) {
                    *bound = self.near_revision();
                }
            }
        }
        request
    }

    fn put(&mut self) -> pb::PutRequest {
        let mut request = pb::PutRequest {
            key: self.key(),
            value: self.value(),
            prev_kv: self.one_in(3),
            ignore_value: self.one_in(10),
            ignore_lease: self.one_in(10),
            ..pb::PutRequest::default()
        };
        if self.one_in(3) {
            request.lease = self.lease();
        }
        // Most of the time the two flags are used as they should be.
        if request.ignore_value && !self.one_in(5) {
            request.value = Bytes::new();
        }
        if request.ignore_lease && !self.one_in(5) {
            request.lease = 0;
        }
        request
    }

    fn delete(&mut self) -> pb::DeleteRangeRequest {
        // Wide spans are rare, or the store would always be nearly empty.
        let (key, range_end) =
            if self.one_in(4) { self.span(4) } else { (self.key(), Bytes::new()) };
        pb::DeleteRangeRequest { key, range_end, prev_kv: self.one_in(2) }
    }

    fn txn(&mut self) -> pb::TxnRequest {
        if self.one_in(60) {
            return self.long_txn();
        }
        let mut txn = self.txn_of_depth(0);
        if deletes_to_the_end(&txn) {
            forbid_ignoring(&mut txn);
        }
        txn
    }

    fn txn_of_depth(&mut self, depth: u32) -> pb::TxnRequest {
        let compares = self.choose(&[0, 0, 1, 1, 1, 2, 3]);
        pb::TxnRequest {
            compare: (0..compares).map(|_| self.compare()).collect(),
            success: self.branch(depth),
            failure: self.branch(depth),
        }
    }

    fn branch(&mut self, depth: u32) -> Vec<pb::RequestOp> {
        let is_read_only = self.one_in(5);
        let length = self.choose(&[0, 1, 1, 1, 2, 2, 3, 4, 6]);
        (0..length).map(|_| self.op(depth, is_read_only)).collect()
    }

    fn op(&mut self, depth: u32, is_read_only: bool) -> pb::RequestOp {
        let kind = if is_read_only { 0 } else { self.chance.random_range(0..100) };
        let request = match kind {
            0..40 => Op::RequestRange(self.range()),
            40..75 => Op::RequestPut(self.put()),
            75..88 => Op::RequestDeleteRange(self.delete()),
            88..99 if depth < TXN_DEPTH_MAX => Op::RequestTxn(self.txn_of_depth(depth + 1)),
            88..99 => Op::RequestPut(self.put()),
            _ => return pb::RequestOp { request: None },
        };
        pb::RequestOp { request: Some(request) }
    }

    /// A transaction at the limit of operations, or one above it.
    fn long_txn(&mut self) -> pb::TxnRequest {
        let length = TXN_OPS_MAX + usize::from(self.one_in(2));
        let reads = |generator: &mut Self, length: usize| {
            let read = |_| pb::RequestOp { request: Some(Op::RequestRange(generator.range())) };
            (0..length).map(read).collect::<Vec<_>>()
        };
        let mut txn = pb::TxnRequest::default();
        match self.chance.random_range(0..4) {
            0 => txn.compare = (0..length).map(|_| self.compare()).collect(),
            1 => txn.success = reads(self, length),
            2 => txn.failure = reads(self, length),
            _ => {
                // A nested transaction has what its parent leaves.
                let outer = self.chance.random_range(1..TXN_OPS_MAX);
                let inner = pb::TxnRequest {
                    success: reads(self, length - outer),
                    ..pb::TxnRequest::default()
                };
                txn.success = reads(self, outer - 1);
                txn.success.push(pb::RequestOp { request: Some(Op::RequestTxn(inner)) });
            }
        }
        txn
    }

    fn compare(&mut self) -> pb::Compare {
        let target = self.chance.random_range(0..5);
        let mut compare = pb::Compare {
            result: self.chance.random_range(0..4),
            target,
            key: self.key(),
            ..pb::Compare::default()
        };
        if self.one_in(3) {
            (compare.key, compare.range_end) = self.span(1);
        }
        let given = if self.one_in(20) { self.chance.random_range(0..5) } else { target };
        compare.target_union = match given {
            _ if self.one_in(12) => None,
            0 => Some(TargetUnion::Version(self.chance.random_range(-1..5))),
            1 => Some(TargetUnion::CreateRevision(self.revision_or_zero())),
            2 => Some(TargetUnion::ModRevision(self.revision_or_zero())),
            3 => Some(TargetUnion::Value(self.value())),
            _ => {
                let lease = if self.one_in(2) { 0 } else { self.lease() };
                Some(TargetUnion::Lease(lease))
            }
        };
        if self.one_in(40) {
            compare.result = self.choose(&[4, -1]);
        }
        if self.one_in(40) {
            compare.target = self.choose(&[5, -1]);
        }
        compare
    }

    fn compact(&mut self) -> pb::CompactionRequest {
        let revision = match self.chance.random_range(0..10) {
            0 => self.compacted,
            1 => self.revision + self.chance.random_range(0..3),
            2 => self.choose(&[0, -1, -7, 1]),
            _ => self.chance.random_range(self.compacted..=self.revision),
        };
        pb::CompactionRequest { revision, physical: self.one_in(2) }
    }

    fn grant(&mut self) -> pb::LeaseGrantRequest {
        let mut ttl = self.chance.random_range(TTL_SECONDS);
        if self.one_in(10) {
            ttl = TTL_SECONDS_MAX + self.chance.random_range(0..2);
        }
        pb::LeaseGrantRequest { id: self.choose(&LEASES), ttl }
    }

    fn lease(&mut self) -> i64 {
        if self.one_in(25) { UNKNOWN_LEASE } else { self.choose(&LEASES) }
    }

    fn key(&mut self) -> Bytes {
        if self.one_in(150) {
            return Bytes::new();
        }
        Bytes::from_static(self.choose(&KEYS))
    }

    /// Key and end of a span. Of all spans one in `single_one_in` is a single key.
    fn span(&mut self, single_one_in: u32) -> (Bytes, Bytes) {
        if single_one_in > 1 && self.one_in(single_one_in) {
            return (self.key(), Bytes::new());
        }
        match self.chance.random_range(0..6) {
            0 => (Bytes::from_static(b"\0"), Bytes::from_static(b"\0")),
            1 => (self.key(), Bytes::from_static(b"\0")),
            2 => {
                let prefix = self.choose(&[&b"a"[..], b"a/", b"k0", b"k", b"\xff"]);
                (Bytes::from_static(prefix), prefix_end(prefix))
            }
            3 => (self.key(), self.key()),
            _ => {
                let (one, other) = (self.key(), self.key());
                if one < other { (one, other) } else { (other, one) }
            }
        }
    }

    /// Mostly values that no other put has, so that an answer tells which put it shows.
    fn value(&mut self) -> Bytes {
        if self.one_in(8) {
            return Bytes::from_static(self.choose(&[&b""[..], b"x", b"\xff\0"]));
        }
        self.values += 1;
        Bytes::from(format!("{:04}-{}", self.chance.random_range(0..10_000), self.values))
    }

    fn revision_or_zero(&mut self) -> i64 {
        if self.one_in(3) { 0 } else { self.near_revision() }
    }

    /// Mostly a readable revision, sometimes one just outside.
    fn near_revision(&mut self) -> i64 {
        match self.chance.random_range(0..20) {
            0 => self.revision + 1,
            1 => self.compacted - 1,
            2 => self.compacted,
            3 => self.choose(&[-1, -5, 1, i64::MAX]),
            4..9 => self.revision - self.chance.random_range(0..4),
            _ => self.chance.random_range(self.compacted..=self.revision),
        }
    }

    fn one_in(&mut self, times: u32) -> bool {
        self.chance.random_ratio(1, times)
    }

    fn choose<T: Copy>(&mut self, list: &[T]) -> T {
        *list.choose(&mut self.chance).expect("a list of choices is not empty")
    }
}

/// The least key above all that begin with `prefix`; a single zero byte if there is none.
fn prefix_end(prefix: &[u8]) -> Bytes {
    let Some(last) = prefix.iter().rposition(|byte| *byte != 0xff) else {
        return Bytes::from_static(b"\0");
    };
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Bytes::from(end)
}

fn deletes_to_the_end(txn: &pb::TxnRequest) -> bool {
    txn.success.iter().chain(&txn.failure).any(|op| match &op.request {
        Some(Op::RequestDeleteRange(delete)) => delete.range_end.as_ref() == b"\0",
        Some(Op::RequestTxn(inner)) => deletes_to_the_end(inner),
        _ => false,
    })
}

/// etcd crashes when such a put finds its key gone by a delete of the same transaction.
fn forbid_ignoring(txn: &mut pb::TxnRequest) {
    for op in txn.success.iter_mut().chain(&mut txn.failure) {
        match &mut op.request {
            Some(Op::RequestPut(put)) => {
                put.ignore_value = false;
                put.ignore_lease = false;
            }
            Some(Op::RequestTxn(inner)) => forbid_ignoring(inner),
            _ => {}
        }
    }
}
