//! The figures of a member that operators are shown, by `flotilla top` and by the console: what its page
//! of metrics says, and what happened between two of them.

use super::sample::Sample;
use super::{
    GRPC_HANDLED, GRPC_STARTED, HAS_LEADER, IS_LEADER, IS_LEARNER, LED_COUNT, PUTS, QUOTA_BYTES,
    RANGES, REVISION, STORE_BYTES, STORE_USED_BYTES, WAL_FSYNC_SECONDS, WATCH_EVENTS,
    WATCH_STREAMS, WATCHERS, WATCHERS_SLOW, process, upstream,
};

const OK: &str = "grpc_code=\"OK\"";

/// What begins a line of a page that `Shown` is made of.
const FAMILIES: [&str; 25] = [
    GRPC_HANDLED,
    GRPC_STARTED,
    HAS_LEADER,
    IS_LEADER,
    IS_LEARNER,
    LED_COUNT,
    PUTS,
    QUOTA_BYTES,
    RANGES,
    REVISION,
    STORE_BYTES,
    STORE_USED_BYTES,
    WAL_FSYNC_SECONDS,
    WATCH_EVENTS,
    WATCH_STREAMS,
    WATCHERS,
    WATCHERS_SLOW,
    process::CPU_SECONDS,
    process::RESIDENT_BYTES,
    upstream::REQUEST_SECONDS,
    upstream::LEASES_GRANTED,
    upstream::LEASES_RENEWED,
    upstream::LEASES_REVOKED,
    upstream::LEASES_EXPIRED,
    upstream::PROPOSALS_PENDING,
];

/// The lines of a page that `Shown` is made of.
pub fn lines_of(page: &str) -> String {
    let is_one = |line: &&str| {
        FAMILIES.iter().any(|family| {
            let rest = line.strip_prefix(family);
            let rest = rest.map(|rest| rest.strip_prefix("_bucket").unwrap_or(rest));
            rest.is_some_and(|rest| rest.starts_with([' ', '{']))
        })
    };
    page.lines().filter(is_one).flat_map(|line| [line, "\n"]).collect()
}

/// What a member does in the spine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It leads.
    Leader,
    /// It has no vote.
    Learner,
    /// It knows of no leader.
    NoLeader,
    /// It follows one.
    Follower,
}

impl Role {
    /// As operators read it.
    pub fn name(self) -> &'static str {
        match self {
            Role::Leader => "leader",
            Role::Learner => "learner",
            Role::NoLeader => "no leader",
            Role::Follower => "follower",
        }
    }
}

/// Figures of a member. Rates are of the time between two pages; those of a process that has begun anew
/// in between are 0, as it counts from 0 again.
#[derive(Clone, Debug, PartialEq)]
pub struct Shown {
    /// In the spine.
    pub role: Role,
    /// Ranges it leads.
    pub led: f64,
    /// Keys written here, whoever was asked.
    pub puts_per_second: f64,
    /// Reads of a key or a span.
    pub reads_per_second: f64,
    /// gRPC calls begun.
    pub calls_per_second: f64,
    /// gRPC calls that ended with another code than OK.
    pub failed_per_second: f64,
    /// Commands of its clients that wait for their end.
    pub pending: f64,
    /// Events sent to watchers.
    pub events_per_second: f64,
    /// Open watch streams.
    pub watch_streams: f64,
    /// Open watchers.
    pub watchers: f64,
    /// Watchers that are behind.
    pub slow_watchers: f64,
    /// The end of the bucket of the slowest hundredth; `None` if nothing was flushed.
    pub flush_p99_seconds: Option<f64>,
    /// Likewise, of requests.
    pub request_p99_seconds: Option<f64>,
    /// Its store's revision.
    pub revision: f64,
    /// Bytes of its store.
    pub store_bytes: f64,
    /// Bytes of its store that hold something.
    pub store_used_bytes: f64,
    /// Bytes that its store may take; 0 if there is no limit.
    pub quota_bytes: f64,
    /// Bytes in memory.
    pub memory_bytes: f64,
    /// Processors kept busy: 1 is all of one.
    pub cpus: f64,
    /// Leases granted, as the log has it, since the process began.
    pub leases_granted: f64,
    /// Renewals of leases while it led, likewise.
    pub leases_renewed: f64,
    /// Leases ended, as the log has it, likewise.
    pub leases_revoked: f64,
    /// Leases found to have expired while it led, likewise.
    pub leases_expired: f64,
}

impl Shown {
    /// By two pages of a member, and the seconds between them.
    pub fn between(before: &Sample, now: &Sample, seconds: f64) -> Self {
        let figure = |name: &str| now.sum(name, &[]);
        let is = |name: &str| figure(name) > 0.0;
        let role = match () {
            () if is(IS_LEADER) => Role::Leader,
            () if is(IS_LEARNER) => Role::Learner,
            () if !is(HAS_LEADER) => Role::NoLeader,
            () => Role::Follower,
        };
        let per_second = |difference: f64| (difference / seconds).max(0.0);
        let rate = |name: &str| per_second(figure(name) - before.sum(name, &[]));
        let failed = |sample: &Sample| sample.sum_without(GRPC_HANDLED, OK);
        Self {
            role,
            led: figure(LED_COUNT),
            puts_per_second: rate(PUTS),
            reads_per_second: rate(RANGES),
            calls_per_second: rate(GRPC_STARTED),
            failed_per_second: per_second(failed(now) - failed(before)),
            pending: figure(upstream::PROPOSALS_PENDING),
            events_per_second: rate(WATCH_EVENTS),
            watch_streams: figure(WATCH_STREAMS),
            watchers: figure(WATCHERS),
            slow_watchers: figure(WATCHERS_SLOW),
            flush_p99_seconds: now.p99_since(before, WAL_FSYNC_SECONDS),
            request_p99_seconds: now.p99_since(before, upstream::REQUEST_SECONDS),
            revision: figure(REVISION),
            store_bytes: figure(STORE_BYTES),
            store_used_bytes: figure(STORE_USED_BYTES),
            quota_bytes: figure(QUOTA_BYTES),
            memory_bytes: figure(process::RESIDENT_BYTES),
            cpus: rate(process::CPU_SECONDS),
            leases_granted: figure(upstream::LEASES_GRANTED),
            leases_renewed: figure(upstream::LEASES_RENEWED),
            leases_revoked: figure(upstream::LEASES_REVOKED),
            leases_expired: figure(upstream::LEASES_EXPIRED),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_that_are_told_say_the_same_as_the_page() {
        let page = |puts: u32| {
            format!(
                "# TYPE etcd_server_is_leader gauge\netcd_server_is_leader 1\n\
                 etcd_mvcc_put_total {puts}\netcd_mvcc_put_total_of_another 7\n\
                 grpc_server_handled_total{{grpc_code=\"OK\"}} {puts}\n\
                 etcd_disk_wal_fsync_duration_seconds_bucket{{le=\"0.002\"}} {puts}\n\
                 etcd_disk_wal_fsync_duration_seconds_bucket{{le=\"+Inf\"}} {puts}\n\
                 etcd_disk_wal_fsync_duration_seconds_sum 3\n"
            )
        };
        let whole = Shown::between(&Sample::read(&page(10)), &Sample::read(&page(30)), 2.0);
        let lines = |page: String| Sample::read(&lines_of(&page));
        assert_eq!(Shown::between(&lines(page(10)), &lines(page(30)), 2.0), whole);
        assert_eq!((whole.role, whole.puts_per_second), (Role::Leader, 10.0));
        assert_eq!((whole.failed_per_second, whole.flush_p99_seconds), (0.0, Some(0.002)));
        assert_eq!(lines_of(&page(1)).lines().count(), 5, "{}", lines_of(&page(1)));
    }
}
