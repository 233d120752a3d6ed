//! The walk over a request and the merged grants against a naive evaluator, which asks key by key
//! whether any permission has it.

use std::collections::BTreeMap;

use super::*;
use crate::proto::Span;
use crate::proto::etcdserverpb::request_op::Request;

/// The bytes that the rules treat apart, and one ordinary one.
const ALPHABET: [u8; 3] = [0x00, b'a', 0xff];
/// Bounds are this long at most; keys are one byte longer, so that the key after a bound is among
/// them.
const BOUND_LENGTH_MAX: usize = 2;
const ROUNDS: u32 = 20_000;
const LEASES: i64 = 3;

/// A xorshift generator.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn bound(&mut self) -> Bytes {
        let length = 1 + self.below(BOUND_LENGTH_MAX as u64);
        (0..length).map(|_| ALPHABET[self.below(ALPHABET.len() as u64) as usize]).collect()
    }

    /// A key alone, or with an end after it.
    fn bounds(&mut self) -> (Bytes, Bytes) {
        loop {
            let key = self.bound();
            let range_end = match self.below(3) {
                0 => Bytes::new(),
                1 => Bytes::from_static(b"\0"),
                _ => self.bound(),
            };
            if range_end.is_empty() || range_end[..] == *b"\0" || key < range_end {
                return (key, range_end);
            }
        }
    }
}

/// Every key over the alphabet up to one byte more than a bound.
fn keys() -> Vec<Bytes> {
    let mut all: Vec<Vec<u8>> = vec![Vec::new()];
    let mut last = all.clone();
    for _ in 0..=BOUND_LENGTH_MAX {
        last = last
            .iter()
            .flat_map(|key| ALPHABET.iter().map(move |byte| [&key[..], &[*byte]].concat()))
            .collect();
        all.extend(last.clone());
    }
    all.into_iter().map(Bytes::from).collect()
}

fn draw_put(chance: &mut Chance) -> pb::PutRequest {
    let lease = if chance.one_in(4) { 1 + chance.below(LEASES as u64).cast_signed() } else { 0 };
    let (key, prev_kv) = (chance.bound(), chance.one_in(3));
    pb::PutRequest { key, lease, prev_kv, ..pb::PutRequest::default() }
}

fn draw_delete(chance: &mut Chance) -> pb::DeleteRangeRequest {
    let (key, range_end) = chance.bounds();
    pb::DeleteRangeRequest { key, range_end, prev_kv: chance.one_in(3) }
}

fn draw_range(chance: &mut Chance) -> pb::RangeRequest {
    let (key, range_end) = chance.bounds();
    pb::RangeRequest { key, range_end, ..pb::RangeRequest::default() }
}

fn draw_txn(chance: &mut Chance, depth: u32) -> pb::TxnRequest {
    let ops = |chance: &mut Chance| -> Vec<pb::RequestOp> {
        let count = chance.below(3);
        (0..count)
            .map(|_| {
                let request = match chance.below(4) {
                    0 => Request::RequestRange(draw_range(chance)),
                    1 => Request::RequestPut(draw_put(chance)),
                    2 => Request::RequestDeleteRange(draw_delete(chance)),
                    _ if depth == 0 => Request::RequestRange(draw_range(chance)),
                    _ => Request::RequestTxn(draw_txn(chance, depth - 1)),
                };
                pb::RequestOp { request: Some(request) }
            })
            .collect()
    };
    let (success, failure) = (ops(chance), ops(chance));
    let compare = (0..chance.below(2))
        .map(|_| {
            let (key, range_end) = chance.bounds();
            pb::Compare { key, range_end, ..pb::Compare::default() }
        })
        .collect();
    pb::TxnRequest { compare, success, failure }
}

/// Says what is permitted the slow way.
struct Naive<'a> {
    keys: &'a [Bytes],
    permissions: &'a [Permission],
    leases: &'a BTreeMap<i64, Vec<Bytes>>,
}

impl Naive<'_> {
    fn may(&self, key: &[u8], kinds: [Type; 2]) -> bool {
        self.permissions.iter().any(|permission| {
            let has = Span::from_request(permission.key.clone(), permission.range_end.clone());
            kinds.contains(&permission.perm_type()) && has.contains(key)
        })
    }

    fn all(&self, key: &Bytes, range_end: &Bytes, kinds: [Type; 2]) -> bool {
        let wanted = Span::from_request(key.clone(), range_end.clone());
        self.keys.iter().filter(|key| wanted.contains(key)).all(|key| self.may(key, kinds))
    }

    fn read(&self, key: &Bytes, range_end: &Bytes) -> bool {
        self.all(key, range_end, [Type::Read, Type::Readwrite])
    }

    fn write(&self, key: &Bytes, range_end: &Bytes) -> bool {
        self.all(key, range_end, [Type::Write, Type::Readwrite])
    }

    fn put(&self, put: &pb::PutRequest) -> bool {
        let one = Bytes::new();
        let attached = self.leases.get(&put.lease).into_iter().flatten();
        self.write(&put.key, &one)
            && (!put.prev_kv || self.read(&put.key, &one))
            && attached.into_iter().all(|key| self.write(key, &one))
    }

    fn txn(&self, txn: &pb::TxnRequest) -> bool {
        let ops = txn.success.iter().chain(&txn.failure);
        txn.compare.iter().all(|compare| self.read(&compare.key, &compare.range_end))
            && ops.into_iter().all(|op| match op.request.as_ref().unwrap() {
                Request::RequestRange(range) => self.read(&range.key, &range.range_end),
                Request::RequestPut(put) => self.put(put),
                Request::RequestDeleteRange(delete) => {
                    self.write(&delete.key, &delete.range_end)
                        && (!delete.prev_kv || self.read(&delete.key, &delete.range_end))
                }
                Request::RequestTxn(txn) => self.txn(txn),
            })
    }
}

#[test]
fn a_request_is_permitted_if_every_key_of_every_part_is() {
    let keys = keys();
    let mut chance = Chance(0x5eed_cafe);
    let (mut permitted_count, mut refused_count) = (0, 0);
    for round in 0..ROUNDS {
        let permissions: Vec<Permission> = (0..chance.below(7))
            .map(|_| {
                let (key, range_end) = chance.bounds();
                let kind = match chance.below(4) {
                    0 => Type::Read,
                    1 => Type::Write,
                    _ => Type::Readwrite,
                };
                Permission { perm_type: kind.into(), key, range_end }
            })
            .collect();
        let leases: BTreeMap<i64, Vec<Bytes>> = (1..=LEASES)
            .map(|lease| (lease, (0..chance.below(2)).map(|_| chance.bound()).collect()))
            .collect();
        let mut auth = with_permissions(&[]);
        let index = auth.changed_at();
        auth.roles.get_mut("r").unwrap().permissions = permissions.clone();
        let naive = Naive { keys: &keys, permissions: &permissions, leases: &leases };
        let (needs, wanted) = match chance.below(4) {
            0 => {
                let request = draw_range(&mut chance);
                (Needs::of_range(&request), naive.read(&request.key, &request.range_end))
            }
            1 => {
                let request = draw_put(&mut chance);
                (Needs::of_put(&request), naive.put(&request))
            }
            2 => {
                let request = draw_delete(&mut chance);
                let may_write = naive.write(&request.key, &request.range_end);
                let may_read = naive.read(&request.key, &request.range_end);
                (Needs::of_delete(&request), may_write && (!request.prev_kv || may_read))
            }
            _ => {
                let request = draw_txn(&mut chance, 3);
                (Needs::of_txn(&request), naive.txn(&request))
            }
        };
        let attached = |lease: LeaseId| Ok::<_, Error>(leases[&lease.0].clone());
        let got = auth.check(&Caller::user("u"), &needs, attached);
        let wanted = match wanted {
            true => Ok(Pass::from_number(index)),
            false => Err(Error::PermissionDenied),
        };
        assert_eq!(got, wanted, "round {round}: {permissions:?} {needs:?} {leases:?}");
        match wanted {
            Ok(_) => permitted_count += 1,
            Err(_) => refused_count += 1,
        }
    }
    assert!(permitted_count > ROUNDS / 20 && refused_count > ROUNDS / 20, "both were met");
}
