//! What a transaction over several ranges locks in one of them, as latches.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::mutant::{self, Mutant};
use crate::proto::Span;
use crate::proto::internal::Lock;
use crate::range::latch::{Footprint, Mode, Point};
use crate::view::{View, ViewError};
use crate::{LeaseId, mvcc};

/// The latches of locks.
pub fn footprint(locks: &[Lock]) -> Footprint {
    let mut footprint = Footprint::default();
    for Lock { key, range_end, is_write, lease, members } in locks {
        let mode = if *is_write { Mode::Write } else { Mode::Read };
        if mutant::is(Mutant::FrozenAccepts) && members.is_empty() && membership(locks).is_some() {
            continue;
        }
        if !members.is_empty() {
            footprint.points.push((Point::Members, Mode::Write));
        } else if *lease != 0 {
            footprint.points.push((Point::Lease(*lease), mode));
            if *is_write && !mutant::is(Mutant::MembersUnlatched) {
                // A merge brings keys that may be attached to the lease, and would not be locked.
                footprint.points.push((Point::Members, Mode::Read));
            }
        } else if range_end.is_empty() {
            footprint.points.push((Point::Key(key.clone()), mode));
        } else {
            let span = Span::from_request(key.clone(), range_end.clone());
            footprint.spans.push((span, mode));
        }
    }
    footprint
}

/// Whether a range with these keys can grant them.
pub fn are_within(locks: &[Lock], span: &Span) -> bool {
    locks.iter().all(|Lock { key, range_end, lease, members, .. }| {
        *lease != 0
            || !members.is_empty()
            || is_within(&Span::from_request(key.clone(), range_end.clone()), span)
    })
}

/// The spans of keys that are locked as such.
pub fn spans(locks: &[Lock]) -> impl Iterator<Item = Span> {
    let spans = locks.iter().filter(|lock| !lock.range_end.is_empty());
    spans.map(|lock| Span::from_request(lock.key.clone(), lock.range_end.clone()))
}

/// The membership that is locked, if it is.
pub fn membership(locks: &[Lock]) -> Option<&Lock> {
    locks.iter().find(|lock| !lock.members.is_empty())
}

/// Whether a span is a part of another.
pub fn is_within(inner: &Span, outer: &Span) -> bool {
    outer.contains(&inner.start)
        && match (&inner.end, &outer.end) {
            (_, None) => true,
            (Some(inner), Some(outer)) => inner <= outer,
            (None, Some(_)) => false,
        }
}

/// To end a lease is to delete its keys: those that are attached to it now are locked as well, as
/// far as the range owns them. Once the lease is latched nobody attaches another. If there are very
/// many and `span` is given, that is locked instead: a log is not the place for a list of them.
///
/// # Errors
/// The store cannot be read.
pub fn with_attached_keys(
    view: &dyn View,
    mut locks: Vec<Lock>,
    span: Option<&Span>,
    owns: impl Fn(&[u8]) -> bool,
) -> Result<Vec<Lock>, ViewError> {
    let ends = |lock: &&Lock| lock.lease != 0 && lock.is_write;
    let leases: Vec<i64> = locks.iter().filter(ends).map(|lock| lock.lease).collect();
    for lease in leases {
        let locked: BTreeSet<Bytes> = locks.iter().map(|lock| lock.key.clone()).collect();
        let keys = mvcc::lease_keys(view, LeaseId(lease))?.into_iter();
        let new: Vec<Bytes> = keys.filter(|key| owns(key) && !locked.contains(key)).collect();
        let all = span.map(|span| Lock {
            key: span.start.clone(),
            range_end: span.end.clone().unwrap_or(Bytes::from_static(b"\0")),
            is_write: true,
            ..Lock::default()
        });
        match all {
            Some(all) if locks.contains(&all) => {}
            Some(all) if new.len() > mvcc::NAMED_KEYS_MAX => locks.push(all),
            _ => locks.extend(new.into_iter().map(|key| Lock {
                key,
                is_write: true,
                ..Lock::default()
            })),
        }
    }
    Ok(locks)
}
