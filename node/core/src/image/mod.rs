//! A backup: the logical state at one revision, as a database of etcd's.
//!
//! `bolt` knows pages and buckets, `schema` which buckets an etcd keeps and what their rows mean.
//! Both only encode and decode: whatever bytes they are given, they answer with an error and never
//! with a crash, in memory that does not depend on what the bytes claim.

pub mod bolt;
pub mod schema;

#[cfg(test)]
mod tests;

pub use schema::{Change, Facts, Origin};

use bolt::Damage;

/// Why an image cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("{0}")]
    Io(String),
    /// It is no database, or a damaged one.
    #[error("the snapshot is damaged: {0}")]
    Bolt(#[from] Damage),
    /// It is a database, but a row is none that etcd writes.
    #[error("the snapshot is damaged: {bucket} has a row that cannot be understood: {what}")]
    Row {
        /// The bucket.
        bucket: &'static str,
        /// What is wrong with the row.
        what: String,
    },
}
