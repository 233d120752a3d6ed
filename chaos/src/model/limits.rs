//! The numbers that etcd's checks depend on. Nothing else lives here.

/// Limits of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most operations in one list of a transaction (`--max-txn-ops`).
    pub txn_ops_max: usize,
    /// Shortest TTL a lease can have, in seconds: one and a half election timeouts, rounded up.
    pub lease_ttl_min_seconds: i64,
    /// Longest TTL a lease can ask for, in seconds.
    pub lease_ttl_max_seconds: i64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { txn_ops_max: 128, lease_ttl_min_seconds: 2, lease_ttl_max_seconds: 9_000_000_000 }
    }
}
