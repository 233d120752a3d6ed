//! Every error a client can be given, with etcd's code and exact text.

/// gRPC status codes that are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Code {
    /// The caller went away.
    Canceled = 1,
    /// Errors that etcd sends without a code of its own.
    Unknown = 2,
    /// The request is malformed.
    InvalidArgument = 3,
    /// The thing named does not exist.
    NotFound = 5,
    /// Not allowed.
    PermissionDenied = 7,
    /// A limit is reached.
    ResourceExhausted = 8,
    /// The state does not allow it.
    FailedPrecondition = 9,
    /// A revision outside the readable ones.
    OutOfRange = 11,
    /// Not served.
    Unimplemented = 12,
    /// Cannot be served at the moment.
    Unavailable = 14,
    /// Data is damaged.
    DataLoss = 15,
    /// No valid credentials.
    Unauthenticated = 16,
}

macro_rules! errors {
    ($($(#[$doc:meta])* $name:ident = $code:ident, $text:literal;)*) => {
        /// What a client is told.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
        #[repr(u16)]
        pub enum Error {
            $($(#[$doc])* #[error($text)] $name,)*
        }

        impl Error {
            /// Every error, in a fixed order.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The gRPC code.
            pub const fn code(self) -> Code {
                match self { $(Self::$name => Code::$code),* }
            }

            /// The text clients match on.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }
        }
    };
}

errors! {
    /// A key of length zero.
    EmptyKey = InvalidArgument, "etcdserver: key is not provided";
    /// `ignore_value` or `ignore_lease` on a missing key, or a Txn operation without content.
    KeyNotFound = InvalidArgument, "etcdserver: key not found";
    /// `ignore_value` with a value.
    ValueProvided = InvalidArgument, "etcdserver: value is provided";
    /// `ignore_lease` with a lease.
    LeaseProvided = InvalidArgument, "etcdserver: lease is provided";
    /// A Txn with too many compares or operations.
    TooManyOps = InvalidArgument, "etcdserver: too many operations in txn request";
    /// A Txn that changes a key twice.
    DuplicateKey = InvalidArgument, "etcdserver: duplicate key given in txn request";
    /// The metadata `client-api-version` is not UTF-8.
    InvalidClientApiVersion = InvalidArgument, "etcdserver: invalid client api version";
    /// An unknown sort order or target.
    InvalidSortOption = InvalidArgument, "etcdserver: invalid sort option";
    /// The revision is below the compact revision.
    Compacted = OutOfRange, "etcdserver: mvcc: required revision has been compacted";
    /// The revision is above the current one.
    FutureRevision = OutOfRange, "etcdserver: mvcc: required revision is a future revision";
    /// The space quota is exceeded.
    NoSpace = ResourceExhausted, "etcdserver: mvcc: database space exceeded";
    /// The lease does not exist.
    LeaseNotFound = NotFound, "etcdserver: requested lease not found";
    /// The lease id is taken.
    LeaseExist = FailedPrecondition, "etcdserver: lease already exists";
    /// The TTL is above the maximum.
    LeaseTtlTooLarge = OutOfRange, "etcdserver: too large lease TTL";
    /// A watch stream ended by its client.
    WatchCanceled = Canceled, "etcdserver: watch canceled";
    /// The member id is taken.
    MemberExist = FailedPrecondition, "etcdserver: member ID already exist";
    /// Another member has this peer URL.
    PeerUrlExist = FailedPrecondition, "etcdserver: Peer URLs already exists";
    /// A change that would leave fewer started voters than a quorum.
    MemberNotEnoughStarted = Unknown,
        "etcdserver: re-configuration failed due to not enough started members";
    /// Peer URLs that cannot be parsed.
    MemberBadUrls = InvalidArgument, "etcdserver: given member URLs are invalid";
    /// No such member, or it was removed.
    MemberNotFound = NotFound, "etcdserver: member not found";
    /// Only learners can be promoted.
    MemberNotLearner = FailedPrecondition, "etcdserver: can only promote a learner member";
    /// The learner is behind.
    LearnerNotReady = FailedPrecondition,
        "etcdserver: can only promote a learner member which is in sync with leader";
    /// The learner limit is reached.
    TooManyLearners = FailedPrecondition, "etcdserver: too many learner members in cluster";
    /// The proposal is larger than the limit.
    RequestTooLarge = InvalidArgument, "etcdserver: request is too large";
    /// The backlog is full.
    TooManyRequests = Unknown, "etcdserver: too many requests";
    /// A list finds no room among the answers under way.
    AnswersTooLarge = ResourceExhausted,
        "flotilla: too many bytes of answers are under way: ask for less at a time, or later";
    /// No leader is known.
    NoLeader = Unavailable, "etcdserver: no leader";
    /// Only the leader can do this.
    NotLeader = FailedPrecondition, "etcdserver: not leader";
    /// The leader changed while the request waited.
    LeaderChanged = Unavailable, "etcdserver: leader changed";
    /// The node is stopping.
    Stopped = Unavailable, "etcdserver: server stopped";
    /// Not finished in time; the outcome is unknown.
    Timeout = Unavailable, "etcdserver: request timed out";
    /// Not finished in time, and the leader was new.
    TimeoutDueToLeaderFail = Unavailable,
        "etcdserver: request timed out, possibly due to previous leader failure";
    /// Not finished in time, and the connection to the leader or the quorum was lost.
    TimeoutDueToConnectionLost = Unavailable,
        "etcdserver: request timed out, possibly due to connection lost";
    /// The local state did not catch up in time.
    TimeoutWaitAppliedIndex = Unavailable,
        "etcdserver: request timed out, waiting for the applied index took too long";
    /// Leadership was not moved in time.
    TimeoutLeaderTransfer = Unknown,
        "etcdserver: request timed out, leader transfer took too long";
    /// Too few members are connected for the change.
    Unhealthy = Unavailable, "etcdserver: unhealthy cluster";
    /// A CORRUPT alarm is active.
    Corrupt = DataLoss, "etcdserver: corrupt cluster";
    /// The member is a learner.
    NotSupportedForLearner = FailedPrecondition, "etcdserver: rpc not supported for learner";
    /// The target of a leader transfer is no voter.
    BadLeaderTransferee = FailedPrecondition, "etcdserver: bad leader transferee";
    /// A range that is named does not exist, or was merged away.
    RangeNotFound = NotFound, "flotilla: range not found";
    /// Ranges that are to be merged do not follow each other, or one of them is range 0.
    NotNeighbours = FailedPrecondition, "flotilla: only neighbouring ranges can be merged";
    /// Ranges that are to be merged are held by different members.
    ReplicasDiffer = FailedPrecondition,
        "flotilla: ranges can be merged only where the same members hold both";
    /// Who is to hold a range was changed by somebody else meanwhile, or a member has gone.
    ReplicasChanged = FailedPrecondition, "flotilla: the replicas of the range were changed meanwhile";
    /// What is asked for is read from one member's store, and this one does not hold all ranges.
    RangesElsewhere = Unavailable,
        "flotilla: this member does not hold all ranges: ask one that does";
    /// An earlier change of who holds a range is not carried out yet.
    ReplicasChanging = Unavailable, "flotilla: the replicas of the range are being changed";
    /// A node that is to hold a range holds it already, or has no vote; or nobody would be left.
    ReplicaNotPossible = FailedPrecondition,
        "flotilla: the range cannot be held like that";
    /// A member that is to be removed votes in ranges that would have no quorum without it.
    RangesNeedMember = FailedPrecondition,
        "flotilla: ranges need the member for their quorum: have others hold them first";
    /// A merge needs every replica.
    ReplicaBehind = Unavailable,
        "flotilla: a range cannot be merged while a replica of it is down or behind";
    /// The downgrade target is no version.
    WrongDowngradeVersionFormat = InvalidArgument,
        "etcdserver: wrong downgrade target version format";
    /// The downgrade target is not the previous minor version.
    InvalidDowngradeTargetVersion = InvalidArgument,
        "etcdserver: invalid downgrade target version";
    /// The cluster version is not known yet.
    ClusterVersionUnavailable = FailedPrecondition,
        "etcdserver: cluster version not found during downgrade";
    /// The caller gave up.
    RequestCanceled = Canceled, "etcdserver: request canceled";
    /// An action outside the enum.
    UnknownMethod = Unknown, "etcdserver: unknown method";
    /// A keep-alive that the leader cannot confirm.
    NotPrimaryLessor = Unknown, "not a primary lessor";
    /// RangeStream with an order other than ascending by key.
    RangeStreamSort = Unimplemented, "RangeStream does not support custom sort orders";
    /// RangeStream with a filter by revision.
    RangeStreamFilter = Unimplemented, "RangeStream does not support revision filters";
    /// Authentication is off.
    AuthNotEnabled = FailedPrecondition, "etcdserver: authentication is not enabled";
    /// Authentication cannot be turned on without the user root.
    RootUserNotExist = FailedPrecondition, "etcdserver: root user does not exist";
    /// Authentication cannot be turned on unless root is root.
    RootRoleNotExist = FailedPrecondition, "etcdserver: root user does not have root role";
    /// The user's name is taken.
    UserAlreadyExist = FailedPrecondition, "etcdserver: user name already exists";
    /// A user without a name; or authentication is on, and the client has not said who it is.
    UserEmpty = InvalidArgument, "etcdserver: user name is empty";
    /// No such user.
    UserNotFound = FailedPrecondition, "etcdserver: user name not found";
    /// The role's name is taken.
    RoleAlreadyExist = FailedPrecondition, "etcdserver: role name already exists";
    /// No such role.
    RoleNotFound = FailedPrecondition, "etcdserver: role name not found";
    /// A role without a name.
    RoleEmpty = InvalidArgument, "etcdserver: role name is empty";
    /// No such user, or another password.
    AuthFailed = InvalidArgument,
        "etcdserver: authentication failed, invalid user ID or password";
    /// A permission is to be granted, and there is none in the request.
    PermissionNotGiven = InvalidArgument, "etcdserver: permission not given";
    /// The user may not do this.
    PermissionDenied = PermissionDenied, "etcdserver: permission denied";
    /// The user does not have the role that is to be taken away.
    RoleNotGranted = FailedPrecondition, "etcdserver: role is not granted to the user";
    /// The role does not have the permission that is to be taken away.
    PermissionNotGranted = FailedPrecondition,
        "etcdserver: permission is not granted to the role";
    /// A token that is not known, has ended, or was not signed as it should be.
    InvalidAuthToken = Unauthenticated, "etcdserver: invalid auth token";
    /// Root is to lose what makes it root while authentication is on, or a permission has no key.
    InvalidAuthMgmt = InvalidArgument, "etcdserver: invalid auth management";
    /// Users, roles or permissions have changed since a token was made or a permission was checked.
    AuthOldRevision = InvalidArgument, "etcdserver: revision of auth store is old";
    /// A password for a user who has none.
    NoPasswordUser = Unknown,
        "auth: authentication failed, password was given for no password user";
    /// Tokens are signed elsewhere.
    TokenVerifyOnly = Unknown, "auth: token signing attempted with verify-only key";
    /// A password that bcrypt would cut off.
    PasswordTooLong = Unknown, "bcrypt: password length exceeds 72 bytes";
}
