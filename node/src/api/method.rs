//! Every gRPC method that is served: its name on the wire, its shape, and whether a learner
//! answers it. What is not in this table does not exist.

/// Which sides of a call send more than one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Streaming {
    /// Neither.
    Unary,
    /// The node.
    Server,
    /// Both.
    Both,
}

impl Streaming {
    /// As the label `grpc_type` of etcd's metrics has it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Unary => "unary",
            Self::Server => "server_stream",
            Self::Both => "bidi_stream",
        }
    }
}

/// What a learner does with a method. A learner has the data but no say, so etcd lets it answer
/// only what cannot mislead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnLearner {
    /// Refused.
    Refused,
    /// Served, if the request asks for the local state.
    LocalReads,
    /// Served.
    Served,
}

macro_rules! methods {
    ($($variant:ident = $service:literal $name:literal $streaming:ident $learner:ident;)*) => {
        /// A method of the API.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(usize)]
        pub enum Method {
            $(
                #[doc = concat!($service, "/", $name)]
                $variant,
            )*
        }

        impl Method {
            /// Every method.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// From the path of a request.
            pub fn find(path: &str) -> Option<Self> {
                match path {
                    $(concat!("/", $service, "/", $name) => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// The full name of its service.
            pub const fn service(self) -> &'static str {
                match self { $(Self::$variant => $service),* }
            }

            /// Its name within the service.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// Its shape.
            pub const fn streaming(self) -> Streaming {
                match self { $(Self::$variant => Streaming::$streaming),* }
            }

            /// What a learner does with it.
            pub const fn on_learner(self) -> OnLearner {
                match self { $(Self::$variant => OnLearner::$learner),* }
            }
        }
    };
}

methods! {
    Range = "etcdserverpb.KV" "Range" Unary LocalReads;
    Put = "etcdserverpb.KV" "Put" Unary Refused;
    Txn = "etcdserverpb.KV" "Txn" Unary Refused;
    DeleteRange = "etcdserverpb.KV" "DeleteRange" Unary Refused;
    Compact = "etcdserverpb.KV" "Compact" Unary Refused;
    RangeStream = "etcdserverpb.KV" "RangeStream" Server Refused;
    Watch = "etcdserverpb.Watch" "Watch" Both Refused;
    LeaseGrant = "etcdserverpb.Lease" "LeaseGrant" Unary Refused;
    LeaseRevoke = "etcdserverpb.Lease" "LeaseRevoke" Unary Refused;
    LeaseKeepAlive = "etcdserverpb.Lease" "LeaseKeepAlive" Both Refused;
    LeaseTimeToLive = "etcdserverpb.Lease" "LeaseTimeToLive" Unary Refused;
    LeaseLeases = "etcdserverpb.Lease" "LeaseLeases" Unary Refused;
    MemberAdd = "etcdserverpb.Cluster" "MemberAdd" Unary Refused;
    MemberRemove = "etcdserverpb.Cluster" "MemberRemove" Unary Refused;
    MemberUpdate = "etcdserverpb.Cluster" "MemberUpdate" Unary Refused;
    MemberList = "etcdserverpb.Cluster" "MemberList" Unary Refused;
    MemberPromote = "etcdserverpb.Cluster" "MemberPromote" Unary Refused;
    Alarm = "etcdserverpb.Maintenance" "Alarm" Unary Refused;
    Status = "etcdserverpb.Maintenance" "Status" Unary Served;
    Defragment = "etcdserverpb.Maintenance" "Defragment" Unary Refused;
    Hash = "etcdserverpb.Maintenance" "Hash" Unary Refused;
    HashKv = "etcdserverpb.Maintenance" "HashKV" Unary Refused;
    Snapshot = "etcdserverpb.Maintenance" "Snapshot" Server Served;
    MoveLeader = "etcdserverpb.Maintenance" "MoveLeader" Unary Refused;
    Downgrade = "etcdserverpb.Maintenance" "Downgrade" Unary Refused;
    Lock = "v3lockpb.Lock" "Lock" Unary Refused;
    Unlock = "v3lockpb.Lock" "Unlock" Unary Refused;
    Campaign = "v3electionpb.Election" "Campaign" Unary Refused;
    Proclaim = "v3electionpb.Election" "Proclaim" Unary Refused;
    Leader = "v3electionpb.Election" "Leader" Unary Refused;
    Observe = "v3electionpb.Election" "Observe" Server Refused;
    Resign = "v3electionpb.Election" "Resign" Unary Refused;
    HealthCheck = "grpc.health.v1.Health" "Check" Unary Refused;
    HealthWatch = "grpc.health.v1.Health" "Watch" Server Refused;
    HealthList = "grpc.health.v1.Health" "List" Unary Refused;
    RangeList = "flotilla.internal.Admin" "RangeList" Unary Served;
    Split = "flotilla.internal.Admin" "Split" Unary Refused;
    Transfer = "flotilla.internal.Admin" "Transfer" Unary Refused;
    MoveReplica = "flotilla.internal.Admin" "MoveReplica" Unary Refused;
    WantReplicas = "flotilla.internal.Admin" "WantReplicas" Unary Refused;
    Drain = "flotilla.internal.Admin" "Drain" Unary Refused;
    Decisions = "flotilla.internal.Admin" "Decisions" Unary Served;
    Merge = "flotilla.internal.Admin" "Merge" Unary Refused;
}

/// What a client is told of a path that names no method, in the words of grpc-go.
pub(super) fn unknown(path: &str) -> String {
    let Some((service, name)) = path.strip_prefix('/').unwrap_or(path).rsplit_once('/') else {
        return format!("malformed method name: {path:?}");
    };
    if Method::ALL.iter().any(|method| method.service() == service) {
        format!("unknown method {name} for service {service}")
    } else {
        format!("unknown service {service}")
    }
}
