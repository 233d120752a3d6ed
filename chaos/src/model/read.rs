//! Read (etcd's Range): selects, filters, sorts and cuts the pairs of a span at a revision.

use bytes::Bytes;
use flotilla_proto::Span;
use flotilla_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use flotilla_proto::etcdserverpb::{RangeRequest, RangeResponse};
use flotilla_proto::mvccpb::KeyValue;

use crate::model::Refusal;
use crate::model::draft::Draft;
use crate::model::view::View;

/// What a read leaves to the server: etcd does not sort stably, so where several pairs have the
/// same sort key, any of them may come first, and a limit may cut off any of them.
#[derive(Clone, Debug, PartialEq)]
pub enum ReadOrder {
    /// Only one order is right.
    Total,
    /// Any order of these pairs that ascends (or descends) by their sort keys is right. The
    /// pairs are as they would be returned.
    Tied(Vec<(SortKey, KeyValue)>),
}

/// What a pair is sorted by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SortKey {
    /// A version or revision.
    Number(i64),
    /// A key or value.
    Text(Bytes),
}

impl View<'_> {
    /// A plain read takes every revision up to zero for the current one; a transaction is
    /// stricter, see `check_txn`.
    pub(super) fn check_read_revision(&self, request: &RangeRequest) -> Result<(), Refusal> {
        if request.revision > self.revision {
            return Err(Refusal::FutureRevision);
        }
        if request.revision > 0 && request.revision < self.compacted {
            return Err(Refusal::Compacted);
        }
        Ok(())
    }
}

impl Draft<'_> {
    /// The revision of the request must have been checked.
    pub(super) fn read(&mut self, request: &RangeRequest) -> RangeResponse {
        let pairs = self.pairs_at(request);
        let count = pairs.len() as i64;
        let mut answer = RangeResponse { header: self.header(), count, ..Default::default() };
        if request.count_only {
            self.orders.push(ReadOrder::Total);
            return answer;
        }
        let pairs = sort(filter(fetch(pairs, request), request), request);
        self.orders.push(order_of(&pairs, request));
        let wanted = usize::try_from(request.limit).unwrap_or(0);
        answer.more = wanted > 0 && pairs.len() > wanted;
        answer.kvs = pairs.into_iter().map(|pair| returned(pair, request)).collect();
        if answer.more {
            answer.kvs.truncate(wanted);
        }
        answer
    }

    /// All pairs of the span, ascending: of the state as changed so far, or of the past.
    fn pairs_at(&self, request: &RangeRequest) -> Vec<KeyValue> {
        let span = Span::from_request(request.key.clone(), request.range_end.clone());
        if request.revision > 0 {
            self.view.timeline.span(&span, request.revision).into_iter().cloned().collect()
        } else {
            self.span(&span)
        }
    }
}

/// Without order and bounds etcd fetches one pair more than the limit, in key order, whatever
/// the sort target: sorting by another target then sorts only those.
fn fetch(mut pairs: Vec<KeyValue>, request: &RangeRequest) -> Vec<KeyValue> {
    let is_bounded = request.min_mod_revision != 0
        || request.max_mod_revision != 0
        || request.min_create_revision != 0
        || request.max_create_revision != 0;
    if request.limit > 0 && request.sort_order() == SortOrder::None && !is_bounded {
        let most = usize::try_from(request.limit).unwrap_or(usize::MAX);
        pairs.truncate(most.saturating_add(1));
    }
    pairs
}

fn filter(mut pairs: Vec<KeyValue>, request: &RangeRequest) -> Vec<KeyValue> {
    let is_within =
        |value: i64, min: i64, max: i64| (min == 0 || value >= min) && (max == 0 || value <= max);
    pairs.retain(|pair| {
        is_within(pair.mod_revision, request.min_mod_revision, request.max_mod_revision)
            && is_within(
                pair.create_revision,
                request.min_create_revision,
                request.max_create_revision,
            )
    });
    pairs
}

fn sort(mut pairs: Vec<KeyValue>, request: &RangeRequest) -> Vec<KeyValue> {
    // The pairs arrive in key order and both sorts are stable, so pairs with equal sort keys
    // stay in key order.
    match request.sort_order() {
        SortOrder::None | SortOrder::Ascend => {
            pairs.sort_by_key(|pair| sort_key(pair, request.sort_target()));
        }
        SortOrder::Descend => {
            pairs.sort_by(|a, b| {
                sort_key(b, request.sort_target()).cmp(&sort_key(a, request.sort_target()))
            });
        }
    }
    pairs
}

fn sort_key(pair: &KeyValue, target: SortTarget) -> SortKey {
    match target {
        SortTarget::Key => SortKey::Text(pair.key.clone()),
        SortTarget::Version => SortKey::Number(pair.version),
        SortTarget::Create => SortKey::Number(pair.create_revision),
        SortTarget::Mod => SortKey::Number(pair.mod_revision),
        SortTarget::Value => SortKey::Text(pair.value.clone()),
    }
}

fn order_of(pairs: &[KeyValue], request: &RangeRequest) -> ReadOrder {
    let target = request.sort_target();
    if target == SortTarget::Key {
        return ReadOrder::Total;
    }
    let tied = pairs
        .iter()
        .map(|pair| (sort_key(pair, target), returned(pair.clone(), request)))
        .collect();
    ReadOrder::Tied(tied)
}

fn returned(mut pair: KeyValue, request: &RangeRequest) -> KeyValue {
    if request.keys_only {
        pair.value = Bytes::new();
    }
    pair
}
