//! Names that etcd has for what is done here beside answering calls: shown from the start, with 0,
//! so that an alert never takes a missing series for a good one. One table for each kind; whoever
//! counts seldom names the constant, whoever counts often keeps the handle.

use std::collections::BTreeSet;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder};

pub const AUTH_REVISION: &str = "etcd_debugging_auth_revision";
pub const LEASES_GRANTED: &str = "etcd_debugging_lease_granted_total";
pub const LEASES_RENEWED: &str = "etcd_debugging_lease_renewed_total";
pub const LEASES_REVOKED: &str = "etcd_debugging_lease_revoked_total";
pub const LEASES_EXPIRED: &str = "etcd_debugging_server_lease_expired_total";
pub const LEASE_TTL: &str = "etcd_debugging_lease_ttl_total";
pub const COMPACTION_KEYS: &str = "etcd_debugging_mvcc_db_compaction_keys_total";
pub const COMPACTION_LAST: &str = "etcd_debugging_mvcc_db_compaction_last";
pub const COMPACTION_PAUSE: &str = "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds";
pub const COMPACTION_TOTAL: &str = "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds";
pub const PUT_BYTES: &str = "etcd_debugging_mvcc_total_put_size_in_bytes";
pub const ALARMS: &str = "etcd_debugging_server_alarms";
pub const COMMIT_SECONDS: &str = "etcd_disk_backend_commit_duration_seconds";
pub const DEFRAG_SECONDS: &str = "etcd_disk_backend_defrag_duration_seconds";
pub const BACKUP_SECONDS: &str = "etcd_disk_backend_snapshot_duration_seconds";
pub const WAL_BYTES: &str = "etcd_disk_wal_write_bytes_total";
pub const WAL_WRITE_SECONDS: &str = "etcd_disk_wal_write_duration_seconds";
pub const OPEN_VIEWS: &str = "etcd_mvcc_db_open_read_transactions";
pub const HASH_SECONDS: &str = "etcd_mvcc_hash_duration_seconds";
pub const HASH_KV_SECONDS: &str = "etcd_mvcc_hash_rev_duration_seconds";
pub const TXNS: &str = "etcd_mvcc_txn_total";
pub const ACTIVE_PEERS: &str = "etcd_network_active_peers";
pub const KNOWN_PEERS: &str = "etcd_network_known_peers";
pub const DISCONNECTED_PEERS: &str = "etcd_network_disconnected_peers_total";
pub const PEER_RECEIVED_BYTES: &str = "etcd_network_peer_received_bytes_total";
pub const PEER_RECEIVED_FAILURES: &str = "etcd_network_peer_received_failures_total";
pub const PEER_ROUND_TRIP: &str = "etcd_network_peer_round_trip_time_seconds";
pub const PEER_SENT_BYTES: &str = "etcd_network_peer_sent_bytes_total";
pub const PEER_SENT_FAILURES: &str = "etcd_network_peer_sent_failures_total";
pub const STREAM_FAILURES: &str = "etcd_network_server_stream_failures_total";
pub const SNAPSHOT_RECEIVE_FAILURES: &str = "etcd_network_snapshot_receive_failures";
pub const SNAPSHOT_RECEIVING: &str = "etcd_network_snapshot_receive_inflights_total";
pub const SNAPSHOT_RECEIVED: &str = "etcd_network_snapshot_receive_success";
pub const SNAPSHOT_RECEIVE_SECONDS: &str = "etcd_network_snapshot_receive_total_duration_seconds";
pub const SNAPSHOT_SEND_FAILURES: &str = "etcd_network_snapshot_send_failures";
pub const SNAPSHOT_SENDING: &str = "etcd_network_snapshot_send_inflights_total";
pub const SNAPSHOT_SENT: &str = "etcd_network_snapshot_send_success";
pub const SNAPSHOT_SEND_SECONDS: &str = "etcd_network_snapshot_send_total_duration_seconds";
pub const LATE_HEARTBEATS: &str = "etcd_server_heartbeat_send_failures_total";
pub const LEADER_CHANGES: &str = "etcd_server_leader_changes_seen_total";
pub const PROMOTE_FAILURES: &str = "etcd_server_learner_promote_failures";
pub const PROMOTED: &str = "etcd_server_learner_promote_successes";
pub const PROPOSALS_FAILED: &str = "etcd_server_proposals_failed_total";
pub const PROPOSALS_PENDING: &str = "etcd_server_proposals_pending";
pub const RANGE_SECONDS: &str = "etcd_server_range_duration_seconds";
pub const READ_INDEXES_FAILED: &str = "etcd_server_read_indexes_failed_total";
pub const READ_INDEXES_SLOW: &str = "etcd_server_slow_read_indexes_total";
pub const REQUEST_SECONDS: &str = "etcd_server_request_duration_seconds";
pub const SLOW_APPLIES: &str = "etcd_server_slow_apply_total";
pub const SNAPSHOT_INSTALLING: &str = "etcd_server_snapshot_apply_in_progress_total";
pub const SNAPSHOT_FSYNC_SECONDS: &str = "etcd_snap_db_fsync_duration_seconds";
pub const SNAPSHOT_SAVE_SECONDS: &str = "etcd_snap_db_save_total_duration_seconds";
/// Scrapes of /metrics, by the status they were answered with.
pub const SCRAPES: &str = "promhttp_metric_handler_requests_total";
pub const SCRAPES_UNDER_WAY: &str = "promhttp_metric_handler_requests_in_flight";

/// What a name counts, without labels.
const COUNTERS: [(&str, &str); 13] = [
    (LEASES_GRANTED, "leases granted"),
    (LEASES_RENEWED, "renewals of leases, on the leader"),
    (LEASES_REVOKED, "leases revoked"),
    (LEASES_EXPIRED, "leases that expired"),
    (COMPACTION_KEYS, "revisions that compaction removed"),
    (TXNS, "applied writes that change more than one key"),
    (LATE_HEARTBEATS, "heartbeats that this leader sent late"),
    (LEADER_CHANGES, "leaders of the spine that were seen to come"),
    (PROMOTED, "learners promoted through this member"),
    (PROPOSALS_FAILED, "commands that came to no known end"),
    (READ_INDEXES_FAILED, "reads for which no leader answered"),
    (READ_INDEXES_SLOW, "reads for which no leader answered in time"),
    (SLOW_APPLIES, "batches that were applied slower than the limit of the warning"),
];

/// The same by labels, which are known when there is something to count.
const COUNTERS_LABELLED: [(&str, &str); 13] = [
    (DISCONNECTED_PEERS, "connections to peers that ended"),
    (PEER_RECEIVED_BYTES, "bytes received from a peer"),
    (PEER_RECEIVED_FAILURES, "streams of a peer that broke"),
    (PEER_SENT_BYTES, "bytes sent to a peer"),
    (PEER_SENT_FAILURES, "connections to a peer that were not made, or broke"),
    (STREAM_FAILURES, "streams of clients that broke"),
    (SNAPSHOT_RECEIVE_FAILURES, "snapshots that were not received"),
    (SNAPSHOT_RECEIVED, "snapshots received"),
    (SNAPSHOT_SEND_FAILURES, "snapshots that were not sent"),
    (SNAPSHOT_SENT, "snapshots sent"),
    (PROMOTE_FAILURES, "learners not promoted, by reason"),
    (SCRAPES, "answers of /metrics, by status"),
    (super::CLIENT_REQUESTS, "calls by version of the client"),
];

const GAUGES: [(&str, &str); 8] = [
    (AUTH_REVISION, "revision of users and roles"),
    (COMPACTION_LAST, "when compaction last ended, in seconds since 1970; 0 if it has not"),
    (PUT_BYTES, "bytes of keys and values put"),
    (WAL_BYTES, "bytes written to the log"),
    (OPEN_VIEWS, "snapshots of the store that somebody reads"),
    (PROPOSALS_PENDING, "commands of clients of this member that wait for their end"),
    (SNAPSHOT_INSTALLING, "1 while a snapshot is put in the place of what the store has"),
    (SCRAPES_UNDER_WAY, "scrapes of /metrics under way"),
];

const GAUGES_LABELLED: [(&str, &str); 5] = [
    (ALARMS, "1 while a member has an alarm"),
    (ACTIVE_PEERS, "1 while there is a connection to a peer"),
    (KNOWN_PEERS, "1 for each peer"),
    (SNAPSHOT_RECEIVING, "snapshots of a peer that are being received"),
    (SNAPSHOT_SENDING, "snapshots that are being sent to a peer"),
];

/// First bucket, the factor to the next, how many: those of etcd.
type Buckets = (f64, f64, i32);

const HISTOGRAMS: [(&str, Buckets, &str); 12] = [
    (LEASE_TTL, (1.0, 2.0, 24), "seconds of the leases granted"),
    (COMPACTION_PAUSE, (1.0, 2.0, 13), "milliseconds of one step of compaction"),
    (COMPACTION_TOTAL, (100.0, 2.0, 14), "milliseconds from a compaction's first step to its last"),
    (COMMIT_SECONDS, (0.001, 2.0, 14), "writing one batch to the store"),
    (DEFRAG_SECONDS, (0.1, 2.0, 13), "giving space back"),
    (BACKUP_SECONDS, (0.01, 2.0, 17), "reading a backup"),
    (WAL_WRITE_SECONDS, (0.001, 2.0, 14), "handing one write of the log to the system"),
    (super::WAL_FSYNC_SECONDS, (0.001, 2.0, 14), "one flush of the log"),
    (HASH_SECONDS, (0.01, 2.0, 15), "the work of Hash"),
    (HASH_KV_SECONDS, (0.01, 2.0, 15), "the work of HashKV"),
    (SNAPSHOT_FSYNC_SECONDS, (0.001, 2.0, 14), "making a received snapshot durable"),
    (SNAPSHOT_SAVE_SECONDS, (0.1, 2.0, 10), "saving a received snapshot"),
];

const HISTOGRAMS_LABELLED: [(&str, Buckets, &str); 5] = [
    (PEER_ROUND_TRIP, (0.0001, 2.0, 16), "from a probe of a peer to its echo"),
    (SNAPSHOT_RECEIVE_SECONDS, (0.1, 2.0, 10), "receiving a snapshot"),
    (SNAPSHOT_SEND_SECONDS, (0.1, 2.0, 10), "sending a snapshot"),
    (RANGE_SECONDS, (0.0001, 2.0, 20), "carrying out a read"),
    (REQUEST_SECONDS, (0.001, 2.0, 14), "from a request to its end, by kind"),
];

/// With the buckets of all histograms of this file.
pub(super) fn with_buckets(builder: PrometheusBuilder) -> Result<PrometheusBuilder, BuildError> {
    let all = HISTOGRAMS.iter().chain(&HISTOGRAMS_LABELLED);
    all.into_iter().try_fold(builder, |builder, (name, (first, factor, count), _)| {
        let buckets: Vec<f64> = (0..*count).map(|n| first * factor.powi(n)).collect();
        builder.set_buckets_for_metric(Matcher::Full((*name).to_owned()), &buckets)
    })
}

/// Describes all names, and shows those that have no labels.
pub(super) fn describe() {
    for (name, help) in COUNTERS {
        describe_counter!(name, help);
        counter!(name).absolute(0);
    }
    for (name, help) in COUNTERS_LABELLED {
        describe_counter!(name, help);
    }
    for (name, help) in GAUGES {
        describe_gauge!(name, help);
        gauge!(name).set(0.0);
    }
    for (name, help) in GAUGES_LABELLED {
        describe_gauge!(name, help);
    }
    for (name, _, help) in HISTOGRAMS {
        describe_histogram!(name, help);
        let _ = histogram!(name);
    }
    for (name, _, help) in HISTOGRAMS_LABELLED {
        describe_histogram!(name, help);
    }
    for side in ["receive", "send"] {
        for api in ["watch", "lease-keepalive"] {
            counter!(STREAM_FAILURES, "Type" => side, "API" => api).absolute(0);
        }
    }
    for code in ["200", "500", "503"] {
        counter!(SCRAPES, "code" => code).absolute(0);
    }
    super::requests::show();
}

/// An id as etcd shows it.
pub(super) fn hex(id: u64) -> String {
    format!("{id:x}")
}

/// The log has written and flushed once.
pub fn flushed(bytes: u64, write: Duration, sync: Duration) {
    static METERS: OnceLock<(Gauge, Histogram, Histogram)> = OnceLock::new();
    let (written, write_seconds, sync_seconds) = METERS.get_or_init(|| {
        let sync_seconds = histogram!(super::WAL_FSYNC_SECONDS);
        (gauge!(WAL_BYTES), histogram!(WAL_WRITE_SECONDS), sync_seconds)
    });
    written.increment(bytes as f64);
    write_seconds.record(write);
    sync_seconds.record(sync);
}

/// A batch was written to the store: how long that took, the bytes it put, and how many of its
/// writes change more than one key.
pub fn committed(took: Duration, put_bytes: usize, txns_count: usize) {
    static METERS: OnceLock<(Histogram, Gauge, Counter)> = OnceLock::new();
    let (seconds, bytes, txns) =
        METERS.get_or_init(|| (histogram!(COMMIT_SECONDS), gauge!(PUT_BYTES), counter!(TXNS)));
    seconds.record(took);
    bytes.increment(put_bytes as f64);
    txns.increment(txns_count as u64);
}

/// One step of compaction removed so many revisions.
pub fn compaction_step(took: Duration, removed_count: usize) {
    histogram!(COMPACTION_PAUSE).record(took.as_secs_f64() * 1e3);
    counter!(COMPACTION_KEYS).increment(removed_count as u64);
}

/// A compaction ended.
pub fn compacted(took: Duration) {
    histogram!(COMPACTION_TOTAL).record(took.as_secs_f64() * 1e3);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    gauge!(COMPACTION_LAST).set(now.as_secs() as f64);
}

/// What happened to leases on this member since it started; cumulative.
pub fn leases(granted: u64, renewed: u64, revoked: u64, expired: u64) {
    counter!(LEASES_GRANTED).absolute(granted);
    counter!(LEASES_RENEWED).absolute(renewed);
    counter!(LEASES_REVOKED).absolute(revoked);
    counter!(LEASES_EXPIRED).absolute(expired);
}

/// The alarms there are: of which member, of which kind. One that has ended shows 0.
pub fn alarms(active: BTreeSet<(u64, String)>) {
    static SHOWN: Mutex<BTreeSet<(u64, String)>> = Mutex::new(BTreeSet::new());
    let mut shown = SHOWN.lock().unwrap_or_else(PoisonError::into_inner);
    shown.extend(active.iter().cloned());
    for alarm in shown.iter() {
        let (member, kind) = alarm;
        gauge!(ALARMS, "server_id" => hex(*member), "alarm_type" => kind.clone())
            .set(f64::from(u8::from(active.contains(alarm))));
    }
}

/// A stream of a client broke while a message was expected.
pub fn stream_broke(api: &'static str) {
    counter!(STREAM_FAILURES, "Type" => "receive", "API" => api).increment(1);
}

/// A learner was to be promoted.
pub fn promotion(result: Result<(), &'static str>) {
    match result {
        Ok(()) => counter!(PROMOTED).increment(1),
        Err(reason) => counter!(PROMOTE_FAILURES, "Reason" => reason).increment(1),
    }
}
