//! Everything a group can ask of its driver. Holds no behaviour.
//!
//! Effects are carried out in the order they come. A driver may let a slow one (a flush, a send)
//! run on while it starts the next, except where a variant says otherwise.

use super::change::Change;
use super::entry::{Entry, HardState, Position};
use crate::NodeId;
use crate::proto::internal;

/// What a group wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Role, leader or term changed. Comes before everything that follows from it.
    Role(Role),
    /// Send a message to the node in its `to`. May be lost, delayed, repeated and reordered.
    Send(internal::RaftMessage),
    /// Send a snapshot beside the stream: the message, and the state in a mark not before the
    /// message's. Report the end with `Input::SnapshotSent`, also if the role has changed.
    SendSnapshot {
        /// The receiver.
        to: NodeId,
        /// To be handed to the receiver's `Input::SnapshotReceived`.
        message: internal::RaftMessage,
    },
    /// Write to the log on disk, flush, and report `Input::Persisted`.
    Append(Append),
    /// The log on disk may forget everything up to this place, which becomes the place before its
    /// first entry. Need not be flushed and is not reported back.
    Truncate(Position),
    /// Replace the whole state by the staged snapshot, in one durable step together with the
    /// mark's index, term and membership, and report `Input::SnapshotInstalled`. Everything handed
    /// out before by `Commit` is contained in it. The log on disk follows in an `Append` once this
    /// is reported, never earlier: a crash in between is mended by `Group::new`.
    Install {
        /// Where the state stands afterwards.
        mark: internal::SnapshotMark,
    },
    /// The membership change at `index` takes effect. Comes just before the `Commit` that ends
    /// with its entry, so that the membership can be stored in the batch that applies it.
    ConfApplied {
        /// Place of the entry.
        index: u64,
        /// What was changed; `None` if the entry is not valid and changes nothing.
        change: Option<Change>,
        /// Membership from here on.
        conf: internal::ConfState,
    },
    /// These entries are committed and in this node's own log: apply them in order, and report
    /// `Input::Applied`. They follow without a gap, except after `Install`.
    Commit(Vec<Entry>),
    /// The commands of the last `Propose` or `ProposeChange` stand at `first.index` and after.
    /// They may still be lost if the leader changes.
    Proposed {
        /// Place of the first.
        first: Position,
        /// How many.
        count: u64,
    },
    /// The last `Propose`, `ProposeChange`, `Transfer` or `Campaign` was refused and had no effect.
    Refused(Refusal),
    /// A read that asked before this ticket was taken may be answered from a state applied up to
    /// `index`.
    TicketReady {
        /// From `Input::Ticket`.
        context: u64,
        /// Applied index to wait for.
        index: u64,
    },
    /// There will be no answer to this ticket. A retry needs a new number.
    TicketDropped {
        /// From `Input::Ticket`.
        context: u64,
    },
    /// The snapshot of the last `SnapshotReceived` is not wanted: delete the staged data.
    SnapshotRefused(Ignored),
    /// A peer's message was ignored before it could do harm. Late messages are everyday.
    Ignored {
        /// The sender, as the message says.
        from: NodeId,
        /// The message's kind, as it says.
        kind: u32,
        /// Why.
        reason: Ignored,
    },
}

/// One record for the log on disk. Appends are written in order; a crash may lose the newest, but
/// none before another that was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    /// Grows with each; reported back by `Input::Persisted`, where a later one stands for all
    /// before it.
    pub token: u64,
    /// Forget the whole log first; it goes on after this place.
    pub reset: Option<Position>,
    /// Replaces the one before.
    pub hard_state: HardState,
    /// Contiguous. The first replaces whatever stood at its index and everything after that.
    pub entries: Vec<Entry>,
}

/// What a node is in its group at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Role {
    /// Its part.
    pub part: Part,
    /// Who leads, if known.
    pub leader: Option<NodeId>,
    /// The term.
    pub term: u64,
}

/// The parts a node can play. A learner is a follower that has no vote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// Takes entries from a leader, or waits for one.
    #[default]
    Follower,
    /// Asks for votes, or would like to.
    Candidate,
    /// Proposes.
    Leader,
}

/// Why something asked of a group was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Refusal {
    /// Only a leader proposes, changes the membership and hands over.
    #[error("this node is not the leader")]
    NotLeader,
    /// The leadership is being handed over.
    #[error("the leadership is being handed over")]
    Transferring,
    /// Too much is proposed and not committed.
    #[error("too many bytes are proposed and not yet committed")]
    Full,
    /// Nothing to propose, or an empty command.
    #[error("an empty command cannot be proposed")]
    Empty,
    /// Another membership change is not applied yet, or may not be.
    #[error("another membership change is under way")]
    ChangePending,
    /// The change does not fit the membership, for example it removes the last voter.
    #[error("the change does not fit the membership")]
    ChangeInvalid,
    /// The leadership can only be handed to another voter.
    #[error("the target is not another voter")]
    NotVoter,
    /// This node has no vote, is the leader already, or its log is not in order yet.
    #[error("this node cannot campaign at the moment")]
    CannotCampaign,
}

/// Why a message or a snapshot from a peer was ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Ignored {
    /// Of another group, to another node, or from nobody.
    #[error("wrong group, sender or receiver")]
    Misdirected,
    /// A kind that peers do not send, or that does not exist.
    #[error("unknown kind of message")]
    UnknownKind,
    /// Its fields contradict each other or are out of bounds.
    #[error("malformed message")]
    Malformed,
    /// From a node that is not in the membership.
    #[error("the sender is not a member")]
    NotMember,
    /// Too late to matter.
    #[error("stale message")]
    Stale,
    /// Only a leader can answer it.
    #[error("this node is not the leader")]
    NotLeader,
    /// Two nodes say they lead the same term: a broken promise somewhere.
    #[error("a second leader in one term")]
    SecondLeader,
    /// The leader knows of entries that this node vouched for and does not have: its log was lost,
    /// and it must not go on as the same member.
    #[error("the leader expects entries that this node has lost")]
    LostEntries,
    /// A snapshot is being installed, or entries are not on disk yet; it will be sent again.
    #[error("not ready for it yet")]
    Busy,
    /// The log already holds what the snapshot does.
    #[error("the snapshot is not needed")]
    NotNeeded,
    /// Too many tickets are held.
    #[error("too many tickets are held")]
    Full,
}
