//! The receiving end: takes chunks in order, checks everything, yields rows. Trusts nothing that
//! arrives; after an error it takes no more.

use bytes::Bytes;

use super::{Limits, Scope, add_row, is_node_local, row_bytes};
use crate::group::{NUMBER_MAX, conf};
use crate::proto::internal::{SnapshotAck, SnapshotChunk, SnapshotHeader, SnapshotMark};
use crate::view::Column;

/// One row of the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Where it belongs.
    pub column: Column,
    /// Its key there.
    pub key: Bytes,
    /// Its value.
    pub value: Bytes,
}

/// What a chunk brought.
#[derive(Clone, Debug, PartialEq)]
pub struct Received {
    /// To be stored, in order; empty for a repeated chunk.
    pub rows: Vec<Row>,
    /// To be sent once the rows are stored, and all of them are durable if it is the last.
    pub ack: SnapshotAck,
    /// Everything is there.
    pub is_last: bool,
}

/// Why a snapshot was given up. The sender starts another, from scratch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiverError {
    /// The header does not describe a snapshot.
    #[error("the snapshot's header is malformed")]
    Header,
    /// A chunk of another snapshot.
    #[error("a chunk of snapshot {got} arrived within snapshot {want}")]
    WrongSnapshot {
        /// Id of the header.
        want: u64,
        /// Id of the chunk.
        got: u64,
    },
    /// A chunk is missing.
    #[error("chunk {got} arrived before chunk {want}")]
    Gap {
        /// The one that had to come.
        want: u64,
        /// The one that came.
        got: u64,
    },
    /// A chunk follows the last.
    #[error("a chunk arrived after the last")]
    AfterEnd,
    /// A chunk before the last brings nothing.
    #[error("chunk {0} is empty")]
    Empty(u64),
    /// A chunk or a row is too large.
    #[error("chunk {0} is too large")]
    TooLarge(u64),
    /// A row of a column that does not exist, one that never travels, or one of another group.
    #[error("chunk {0} holds a row that does not belong in a snapshot")]
    Foreign(u64),
    /// Rows of a column whose order follows from the keys are not in strictly ascending order.
    #[error("chunk {0} holds a row out of order")]
    Order(u64),
    /// What arrived is not what was sent.
    #[error("chunk {0} is damaged")]
    Checksum(u64),
    /// An earlier chunk had to be refused.
    #[error("the snapshot was given up before")]
    GivenUp,
}

/// One snapshot being received.
#[derive(Debug)]
pub struct Receiver {
    id: u64,
    mark: SnapshotMark,
    limits: Limits,
    /// Chunks taken; they are counted from 1.
    taken: u64,
    checksum: u32,
    scope: Scope,
    /// The newest row of each column that rises with the keys.
    last: [Option<Bytes>; Column::ALL.len()],
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    Complete,
    GivenUp,
}

impl Receiver {
    /// Starts with the header of a connection. `scope` is what the group may own as far as the
    /// receiver knows: rows of other groups are not taken.
    ///
    /// # Errors
    /// The header lacks something, or is of another group.
    pub fn new(
        header: &SnapshotHeader,
        scope: Scope,
        limits: Limits,
    ) -> Result<Self, ReceiverError> {
        let mark = header.mark.clone().ok_or(ReceiverError::Header)?;
        let is_conf_valid = mark.conf.as_ref().is_some_and(|conf| conf::check(conf).is_ok());
        let is_sane = 0 < mark.index
            && mark.index < NUMBER_MAX
            && 0 < mark.term
            && mark.term < NUMBER_MAX
            && header.message.as_ref().is_some_and(|message| message.group == scope.group().0);
        if !is_sane || !is_conf_valid {
            return Err(ReceiverError::Header);
        }
        Ok(Self {
            id: header.id,
            mark,
            limits,
            taken: 0,
            checksum: 0,
            scope,
            last: Default::default(),
            state: State::Open,
        })
    }

    /// Where the data stands.
    pub fn mark(&self) -> &SnapshotMark {
        &self.mark
    }

    /// Whether everything is there.
    pub fn is_complete(&self) -> bool {
        self.state == State::Complete
    }

    /// Takes the next chunk, or acknowledges a repeated one again.
    ///
    /// # Errors
    /// The chunk does not fit; nothing more is taken from then on.
    pub fn on_chunk(&mut self, chunk: SnapshotChunk) -> Result<Received, ReceiverError> {
        if self.state == State::GivenUp {
            return Err(ReceiverError::GivenUp);
        }
        let result = self.take(chunk);
        if result.is_err() {
            self.state = State::GivenUp;
        }
        result
    }

    /// Tells the sender to stop.
    pub fn refuse(&self) -> SnapshotAck {
        SnapshotAck { id: self.id, sequence: self.taken, is_refused: true }
    }

    fn take(&mut self, chunk: SnapshotChunk) -> Result<Received, ReceiverError> {
        if chunk.id != self.id {
            return Err(ReceiverError::WrongSnapshot { want: self.id, got: chunk.id });
        }
        let want = self.taken + 1;
        if (1..want).contains(&chunk.sequence) {
            return Ok(Received { rows: Vec::new(), ack: self.ack(), is_last: false });
        }
        if self.state == State::Complete {
            return Err(ReceiverError::AfterEnd);
        }
        if chunk.sequence != want {
            return Err(ReceiverError::Gap { want, got: chunk.sequence });
        }
        if chunk.rows.is_empty() && !chunk.is_last {
            return Err(ReceiverError::Empty(want));
        }
        let rows = self.take_rows(&chunk)?;
        if self.checksum != chunk.checksum {
            return Err(ReceiverError::Checksum(want));
        }
        self.taken = want;
        if chunk.is_last {
            self.state = State::Complete;
        }
        Ok(Received { rows, ack: self.ack(), is_last: chunk.is_last })
    }

    fn take_rows(&mut self, chunk: &SnapshotChunk) -> Result<Vec<Row>, ReceiverError> {
        let sequence = chunk.sequence;
        let mut rows = Vec::with_capacity(chunk.rows.len());
        let mut room = self.limits.chunk_bytes_max;
        for row in &chunk.rows {
            let column = Column::from_number(row.column).ok_or(ReceiverError::Foreign(sequence))?;
            if is_node_local(column, &row.key) {
                return Err(ReceiverError::Foreign(sequence));
            }
            let bytes = row_bytes(&row.key, &row.value);
            if bytes > self.limits.row_bytes_max || (bytes > room && !rows.is_empty()) {
                return Err(ReceiverError::TooLarge(sequence));
            }
            room = room.saturating_sub(bytes);
            if !self.scope.holds(column, &row.key, &row.value).unwrap_or(false) {
                return Err(ReceiverError::Foreign(sequence));
            }
            // Events and attachments come with their keys.
            if matches!(column, Column::Key | Column::History | Column::Meta) {
                let last = &mut self.last[column as usize];
                if last.as_ref().is_some_and(|last| *last >= row.key) {
                    return Err(ReceiverError::Order(sequence));
                }
                *last = Some(row.key.clone());
            }
            self.checksum = add_row(self.checksum, column, &row.key, &row.value);
            rows.push(Row { column, key: row.key.clone(), value: row.value.clone() });
        }
        Ok(rows)
    }

    fn ack(&self) -> SnapshotAck {
        SnapshotAck { id: self.id, sequence: self.taken, is_refused: false }
    }
}
