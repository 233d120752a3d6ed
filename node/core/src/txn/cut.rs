//! Cutting a request by the table of ranges: who owns its keys, what each of them locks, and which
//! of its effects are whose.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::GroupId;
use crate::command::Command;
use crate::mvcc;
use crate::proto::Span;
use crate::proto::internal::{Effect, Lock};
use crate::spine::ranges::Ranges;
use crate::view::{View, ViewError};

/// What a request sends as `range_end` to mean every key from `key` on.
const OPEN_END: &[u8] = b"\0";

/// The ranges that own keys of a request, by id.
pub fn owners(ranges: &Ranges, command: &Command) -> Vec<GroupId> {
    let footprint = mvcc::footprint(command);
    let mut owners = BTreeSet::new();
    owners.extend(footprint.keys.iter().map(|(key, _)| ranges.owner(key)));
    for (span, _) in &footprint.spans {
        owners.extend(ranges.overlapping(span));
    }
    owners.into_iter().collect()
}

/// What one of them locks.
pub fn locks(ranges: &Ranges, range: GroupId, command: &Command) -> Vec<Lock> {
    let Some(own) = ranges.get(range).map(|range| &range.span) else { return Vec::new() };
    let footprint = mvcc::footprint(command);
    let mut locks = Vec::new();
    for (key, mode) in footprint.keys.into_iter().filter(|(key, _)| own.contains(key)) {
        let is_write = mode != mvcc::Mode::Read;
        locks.push(Lock { key, range_end: Bytes::new(), is_write });
    }
    for (wanted, mode) in footprint.spans.iter().filter(|(wanted, _)| wanted.overlaps(own)) {
        let (key, range_end) = common(wanted, own);
        locks.push(Lock { key, range_end, is_write: *mode != mvcc::Mode::Read });
    }
    locks
}

/// An effect, or what of it each range has, in the order of the keys.
pub(super) fn effect(ranges: &Ranges, effect: Effect) -> Vec<(GroupId, Effect)> {
    if effect.range_end.is_empty() {
        return vec![(ranges.owner(&effect.key), effect)];
    }
    let span = Span::from_request(effect.key.clone(), effect.range_end.clone());
    let owners = ranges.overlapping(&span);
    let parts = owners.into_iter().filter_map(|id| {
        let (key, range_end) = common(&span, &ranges.get(id)?.span);
        Some((id, Effect { key, range_end, ..effect.clone() }))
    });
    parts.collect()
}

/// How many keys an effect changes.
pub(super) fn keys_count(view: &dyn View, effect: &Effect) -> Result<u64, ViewError> {
    if effect.range_end.is_empty() {
        return Ok(1);
    }
    let span = Span::from_request(effect.key.clone(), effect.range_end.clone());
    mvcc::newest_keys_count(view, &span)
}

/// The keys of both, as a request names them.
fn common(one: &Span, other: &Span) -> (Bytes, Bytes) {
    let start = one.start.clone().max(other.start.clone());
    let end = [&one.end, &other.end].into_iter().flatten().min().cloned();
    (start, end.unwrap_or(Bytes::from_static(OPEN_END)))
}
