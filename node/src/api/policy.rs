//! What is asked of every call before its method looks at it: may this member answer it, and does
//! the client insist on a leader. The one place for both.

use flotilla_core::Error;
use http::HeaderMap;

use super::method::{Method, OnLearner};
use crate::router::Board;

const CLIENT_API_VERSION: &str = "client-api-version";
const HAS_LEADER: &str = "hasleader";
const PHASES: &str = "flotilla-phases";

/// What the metadata of a call asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wishes {
    /// Not to be served without a leader.
    pub(super) needs_leader: bool,
    /// To be told where the time went.
    pub(super) wants_phases: bool,
    is_version_readable: bool,
}

impl Wishes {
    pub(super) fn read(headers: &HeaderMap) -> Self {
        let version = headers.get(CLIENT_API_VERSION);
        Self {
            needs_leader: headers.get(HAS_LEADER).is_some_and(|value| value == "true"),
            wants_phases: headers.get(PHASES).is_some_and(|value| value == "1"),
            is_version_readable: version
                .is_none_or(|value| std::str::from_utf8(value.as_bytes()).is_ok()),
        }
    }
}

/// The version a client says it is of, for metrics.
pub(super) fn client_api_version(headers: &HeaderMap) -> Option<&str> {
    std::str::from_utf8(headers.get(CLIENT_API_VERSION)?.as_bytes()).ok()
}

/// Refuses a call that this member must not answer. `is_local_read` tells of a request that asks
/// for nothing but the local state.
///
/// # Errors
/// In etcd's order: the member is a learner, the metadata is not text, there is no leader.
pub(super) fn admit(
    method: Method,
    wishes: Wishes,
    board: &Board,
    is_local_read: bool,
) -> Result<(), Error> {
    if board.is_learner() {
        let is_served = match method.on_learner() {
            OnLearner::Refused => false,
            OnLearner::LocalReads => is_local_read,
            OnLearner::Served => true,
        };
        if !is_served {
            return Err(Error::NotSupportedForLearner);
        }
    }
    if !wishes.is_version_readable {
        return Err(Error::InvalidClientApiVersion);
    }
    if wishes.needs_leader && board.leader() == 0 {
        return Err(Error::NoLeader);
    }
    Ok(())
}
