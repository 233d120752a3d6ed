//! The limits and times that follow from the configuration by etcd's arithmetic, each with its
//! unit. Pure numbers; the places that keep to them are elsewhere.

use std::time::Duration;

use super::Config;

/// What a request may cost and how long things may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Ticks of a heartbeat interval without a leader before a follower campaigns.
    pub election_ticks: u32,
    /// How long a proposal, a read index or a forwarded lease call may wait: 5 s and twice the
    /// election timeout.
    pub request_timeout: Duration,
    /// Streams opened with `hasleader` are cut after this long without a leader.
    pub leaderless_stream_timeout: Duration,
    /// Leases are granted at least this long: one and a half election timeouts, in whole seconds.
    pub lease_ttl_seconds_min: i64,
    /// Size of the largest encoded command.
    pub command_bytes_max: usize,
    /// Size of the largest gRPC message that is received. A watch response of this size or more
    /// is cut into fragments for a client that asks for it.
    pub message_bytes_max: usize,
    /// Size of the largest gRPC message that is sent.
    pub answer_bytes_max: usize,
    /// Operations in each list of a transaction.
    pub txn_ops_max: usize,
    /// Learners in the cluster.
    pub learners_max: usize,
    /// Committed entries not yet applied beyond which new commands are refused.
    pub apply_backlog_entries_max: u64,
}

/// Part of the request timeout that does not depend on the election timeout.
const REQUEST_TIMEOUT_BASE: Duration = Duration::from_secs(5);
/// What gRPC may add to a command: other fields and the wrapping.
const MESSAGE_OVERHEAD_BYTES: usize = 512 * 1024;
/// gRPC's own limit, the largest signed 32-bit number.
const ANSWER_BYTES_MAX: usize = i32::MAX as usize;
const APPLY_BACKLOG_ENTRIES_MAX: u64 = 5_000;
/// Election timeouts without a leader after which a stream that asked for one is cut.
const LEADERLESS_STREAM_ELECTIONS: u32 = 3;

impl Limits {
    /// Source: etcd config.ReqTimeout and NewServer, which count in whole ticks.
    pub(super) fn of(config: &Config) -> Limits {
        let tick = config.heartbeat_interval;
        let election_ticks = config.election_timeout.as_millis() / tick.as_millis();
        let election_ticks = u32::try_from(election_ticks)
            .expect("the longest election timeout is 50000 ticks of a millisecond");
        let election_timeout = tick * election_ticks;
        Limits {
            election_ticks,
            request_timeout: REQUEST_TIMEOUT_BASE + 2 * election_timeout,
            leaderless_stream_timeout: LEADERLESS_STREAM_ELECTIONS * election_timeout,
            lease_ttl_seconds_min: whole_seconds(tick * (3 * election_ticks / 2)),
            command_bytes_max: config.max_request_bytes,
            message_bytes_max: config.max_request_bytes.saturating_add(MESSAGE_OVERHEAD_BYTES),
            answer_bytes_max: ANSWER_BYTES_MAX,
            txn_ops_max: config.max_txn_ops,
            learners_max: config.max_learners,
            apply_backlog_entries_max: APPLY_BACKLOG_ENTRIES_MAX,
        }
    }
}

/// Rounded up.
fn whole_seconds(duration: Duration) -> i64 {
    let seconds = duration.as_millis().div_ceil(1000);
    i64::try_from(seconds).expect("one and a half election timeouts are at most 75 seconds")
}
