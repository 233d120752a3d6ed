//! The calls of etcd's API that the harness makes.

/// One gRPC method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// KV.Range
    Range,
    /// KV.RangeStream, since etcd 3.7
    RangeStream,
    /// KV.Put
    Put,
    /// KV.DeleteRange
    DeleteRange,
    /// KV.Txn
    Txn,
    /// KV.Compact
    Compact,
    /// Lease.LeaseGrant
    LeaseGrant,
    /// Lease.LeaseRevoke
    LeaseRevoke,
    /// Lease.LeaseKeepAlive
    LeaseKeepAlive,
    /// Watch.Watch
    Watch,
    /// Lock.Lock
    Lock,
    /// Lock.Unlock
    Unlock,
    /// Election.Campaign
    Campaign,
    /// Election.Resign
    Resign,
    /// Maintenance.Status
    Status,
    /// Maintenance.HashKV
    HashKv,
    /// Maintenance.Defragment
    Defragment,
    /// Auth.Authenticate
    Authenticate,
}

impl Method {
    /// How many there are.
    pub const COUNT: usize = 18;

    /// The value of `:path`.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Self::Range => "/etcdserverpb.KV/Range",
            Self::RangeStream => "/etcdserverpb.KV/RangeStream",
            Self::Put => "/etcdserverpb.KV/Put",
            Self::DeleteRange => "/etcdserverpb.KV/DeleteRange",
            Self::Txn => "/etcdserverpb.KV/Txn",
            Self::Compact => "/etcdserverpb.KV/Compact",
            Self::LeaseGrant => "/etcdserverpb.Lease/LeaseGrant",
            Self::LeaseRevoke => "/etcdserverpb.Lease/LeaseRevoke",
            Self::LeaseKeepAlive => "/etcdserverpb.Lease/LeaseKeepAlive",
            Self::Watch => "/etcdserverpb.Watch/Watch",
            Self::Lock => "/v3lockpb.Lock/Lock",
            Self::Unlock => "/v3lockpb.Lock/Unlock",
            Self::Campaign => "/v3electionpb.Election/Campaign",
            Self::Resign => "/v3electionpb.Election/Resign",
            Self::Status => "/etcdserverpb.Maintenance/Status",
            Self::HashKv => "/etcdserverpb.Maintenance/HashKV",
            Self::Defragment => "/etcdserverpb.Maintenance/Defragment",
            Self::Authenticate => "/etcdserverpb.Auth/Authenticate",
        }
    }
}
