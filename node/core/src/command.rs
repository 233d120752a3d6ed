//! What a client asks of the leader, and what it is answered.
//!
//! Reads are not commands: they take a ticket and are evaluated on any node.

use bytes::Bytes;
use prost::Message;

use crate::Error;
use crate::proto::etcdserverpb as pb;
use crate::proto::internal;

/// Names one request in the whole cluster: `origin` is drawn once per start of a node and is never
/// zero, `n` counts that start's requests from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId {
    /// The start of a node through which the request came.
    pub origin: u64,
    /// Its number there.
    pub n: u64,
}

macro_rules! commands {
    ($($(#[$doc:meta])* $name:ident = $kind:literal, $request:ty, $answer:ty;)*) => {
        /// A request that only the leader can carry out.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Command { $($(#[$doc])* $name($request),)* }

        /// The answer to a `Command`, of the same name. Headers hold the revision only; the node
        /// that talks to the client fills in the rest.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Answer { $($(#[$doc])* $name($answer),)* }

        impl Command {
            /// Its number between nodes.
            pub const fn kind(&self) -> u32 {
                match self { $(Self::$name(_) => $kind),* }
            }

            /// Encoded for a `Forward`.
            pub fn encode(&self) -> Bytes {
                match self { $(Self::$name(request) => request.encode_to_vec().into()),* }
            }

            /// From a `Forward`; `None` when it cannot be understood.
            pub fn decode(kind: u32, body: Bytes) -> Option<Self> {
                match kind {
                    $($kind => <$request>::decode(body).ok().map(Self::$name),)*
                    _ => None,
                }
            }
        }

        impl Answer {
            /// Its number between nodes.
            pub const fn kind(&self) -> u32 {
                match self { $(Self::$name(_) => $kind),* }
            }

            /// Encoded for a `ForwardAnswer`.
            pub fn encode(&self) -> Bytes {
                match self { $(Self::$name(answer) => answer.encode_to_vec().into()),* }
            }

            /// From a `ForwardAnswer`; `None` when it cannot be understood.
            pub fn decode(kind: u32, body: Bytes) -> Option<Self> {
                match kind {
                    $($kind => <$answer>::decode(body).ok().map(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

commands! {
    /// KV.Put.
    Put = 1, pb::PutRequest, pb::PutResponse;
    /// KV.DeleteRange.
    DeleteRange = 2, pb::DeleteRangeRequest, pb::DeleteRangeResponse;
    /// KV.Txn that may write.
    Txn = 3, pb::TxnRequest, pb::TxnResponse;
    /// KV.Compact.
    Compact = 4, pb::CompactionRequest, pb::CompactionResponse;
    /// Lease.LeaseGrant, with its id and effective TTL already chosen.
    LeaseGrant = 5, pb::LeaseGrantRequest, pb::LeaseGrantResponse;
    /// Lease.LeaseRevoke.
    LeaseRevoke = 6, pb::LeaseRevokeRequest, pb::LeaseRevokeResponse;
    /// One exchange of Lease.LeaseKeepAlive.
    LeaseKeepAlive = 7, pb::LeaseKeepAliveRequest, pb::LeaseKeepAliveResponse;
    /// Lease.LeaseTimeToLive without its keys.
    LeaseTimeToLive = 8, pb::LeaseTimeToLiveRequest, pb::LeaseTimeToLiveResponse;
    /// Cluster.MemberAdd; the id is chosen by the node that talks to the client.
    MemberAdd = 9, internal::Member, pb::MemberAddResponse;
    /// Cluster.MemberRemove.
    MemberRemove = 10, pb::MemberRemoveRequest, pb::MemberRemoveResponse;
    /// Cluster.MemberUpdate.
    MemberUpdate = 11, pb::MemberUpdateRequest, pb::MemberUpdateResponse;
    /// Cluster.MemberPromote.
    MemberPromote = 12, pb::MemberPromoteRequest, pb::MemberPromoteResponse;
    /// A node announces its name and client URLs.
    MemberAttributes = 13, internal::MemberAttributes, pb::MemberUpdateResponse;
    /// Maintenance.Alarm that changes an alarm.
    Alarm = 14, pb::AlarmRequest, pb::AlarmResponse;
    /// Maintenance.MoveLeader; must be sent to the leader itself.
    MoveLeader = 15, pb::MoveLeaderRequest, pb::MoveLeaderResponse;
    /// A range is cut in two.
    Split = 16, internal::SplitRequest, internal::SplitAnswer;
    /// A range takes over the keys of the next one.
    Merge = 17, internal::MergeRequest, internal::MergeAnswer;
    /// A member is to be emptied, or no longer.
    MemberDrain = 18, internal::MemberDrain, internal::MemberDrainAnswer;
    /// Placement has decided, and is about to act.
    Decide = 19, internal::Decision, internal::DecisionAnswer;
    /// What became of that.
    Conclude = 20, internal::DecisionOutcome, internal::DecisionOutcomeAnswer;
    /// A node is to hold a range, or no longer.
    Replicas = 21, internal::ReplicasRequest, internal::ReplicasAnswer;
    /// How many nodes are to hold each range.
    ReplicasWanted = 22, internal::ReplicasWanted, internal::ReplicasWantedAnswer;
    /// The RPCs of Auth that change something.
    AuthChange = 23, internal::AuthChange, internal::AuthChangeAnswer;
    /// Auth.Authenticate, after the password was found right.
    AuthToken = 24, internal::AuthToken, internal::AuthTokenAnswer;
    /// A member gets or loses its vote in the spine.
    SpineVote = 25, internal::SpineVote, internal::SpineVoteAnswer;
}

impl Answer {
    /// The revision in its header; 0 if it has none.
    pub fn revision(&self) -> i64 {
        let header = match self {
            Self::Put(answer) => &answer.header,
            Self::DeleteRange(answer) => &answer.header,
            Self::Txn(answer) => &answer.header,
            Self::Compact(answer) => &answer.header,
            Self::LeaseGrant(answer) => &answer.header,
            Self::LeaseRevoke(answer) => &answer.header,
            _ => return 0,
        };
        header.as_ref().map_or(0, |header| header.revision)
    }
}

/// What became of a request.
pub type Outcome = Result<Answer, Error>;
