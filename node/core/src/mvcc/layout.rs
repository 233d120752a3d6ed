//! How keys, revisions, history and attachments to leases are written as rows, and read back.
//! The only place that knows these bytes.
//!
//! Nothing is keyed by range, so splitting the keyspace moves no row. A row that cannot be
//! understood is a damaged store: decoding fails with `ViewError`, never with a guess.

use std::borrow::Cow;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;

use crate::proto::mvccpb::KeyValue;
use crate::view::{Column, ViewError};

/// The row of column `Meta` that holds the compaction's cursor.
pub const COMPACTION_ROW: &[u8] = b"mvcc.compaction";

/// The value of a `History` row whose record is a put.
pub const HISTORY_PUT: &[u8] = &[0];
/// The value of a `History` row whose record is a delete.
pub const HISTORY_TOMBSTONE: &[u8] = &[1];

/// Bytes of an encoded `Revision`.
pub const REVISION_BYTES: usize = 16;

/// The place of one change in the order of all changes.
///
/// Column `Revision` is keyed by it: `main` and `sub` as 8 bytes each, big-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision {
    /// Counts the changes of the store that happened at once. Never negative.
    pub main: i64,
    /// Counts the changed keys within `main` from 0. Never negative.
    pub sub: i64,
}

impl Revision {
    /// The last possible one within `main`.
    pub const fn last_of(main: i64) -> Self {
        Self { main, sub: i64::MAX }
    }

    /// Its row key.
    pub fn encode(self) -> [u8; REVISION_BYTES] {
        ((u128::from(self.main.cast_unsigned()) << 64) | u128::from(self.sub.cast_unsigned()))
            .to_be_bytes()
    }

    /// From a row key.
    ///
    /// # Errors
    /// The bytes are not a revision.
    pub fn decode(bytes: &[u8]) -> Result<Self, ViewError> {
        let bytes: [u8; REVISION_BYTES] =
            bytes.try_into().map_err(|_| damaged("a revision is not 16 bytes long"))?;
        let both = u128::from_be_bytes(bytes);
        let main = i64::try_from(both >> 64);
        let sub = i64::try_from(both & u128::from(u64::MAX));
        match (main, sub) {
            (Ok(main), Ok(sub)) => Ok(Self { main, sub }),
            _ => Err(damaged("a revision is negative")),
        }
    }

    /// Encoded so that later revisions sort first.
    fn encode_descending(self) -> [u8; REVISION_BYTES] {
        self.encode().map(|byte| !byte)
    }

    fn decode_descending(bytes: &[u8]) -> Result<Self, ViewError> {
        let bytes: [u8; REVISION_BYTES] =
            bytes.try_into().map_err(|_| damaged("a revision is not 16 bytes long"))?;
        Self::decode(&bytes.map(|byte| !byte))
    }
}

/// What precedes the `KeyValue` in a record.
///
/// A record is the value of both the row of its key in column `Key`, while it is the newest of
/// that key, and the row of its revision in column `Revision`: flags (1 byte), revision (16),
/// previous revision (16, if there is one), then the encoded `mvccpb.KeyValue` exactly as etcd
/// stores it, which for a delete has nothing but the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHead {
    /// Where the record stands.
    pub revision: Revision,
    /// The record is a delete.
    pub is_tombstone: bool,
    /// The put of the same key that this record superseded. `None` when the key was not there:
    /// a tombstone is never named, as one replica may have removed it when another has not.
    pub previous: Option<Revision>,
}

const FLAG_TOMBSTONE: u8 = 1;
const FLAG_PREVIOUS: u8 = 2;

impl RecordHead {
    /// Bytes before the `KeyValue`.
    pub fn encoded_len(&self) -> usize {
        1 + REVISION_BYTES + if self.previous.is_some() { REVISION_BYTES } else { 0 }
    }

    /// Writes the head; the encoded `KeyValue` follows.
    pub fn encode(&self, buf: &mut BytesMut) {
        let tombstone = if self.is_tombstone { FLAG_TOMBSTONE } else { 0 };
        let previous = if self.previous.is_some() { FLAG_PREVIOUS } else { 0 };
        buf.put_u8(tombstone | previous);
        buf.put_slice(&self.revision.encode());
        if let Some(previous) = self.previous {
            buf.put_slice(&previous.encode());
        }
    }

    /// The head of an encoded record; its `KeyValue` starts at `encoded_len()`.
    ///
    /// # Errors
    /// The bytes are not a record.
    pub fn decode(record: &[u8]) -> Result<Self, ViewError> {
        let cut = || damaged("a record is cut short");
        let (&flags, rest) = record.split_first().ok_or_else(cut)?;
        if flags & !(FLAG_TOMBSTONE | FLAG_PREVIOUS) != 0 {
            return Err(damaged("a record has unknown flags"));
        }
        let (revision, rest) = rest.split_at_checked(REVISION_BYTES).ok_or_else(cut)?;
        let previous = if flags & FLAG_PREVIOUS == 0 {
            None
        } else {
            Some(Revision::decode(rest.get(..REVISION_BYTES).ok_or_else(cut)?)?)
        };
        Ok(Self {
            revision: Revision::decode(revision)?,
            is_tombstone: flags & FLAG_TOMBSTONE != 0,
            previous,
        })
    }
}

/// A whole record as it lies in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its head.
    pub head: RecordHead,
    /// The encoded `KeyValue`, a slice of the row.
    pub kv: Bytes,
}

impl Record {
    /// From the value of a row; copies nothing.
    ///
    /// # Errors
    /// The bytes are not a record.
    pub fn decode(mut row: Bytes) -> Result<Self, ViewError> {
        let head = RecordHead::decode(&row)?;
        row.advance(head.encoded_len());
        Ok(Self { head, kv: row })
    }
}

/// Decodes a stored `KeyValue`; key and value stay slices of `kv`.
///
/// # Errors
/// The bytes are not a `KeyValue`.
pub fn decode_key_value(kv: Bytes) -> Result<KeyValue, ViewError> {
    KeyValue::decode(kv).map_err(|error| damaged(&format!("a key-value cannot be read: {error}")))
}

/// The fields of an encoded `KeyValue`, borrowed from it. An absent field is zero or empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyValueFields<'a> {
    /// `key`.
    pub key: &'a [u8],
    /// `create_revision`.
    pub create_revision: i64,
    /// `mod_revision`.
    pub mod_revision: i64,
    /// `version`.
    pub version: i64,
    /// `value`.
    pub value: &'a [u8],
    /// `lease`.
    pub lease: i64,
}

impl<'a> KeyValueFields<'a> {
    /// Reads the fields without copying any.
    ///
    /// # Errors
    /// The bytes are not a `KeyValue` as this store writes it.
    pub fn decode(mut kv: &'a [u8]) -> Result<Self, ViewError> {
        // Protobuf: each field is a tag, (number << 3 | wire type), and a varint (type 0) or a
        // varint length with as many bytes (type 2).
        let mut fields = Self::default();
        while let Some((&tag, rest)) = kv.split_first() {
            kv = rest;
            let number = take_varint(&mut kv)?;
            match tag {
                0x0a => fields.key = take(&mut kv, number)?,
                0x10 => fields.create_revision = number.cast_signed(),
                0x18 => fields.mod_revision = number.cast_signed(),
                0x20 => fields.version = number.cast_signed(),
                0x2a => fields.value = take(&mut kv, number)?,
                0x30 => fields.lease = number.cast_signed(),
                _ => return Err(damaged("a key-value has an unknown field")),
            }
        }
        Ok(fields)
    }
}

/// Takes a varint off the front of `bytes`.
fn take_varint(bytes: &mut &[u8]) -> Result<u64, ViewError> {
    const BYTES_MAX: u32 = 10;
    let mut number = 0;
    for place in 0..BYTES_MAX {
        let Some((&byte, rest)) = bytes.split_first() else { break };
        *bytes = rest;
        // Of the last byte one bit has room.
        if place + 1 == BYTES_MAX && byte > 1 {
            break;
        }
        number |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(damaged("a number of a key-value has no end"))
}

fn take<'a>(bytes: &mut &'a [u8], len: u64) -> Result<&'a [u8], ViewError> {
    let cut = || damaged("a key-value is cut short");
    let len = usize::try_from(len).map_err(|_| cut())?;
    let (taken, rest) = bytes.split_at_checked(len).ok_or_else(cut)?;
    *bytes = rest;
    Ok(taken)
}

/// Replaces a zero byte within an escaped key; it sorts above the end mark, so a key sorts below
/// every longer key that starts with it.
const ESCAPED_ZERO: [u8; 2] = [0x00, 0xff];
/// Ends an escaped key.
const ESCAPE_END: [u8; 2] = [0x00, 0x00];

/// Writes the key of the `History` row of a superseded record: the escaped user key, then the
/// revision with all bits inverted, so that the rows of one key lie together, newest first.
pub fn encode_history_key(key: &[u8], revision: Revision, buf: &mut BytesMut) {
    for (n, part) in key.split(|&byte| byte == 0).enumerate() {
        if n > 0 {
            buf.put_slice(&ESCAPED_ZERO);
        }
        buf.put_slice(part);
    }
    buf.put_slice(&ESCAPE_END);
    buf.put_slice(&revision.encode_descending());
}

/// Bytes of a `History` row's key.
pub fn history_key_len(key: &[u8]) -> usize {
    let zeros = key.iter().filter(|&&byte| byte == 0).count();
    key.len() + zeros + ESCAPE_END.len() + REVISION_BYTES
}

/// The user key and the revision of a `History` row's key.
///
/// # Errors
/// The bytes are not the key of such a row.
pub fn decode_history_key(row: &[u8]) -> Result<(Bytes, Revision), ViewError> {
    let mut key = BytesMut::with_capacity(row.len());
    let mut rest = row;
    loop {
        match rest {
            [0x00, 0xff, after @ ..] => {
                key.put_u8(0);
                rest = after;
            }
            [0x00, 0x00, revision @ ..] => {
                return Ok((key.freeze(), Revision::decode_descending(revision)?));
            }
            [] | [0x00, ..] => return Err(damaged("the key of a history row is cut short")),
            [byte, after @ ..] => {
                key.put_u8(*byte);
                rest = after;
            }
        }
    }
}

/// The revision of a `History` row that is known to belong to some key.
///
/// # Errors
/// The bytes are not the key of such a row.
pub fn decode_history_revision(row: &[u8]) -> Result<Revision, ViewError> {
    let start = row.len().checked_sub(REVISION_BYTES);
    let start = start.ok_or_else(|| damaged("the key of a history row is cut short"))?;
    Revision::decode_descending(&row[start..])
}

/// Whether the record of a `History` row is a delete.
///
/// # Errors
/// The value is neither of the two.
pub fn decode_history_value(value: &[u8]) -> Result<bool, ViewError> {
    match value {
        HISTORY_PUT => Ok(false),
        HISTORY_TOMBSTONE => Ok(true),
        _ => Err(damaged("a history row has an unknown value")),
    }
}

/// Bytes of the lease id in a `LeaseKey` row's key.
pub const LEASE_BYTES: usize = 8;

/// Writes the key of the `LeaseKey` row of an attached key: the lease's id in 8 bytes, then the
/// user key, so that the keys of one lease lie together in order. The value is empty.
pub fn encode_lease_key(lease: i64, key: &[u8], buf: &mut BytesMut) {
    buf.put_slice(&lease.to_be_bytes());
    buf.put_slice(key);
}

/// The lease and the user key of a `LeaseKey` row's key.
///
/// # Errors
/// The bytes are not the key of such a row.
pub fn decode_lease_key(row: &[u8]) -> Result<(i64, &[u8]), ViewError> {
    let (lease, key) =
        row.split_first_chunk().ok_or_else(|| damaged("the key of a lease row is cut short"))?;
    Ok((i64::from_be_bytes(*lease), key))
}

/// How far the physical compaction of this replica has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactionCursor {
    /// The compact revision up to which all that may go is gone; -1 before the first.
    pub finished: i64,
    /// The compact revision being worked on. No row that a read at or above it needs was removed.
    pub target: i64,
    /// The first event not yet looked at for `target`.
    pub next: Revision,
}

impl CompactionCursor {
    /// Of a store that was never compacted.
    pub const START: Self = Self { finished: -1, target: -1, next: Revision { main: 0, sub: 0 } };

    /// The value of its row: `finished` and `target` in 8 bytes each, then `next`.
    pub fn encode(&self) -> Bytes {
        let mut buf = BytesMut::with_capacity(16 + REVISION_BYTES);
        buf.put_i64(self.finished);
        buf.put_i64(self.target);
        buf.put_slice(&self.next.encode());
        buf.freeze()
    }

    /// From the value of its row.
    ///
    /// # Errors
    /// The bytes are not a cursor.
    pub fn decode(value: &[u8]) -> Result<Self, ViewError> {
        let cut = || damaged("the compaction's cursor has a wrong length");
        let (finished, rest) = value.split_first_chunk().ok_or_else(cut)?;
        let (target, next) = rest.split_first_chunk().ok_or_else(cut)?;
        Ok(Self {
            finished: i64::from_be_bytes(*finished),
            target: i64::from_be_bytes(*target),
            next: Revision::decode(next)?,
        })
    }
}

/// The store holds bytes that nobody wrote.
pub(crate) fn damaged(what: &str) -> ViewError {
    ViewError(what.to_owned())
}

/// The key that a row is of; `None` for those of column `Meta`, which are of none.
///
/// # Errors
/// The row cannot be understood.
pub fn key_of<'a>(
    column: Column,
    row: &'a [u8],
    value: &'a [u8],
) -> Result<Option<Cow<'a, [u8]>>, ViewError> {
    Ok(Some(match column {
        Column::Meta => return Ok(None),
        Column::Key => Cow::Borrowed(row),
        Column::History => Cow::Owned(decode_history_key(row)?.0.into()),
        Column::LeaseKey => Cow::Borrowed(decode_lease_key(row)?.1),
        Column::Revision => {
            let head = RecordHead::decode(value)?;
            Cow::Borrowed(KeyValueFields::decode(&value[head.encoded_len()..])?.key)
        }
    }))
}
