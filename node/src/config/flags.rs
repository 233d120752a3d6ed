//! The one table of every flag: its name, kind, default and what this node does with it. A flag
//! is added by adding a row here and reading it in `resolve`. Owns no values and parses nothing.

use super::value::Kind::{self, *};

/// One setting: a flag, its environment variable and its key in a configuration file.
#[derive(Debug)]
pub(super) struct Flag {
    /// Without dashes. For [`Category::FileOnly`] the path of the key in the file.
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// In the notation of the command line.
    pub(super) default: &'static str,
    pub(super) category: Category,
    pub(super) state: State,
    /// One line for the list of flags.
    pub(super) meaning: &'static str,
}

/// Where etcd's documentation files a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Category {
    Member,
    Clustering,
    Security,
    Auth,
    Monitoring,
    Logging,
    Tracing,
    Tuning,
    FeatureGates,
    Unsafe,
    Other,
    /// Flags that etcd does not have.
    Flotilla,
    /// Flags of long ago that etcd accepts and drops.
    Ignored,
    /// Keys of a configuration file without a flag of the same meaning.
    FileOnly,
}

/// What this node does with a flag that was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Used,
    /// Accepted and reported once; the text says why it changes nothing.
    NoMeaning(&'static str),
    /// Start is refused unless the value is the default: the user would get less than asked for.
    /// The text says what is missing.
    NotServed(&'static str),
    /// Accepted with any value or none, as etcd does.
    Ignored,
}

impl Flag {
    /// `ETCD_` and the name in upper case with underscores.
    pub(super) fn variable(&self) -> String {
        format!("ETCD_{}", self.name.to_ascii_uppercase().replace('-', "_"))
    }

    /// Whether the flag may stand on the command line.
    pub(super) fn has_flag(&self) -> bool {
        self.category != Category::FileOnly
    }
}

#[cfg(test)]
impl Category {
    /// The word etcd's tables use.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Category::Member => "member",
            Category::Clustering => "clustering",
            Category::Security => "security",
            Category::Auth => "auth",
            Category::Monitoring => "profiling-monitoring",
            Category::Logging => "logging",
            Category::Tracing => "tracing",
            Category::Tuning => "tuning",
            Category::FeatureGates => "feature-gates",
            Category::Unsafe => "unsafe",
            Category::Other => "other",
            Category::Flotilla => "flotilla",
            Category::Ignored => "ignored",
            Category::FileOnly => "config-file-key",
        }
    }
}

/// The flag of a name without dashes.
pub(super) fn find(name: &str) -> Option<&'static Flag> {
    FLAGS.iter().find(|flag| flag.name == name)
}

const NO_DISCOVERY_SECTION: &str =
    "use the keys that are named for flags, such as discovery-endpoints and discovery-token";
const NO_BBOLT: &str = "the store is not bbolt";
const NO_ROTATION: &str = "log files are not rotated by the process; use logrotate";

pub(super) static FLAGS: &[Flag] = &[
    member("name", Text, "default", "name of this node; its key in --initial-cluster"),
    member("data-dir", Text, "", "where this node keeps its state; empty means <name>.etcd"),
    member("wal-dir", Text, "", "directory of the log; empty means <data-dir>/member/wal"),
    member("snapshot-count", Uint, "10000", "applied entries after which the log is truncated"),
    member("heartbeat-interval", Uint, "100", "milliseconds between heartbeats of a leader"),
    member("election-timeout", Uint, "1000", "milliseconds without a leader before campaigning"),
    member(
        "initial-election-tick-advance",
        Bool,
        "true",
        "skip most of the first wait for a leader after a start",
    ),
    member("listen-peer-urls", Urls, "http://localhost:2380", "addresses for other nodes"),
    member("listen-client-urls", Urls, "http://localhost:2379", "addresses for clients"),
    member(
        "listen-client-http-urls",
        Urls,
        "",
        "addresses for plain HTTP only; when set, the client addresses serve gRPC only",
    ),
    member("listen-metrics-urls", Urls, "", "more addresses for /metrics and the health checks"),
    no_meaning(Category::Member, "max-snapshots", Uint, "5", "no snapshot files are kept"),
    no_meaning(Category::Member, "max-wals", Uint, "5", "log segments are deleted once not needed"),
    no_meaning(Category::Member, "memory-mlock", Bool, "false", "memory is not locked"),
    member(
        "quota-backend-bytes",
        Int,
        "0",
        "size of the store that raises the NOSPACE alarm; 0 means 2 GiB, negative means none",
    ),
    no_meaning(Category::Member, "backend-bbolt-freelist-type", Text, "", NO_BBOLT),
    no_meaning(Category::Member, "backend-batch-interval", Duration, "0s", NO_BBOLT),
    no_meaning(Category::Member, "backend-batch-limit", Int, "0", NO_BBOLT),
    member("max-txn-ops", Uint, "128", "operations allowed in each list of a transaction"),
    member("max-request-bytes", Uint, "1572864", "size of the largest write in bytes"),
    member("max-concurrent-streams", Uint32, "4294967295", "HTTP/2 streams per connection"),
    member("grpc-keepalive-min-time", Duration, "5s", "shortest allowed gap between client pings"),
    member("grpc-keepalive-interval", Duration, "2h0m0s", "time between server pings; 0 for none"),
    member("grpc-keepalive-timeout", Duration, "20s", "wait for the answer to a server ping"),
    member("socket-reuse-port", Bool, "false", "set SO_REUSEPORT on listeners"),
    member("socket-reuse-address", Bool, "false", "set SO_REUSEADDR on listeners"),
    member("enable-grpc-gateway", Bool, "true", "serve JSON under /v3/ beside gRPC"),
    no_meaning(
        Category::Member,
        "raft-read-timeout",
        Duration,
        "5s",
        "peer connections are watched by heartbeats instead",
    ),
    no_meaning(
        Category::Member,
        "raft-write-timeout",
        Duration,
        "5s",
        "peer connections are watched by heartbeats instead",
    ),
    used(
        Category::FeatureGates,
        "feature-gates",
        Gates,
        "",
        "InitialCorruptCheck compares a node with the others before it serves, and not at all if false; \
         CompactHashCheck=false: not after compactions; no other changes anything",
    ),
    clustering(
        "initial-advertise-peer-urls",
        Urls,
        "http://localhost:2380",
        "addresses under which the first members know this node",
    ),
    clustering(
        "advertise-client-urls",
        Urls,
        "http://localhost:2379",
        "addresses published to clients; needed when --listen-client-urls is given",
    ),
    clustering(
        "initial-cluster",
        Text,
        "default=http://localhost:2380",
        "the first members, as name=address,...; follows from the name and the peer addresses",
    ),
    clustering("initial-cluster-state", STATES, "new", "found a cluster, or join an existing one"),
    clustering("initial-cluster-token", Text, "etcd-cluster", "salt for the ids of the cluster"),
    clustering("discovery-token", Text, "", "name of the new cluster at --discovery-endpoints"),
    clustering("discovery-endpoints", Set, "", "a running cluster where the first members meet"),
    clustering("discovery-dial-timeout", Duration, "2s", "for a connection to that cluster"),
    clustering("discovery-request-timeout", Duration, "5s", "for each question to that cluster"),
    clustering("discovery-keepalive-time", Duration, "2s", "between pings to that cluster"),
    clustering("discovery-keepalive-timeout", Duration, "6s", "for the answer to such a ping"),
    no_meaning(
        Category::Clustering,
        "discovery-insecure-transport",
        Bool,
        "true",
        "the scheme of an endpoint says whether it speaks TLS",
    ),
    not_served(
        Category::Clustering,
        "discovery-insecure-skip-tls-verify",
        Bool,
        "false",
        "the certificate of an endpoint with TLS is always verified; use --discovery-cacert",
    ),
    clustering("discovery-cert", Text, "", "certificate that is shown to that cluster"),
    clustering("discovery-key", Text, "", "its key"),
    clustering("discovery-cacert", Text, "", "who may sign the certificates of that cluster"),
    clustering("discovery-user", Text, "", "user of that cluster, or user:password"),
    clustering("discovery-password", Text, "", "that user's password"),
    no_meaning(
        Category::Clustering,
        "discovery-fallback",
        Choice(&["exit", "proxy"]),
        "exit",
        "a node that finds no members ends",
    ),
    clustering("discovery-srv", Text, "", "domain whose SRV records name the first members"),
    clustering("discovery-srv-name", Text, "", "suffix of the name of the service in them"),
    clustering("strict-reconfig-check", Bool, "true", "refuse changes that would break quorum"),
    clustering("pre-vote", Bool, "true", "ask before campaigning, so a lost node disturbs nobody"),
    clustering(
        "auto-compaction-retention",
        Text,
        "0",
        "history kept by compaction: a duration, hours, or a number of revisions; 0 for all",
    ),
    clustering("auto-compaction-mode", Text, "periodic", "periodic or revision"),
    no_meaning(
        Category::Clustering,
        "v2-deprecation",
        Choice(&["write-only", "write-only-skip-check", "write-only-drop-data", "gone"]),
        "write-only",
        "there is no v2 store",
    ),
    clustering("max-learners", Int, "1", "learners allowed in the cluster at once"),
    security(
        "cert-file",
        Text,
        "",
        "certificate shown to clients, in PEM, with those that lead to its signer",
    ),
    security("key-file", Text, "", "private key of the certificate shown to clients, in PEM"),
    security(
        "client-cert-file",
        Text,
        "",
        "certificate for calls of this node to itself, of which there are none",
    ),
    security("client-key-file", Text, "", "private key of --client-cert-file"),
    security(
        "client-cert-auth",
        Bool,
        "false",
        "clients must show a certificate; its common name is their user",
    ),
    security("client-crl-file", Text, "", "certificates of clients that are revoked"),
    security(
        "client-cert-allowed-hostname",
        List,
        "",
        "hosts, one of which a client's certificate must be good for",
    ),
    security(
        "trusted-ca-file",
        Text,
        "",
        "who may sign the certificates of clients, which must show one when this is given",
    ),
    security(
        "auto-tls",
        Bool,
        "false",
        "show clients a self-signed certificate, generated in <data-dir>/fixtures/client",
    ),
    security(
        "peer-cert-file",
        Text,
        "",
        "certificate shown to peers, in PEM, with those that lead to its signer",
    ),
    security("peer-key-file", Text, "", "private key of the certificate shown to peers, in PEM"),
    security(
        "peer-client-cert-file",
        Text,
        "",
        "certificate shown to peers that this node connects to, if it is another",
    ),
    security("peer-client-key-file", Text, "", "private key of --peer-client-cert-file"),
    security("peer-client-cert-auth", Bool, "false", "peers that connect must show a certificate"),
    security("peer-trusted-ca-file", Text, "", "who may sign the certificates of peers"),
    security(
        "peer-cert-allowed-cn",
        List,
        "",
        "common names, one of which a peer's certificate must have",
    ),
    security(
        "peer-cert-allowed-hostname",
        List,
        "",
        "hosts, one of which a peer's certificate must be good for",
    ),
    security(
        "peer-auto-tls",
        Bool,
        "false",
        "self-signed certificates between peers: encrypted, but nobody is checked",
    ),
    security("peer-crl-file", Text, "", "certificates of peers that are revoked"),
    security(
        "peer-skip-client-san-verification",
        Bool,
        "false",
        "do not compare a peer's certificate with its address",
    ),
    security("self-signed-cert-validity", Uint, "1", "years that a generated certificate is valid"),
    security("cipher-suites", List, "", "suites of TLS 1.2, all that are served if empty"),
    security("tls-min-version", Text, "TLS1.2", "lowest version of TLS, TLS1.2 or TLS1.3"),
    security("tls-max-version", Text, "", "highest version of TLS, the newest if empty"),
    used(Category::Security, "cors", Origins, "*", "origins allowed to call from browsers"),
    used(Category::Security, "host-whitelist", Set, "*", "Host headers accepted on plain HTTP"),
    used(Category::Auth, "auth-token", Text, "simple", "simple, or jwt with its options"),
    used(Category::Auth, "bcrypt-cost", Uint, "10", "cost of hashing a password, from 4 to 31"),
    used(Category::Auth, "auth-token-ttl", Uint, "300", "seconds a simple token lives unused"),
    no_meaning(
        Category::Monitoring,
        "enable-pprof",
        Bool,
        "false",
        "profiles of the Go runtime do not exist here",
    ),
    used(
        Category::Monitoring,
        "metrics",
        Text,
        "basic",
        "basic, or extensive for histograms of gRPC calls",
    ),
    no_meaning(Category::Logging, "logger", Text, "zap", "there is one logger"),
    used(
        Category::Logging,
        "log-outputs",
        Set,
        "default",
        "default, stderr, stdout, systemd/journal or files",
    ),
    used(Category::Logging, "log-level", Text, "info", "debug, info, warn, error, panic or fatal"),
    used(Category::Logging, "log-format", Text, "json", "json or console"),
    no_meaning(Category::Logging, "enable-log-rotation", Bool, "false", NO_ROTATION),
    no_meaning(
        Category::Logging,
        "log-rotation-config-json",
        Text,
        "{\"maxsize\": 100, \"maxage\": 0, \"maxbackups\": 0, \"localtime\": false, \
         \"compress\": false}",
        NO_ROTATION,
    ),
    used(
        Category::Logging,
        "warning-unary-request-duration",
        Duration,
        "300ms",
        "report calls slower than this",
    ),
    used(
        Category::Logging,
        "warning-apply-duration",
        Duration,
        "100ms",
        "report applies slower than this",
    ),
    tracing("enable-distributed-tracing", Bool, "false", "send OpenTelemetry spans of calls"),
    tracing("distributed-tracing-address", Text, "localhost:4317", "collector that takes OTLP"),
    tracing("distributed-tracing-service-name", Text, "etcd", "name of the service in spans"),
    tracing("distributed-tracing-instance-id", Text, "", "name of this node in spans"),
    tracing(
        "distributed-tracing-sampling-rate",
        Int,
        "0",
        "of a million calls, those that have a span though their callers have none",
    ),
    used(
        Category::Tuning,
        "corrupt-check-time",
        Duration,
        "1h0m0s",
        "how often the leader compares what the members hold; 0 means never",
    ),
    used(
        Category::Tuning,
        "compact-hash-check-time",
        Duration,
        "1m0s",
        "after a compaction the leader compares what the members hold, this long after the last time",
    ),
    used(
        Category::Tuning,
        "compaction-batch-limit",
        Int,
        "0",
        "revisions removed at once by a compaction; 0 means 1000",
    ),
    used(
        Category::Tuning,
        "compaction-sleep-interval",
        Duration,
        "0s",
        "pause between two batches of a compaction; 0 means 10ms",
    ),
    used(
        Category::Tuning,
        "watch-progress-notify-interval",
        Duration,
        "0s",
        "time between progress notifications; 0 means 10m",
    ),
    no_meaning(
        Category::Tuning,
        "downgrade-check-time",
        Duration,
        "5s",
        "there is no downgrade to wait for",
    ),
    no_meaning(
        Category::Tuning,
        "bootstrap-defrag-threshold-megabytes",
        Uint,
        "0",
        "the store reclaims space while it runs",
    ),
    used(
        Category::Tuning,
        "snapshot-catchup-entries",
        Uint,
        "5000",
        "entries kept in the log for slow followers",
    ),
    used(
        Category::Unsafe,
        "force-new-cluster",
        Bool,
        "false",
        "after the quorum was lost for good: a cluster of this node alone, with what it has",
    ),
    used(Category::Unsafe, "unsafe-no-fsync", Bool, "false", "do not flush; a crash loses data"),
    used(
        Category::Other,
        "config-file",
        Text,
        "",
        "YAML or JSON file; all other flags and variables are then ignored",
    ),
    used(Category::Other, "version", Bool, "false", "print the version and exit"),
    used(
        Category::Flotilla,
        "listen-console-urls",
        Urls,
        "",
        "addresses of the console, pages on which a browser shows the cluster; on loopback only",
    ),
    used(
        Category::Flotilla,
        "console-allow-public",
        Bool,
        "false",
        "the console may listen elsewhere than on loopback: it shows keys, clients and addresses",
    ),
    used(
        Category::Flotilla,
        "answer-budget-bytes",
        Uint,
        "1073741824",
        "memory for answers of more than 256 KiB under way; lists that find no room are refused",
    ),
    used(
        Category::Flotilla,
        "rebuild-wrong-data",
        Bool,
        "true",
        "have data that differ from those of most members replaced by what these hold",
    ),
    used(
        Category::Flotilla,
        "give-up-lost-ranges",
        Bool,
        "false",
        "with --force-new-cluster: ranges of which nothing is here begin anew, without a key",
    ),
    used(
        Category::Flotilla,
        "initial-split-keys",
        Set,
        "",
        "keys at which the keyspace of a new cluster is cut into ranges; the same on all founders",
    ),
    used(
        Category::Flotilla,
        "initial-split-preset",
        Choice(&["", "kubernetes"]),
        "",
        "cut the keyspace of a new cluster as it suits a well-known user; the same on all founders",
    ),
    used(
        Category::Flotilla,
        "initial-range-replicas",
        Uint,
        "5",
        "nodes of a new cluster that hold each range; the same on all founders",
    ),
    used(
        Category::Flotilla,
        "zone",
        Text,
        "",
        "what this node fails together with: a rack, a room, an availability zone",
    ),
    used(
        Category::Flotilla,
        "placement-interval",
        Duration,
        "1s",
        "how often the leader looks whether ranges should be split or led elsewhere; 0 means never",
    ),
    used(
        Category::Flotilla,
        "dead-after",
        Duration,
        "5m0s",
        "a node that is silent for so long is not waited for: its replicas are made anew elsewhere",
    ),
    used(Category::Flotilla, "auto-split", Bool, "true", "split ranges above one of the limits"),
    used(
        Category::Flotilla,
        "merge-after",
        Duration,
        "0s",
        "merge neighbouring ranges that were small and quiet for so long; 0 means never",
    ),
    used(
        Category::Flotilla,
        "split-bytes",
        Uint,
        "268435456",
        "bytes of keys and values above which a range is split",
    ),
    used(Category::Flotilla, "split-keys", Uint, "1000000", "keys above which a range is split"),
    used(
        Category::Flotilla,
        "split-writes-per-second",
        Uint,
        "20000",
        "writes in a second, smoothed over a minute, above which a range is split",
    ),
    used(
        Category::Flotilla,
        "wal-flush-delay",
        Duration,
        "0s",
        "wait this long before each flush of the log, to measure slow disks",
    ),
    used(Category::Flotilla, "workers", Uint, "0", "threads that run actors; 0 means one a core"),
    ignored("cluster-active-size"),
    ignored("cluster-remove-delay"),
    ignored("cluster-sync-interval"),
    ignored("config"),
    ignored("force"),
    ignored("max-result-buffer"),
    ignored("max-retry-attempts"),
    ignored("peer-heartbeat-interval"),
    ignored("peer-election-timeout"),
    ignored("retry-interval"),
    ignored("snapshot"),
    ignored("v"),
    ignored("vv"),
    ignored("test.coverprofile"),
    ignored("test.outputdir"),
    used(
        Category::FileOnly,
        "client-transport-security.allowed-cn",
        List,
        "",
        "common names, one of which a client's certificate must have",
    ),
    used(
        Category::FileOnly,
        "client-transport-security.skip-client-san-verification",
        Bool,
        "false",
        "do not compare a certificate on --listen-metrics-urls with the address it comes from",
    ),
    not_served(Category::FileOnly, "discovery-config", Section, "", NO_DISCOVERY_SECTION),
];

const STATES: Kind = Choice(&["new", "existing"]);

const fn member(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    meaning: &'static str,
) -> Flag {
    used(Category::Member, name, kind, default, meaning)
}

const fn clustering(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    meaning: &'static str,
) -> Flag {
    used(Category::Clustering, name, kind, default, meaning)
}

const fn security(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    meaning: &'static str,
) -> Flag {
    used(Category::Security, name, kind, default, meaning)
}

const fn tracing(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    meaning: &'static str,
) -> Flag {
    used(Category::Tracing, name, kind, default, meaning)
}

const fn ignored(name: &'static str) -> Flag {
    Flag {
        name,
        kind: Anything,
        default: "",
        category: Category::Ignored,
        state: State::Ignored,
        meaning: "accepted and ignored",
    }
}

const fn used(
    category: Category,
    name: &'static str,
    kind: Kind,
    default: &'static str,
    meaning: &'static str,
) -> Flag {
    Flag { name, kind, default, category, state: State::Used, meaning }
}

const fn no_meaning(
    category: Category,
    name: &'static str,
    kind: Kind,
    default: &'static str,
    why: &'static str,
) -> Flag {
    Flag { name, kind, default, category, state: State::NoMeaning(why), meaning: why }
}

const fn not_served(
    category: Category,
    name: &'static str,
    kind: Kind,
    default: &'static str,
    missing: &'static str,
) -> Flag {
    Flag { name, kind, default, category, state: State::NotServed(missing), meaning: missing }
}
