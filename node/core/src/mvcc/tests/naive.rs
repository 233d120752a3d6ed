//! etcd's keys in the most obvious form: one whole map for every revision. Written from the facts
//! about etcd and sharing nothing with the code under test.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use prost::Message;

use crate::Error;
use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use crate::proto::etcdserverpb::request_op::Request;
use crate::proto::etcdserverpb::response_op::Response;
use crate::proto::mvccpb::KeyValue;

type Keys = BTreeMap<Bytes, KeyValue>;

#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) sub: i64,
    pub(super) key: Bytes,
    /// `None` for a delete.
    pub(super) kv: Option<KeyValue>,
}

pub(super) struct Naive {
    /// Index is the revision; 0 and 1 are empty.
    pub(super) states: Vec<Keys>,
    /// Index is the revision.
    pub(super) changes: Vec<Vec<Change>>,
    pub(super) compact_revision: i64,
    pub(super) leases: BTreeSet<i64>,
}

/// A transaction in progress.
struct Work {
    keys: Keys,
    changes: Vec<Change>,
    revision: i64,
}

impl Work {
    fn header(&self) -> Option<pb::ResponseHeader> {
        let revision = self.revision + i64::from(!self.changes.is_empty());
        Some(pb::ResponseHeader { revision, ..Default::default() })
    }
}

fn contains(key: &Bytes, range_end: &Bytes, candidate: &Bytes) -> bool {
    if range_end.is_empty() {
        candidate == key
    } else if range_end.as_ref() == b"\0" {
        candidate >= key
    } else {
        candidate >= key && candidate < range_end
    }
}

fn in_span(keys: &Keys, key: &Bytes, range_end: &Bytes) -> Vec<KeyValue> {
    let found = keys.values().filter(|kv| contains(key, range_end, &kv.key));
    found.cloned().collect()
}

impl Naive {
    pub(super) fn new() -> Self {
        Self {
            states: vec![Keys::new(); 2],
            changes: vec![Vec::new(); 2],
            compact_revision: -1,
            leases: BTreeSet::new(),
        }
    }

    pub(super) fn revision(&self) -> i64 {
        self.states.len() as i64 - 1
    }

    pub(super) fn now(&self) -> &Keys {
        self.states.last().unwrap()
    }

    /// What was attached to a lease at a revision.
    pub(super) fn attached(&self, lease: i64, revision: i64) -> Vec<Bytes> {
        let keys = &self.states[usize::try_from(revision).unwrap()];
        keys.values().filter(|kv| kv.lease == lease).map(|kv| kv.key.clone()).collect()
    }

    fn begin(&self) -> Work {
        Work { keys: self.now().clone(), changes: Vec::new(), revision: self.revision() }
    }

    fn end(&mut self, work: Work) {
        if !work.changes.is_empty() {
            self.states.push(work.keys);
            self.changes.push(work.changes);
        }
    }

    pub(super) fn put(&mut self, request: &pb::PutRequest) -> Result<pb::PutResponse, Error> {
        let mut work = self.begin();
        self.check_put(request)?;
        let answer = Self::do_put(&mut work, request)?;
        self.end(work);
        Ok(answer)
    }

    pub(super) fn delete(&mut self, request: &pb::DeleteRangeRequest) -> pb::DeleteRangeResponse {
        let mut work = self.begin();
        let answer = Self::do_delete(&mut work, request);
        self.end(work);
        answer
    }

    pub(super) fn txn(&mut self, request: &pb::TxnRequest) -> Result<pb::TxnResponse, Error> {
        let mut work = self.begin();
        self.check_txn(request)?;
        let mut answer = self.do_txn(&mut work, request)?;
        answer.header = work.header();
        self.end(work);
        Ok(answer)
    }

    pub(super) fn revoke(&mut self, lease: i64) {
        self.leases.remove(&lease);
        let mut work = self.begin();
        for kv in self.now().values().filter(|kv| kv.lease == lease) {
            let key = kv.key.clone();
            Self::do_delete(&mut work, &pb::DeleteRangeRequest { key, ..Default::default() });
        }
        self.end(work);
    }

    pub(super) fn compact(&mut self, revision: i64) -> Result<(), Error> {
        if revision <= self.compact_revision {
            return Err(Error::Compacted);
        }
        if revision > self.revision() {
            return Err(Error::FutureRevision);
        }
        self.compact_revision = revision;
        Ok(())
    }

    /// A read when the store was at `head`.
    pub(super) fn range_at(
        &self,
        head: super::Head,
        request: &pb::RangeRequest,
    ) -> Result<pb::RangeResponse, Error> {
        let revision = match request.revision {
            revision if revision > head.revision => return Err(Error::FutureRevision),
            revision if revision <= 0 => head.revision,
            revision if revision < head.compact_revision => return Err(Error::Compacted),
            revision => revision,
        };
        let mut answer = select(&self.states[revision as usize], request);
        answer.header = Some(pb::ResponseHeader { revision: head.revision, ..Default::default() });
        Ok(answer)
    }

    fn check_put(&self, request: &pb::PutRequest) -> Result<(), Error> {
        if request.lease != 0 && !self.leases.contains(&request.lease) {
            return Err(Error::LeaseNotFound);
        }
        let keeps = request.ignore_value || request.ignore_lease;
        if keeps && !self.now().contains_key(&request.key) {
            return Err(Error::KeyNotFound);
        }
        Ok(())
    }

    fn branch<'r>(&self, request: &'r pb::TxnRequest) -> (bool, &'r [pb::RequestOp]) {
        let succeeded = request.compare.iter().all(|compare| self.compare(compare));
        (succeeded, if succeeded { &request.success } else { &request.failure })
    }

    fn check_txn(&self, request: &pb::TxnRequest) -> Result<(), Error> {
        for op in self.branch(request).1 {
            match op.request.as_ref().unwrap() {
                Request::RequestRange(range) if range.revision == 0 => {}
                Request::RequestRange(range) if range.revision > self.revision() => {
                    return Err(Error::FutureRevision);
                }
                Request::RequestRange(range) if range.revision < self.compact_revision => {
                    return Err(Error::Compacted);
                }
                Request::RequestPut(put) => self.check_put(put)?,
                Request::RequestTxn(txn) => self.check_txn(txn)?,
                Request::RequestRange(_) | Request::RequestDeleteRange(_) => {}
            }
        }
        Ok(())
    }

    fn do_txn(&self, work: &mut Work, request: &pb::TxnRequest) -> Result<pb::TxnResponse, Error> {
        let (succeeded, ops) = self.branch(request);
        let mut responses = Vec::new();
        for op in ops {
            let response = match op.request.as_ref().unwrap() {
                Request::RequestRange(range) => {
                    let mut answer = if range.revision > 0 {
                        select(&self.states[range.revision as usize], range)
                    } else {
                        select(&work.keys, range)
                    };
                    answer.header = work.header();
                    Response::ResponseRange(answer)
                }
                Request::RequestPut(put) => Response::ResponsePut(Self::do_put(work, put)?),
                Request::RequestDeleteRange(delete) => {
                    Response::ResponseDeleteRange(Self::do_delete(work, delete))
                }
                Request::RequestTxn(txn) => {
                    let mut answer = self.do_txn(work, txn)?;
                    answer.header = Some(Default::default());
                    Response::ResponseTxn(answer)
                }
            };
            responses.push(pb::ResponseOp { response: Some(response) });
        }
        Ok(pb::TxnResponse { header: None, succeeded, responses })
    }

    fn do_put(work: &mut Work, request: &pb::PutRequest) -> Result<pb::PutResponse, Error> {
        let before = work.keys.get(&request.key).cloned();
        let (mut value, mut lease) = (request.value.clone(), request.lease);
        if request.ignore_value || request.ignore_lease {
            let before = before.as_ref().ok_or(Error::KeyNotFound)?;
            if request.ignore_value {
                value = before.value.clone();
            }
            if request.ignore_lease {
                lease = before.lease;
            }
        }
        let revision = work.revision + 1;
        let kv = KeyValue {
            key: request.key.clone(),
            create_revision: before.as_ref().map_or(revision, |before| before.create_revision),
            mod_revision: revision,
            version: before.as_ref().map_or(0, |before| before.version) + 1,
            value,
            lease,
        };
        work.keys.insert(request.key.clone(), kv.clone());
        let sub = work.changes.len() as i64;
        work.changes.push(Change { sub, key: request.key.clone(), kv: Some(kv) });
        let prev_kv = before.filter(|_| request.prev_kv);
        Ok(pb::PutResponse { header: work.header(), prev_kv })
    }

    fn do_delete(work: &mut Work, request: &pb::DeleteRangeRequest) -> pb::DeleteRangeResponse {
        let found = in_span(&work.keys, &request.key, &request.range_end);
        for kv in &found {
            work.keys.remove(&kv.key);
            let sub = work.changes.len() as i64;
            work.changes.push(Change { sub, key: kv.key.clone(), kv: None });
        }
        pb::DeleteRangeResponse {
            header: work.header(),
            deleted: found.len() as i64,
            prev_kvs: if request.prev_kv { found } else { Vec::new() },
        }
    }

    fn compare(&self, compare: &pb::Compare) -> bool {
        let found = in_span(self.now(), &compare.key, &compare.range_end);
        if found.is_empty() {
            return compare.target() != CompareTarget::Value
                && compare_kv(compare, &KeyValue::default());
        }
        found.iter().all(|kv| compare_kv(compare, kv))
    }

    /// The hash by the letter of etcd's rule, from the full history.
    pub(super) fn hash(&self, revision: i64) -> u32 {
        let newest_at = |revision: i64| -> BTreeSet<(i64, i64)> {
            let mut newest = BTreeMap::new();
            for main in 0..=revision {
                for change in &self.changes[main as usize] {
                    let place = change.kv.is_some().then_some((main, change.sub));
                    newest.insert(change.key.clone(), place);
                }
            }
            newest.into_values().flatten().collect()
        };
        let mut kept = newest_at(revision);
        if kept.is_empty() {
            kept = newest_at(self.compact_revision);
        }
        let mut bytes = b"key".to_vec();
        for main in 0..=revision {
            for change in &self.changes[main as usize] {
                if main <= self.compact_revision && !kept.contains(&(main, change.sub)) {
                    continue;
                }
                bytes.extend(main.to_be_bytes());
                bytes.push(b'_');
                bytes.extend(change.sub.to_be_bytes());
                match &change.kv {
                    Some(kv) => bytes.extend(kv.encode_to_vec()),
                    None => {
                        bytes.push(b't');
                        let key = change.key.clone();
                        bytes.extend(KeyValue { key, ..Default::default() }.encode_to_vec());
                    }
                }
            }
        }
        crc32_castagnoli(&bytes)
    }
}

/// Bit by bit, so that it shares nothing with the library.
fn crc32_castagnoli(bytes: &[u8]) -> u32 {
    let mut crc = !0_u32;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

#[test]
fn the_checksum_has_its_check_value() {
    assert_eq!(crc32_castagnoli(b"123456789"), 0xe306_9283);
}

fn compare_kv(compare: &pb::Compare, kv: &KeyValue) -> bool {
    let union = compare.target_union.clone();
    let number = |stored: i64, given: Option<i64>| stored.cmp(&given.unwrap_or(0));
    let order = match (compare.target(), union) {
        (CompareTarget::Version, Some(TargetUnion::Version(n))) => number(kv.version, Some(n)),
        (CompareTarget::Version, _) => number(kv.version, None),
        (CompareTarget::Create, Some(TargetUnion::CreateRevision(n))) => {
            number(kv.create_revision, Some(n))
        }
        (CompareTarget::Create, _) => number(kv.create_revision, None),
        (CompareTarget::Mod, Some(TargetUnion::ModRevision(n))) => number(kv.mod_revision, Some(n)),
        (CompareTarget::Mod, _) => number(kv.mod_revision, None),
        (CompareTarget::Lease, Some(TargetUnion::Lease(n))) => number(kv.lease, Some(n)),
        (CompareTarget::Lease, _) => number(kv.lease, None),
        (CompareTarget::Value, Some(TargetUnion::Value(value))) => kv.value.cmp(&value),
        (CompareTarget::Value, _) => kv.value.cmp(&Bytes::new()),
    };
    match compare.result() {
        CompareResult::Equal => order.is_eq(),
        CompareResult::Greater => order.is_gt(),
        CompareResult::Less => order.is_lt(),
        CompareResult::NotEqual => order.is_ne(),
    }
}

fn select(keys: &Keys, request: &pb::RangeRequest) -> pb::RangeResponse {
    let mut kvs = in_span(keys, &request.key, &request.range_end);
    let count = kvs.len() as i64;
    if request.count_only {
        return pb::RangeResponse { count, ..Default::default() };
    }
    let limit = if request.limit > 0 { request.limit as usize } else { usize::MAX };
    let has_filter = request.min_mod_revision != 0
        || request.max_mod_revision != 0
        || request.min_create_revision != 0
        || request.max_create_revision != 0;
    if request.sort_order() == SortOrder::None && !has_filter {
        kvs.truncate(limit.saturating_add(1));
    }
    if request.max_mod_revision != 0 {
        kvs.retain(|kv| kv.mod_revision <= request.max_mod_revision);
    }
    if request.min_mod_revision != 0 {
        kvs.retain(|kv| kv.mod_revision >= request.min_mod_revision);
    }
    if request.max_create_revision != 0 {
        kvs.retain(|kv| kv.create_revision <= request.max_create_revision);
    }
    if request.min_create_revision != 0 {
        kvs.retain(|kv| kv.create_revision >= request.min_create_revision);
    }
    // Equal ones in key order, as both directions sort stably.
    let is_descending = request.sort_order() == SortOrder::Descend;
    let by_number = |kvs: &mut Vec<KeyValue>, number: fn(&KeyValue) -> i64| {
        kvs.sort_by_key(|kv| if is_descending { -number(kv) } else { number(kv) });
    };
    match request.sort_target() {
        SortTarget::Key if is_descending => kvs.reverse(),
        SortTarget::Key => {}
        SortTarget::Version => by_number(&mut kvs, |kv| kv.version),
        SortTarget::Create => by_number(&mut kvs, |kv| kv.create_revision),
        SortTarget::Mod => by_number(&mut kvs, |kv| kv.mod_revision),
        SortTarget::Value => {
            kvs.sort_by(
                |a, b| {
                    if is_descending { b.value.cmp(&a.value) } else { a.value.cmp(&b.value) }
                },
            );
        }
    }
    let more = kvs.len() > limit;
    kvs.truncate(limit);
    if request.keys_only {
        kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
    }
    pb::RangeResponse { kvs, more, count, ..Default::default() }
}
