//! The time a machine is told: a monotonic count of microseconds from an arbitrary start.
//! Machines never ask for it.

use std::ops::{Add, Sub};

/// Microseconds since the driver's start. Monotonic within one run of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub u64);

/// A length of time in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Length(pub u64);

impl Length {
    /// From whole milliseconds.
    pub const fn from_ms(ms: u64) -> Self {
        Self(ms * 1_000)
    }

    /// From whole seconds; saturates.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1_000_000))
    }

    /// Whole seconds, truncated.
    pub const fn as_secs(self) -> u64 {
        self.0 / 1_000_000
    }
}

impl Time {
    /// How long before `self` the earlier time is; zero when it is not earlier.
    pub fn since(self, earlier: Self) -> Length {
        Length(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Length> for Time {
    type Output = Self;
    fn add(self, length: Length) -> Self {
        Self(self.0.saturating_add(length.0))
    }
}

impl Sub<Length> for Time {
    type Output = Self;
    fn sub(self, length: Length) -> Self {
        Self(self.0.saturating_sub(length.0))
    }
}
