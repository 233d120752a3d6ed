//! Rows of keys that were written lately, as they are in the store: a key is read before it is written,
//! and is often written and read again soon.
//!
//! Only whoever writes the store puts rows in, after each batch. So what is found is the row after the
//! newest batch or, while that is being applied, after the one before it. A read may see either, and
//! may see the newer first and then the older: whoever reads beside the writer names a revision that was
//! applied before, or holds latches on what it reads.

use bytes::Bytes;
use flotilla_core::view::{Batch, Column, Write};
use quick_cache::Weighter;
use quick_cache::sync::Cache;

/// Larger rows are not kept: one would push out many, and copying it is most of what reading it costs.
const ROW_BYTES_MAX: usize = 4 << 10;
/// Bytes that a row takes beside its key and value: two allocations and its place among the others.
const ROW_OVERHEAD_BYTES: usize = 128;
/// Bytes that a row is expected to take. Where rows take more, there is room left for places.
const ROW_BYTES_EXPECTED: usize = 512;

/// The rows.
pub(super) struct Recent {
    rows: Cache<Box<[u8]>, Bytes, Bytewise>,
}

#[derive(Clone)]
struct Bytewise;

impl Weighter<Box<[u8]>, Bytes> for Bytewise {
    fn weight(&self, key: &Box<[u8]>, row: &Bytes) -> u64 {
        (key.len() + row.len() + ROW_OVERHEAD_BYTES) as u64
    }
}

impl Recent {
    /// Keeps rows of so many bytes together.
    pub(super) fn new(bytes_max: usize) -> Self {
        let rows_expected = bytes_max / ROW_BYTES_EXPECTED;
        Self { rows: Cache::with_weighter(rows_expected, bytes_max as u64, Bytewise) }
    }

    /// The row of a key, if it is kept.
    pub(super) fn get(&self, key: &[u8]) -> Option<Bytes> {
        self.rows.get(key)
    }

    /// A batch is in the store.
    pub(super) fn note(&self, batch: &Batch) {
        for write in &batch.writes {
            match write {
                // The rows of a change share a buffer with nothing else, so little more is kept than is
                // weighed. A key may be part of a request, which is not to be kept for it.
                Write::Put(Column::Key, key, row) if key.len() + row.len() <= ROW_BYTES_MAX => {
                    self.rows.insert(key[..].into(), row.clone());
                }
                Write::Put(Column::Key, key, _) | Write::Delete(Column::Key, key) => {
                    self.rows.remove(&key[..]);
                }
                Write::Put(..) | Write::Delete(..) => {}
            }
        }
    }

    /// Rows are about to change that no batch of `note` tells of.
    pub(super) fn forget(&self) {
        self.rows.clear();
    }
}
