//! Putting a received snapshot in the place of what a group has in a store that other groups share.
//!
//! It takes many batches, and a store in the middle of it is of no use to the group: the caller
//! notes durably that it has begun, with the first, and begins anew after a crash. A range has no row
//! in Meta meanwhile. The spine's rows are replaced in the last batch, whole, as until then the store
//! has to say whose keys are whose.

use std::ops::{Bound, ControlFlow};

use bytes::Bytes;

use super::clear::Clear;
use super::{COPY_BYTES_MAX, Scope};
use crate::GroupId;
use crate::mvcc;
use crate::mvcc::layout::{COMPACTION_ROW, CompactionCursor};
use crate::range::stored;
use crate::view::{Batch, Column, View, ViewError};

/// A snapshot on its way into a store.
#[derive(Debug)]
pub struct Install {
    scope: Scope,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// Before anybody can read what comes: below the cursor, rows may be gone.
    Cursor,
    Clear(Clear),
    /// Position in `Install::COPIED`, and the last row copied of that column.
    Copy(usize, Option<Bytes>),
    Done,
}

impl Install {
    /// The columns whose rows are copied as they are, in this order.
    pub const COPIED: [Column; 4] =
        [Column::Key, Column::Revision, Column::History, Column::LeaseKey];

    /// The scope is that of the store it goes into.
    pub fn new(scope: Scope) -> Self {
        Self { scope, phase: Phase::Cursor }
    }

    /// Whether every batch was handed out.
    pub fn is_finished(&self) -> bool {
        matches!(self.phase, Phase::Done)
    }

    /// Whether what was here is gone, and nothing of the snapshot is here yet.
    pub fn is_cleared(&self) -> bool {
        matches!(self.phase, Phase::Copy(0, None))
    }

    /// Every row of `COPIED` was put into the store by other means.
    ///
    /// # Panics
    /// Before the store is cleared.
    pub fn was_copied(&mut self) {
        assert!(self.is_cleared(), "new rows take the place of old ones");
        self.phase = Phase::Copy(Self::COPIED.len(), None);
    }

    /// The next batch, which may be empty, to be applied before the next call. `live` is the store,
    /// `staged` holds the rows of the snapshot and nothing else.
    ///
    /// # Errors
    /// A store cannot be read, or the snapshot does not hold the group.
    ///
    /// # Panics
    /// After the last batch.
    pub fn next(&mut self, live: &dyn View, staged: &dyn View) -> Result<Batch, ViewError> {
        match &mut self.phase {
            Phase::Cursor => {
                self.phase = Phase::Clear(Clear::keys(self.scope.clone()));
                let mut batch = mvcc::merge_cursor(live, &CompactionCursor::load(staged)?)?;
                if self.scope.group() != GroupId::SPINE {
                    batch.delete(Column::Meta, stored::key(self.scope.group()));
                    for range in self.scope.taken_over(live)? {
                        stored::end(range, &mut batch);
                    }
                }
                Ok(batch)
            }
            Phase::Clear(clear) => match clear.next(live)? {
                Some(batch) => Ok(batch),
                None => {
                    self.phase = Phase::Copy(0, None);
                    Ok(Batch::default())
                }
            },
            Phase::Copy(at, last) => {
                let Some(column) = Self::COPIED.get(*at) else {
                    self.phase = Phase::Done;
                    return self.meta(live, staged);
                };
                let (batch, next) = copy(staged, *column, last.take(), &self.scope)?;
                self.phase = match next {
                    Some(last) => Phase::Copy(*at, Some(last)),
                    None => Phase::Copy(*at + 1, None),
                };
                Ok(batch)
            }
            Phase::Done => panic!("the snapshot is installed"),
        }
    }

    fn meta(&self, live: &dyn View, staged: &dyn View) -> Result<Batch, ViewError> {
        let mut batch = Batch::default();
        for key in self.scope.meta_keys(live)? {
            if key != COMPACTION_ROW {
                batch.delete(Column::Meta, key);
            }
        }
        let deletes_count = batch.writes.len();
        for key in self.scope.meta_keys(staged)? {
            if key != COMPACTION_ROW {
                let value = staged.get(Column::Meta, &key)?;
                let value = value.ok_or_else(|| ViewError("a staged row has gone".to_owned()))?;
                batch.put(Column::Meta, key, value);
            }
        }
        if batch.writes.len() == deletes_count {
            let group = self.scope.group();
            return Err(ViewError(format!("the snapshot holds nothing of group {group}")));
        }
        Ok(batch)
    }
}

/// The next rows of a staged column, and the last of them if there may be more.
fn copy(
    staged: &dyn View,
    column: Column,
    after: Option<Bytes>,
    scope: &Scope,
) -> Result<(Batch, Option<Bytes>), ViewError> {
    let from = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    let (mut batch, mut bytes, mut last) = (Batch::default(), 0, None);
    let mut damage = None;
    staged.scan(column, from, Bound::Unbounded, &mut |key, value| {
        match scope.holds(column, key, value) {
            Ok(true) => {}
            Ok(false) => {
                damage = Some(ViewError(format!("a snapshot holds a row of others: {key:02x?}")));
            }
            Err(error) => damage = Some(error),
        }
        bytes += key.len() + value.len();
        batch.put(column, key.to_vec(), value.to_vec());
        let is_full = bytes >= COPY_BYTES_MAX;
        if is_full {
            last = Some(Bytes::copy_from_slice(key));
        }
        if is_full || damage.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    damage.map_or(Ok((batch, last)), Err)
}
