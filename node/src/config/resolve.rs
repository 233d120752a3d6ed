//! From the values that were given to a [`Config`]: fills in what follows from other values, and
//! refuses what cannot work, in etcd's order and words. Reads flags by name; never parses the
//! notation of a flag that has a kind of its own.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use flotilla_core::spine::REPLICAS_WANTED_MAX;

use super::discovery;
use super::error::Error;
use super::notice::Notice;
use super::number;
use super::settings::{COMPACTION_CHECK, INITIAL_CHECK, Settings};
use super::tls;
use super::{
    AllowList, AutoCompaction, CheckAtStart, Config, CorruptChecks, DistributedTracing, Endpoint,
    GrpcKeepAlive, InitialClusterState, LogFormat, LogLevel, LogOutput, MetricsDetail,
    SAMPLES_PER_MILLION_MAX, Url, tokens,
};

const AUTH_TOKEN_TTL_SECONDS_DEFAULT: u64 = 300;
/// Bcrypt can take no others.
const BCRYPT_COSTS: std::ops::RangeInclusive<u32> = 4..=31;
const BCRYPT_COST_DEFAULT: u32 = 10;
const DEFAULT_NAME: &str = "default";
const ELECTION_TIMEOUT_MS_MAX: u64 = 50_000;
/// Heartbeat intervals that fit at least into an election timeout.
const HEARTBEATS_MIN: u64 = 5;
const QUOTA_BYTES_DEFAULT: u64 = 2 << 30;
const QUOTA_BYTES_RECOMMENDED: u64 = 8 << 30;
const REQUEST_BYTES_RECOMMENDED: u64 = 10 << 20;
/// The longest segments of the log have room for appends of 32 MiB.
const REQUEST_BYTES_MAX: u64 = 28 << 20;
const SNAPSHOT_COUNT_DEFAULT: u64 = 10_000;
const SNAPSHOT_CATCHUP_ENTRIES_DEFAULT: u64 = 5_000;
const COMPACTION_BATCH_REVISIONS_DEFAULT: i64 = 1_000;
const COMPACTION_SLEEP_DEFAULT: Duration = Duration::from_millis(10);
const WATCH_PROGRESS_DEFAULT: Duration = Duration::from_secs(600);
const WATCH_PROGRESS_MIN: Duration = Duration::from_millis(100);
const WARNING_UNARY_DEFAULT: Duration = Duration::from_millis(300);
/// More threads than any machine has cores: a typing error, not a wish.
const WORKERS_MAX: u64 = 1_024;
/// Events and leases, which are written most and watched least, have ranges of their own. The keys
/// of a resource begin with its name and a slash; the first key after all of them ends in `0`, which
/// follows the slash in ASCII.
const KUBERNETES_KEYS: [&str; 4] =
    ["/registry/events/", "/registry/events0", "/registry/leases/", "/registry/leases0"];
/// Limits of splitting below these would make a range of every few keys.
const SPLIT_BYTES_MIN: u64 = 64 << 10;
const SPLIT_KEYS_MIN: u64 = 100;
/// Placement gives nothing new to a node that is silent for so long.
const DEAD_AFTER_MIN: Duration = Duration::from_secs(10);
const SPLIT_WRITES_MIN: u64 = 10;
/// A name, sent with every heartbeat.
const ZONE_BYTES_MAX: usize = 128;

/// Builds the configuration, adding to `notices` what the user should know.
pub(super) fn resolve(settings: &Settings, notices: &mut Vec<Notice>) -> Result<Config, Error> {
    let (log_level, log_format, log_outputs) = logging(settings)?;
    let urls = Urls::of(settings)?;
    let (heartbeat_interval, election_timeout) = raft_times(settings)?;
    // Only the command line asks for this: a file that listens elsewhere keeps the default.
    if !settings.is_file
        && settings.is_given("listen-client-urls")
        && !settings.is_given("advertise-client-urls")
    {
        return Err(Error::AdvertiseClientUrlsMissing);
    }
    check_values(settings)?;
    let (client_tls, peer_tls) = tls::both(settings, notices)?;
    let listening = [
        ("--listen-peer-urls", &urls.listen_peer[..]),
        ("--listen-client-urls", &urls.listen_client[..]),
        ("--listen-client-http-urls", &urls.listen_client_http[..]),
        ("--listen-metrics-urls", &urls.listen_metrics[..]),
        ("--listen-console-urls", &urls.listen_console[..]),
    ];
    tls::check_urls(&client_tls, &peer_tls, listening, notices)?;

    let name = settings.text("name");
    if name == DEFAULT_NAME {
        notices.push(Notice::DefaultName);
    }
    let data_dir = directory(settings, "data-dir", || PathBuf::from(format!("{name}.etcd")));
    let wal_dir = directory(settings, "wal-dir", || data_dir.join("member").join("wal"));
    let discovery = discovery::discovery(settings)?;
    let initial_cluster = match discovery {
        Some(_) => Vec::new(),
        None => initial_cluster(settings, &name, &urls.advertise_peer)?,
    };
    let unsafe_no_fsync = settings.bool("unsafe-no-fsync");
    if unsafe_no_fsync {
        notices.push(Notice::NoFlushes);
    }
    Ok(Config {
        name,
        auth_token: tokens::provider(&settings.text("auth-token"))?,
        auth_token_ttl: Duration::from_secs(or_default(
            settings.uint("auth-token-ttl"),
            AUTH_TOKEN_TTL_SECONDS_DEFAULT,
        )),
        bcrypt_cost: bcrypt_cost(settings),
        data_dir,
        wal_dir,
        listen_client_urls: urls.listen_client,
        listen_client_http_urls: urls.listen_client_http,
        listen_peer_urls: urls.listen_peer,
        listen_metrics_urls: urls.listen_metrics,
        listen_console_urls: urls.listen_console,
        advertise_client_urls: urls.advertise_client,
        initial_advertise_peer_urls: urls.advertise_peer,
        initial_cluster,
        discovery,
        initial_cluster_state: match settings.text("initial-cluster-state").as_str() {
            "existing" => InitialClusterState::Existing,
            _ => InitialClusterState::New,
        },
        initial_cluster_token: settings.text("initial-cluster-token"),
        client_tls,
        peer_tls,
        heartbeat_interval,
        election_timeout,
        initial_election_tick_advance: settings.bool("initial-election-tick-advance"),
        pre_vote: settings.bool("pre-vote"),
        strict_reconfig_check: settings.bool("strict-reconfig-check"),
        max_learners: usize::try_from(settings.int("max-learners").max(0)).unwrap_or(usize::MAX),
        snapshot_count: or_default(settings.uint("snapshot-count"), SNAPSHOT_COUNT_DEFAULT),
        snapshot_catchup_entries: or_default(
            settings.uint("snapshot-catchup-entries"),
            SNAPSHOT_CATCHUP_ENTRIES_DEFAULT,
        ),
        quota_backend_bytes: quota(settings, notices),
        max_txn_ops: settings.size("max-txn-ops"),
        max_request_bytes: request_bytes(settings, notices)?,
        max_concurrent_streams: u32::try_from(settings.uint("max-concurrent-streams"))
            .expect("the flag's kind has 32 bits"),
        grpc_keepalive_min_time: duration_or_zero(settings, "grpc-keepalive-min-time"),
        grpc_keepalive: grpc_keepalive(settings),
        auto_compaction: auto_compaction(settings)?,
        compaction_batch_limit: compaction_batch(settings)?,
        compaction_sleep_interval: or_usual(
            settings,
            "compaction-sleep-interval",
            COMPACTION_SLEEP_DEFAULT,
        ),
        watch_progress_notify_interval: watch_progress(settings, notices),
        warning_apply_duration: duration_or_zero(settings, "warning-apply-duration"),
        warning_unary_request_duration: or_usual(
            settings,
            "warning-unary-request-duration",
            WARNING_UNARY_DEFAULT,
        ),
        log_level,
        log_format,
        log_outputs,
        metrics: metrics(settings, notices),
        distributed_tracing: distributed_tracing(settings)?,
        enable_grpc_gateway: settings.bool("enable-grpc-gateway"),
        cors: allow_list(settings.texts("cors")),
        host_whitelist: allow_list(settings.texts("host-whitelist")),
        socket_reuse_port: settings.bool("socket-reuse-port"),
        socket_reuse_address: settings.bool("socket-reuse-address"),
        unsafe_no_fsync,
        initial_split_keys: initial_split_keys(settings),
        range_replicas: range_replicas(settings)?,
        corrupt_check_at_start: match settings.gate(INITIAL_CHECK) {
            Some(true) => CheckAtStart::Before,
            Some(false) => CheckAtStart::Never,
            None => CheckAtStart::After,
        },
        corrupt_checks: corrupt_checks(settings)?,
        force_new_cluster: settings.bool("force-new-cluster"),
        give_up_lost_ranges: settings.bool("give-up-lost-ranges"),
        rebuild_wrong_data: settings.bool("rebuild-wrong-data"),
        zone: zone(settings)?,
        placement_interval: positive(settings, "placement-interval", "--placement-interval")?,
        dead_after: dead_after(settings)?,
        merge_after: positive(settings, "merge-after", "--merge-after")?,
        auto_split: settings.bool("auto-split"),
        split_bytes: split_limit("--split-bytes", settings.uint("split-bytes"), SPLIT_BYTES_MIN)?,
        split_keys: split_limit("--split-keys", settings.uint("split-keys"), SPLIT_KEYS_MIN)?,
        split_writes_per_second: split_limit(
            "--split-writes-per-second",
            settings.uint("split-writes-per-second"),
            SPLIT_WRITES_MIN,
        )?,
        wal_flush_delay: wal_flush_delay(settings)?,
        answer_budget_bytes: settings.size("answer-budget-bytes"),
        workers: workers(settings)?,
    })
}

/// The addresses, each checked for its use.
struct Urls {
    listen_peer: Vec<Url>,
    listen_client: Vec<Url>,
    listen_client_http: Vec<Url>,
    listen_metrics: Vec<Url>,
    listen_console: Vec<Url>,
    advertise_peer: Vec<Url>,
    advertise_client: Vec<Url>,
}

impl Urls {
    fn of(settings: &Settings) -> Result<Urls, Error> {
        let urls = Urls {
            listen_peer: listen_urls(settings, "listen-peer-urls")?,
            listen_client: listen_urls(settings, "listen-client-urls")?,
            listen_client_http: listen_urls(settings, "listen-client-http-urls")?,
            listen_metrics: listen_urls(settings, "listen-metrics-urls")?,
            listen_console: console_urls(settings)?,
            advertise_peer: settings.urls("initial-advertise-peer-urls"),
            advertise_client: settings.urls("advertise-client-urls"),
        };
        if urls.listen_peer.is_empty() {
            return Err(Error::NoUrl { setting: "--listen-peer-urls" });
        }
        if urls.listen_client.is_empty() && urls.listen_client_http.is_empty() {
            return Err(Error::NoUrl { setting: "--listen-client-urls" });
        }
        if let Some(url) = urls.advertise_peer.iter().find(|url| !has_host(url)) {
            let (urls, url) = (join(&urls.advertise_peer), url.to_string());
            return Err(Error::AdvertisePeerHost { urls, url });
        }
        let is_socket = |url: &Url| matches!(url.endpoint(), Endpoint::Unix { .. });
        let leads_nowhere = |url: &&Url| !is_socket(url) && !has_host(url);
        if let Some(url) = urls.advertise_client.iter().find(leads_nowhere) {
            let (urls, url) = (join(&urls.advertise_client), url.to_string());
            return Err(Error::AdvertiseClientHost { urls, url });
        }
        Ok(urls)
    }
}

/// Addresses to listen on: an IP address, `localhost` or a socket, since a name could mean
/// several interfaces.
fn listen_urls(settings: &Settings, name: &str) -> Result<Vec<Url>, Error> {
    let urls = settings.urls(name);
    for url in &urls {
        if let Endpoint::Tcp { host, .. } = url.endpoint()
            && host != "localhost"
            && host.parse::<std::net::IpAddr>().is_err()
        {
            return Err(Error::BindHost(url.to_string()));
        }
    }
    Ok(urls)
}

/// Addresses of the console: it shows keys and clients to whoever reaches it while authentication is off.
fn console_urls(settings: &Settings) -> Result<Vec<Url>, Error> {
    let urls = listen_urls(settings, "listen-console-urls")?;
    let is_public = |url: &&Url| match url.endpoint() {
        Endpoint::Tcp { host, .. } if host == "localhost" => false,
        Endpoint::Tcp { host, .. } => {
            !host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        }
        Endpoint::Unix { .. } => false,
    };
    match urls.iter().find(is_public).filter(|_| !settings.bool("console-allow-public")) {
        Some(url) => Err(Error::PublicConsole(url.to_string())),
        None => Ok(urls),
    }
}

fn has_host(url: &Url) -> bool {
    matches!(url.endpoint(), Endpoint::Tcp { host, .. } if !host.is_empty())
}

fn initial_cluster(
    settings: &Settings,
    name: &str,
    advertise_peer: &[Url],
) -> Result<Vec<(String, Url)>, Error> {
    let mut members = if settings.is_given("initial-cluster") {
        let text = settings.text("initial-cluster");
        let entries = text.split(',').filter(|entry| !entry.is_empty());
        entries.map(cluster_entry).collect::<Result<Vec<(String, Url)>, Error>>()?
    } else {
        advertise_peer.iter().map(|url| (name.to_owned(), url.clone())).collect()
    };
    members.sort();
    Ok(members)
}

fn cluster_entry(entry: &str) -> Result<(String, Url), Error> {
    let (name, url) = entry.split_once('=').unwrap_or((entry, ""));
    let url = Url::parse(url).map_err(Error::InitialCluster)?;
    Ok((name.to_owned(), url))
}

fn raft_times(settings: &Settings) -> Result<(Duration, Duration), Error> {
    let heartbeat_ms = settings.uint("heartbeat-interval");
    let election_ms = settings.uint("election-timeout");
    for (setting, given_ms) in
        [("--heartbeat-interval", heartbeat_ms), ("--election-timeout", election_ms)]
    {
        if given_ms == 0 {
            return Err(Error::NotPositive { setting, given_ms });
        }
    }
    if heartbeat_ms.saturating_mul(HEARTBEATS_MIN) > election_ms {
        return Err(Error::ElectionShort { election_ms, heartbeat_ms });
    }
    if election_ms > ELECTION_TIMEOUT_MS_MAX {
        return Err(Error::ElectionLong { election_ms, max_ms: ELECTION_TIMEOUT_MS_MAX });
    }
    Ok((Duration::from_millis(heartbeat_ms), Duration::from_millis(election_ms)))
}

/// Values that etcd refuses, where it does.
fn check_values(settings: &Settings) -> Result<(), Error> {
    // A file has no such key to etcd, whose sample file has it set to just this.
    if !settings.is_file && settings.text("discovery-fallback") == "proxy" {
        return Err(Error::DiscoveryFallback);
    }
    let check_time = settings.nanoseconds("compact-hash-check-time");
    if check_time <= 0 {
        return Err(Error::CompactHashCheckTime(format!("{check_time}ns")));
    }
    Ok(())
}

fn logging(settings: &Settings) -> Result<(LogLevel, LogFormat, Vec<LogOutput>), Error> {
    let logger = settings.text("logger");
    if logger != "zap" {
        return Err(Error::Logger(logger));
    }
    let outputs = settings.texts("log-outputs");
    if outputs.len() > 1 && outputs.iter().any(|output| output == "default") {
        return Err(Error::LogOutputs);
    }
    let mut log_outputs: Vec<LogOutput> = outputs
        .into_iter()
        .filter(|output| !output.is_empty())
        .map(|output| match output.as_str() {
            "default" | "stderr" => LogOutput::Stderr,
            "stdout" => LogOutput::Stdout,
            "systemd/journal" => LogOutput::Journal,
            _ => LogOutput::File(PathBuf::from(output)),
        })
        .collect();
    if log_outputs.is_empty() {
        log_outputs.push(LogOutput::Stderr);
    }
    let level = settings.text("log-level");
    let log_level = match level.as_str() {
        "debug" => LogLevel::Debug,
        "info" => LogLevel::Info,
        "warn" => LogLevel::Warn,
        "error" => LogLevel::Error,
        "panic" => LogLevel::Panic,
        "fatal" => LogLevel::Fatal,
        _ => return Err(Error::LogLevel(level)),
    };
    let format = settings.text("log-format");
    let log_format = match format.as_str() {
        "json" => LogFormat::Json,
        "console" => LogFormat::Console,
        _ => return Err(Error::LogFormat(format)),
    };
    Ok((log_level, log_format, log_outputs))
}

fn quota(settings: &Settings, notices: &mut Vec<Notice>) -> Option<u64> {
    let quota_bytes = match settings.int("quota-backend-bytes") {
        0 => QUOTA_BYTES_DEFAULT,
        given => u64::try_from(given).ok()?,
    };
    if quota_bytes > QUOTA_BYTES_RECOMMENDED {
        notices.push(Notice::AboveRecommended {
            setting: "--quota-backend-bytes",
            given_bytes: quota_bytes,
            recommended_bytes: QUOTA_BYTES_RECOMMENDED,
        });
    }
    Some(quota_bytes)
}

fn request_bytes(settings: &Settings, notices: &mut Vec<Notice>) -> Result<usize, Error> {
    let given_bytes = settings.uint("max-request-bytes");
    if given_bytes > REQUEST_BYTES_MAX {
        return Err(Error::RequestBytes { given: given_bytes, max: REQUEST_BYTES_MAX });
    }
    if given_bytes > REQUEST_BYTES_RECOMMENDED {
        notices.push(Notice::AboveRecommended {
            setting: "--max-request-bytes",
            given_bytes,
            recommended_bytes: REQUEST_BYTES_RECOMMENDED,
        });
    }
    Ok(settings.size("max-request-bytes"))
}

fn grpc_keepalive(settings: &Settings) -> Option<GrpcKeepAlive> {
    let interval = duration_or_zero(settings, "grpc-keepalive-interval");
    let timeout = duration_or_zero(settings, "grpc-keepalive-timeout");
    let is_on = !interval.is_zero() && !timeout.is_zero();
    is_on.then_some(GrpcKeepAlive { interval, timeout })
}

/// A plain number means revisions or hours, by the mode; anything else is a duration.
fn auto_compaction(settings: &Settings) -> Result<Option<AutoCompaction>, Error> {
    let mode = settings.text("auto-compaction-mode");
    let retention = settings.text("auto-compaction-retention");
    let number: Option<u64> = retention.strip_prefix('+').unwrap_or(&retention).parse().ok();
    match mode.as_str() {
        "revision" => match number {
            Some(0) => Ok(None),
            Some(revisions) => Ok(Some(AutoCompaction::Revisions(revisions))),
            None => Err(Error::CompactionRevisions(retention)),
        },
        "periodic" => {
            let nanoseconds = match number {
                Some(hours) => number::parse_duration(&format!("{hours}h")),
                None => number::parse_duration(&retention),
            };
            let nanoseconds =
                nanoseconds.map_err(|error| Error::CompactionRetention(error.to_string()))?;
            let period = duration(nanoseconds).filter(|period| !period.is_zero());
            Ok(period.map(AutoCompaction::Periodic))
        }
        "" => Err(Error::NoCompactionMode),
        _ => Err(Error::CompactionMode(mode)),
    }
}

fn compaction_batch(settings: &Settings) -> Result<usize, Error> {
    let revisions = match settings.int("compaction-batch-limit") {
        0 => COMPACTION_BATCH_REVISIONS_DEFAULT,
        given => given,
    };
    usize::try_from(revisions)
        .map_err(|_| Error::Negative { setting: "--compaction-batch-limit", given: revisions })
}

fn watch_progress(settings: &Settings, notices: &mut Vec<Notice>) -> Duration {
    let interval = or_usual(settings, "watch-progress-notify-interval", WATCH_PROGRESS_DEFAULT);
    if interval < WATCH_PROGRESS_MIN {
        let setting = "--watch-progress-notify-interval";
        notices.push(Notice::Raised { setting, to: WATCH_PROGRESS_MIN });
    }
    interval.max(WATCH_PROGRESS_MIN)
}

/// Other words than the two are basic to etcd, so they must not stop a start.
fn metrics(settings: &Settings, notices: &mut Vec<Notice>) -> MetricsDetail {
    let word = settings.text("metrics");
    match word.as_str() {
        "extensive" => MetricsDetail::Extensive,
        "basic" => MetricsDetail::Basic,
        _ => {
            notices.push(Notice::UnknownMetrics { word });
            MetricsDetail::Basic
        }
    }
}

fn allow_list(names: Vec<String>) -> AllowList {
    let names: BTreeSet<String> = names.into_iter().filter(|name| !name.is_empty()).collect();
    if names.is_empty() || names.contains("*") { AllowList::Any } else { AllowList::Only(names) }
}

fn wal_flush_delay(settings: &Settings) -> Result<Duration, Error> {
    let given = settings.nanoseconds("wal-flush-delay");
    duration(given).ok_or(Error::Negative { setting: "--wal-flush-delay", given })
}

/// Those that were named, and those of the preset: each once, in their order.
fn initial_split_keys(settings: &Settings) -> Vec<String> {
    let mut keys = settings.texts("initial-split-keys");
    if settings.text("initial-split-preset") == "kubernetes" {
        keys.extend(KUBERNETES_KEYS.map(str::to_owned));
    }
    keys.sort();
    keys.dedup();
    keys
}

fn zone(settings: &Settings) -> Result<String, Error> {
    let zone = settings.text("zone");
    if zone.len() > ZONE_BYTES_MAX {
        return Err(Error::Zone { given: zone.len(), max: ZONE_BYTES_MAX });
    }
    Ok(zone)
}

fn range_replicas(settings: &Settings) -> Result<usize, Error> {
    let given = settings.uint("initial-range-replicas");
    if !(1..=u64::from(REPLICAS_WANTED_MAX)).contains(&given) {
        return Err(Error::RangeReplicas { given, max: REPLICAS_WANTED_MAX });
    }
    Ok(settings.size("initial-range-replicas"))
}

/// A duration that is zero or more.
fn distributed_tracing(settings: &Settings) -> Result<Option<DistributedTracing>, Error> {
    if !settings.bool("enable-distributed-tracing") {
        return Ok(None);
    }
    let given = settings.int("distributed-tracing-sampling-rate");
    let samples_per_million = u32::try_from(given).ok();
    let samples_per_million = samples_per_million.filter(|it| *it <= SAMPLES_PER_MILLION_MAX);
    Ok(Some(DistributedTracing {
        address: settings.text("distributed-tracing-address"),
        service_name: settings.text("distributed-tracing-service-name"),
        instance_id: settings.text("distributed-tracing-instance-id"),
        samples_per_million: samples_per_million.ok_or(match given < 0 {
            true => Error::SamplingNegative,
            false => Error::SamplingTooOften { max: SAMPLES_PER_MILLION_MAX },
        })?,
    }))
}

fn positive(
    settings: &Settings,
    name: &'static str,
    setting: &'static str,
) -> Result<Duration, Error> {
    let given = settings.nanoseconds(name);
    duration(given).ok_or(Error::Negative { setting, given })
}

fn corrupt_checks(settings: &Settings) -> Result<CorruptChecks, Error> {
    let every = positive(settings, "corrupt-check-time", "--corrupt-check-time")?;
    let pause = positive(settings, "compact-hash-check-time", "--compact-hash-check-time")?;
    let is_on = settings.gate(COMPACTION_CHECK).unwrap_or(true);
    Ok(CorruptChecks { every, after_compactions: is_on.then_some(pause) })
}

/// A node that missed a heartbeat or two is not dead.
fn dead_after(settings: &Settings) -> Result<Duration, Error> {
    let given = positive(settings, "dead-after", "--dead-after")?;
    if given < DEAD_AFTER_MIN {
        return Err(Error::DeadAfter { given, min: DEAD_AFTER_MIN });
    }
    Ok(given)
}

fn split_limit(setting: &'static str, given: u64, min: u64) -> Result<u64, Error> {
    if given < min {
        return Err(Error::SplitLimit { setting, given, min });
    }
    Ok(given)
}

fn workers(settings: &Settings) -> Result<usize, Error> {
    let given = settings.uint("workers");
    if given > WORKERS_MAX {
        return Err(Error::Workers { given, max: WORKERS_MAX });
    }
    Ok(settings.size("workers"))
}

fn directory(settings: &Settings, name: &str, usual: impl FnOnce() -> PathBuf) -> PathBuf {
    let given = settings.text(name);
    if given.is_empty() { usual() } else { PathBuf::from(given) }
}

fn or_default(given: u64, default: u64) -> u64 {
    if given == 0 { default } else { given }
}

/// The value of a flag for which 0 means the usual; negative counts as no time at all.
fn or_usual(settings: &Settings, name: &str, usual: Duration) -> Duration {
    match settings.nanoseconds(name) {
        0 => usual,
        given => duration(given).unwrap_or_default(),
    }
}

fn duration_or_zero(settings: &Settings, name: &str) -> Duration {
    duration(settings.nanoseconds(name)).unwrap_or_default()
}

/// None for a negative number.
fn duration(nanoseconds: i64) -> Option<Duration> {
    u64::try_from(nanoseconds).ok().map(Duration::from_nanos)
}

fn join(urls: &[Url]) -> String {
    urls.iter().map(Url::as_str).collect::<Vec<&str>>().join(",")
}

/// A cost that bcrypt cannot take becomes the usual one, as in etcd.
fn bcrypt_cost(settings: &Settings) -> u32 {
    let given = u32::try_from(settings.uint("bcrypt-cost")).unwrap_or(u32::MAX);
    if BCRYPT_COSTS.contains(&given) { given } else { BCRYPT_COST_DEFAULT }
}
