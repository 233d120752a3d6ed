//! What is wrong with a request whatever the state is. Runs before anything else.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;

use crate::Error;
use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::request_op::Request;

use super::read;

/// Checks KV.Range.
///
/// # Errors
/// An empty key, or a sort order or target outside its enum.
pub fn check_range(request: &pb::RangeRequest) -> Result<(), Error> {
    if request.key.is_empty() {
        return Err(Error::EmptyKey);
    }
    let order = pb::range_request::SortOrder::try_from(request.sort_order);
    let target = pb::range_request::SortTarget::try_from(request.sort_target);
    if order.is_err() || target.is_err() {
        return Err(Error::InvalidSortOption);
    }
    Ok(())
}

/// Checks KV.RangeStream.
///
/// # Errors
/// As KV.Range; a sort order other than by key ascending; a bound on a revision.
pub fn check_range_stream(request: &pb::RangeRequest) -> Result<(), Error> {
    check_range(request)?;
    if !read::is_default_order(request) {
        return Err(Error::RangeStreamSort);
    }
    if read::has_bounds(request) {
        return Err(Error::RangeStreamFilter);
    }
    Ok(())
}

/// Checks KV.Put.
///
/// # Errors
/// An empty key; a value or lease together with the flag that ignores it.
pub fn check_put(request: &pb::PutRequest) -> Result<(), Error> {
    if request.key.is_empty() {
        Err(Error::EmptyKey)
    } else if request.ignore_value && !request.value.is_empty() {
        Err(Error::ValueProvided)
    } else if request.ignore_lease && request.lease != 0 {
        Err(Error::LeaseProvided)
    } else {
        Ok(())
    }
}

/// Checks KV.DeleteRange.
///
/// # Errors
/// An empty key.
pub fn check_delete(request: &pb::DeleteRangeRequest) -> Result<(), Error> {
    if request.key.is_empty() { Err(Error::EmptyKey) } else { Ok(()) }
}

/// Checks KV.Txn with all that is nested in it, executed or not. `ops_max` bounds the longest of
/// compares, success and failure; a nested transaction gets what its parent left of it.
///
/// # Errors
/// Too many operations, an operation without content, a wrong operation, or a key that one branch
/// puts twice or both puts and deletes.
pub fn check_txn(request: &pb::TxnRequest, ops_max: usize) -> Result<(), Error> {
    check_ops(request, ops_max)?;
    check_overlaps(&request.success)?;
    check_overlaps(&request.failure)?;
    Ok(())
}

fn check_ops(request: &pb::TxnRequest, ops_max: usize) -> Result<(), Error> {
    let longest = request.compare.len().max(request.success.len()).max(request.failure.len());
    let ops_left = ops_max.checked_sub(longest).ok_or(Error::TooManyOps)?;
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(Error::EmptyKey);
    }
    for op in request.success.iter().chain(&request.failure) {
        match &op.request {
            Some(Request::RequestRange(range)) => check_range(range)?,
            Some(Request::RequestPut(put)) => check_put(put)?,
            Some(Request::RequestDeleteRange(delete)) => check_delete(delete)?,
            Some(Request::RequestTxn(txn)) => check_ops(txn, ops_left)?,
            None => return Err(Error::KeyNotFound),
        }
    }
    Ok(())
}

/// What a branch may change, nested branches included. A request can nest a great many operations,
/// so joining two of them costs no more than the smaller one.
#[derive(Default)]
struct Changes<'a> {
    puts: BTreeSet<&'a [u8]>,
    deleted_keys: BTreeSet<&'a [u8]>,
    /// Start to end, no two of them overlapping.
    deleted_spans: BTreeMap<&'a [u8], &'a [u8]>,
}

impl<'a> Changes<'a> {
    fn add_delete(&mut self, key: &'a [u8], range_end: &'a [u8]) {
        if range_end.is_empty() {
            self.deleted_keys.insert(key);
        } else {
            self.add_deleted_span(key, range_end);
        }
    }

    /// An end of one zero byte is taken as it stands, so that an open-ended delete covers nothing
    /// here: etcd accepts it beside puts, and the operations then run in order.
    fn add_deleted_span(&mut self, mut start: &'a [u8], mut end: &'a [u8]) {
        if end <= start {
            return;
        }
        while let Some((&other_start, &other_end)) = self.deleted_spans.range(..=end).next_back() {
            if other_end < start {
                break;
            }
            self.deleted_spans.remove(other_start);
            start = start.min(other_start);
            end = end.max(other_end);
        }
        self.deleted_spans.insert(start, end);
    }

    fn add_put(&mut self, key: &'a [u8]) -> Result<(), Error> {
        if self.deletes(key) || !self.puts.insert(key) { Err(Error::DuplicateKey) } else { Ok(()) }
    }

    fn deletes(&self, key: &[u8]) -> bool {
        self.deleted_keys.contains(key)
            || self.deleted_spans.range(..=key).next_back().is_some_and(|(_, &end)| key < end)
    }

    fn deletes_any(&self, keys: &BTreeSet<&'a [u8]>) -> bool {
        if keys.len() <= self.deleted_keys.len() + self.deleted_spans.len() {
            return keys.iter().any(|key| self.deletes(key));
        }
        let mut spans = self.deleted_spans.iter();
        self.deleted_keys.iter().any(|key| keys.contains(key))
            || spans.any(|(&start, &end)| keys.range(start..end).next().is_some())
    }

    /// Adds the puts of a nested transaction, which must be new.
    fn add_nested_puts(&mut self, mut puts: BTreeSet<&'a [u8]>) -> Result<(), Error> {
        if self.deletes_any(&puts) {
            return Err(Error::DuplicateKey);
        }
        if puts.len() > self.puts.len() {
            mem::swap(&mut self.puts, &mut puts);
        }
        if puts.iter().all(|key| self.puts.insert(key)) { Ok(()) } else { Err(Error::DuplicateKey) }
    }

    fn add_nested_deletes(&mut self, mut nested: Self) {
        if nested.deleted_keys.len() > self.deleted_keys.len() {
            mem::swap(&mut self.deleted_keys, &mut nested.deleted_keys);
        }
        self.deleted_keys.extend(nested.deleted_keys);
        if nested.deleted_spans.len() > self.deleted_spans.len() {
            mem::swap(&mut self.deleted_spans, &mut nested.deleted_spans);
        }
        for (start, end) in nested.deleted_spans {
            self.add_deleted_span(start, end);
        }
    }
}

/// Fails if a branch puts a key twice, or puts one that it deletes.
///
/// In etcd's order: the deletes of this level, then each nested transaction, then the puts of this
/// level. Two details follow from it that clients can see: the branches of one nested transaction
/// may put the same key, as only one of them runs, and a nested put is not compared with the
/// deletes of a later nested transaction.
fn check_overlaps(ops: &[pb::RequestOp]) -> Result<Changes<'_>, Error> {
    let mut changes = Changes::default();
    for op in ops {
        if let Some(Request::RequestDeleteRange(delete)) = &op.request {
            changes.add_delete(&delete.key, &delete.range_end);
        }
    }
    for op in ops {
        if let Some(Request::RequestTxn(txn)) = &op.request {
            let mut success = check_overlaps(&txn.success)?;
            let mut failure = check_overlaps(&txn.failure)?;
            let mut puts = mem::take(&mut success.puts);
            let mut fewer = mem::take(&mut failure.puts);
            if fewer.len() > puts.len() {
                mem::swap(&mut puts, &mut fewer);
            }
            puts.extend(fewer);
            changes.add_nested_puts(puts)?;
            changes.add_nested_deletes(success);
            changes.add_nested_deletes(failure);
        }
    }
    for op in ops {
        if let Some(Request::RequestPut(put)) = &op.request {
            changes.add_put(&put.key)?;
        }
    }
    Ok(changes)
}
