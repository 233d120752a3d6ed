//! Why a node does not start with what it was told: the words and the exit codes. Words that
//! etcd prints for the same mistake are kept, since people and scripts know them.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use flotilla_core::membership::url;

use super::help::USAGE;
use super::value::ValueError;

/// A configuration that cannot be used. `setting` is a flag with its dashes, or a key of the file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line does not follow the grammar of flags.
    #[error(transparent)]
    Usage(#[from] UsageError),
    #[error("{0:?} is not a valid flag")]
    NotAFlag(String),

    #[error(
        "conflicting environment variable {variable:?} is shadowed by corresponding command-line \
         flag (either unset environment variable or disable flag)"
    )]
    Shadowed { variable: String },
    #[error("invalid value {value:?} for {variable}: {reason}")]
    Variable { value: String, variable: String, reason: ValueError },

    #[error("cannot read the configuration file {}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("configuration file {}: {source}", path.display())]
    FileSyntax { path: PathBuf, source: serde_yaml_ng::Error },
    #[error("configuration file {}: expected a mapping from flag names to values", path.display())]
    FileShape { path: PathBuf },
    #[error("configuration file {}: {key:?} must be a mapping", path.display())]
    FileSection { path: PathBuf, key: String },
    #[error("configuration file {}: {key:?} is given twice", path.display())]
    FileTwice { path: PathBuf, key: String },
    #[error("configuration file {}: invalid value for {key:?}: {reason}", path.display())]
    FileValue { path: PathBuf, key: String, reason: ValueError },

    #[error("tracing sampling rate must be positive")]
    SamplingNegative,
    #[error("tracing sampling rate must be less than {max}")]
    SamplingTooOften { max: u32 },

    #[error("{setting} is refused rather than ignored: {missing}")]
    NotServed { setting: String, missing: &'static str },

    #[error("KeyFile and CertFile must both be present[key: {key}, cert: {cert}]")]
    HalfKeyPair { key: String, cert: String },
    #[error(
        "ClientKeyFile and ClientCertFile must both be present or both absent: \
         key: {key}, cert: {cert}]"
    )]
    HalfClientKeyPair { key: String, cert: String },
    #[error("selfSignedCertValidity is invalid,it should be greater than 0")]
    SelfSignedValidity,
    #[error(
        "AllowedCNs and AllowedHostnames are mutually exclusive (cns={cns}, hostnames={hosts})"
    )]
    TwoAllowedNames { cns: String, hosts: String },
    #[error("unexpected TLS version {0:?} (must be one of: TLS1.2, TLS1.3)")]
    TlsVersion(String),
    #[error("min version ({min}) is greater than max version ({max})")]
    TlsVersions { min: String, max: String },
    #[error("unexpected TLS cipher suite {0:?}")]
    CipherSuite(String),
    #[error("cipher suites cannot be configured when only TLS1.3 is enabled")]
    CipherSuitesOfTls13,
    #[error(
        "http2: TLSConfig.CipherSuites is missing an HTTP/2-required AES_128_GCM_SHA256 cipher \
         (need at least one of TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 or \
         TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256)"
    )]
    CipherSuitesOfHttp2,
    #[error(
        "TLS key/cert (--cert-file, --key-file) must be provided for client url {url} with HTTPS \
         scheme"
    )]
    NoClientCert { url: String },
    #[error("cannot listen on TLS for {address}: KeyFile and CertFile are not presented")]
    NoCert { address: String },

    #[error("expected IP in URL for binding ({0})")]
    BindHost(String),
    #[error(
        "--listen-console-urls has {0}, which is not on loopback: the console shows keys, clients and \
         addresses to whoever reaches it, unless authentication is on. If that is meant, give \
         --console-allow-public"
    )]
    PublicConsole(String),
    #[error("{setting} needs at least one URL")]
    NoUrl { setting: &'static str },
    #[error(
        "--initial-advertise-peer-urls {urls:?} must be \"host:port\" \
         (unexpected empty host ({url}))"
    )]
    AdvertisePeerHost { urls: String, url: String },
    #[error(
        "--advertise-client-urls {urls:?} must be in the format \"host:port\", \
         \"unix:/path/to/socket\" or \"unixs:/path/to/socket\" (unexpected empty host ({url}))"
    )]
    AdvertiseClientHost { urls: String, url: String },
    #[error("--advertise-client-urls is required when --listen-client-urls is set explicitly")]
    AdvertiseClientUrlsMissing,

    #[error("error setting up initial cluster: {0}")]
    InitialCluster(url::Error),
    #[error("couldn't find local name {0:?} in the initial cluster configuration")]
    LocalName(String),
    #[error("--initial-cluster has {entry} but missing from --initial-advertise-peer-urls={urls}")]
    NotAdvertised { entry: String, urls: String },
    #[error("--initial-advertise-peer-urls has {url} but missing from --initial-cluster={entries}")]
    NotInCluster { url: String, entries: String },
    #[error("initial cluster {0} has duplicate url")]
    DuplicateUrl(String),

    #[error("both --discovery-token and --discovery-endpoints must be set")]
    DiscoveryHalf,
    #[error(
        "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \
         \"discovery-endpoints\" or \"discovery-srv\""
    )]
    DiscoveryConflict,
    #[error("{setting} must be >0 (set to {given})")]
    NoTime { setting: &'static str, given: String },

    #[error("{setting} must be >0 (set to {given_ms}ms)")]
    NotPositive { setting: &'static str, given_ms: u64 },
    #[error("--compact-hash-check-time must be >0 (set to {0})")]
    CompactHashCheckTime(String),
    #[error(
        "--election-timeout[{election_ms}ms] should be at least as 5 times as \
         --heartbeat-interval[{heartbeat_ms}ms]"
    )]
    ElectionShort { election_ms: u64, heartbeat_ms: u64 },
    #[error(
        "--election-timeout[{election_ms}ms] is too long, and should be set less than {max_ms}ms"
    )]
    ElectionLong { election_ms: u64, max_ms: u64 },

    #[error("undefined auto-compaction-mode")]
    NoCompactionMode,
    #[error("unknown auto-compaction-mode {0:?}")]
    CompactionMode(String),
    #[error("error parsing CompactionRetention: {0}")]
    CompactionRetention(String),
    #[error("--auto-compaction-retention {0:?} must be a number of revisions in revision mode")]
    CompactionRevisions(String),

    #[error("--auth-token {given:?} cannot be used: {reason}")]
    AuthToken { given: String, reason: String },
    #[error("unknown logger option {0:?}")]
    Logger(String),
    #[error("multi logoutput for \"default\" is not supported yet")]
    LogOutputs,
    #[error("unknown log level {0:?}: only debug, info, warn, error, panic and fatal are known")]
    LogLevel(String),
    #[error("unknown log format {0:?}: only json and console are known")]
    LogFormat(String),
    #[error("v2 proxy is deprecated, and --discovery-fallback can't be configured as \"proxy\"")]
    DiscoveryFallback,
    #[error("{setting} must not be negative (set to {given})")]
    Negative { setting: &'static str, given: i64 },
    #[error(
        "--max-request-bytes must be at most {max} (set to {given}): the log has no room for more"
    )]
    RequestBytes { given: u64, max: u64 },
    #[error("--workers must be at most {max} (set to {given})")]
    Workers { given: u64, max: u64 },
    #[error("--initial-range-replicas is {given}, must be between 1 and {max}")]
    RangeReplicas { given: u64, max: u32 },
    #[error("{setting} must be at least {min} (set to {given})")]
    SplitLimit { setting: &'static str, given: u64, min: u64 },
    #[error("--dead-after is {given:?}, and must be at least {min:?}")]
    DeadAfter { given: Duration, min: Duration },
    #[error("--zone must be at most {max} bytes long (is {given})")]
    Zone { given: usize, max: usize },
}

/// A command line that Go's flag package would refuse.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    #[error("flag provided but not defined: -{0}")]
    NotDefined(String),
    #[error("flag needs an argument: -{0}")]
    NeedsArgument(&'static str),
    #[error("bad flag syntax: {0}")]
    Syntax(String),
    #[error("invalid value {value:?} for flag -{flag}: {reason}")]
    Value { value: String, flag: &'static str, reason: ValueError },
    #[error("invalid boolean value {value:?} for -{flag}: {reason}")]
    BoolValue { value: String, flag: &'static str, reason: ValueError },
    #[error("argument is not UTF-8: {0:?}")]
    NotUnicode(OsString),
}

/// Flags by which etcd served its second API, or was its proxy, until it dropped both.
const FLAGS_OF_V2: [&str; 7] = [
    "enable-v2",
    "experimental-enable-v2v3",
    "discovery",
    "discovery-proxy",
    "proxy",
    "proxy-failure-wait",
    "proxy-refresh-interval",
];

impl UsageError {
    /// What to do instead, where an old start script would stand before a riddle.
    fn hint(&self) -> Option<String> {
        let UsageError::NotDefined(name) = self else { return None };
        let instead = match name.as_str() {
            "discovery" | "discovery-proxy" => {
                "use --discovery-endpoints and --discovery-token, or --discovery-srv"
            }
            name if FLAGS_OF_V2.contains(&name) => {
                "use the v3 API, which is always on: gRPC, or JSON under /v3/ (etcdctl with \
                 ETCDCTL_API=3)"
            }
            _ => return None,
        };
        Some(format!("--{name} belongs to the v2 API, which is not served: {instead}."))
    }
}

impl Error {
    /// 2 for a command line that cannot be read, else 1.
    pub fn exit_code(&self) -> u8 {
        if matches!(self, Error::Usage(_)) { 2 } else { 1 }
    }

    /// What to print on standard error, without a newline at the end.
    pub fn report(&self) -> String {
        match self {
            Error::Usage(error) => {
                let hint = error.hint().map(|hint| format!("{hint}\n")).unwrap_or_default();
                format!("{error}\n{hint}{}", USAGE.trim_end())
            }
            error => format!("error verifying flags, {error}. See 'flotilla --help'."),
        }
    }
}
