//! What the store keeps of a range beside its keys: how far its log is joined with the order.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

use crate::GroupId;
use crate::command::RequestId;
use crate::group;
use crate::proto::Span;
use crate::proto::internal::{ConfState, Prepare, PreparedTxn, StoredRange};
use crate::snapshot::NODE_LOCAL;
use crate::spine::txns;
use crate::view::{Batch, Column, View, ViewError, Write};

/// First byte of a Meta key of a range; its id follows, big-endian. See `spine::state` for others.
const ROW: u8 = b'p';
/// First bytes of a Meta key, local to the node, of a range that has ended here.
const ENDED: [u8; 2] = [NODE_LOCAL, b'e'];
/// First bytes of a Meta key, local to the node, of a range that this node holds no more, and of whose
/// keys some are still here; the value is their span.
const LEFT: [u8; 2] = [NODE_LOCAL, b'f'];
/// First bytes of a Meta key, local to the node, that says since when a range is here.
const SINCE: [u8; 2] = [NODE_LOCAL, b'g'];

/// Where the state of a range stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Index of the last entry of its log that is joined.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// Sequence number of the last write that is joined.
    pub seq: u64,
}

impl Position {
    /// In the range's log.
    pub fn place(&self) -> group::Position {
        group::Position { index: self.index, term: self.term }
    }
}

/// A range as the store has it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stored {
    /// Where its state stands.
    pub position: Position,
    /// Its log tells how everything up to this sequence number was numbered.
    pub noted: u64,
    /// Voters and learners.
    pub conf: ConfState,
    /// Index of the entry that made them so; 0 from the beginning.
    pub conf_changed: u64,
    /// The log tells that they are known to whoever votes.
    pub is_conf_settled: bool,
    /// Transactions that lock keys and are not resolved.
    pub prepared: Vec<PreparedTxn>,
    /// Its keys, as the log has them by then.
    pub span: Span,
    /// Counts changes of the span, as the spine does.
    pub generation: u64,
}

impl Stored {
    /// A range that begins: its log starts after index 1 of term 1, as every group's does.
    pub fn first(conf: ConfState, span: Span) -> Self {
        let position = Position { index: 1, term: 1, seq: 0 };
        Self { position, conf, span, generation: 1, is_conf_settled: true, ..Self::default() }
    }

    /// Whether the log, as far as it is joined, tells what became of a transaction that locked keys
    /// at this index of it.
    pub fn tells_of(&self, id: RequestId, prepared_at: u64) -> bool {
        let id = txns::to_proto(id);
        let is_it = |prepare: &Prepare| prepare.id.as_ref() == Some(&id);
        let is_locked = self.prepared.iter().any(|it| it.prepare.as_ref().is_some_and(is_it));
        self.position.index >= prepared_at && !is_locked
    }

    /// As a row.
    pub fn write(&self, range: GroupId, batch: &mut Batch) {
        let Position { index, term, seq } = self.position;
        let noted = self.noted;
        let (conf, prepared) = (Some(self.conf.clone()), self.prepared.clone());
        let (start, end) = (self.span.start.clone(), self.span.end.clone().unwrap_or_default());
        let generation = self.generation;
        let (conf_changed, is_conf_settled) = (self.conf_changed, self.is_conf_settled);
        let stored = StoredRange {
            index,
            term,
            seq,
            noted,
            conf,
            prepared,
            start,
            end,
            generation,
            conf_changed,
            is_conf_settled,
        };
        batch.put(Column::Meta, key(range), stored.encode_to_vec());
    }

    /// As `load`, of a store to which a batch is still to be added.
    ///
    /// # Errors
    /// As `load`.
    pub fn load_latest(
        view: &dyn View,
        batch: &Batch,
        range: GroupId,
    ) -> Result<Option<Self>, ViewError> {
        let row = key(range);
        let written = batch.writes.iter().rev().find_map(|write| match write {
            Write::Put(Column::Meta, key, value) if *key == row => Some(Some(value.clone())),
            Write::Delete(Column::Meta, key) if *key == row => Some(None),
            _ => None,
        });
        match written {
            Some(value) => value.map(|value| Self::decode(range, value)).transpose(),
            None => Self::load(view, range),
        }
    }

    /// The row of a range; `None` when the store has no replica of it.
    ///
    /// # Errors
    /// The store cannot be read, or the row is damaged.
    pub fn load(view: &dyn View, range: GroupId) -> Result<Option<Self>, ViewError> {
        let value = view.get(Column::Meta, &key(range))?;
        value.map(|value| Self::decode(range, value)).transpose()
    }

    fn decode(range: GroupId, value: Bytes) -> Result<Self, ViewError> {
        let stored = StoredRange::decode(value)
            .map_err(|error| ViewError(format!("row of range {range}: {error}")))?;
        let StoredRange { index, term, seq, noted, conf, prepared, .. } = stored;
        let StoredRange { start, end, generation, conf_changed, is_conf_settled, .. } = stored;
        let position = Position { index, term, seq };
        let span = Span { start, end: (!end.is_empty()).then_some(end) };
        let conf = conf.unwrap_or_default();
        Ok(Self {
            position,
            noted,
            conf,
            conf_changed,
            is_conf_settled,
            prepared,
            span,
            generation,
        })
    }
}

/// The ranges with a row.
///
/// # Errors
/// The store cannot be read, or a row is damaged.
pub fn ids(view: &dyn View) -> Result<Vec<GroupId>, ViewError> {
    ids_after(view, &[ROW])
}

/// The ranges that have rows here, with the keys of each as its replica has them, by id.
///
/// # Errors
/// The store cannot be read, or a row is damaged.
pub fn spans(view: &dyn View) -> Result<BTreeMap<GroupId, Span>, ViewError> {
    let mut spans = BTreeMap::new();
    for range in ids(view)? {
        spans.extend(Stored::load(view, range)?.map(|stored| (range, stored.span)));
    }
    Ok(spans)
}

/// Ranges that have ended here: others have their keys. Their rows are gone, what they left in the log
/// is perhaps not.
///
/// # Errors
/// The store cannot be read, or a row is damaged.
pub fn ended_ids(view: &dyn View) -> Result<Vec<GroupId>, ViewError> {
    ids_after(view, &ENDED)
}

/// The range ends: another has its keys with this batch.
pub fn end(range: GroupId, batch: &mut Batch) {
    batch.delete(Column::Meta, key(range));
    set_since(range, 0, batch);
    batch.put(Column::Meta, key_after(&ENDED, range), Bytes::new());
}

/// The log has nothing of a range that has ended, and nobody will ask for it again.
pub fn forget_ended(range: GroupId, batch: &mut Batch) {
    batch.delete(Column::Meta, key_after(&ENDED, range));
}

/// Which change of members brought the replica that is here (`spine::ranges::Range::since`); 0 if it
/// was here from the beginning.
///
/// # Errors
/// The store cannot be read, or the row is damaged.
pub fn since(view: &dyn View, range: GroupId) -> Result<u64, ViewError> {
    let Some(value) = view.get(Column::Meta, &key_after(&SINCE, range))? else { return Ok(0) };
    let value = value[..].try_into();
    value.map(u64::from_be_bytes).map_err(|_| ViewError(format!("row of range {range}: its age")))
}

/// See `since`.
pub fn set_since(range: GroupId, since: u64, batch: &mut Batch) {
    let key = key_after(&SINCE, range);
    if since == 0 {
        batch.delete(Column::Meta, key);
    } else {
        batch.put(Column::Meta, key, Bytes::copy_from_slice(&since.to_be_bytes()));
    }
}

/// The node is to hold the range no more: its row goes with this batch, its keys later.
pub fn leave(range: GroupId, span: &Span, batch: &mut Batch) {
    batch.delete(Column::Meta, key(range));
    set_since(range, 0, batch);
    let (start, end) = (span.start.clone(), span.end.clone().unwrap_or_default());
    let left = StoredRange { start, end, ..StoredRange::default() };
    batch.put(Column::Meta, key_after(&LEFT, range), left.encode_to_vec());
}

/// Ranges that this node holds no more, with the keys that may still be here.
///
/// # Errors
/// The store cannot be read, or a row is damaged.
pub fn left(view: &dyn View) -> Result<Vec<(GroupId, Span)>, ViewError> {
    let mut left = Vec::new();
    for range in ids_after(view, &LEFT)? {
        let row = view.get(Column::Meta, &key_after(&LEFT, range))?.unwrap_or_default();
        let StoredRange { start, end, .. } = StoredRange::decode(row)
            .map_err(|error| ViewError(format!("row of range {range} that was left: {error}")))?;
        left.push((range, Span { start, end: (!end.is_empty()).then_some(end) }));
    }
    Ok(left)
}

/// None of the keys is here any more.
pub fn forget_left(range: GroupId, batch: &mut Batch) {
    batch.delete(Column::Meta, key_after(&LEFT, range));
}

fn ids_after(view: &dyn View, prefix: &[u8]) -> Result<Vec<GroupId>, ViewError> {
    let mut to = prefix.to_vec();
    *to.last_mut().expect("a prefix has a byte") += 1;
    let bounds = (Bound::Included(prefix), Bound::Excluded(&to[..]));
    let (mut ids, mut damage) = (Vec::new(), None);
    view.scan(
        Column::Meta,
        bounds.0,
        bounds.1,
        &mut |key, _| match key[prefix.len()..].try_into() {
            Ok(id) => {
                ids.push(GroupId(u64::from_be_bytes(id)));
                ControlFlow::Continue(())
            }
            Err(_) => {
                damage = Some(ViewError(format!("row {key:02x?} of a range")));
                ControlFlow::Break(())
            }
        },
    )?;
    damage.map_or(Ok(ids), Err)
}

/// Whether a row of Meta is kept by a range.
pub fn is_row(key: &[u8]) -> bool {
    key.first() == Some(&ROW)
}

/// The key of a range's row in Meta.
pub fn key(range: GroupId) -> Bytes {
    key_after(&[ROW], range)
}

fn key_after(prefix: &[u8], range: GroupId) -> Bytes {
    let mut key = BytesMut::with_capacity(prefix.len() + 8);
    key.put_slice(prefix);
    key.put_u64(range.0);
    key.freeze()
}
