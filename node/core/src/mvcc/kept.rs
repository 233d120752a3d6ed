//! The history that can still be read, as a backup has it: every change above a compact revision, and
//! below it what is the newest of its key there.
//!
//! Whether the physical compaction has come so far makes no difference: what it would remove is
//! left out.

use std::ops::{Bound, ControlFlow};

use bytes::Bytes;

use super::Failure;
use super::compact;
use super::history;
use super::layout::{CompactionCursor, KeyValueFields, Record, RecordHead, Revision};
use super::replay::ReplayLimits;
use crate::view::{Column, View, ViewError};

/// Times that the rows of one piece are looked at again, as the compaction went on meanwhile.
const ATTEMPTS_MAX: usize = 8;

/// What is wanted of the history at or below the compact revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Below {
    /// Whatever can still be read.
    Readable,
    /// Puts that are the newest of their key at this revision.
    Newest(i64),
}

/// A piece of it, which may end within a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptPage {
    /// In the order of their revisions, as the store has them.
    pub records: Vec<Record>,
    /// The first place that was not looked at; above `to` when nothing is left.
    pub next: Revision,
    /// The compact revision that the piece has been through: that which was asked for, or a later one.
    pub compact_revision: i64,
}

/// The changes of the wanted keys from a place on and up to revision `to`, or as many of the first
/// ones as the limits allow, exceeding them by no more than one.
///
/// # Errors
/// `Overtaken` when a compaction goes on faster than this is read; see `Failure` for the rest.
pub fn kept_page(
    view: &dyn View,
    is_wanted: &dyn Fn(&[u8]) -> bool,
    from: Revision,
    to: i64,
    (compact_revision, below): (i64, Below),
    limits: ReplayLimits,
) -> Result<KeptPage, Failure> {
    let (records, next) = read(view, is_wanted, from, to, limits)?;
    for _ in 0..ATTEMPTS_MAX {
        let cursor = CompactionCursor::load(view)?;
        let compact_revision = compact_revision.max(cursor.target);
        if cursor.finished >= compact_revision && below == Below::Readable {
            return Ok(KeptPage { records, next, compact_revision });
        }
        match kept(view, &records, compact_revision, below) {
            Ok(records) => return Ok(KeptPage { records, next, compact_revision }),
            Err(Failure::Overtaken) => {}
            Err(failure) => return Err(failure),
        }
    }
    Err(Failure::Overtaken)
}

fn read(
    view: &dyn View,
    is_wanted: &dyn Fn(&[u8]) -> bool,
    from: Revision,
    to: i64,
    limits: ReplayLimits,
) -> Result<(Vec<Record>, Revision), ViewError> {
    let mut records = Vec::new();
    let mut next = Revision { main: to.saturating_add(1), sub: 0 }.max(from);
    let (mut rows_count, mut bytes_count) = (0, 0);
    let mut damage = None;
    let (first, last) = (from.encode(), Revision::last_of(to.max(0)).encode());
    let bounds = (Bound::Included(&first[..]), Bound::Included(&last[..]));
    view.scan(Column::Revision, bounds.0, bounds.1, &mut |row, value| {
        let mut look = || -> Result<bool, ViewError> {
            let is_full = rows_count >= limits.rows_max
                || records.len() >= limits.events_max
                || bytes_count >= limits.bytes_max;
            if is_full && rows_count > 0 {
                next = Revision::decode(row)?;
                return Ok(false);
            }
            rows_count += 1;
            let head = RecordHead::decode(value)?;
            let kv = &value[head.encoded_len()..];
            if is_wanted(KeyValueFields::decode(kv)?.key) {
                bytes_count += kv.len();
                records.push(Record { head, kv: Bytes::copy_from_slice(kv) });
            }
            Ok(true)
        };
        match look() {
            Ok(true) => ControlFlow::Continue(()),
            Ok(false) => ControlFlow::Break(()),
            Err(error) => {
                damage = Some(error);
                ControlFlow::Break(())
            }
        }
    })?;
    damage.map_or(Ok((records, next)), Err)
}

/// Leaves out what a compact revision makes useless.
fn kept(
    view: &dyn View,
    records: &[Record],
    compact_revision: i64,
    below: Below,
) -> Result<Vec<Record>, Failure> {
    let mut kept = Vec::with_capacity(records.len());
    for record in records {
        let at = record.head.revision;
        let is_kept = if at.main > compact_revision {
            true
        } else if record.head.is_tombstone {
            // Watchers may still ask for it: see `compact_slice`.
            at.main == compact_revision && below == Below::Readable
        } else {
            let key = KeyValueFields::decode(&record.kv)?.key;
            let newest_at = match below {
                Below::Readable => compact_revision,
                Below::Newest(revision) => revision,
            };
            let newest = history::live_at(view, key, newest_at)?;
            newest.is_some_and(|newest| newest.head.revision == at)
        };
        if is_kept {
            kept.push(record.clone());
        }
    }
    if compact::compaction_floor(view)? > compact_revision {
        return Err(Failure::Overtaken);
    }
    Ok(kept)
}
