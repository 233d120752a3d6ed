//! Everything that can go wrong with the log, and why an append may be turned away. Owns the
//! texts; each names the file and, where there is one, the byte.

use std::io;
use std::path::PathBuf;

use flotilla_proto::ids::GroupId;

use super::operation::Append;

/// Any of these ends the log: it is never used further, and no append is reported done after it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the log cannot {doing} {}: {source}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },

    #[error("the log in {} is in use by another process", dir.display())]
    Locked { dir: PathBuf },

    /// Bytes that were once durable are not what was written. Nothing is cut or skipped, because
    /// what follows may have been acknowledged.
    #[error("log file {} is damaged at byte {offset}: {problem}", path.display())]
    Corrupt { path: PathBuf, offset: u64, problem: String },

    #[error("log file {} is missing, but other files of the log imply it", path.display())]
    Missing { path: PathBuf },

    #[error(
        "log file {} has format version {found}; this program knows versions up to {known}",
        path.display()
    )]
    NewerFormat { path: PathBuf, found: u32, known: u32 },

    /// The caller broke a rule of [`super::Operation`]. Nothing of the batch was written.
    #[error("group {group} asked the log for something impossible: {problem}")]
    Misuse { group: GroupId, problem: String },

    #[error("{groups} groups are too many for log segments of {segment_bytes} bytes")]
    TooManyGroups { groups: usize, segment_bytes: u64 },

    #[error("log option {name} is out of range: {problem}")]
    Option { name: &'static str, problem: String },

    #[error("the log's thread panicked")]
    Panicked,
}

/// An append that did not enter the queue, given back to its owner.
#[derive(Debug, thiserror::Error)]
#[error("append refused: {reason}")]
pub struct Refused {
    pub append: Append,
    pub reason: RefusedReason,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefusedReason {
    /// The queue is at its limit; it may be tried again.
    #[error("the log's queue is full")]
    Full,
    /// The log was closed or has failed; no append will enter again.
    #[error("the log is closed")]
    Closed,
    /// Larger than [`super::Options::append_bytes_max`]; it will never fit.
    #[error("{bytes} bytes are more than the {limit} that fit into one append")]
    TooLarge { bytes: u64, limit: u64 },
    /// Entries of one operation must have consecutive indexes, starting above 0.
    #[error("the entries' indexes are not consecutive")]
    NotConsecutive,
}
