//! The read window on a node's applied state, and the batch of changes that moves it on.
//!
//! The state is a handful of ordered byte columns. What the bytes mean is decided in `mvcc::layout`
//! (keys, revisions, history, leases) and `spine::state` (the rest); whoever stores them needs to
//! know nothing but order and atomicity: a batch is applied whole or not at all, batches in order,
//! and a crash may lose the newest batches but never an older one.

use std::ops::{Bound, ControlFlow};

use bytes::Bytes;

use crate::mvcc::Counts;

/// One ordered map of byte strings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Column {
    /// User key -> its newest record, tombstones included until compacted.
    Key = 0,
    /// Revision -> the event at it.
    Revision = 1,
    /// Superseded records of a key, newest first.
    History = 2,
    /// (lease, key) for every attached key.
    LeaseKey = 3,
    /// The spine's state, the applied index and other single records.
    Meta = 4,
}

impl Column {
    /// All columns, in the order of their numbers.
    pub const ALL: [Self; 5] =
        [Self::Key, Self::Revision, Self::History, Self::LeaseKey, Self::Meta];

    /// From its number on the wire.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.get(usize::try_from(number).ok()?).copied()
    }
}

/// The store failed to read: a broken disk or a failed checksum. The process must stop.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the store cannot be read: {0}")]
pub struct ViewError(pub String);

/// Called for each row of a scan; `Break` ends it.
pub type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>;

/// A read window. Reads see every batch applied before the call; a scan sees one moment.
pub trait View {
    /// The value at `key`, or `None`.
    ///
    /// # Errors
    /// The store cannot be read.
    fn get(&self, column: Column, key: &[u8]) -> Result<Option<Bytes>, ViewError>;

    /// Visits the rows between the bounds in ascending byte order of their keys.
    ///
    /// # Errors
    /// The store cannot be read.
    fn scan(
        &self,
        column: Column,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        visit: Visit<'_>,
    ) -> Result<(), ViewError>;

    /// As `scan`, in descending order.
    ///
    /// # Errors
    /// The store cannot be read.
    fn scan_back(
        &self,
        column: Column,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        visit: Visit<'_>,
    ) -> Result<(), ViewError>;

    /// How many keys spans have, as far as it is remembered. Only a view that moves on with the batches
    /// has that.
    fn counts(&self) -> Option<&Counts> {
        None
    }
}

/// One change of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Sets a row.
    Put(Column, Bytes, Bytes),
    /// Removes a row; no error if there is none.
    Delete(Column, Bytes),
}

/// Changes that are applied together, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The changes; a later one wins.
    pub writes: Vec<Write>,
}

impl Batch {
    /// Sets a row.
    pub fn put(&mut self, column: Column, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.writes.push(Write::Put(column, key.into(), value.into()));
    }

    /// Removes a row.
    pub fn delete(&mut self, column: Column, key: impl Into<Bytes>) {
        self.writes.push(Write::Delete(column, key.into()));
    }
}
