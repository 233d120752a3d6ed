//! What a request was let in with, and whether that still holds where it takes its place in the
//! order.

use crate::Error;

/// What a request was let in with: under which state of users, roles and permissions it was
/// checked. Only a check makes one for a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pass(u64);

impl Pass {
    /// Authentication was off, so nobody was asked for.
    pub const NOBODY: Self = Self(0);
    /// A node's own request: no client has caused it, or it is not checked where it is ordered.
    pub const NODE: Self = Self(u64::MAX);

    /// Checked in the state whose last change is at this spine index, with authentication on.
    pub(super) fn checked_at(changed_at: u64) -> Self {
        assert!(changed_at != 0 && changed_at != u64::MAX, "who enables authentication changes it");
        Self(changed_at)
    }

    /// As the logs and other nodes have it.
    pub const fn number(self) -> u64 {
        self.0
    }

    /// From another node, or from a log.
    pub const fn from_number(number: u64) -> Self {
        Self(number)
    }
}

/// As much of the state as it takes to say whether a pass still holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Admission {
    /// Whether authentication is on.
    pub is_enabled: bool,
    /// Spine index of the last change.
    pub changed_at: u64,
}

impl Admission {
    /// Whether what was let in with this pass would be let in again.
    ///
    /// # Errors
    /// Authentication is on, and nobody was asked for; or users, roles or permissions have changed
    /// since.
    pub fn admits(self, pass: Pass) -> Result<(), Error> {
        match pass {
            Pass::NODE => Ok(()),
            _ if !self.is_enabled => Ok(()),
            Pass::NOBODY => Err(Error::UserEmpty),
            Pass(changed_at) if changed_at == self.changed_at => Ok(()),
            Pass(_) => Err(Error::AuthOldRevision),
        }
    }
}
