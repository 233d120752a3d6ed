//! When leases end. Which leases exist is decided in the spine's log; here is what only the leader
//! knows: deadlines, and which leases are due.

mod book;
mod ttl;

pub use book::{
    Absent, Book, DUE_INTERVAL, DUE_MAX, MARK_INTERVAL, MARK_PASS_INTERVAL, MARKS_MAX,
    REVOKE_RETRY, Renewal, SPREAD_LEASES_MIN, SPREAD_PER_SECOND, TimeLeft,
};
pub use ttl::{TTL_SECS_MAX, ttl_effective, ttl_secs_min};

#[cfg(test)]
mod tests;
