//! Cutting a request by the table of ranges: who owns its keys, what each of them locks, and which
//! of its effects are whose.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::GroupId;
use crate::command::Command;
use crate::mvcc;
use crate::proto::Span;
use crate::proto::internal::{Effect, Lock};
use crate::spine::ranges::{Range, Ranges};
use crate::view::{View, ViewError};

/// The ranges that own keys of a request, by id.
pub fn owners(ranges: &Ranges, command: &Command) -> Vec<GroupId> {
    if ranges.is_empty() {
        return vec![GroupId::SPINE];
    }
    let footprint = mvcc::footprint(command);
    let mut owners = BTreeSet::new();
    owners.extend(footprint.keys.iter().map(|(key, _)| ranges.owner(key)));
    for (span, _) in &footprint.spans {
        owners.extend(ranges.overlapping(span));
    }
    owners.into_iter().collect()
}

/// What each of them locks, by id. Leases are locked in all of them.
pub(super) fn locks(ranges: &Ranges, command: &Command) -> BTreeMap<GroupId, Vec<Lock>> {
    let footprint = mvcc::footprint(command);
    let mut locks: BTreeMap<GroupId, Vec<Lock>> = BTreeMap::new();
    for (key, mode) in footprint.keys {
        let is_write = mode != mvcc::Mode::Read;
        let lock = Lock { key, is_write, ..Lock::default() };
        locks.entry(ranges.owner(&lock.key)).or_default().push(lock);
    }
    for (span, mode) in &footprint.spans {
        for (range, piece) in ranges.pieces(span) {
            let (key, range_end) = piece.into_request();
            let is_write = *mode != mvcc::Mode::Read;
            let lock = Lock { key, range_end, is_write, ..Lock::default() };
            locks.entry(range).or_default().push(lock);
        }
    }
    let leases = footprint.leases.iter().map(|lease| Lock { lease: lease.0, ..Lock::default() });
    locks.values_mut().for_each(|locks| locks.extend(leases.clone()));
    locks
}

/// The keys from one on that the range which owns it has: what moves when it is cut there.
pub(super) fn rest_of_range(ranges: &Ranges, key: &Bytes) -> Lock {
    let rest = Span { start: key.clone(), end: None };
    let piece = ranges.pieces(&rest).into_iter().next().map(|(_, piece)| piece);
    let (key, range_end) = piece.unwrap_or(rest).into_request();
    Lock { key, range_end, is_write: true, ..Lock::default() }
}

/// What a merge locks: the membership of both ranges, and every key of the one that ceases. Nothing
/// if the one or the other is not there.
pub(super) fn merge(
    ranges: &Ranges,
    left: GroupId,
    right: GroupId,
) -> BTreeMap<GroupId, Vec<Lock>> {
    let (Some(stays), Some(ceases)) = (ranges.get(left), ranges.get(right)) else {
        return BTreeMap::new();
    };
    let members = |range: &Range, is_write| {
        let mut members: Vec<u64> = range.replicas.iter().map(|node| node.0).collect();
        members.sort_unstable();
        Lock { members, is_write, ..Lock::default() }
    };
    let (key, range_end) = ceases.span.clone().into_request();
    let keys = Lock { key, range_end, is_write: true, ..Lock::default() };
    BTreeMap::from([
        (left, vec![members(stays, false)]),
        (right, vec![keys, members(ceases, true)]),
    ])
}

/// An effect, or what of it each range has, in the order of the keys.
pub(super) fn effect(ranges: &Ranges, effect: Effect) -> Vec<(GroupId, Effect)> {
    if effect.range_end.is_empty() {
        return vec![(ranges.owner(&effect.key), effect)];
    }
    let span = Span::from_request(effect.key.clone(), effect.range_end.clone());
    let part = |(range, piece): (GroupId, Span)| {
        let (key, range_end) = piece.into_request();
        (range, Effect { key, range_end, ..effect.clone() })
    };
    ranges.pieces(&span).into_iter().map(part).collect()
}

/// The deletes that end a lease with these keys, which are sorted: named, unless they are many.
pub(super) fn lease_end(lease: i64, keys: Vec<Bytes>) -> Vec<Effect> {
    if keys.len() <= mvcc::NAMED_KEYS_MAX {
        let delete = |key| Effect { key, is_delete: true, ..Effect::default() };
        return keys.into_iter().map(delete).collect();
    }
    let (key, range_end) = Span::possible().into_request();
    vec![Effect { lease, is_delete: true, key, range_end, ..Effect::default() }]
}

/// How many keys an effect changes.
pub(super) fn keys_count(view: &dyn View, effect: &Effect) -> Result<u64, ViewError> {
    if effect.range_end.is_empty() {
        return Ok(1);
    }
    let span = Span::from_request(effect.key.clone(), effect.range_end.clone());
    if effect.lease == 0 {
        return mvcc::newest_keys_count(view, &span);
    }
    let keys = mvcc::lease_keys(view, crate::LeaseId(effect.lease))?;
    Ok(keys.iter().filter(|key| span.contains(key)).count() as u64)
}
