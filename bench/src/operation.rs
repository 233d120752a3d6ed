//! What a client can be told to do, one request (or a pair that belongs together) at a time.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// What kind of operation: the unit in which latencies and errors are reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// KV.Put
    Put,
    /// KV.Range of one key
    Get,
    /// KV.Range of a span
    List,
    /// KV.RangeStream of a span
    ListStream,
    /// KV.Range, count only
    Count,
    /// KV.Txn that puts if the key has an expected revision
    Cas,
    /// KV.Txn that puts several keys
    TxnPut,
    /// KV.Txn that reads
    TxnRange,
    /// KV.Range of one key, then a KV.Txn that writes it back
    Update,
    /// KV.DeleteRange
    Delete,
    /// KV.Compact
    Compact,
    /// Lease.LeaseGrant
    Grant,
    /// Lease.LeaseRevoke
    Revoke,
    /// One request and answer on a LeaseKeepAlive stream
    KeepAlive,
    /// Lock.Lock
    Lock,
    /// Lock.Unlock
    Unlock,
    /// Election.Campaign
    Campaign,
    /// Election.Resign
    Resign,
}

impl Kind {
    /// How many there are.
    pub const COUNT: usize = 18;

    /// All of them, in the order of their declaration.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Put,
        Self::Get,
        Self::List,
        Self::ListStream,
        Self::Count,
        Self::Cas,
        Self::TxnPut,
        Self::TxnRange,
        Self::Update,
        Self::Delete,
        Self::Compact,
        Self::Grant,
        Self::Revoke,
        Self::KeepAlive,
        Self::Lock,
        Self::Unlock,
        Self::Campaign,
        Self::Resign,
    ];

    /// Its name in reports and traces.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Get => "get",
            Self::List => "list",
            Self::ListStream => "list_stream",
            Self::Count => "count",
            Self::Cas => "cas",
            Self::TxnPut => "txn_put",
            Self::TxnRange => "txn_range",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Compact => "compact",
            Self::Grant => "grant",
            Self::Revoke => "revoke",
            Self::KeepAlive => "keep_alive",
            Self::Lock => "lock",
            Self::Unlock => "unlock",
            Self::Campaign => "campaign",
            Self::Resign => "resign",
        }
    }
}

/// A span of keys to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// First key.
    pub key: Bytes,
    /// End of the span, exclusive.
    pub end: Bytes,
    /// Most keys to return; zero is all.
    pub limit: i64,
    /// Answered from the member's own state.
    pub is_serializable: bool,
    /// Keys the answer must count, if known.
    pub expected_count: Option<i64>,
}

impl Span {
    /// All keys that begin with `prefix`.
    #[must_use]
    pub fn prefix(prefix: &str) -> Self {
        Self {
            key: Bytes::copy_from_slice(prefix.as_bytes()),
            end: end_of(prefix),
            ..Self::default()
        }
    }
}

/// The end of the span of keys that begin with `prefix`.
#[must_use]
pub fn end_of(prefix: &str) -> Bytes {
    let mut end = prefix.as_bytes().to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return Bytes::from(end);
        }
    }
    // Every key: etcd's sign for no end.
    Bytes::from_static(&[0])
}

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Writes a key with a value of so many bytes.
    Put {
        /// The key.
        key: Bytes,
        /// Length of the value.
        value_bytes: usize,
        /// The lease it hangs on, or zero.
        lease: i64,
    },
    /// Reads a key.
    Get {
        /// The key.
        key: Bytes,
        /// Answered from the member's own state.
        is_serializable: bool,
    },
    /// Reads a span in one answer.
    List(Span),
    /// Reads a span as a stream.
    ListStream(Span),
    /// Counts a span.
    Count(Span),
    /// Writes a key if its mod revision is as expected; zero means it must not exist. The branch
    /// not taken reads the key.
    Cas {
        /// The key.
        key: Bytes,
        /// The revision it should have.
        mod_revision: i64,
        /// Length of the value.
        value_bytes: usize,
        /// The lease it hangs on, or zero.
        lease: i64,
    },
    /// Writes keys in one transaction.
    TxnPut {
        /// The keys, all different.
        keys: Vec<Bytes>,
        /// Length of each value.
        value_bytes: usize,
    },
    /// Reads a span in a transaction.
    TxnRange(Span),
    /// Reads a key and writes it back if it did not change meanwhile.
    Update {
        /// The key.
        key: Bytes,
        /// Length of the value.
        value_bytes: usize,
    },
    /// Deletes a key.
    Delete {
        /// The key.
        key: Bytes,
    },
    /// Compacts to this many revisions behind the newest seen.
    Compact {
        /// Revisions kept.
        keep: i64,
    },
    /// Grants a lease.
    Grant {
        /// Seconds to live.
        ttl_secs: i64,
    },
    /// Revokes a lease.
    Revoke {
        /// The lease.
        lease: i64,
    },
    /// Renews a lease.
    KeepAlive {
        /// The lease.
        lease: i64,
    },
    /// Takes a lock; waits for it.
    Lock {
        /// The lock's name.
        name: Bytes,
        /// The lease that holds it.
        lease: i64,
    },
    /// Gives a lock back.
    Unlock {
        /// The key `Lock` answered.
        key: Bytes,
    },
    /// Campaigns to lead; waits for it.
    Campaign {
        /// The election's name.
        name: Bytes,
        /// The lease that holds it.
        lease: i64,
    },
    /// Gives a lead up.
    Resign {
        /// The election's name.
        name: Bytes,
        /// The key `Campaign` answered.
        key: Bytes,
        /// Its create revision.
        revision: i64,
        /// The lease that holds it.
        lease: i64,
    },
}

impl Op {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Put { .. } => Kind::Put,
            Self::Get { .. } => Kind::Get,
            Self::List(_) => Kind::List,
            Self::ListStream(_) => Kind::ListStream,
            Self::Count(_) => Kind::Count,
            Self::Cas { .. } => Kind::Cas,
            Self::TxnPut { .. } => Kind::TxnPut,
            Self::TxnRange(_) => Kind::TxnRange,
            Self::Update { .. } => Kind::Update,
            Self::Delete { .. } => Kind::Delete,
            Self::Compact { .. } => Kind::Compact,
            Self::Grant { .. } => Kind::Grant,
            Self::Revoke { .. } => Kind::Revoke,
            Self::KeepAlive { .. } => Kind::KeepAlive,
            Self::Lock { .. } => Kind::Lock,
            Self::Unlock { .. } => Kind::Unlock,
            Self::Campaign { .. } => Kind::Campaign,
            Self::Resign { .. } => Kind::Resign,
        }
    }
}

/// What a workload may learn from an answer; what the answer does not say is zero or empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The header's revision.
    pub revision: i64,
    /// Keys returned.
    pub keys: u64,
    /// The condition of a transaction held.
    pub succeeded: bool,
    /// Mod revision of the key read or written.
    pub mod_revision: i64,
    /// The lease granted.
    pub lease: i64,
    /// The key of a lock or a lead.
    pub key: Bytes,
    /// The key's create revision, for a lead.
    pub create_revision: i64,
    /// Bytes of the answer.
    pub bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_its_successor() {
        assert_eq!(end_of("/a/"), "/a0");
        assert_eq!(end_of(""), &b"\0"[..]);
    }
}
