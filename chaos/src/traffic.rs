//! Which calls clients make, in the simulator and on real nodes: few keys, unique values, every
//! form of every call that changes or reads keys, now and then a wrong one.

use std::collections::BTreeSet;

use bytes::Bytes;
use flotilla_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use flotilla_proto::etcdserverpb::request_op::Request as Op;
use flotilla_proto::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseKeepAliveRequest,
    LeaseRevokeRequest, LeaseTimeToLiveRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};

use crate::history::Request;
use crate::sim::chance::Chance;

/// A span of all keys that clients share, and of what the harness writes at the end.
pub const SHARED: (&[u8], &[u8]) = (b"e", b"l");
/// A span of all keys there are.
const ALL: (&[u8], &[u8]) = (&[0], &[0]);

/// A kind of call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Put.
    Put,
    /// A linearizable read.
    Read,
    /// A read of the local state.
    StaleRead,
    /// A read of an old revision.
    OldRead,
    /// Delete of a key or a span.
    Delete,
    /// Compare and swap of one key.
    Swap,
    /// A transaction of several operations.
    Txn,
    /// Compaction.
    Compact,
    /// A lease is granted.
    Grant,
    /// It is revoked.
    Revoke,
    /// It is renewed.
    KeepAlive,
    /// Its time is asked for.
    TimeToLive,
}

/// All kinds with their usual weight.
pub const KINDS: [(Kind, u64); 12] = [
    (Kind::Put, 30),
    (Kind::Read, 20),
    (Kind::StaleRead, 6),
    (Kind::OldRead, 6),
    (Kind::Delete, 6),
    (Kind::Swap, 12),
    (Kind::Txn, 12),
    (Kind::Compact, 2),
    (Kind::Grant, 4),
    (Kind::Revoke, 2),
    (Kind::KeepAlive, 4),
    (Kind::TimeToLive, 2),
];

/// One in so many puts keeps the value of its key, and as many the lease.
pub const KEPT_ONE_IN: u64 = 20;

/// What a call is drawn from: how the run is made, and what its clients have seen so far.
#[derive(Debug)]
pub struct Outlook<'a> {
    /// Keys are `k0` to one less than this.
    pub keys_count: u64,
    /// There are keys beside those that are shared, and many: no span reaches beyond `SHARED`.
    pub has_other_keys: bool,
    /// Every other key is one of those from here to there, if it is said.
    pub hot: Option<(u64, u64)>,
    /// Relative weights of the calls, as in [`KINDS`].
    pub weights: &'a [u64],
    /// The highest revision that an answer named.
    pub revision_seen: i64,
    /// Leases that were granted and, as far as is known, not revoked.
    pub leases: &'a BTreeSet<i64>,
    /// Ids of leases that were drawn so far; counted on by a grant.
    pub leases_count: &'a mut i64,
    /// One in so many puts attaches its key to a lease.
    pub attached_one_in: u64,
    /// One in so many puts keeps the value of its key, and as many the lease; [`KEPT_ONE_IN`] as a rule.
    pub kept_one_in: u64,
    /// Half of the reads within a transaction are of an old revision.
    pub is_about_past: bool,
}

impl Outlook<'_> {
    /// The next call of a client, named `name` in the values it writes.
    pub fn draw_request(&mut self, name: &str, chance: &mut Chance) -> Request {
        match self.draw_kind(chance) {
            Kind::Put => Request::Put(self.put(name, chance)),
            Kind::Read => Request::Read(self.range(chance)),
            Kind::StaleRead => {
                Request::Read(RangeRequest { serializable: true, ..self.range(chance) })
            }
            Kind::OldRead => {
                let revision = self.old_revision(chance);
                let serializable = chance.one_in(2);
                Request::Read(RangeRequest { revision, serializable, ..self.range(chance) })
            }
            Kind::Delete => Request::DeleteRange(self.delete(chance)),
            Kind::Swap => Request::Txn(self.swap(name, chance)),
            Kind::Txn => Request::Txn(self.txn(name, 2, chance)),
            Kind::Compact => {
                let revision = (self.old_revision(chance) + 3).max(1);
                Request::Compact(CompactionRequest { revision, physical: false })
            }
            Kind::Grant => {
                *self.leases_count += 1;
                // Now and then an id that may be in use.
                let is_again = chance.one_in(10);
                let id = if is_again { self.any_lease(chance) } else { *self.leases_count };
                let ttl = i64::try_from(chance.between(1, 6)).expect("small");
                Request::LeaseGrant(LeaseGrantRequest { ttl, id })
            }
            Kind::Revoke => Request::LeaseRevoke(LeaseRevokeRequest { id: self.any_lease(chance) }),
            Kind::KeepAlive => {
                Request::LeaseKeepAlive(LeaseKeepAliveRequest { id: self.any_lease(chance) })
            }
            Kind::TimeToLive => {
                let (id, keys) = (self.any_lease(chance), chance.one_in(2));
                Request::LeaseTimeToLive(LeaseTimeToLiveRequest { id, keys })
            }
        }
    }

    fn draw_kind(&self, chance: &mut Chance) -> Kind {
        let mut at = chance.below(self.weights.iter().sum());
        for ((kind, _), weight) in KINDS.iter().zip(self.weights) {
            if at < *weight {
                return *kind;
            }
            at -= weight;
        }
        Kind::Put
    }

    fn key(&self, chance: &mut Chance) -> Bytes {
        match self.hot {
            Some((from, to)) if chance.one_in(2) => format!("k{}", chance.between(from, to)).into(),
            _ => format!("k{}", chance.below(self.keys_count)).into(),
        }
    }

    /// A key alone, a span, everything from a key on, or all there is.
    fn span(&self, chance: &mut Chance) -> (Bytes, Bytes) {
        let key = self.key(chance);
        let (first, end) = if self.has_other_keys { SHARED } else { ALL };
        match chance.below(8) {
            0..=4 => (key, Bytes::new()),
            5 => (key.clone(), self.key(chance).max(key)),
            6 => (key, Bytes::from_static(end)),
            _ => (Bytes::from_static(first), Bytes::from_static(end)),
        }
    }

    fn old_revision(&self, chance: &mut Chance) -> i64 {
        let back = i64::try_from(chance.below(30)).expect("small");
        self.revision_seen + 3 - back
    }

    fn any_lease(&self, chance: &mut Chance) -> i64 {
        let leases: Vec<i64> = self.leases.iter().copied().collect();
        if leases.is_empty() || chance.one_in(10) {
            return i64::try_from(chance.between(1, 20)).expect("small");
        }
        *chance.pick(&leases)
    }

    fn put(&self, name: &str, chance: &mut Chance) -> PutRequest {
        let is_attached = chance.one_in(self.attached_one_in);
        let lease = if is_attached { self.any_lease(chance) } else { 0 };
        let mut put = PutRequest {
            key: self.key(chance),
            value: Bytes::copy_from_slice(name.as_bytes()),
            lease,
            prev_kv: chance.one_in(3),
            ..PutRequest::default()
        };
        if chance.one_in(self.kept_one_in) {
            put.ignore_value = true;
            put.value = Bytes::new();
        } else if chance.one_in(self.kept_one_in) {
            put.ignore_lease = true;
            put.lease = 0;
        }
        put
    }

    fn range(&self, chance: &mut Chance) -> RangeRequest {
        let (key, range_end) = self.span(chance);
        let mut range = RangeRequest { key, range_end, ..RangeRequest::default() };
        match chance.below(10) {
            0 => range.count_only = true,
            1 => range.keys_only = true,
            2 => range.limit = i64::try_from(chance.between(1, 3)).expect("small"),
            3 => {
                range.sort_order = i32::try_from(chance.below(3)).expect("small");
                range.sort_target = i32::try_from(chance.below(5)).expect("small");
            }
            4 => range.min_mod_revision = self.old_revision(chance).max(1),
            _ => {}
        }
        range
    }

    fn delete(&self, chance: &mut Chance) -> DeleteRangeRequest {
        let (key, range_end) = self.span(chance);
        DeleteRangeRequest { key, range_end, prev_kv: chance.one_in(2) }
    }

    fn swap(&self, name: &str, chance: &mut Chance) -> TxnRequest {
        let mut put = self.put(name, chance);
        put.ignore_value = false;
        put.value = Bytes::copy_from_slice(name.as_bytes());
        let key = put.key.clone();
        let mut compare = self.compare(chance);
        compare.key.clone_from(&key);
        compare.range_end = Bytes::new();
        let failure = if chance.one_in(4) {
            Vec::new()
        } else {
            let range = RangeRequest { key, ..RangeRequest::default() };
            vec![RequestOp { request: Some(Op::RequestRange(range)) }]
        };
        let success = vec![RequestOp { request: Some(Op::RequestPut(put)) }];
        TxnRequest { compare: vec![compare], success, failure }
    }

    fn compare(&self, chance: &mut Chance) -> Compare {
        let (key, range_end) =
            if chance.one_in(4) { self.span(chance) } else { (self.key(chance), Bytes::new()) };
        let mut number = |max: u64| i64::try_from(chance.below(max)).expect("small");
        let (target, union) = match number(5) {
            0 => (CompareTarget::Version, TargetUnion::Version(number(4))),
            1 => {
                let revision = self.revision_seen - number(20);
                (CompareTarget::Create, TargetUnion::CreateRevision(revision))
            }
            2 => {
                let revision = self.revision_seen - number(20);
                (CompareTarget::Mod, TargetUnion::ModRevision(revision))
            }
            3 => (CompareTarget::Lease, TargetUnion::Lease(number(5))),
            _ => (CompareTarget::Value, TargetUnion::Value(Bytes::from_static(b"c5"))),
        };
        let results = [
            CompareResult::Equal,
            CompareResult::Greater,
            CompareResult::Less,
            CompareResult::NotEqual,
        ];
        Compare {
            result: i32::from(*chance.pick(&results)),
            target: i32::from(target),
            key,
            range_end,
            target_union: Some(union),
        }
    }

    fn txn(&self, name: &str, depth: u32, chance: &mut Chance) -> TxnRequest {
        let compares_count = chance.below(3);
        let compare = (0..compares_count).map(|_| self.compare(chance)).collect();
        let success = self.branch(&format!("{name}s"), depth, chance);
        let failure = self.branch(&format!("{name}f"), depth, chance);
        TxnRequest { compare, success, failure }
    }

    /// A branch, most of the time without a key that is written twice.
    fn branch(&self, name: &str, depth: u32, chance: &mut Chance) -> Vec<RequestOp> {
        let mut keys: Vec<u64> = (0..self.keys_count).collect();
        let mut operations = Vec::new();
        for nth in 0..chance.below(4) {
            let name = format!("{name}{nth}");
            let operation = match chance.below(10) {
                0..=4 if !keys.is_empty() => {
                    let at = usize::try_from(chance.below(keys.len() as u64)).expect("small");
                    let mut put = self.put(&name, chance);
                    let is_careless = chance.one_in(20);
                    let key = if is_careless { keys[at] } else { keys.swap_remove(at) };
                    put.key = format!("k{key}").into();
                    Op::RequestPut(put)
                }
                5 if !keys.is_empty() => {
                    let at = usize::try_from(chance.below(keys.len() as u64)).expect("small");
                    let key = keys.swap_remove(at);
                    Op::RequestDeleteRange(DeleteRangeRequest {
                        key: format!("k{key}").into(),
                        range_end: Bytes::new(),
                        prev_kv: chance.one_in(2),
                    })
                }
                6 if depth > 0 && operations.is_empty() => {
                    Op::RequestTxn(self.txn(&name, depth - 1, chance))
                }
                _ => {
                    let mut range = self.range(chance);
                    if self.is_about_past && chance.one_in(2) {
                        range.revision = self.old_revision(chance).max(1);
                    }
                    Op::RequestRange(range)
                }
            };
            operations.push(RequestOp { request: Some(operation) });
        }
        operations
    }
}
