//! The one clock of a run: microseconds since it began, from the monotonic clock of this process,
//! which makes the stamps of all clients and all faults comparable.

use std::time::{Duration, Instant};

use crate::history::Stamp;

/// Stamps a second has.
pub const STAMPS_PER_SECOND: u64 = 1_000_000;

/// The clock of a run.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    began: Instant,
}

impl Clock {
    /// A clock that shows zero.
    pub fn start() -> Self {
        Self { began: Instant::now() }
    }

    /// Microseconds since the start.
    pub fn now(&self) -> Stamp {
        Stamp::try_from(self.began.elapsed().as_micros()).expect("a run is shorter than an age")
    }
}

/// A stamp as a length of time.
pub fn duration(stamp: Stamp) -> Duration {
    Duration::from_micros(stamp)
}

/// A length of time in stamps.
pub fn stamps(duration: Duration) -> Stamp {
    Stamp::try_from(duration.as_micros()).expect("a run is shorter than an age")
}

/// A stamp in seconds, as a person reads it.
pub fn seconds(stamp: Stamp) -> f64 {
    // A run is far shorter than the 2^53 microseconds that are exact.
    stamp as f64 / STAMPS_PER_SECOND as f64
}
