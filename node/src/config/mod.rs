//! The configuration of a node: etcd's flags, their environment variables and a YAML or JSON
//! file, turned into one plain [`Config`]. Pure: the caller hands in arguments, environment and
//! files, prints what comes back, and exits. Never touches the machine, and logs nothing.

mod flags;

mod command_line;
mod environment;
mod file;
mod gates;
pub(crate) mod number;
mod settings;
mod value;

mod cipher;
mod discovery;
mod first_start;
mod limits;
mod resolve;
mod tls;
mod tokens;

mod error;
mod help;
mod notice;

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use flotilla_core::membership::url::{Endpoint, Url};

pub use cipher::CipherSuite;
pub use discovery::{Discovery, DiscoveryService, DiscoveryUser};
pub use error::Error;
pub use help::{USAGE, flag_list};
pub use limits::Limits;
pub use notice::Notice;
pub use tls::{AllowedNames, KeyPair, Tls, TlsVersion};
pub use tokens::{JwtOptions, TokenProvider};

use settings::Settings;

/// What the command line asks for.
#[derive(Debug)]
pub enum Outcome {
    /// Start with this configuration, after logging each notice once.
    Run(Box<Config>, Vec<Notice>),
    /// Print the version and exit with 0.
    Version,
    /// Print [`flag_list`] and exit with 0.
    Help,
}

/// Reads the configuration. `args` are those behind the program's name. A flag and its variable
/// together are an error; a configuration file, named by `--config-file` or `ETCD_CONFIG_FILE`,
/// replaces all other flags and variables. On an error the caller prints [`Error::report`] and
/// exits with [`Error::exit_code`].
pub fn parse(
    args: impl IntoIterator<Item = OsString>,
    env: &BTreeMap<String, String>,
    read_file: &dyn Fn(&Path) -> io::Result<String>,
) -> Result<Outcome, Error> {
    let command_line::Scanned { settings, is_help } = command_line::scan(args)?;
    if is_help {
        return Ok(Outcome::Help);
    }
    if settings.bool("version") {
        return Ok(Outcome::Version);
    }
    let mut notices = Vec::new();
    let settings = match config_file(&settings, env) {
        Some(path) => {
            let text =
                read_file(&path).map_err(|source| Error::File { path: path.clone(), source })?;
            notices.push(Notice::FileOnly { path: path.clone() });
            file::read(&path, &text, &mut notices)?
        }
        None => environment::add(settings, env, &mut notices)?,
    };
    settings.refuse_not_served()?;
    settings.report_without_meaning(&mut notices);
    let config = resolve::resolve(&settings, &mut notices)?;
    Ok(Outcome::Run(Box::new(config), notices))
}

fn config_file(settings: &Settings, env: &BTreeMap<String, String>) -> Option<PathBuf> {
    let flag = settings.text("config-file");
    let path = if flag.is_empty() { env.get("ETCD_CONFIG_FILE").cloned() } else { Some(flag) };
    path.filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// All that a node is told. Fields are named for their flags; defaults are filled in, and where
/// a flag's 0 means "the usual", the field holds the usual.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub name: String,
    pub data_dir: PathBuf,
    /// The directory of the log.
    pub wal_dir: PathBuf,

    pub listen_client_urls: Vec<Url>,
    /// When not empty, plain HTTP is served here and `listen_client_urls` serve gRPC only.
    pub listen_client_http_urls: Vec<Url>,
    pub listen_peer_urls: Vec<Url>,
    pub listen_metrics_urls: Vec<Url>,
    /// Where browsers are shown the cluster. On loopback, or the operator said that it need not be.
    /// Not a flag of etcd.
    pub listen_console_urls: Vec<Url>,
    pub advertise_client_urls: Vec<Url>,
    pub initial_advertise_peer_urls: Vec<Url>,
    /// Pairs of a member's name and one of its peer addresses, sorted; a name may have several.
    /// Empty while they are to be discovered.
    pub initial_cluster: Vec<(String, Url)>,
    /// Who is asked for the first members, if they are not listed.
    pub discovery: Option<Discovery>,
    pub initial_cluster_state: InitialClusterState,
    pub initial_cluster_token: String,

    /// Of the addresses for clients and of those for metrics.
    pub client_tls: Tls,
    /// Of the addresses for peers, and of connections to them.
    pub peer_tls: Tls,

    /// The length of a tick.
    pub heartbeat_interval: Duration,
    pub election_timeout: Duration,
    pub initial_election_tick_advance: bool,
    pub pre_vote: bool,
    pub strict_reconfig_check: bool,
    pub max_learners: usize,
    /// Applied entries after which the log of a group is truncated.
    pub snapshot_count: u64,
    /// Entries kept behind the truncation for slow followers.
    pub snapshot_catchup_entries: u64,

    /// Size of the store that raises the NOSPACE alarm; None when there is no quota.
    pub quota_backend_bytes: Option<u64>,
    /// Operations allowed in each list of a transaction.
    pub max_txn_ops: usize,
    /// Size of the largest encoded command.
    pub max_request_bytes: usize,
    /// HTTP/2 streams that one connection may have open.
    pub max_concurrent_streams: u32,
    /// A client that pings more often than this is sent away.
    pub grpc_keepalive_min_time: Duration,
    /// None when the node sends no pings.
    pub grpc_keepalive: Option<GrpcKeepAlive>,

    pub auto_compaction: Option<AutoCompaction>,
    /// Revisions that a compaction removes from the store at once.
    pub compaction_batch_limit: usize,
    /// Pause between two such batches.
    pub compaction_sleep_interval: Duration,
    pub watch_progress_notify_interval: Duration,
    /// A slower apply is logged.
    pub warning_apply_duration: Duration,
    /// A slower unary call is logged.
    pub warning_unary_request_duration: Duration,

    pub log_level: LogLevel,
    pub log_format: LogFormat,
    /// Never empty.
    pub log_outputs: Vec<LogOutput>,
    pub metrics: MetricsDetail,
    /// Where spans of calls go; None: there are none.
    pub distributed_tracing: Option<DistributedTracing>,
    /// JSON is answered under `/v3/`.
    pub enable_grpc_gateway: bool,
    /// Origins that browsers may call from.
    pub cors: AllowList,
    /// Hosts, without port, accepted in requests over plain HTTP; others are answered with 421.
    pub host_whitelist: AllowList,
    pub socket_reuse_port: bool,
    pub socket_reuse_address: bool,

    /// Whether the node is compared with the others when it starts.
    pub corrupt_check_at_start: CheckAtStart,
    /// When the leader compares what the members hold.
    pub corrupt_checks: CorruptChecks,
    /// Data of this node that are found to be wrong are replaced by what the others hold. Not a flag of
    /// etcd.
    pub rebuild_wrong_data: bool,
    /// The cluster has lost its quorum for good: this node is to go on alone with what it has.
    pub force_new_cluster: bool,
    /// Ranges of which it has nothing begin anew then, without a key. Not a flag of etcd.
    pub give_up_lost_ranges: bool,
    /// Flushes are skipped: a crash of the machine loses acknowledged writes.
    pub unsafe_no_fsync: bool,
    /// Keys, rising, at which the keyspace is cut into ranges when the cluster is founded. Not a flag
    /// of etcd.
    pub initial_split_keys: Vec<String>,
    /// How many nodes hold each range of a new cluster. Not a flag of etcd.
    pub range_replicas: usize,
    /// What this node fails together with; empty: nothing known. Not a flag of etcd.
    pub zone: String,
    /// Between two plans of placement; zero: none are made. Not a flag of etcd.
    pub placement_interval: Duration,
    /// A node that was silent for so long is not waited for, and its replicas are made anew on others.
    /// Not a flag of etcd.
    pub dead_after: Duration,
    /// Neighbouring ranges are merged that were small and quiet for so long; zero means never. Not a
    /// flag of etcd.
    pub merge_after: Duration,
    /// Ranges are split when they are above one of the limits that follow. Not a flag of etcd.
    pub auto_split: bool,
    /// Bytes of keys and values. Not a flag of etcd.
    pub split_bytes: u64,
    /// Not a flag of etcd.
    pub split_keys: u64,
    /// Not a flag of etcd.
    pub split_writes_per_second: u64,
    /// Added before each flush of the log, to measure what a slow disk does. Not a flag of etcd.
    pub wal_flush_delay: Duration,
    /// Which kind of tokens clients are given.
    pub auth_token: TokenProvider,
    /// A simple token ends when it was not used for this long.
    pub auth_token_ttl: Duration,
    /// Bcrypt's cost of a password, from 4 to 31.
    pub bcrypt_cost: u32,
    /// What large answers under way may take of memory. Not a flag of etcd.
    pub answer_budget_bytes: usize,
    /// Threads that run actors; 0 means one a core. Not a flag of etcd.
    pub workers: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InitialClusterState {
    /// Found the cluster that `initial_cluster` names.
    New,
    /// Join the running cluster that `initial_cluster` names.
    Existing,
}

/// A sampling rate with which each call has a span.
pub const SAMPLES_PER_MILLION_MAX: u32 = 1_000_000;

/// Spans of calls, for OpenTelemetry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DistributedTracing {
    /// Host and port of the collector.
    pub address: String,
    pub service_name: String,
    /// Empty: it has none.
    pub instance_id: String,
    /// Of a million calls whose callers have no span.
    pub samples_per_million: u32,
}

/// Pings from the node to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrpcKeepAlive {
    pub interval: Duration,
    /// A connection that does not answer a ping for this long is closed.
    pub timeout: Duration,
}

/// Whether a node that starts is compared with the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckAtStart {
    /// Before it serves. It does not start if it is wrong.
    Before,
    /// A while after.
    After,
    Never,
}

/// When the leader compares what the members hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CorruptChecks {
    /// So often. Zero: never.
    pub every: Duration,
    /// After a compaction, and so long after the comparison before. None: not then.
    pub after_compactions: Option<Duration>,
}

/// How much history compaction keeps by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoCompaction {
    Periodic(Duration),
    /// Revisions behind the current one.
    Revisions(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    Debug,
    Info,
    Warn,
    Error,
    Panic,
    Fatal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Json,
    /// For people.
    Console,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogOutput {
    Stderr,
    Stdout,
    Journal,
    File(PathBuf),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricsDetail {
    Basic,
    /// Adds histograms of the duration of gRPC calls.
    Extensive,
}

/// Which names are welcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowList {
    Any,
    Only(BTreeSet<String>),
}

impl AllowList {
    pub fn allows(&self, name: &str) -> bool {
        match self {
            AllowList::Any => true,
            AllowList::Only(names) => names.contains(name),
        }
    }
}

impl Config {
    /// The limits that follow from this configuration.
    pub fn limits(&self) -> Limits {
        Limits::of(self)
    }
}

/// The configuration of a node started with no flags and an empty environment.
impl Default for Config {
    fn default() -> Config {
        resolve::resolve(&Settings::default(), &mut Vec::new())
            .expect("the defaults of the table are a valid configuration")
    }
}
