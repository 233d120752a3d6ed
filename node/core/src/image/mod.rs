//! A backup: the logical state at one revision, as a database of etcd's; and increments, which have
//! what came after it.
//!
//! `bolt` knows pages and buckets, `schema` which buckets an etcd keeps and what their rows mean;
//! `frames` the form of an increment, `increment` what it must say, `catalog` which files lead to a
//! revision, `chain` the state that they lead to.
//! All of them only encode and decode: whatever bytes they are given, they answer with an error and never
//! with a crash, in memory that does not depend on what the bytes claim.

pub mod bolt;
pub mod schema;

pub mod frames;
pub mod increment;

pub mod catalog;
pub mod chain;

#[cfg(test)]
mod series_tests;
#[cfg(test)]
mod tests;

use std::ops::ControlFlow;

pub use schema::{Change, Facts, Origin};

use bolt::Damage;

/// A state and its history, to be restored.
pub trait Source {
    /// What there is beside keys.
    ///
    /// # Errors
    /// It cannot be read, or is damaged.
    fn facts(&self) -> Result<Facts, Error>;

    /// Visits all changes in the order of their revisions; `Break` ends it.
    ///
    /// # Errors
    /// It cannot be read, or is damaged.
    fn visit_changes(
        &self,
        visit: &mut dyn FnMut(Change<'_>) -> ControlFlow<()>,
    ) -> Result<(), Error>;

    /// The state is of no earlier revision, whatever its last change is.
    fn revision_min(&self) -> i64;
}

impl<B: bolt::Bytes> Source for bolt::Reader<B> {
    fn facts(&self) -> Result<Facts, Error> {
        schema::facts(self)
    }

    fn visit_changes(
        &self,
        visit: &mut dyn FnMut(Change<'_>) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        schema::visit_changes(self, visit)
    }

    fn revision_min(&self) -> i64 {
        1
    }
}

/// Why an image cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("{0}")]
    Io(String),
    /// It is no database, or a damaged one.
    #[error("the snapshot is damaged: {0}")]
    Bolt(#[from] Damage),
    /// It is no part of a backup beside snapshots, or a damaged one.
    #[error("this part of the backup is damaged: {0}")]
    Part(Damage),
    /// What is wrong is in one of several files.
    #[error("{name}: {error}")]
    Named {
        /// Of the file.
        name: String,
        /// What is wrong with it.
        error: Box<Error>,
    },
    /// It is a database, but a row is none that etcd writes.
    #[error("the snapshot is damaged: {bucket} has a row that cannot be understood: {what}")]
    Row {
        /// The bucket.
        bucket: &'static str,
        /// What is wrong with the row.
        what: String,
    },
}

impl Error {
    /// Says in which of several files it is.
    pub fn named(name: &str, error: Self) -> Self {
        Self::Named { name: name.to_owned(), error: Box::new(error) }
    }
}
