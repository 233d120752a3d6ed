//! What a range's replica and the machine of its node's spine tell each other.

use crate::command::{Command, Outcome, RequestId};
use crate::group;
use crate::proto::internal::Ref;
use crate::range::replica::{Effect, Replica};
use crate::spine::apply::Requester;
use crate::{GroupId, NodeId};

/// From a range's replica to the spine's on the same node.
#[derive(Clone, Debug, PartialEq)]
pub enum Tell {
    /// See `Effect::Report`.
    Report(Ref),
    /// See `Effect::WantNumbers`; the transactions whose decision is not known.
    WantNumbers(Vec<RequestId>),
    /// See `Effect::Prepared`.
    Prepared(RequestId, u64),
    /// See `Effect::PrepareFailed`.
    PrepareFailed(RequestId),
    /// See `Effect::AbortTxn`.
    AbortTxn(RequestId),
    /// See `Effect::WantTicket`.
    WantTicket(u64),
    /// See `Effect::Reply`.
    Reply(Requester, Outcome),
    /// See `Effect::Unproposed`.
    Unproposed(Requester, Command),
    /// See `Effect::Role`.
    Role(group::Role),
    /// See `Effect::WantFinish`.
    WantFinish(GroupId, u64),
    /// See `Effect::Retired`.
    Retired,
    /// See `Effect::Removed`; the change of members that had brought it.
    Removed(u64),
    /// See `Effect::Outside`.
    Outside,
    /// See `Effect::Gone`.
    Gone(group::Position, Vec<NodeId>),
}

impl Tell {
    /// Takes what is for the spine out of a replica's effects; the driver does the rest itself.
    ///
    /// # Errors
    /// The effect, which is the driver's.
    #[expect(clippy::result_large_err, reason = "an effect that is passed on, not a failure")]
    pub fn from_effect(effect: Effect, replica: &Replica) -> Result<Self, Effect> {
        Ok(match effect {
            Effect::Report(reference) => Self::Report(reference),
            Effect::WantNumbers => Self::WantNumbers(replica.undecided()),
            Effect::Prepared(id, index) => Self::Prepared(id, index),
            Effect::PrepareFailed(id) => Self::PrepareFailed(id),
            Effect::AbortTxn(id) => Self::AbortTxn(id),
            Effect::WantTicket(n) => Self::WantTicket(n),
            Effect::Reply(to, outcome) => Self::Reply(to, outcome),
            Effect::Unproposed(to, command) => Self::Unproposed(to, command),
            Effect::Role(role) => Self::Role(role),
            Effect::WantFinish(range, index) => Self::WantFinish(range, index),
            Effect::Retired => Self::Retired,
            Effect::Removed => Self::Removed(replica.since()),
            Effect::Outside => Self::Outside,
            Effect::Gone(place, nodes) => Self::Gone(place, nodes),
            effect => return Err(effect),
        })
    }
}
