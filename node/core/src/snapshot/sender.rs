//! The sending end: turns a frozen `View` into chunks, as fast as they are acknowledged. Holds a
//! cursor and a checksum, never rows.

use std::ops::{Bound, ControlFlow};

use bytes::Bytes;

use super::{Limits, add_row, is_node_local, row_bytes};
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
    /// Position in `Column::ALL`; past its end when everything was read.
    column: usize,
    /// Last key read of that column.
    key: Option<Bytes>,
    /// Chunks sent, counted from 1, and chunks acknowledged.
    sent: u64,
    acknowledged: u64,
    checksum: u32,
    is_last_sent: bool,
}

impl Sender {
    /// Starts at the first row. `id` names this attempt and must be new.
    pub fn new(id: u64, limits: Limits) -> Self {
        Self {
            id,
            limits,
            column: 0,
            key: None,
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
        self.is_last_sent = self.column == Column::ALL.len();
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

    /// Reads on from the cursor until a chunk is full or the last column ends.
    fn read(&mut self, view: &dyn View) -> Result<Vec<SnapshotRow>, SenderError> {
        let mut rows = Vec::new();
        let mut room = self.limits.chunk_bytes_max;
        while let Some(column) = Column::ALL.get(self.column).copied() {
            if self.read_column(view, column, &mut room, &mut rows)? {
                break;
            }
            self.column += 1;
            self.key = None;
        }
        Ok(rows)
    }

    /// Reads on within a column; `true` if the chunk is full before it ends.
    fn read_column(
        &mut self,
        view: &dyn View,
        column: Column,
        room: &mut usize,
        rows: &mut Vec<SnapshotRow>,
    ) -> Result<bool, SenderError> {
        let mut last = self.key.take();
        let from = last.clone();
        let bound = from.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut checksum = self.checksum;
        let mut is_full = false;
        let mut too_large = None;
        view.scan(column, bound, Bound::Unbounded, &mut |key, value| {
            if is_node_local(column, key) {
                return ControlFlow::Continue(());
            }
            let bytes = row_bytes(key, value);
            if bytes > self.limits.row_bytes_max {
                too_large = Some(bytes);
                return ControlFlow::Break(());
            }
            if bytes > *room && !rows.is_empty() {
                is_full = true;
                return ControlFlow::Break(());
            }
            *room = room.saturating_sub(bytes);
            checksum = add_row(checksum, column, key, value);
            let key = Bytes::copy_from_slice(key);
            last = Some(key.clone());
            let value = Bytes::copy_from_slice(value);
            rows.push(SnapshotRow { column: column as u32, key, value });
            ControlFlow::Continue(())
        })?;
        if let Some(bytes) = too_large {
            return Err(SenderError::RowTooLarge { bytes });
        }
        self.checksum = checksum;
        self.key = last;
        Ok(is_full)
    }
}
