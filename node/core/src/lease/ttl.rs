//! How long a lease may live.

use crate::Error;
use crate::time::Length;

/// The longest lifetime that is granted, in seconds.
pub const TTL_SECS_MAX: i64 = 9_000_000_000;

/// The shortest lifetime that is granted, in seconds: one and a half election timeouts, counted in
/// whole heartbeats and rounded up to a second, so that a lease outlives a change of leader.
///
/// # Panics
/// The heartbeat is zero.
pub fn ttl_secs_min(heartbeat: Length, election_timeout: Length) -> i64 {
    let election_ticks = election_timeout.0 / heartbeat.0;
    let shortest = Length(3 * election_ticks / 2 * heartbeat.0);
    i64::try_from(shortest.0.div_ceil(Length::from_secs(1).0)).unwrap_or(TTL_SECS_MAX)
}

/// The lifetime that is granted when `wanted` is asked for, in seconds.
///
/// # Errors
/// `LeaseTtlTooLarge`.
pub fn ttl_effective(wanted: i64, secs_min: i64) -> Result<i64, Error> {
    if wanted > TTL_SECS_MAX { Err(Error::LeaseTtlTooLarge) } else { Ok(wanted.max(secs_min)) }
}
