//! KV.Range, and read-only transactions.

use std::cmp::Ordering;
use std::ops::ControlFlow;

use bytes::Bytes;

use super::draft::header;
use super::evaluate::NoLeases;
use super::history::Wanted;
use super::keyspace::Keyspace;
use super::txn::{self, Execution};
use super::{Failure, Head};
use crate::Error;
use crate::proto::Span;
use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use crate::proto::mvccpb::KeyValue;
use crate::view::View;

/// Answers a checked KV.Range at a head.
///
/// # Errors
/// A future or compacted revision is for the client; see `Failure` for the rest.
pub fn read(
    view: &dyn View,
    head: Head,
    request: &pb::RangeRequest,
) -> Result<pb::RangeResponse, Failure> {
    let revision = readable_revision(head, request.revision)?;
    let mut answer = select(&Keyspace::new(view, revision), request)?;
    answer.header = header(head.revision);
    Ok(answer)
}

/// Answers a checked KV.Txn that is read-only.
///
/// # Errors
/// As `read`.
///
/// # Panics
/// The transaction may write.
pub fn read_txn(
    view: &dyn View,
    head: Head,
    request: &pb::TxnRequest,
) -> Result<pb::TxnResponse, Failure> {
    assert!(txn::is_read_only(request), "only a transaction of reads is answered without leases");
    txn::run(&mut Execution::new(view, head.revision, head, &NoLeases, head.revision), request)
}

/// The revision a read outside of transactions is made at.
///
/// # Errors
/// A future or compacted revision.
pub(crate) fn readable_revision(head: Head, requested: i64) -> Result<i64, Error> {
    if requested <= 0 {
        Ok(head.revision)
    } else if requested > head.revision {
        Err(Error::FutureRevision)
    } else if requested < head.compact_revision {
        Err(Error::Compacted)
    } else {
        Ok(requested)
    }
}

/// True if the keys are wanted as they come. A target without an order counts: etcd reads as many
/// keys as the limit asks for in key order and sorts no more than these.
pub(super) fn is_default_order(request: &pb::RangeRequest) -> bool {
    request.sort_order() == SortOrder::None
        || (request.sort_target() == SortTarget::Key && request.sort_order() == SortOrder::Ascend)
}

/// True if keys are to be left out by their revisions.
pub(super) fn has_bounds(request: &pb::RangeRequest) -> bool {
    request.min_mod_revision != 0
        || request.max_mod_revision != 0
        || request.min_create_revision != 0
        || request.max_create_revision != 0
}

/// Answers a read from a keyspace, without the header.
pub(super) fn select(
    keys: &Keyspace<'_>,
    request: &pb::RangeRequest,
) -> Result<pb::RangeResponse, Failure> {
    let span = Span::from_request(request.key.clone(), request.range_end.clone());
    if request.count_only {
        return Ok(pb::RangeResponse { count: keys.count(&span)?, ..Default::default() });
    }
    let limit = limit(request);
    // With these, the first keys that fit the bounds are the answer, and later ones only count.
    let is_in_key_order = is_default_order(request)
        && (request.sort_target() == SortTarget::Key || !has_bounds(request));
    let enough = limit.saturating_add(1);
    let wanted = if is_in_key_order && !has_bounds(request) { enough } else { usize::MAX };

    let mut kvs = Vec::new();
    let mut count = 0;
    let mut rest = None;
    keys.visit(&span, Wanted::keys(wanted), &mut |kv| {
        count += 1;
        if !is_within_bounds(request, &kv) {
            return ControlFlow::Continue(());
        }
        kvs.push(trim(request, kv));
        if kvs.len() < enough {
            return ControlFlow::Continue(());
        }
        if is_in_key_order {
            rest = kvs.last().map(|kv: &KeyValue| after(&kv.key));
            return ControlFlow::Break(());
        }
        // Keep what can still be in the answer, at a cost that stays small for each key.
        if kvs.len() >= enough.saturating_mul(2).max(SORT_BUFFER_MIN) {
            sort(request, &mut kvs);
            kvs.truncate(enough);
        }
        ControlFlow::Continue(())
    })?;
    if let Some(start) = rest {
        count += keys.count(&Span { start, end: span.end })?;
    }
    let mut answer = pb::RangeResponse { kvs, count, ..Default::default() };
    arrange(request, &mut answer);
    Ok(answer)
}

/// Keys gathered before a sorted read with a limit drops those that cannot be in the answer. Few
/// under test, so that it happens there.
const SORT_BUFFER_MIN: usize = if cfg!(test) { 4 } else { 1024 };

/// All keys of the span with the right count, to be arranged when the revision of the pending
/// changes among them is known.
pub(super) fn select_all(keys: &Keyspace<'_>, span: &Span) -> Result<pb::RangeResponse, Failure> {
    let mut kvs = Vec::new();
    keys.visit(span, Wanted::ALL, &mut |kv| {
        kvs.push(kv);
        ControlFlow::Continue(())
    })?;
    Ok(pb::RangeResponse { count: kvs.len() as i64, kvs, ..Default::default() })
}

/// Turns the keys of a span into the list that was asked for: bounds, order, limit, fields.
pub(crate) fn arrange(request: &pb::RangeRequest, answer: &mut pb::RangeResponse) {
    answer.kvs.retain(|kv| is_within_bounds(request, kv));
    sort(request, &mut answer.kvs);
    let limit = limit(request);
    answer.more = answer.kvs.len() > limit;
    answer.kvs.truncate(limit);
    if request.keys_only {
        for kv in &mut answer.kvs {
            kv.value = Bytes::new();
        }
    }
}

/// How many keys of the span, as they come, are enough for the answer and to know whether there are
/// more; the others only count.
pub(crate) fn wanted_in_key_order(request: &pb::RangeRequest) -> usize {
    let is_enough = is_default_order(request) && !has_bounds(request);
    if is_enough { limit(request).saturating_add(1) } else { usize::MAX }
}

/// True if the values are needed even if only the keys are wanted.
pub(crate) fn is_sorted_by_value(request: &pb::RangeRequest) -> bool {
    request.sort_target() == SortTarget::Value
}

/// The lowest key above `key`.
pub(super) fn after(key: &[u8]) -> Bytes {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next.into()
}

/// Most keys to return; zero or less in a request is no limit.
pub(super) fn limit(request: &pb::RangeRequest) -> usize {
    if request.limit <= 0 {
        usize::MAX
    } else {
        usize::try_from(request.limit).unwrap_or(usize::MAX)
    }
}

fn is_within_bounds(request: &pb::RangeRequest, kv: &KeyValue) -> bool {
    let is_within = |revision: i64, min: i64, max: i64| {
        (min == 0 || revision >= min) && (max == 0 || revision <= max)
    };
    is_within(kv.mod_revision, request.min_mod_revision, request.max_mod_revision)
        && is_within(kv.create_revision, request.min_create_revision, request.max_create_revision)
}

/// Drops what the answer does not need of a key, and copies what it does need where most of the
/// neighbours with which it shares a buffer may be left out.
pub(super) fn trim(request: &pb::RangeRequest, kv: KeyValue) -> KeyValue {
    if request.keys_only && request.sort_target() != SortTarget::Value {
        KeyValue { key: Bytes::copy_from_slice(&kv.key), value: Bytes::new(), ..kv }
    } else if has_bounds(request) || (request.limit > 0 && !is_default_order(request)) {
        KeyValue {
            key: Bytes::copy_from_slice(&kv.key),
            value: Bytes::copy_from_slice(&kv.value),
            ..kv
        }
    } else {
        kv
    }
}

/// Equal keys keep the order of their names.
fn sort(request: &pb::RangeRequest, kvs: &mut [KeyValue]) {
    let compare: fn(&KeyValue, &KeyValue) -> Ordering = match request.sort_target() {
        SortTarget::Key if is_default_order(request) => return,
        SortTarget::Key => |a, b| a.key.cmp(&b.key),
        SortTarget::Version => |a, b| a.version.cmp(&b.version),
        SortTarget::Create => |a, b| a.create_revision.cmp(&b.create_revision),
        SortTarget::Mod => |a, b| a.mod_revision.cmp(&b.mod_revision),
        SortTarget::Value => |a, b| a.value.cmp(&b.value),
    };
    match request.sort_order() {
        SortOrder::None | SortOrder::Ascend => kvs.sort_by(compare),
        SortOrder::Descend => kvs.sort_by(|a, b| compare(b, a)),
    }
}
