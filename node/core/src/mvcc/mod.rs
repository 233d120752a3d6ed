//! What an etcd command means: pure functions over a `View` of the applied state.
//!
//! Reads are exact at a `Head` even when the view holds newer revisions. A write is decided by
//! `evaluate` on the leader before it is proposed, and carried out by `Applier` on every replica;
//! nothing between the two decides again. Knows nothing of Raft, ranges, watchers or clients.

use crate::Error;
use crate::view::ViewError;

pub mod layout;

mod check;
mod quota;

mod counts;
mod history;
mod keyspace;

mod encoded;
mod page;
mod read;

mod compare;
mod delete;
mod put;
mod txn;

mod draft;
mod evaluate;
mod footprint;

mod apply;
pub mod event;

mod compact;
mod hash;
mod kept;
mod lease_keys;
mod load;
mod replay;

#[cfg(test)]
mod tests;

pub use apply::{Applier, newest_keys_count};
pub use check::{check_delete, check_put, check_range, check_range_stream, check_txn};
pub use compact::{Slice, check_compact, compact_slice, compaction_floor, merge_cursor};
pub use counts::{BLOCK_ROWS, Counts};
pub use draft::Draft;
pub use draft::header;
pub use encoded::{
    EncodedPage, EncodedRange, Rest, Uncounted, count_rest, is_encodable, read_encoded,
};
pub use evaluate::{
    Evaluated, FoldDecides, LeaseTable, NAMED_KEYS_MAX, NO_HEAD, attached_leases, evaluate,
    evaluate_newest, outcome_without_effect,
};
pub use event::Event;
pub use footprint::{Footprint, Mode, footprint};
pub use hash::{Checksum, HashKv, checksum, hash_kv, hashed_revision};
pub use kept::{Below, KeptPage, kept_page};
pub use lease_keys::{lease_keys, lease_keys_at, lease_row, lease_row_key, leases_within};
pub use load::{Loader, note_compacted};
pub use page::{Cursor, Page, read_page};
pub use quota::quota_cost;
pub(crate) use read::{arrange, is_sorted_by_value, wanted_in_key_order};
pub use read::{read, read_txn};
pub use replay::{Replay, ReplayLimits, ReplayPage, events_from, events_page};
pub use txn::{is_read_only, is_serializable};

/// The state that a request is answered from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The store's revision; 1 when nothing was ever written.
    pub revision: i64,
    /// The lowest readable revision; -1 when the store was never compacted.
    pub compact_revision: i64,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The client is told so.
    #[error(transparent)]
    Client(#[from] Error),
    /// The process must stop.
    #[error(transparent)]
    View(#[from] ViewError),
    /// The store has moved on and compacted what the read needed while it was under way. Call
    /// again with a newer head. Cannot happen on a view that nobody changes meanwhile.
    #[error("compaction has overtaken the revision being read")]
    Overtaken,
}
