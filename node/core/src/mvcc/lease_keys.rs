//! The keys attached to a lease.

use std::ops::{Bound, ControlFlow};

use bytes::{Bytes, BytesMut};

use super::layout;
use crate::LeaseId;
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
