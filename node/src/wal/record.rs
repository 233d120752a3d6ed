//! The records inside a frame's payload: how operations become bytes and bytes operations again.
//! Owns the sizes. Decoding never trusts a length, never allocates, and stops at the first byte
//! that makes no sense.

use flotilla_proto::ids::GroupId;

use super::book::Checkpoint;
use super::error::RefusedReason;
use super::format::NUMBER_MAX;
use super::operation::{Append, Entry, HardState, Operation};

const ENTRIES: u8 = 1;
const COPIES: u8 = 2;
const HARD_STATE: u8 = 3;
const TRUNCATE: u8 = 4;
const RESET: u8 = 5;
const REMOVE: u8 = 6;
const CHECKPOINT: u8 = 7;

/// Kind 1, group 8, first index 8, count 4, bytes of the entries 4.
const ENTRIES_HEADER_BYTES: u64 = 25;
/// Term 8, kind 1, data bytes 4.
const ENTRY_HEADER_BYTES: u64 = 13;
/// Kind 1, group 8, term 8, vote 8, commit 8.
const HARD_STATE_BYTES: u64 = 33;
/// Kind 1, group 8, index 8, term 8.
const MARK_BYTES: u64 = 25;
/// Kind 1, group 8.
const REMOVE_BYTES: u64 = 9;
/// Kind 1, count 4.
const CHECKPOINT_HEADER_BYTES: u64 = 5;
/// Seven numbers of 8.
const CHECKPOINT_GROUP_BYTES: u64 = 56;

/// What the append takes in a payload, in bytes, if its entries are in order.
pub(super) fn append_bytes(append: &Append) -> Result<u64, RefusedReason> {
    let mut bytes = 0;
    for operation in &append.operations {
        bytes += match operation {
            Operation::Entries(entries) => {
                let first = entries.first().map_or(1, |entry| entry.index);
                let is_sound = (1..NUMBER_MAX).contains(&first)
                    && (first..NUMBER_MAX).zip(entries).all(|(next, it)| it.index == next)
                    && entries.len() as u64 <= NUMBER_MAX - first;
                if !is_sound {
                    return Err(RefusedReason::NotConsecutive);
                }
                entries_bytes(entries)
            }
            Operation::HardState(_) => HARD_STATE_BYTES,
            Operation::Truncate { .. } | Operation::Reset { .. } => MARK_BYTES,
            Operation::Remove => REMOVE_BYTES,
        };
    }
    Ok(bytes)
}

/// What these entries take as one record.
pub(super) fn entries_bytes(entries: &[Entry]) -> u64 {
    ENTRIES_HEADER_BYTES + entries.iter().map(entry_bytes).sum::<u64>()
}

pub(super) fn entry_bytes(entry: &Entry) -> u64 {
    ENTRY_HEADER_BYTES + entry.data.len() as u64
}

pub(super) fn checkpoint_bytes(groups: usize) -> u64 {
    CHECKPOINT_HEADER_BYTES + groups as u64 * CHECKPOINT_GROUP_BYTES
}

pub(super) fn put_operation(buffer: &mut Vec<u8>, group: GroupId, operation: &Operation) {
    match operation {
        Operation::Entries(entries) => put_entries(buffer, ENTRIES, group, entries),
        Operation::HardState(state) => {
            put_kind(buffer, HARD_STATE, group);
            put_u64(buffer, state.term);
            put_u64(buffer, state.vote);
            put_u64(buffer, state.commit);
        }
        Operation::Truncate { index, term } => {
            put_kind(buffer, TRUNCATE, group);
            put_u64(buffer, *index);
            put_u64(buffer, *term);
        }
        Operation::Reset { index, term } => {
            put_kind(buffer, RESET, group);
            put_u64(buffer, *index);
            put_u64(buffer, *term);
        }
        Operation::Remove => put_kind(buffer, REMOVE, group),
    }
}

/// Entries that the log moved forward: they take their place by index and replace nothing.
pub(super) fn put_copies(buffer: &mut Vec<u8>, group: GroupId, entries: &[Entry]) {
    put_entries(buffer, COPIES, group, entries);
}

pub(super) fn put_checkpoint<'a>(
    buffer: &mut Vec<u8>,
    groups: impl ExactSizeIterator<Item = (&'a GroupId, Checkpoint)>,
) {
    buffer.push(CHECKPOINT);
    put_u32(buffer, groups.len());
    for (group, checkpoint) in groups {
        put_u64(buffer, group.0);
        put_u64(buffer, checkpoint.hard_state.term);
        put_u64(buffer, checkpoint.hard_state.vote);
        put_u64(buffer, checkpoint.hard_state.commit);
        put_u64(buffer, checkpoint.truncated.0);
        put_u64(buffer, checkpoint.truncated.1);
        put_u64(buffer, checkpoint.last_index);
    }
}

/// One record of a payload, borrowing its bytes.
#[derive(Clone, Debug)]
pub(super) enum Record<'a> {
    Entries(Entries<'a>),
    Copies(Entries<'a>),
    HardState { group: GroupId, state: HardState },
    Truncate { group: GroupId, index: u64, term: u64 },
    Reset { group: GroupId, index: u64, term: u64 },
    Remove { group: GroupId },
    Checkpoint(CheckpointGroups<'a>),
}

/// A payload that its checksum vouches for and that still says nothing sensible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// The records of a payload in order.
#[derive(Clone, Debug)]
pub(super) struct Records<'a> {
    payload: &'a [u8],
    position: usize,
}

impl<'a> Records<'a> {
    /// Starts at `position`, where an earlier reader stopped, or 0.
    pub(super) fn new(payload: &'a [u8], position: usize) -> Records<'a> {
        Records { payload, position }
    }

    /// Where the next record starts.
    pub(super) fn position(&self) -> usize {
        self.position
    }

    pub(super) fn next(&mut self) -> Result<Option<Record<'a>>, Malformed> {
        let rest = self.payload.get(self.position..).ok_or(Malformed)?;
        if rest.is_empty() {
            return Ok(None);
        }
        let mut fields = Fields(rest);
        let record = Self::decode(&mut fields).ok_or(Malformed)?;
        self.position = self.payload.len() - fields.0.len();
        Ok(Some(record))
    }

    fn decode(fields: &mut Fields<'a>) -> Option<Record<'a>> {
        let kind = fields.byte()?;
        if kind == CHECKPOINT {
            let count = fields.u32()? as usize;
            let bytes = fields.take(count.checked_mul(CHECKPOINT_GROUP_BYTES as usize)?)?;
            return Some(Record::Checkpoint(CheckpointGroups(Fields(bytes))));
        }
        let group = GroupId(fields.u64()?);
        Some(match kind {
            ENTRIES => Record::Entries(Entries::decode(group, fields)?),
            COPIES => Record::Copies(Entries::decode(group, fields)?),
            HARD_STATE => {
                let (term, vote, commit) = (fields.u64()?, fields.u64()?, fields.u64()?);
                Record::HardState { group, state: HardState { term, vote, commit } }
            }
            TRUNCATE => Record::Truncate { group, index: fields.index()?, term: fields.u64()? },
            RESET => Record::Reset { group, index: fields.index()?, term: fields.u64()? },
            REMOVE => Record::Remove { group },
            _ => return None,
        })
    }
}

/// The entries of one record.
#[derive(Clone, Debug)]
pub(super) struct Entries<'a> {
    pub(super) group: GroupId,
    pub(super) first_index: u64,
    pub(super) count: u32,
    fields: Fields<'a>,
}

/// One entry as it lies in a payload.
#[derive(Clone, Copy, Debug)]
pub(super) struct EntryRef<'a> {
    pub(super) index: u64,
    pub(super) term: u64,
    pub(super) kind: u8,
    pub(super) data: &'a [u8],
}

impl<'a> Entries<'a> {
    fn decode(group: GroupId, fields: &mut Fields<'a>) -> Option<Entries<'a>> {
        let first_index = fields.index()?;
        let count = fields.u32()?;
        let bytes = fields.u32()? as usize;
        if first_index == 0 || first_index + u64::from(count) > NUMBER_MAX {
            return None;
        }
        Some(Entries { group, first_index, count, fields: Fields(fields.take(bytes)?) })
    }

    /// Every entry, or `Malformed` where the bytes and the count disagree.
    pub(super) fn iter(&self) -> impl Iterator<Item = Result<EntryRef<'a>, Malformed>> + use<'a> {
        let mut fields = self.fields;
        let (first_index, count) = (self.first_index, u64::from(self.count));
        (0..count).map(move |position| {
            let entry = Self::next(&mut fields, first_index + position).ok_or(Malformed)?;
            let is_last = position + 1 == count;
            if is_last && !fields.0.is_empty() { Err(Malformed) } else { Ok(entry) }
        })
    }

    fn next(fields: &mut Fields<'a>, index: u64) -> Option<EntryRef<'a>> {
        let term = fields.u64()?;
        let kind = fields.byte()?;
        let bytes = fields.u32()? as usize;
        Some(EntryRef { index, term, kind, data: fields.take(bytes)? })
    }
}

/// What a segment's first record says of each group, in the order of their ids.
#[derive(Clone, Debug)]
pub(super) struct CheckpointGroups<'a>(Fields<'a>);

impl CheckpointGroups<'_> {
    pub(super) fn iter(&self) -> impl Iterator<Item = (GroupId, Checkpoint)> {
        let mut fields = self.0;
        std::iter::from_fn(move || {
            let group = GroupId(fields.u64()?);
            let (term, vote, commit) = (fields.u64()?, fields.u64()?, fields.u64()?);
            let hard_state = HardState { term, vote, commit };
            let truncated = (fields.u64()?, fields.u64()?);
            let last_index = fields.u64()?;
            Some((group, Checkpoint { hard_state, truncated, last_index }))
        })
    }
}

#[derive(Clone, Copy, Debug)]
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        Some(self.take(1)?[0])
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    /// The index of an entry.
    fn index(&mut self) -> Option<u64> {
        self.u64().filter(|index| *index < NUMBER_MAX)
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }
}

fn put_entries(buffer: &mut Vec<u8>, kind: u8, group: GroupId, entries: &[Entry]) {
    let Some(first) = entries.first() else {
        return;
    };
    put_kind(buffer, kind, group);
    put_u64(buffer, first.index);
    put_u32(buffer, entries.len());
    let sum_at = buffer.len();
    put_u32(buffer, 0);
    for entry in entries {
        put_u64(buffer, entry.term);
        buffer.push(entry.kind);
        put_u32(buffer, entry.data.len());
        buffer.extend_from_slice(&entry.data);
    }
    let sum = buffer.len() - sum_at - 4;
    buffer[sum_at..sum_at + 4].copy_from_slice(&narrow(sum).to_le_bytes());
}

fn put_kind(buffer: &mut Vec<u8>, kind: u8, group: GroupId) {
    buffer.push(kind);
    put_u64(buffer, group.0);
}

fn put_u32(buffer: &mut Vec<u8>, number: usize) {
    buffer.extend_from_slice(&narrow(number).to_le_bytes());
}

fn narrow(number: usize) -> u32 {
    u32::try_from(number).expect("a segment is far smaller than 4 GiB")
}

fn put_u64(buffer: &mut Vec<u8>, number: u64) {
    buffer.extend_from_slice(&number.to_le_bytes());
}
