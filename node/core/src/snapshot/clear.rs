//! Removing what a group has in a store, in bounded batches.
//!
//! A record goes together with its event and its attachment, which are found by nothing else; so
//! whatever a crash leaves can be removed by doing it again. The group's rows in Meta go first:
//! nobody shall take what is left for a state of the group. So the caller notes durably that it has
//! begun.

use std::collections::VecDeque;
use std::ops::{Bound, ControlFlow};

use bytes::{Bytes, BytesMut};

use super::scope::{history_bounds, key_bounds};
use super::{CLEAR_RECORDS_MAX, Scope};
use crate::mvcc::layout::{self, COMPACTION_ROW, KeyValueFields, RecordHead};
use crate::proto::Span;
use crate::view::{Batch, Column, View, ViewError};

/// The rows of a group on their way out.
#[derive(Debug)]
pub struct Clear {
    scope: Scope,
    passes: VecDeque<Pass>,
    /// The last row that the first of the passes has seen.
    key: Option<Bytes>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Pass {
    Meta,
    Superseded(Span),
    Newest(Span),
}

impl Clear {
    /// Removes everything. The scope is that of the store.
    pub fn new(scope: Scope) -> Self {
        let mut clear = Self::keys(scope);
        clear.passes.push_front(Pass::Meta);
        clear
    }

    /// Removes the keys and what belongs to them, and leaves Meta alone.
    pub fn keys(scope: Scope) -> Self {
        let superseded = scope.spans().iter().cloned().map(Pass::Superseded);
        let newest = scope.spans().iter().cloned().map(Pass::Newest);
        let passes = superseded.chain(newest).collect();
        Self { scope, passes, key: None }
    }

    /// The next batch, to be applied before the next call; `None` when nothing is left.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn next(&mut self, view: &dyn View) -> Result<Option<Batch>, ViewError> {
        let mut batch = Batch::default();
        while let Some(pass) = self.passes.front() {
            let is_full = match pass {
                Pass::Superseded(span) => {
                    let bounds = history_bounds(span);
                    remove(view, Column::History, bounds, &mut self.key, &mut batch)?
                }
                Pass::Newest(span) => {
                    let bounds = key_bounds(span);
                    remove(view, Column::Key, bounds, &mut self.key, &mut batch)?
                }
                Pass::Meta => {
                    for key in self.scope.meta_keys(view)? {
                        // The cursor is that of all groups.
                        if key != COMPACTION_ROW {
                            batch.delete(Column::Meta, key);
                        }
                    }
                    false
                }
            };
            if !is_full {
                self.passes.pop_front();
                self.key = None;
            }
            if !batch.writes.is_empty() {
                return Ok(Some(batch));
            }
        }
        Ok(None)
    }
}

/// Removes the next records between bounds; false when none is left after them.
fn remove(
    view: &dyn View,
    column: Column,
    (from, to): (Bound<Bytes>, Bound<Bytes>),
    last: &mut Option<Bytes>,
    batch: &mut Batch,
) -> Result<bool, ViewError> {
    let from = last.take().map_or(from, Bound::Excluded);
    let bounds = (from.as_ref().map(|key| &key[..]), to.as_ref().map(|key| &key[..]));
    let mut records_count = 0;
    let mut damage = None;
    view.scan(column, bounds.0, bounds.1, &mut |key, value| {
        *last = Some(Bytes::copy_from_slice(key));
        records_count += 1;
        if let Err(error) = remove_record(column, key, value, batch) {
            damage = Some(error);
        }
        let is_full = records_count == CLEAR_RECORDS_MAX || damage.is_some();
        if is_full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    match damage {
        Some(error) => Err(error),
        None => Ok(records_count == CLEAR_RECORDS_MAX),
    }
}

fn remove_record(
    column: Column,
    key: &[u8],
    value: &[u8],
    batch: &mut Batch,
) -> Result<(), ViewError> {
    batch.delete(column, key.to_vec());
    if column == Column::History {
        let event = layout::decode_history_revision(key)?;
        batch.delete(Column::Revision, event.encode().to_vec());
        return Ok(());
    }
    let head = RecordHead::decode(value)?;
    batch.delete(Column::Revision, head.revision.encode().to_vec());
    let lease = KeyValueFields::decode(&value[head.encoded_len()..])?.lease;
    if lease != 0 {
        let mut attached = BytesMut::with_capacity(layout::LEASE_BYTES + key.len());
        layout::encode_lease_key(lease, key, &mut attached);
        batch.delete(Column::LeaseKey, attached);
    }
    Ok(())
}
