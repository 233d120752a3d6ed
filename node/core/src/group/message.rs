//! Raft messages between our wire format and raft-rs's types, field by field. Never parses bytes
//! with rust-protobuf, which must not see untrusted input. Assumes that `admit` has looked first.

use raft::eraftpb;

use super::conf;
use super::entry::{Entry, EntryKind, Position};
use crate::proto::internal;

/// The kinds of message that nodes send each other. The numbers are raft-rs's, but for kinds of our
/// own, which begin at 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Kind {
    /// Entries, or the commit index alone.
    Append = 3,
    /// How far the sender's log agrees.
    AppendAnswer = 4,
    /// Asks for a vote.
    Vote = 5,
    /// Gives or denies one.
    VoteAnswer = 6,
    /// The state, when the log no longer reaches back far enough.
    Snapshot = 7,
    /// The leader is there.
    Heartbeat = 8,
    /// So is the follower.
    HeartbeatAnswer = 9,
    /// Campaign at once: the leader hands over.
    TimeoutNow = 14,
    /// Asks the leader for a read index.
    ReadIndex = 15,
    /// Gives it.
    ReadIndexAnswer = 16,
    /// Asks whether a vote would be given.
    PreVote = 17,
    /// Says so.
    PreVoteAnswer = 18,
    /// The leader sleeps, and whoever has its whole log sleeps, too. A heartbeat beside.
    Sleep = 64,
    /// A follower was woken by somebody else: the leader had better show itself.
    Wake = 65,
}

impl Kind {
    const ALL: [Self; 14] = [
        Self::Append,
        Self::AppendAnswer,
        Self::Vote,
        Self::VoteAnswer,
        Self::Snapshot,
        Self::Heartbeat,
        Self::HeartbeatAnswer,
        Self::TimeoutNow,
        Self::ReadIndex,
        Self::ReadIndexAnswer,
        Self::PreVote,
        Self::PreVoteAnswer,
        Self::Sleep,
        Self::Wake,
    ];

    /// From its number on the wire; `None` for what peers do not send.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u32 == number)
    }

    /// Whether the sender vouches for what it has stored: a vote, or entries. Such a message must
    /// not leave before that is on disk. The rest only needs its term to be on disk.
    pub(super) fn is_promise(self) -> bool {
        match self {
            Self::AppendAnswer
            | Self::Vote
            | Self::VoteAnswer
            | Self::PreVote
            | Self::PreVoteAnswer => true,
            Self::Append
            | Self::Snapshot
            | Self::Heartbeat
            | Self::HeartbeatAnswer
            | Self::TimeoutNow
            | Self::ReadIndex
            | Self::ReadIndexAnswer
            | Self::Sleep
            | Self::Wake => false,
        }
    }

    fn to_raft(self) -> eraftpb::MessageType {
        use eraftpb::MessageType as T;
        match self {
            Self::Append => T::MsgAppend,
            Self::AppendAnswer => T::MsgAppendResponse,
            Self::Vote => T::MsgRequestVote,
            Self::VoteAnswer => T::MsgRequestVoteResponse,
            Self::Snapshot => T::MsgSnapshot,
            Self::Heartbeat => T::MsgHeartbeat,
            Self::HeartbeatAnswer => T::MsgHeartbeatResponse,
            Self::TimeoutNow => T::MsgTimeoutNow,
            Self::ReadIndex => T::MsgReadIndex,
            Self::ReadIndexAnswer => T::MsgReadIndexResp,
            Self::PreVote => T::MsgRequestPreVote,
            Self::PreVoteAnswer => T::MsgRequestPreVoteResponse,
            Self::Sleep | Self::Wake => unreachable!("raft-rs knows nothing of sleep"),
        }
    }
}

/// Into raft-rs's form. The message was admitted, so its entries have known kinds.
pub(super) fn to_raft(message: internal::RaftMessage, kind: Kind) -> eraftpb::Message {
    let mut raft_message = eraftpb::Message::default();
    raft_message.set_msg_type(kind.to_raft());
    raft_message.to = message.to;
    raft_message.from = message.from;
    raft_message.term = message.term;
    raft_message.log_term = message.log_term;
    raft_message.index = message.index;
    let entries: Vec<_> = message
        .entries
        .into_iter()
        .map(|entry| entry_to_raft(&Entry::from_proto(entry).expect("entries were admitted")))
        .collect();
    raft_message.set_entries(entries.into());
    raft_message.commit = message.commit;
    raft_message.commit_term = message.commit_term;
    raft_message.request_snapshot = message.request_snapshot;
    raft_message.reject = message.reject;
    raft_message.reject_hint = message.reject_hint;
    raft_message.context = message.context;
    raft_message.priority = message.priority;
    if let Some(mark) = message.snapshot {
        let position = Position { index: mark.index, term: mark.term };
        raft_message.set_snapshot(snapshot_to_raft(position, &mark.conf.unwrap_or_default()));
    }
    raft_message
}

/// Out of raft-rs's form.
pub(super) fn from_raft(
    group: u64,
    mut raft_message: eraftpb::Message,
) -> (Kind, internal::RaftMessage) {
    let number = raft_message.get_msg_type() as u32;
    let kind = Kind::from_number(number).expect("a group sends only what peers understand");
    let snapshot = raft_message.has_snapshot().then(|| {
        let metadata = raft_message.get_snapshot().get_metadata();
        internal::SnapshotMark {
            index: metadata.index,
            term: metadata.term,
            conf: Some(conf::from_raft(metadata.get_conf_state())),
        }
    });
    let entries = raft_message.take_entries().into_iter();
    let message = internal::RaftMessage {
        group,
        to: raft_message.to,
        from: raft_message.from,
        kind: number,
        term: raft_message.term,
        log_term: raft_message.log_term,
        index: raft_message.index,
        entries: entries.map(|entry| entry_from_raft(entry).into_proto()).collect(),
        commit: raft_message.commit,
        commit_term: raft_message.commit_term,
        request_snapshot: raft_message.request_snapshot,
        reject: raft_message.reject,
        reject_hint: raft_message.reject_hint,
        context: raft_message.take_context(),
        priority: raft_message.priority,
        snapshot,
        since: 0,
    };
    (kind, message)
}

pub(super) fn entry_to_raft(entry: &Entry) -> eraftpb::Entry {
    let mut raft_entry = eraftpb::Entry::default();
    raft_entry.set_entry_type(match entry.kind {
        EntryKind::Normal => eraftpb::EntryType::EntryNormal,
        EntryKind::Change => eraftpb::EntryType::EntryConfChangeV2,
    });
    raft_entry.term = entry.term;
    raft_entry.index = entry.index;
    raft_entry.data = entry.data.clone();
    raft_entry.context = entry.context.clone();
    raft_entry
}

pub(super) fn entry_from_raft(mut raft_entry: eraftpb::Entry) -> Entry {
    let kind = match raft_entry.get_entry_type() {
        eraftpb::EntryType::EntryNormal => EntryKind::Normal,
        eraftpb::EntryType::EntryConfChangeV2 => EntryKind::Change,
        eraftpb::EntryType::EntryConfChange => {
            unreachable!("the old kind of membership change is neither proposed nor admitted")
        }
    };
    Entry {
        index: raft_entry.index,
        term: raft_entry.term,
        kind,
        data: raft_entry.take_data(),
        context: raft_entry.take_context(),
    }
}

pub(super) fn snapshot_to_raft(at: Position, conf: &internal::ConfState) -> eraftpb::Snapshot {
    let mut snapshot = eraftpb::Snapshot::default();
    let metadata = snapshot.mut_metadata();
    metadata.index = at.index;
    metadata.term = at.term;
    metadata.set_conf_state(conf::to_raft(conf));
    snapshot
}
