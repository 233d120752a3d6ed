//! An entry of consensus as the shared log keeps it, and back.

use bytes::Bytes;
use flotilla_core::group::{Append, Entry, EntryKind, HardState, Position};
use flotilla_core::proto::internal::LogEntry;
use flotilla_core::{GroupId, group};
use prost::Message;

use crate::wal;

/// For the log.
pub fn to_wal(group: GroupId, append: Append) -> wal::Append {
    let mut operations = Vec::with_capacity(3);
    if let Some(Position { index, term }) = append.reset {
        operations.push(wal::Operation::Reset { index, term });
    }
    if !append.entries.is_empty() {
        let entries = append.entries.into_iter().map(entry_to_wal).collect();
        operations.push(wal::Operation::Entries(entries));
    }
    let HardState { term, vote, commit } = append.hard_state;
    operations.push(wal::Operation::HardState(wal::HardState { term, vote, commit }));
    wal::Append { group, token: append.token, is_flush_needed: true, operations }
}

/// What the log remembered of a group.
///
/// # Errors
/// Names an entry that this version cannot understand.
pub fn from_wal(log: wal::GroupLog) -> Result<group::Recovered, String> {
    let (index, term) = log.truncated;
    let wal::HardState { term: hard_term, vote, commit } = log.hard_state;
    Ok(group::Recovered {
        hard_state: HardState { term: hard_term, vote, commit },
        truncated: Position { index, term },
        entries: log.entries.into_iter().map(entry_from_wal).collect::<Result<_, _>>()?,
        ..group::Recovered::default()
    })
}

fn entry_to_wal(entry: Entry) -> wal::Entry {
    let (index, term, kind) = (entry.index, entry.term, entry.kind);
    let data = match kind {
        EntryKind::Normal => entry.data,
        // Seldom, and the only kind with a context.
        EntryKind::Change => Bytes::from(entry.into_proto().encode_to_vec()),
    };
    let kind = u8::try_from(kind.number()).expect("kinds are small numbers");
    wal::Entry { index, term, kind, data }
}

fn entry_from_wal(entry: wal::Entry) -> Result<Entry, String> {
    let (index, term) = (entry.index, entry.term);
    let unknown = || format!("entry {index} of the log is of a kind this version does not know");
    match EntryKind::from_number(u32::from(entry.kind)).ok_or_else(unknown)? {
        EntryKind::Normal => {
            let kind = EntryKind::Normal;
            Ok(Entry { index, term, kind, data: entry.data, context: Bytes::new() })
        }
        EntryKind::Change => {
            LogEntry::decode(entry.data).ok().and_then(Entry::from_proto).ok_or_else(unknown)
        }
    }
}
