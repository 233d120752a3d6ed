//! The sending end: turns a frozen `View` into chunks, as fast as they are acknowledged. Holds a
//! cursor, a checksum and the rows of at most one record that did not fit.
//!
//! Nothing is keyed by range, so the rows of some keys are found from those in `Key` and `History`:
//! every event is that of a newest record, which is the same bytes, or of a superseded one, and every
//! attachment to a lease is that of a newest record.

use std::collections::VecDeque;
use std::ops::{Bound, ControlFlow};

use bytes::{Bytes, BytesMut};

use super::scope::{history_bounds, key_bounds};
use super::{Limits, Row, Scope, add_row, row_bytes};
use crate::mvcc::layout::{self, KeyValueFields, RecordHead};
use crate::proto::Span;
use crate::proto::internal::{SnapshotAck, SnapshotChunk, SnapshotRow};
use crate::view::{Column, View, ViewError};

/// Why a snapshot cannot be sent to its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SenderError {
    /// The store failed; the process must stop.
    #[error(transparent)]
    View(#[from] ViewError),
    /// A row that no receiver would take.
    #[error("a row of {bytes} bytes is larger than a snapshot may carry")]
    RowTooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The receiver gave up.
    #[error("the receiver refused the snapshot after chunk {sequence}")]
    Refused {
        /// The last chunk it took.
        sequence: u64,
    },
    /// An acknowledgement of another snapshot, or of a chunk that was never sent.
    #[error("an acknowledgement does not belong to this snapshot")]
    WrongAck,
}

/// One snapshot being sent.
#[derive(Debug)]
pub struct Sender {
    id: u64,
    limits: Limits,
    scope: Scope,
    /// What is still to be read, the first of it from after `key` on.
    passes: VecDeque<Pass>,
    key: Option<Bytes>,
    /// Read and not sent.
    held: VecDeque<Row>,
    /// Chunks sent, counted from 1, and chunks acknowledged.
    sent: u64,
    acknowledged: u64,
    checksum: u32,
    is_last_sent: bool,
}

/// A part of the way through the rows.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Pass {
    /// A column as it is.
    All(Column),
    /// The newest records of a span, each with its event and its attachment.
    Newest(Span),
    /// The superseded records of a span, each with its event.
    Superseded(Span),
}

impl Sender {
    /// Starts at the first row. `id` names this attempt and must be new. The scope is that of the
    /// view which will be read.
    pub fn new(id: u64, scope: Scope, limits: Limits) -> Self {
        let passes = if scope.is_whole() {
            Column::ALL.map(Pass::All).into()
        } else {
            let newest = scope.spans().iter().cloned().map(Pass::Newest);
            let superseded = scope.spans().iter().cloned().map(Pass::Superseded);
            newest.chain(superseded).chain([Pass::All(Column::Meta)]).collect()
        };
        Self {
            id,
            limits,
            scope,
            passes,
            key: None,
            held: VecDeque::new(),
            sent: 0,
            acknowledged: 0,
            checksum: 0,
            is_last_sent: false,
        }
    }

    /// The next chunk, or `None` while too many are unacknowledged or after the last. Every call
    /// must see the same moment of the same state.
    ///
    /// # Errors
    /// The view cannot be read, or holds a row that cannot be sent.
    pub fn next(&mut self, view: &dyn View) -> Result<Option<SnapshotChunk>, SenderError> {
        if self.is_last_sent
            || self.sent - self.acknowledged >= self.limits.window_chunks_max.max(1)
        {
            return Ok(None);
        }
        let rows = self.read(view)?;
        self.sent += 1;
        self.is_last_sent = self.passes.is_empty() && self.held.is_empty();
        Ok(Some(SnapshotChunk {
            id: self.id,
            sequence: self.sent,
            rows,
            is_last: self.is_last_sent,
            checksum: self.checksum,
        }))
    }

    /// The receiver has this chunk and all before it.
    ///
    /// # Errors
    /// The receiver refuses, or means something else.
    pub fn on_ack(&mut self, ack: &SnapshotAck) -> Result<(), SenderError> {
        if ack.id != self.id || ack.sequence > self.sent {
            return Err(SenderError::WrongAck);
        }
        if ack.is_refused {
            return Err(SenderError::Refused { sequence: ack.sequence });
        }
        self.acknowledged = self.acknowledged.max(ack.sequence);
        Ok(())
    }

    /// Whether the receiver has everything.
    pub fn is_finished(&self) -> bool {
        self.is_last_sent && self.acknowledged == self.sent
    }

    /// Reads on from the cursor until a chunk is full or the last pass ends.
    fn read(&mut self, view: &dyn View) -> Result<Vec<SnapshotRow>, SenderError> {
        let mut rows = Vec::new();
        let mut room = self.limits.chunk_bytes_max;
        loop {
            while let Some(row) = self.held.pop_front() {
                let bytes = row_bytes(&row.key, &row.value);
                if bytes > self.limits.row_bytes_max {
                    return Err(SenderError::RowTooLarge { bytes });
                }
                if bytes > room && !rows.is_empty() {
                    self.held.push_front(row);
                    return Ok(rows);
                }
                room = room.saturating_sub(bytes);
                let Row { column, key, value } = row;
                self.checksum = add_row(self.checksum, column, &key, &value);
                rows.push(SnapshotRow { column: column as u32, key, value });
            }
            let Some(pass) = self.passes.front().cloned() else { return Ok(rows) };
            if !self.read_pass(view, &pass, room)? {
                self.passes.pop_front();
                self.key = None;
            }
        }
    }

    /// Holds the next rows of a pass, about as many as there is room for. False at its end.
    fn read_pass(
        &mut self,
        view: &dyn View,
        pass: &Pass,
        room: usize,
    ) -> Result<bool, SenderError> {
        let (column, (from, to)) = match pass {
            Pass::All(column) => (*column, (Bound::Unbounded, Bound::Unbounded)),
            Pass::Newest(span) => (Column::Key, key_bounds(span)),
            Pass::Superseded(span) => (Column::History, history_bounds(span)),
        };
        let from = self.key.take().map_or(from, Bound::Excluded);
        let bounds = (from.as_ref().map(|key| &key[..]), to.as_ref().map(|key| &key[..]));
        let mut held_bytes = 0;
        let mut damage = None;
        view.scan(column, bounds.0, bounds.1, &mut |key, value| {
            if column == Column::Meta && !self.scope.holds_meta(key) {
                return ControlFlow::Continue(());
            }
            let (key, value) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
            self.key = Some(key.clone());
            if let Err(error) = hold(view, pass, Row { column, key, value }, &mut self.held) {
                damage = Some(error);
            }
            let last = self.held.back().expect("held above");
            held_bytes += row_bytes(&last.key, &last.value);
            let is_enough = held_bytes >= room || damage.is_some();
            if is_enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        match damage {
            Some(error) => Err(error.into()),
            None => Ok(self.key.is_some()),
        }
    }
}

/// Adds a row that was read, and those that are found from it.
fn hold(view: &dyn View, pass: &Pass, row: Row, held: &mut VecDeque<Row>) -> Result<(), ViewError> {
    let Row { key, value, .. } = row.clone();
    held.push_back(row);
    match pass {
        Pass::All(_) => {}
        Pass::Newest(_) => {
            let head = RecordHead::decode(&value)?;
            let event = Bytes::copy_from_slice(&head.revision.encode());
            held.push_back(Row { column: Column::Revision, key: event, value: value.clone() });
            let lease = KeyValueFields::decode(&value[head.encoded_len()..])?.lease;
            if lease != 0 {
                let mut attached = BytesMut::with_capacity(layout::LEASE_BYTES + key.len());
                layout::encode_lease_key(lease, &key, &mut attached);
                let (column, key) = (Column::LeaseKey, attached.freeze());
                held.push_back(Row { column, key, value: Bytes::new() });
            }
        }
        Pass::Superseded(_) => {
            let event = layout::decode_history_revision(&key)?.encode();
            let value = view
                .get(Column::Revision, &event)?
                .ok_or_else(|| layout::damaged("the event of a superseded record is missing"))?;
            let key = Bytes::copy_from_slice(&event);
            held.push_back(Row { column: Column::Revision, key, value });
        }
    }
    Ok(())
}
