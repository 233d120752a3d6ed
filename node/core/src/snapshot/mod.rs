//! The whole state of a group on its way to another node, in bounded chunks, and in and out of a
//! store that other groups share.
//!
//! `Scope` says which rows are a group's. `Sender` pages over a frozen `View`, `Receiver` checks
//! what arrives and yields the rows, `Install` puts them in the place of the old, `Clear` removes
//! them. All are pure: the caller carries chunks and acknowledgements over a connection of their
//! own, and starts from scratch with new ones after any error. Never decides who needs a snapshot.

mod clear;
mod install;
mod receiver;
mod scope;
mod sender;

#[cfg(test)]
mod group_tests;
#[cfg(test)]
mod tests;

pub use clear::Clear;
pub use install::Install;
pub use receiver::{Received, Receiver, ReceiverError, Row};
pub use scope::{Scope, to_send};
pub use sender::{Sender, SenderError};

use crate::view::Column;

/// First byte of the `Meta` keys that belong to one node alone and never travel.
pub const NODE_LOCAL: u8 = 0;

/// Bytes a row is accounted for beside its key and value.
pub const ROW_OVERHEAD_BYTES: usize = 24;

/// Records removed in one batch; each takes a few rows with it.
const CLEAR_RECORDS_MAX: usize = if cfg!(test) { 3 } else { 1_024 };
/// Bytes of keys and values copied in one batch, exceeded by at most one row.
const COPY_BYTES_MAX: usize = if cfg!(test) { 64 } else { 1 << 20 };

/// How much is sent at a time. Both ends must agree on the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the rows of a chunk; one row alone may exceed it.
    pub chunk_bytes_max: usize,
    /// Bytes of one row.
    pub row_bytes_max: usize,
    /// Chunks sent and not yet acknowledged.
    pub window_chunks_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { chunk_bytes_max: 1 << 20, row_bytes_max: 64 << 20, window_chunks_max: 8 }
    }
}

/// Whether a row stays on its node.
pub fn is_node_local(column: Column, key: &[u8]) -> bool {
    column == Column::Meta && key.first() == Some(&NODE_LOCAL)
}

fn row_bytes(key: &[u8], value: &[u8]) -> usize {
    ROW_OVERHEAD_BYTES + key.len() + value.len()
}

/// Extends the running checksum by one row; the lengths keep key and value apart.
fn add_row(checksum: u32, column: Column, key: &[u8], value: &[u8]) -> u32 {
    let mut head = [0; 17];
    head[0] = column as u8;
    head[1..9].copy_from_slice(&(key.len() as u64).to_le_bytes());
    head[9..].copy_from_slice(&(value.len() as u64).to_le_bytes());
    [&head[..], key, value].into_iter().fold(checksum, crc32c::crc32c_append)
}
