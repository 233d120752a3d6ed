//! Everything that can happen to a group. Holds no behaviour.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::change::Change;
use crate::NodeId;
use crate::proto::internal;

/// What a driver tells a group. Each input is handled whole before the next.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// One unit of logical time has passed.
    Tick,
    /// A message from a peer, of any kind but a snapshot. Anything malformed is ignored with a
    /// reason.
    Message(internal::RaftMessage),
    /// Append these commands, all or none, in order; none may be empty. Answered in the same step
    /// by `Effect::Proposed` or `Effect::Refused`.
    Propose(Vec<Bytes>),
    /// Change the membership. `context` comes back in the committed entry. Answered as `Propose`.
    ProposeChange {
        /// What to change; at least one step.
        change: Change,
        /// The proposer's own bytes.
        context: Bytes,
    },
    /// Ask for an index that a linearizable read must wait for. The number must never have been
    /// used before on this node since it started. Answered, sooner or later, by exactly one
    /// `Effect::TicketReady` or `Effect::TicketDropped`.
    Ticket(u64),
    /// Hand the leadership to this voter. Refused, or seen later as an `Effect::Role`; given up
    /// after an election timeout, see `Group::transferee`.
    Transfer(NodeId),
    /// Start an election now, without waiting for the timeout.
    Campaign,
    /// The `Append` with this token, and so all before it, survive a crash from now on.
    Persisted {
        /// From `Effect::Append`.
        token: u64,
    },
    /// Everything committed up to this index has been applied to the state in memory.
    Applied {
        /// Not above what `Effect::Commit` has handed out.
        index: u64,
    },
    /// Forget the log up to this index. Ignored above the applied index, so the log always
    /// continues the state. The caller makes sure that the state up to it is on disk.
    Truncate {
        /// Last index to forget.
        index: u64,
    },
    /// A snapshot arrived and its data is in a staging place, durable. Answered in the same step
    /// by `Effect::Install` or `Effect::SnapshotRefused`.
    SnapshotReceived {
        /// The leader's message, as in `Effect::SendSnapshot`.
        message: internal::RaftMessage,
        /// Where the data really stands; may be later than the message says.
        mark: internal::SnapshotMark,
    },
    /// The state here is wrong: have the leader send its own, in place of it. Until that has come, this
    /// member acknowledges no entries. Ignored by a leader, where none is known, and while a snapshot is
    /// on its way; may be lost, so whoever asks looks again.
    RequestSnapshot,
    /// What `Effect::Install` asked for is done and durable.
    SnapshotInstalled,
    /// How `Effect::SendSnapshot` ended. Must follow every one of them, or the peer gets nothing
    /// more from this leader.
    SnapshotSent {
        /// The receiver.
        to: NodeId,
        /// The receiver has installed it, or will.
        is_ok: bool,
    },
    /// Everything up to this index is committed, as the caller knows from elsewhere, and this log
    /// has it. Ignored when the log ends before.
    CommitTo {
        /// Last index of what is committed.
        index: u64,
    },
    /// There is something to do with the members: nobody is to sleep.
    Wake,
    /// This peer has dropped what it held, and begins anew: nothing that it acknowledged counts.
    Replaced(NodeId),
    /// Messages to this peer were lost, or its connection is broken.
    Unreachable(NodeId),
    /// The other nodes that are there, as this node knows: it hears them, and they can be reached.
    /// None are before this is said.
    Alive(BTreeSet<NodeId>),
    /// The driver has nothing to do for this member either. Said when `Group::is_sleep_due`;
    /// whether the group sleeps is seen by `Group::is_asleep`, and then it needs no ticks.
    Sleep,
}
