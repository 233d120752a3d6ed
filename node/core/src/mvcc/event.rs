//! One change of one key as watchers see it, encoded once however many of them want it.

use bytes::Bytes;
use prost::Message;

use super::layout::{KeyValueFields, Record};
use crate::proto::mvccpb::KeyValue;
use crate::view::ViewError;

/// A put or a delete. The events of one revision follow their sub-revisions from 0 on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The revision of the change.
    pub revision: i64,
    /// Its place within the revision.
    pub sub: i64,
    /// The changed key.
    pub key: Bytes,
    /// The key was removed.
    pub is_delete: bool,
    /// The put began a new life of the key.
    pub is_create: bool,
    /// Encoded `mvccpb.KeyValue`, as a watch event carries it: complete for a put, only `key` and
    /// `mod_revision` for a delete.
    pub kv: Bytes,
    /// Encoded `mvccpb.KeyValue` of the key just before this revision. `None` for a creation, for
    /// a key that was not there before the revision, when the history was read without it, and
    /// when it is compacted.
    pub prev: Option<Bytes>,
}

impl Event {
    /// The event of a record. `before` is the encoded `KeyValue` before the record's main revision,
    /// if the key was there.
    ///
    /// # Errors
    /// The record's `KeyValue` cannot be understood.
    pub(super) fn new(record: &Record, before: Option<Bytes>) -> Result<Self, ViewError> {
        let revision = record.head.revision;
        let fields = KeyValueFields::decode(&record.kv)?;
        let key = record.kv.slice_ref(fields.key);
        let is_delete = record.head.is_tombstone;
        let is_create = !is_delete && fields.create_revision == revision.main;
        let kv = if is_delete {
            let kv =
                KeyValue { key: key.clone(), mod_revision: revision.main, ..Default::default() };
            kv.encode_to_vec().into()
        } else {
            record.kv.clone()
        };
        let prev = before.filter(|_| !is_create);
        Ok(Self { revision: revision.main, sub: revision.sub, key, is_delete, is_create, kv, prev })
    }
}
