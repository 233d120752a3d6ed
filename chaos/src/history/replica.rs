//! One answer of HashKV by one replica. Owns nothing else.

/// The hash that one replica computed over its own store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaHash {
    /// Who computed it, as it should be printed.
    pub replica: String,
    /// The revision that was hashed.
    pub revision: i64,
    /// The compact revision of the replica at that time; -1 if it never compacted.
    pub compact_revision: i64,
    /// The hash.
    pub hash: u32,
}
