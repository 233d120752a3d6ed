//! The keys attached to a lease.

use std::collections::BTreeSet;
use std::ops::{Bound, ControlFlow};

use bytes::{Bytes, BytesMut};

use super::layout;
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

/// The row that attaches a key to a lease.
pub fn lease_row(lease: LeaseId, key: &[u8]) -> Bytes {
    let mut row = BytesMut::with_capacity(layout::LEASE_BYTES + key.len());
    layout::encode_lease_key(lease.0, key, &mut row);
    row.freeze()
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
