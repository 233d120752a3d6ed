//! Every gRPC method that is served: its name on the wire, its shape, whether a learner answers it,
//! and who may call it. What is not in this table does not exist, so nothing is open by oversight.

use super::guard::Guard;

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
    ($($variant:ident = $service:literal $name:literal $streaming:ident $learner:ident
       $guard:ident;)*) => {
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

            /// Whether its answer may have as many keys as there are.
            pub const fn reads_keys(self) -> bool {
                matches!(self, Self::Range | Self::Txn)
            }

            /// What a learner does with it.
            pub const fn on_learner(self) -> OnLearner {
                match self { $(Self::$variant => OnLearner::$learner),* }
            }

            /// Who may call it while authentication is on.
            pub const fn guard(self) -> Guard {
                match self { $(Self::$variant => Guard::$guard),* }
            }
        }
    };
}

methods! {
    Range = "etcdserverpb.KV" "Range" Unary LocalReads Request;
    Put = "etcdserverpb.KV" "Put" Unary Refused Request;
    Txn = "etcdserverpb.KV" "Txn" Unary Refused Request;
    DeleteRange = "etcdserverpb.KV" "DeleteRange" Unary Refused Request;
    Compact = "etcdserverpb.KV" "Compact" Unary Refused Root;
    RangeStream = "etcdserverpb.KV" "RangeStream" Server Refused Request;
    Watch = "etcdserverpb.Watch" "Watch" Both Refused Request;
    LeaseGrant = "etcdserverpb.Lease" "LeaseGrant" Unary Refused User;
    LeaseRevoke = "etcdserverpb.Lease" "LeaseRevoke" Unary Refused Request;
    LeaseKeepAlive = "etcdserverpb.Lease" "LeaseKeepAlive" Both Refused Request;
    LeaseTimeToLive = "etcdserverpb.Lease" "LeaseTimeToLive" Unary Refused Request;
    LeaseLeases = "etcdserverpb.Lease" "LeaseLeases" Unary Refused Request;
    MemberAdd = "etcdserverpb.Cluster" "MemberAdd" Unary Refused Root;
    MemberRemove = "etcdserverpb.Cluster" "MemberRemove" Unary Refused Root;
    MemberUpdate = "etcdserverpb.Cluster" "MemberUpdate" Unary Refused Root;
    MemberList = "etcdserverpb.Cluster" "MemberList" Unary Refused UserHere;
    MemberPromote = "etcdserverpb.Cluster" "MemberPromote" Unary Refused Root;
    Alarm = "etcdserverpb.Maintenance" "Alarm" Unary Refused Request;
    Status = "etcdserverpb.Maintenance" "Status" Unary Served UserHere;
    Defragment = "etcdserverpb.Maintenance" "Defragment" Unary Refused RootHere;
    Hash = "etcdserverpb.Maintenance" "Hash" Unary Refused RootHere;
    HashKv = "etcdserverpb.Maintenance" "HashKV" Unary Refused RootHere;
    Snapshot = "etcdserverpb.Maintenance" "Snapshot" Server Served RootHere;
    MoveLeader = "etcdserverpb.Maintenance" "MoveLeader" Unary Refused Root;
    Downgrade = "etcdserverpb.Maintenance" "Downgrade" Unary Refused Root;
    AuthEnable = "etcdserverpb.Auth" "AuthEnable" Unary Refused Request;
    AuthDisable = "etcdserverpb.Auth" "AuthDisable" Unary Refused Request;
    AuthStatus = "etcdserverpb.Auth" "AuthStatus" Unary Refused Request;
    Authenticate = "etcdserverpb.Auth" "Authenticate" Unary Refused Open;
    UserAdd = "etcdserverpb.Auth" "UserAdd" Unary Refused Request;
    UserGet = "etcdserverpb.Auth" "UserGet" Unary Refused Request;
    UserList = "etcdserverpb.Auth" "UserList" Unary Refused Request;
    UserDelete = "etcdserverpb.Auth" "UserDelete" Unary Refused Request;
    UserChangePassword = "etcdserverpb.Auth" "UserChangePassword" Unary Refused Request;
    UserGrantRole = "etcdserverpb.Auth" "UserGrantRole" Unary Refused Request;
    UserRevokeRole = "etcdserverpb.Auth" "UserRevokeRole" Unary Refused Request;
    RoleAdd = "etcdserverpb.Auth" "RoleAdd" Unary Refused Request;
    RoleGet = "etcdserverpb.Auth" "RoleGet" Unary Refused Request;
    RoleList = "etcdserverpb.Auth" "RoleList" Unary Refused Request;
    RoleDelete = "etcdserverpb.Auth" "RoleDelete" Unary Refused Request;
    RoleGrantPermission = "etcdserverpb.Auth" "RoleGrantPermission" Unary Refused Request;
    RoleRevokePermission = "etcdserverpb.Auth" "RoleRevokePermission" Unary Refused Request;
    Lock = "v3lockpb.Lock" "Lock" Unary Refused Request;
    Unlock = "v3lockpb.Lock" "Unlock" Unary Refused Request;
    Campaign = "v3electionpb.Election" "Campaign" Unary Refused Request;
    Proclaim = "v3electionpb.Election" "Proclaim" Unary Refused Request;
    Leader = "v3electionpb.Election" "Leader" Unary Refused Request;
    Observe = "v3electionpb.Election" "Observe" Server Refused Request;
    Resign = "v3electionpb.Election" "Resign" Unary Refused Request;
    HealthCheck = "grpc.health.v1.Health" "Check" Unary Refused Open;
    HealthWatch = "grpc.health.v1.Health" "Watch" Server Refused Open;
    HealthList = "grpc.health.v1.Health" "List" Unary Refused Open;
    RangeList = "flotilla.internal.Admin" "RangeList" Unary Served RootHere;
    Split = "flotilla.internal.Admin" "Split" Unary Refused Root;
    Transfer = "flotilla.internal.Admin" "Transfer" Unary Refused Root;
    MoveReplica = "flotilla.internal.Admin" "MoveReplica" Unary Refused Root;
    WantReplicas = "flotilla.internal.Admin" "WantReplicas" Unary Refused Root;
    Drain = "flotilla.internal.Admin" "Drain" Unary Refused Root;
    Decisions = "flotilla.internal.Admin" "Decisions" Unary Served RootHere;
    Merge = "flotilla.internal.Admin" "Merge" Unary Refused Root;
    Hot = "flotilla.internal.Admin" "Hot" Unary Served RootHere;
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
