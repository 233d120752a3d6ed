//! Taking over a history from elsewhere: from changes as an etcd keeps them to rows.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::apply;
use super::layout::{self, COMPACTION_ROW, CompactionCursor, Record, Revision};
use crate::image::Change;
use crate::proto::mvccpb::KeyValue;
use crate::view::{Batch, Column, View, ViewError};

/// Takes changes in the order of their revisions, as long as their rows go into one batch. Make a new
/// one for the next batch, after this one's was applied.
pub struct Loader<'a> {
    view: &'a dyn View,
    /// Those that there are: a key stays attached to no other.
    leases: &'a BTreeSet<i64>,
    newest: BTreeMap<Bytes, Record>,
}

impl<'a> Loader<'a> {
    /// On top of everything loaded so far.
    pub fn new(view: &'a dyn View, leases: &'a BTreeSet<i64>) -> Self {
        Self { view, leases, newest: BTreeMap::new() }
    }

    /// Adds the rows of a change, which must be above all earlier ones, to a batch. What a delete
    /// ended may be compacted.
    ///
    /// # Errors
    /// The store cannot be read, or the change cannot be understood.
    pub fn add(&mut self, change: &Change<'_>, batch: &mut Batch) -> Result<(), ViewError> {
        let mut kv: KeyValue = layout::decode_key_value(Bytes::copy_from_slice(change.kv))?;
        if change.is_delete {
            kv = KeyValue { key: kv.key, ..KeyValue::default() };
        }
        let old = match self.newest.get(&kv.key) {
            Some(newest) => Some(newest.clone()),
            None => self.view.get(Column::Key, &kv.key)?.map(Record::decode).transpose()?,
        };
        let key = kv.key.clone();
        let leases = self.leases;
        let is_known = |lease: i64| leases.contains(&lease);
        let record = apply::write_record(
            change.revision,
            change.is_delete,
            &kv,
            old.as_ref(),
            &is_known,
            batch,
        )?;
        self.newest.insert(key, record);
        Ok(())
    }
}

/// Notes of a loaded history that it was compacted, and that it is to be looked through again for
/// what that makes useless.
pub fn note_compacted(compact_revision: i64, batch: &mut Batch) {
    if compact_revision >= 0 {
        let next = Revision { main: 0, sub: 0 };
        let cursor = CompactionCursor { finished: -1, target: compact_revision, next };
        batch.put(Column::Meta, COMPACTION_ROW, cursor.encode());
    }
}
