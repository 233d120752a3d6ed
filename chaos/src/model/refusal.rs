//! Every way etcd refuses a request because of the request or the state of the store, with
//! etcd's code and exact text. Failures of the cluster (no leader, timeouts) are not among them.

use thiserror::Error;

use crate::history::{Code, Refused};

/// A refusal; printed, it is the status text of etcd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Error)]
pub enum Refusal {
    /// A key is missing in the request.
    #[error("etcdserver: key is not provided")]
    EmptyKey,
    /// A put keeps the value or lease of a key that is not there, or an operation of a
    /// transaction is empty.
    #[error("etcdserver: key not found")]
    KeyNotFound,
    /// A put both brings and keeps the value.
    #[error("etcdserver: value is provided")]
    ValueProvided,
    /// A put both brings and keeps the lease.
    #[error("etcdserver: lease is provided")]
    LeaseProvided,
    /// A list of a transaction is too long.
    #[error("etcdserver: too many operations in txn request")]
    TooManyOps,
    /// A transaction puts a key twice, or puts and deletes it.
    #[error("etcdserver: duplicate key given in txn request")]
    DuplicateKey,
    /// An unknown order or target of sorting.
    #[error("etcdserver: invalid sort option")]
    InvalidSortOption,
    /// The revision is below the compact revision.
    #[error("etcdserver: mvcc: required revision has been compacted")]
    Compacted,
    /// The revision does not exist yet.
    #[error("etcdserver: mvcc: required revision is a future revision")]
    FutureRevision,
    /// There is no such lease.
    #[error("etcdserver: requested lease not found")]
    LeaseNotFound,
    /// There is such a lease already.
    #[error("etcdserver: lease already exists")]
    LeaseExists,
    /// The TTL is above the limit.
    #[error("etcdserver: too large lease TTL")]
    LeaseTtlTooLarge,
}

impl Refusal {
    /// All refusals.
    pub const ALL: [Refusal; 12] = [
        Refusal::EmptyKey,
        Refusal::KeyNotFound,
        Refusal::ValueProvided,
        Refusal::LeaseProvided,
        Refusal::TooManyOps,
        Refusal::DuplicateKey,
        Refusal::InvalidSortOption,
        Refusal::Compacted,
        Refusal::FutureRevision,
        Refusal::LeaseNotFound,
        Refusal::LeaseExists,
        Refusal::LeaseTtlTooLarge,
    ];

    /// The gRPC status code that comes with the text.
    pub fn code(self) -> Code {
        match self {
            Refusal::EmptyKey
            | Refusal::KeyNotFound
            | Refusal::ValueProvided
            | Refusal::LeaseProvided
            | Refusal::TooManyOps
            | Refusal::DuplicateKey
            | Refusal::InvalidSortOption => Code::INVALID_ARGUMENT,
            Refusal::Compacted | Refusal::FutureRevision | Refusal::LeaseTtlTooLarge => {
                Code::OUT_OF_RANGE
            }
            Refusal::LeaseNotFound => Code::NOT_FOUND,
            Refusal::LeaseExists => Code::FAILED_PRECONDITION,
        }
    }

    /// The refusal as a client receives it.
    pub fn received(self) -> Refused {
        Refused { code: self.code(), text: self.to_string() }
    }

    /// Finds the refusal by its exact text, as etcd's own client does.
    pub fn from_text(text: &str) -> Option<Refusal> {
        Refusal::ALL.into_iter().find(|refusal| refusal.to_string() == text)
    }
}
