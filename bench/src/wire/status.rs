//! How a call ended: gRPC's status codes and the message beside them.

use std::fmt;

/// A gRPC status code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code(pub u8);

impl Code {
    /// The call was answered.
    pub const OK: Self = Self(0);
    /// The caller gave up.
    pub const CANCELLED: Self = Self(1);
    /// Something the codes have no word for.
    pub const UNKNOWN: Self = Self(2);
    /// The call took longer than its limit.
    pub const DEADLINE_EXCEEDED: Self = Self(4);
    /// The server is at a limit.
    pub const RESOURCE_EXHAUSTED: Self = Self(8);
    /// The server does not know the method.
    pub const UNIMPLEMENTED: Self = Self(12);
    /// The answer breaks the protocol.
    pub const INTERNAL: Self = Self(13);
    /// There is no connection, or no leader.
    pub const UNAVAILABLE: Self = Self(14);

    /// The name in gRPC's documents.
    #[must_use]
    pub fn name(self) -> &'static str {
        const NAMES: [&str; 17] = [
            "OK",
            "CANCELLED",
            "UNKNOWN",
            "INVALID_ARGUMENT",
            "DEADLINE_EXCEEDED",
            "NOT_FOUND",
            "ALREADY_EXISTS",
            "PERMISSION_DENIED",
            "RESOURCE_EXHAUSTED",
            "FAILED_PRECONDITION",
            "ABORTED",
            "OUT_OF_RANGE",
            "UNIMPLEMENTED",
            "INTERNAL",
            "UNAVAILABLE",
            "DATA_LOSS",
            "UNAUTHENTICATED",
        ];
        NAMES.get(usize::from(self.0)).copied().unwrap_or("UNKNOWN")
    }
}

/// A failed call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// What kind of failure.
    pub code: Code,
    /// The server's words, or ours when there is no answer.
    pub message: String,
}

impl Status {
    /// A failure in our own words.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.name(), self.message)
    }
}

impl std::error::Error for Status {}
