//! Every metric of a node: its name, unit and meaning, in one place, under etcd's names wherever
//! etcd has one. Handles of what is counted for each request are made once and kept.

pub mod peers;
mod process;
pub mod requests;
pub mod sample;
pub mod shown;
pub mod upstream;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use flotilla_core::proto::internal::Heartbeat;
use flotilla_core::watch::Counts;
use flotilla_placement::{Rule, Step};
use metrics::{
    Counter, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tonic::Code;

use crate::api::{Method, Streaming};

/// Time to apply one batch of committed entries, in seconds.
pub const APPLY_SECONDS: &str = "flotilla_apply_seconds";
/// Time that a call spent in a phase, in seconds; of one call in some.
pub const PHASE_SECONDS: &str = "flotilla_request_phase_seconds";
/// Frames for peers that were dropped because too many waited.
pub const PEER_FRAMES_DROPPED: &str = "flotilla_peer_frames_dropped_total";
/// Handshakes of TLS on the ports of this node that came to nothing.
pub const HANDSHAKES_FAILED: &str = "flotilla_tls_handshakes_failed_total";
/// Bytes of large answers that are being put together, or not sent yet.
pub const ANSWER_BYTES: &str = "flotilla_answer_bytes";
/// Reads that were refused as their answers found no room.
pub const ANSWERS_REFUSED: &str = "flotilla_answers_refused_total";
/// Comparisons of what this member holds with what others hold, by what came of them.
pub const DATA_COMPARISONS: &str = "flotilla_data_comparisons_total";
/// Times that data of this member that were found to be wrong were replaced by what the others hold.
pub const DATA_REBUILDS: &str = "flotilla_data_rebuilds_total";
/// Times that the log's disk did not answer for so long that this node gave up what it led.
pub const LOG_STALLS: &str = "flotilla_log_stalls_total";
/// Replicas of ranges on this node that sleep: they send nothing and need no time.
pub const RANGES_ASLEEP: &str = "flotilla_ranges_asleep";
/// How often a replica of a range was woken.
pub const RANGE_WAKES: &str = "flotilla_range_wakes_total";
/// Messages of consensus that replicas of ranges here had for peers.
pub const RANGE_MESSAGES: &str = "flotilla_range_messages_total";
/// Time the disk took for one flush of the log, in seconds. etcd's name.
pub const WAL_FSYNC_SECONDS: &str = "etcd_disk_wal_fsync_duration_seconds";

/// gRPC calls begun, by shape, service and method.
pub const GRPC_STARTED: &str = "grpc_server_started_total";
/// gRPC calls ended, also by the name of their code.
pub const GRPC_HANDLED: &str = "grpc_server_handled_total";
/// Messages received in gRPC calls.
pub const GRPC_RECEIVED: &str = "grpc_server_msg_received_total";
/// Messages sent in gRPC calls.
pub const GRPC_SENT: &str = "grpc_server_msg_sent_total";
/// Time from a call to its answer, in seconds. Only with extensive metrics.
pub const GRPC_SECONDS: &str = "grpc_server_handling_seconds";
/// Calls by the version that the client says it has.
pub const CLIENT_REQUESTS: &str = "etcd_server_client_requests_total";
/// Bytes of the messages of clients.
pub const CLIENT_RECEIVED_BYTES: &str = "etcd_network_client_grpc_received_bytes_total";
/// Bytes of the messages to clients.
pub const CLIENT_SENT_BYTES: &str = "etcd_network_client_grpc_sent_bytes_total";

/// Reads of a key or a span.
pub const RANGES: &str = "etcd_mvcc_range_total";
/// Keys written.
pub const PUTS: &str = "etcd_mvcc_put_total";
/// Keys removed.
pub const DELETES: &str = "etcd_mvcc_delete_total";

/// Events sent to watchers.
pub const WATCH_EVENTS: &str = "etcd_debugging_mvcc_events_total";
/// Open watch streams.
pub const WATCH_STREAMS: &str = "etcd_debugging_mvcc_watch_stream_total";
/// Open watchers.
pub const WATCHERS: &str = "etcd_debugging_mvcc_watcher_total";
/// Watchers that are behind.
pub const WATCHERS_SLOW: &str = "etcd_debugging_mvcc_slow_watcher_total";

/// The revision of the store.
pub const REVISION: &str = "etcd_debugging_mvcc_current_revision";
/// The compacted revision of the store.
pub const COMPACT_REVISION: &str = "etcd_debugging_mvcc_compact_revision";
/// Bytes of the store.
pub const STORE_BYTES: &str = "etcd_mvcc_db_total_size_in_bytes";
/// Bytes of the store that hold something.
pub const STORE_USED_BYTES: &str = "etcd_mvcc_db_total_size_in_use_in_bytes";
/// Bytes the store may take.
pub const QUOTA_BYTES: &str = "etcd_server_quota_backend_bytes";
/// 1 while the store gives back space.
pub const DEFRAG_INFLIGHT: &str = "etcd_disk_defrag_inflight";

/// Ranges of the cluster.
pub const RANGES_COUNT: &str = "flotilla_ranges";
/// Ranges that this node leads.
pub const LED_COUNT: &str = "flotilla_ranges_led";
/// Bytes of keys and values of a range that this node leads.
pub const RANGE_BYTES: &str = "flotilla_range_bytes";
/// Keys of such a range.
pub const RANGE_KEYS: &str = "flotilla_range_keys";
/// Writes to such a range in a second.
pub const RANGE_WRITES: &str = "flotilla_range_writes_per_second";
/// Bytes of these writes.
pub const RANGE_WRITE_BYTES: &str = "flotilla_range_write_bytes_per_second";
/// Entries that the follower of such a range lacks which is furthest behind.
pub const RANGE_LAG: &str = "flotilla_range_lag_entries";
/// Steps of placement that were begun, by kind and rule.
pub const PLACEMENT_STEPS: &str = "flotilla_placement_steps_total";
/// Steps that came to nothing.
pub const PLACEMENT_FAILED: &str = "flotilla_placement_steps_failed_total";
/// Steps that nothing here can carry out.
pub const PLACEMENT_REFUSED: &str = "flotilla_placement_steps_refused_total";
/// What placement cannot help, by the newest plan.
pub const PLACEMENT_COMPLAINTS: &str = "flotilla_placement_complaints";

/// 1 if a leader is known.
pub const HAS_LEADER: &str = "etcd_server_has_leader";
/// 1 if this member leads.
pub const IS_LEADER: &str = "etcd_server_is_leader";
/// 1 if this member is a learner.
pub const IS_LEARNER: &str = "etcd_server_is_learner";
/// Committed index of the spine.
pub const COMMITTED: &str = "etcd_server_proposals_committed_total";
/// Applied index of the spine.
pub const APPLIED: &str = "etcd_server_proposals_applied_total";
/// 1 for the version this member speaks.
pub const SERVER_VERSION: &str = "etcd_server_version";
/// 1 for the version of the cluster.
pub const CLUSTER_VERSION: &str = "etcd_cluster_version";
/// 1 for this member's id.
pub const SERVER_ID: &str = "etcd_server_id";

/// Probes of /health that found the node well.
pub const HEALTH_SUCCESS: &str = "etcd_server_health_success";
/// Probes of /health that did not.
pub const HEALTH_FAILURES: &str = "etcd_server_health_failures";
/// Last result of a check of /livez or /readyz.
pub const HEALTH_CHECK: &str = "etcd_server_healthcheck";
/// Results of the checks of /livez and /readyz.
pub const HEALTH_CHECKS: &str = "etcd_server_healthchecks_total";

/// Versions of clients that are told apart; further ones count as unknown, so that clients cannot
/// make any number of series.
const CLIENT_VERSIONS_MAX: usize = 32;
/// Ranges that have series of their own, from the first one led here on; the others are added up
/// as `other`, so that splits cannot make any number of series.
const RANGES_SHOWN_MAX: usize = 64;
/// How often what histograms have gathered is put into their buckets.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Sets metrics up. Must be called once, on a runtime.
///
/// # Errors
/// It was called before.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    let handle = upstream::with_buckets(PrometheusBuilder::new())?
        .set_buckets_for_metric(Matcher::Full(APPLY_SECONDS.to_owned()), &doubling(1e-4, 20))?
        .set_buckets_for_metric(Matcher::Full(PHASE_SECONDS.to_owned()), PHASE_BUCKETS)?
        .set_buckets_for_metric(Matcher::Full(GRPC_SECONDS.to_owned()), CLIENT_GOLANG_BUCKETS)?
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &doubling(1e-3, 14))?
        .install_recorder()?;
    describe();
    let upkeep = handle.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(UPKEEP_INTERVAL).await;
            upkeep.run_upkeep();
        }
    });
    Ok(handle)
}

/// The default buckets of Prometheus' library for Go, which etcd uses for its calls.
const CLIENT_GOLANG_BUCKETS: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// From ten microseconds to ten seconds.
const PHASE_BUCKETS: &[f64] =
    &[1e-5, 5e-5, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0];

fn doubling(first: f64, count: i32) -> Vec<f64> {
    (0..count).map(|n| first * 2_f64.powi(n)).collect()
}

fn describe() {
    describe_histogram!(APPLY_SECONDS, Unit::Seconds, "time to apply a batch of entries");
    describe_histogram!(
        PHASE_SECONDS,
        Unit::Seconds,
        "time that a call spent in a phase, of one call in 16"
    );
    describe_counter!(PEER_FRAMES_DROPPED, "frames for peers dropped as too many waited");
    describe_counter!(HANDSHAKES_FAILED, "handshakes of TLS that came to nothing");
    describe_gauge!(ANSWER_BYTES, Unit::Bytes, "bytes of large answers under way");
    describe_counter!(ANSWERS_REFUSED, "reads refused as their answers found no room");
    describe_counter!(DATA_COMPARISONS, "comparisons of this member's data with the others'");
    describe_counter!(DATA_REBUILDS, "wrong data of this member replaced by those of others");
    describe_counter!(LOG_STALLS, "stalls of the log's disk for which leaderships were given up");
    describe_gauge!(RANGES_ASLEEP, "replicas of ranges that sleep");
    describe_counter!(RANGE_WAKES, "replicas of ranges that were woken");
    describe_counter!(
        RANGE_MESSAGES,
        "messages of consensus that replicas of ranges had for peers"
    );
    describe_counter!(GRPC_STARTED, "gRPC calls begun");
    describe_counter!(GRPC_HANDLED, "gRPC calls ended, by code");
    describe_counter!(GRPC_RECEIVED, "messages received in gRPC calls");
    describe_counter!(GRPC_SENT, "messages sent in gRPC calls");
    describe_histogram!(GRPC_SECONDS, Unit::Seconds, "time from a gRPC call to its answer");
    describe_counter!(CLIENT_RECEIVED_BYTES, Unit::Bytes, "bytes received from clients");
    describe_counter!(CLIENT_SENT_BYTES, Unit::Bytes, "bytes sent to clients");
    describe_counter!(RANGES, "reads of a key or a span");
    describe_counter!(PUTS, "keys written");
    describe_counter!(DELETES, "keys removed");
    describe_counter!(WATCH_EVENTS, "events sent to watchers");
    describe_gauge!(WATCH_STREAMS, "open watch streams");
    describe_gauge!(WATCHERS, "open watchers");
    describe_gauge!(WATCHERS_SLOW, "watchers that are behind");
    describe_gauge!(REVISION, "revision of the store");
    describe_gauge!(COMPACT_REVISION, "compacted revision of the store");
    describe_gauge!(STORE_BYTES, Unit::Bytes, "bytes of the store");
    describe_gauge!(STORE_USED_BYTES, Unit::Bytes, "bytes of the store that hold something");
    describe_gauge!(QUOTA_BYTES, Unit::Bytes, "bytes the store may take");
    describe_gauge!(DEFRAG_INFLIGHT, "1 while the store gives back space");
    describe_gauge!(RANGES_COUNT, "ranges of the cluster");
    describe_gauge!(LED_COUNT, "ranges that this node leads");
    describe_gauge!(RANGE_BYTES, Unit::Bytes, "bytes of keys and values of a range led here");
    describe_gauge!(RANGE_KEYS, "keys of a range led here");
    describe_gauge!(RANGE_WRITES, "writes in a second to a range led here");
    describe_gauge!(
        RANGE_WRITE_BYTES,
        Unit::Bytes,
        "bytes written in a second to a range led here"
    );
    describe_gauge!(RANGE_LAG, "entries that the last follower of a range led here lacks");
    describe_counter!(PLACEMENT_STEPS, "steps of placement begun, by kind and rule");
    describe_counter!(PLACEMENT_FAILED, "steps of placement that came to nothing");
    describe_counter!(PLACEMENT_REFUSED, "steps of placement that cannot be carried out");
    describe_gauge!(PLACEMENT_COMPLAINTS, "what placement cannot help");
    describe_gauge!(HAS_LEADER, "1 if a leader is known");
    describe_gauge!(IS_LEADER, "1 if this member leads");
    describe_gauge!(IS_LEARNER, "1 if this member is a learner");
    describe_gauge!(COMMITTED, "committed index");
    describe_gauge!(APPLIED, "applied index");
    describe_gauge!(SERVER_VERSION, "1 for the version of this member");
    describe_gauge!(CLUSTER_VERSION, "1 for the version of the cluster");
    describe_gauge!(SERVER_ID, "1 for the id of this member");
    describe_counter!(HEALTH_SUCCESS, "probes of /health that found the node well");
    describe_counter!(HEALTH_FAILURES, "probes of /health that did not");
    describe_gauge!(HEALTH_CHECK, "last result of a check of /livez or /readyz");
    describe_counter!(HEALTH_CHECKS, "results of the checks of /livez and /readyz");
    process::describe();
    upstream::describe();
    for name in [HEALTH_SUCCESS, HEALTH_FAILURES] {
        counter!(name).increment(0);
    }
}

/// What is counted for each message or event.
pub struct Traffic {
    /// `CLIENT_RECEIVED_BYTES`.
    pub received_bytes: Counter,
    /// `CLIENT_SENT_BYTES`.
    pub sent_bytes: Counter,
    /// `RANGES`.
    pub ranges: Counter,
    /// `WATCH_EVENTS`.
    pub events: Counter,
}

/// The handles of `Traffic`. The first call must come after `install`.
pub fn traffic() -> &'static Traffic {
    static TRAFFIC: OnceLock<Traffic> = OnceLock::new();
    TRAFFIC.get_or_init(|| Traffic {
        received_bytes: counter!(CLIENT_RECEIVED_BYTES),
        sent_bytes: counter!(CLIENT_SENT_BYTES),
        ranges: counter!(RANGES),
        events: counter!(WATCH_EVENTS),
    })
}

/// Tells what changed among the watchers of a worker; all workers together make the figures.
pub fn watching(before: Counts, after: Counts) {
    let change = |name: &'static str, before: usize, after: usize| {
        gauge!(name).increment(after as f64 - before as f64);
    };
    change(WATCH_STREAMS, before.streams, after.streams);
    change(WATCHERS, before.watchers, after.watchers);
    change(WATCHERS_SLOW, before.slow_watchers, after.slow_watchers);
}

/// A defragmentation began (1) or ended (-1).
pub fn defrag_inflight(change: f64) {
    gauge!(DEFRAG_INFLIGHT).increment(change);
}

/// The counters of all gRPC methods, for one worker.
pub struct CallMeters {
    methods: Vec<Arc<MethodMeters>>,
    versions: Mutex<BTreeMap<String, [Counter; 2]>>,
}

struct MethodMeters {
    started: Counter,
    received: Counter,
    sent: Counter,
    /// By the number of the code.
    handled: Vec<Counter>,
    seconds: Option<Histogram>,
}

/// One call under way. Dropped before its end, it counts as cancelled.
pub struct CallMeter {
    meters: Arc<MethodMeters>,
    began: Option<Instant>,
    has_ended: std::sync::atomic::AtomicBool,
}

/// The names of codes as Go prints them, by number.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

const UNKNOWN_VERSION: &str = "unknown";

impl CallMeters {
    /// Makes all counters, so that each is there with 0 from the start. Must come after `install`.
    pub fn new(is_extensive: bool) -> Self {
        let methods = Method::ALL.iter().map(|method| Arc::new(meters(*method, is_extensive)));
        Self { methods: methods.collect(), versions: Mutex::new(BTreeMap::new()) }
    }

    /// A call began.
    pub fn begin(&self, method: Method) -> CallMeter {
        let meters = self.methods[method as usize].clone();
        meters.started.increment(1);
        let began = meters.seconds.is_some().then(Instant::now);
        CallMeter { meters, began, has_ended: false.into() }
    }

    /// Counts a call by the version of its client.
    pub fn count_client(&self, method: Method, version: Option<&str>) {
        let version = version.unwrap_or(UNKNOWN_VERSION);
        let n = usize::from(method.streaming() != Streaming::Unary);
        let mut versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(counters) = versions.get(version) {
            return counters[n].increment(1);
        }
        let is_room = versions.len() < CLIENT_VERSIONS_MAX;
        let version = if is_room { version } else { UNKNOWN_VERSION };
        let counters = ["unary", "stream"].map(|shape| {
            let version = version.to_owned();
            counter!(CLIENT_REQUESTS, "type" => shape, "client_api_version" => version)
        });
        counters[n].increment(1);
        if is_room {
            versions.insert(version.to_owned(), counters);
        }
    }
}

fn meters(method: Method, is_extensive: bool) -> MethodMeters {
    let labels = [
        ("grpc_type", method.streaming().label()),
        ("grpc_service", method.service()),
        ("grpc_method", method.name()),
    ];
    let with_code = |code: &'static str| {
        let [shape, service, name] = labels;
        counter!(GRPC_HANDLED, &[shape, service, name, ("grpc_code", code)])
    };
    MethodMeters {
        started: counter!(GRPC_STARTED, &labels),
        received: counter!(GRPC_RECEIVED, &labels),
        sent: counter!(GRPC_SENT, &labels),
        handled: CODES.into_iter().map(with_code).collect(),
        seconds: is_extensive.then(|| histogram!(GRPC_SECONDS, &labels)),
    }
}

impl CallMeter {
    /// A message of the client came.
    pub fn received(&self) {
        self.meters.received.increment(1);
    }

    /// The counter behind `received`.
    pub fn on_received(&self) -> Counter {
        self.meters.received.clone()
    }

    /// A message was sent.
    pub fn sent(&self) {
        self.meters.sent.increment(1);
    }

    /// The call ended. Only the first end counts.
    pub fn end(&self, code: Code) {
        if self.has_ended.swap(true, std::sync::atomic::Ordering::Relaxed) {
            return;
        }
        self.meters.handled[code as usize].increment(1);
        if let (Some(seconds), Some(began)) = (&self.meters.seconds, self.began) {
            seconds.record(began.elapsed());
        }
    }
}

impl Drop for CallMeter {
    fn drop(&mut self) {
        self.end(Code::Cancelled);
    }
}

/// Figures that are looked up when they are asked for.
pub struct Figures {
    /// `REVISION`.
    pub revision: i64,
    /// `COMPACT_REVISION`.
    pub compact_revision: i64,
    /// `COMMITTED`.
    pub committed: u64,
    /// `APPLIED`.
    pub applied: u64,
    /// `HAS_LEADER`.
    pub has_leader: bool,
    /// `IS_LEADER`.
    pub is_leader: bool,
    /// `IS_LEARNER`.
    pub is_learner: bool,
    /// `SERVER_ID`.
    pub member_id: u64,
    /// `CLUSTER_VERSION`; empty until it is known.
    pub cluster_version: String,
    /// `QUOTA_BYTES`.
    pub quota_bytes: u64,
    /// `STORE_BYTES` and `STORE_USED_BYTES`.
    pub store_bytes: Option<(u64, u64)>,
    /// `upstream::AUTH_REVISION`.
    pub auth_revision: u64,
    /// `upstream::OPEN_VIEWS`.
    pub open_views: u64,
    /// `upstream::PROPOSALS_PENDING`.
    pub proposals_pending: usize,
}

/// The text of /metrics.
pub fn render(handle: &PrometheusHandle) -> String {
    let text = handle.render();
    let gauge = format!("# TYPE {} gauge\n", process::CPU_SECONDS);
    text.replacen(&gauge, &gauge.replace("gauge", "counter"), 1)
}

/// Sets the figures that a look at the node gives.
pub fn look(figures: &Figures) {
    let set = |name: &'static str, value: f64| gauge!(name).set(value);
    let flag = |is_on: bool| f64::from(u8::from(is_on));
    set(REVISION, figures.revision as f64);
    set(COMPACT_REVISION, figures.compact_revision as f64);
    set(COMMITTED, figures.committed as f64);
    set(APPLIED, figures.applied as f64);
    set(HAS_LEADER, flag(figures.has_leader));
    set(IS_LEADER, flag(figures.is_leader));
    set(IS_LEARNER, flag(figures.is_learner));
    set(QUOTA_BYTES, figures.quota_bytes as f64);
    set(upstream::AUTH_REVISION, figures.auth_revision as f64);
    set(upstream::OPEN_VIEWS, figures.open_views as f64);
    set(upstream::PROPOSALS_PENDING, figures.proposals_pending as f64);
    if let Some((total, used)) = figures.store_bytes {
        set(STORE_BYTES, total as f64);
        set(STORE_USED_BYTES, used as f64);
    }
    gauge!(SERVER_VERSION, "server_version" => crate::ETCD_VERSION).set(1.0);
    gauge!(SERVER_ID, "server_id" => format!("{:x}", figures.member_id)).set(1.0);
    if let Some((major_and_minor, _)) = figures.cluster_version.rsplit_once('.') {
        gauge!(CLUSTER_VERSION, "cluster_version" => major_and_minor.to_owned()).set(1.0);
    }
    process::look();
}

/// Ranges that this node leads, as it tells of them, and how many there are in the cluster. A range
/// that is no longer led here shows zeros.
pub fn led(heartbeat: &Heartbeat, ranges_count: usize) {
    static SHOWN: Mutex<BTreeSet<u64>> = Mutex::new(BTreeSet::new());
    let mut shown = SHOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut rows: BTreeMap<Option<u64>, [u64; 5]> =
        shown.iter().map(|range| (Some(*range), [0; 5])).collect();
    for led in &heartbeat.led {
        if shown.len() < RANGES_SHOWN_MAX {
            shown.insert(led.range);
        }
        let row = rows.entry(shown.get(&led.range).copied()).or_default();
        let lag = led.replicas.iter().map(|it| it.lag_entries).max().unwrap_or(0);
        let sums = [led.bytes, led.keys, led.writes_per_second, led.write_bytes_per_second];
        for (sum, more) in row.iter_mut().zip(sums) {
            *sum = sum.saturating_add(more);
        }
        row[4] = row[4].max(lag);
    }
    const NAMES: [&str; 5] = [RANGE_BYTES, RANGE_KEYS, RANGE_WRITES, RANGE_WRITE_BYTES, RANGE_LAG];
    for (range, row) in rows {
        let label = range.map_or_else(|| "other".to_owned(), |range| range.to_string());
        for (name, value) in NAMES.into_iter().zip(row) {
            gauge!(name, "range" => label.clone()).set(value as f64);
        }
    }
    gauge!(LED_COUNT).set(heartbeat.led.len() as f64);
    gauge!(RANGES_COUNT).set(ranges_count as f64);
}

/// A step of placement begins.
pub fn decided(step: &Step, rule: Rule) {
    let kind = match step {
        Step::AddLearner { .. } => "add_learner",
        Step::Promote { .. } => "promote",
        Step::RemoveReplica { .. } => "remove_replica",
        Step::TransferLeader { .. } => "transfer_leader",
        Step::Split { .. } => "split",
        Step::Merge { .. } => "merge",
        Step::AddSpineVoter { .. } => "add_spine_voter",
        Step::DemoteSpineVoter { .. } => "demote_spine_voter",
        Step::MoveSpineLeader { .. } => "move_spine_leader",
    };
    counter!(PLACEMENT_STEPS, "step" => kind, "rule" => rule.name()).increment(1);
}

/// A step of placement came to nothing.
pub fn step_failed() {
    counter!(PLACEMENT_FAILED).increment(1);
}

/// A step of placement cannot be carried out.
pub fn step_refused() {
    counter!(PLACEMENT_REFUSED).increment(1);
}

/// What the newest plan cannot help.
pub fn complaints(count: usize) {
    gauge!(PLACEMENT_COMPLAINTS).set(count as f64);
}

/// A probe of /health.
pub fn health(is_well: bool) {
    counter!(if is_well { HEALTH_SUCCESS } else { HEALTH_FAILURES }).increment(1);
}

/// A check of /livez or /readyz; `page` without its slash.
pub fn health_check(page: &'static str, check: &'static str, is_well: bool) {
    let status = if is_well { "success" } else { "error" };
    let labels = [("type", page), ("name", check), ("status", status)];
    counter!(HEALTH_CHECKS, &labels).increment(1);
    gauge!(HEALTH_CHECK, &labels[..2]).set(f64::from(u8::from(is_well)));
}

/// A batch was applied: how long that took, and how many keys it wrote and removed.
pub fn applied(took: Duration, puts_count: usize, deletes_count: usize) {
    static METERS: OnceLock<(Histogram, Counter, Counter)> = OnceLock::new();
    let (seconds, puts, deletes) =
        METERS.get_or_init(|| (histogram!(APPLY_SECONDS), counter!(PUTS), counter!(DELETES)));
    seconds.record(took);
    puts.increment(puts_count as u64);
    deletes.increment(deletes_count as u64);
}
