//! The keys attached to a lease.

use std::collections::BTreeSet;
use std::ops::{Bound, ControlFlow};

use bytes::{Bytes, BytesMut};

use super::layout::{self, KeyValueFields, RecordHead, Revision};
use super::{Failure, history};
use crate::LeaseId;
use crate::proto::Span;
use crate::view::{Column, View, ViewError};

/// The keys attached to a lease now, in ascending order.
///
/// # Errors
/// The store cannot be read.
pub fn lease_keys(view: &dyn View, lease: LeaseId) -> Result<Vec<Bytes>, ViewError> {
    let mut from = BytesMut::new();
    layout::encode_lease_key(lease.0, &[], &mut from);
    let mut keys = Vec::new();
    let mut damage = None;
    view.scan(Column::LeaseKey, Bound::Included(&from), Bound::Unbounded, &mut |row, _| {
        match layout::decode_lease_key(row) {
            Ok((of, key)) if of == lease.0 => {
                keys.push(Bytes::copy_from_slice(key));
                ControlFlow::Continue(())
            }
            Ok(_) => ControlFlow::Break(()),
            Err(error) => {
                damage = Some(error);
                ControlFlow::Break(())
            }
        }
    })?;
    damage.map_or(Ok(keys), Err)
}

/// The keys of a span that were attached to a lease at a revision, in ascending order.
///
/// The store may be further than that. What was attached then is attached still, or was changed
/// since; whoever takes it for attached is asked what it was.
///
/// # Errors
/// The store cannot be read, or compaction has overtaken the revision.
pub fn lease_keys_at(
    view: &dyn View,
    lease: LeaseId,
    span: &Span,
    revision: i64,
) -> Result<Vec<Bytes>, Failure> {
    // In this order: what is detached between the two is among what was changed.
    let mut maybe: BTreeSet<Bytes> = lease_keys(view, lease)?.into_iter().collect();
    maybe.extend(keys_changed_after(view, revision)?);
    let mut keys = Vec::new();
    for key in maybe.into_iter().filter(|key| span.contains(key)) {
        if let Some(record) = history::live_at(view, &key, revision)?
            && KeyValueFields::decode(&record.kv)?.lease == lease.0
        {
            keys.push(key);
        }
    }
    history::ensure_not_overtaken(view, revision)?;
    Ok(keys)
}

fn keys_changed_after(view: &dyn View, revision: i64) -> Result<BTreeSet<Bytes>, ViewError> {
    let from = Revision { main: revision.saturating_add(1), sub: 0 }.encode();
    let mut keys = BTreeSet::new();
    let mut damage = None;
    view.scan(Column::Revision, Bound::Included(&from[..]), Bound::Unbounded, &mut |_, value| {
        let key = RecordHead::decode(value)
            .and_then(|head| Ok(KeyValueFields::decode(&value[head.encoded_len()..])?.key));
        match key {
            Ok(key) => {
                keys.insert(Bytes::copy_from_slice(key));
                ControlFlow::Continue(())
            }
            Err(error) => {
                damage = Some(error);
                ControlFlow::Break(())
            }
        }
    })?;
    damage.map_or(Ok(keys), Err)
}

/// The row that attaches a key to a lease.
pub fn lease_row(lease: LeaseId, key: &[u8]) -> Bytes {
    let mut row = BytesMut::with_capacity(layout::LEASE_BYTES + key.len());
    layout::encode_lease_key(lease.0, key, &mut row);
    row.freeze()
}

/// The key that such a row attaches.
///
/// # Errors
/// It is not such a row.
pub fn lease_row_key(row: &[u8]) -> Result<Bytes, ViewError> {
    layout::decode_lease_key(row).map(|(_, key)| Bytes::copy_from_slice(key))
}

/// The leases to which keys of a span are attached now.
///
/// # Errors
/// The store cannot be read.
pub fn leases_within(view: &dyn View, span: &Span) -> Result<BTreeSet<i64>, ViewError> {
    let mut leases = BTreeSet::new();
    let mut damage = None;
    view.scan(Column::LeaseKey, Bound::Unbounded, Bound::Unbounded, &mut |row, _| {
        match layout::decode_lease_key(row) {
            Ok((lease, key)) if span.contains(key) => {
                leases.insert(lease);
                ControlFlow::Continue(())
            }
            Ok(_) => ControlFlow::Continue(()),
            Err(error) => {
                damage = Some(error);
                ControlFlow::Break(())
            }
        }
    })?;
    damage.map_or(Ok(leases), Err)
}
