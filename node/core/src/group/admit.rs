//! Who gets through to raft-rs: every message from a peer is checked here for what raft-rs would
//! answer with a panic, or believe although it cannot be. Changes nothing.

use bytes::Bytes;

use super::conf;
use super::effect::Ignored;
use super::entry::EntryKind;
use super::message::Kind;
use crate::proto::internal;
use crate::{GroupId, NodeId};

/// Terms and indexes stay below this, so that adding to them never overflows.
pub const NUMBER_MAX: u64 = 1 << 62;

/// What the checks need to know of the group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    pub(super) id: NodeId,
    pub(super) group: GroupId,
    pub(super) term: u64,
    pub(super) leader: Option<NodeId>,
    pub(super) is_leader: bool,
    pub(super) last_index: u64,
    /// No entries and no snapshot are on their way to disk.
    pub(super) is_log_persisted: bool,
}

/// Checks a message of the stream between peers.
pub(super) fn message(
    message: &internal::RaftMessage,
    standing: &Standing,
) -> Result<Kind, Ignored> {
    let kind = envelope(message, standing)?;
    let is_current = message.term == standing.term;
    if message.snapshot.is_some() {
        return Err(Ignored::Malformed);
    }
    match kind {
        Kind::Append => {
            entries(message)?;
            sole_leader(message, standing)?;
        }
        Kind::Heartbeat => {
            no_entries(message)?;
            sole_leader(message, standing)?;
            if message.term >= standing.term && message.commit > standing.last_index {
                return Err(Ignored::LostEntries);
            }
        }
        Kind::Sleep => {
            no_entries(message)?;
            sole_leader(message, standing)?;
            if message.commit != message.index {
                return Err(Ignored::Malformed);
            }
            if message.term >= standing.term && message.commit > standing.last_index {
                return Err(Ignored::LostEntries);
            }
        }
        Kind::Wake => {
            no_entries(message)?;
            if !standing.is_leader {
                return Err(Ignored::NotLeader);
            }
        }
        Kind::AppendAnswer => {
            no_entries(message)?;
            let is_for_leader = standing.is_leader && is_current;
            // The newest of its entries is one of this term, so this leader has it.
            let has = if message.reject { message.request_snapshot } else { message.index };
            if is_for_leader && has > standing.last_index {
                return Err(Ignored::Malformed);
            }
        }
        Kind::VoteAnswer | Kind::PreVoteAnswer => {
            no_entries(message)?;
            // Votes are asked for once the own log is on disk. An earlier answer is not one to
            // this campaign, and raft-rs relies on it.
            if !standing.is_log_persisted {
                return Err(Ignored::Stale);
            }
        }
        Kind::Vote | Kind::PreVote | Kind::HeartbeatAnswer => no_entries(message)?,
        Kind::TimeoutNow => {
            no_entries(message)?;
            if !is_current || standing.leader != Some(NodeId(message.from)) {
                return Err(Ignored::Stale);
            }
            if !standing.is_log_persisted {
                return Err(Ignored::Busy);
            }
        }
        Kind::ReadIndex => {
            ticket(message)?;
            if !standing.is_leader {
                return Err(Ignored::NotLeader);
            }
        }
        Kind::ReadIndexAnswer => ticket(message)?,
        // Its data travels elsewhere.
        Kind::Snapshot => return Err(Ignored::UnknownKind),
    }
    Ok(kind)
}

/// Checks a leader's message whose snapshot arrived, and the mark its data stands at.
pub(super) fn snapshot(
    message: &internal::RaftMessage,
    mark: &internal::SnapshotMark,
    standing: &Standing,
) -> Result<(), Ignored> {
    if envelope(message, standing)? != Kind::Snapshot {
        return Err(Ignored::UnknownKind);
    }
    no_entries(message)?;
    let is_sane = 0 < mark.index
        && mark.index < NUMBER_MAX
        && 0 < mark.term
        && mark.term <= message.term.max(standing.term);
    let Some(conf) = mark.conf.as_ref().filter(|conf| is_sane && conf::check(conf).is_ok()) else {
        return Err(Ignored::Malformed);
    };
    if !conf::has_member(conf, standing.id) {
        return Err(Ignored::NotMember);
    }
    sole_leader(message, standing)
}

/// Checks what holds for every kind.
pub(super) fn envelope(
    message: &internal::RaftMessage,
    standing: &Standing,
) -> Result<Kind, Ignored> {
    let is_ours = message.group == standing.group.0 && message.to == standing.id.0;
    if !is_ours || message.from == 0 || message.from == standing.id.0 {
        return Err(Ignored::Misdirected);
    }
    let kind = Kind::from_number(message.kind).ok_or(Ignored::UnknownKind)?;
    let numbers = [
        message.term,
        message.log_term,
        message.index,
        message.commit,
        message.commit_term,
        message.reject_hint,
        message.request_snapshot,
    ];
    // Who asks for a snapshot refuses entries until it comes.
    let may_ask = kind == Kind::AppendAnswer && message.reject;
    if numbers.iter().any(|number| *number >= NUMBER_MAX)
        || (message.request_snapshot != 0 && !may_ask)
    {
        return Err(Ignored::Malformed);
    }
    // Without a term raft-rs takes a message for its own; with one it would panic on a read index.
    if (message.term == 0) != (kind == Kind::ReadIndex) {
        return Err(Ignored::Malformed);
    }
    Ok(kind)
}

/// A term has one leader; whoever else says so must not be followed.
fn sole_leader(message: &internal::RaftMessage, standing: &Standing) -> Result<(), Ignored> {
    let is_other = standing.leader.is_some_and(|leader| leader != NodeId(message.from));
    if message.term == standing.term && is_other {
        return Err(Ignored::SecondLeader);
    }
    Ok(())
}

fn entries(message: &internal::RaftMessage) -> Result<(), Ignored> {
    // Only the place before everything has no term. raft-rs would match the missing term of an
    // index beyond its log.
    if (message.index == 0) != (message.log_term == 0) || message.log_term > message.term {
        return Err(Ignored::Malformed);
    }
    let (mut index, mut term) = (message.index, message.log_term);
    for entry in &message.entries {
        let is_next = entry.index == index + 1 && 0 < entry.term && term <= entry.term;
        if !is_next
            || entry.term > message.term
            || entry.index >= NUMBER_MAX
            || EntryKind::from_number(entry.kind).is_none()
        {
            return Err(Ignored::Malformed);
        }
        (index, term) = (entry.index, entry.term);
    }
    Ok(())
}

fn no_entries(message: &internal::RaftMessage) -> Result<(), Ignored> {
    if message.entries.is_empty() { Ok(()) } else { Err(Ignored::Malformed) }
}

fn ticket(message: &internal::RaftMessage) -> Result<(), Ignored> {
    let is_one = match message.entries.as_slice() {
        [entry] => entry.kind == EntryKind::Normal.number() && entry.context == Bytes::new(),
        _ => false,
    };
    if is_one { Ok(()) } else { Err(Ignored::Malformed) }
}
