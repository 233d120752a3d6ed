//! KV.Compact: what a compact revision allows, and removing in small steps what it made useless.
//!
//! The work is linear in the events between the old and the new compact revision. A step may be
//! lost with a crash or repeated; it must not be applied on a state that has moved on since the
//! step was computed.

use std::ops::{Bound, ControlFlow};

use bytes::{Bytes, BytesMut};

use super::Head;
use super::layout::{self, COMPACTION_ROW, CompactionCursor, KeyValueFields, RecordHead, Revision};
use crate::Error;
use crate::view::{Batch, Column, View, ViewError};

/// Whether the store can be compacted at a revision.
///
/// # Errors
/// `Compacted` at or below the compact revision, `FutureRevision` above the current one.
pub fn check_compact(head: Head, revision: i64) -> Result<(), Error> {
    if revision <= head.compact_revision {
        Err(Error::Compacted)
    } else if revision > head.revision {
        Err(Error::FutureRevision)
    } else {
        Ok(())
    }
}

/// One step of the physical compaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// What to remove. It must be applied before any other batch.
    pub batch: Batch,
    /// Nothing is left to do for this compact revision once the batch is applied.
    pub is_finished: bool,
}

/// The next step towards `compact_revision`, or towards a later one that an installed snapshot was
/// compacted at, looking at no more than `rows_max` events.
///
/// Of each key the newest record at or below the compact revision stays if it is a put, or a
/// delete at exactly that revision, which watchers may still ask for and the next compaction
/// removes. How far the work has come is kept in the view, so calling this again after a crash,
/// or with a higher compact revision before the last one is finished, goes on from there.
///
/// # Errors
/// The store cannot be read.
pub fn compact_slice(
    view: &dyn View,
    compact_revision: i64,
    rows_max: usize,
) -> Result<Slice, ViewError> {
    let mut batch = Batch::default();
    let mut cursor = read_cursor(view)?;
    cursor.aim_at(compact_revision);
    if cursor.finished >= cursor.target {
        return Ok(Slice { batch, is_finished: true });
    }

    let mut visited = 0;
    let mut buried = Vec::new();
    let mut last = None;
    let mut damage = None;
    let from = cursor.next.encode();
    let to = Revision::last_of(cursor.target).encode();
    let bounds = (Bound::Included(&from[..]), Bound::Included(&to[..]));
    view.scan(Column::Revision, bounds.0, bounds.1, &mut |row, value| {
        if visited == rows_max.max(1) {
            return ControlFlow::Break(());
        }
        visited += 1;
        match visit_event(row, value, &cursor, &mut batch) {
            Ok((revision, tombstone)) => {
                last = Some(revision);
                buried.extend(tombstone.map(|key| (key, revision)));
                ControlFlow::Continue(())
            }
            Err(error) => {
                damage = Some(error);
                ControlFlow::Break(())
            }
        }
    })?;
    if let Some(error) = damage {
        return Err(error);
    }
    for (key, revision) in buried {
        bury(view, key, revision, &mut batch)?;
    }

    let is_finished = visited < rows_max.max(1);
    if is_finished {
        cursor.finished = cursor.target;
        cursor.next = Revision { main: cursor.target, sub: 0 };
    } else if let Some(Revision { main, sub }) = last {
        cursor.next = Revision { main, sub: sub + 1 };
    }
    batch.put(Column::Meta, COMPACTION_ROW, cursor.encode());
    Ok(Slice { batch, is_finished })
}

/// The revision below which rows may already be gone; -1 before the first compaction. Above the
/// compact revision only while this node has not heard yet of the compaction that a snapshot it
/// installed has been through. What was read before asking is complete at it and above.
///
/// # Errors
/// The store cannot be read.
pub fn compaction_floor(view: &dyn View) -> Result<i64, ViewError> {
    Ok(read_cursor(view)?.target)
}

/// What the cursor becomes before rows are installed beside others, from the cursor of their
/// sender.
///
/// The cursor speaks of all rows of a node, and what comes from another node was compacted by that
/// node's. So the rows may be gone below the later of both targets, and everything that either of
/// them has not looked at is looked at (again): nothing that is needed goes, as both only remove what
/// no read at their target needs, and nothing stays for ever.
///
/// # Errors
/// The store cannot be read.
pub fn merge_cursor(view: &dyn View, theirs: &CompactionCursor) -> Result<Batch, ViewError> {
    let (mut ours, mut theirs) = (read_cursor(view)?, *theirs);
    let target = ours.target.max(theirs.target);
    ours.aim_at(target);
    theirs.aim_at(target);
    let merged = CompactionCursor {
        finished: ours.finished.min(theirs.finished),
        target,
        next: ours.next.min(theirs.next),
    };
    let mut batch = Batch::default();
    if merged != CompactionCursor::START {
        batch.put(Column::Meta, COMPACTION_ROW, merged.encode());
    }
    Ok(batch)
}

/// The row of the cursor after an event was added at a revision, if the cursor had passed it.
pub(super) fn step_back(cursor: &mut CompactionCursor, revision: i64) -> Option<Bytes> {
    let event = Revision { main: revision, sub: 0 };
    if cursor.next <= event && cursor.finished < revision {
        return None;
    }
    cursor.finished = cursor.finished.min(revision - 1);
    cursor.next = cursor.next.min(event);
    Some(cursor.encode())
}

impl CompactionCursor {
    /// Of a view.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn load(view: &dyn View) -> Result<Self, ViewError> {
        read_cursor(view)
    }

    /// Goes on to a later compact revision.
    fn aim_at(&mut self, target: i64) {
        if self.target < target {
            // Deletes at the old target were spared, and must go now.
            let spared = Revision { main: self.target.max(0), sub: 0 };
            self.next = self.next.min(spared);
            self.target = target;
        }
    }
}

fn read_cursor(view: &dyn View) -> Result<CompactionCursor, ViewError> {
    match view.get(Column::Meta, COMPACTION_ROW)? {
        Some(value) => CompactionCursor::decode(&value),
        None => Ok(CompactionCursor::START),
    }
}

/// Removes what the event at `row` superseded. Also gives its revision, and its key if the event
/// itself is a delete that has to go.
fn visit_event(
    row: &[u8],
    value: &[u8],
    cursor: &CompactionCursor,
    batch: &mut Batch,
) -> Result<(Revision, Option<Bytes>), ViewError> {
    let revision = Revision::decode(row)?;
    let head = RecordHead::decode(value)?;
    let superseded = head.previous.filter(|_| revision.main > cursor.finished);
    let is_buried = head.is_tombstone && revision.main < cursor.target;
    if superseded.is_none() && !is_buried {
        return Ok((revision, None));
    }
    let key = KeyValueFields::decode(&value[head.encoded_len()..])?.key;
    if let Some(superseded) = superseded {
        remove_event(superseded, batch);
        remove_history(key, superseded, batch);
    }
    Ok((revision, is_buried.then(|| Bytes::copy_from_slice(key))))
}

/// Removes a delete, be it still the newest record of its key or not.
fn bury(
    view: &dyn View,
    key: Bytes,
    revision: Revision,
    batch: &mut Batch,
) -> Result<(), ViewError> {
    remove_event(revision, batch);
    let newest = view.get(Column::Key, &key)?.map(|row| RecordHead::decode(&row)).transpose()?;
    if newest.is_some_and(|newest| newest.revision == revision) {
        batch.delete(Column::Key, key);
    } else {
        remove_history(&key, revision, batch);
    }
    Ok(())
}

fn remove_event(revision: Revision, batch: &mut Batch) {
    batch.delete(Column::Revision, revision.encode().to_vec());
}

fn remove_history(key: &[u8], revision: Revision, batch: &mut Batch) {
    let mut row = BytesMut::with_capacity(layout::history_key_len(key));
    layout::encode_history_key(key, revision, &mut row);
    batch.delete(Column::History, row);
}
