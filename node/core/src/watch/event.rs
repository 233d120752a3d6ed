//! An event shared by everyone who wants it. Owns its encoding, which happens at most twice (with
//! and without the previous key) however many watchers on however many workers are sent it.

use std::sync::OnceLock;

use bytes::{BufMut, Bytes, BytesMut};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

use crate::mvcc;
use crate::proto::mvccpb::event::EventType;

/// Field number of `events` in `etcdserverpb.WatchResponse`.
const EVENTS: u32 = 11;
/// Field numbers of `mvccpb.Event`.
const TYPE: u32 = 1;
const KV: u32 = 2;
const PREV_KV: u32 = 3;
/// Every key here is one byte: field numbers below 16.
const KEY_BYTES: usize = 1;

/// One event of a published batch.
#[derive(Debug)]
pub struct Event {
    change: mvcc::Event,
    plain: OnceLock<Bytes>,
    with_prev: OnceLock<Bytes>,
}

impl Event {
    /// What happened to the key.
    pub fn change(&self) -> &mvcc::Event {
        &self.change
    }

    /// The event as one element of `WatchResponse.events`, field key and length included.
    pub(super) fn field(&self, wants_prev: bool) -> Bytes {
        match &self.change.prev {
            Some(prev) if wants_prev => {
                self.with_prev.get_or_init(|| encode(&self.change, Some(prev))).clone()
            }
            _ => self.plain.get_or_init(|| encode(&self.change, None)).clone(),
        }
    }
}

impl From<mvcc::Event> for Event {
    fn from(change: mvcc::Event) -> Self {
        Self { change, plain: OnceLock::new(), with_prev: OnceLock::new() }
    }
}

fn encode(change: &mvcc::Event, prev: Option<&Bytes>) -> Bytes {
    let part_len = |part: &Bytes| KEY_BYTES + encoded_len_varint(part.len() as u64) + part.len();
    // A put is the type's default, which protobuf leaves out.
    let type_len = if change.is_delete { KEY_BYTES + 1 } else { 0 };
    let len = type_len + part_len(&change.kv) + prev.map_or(0, part_len);

    let mut field = BytesMut::with_capacity(KEY_BYTES + encoded_len_varint(len as u64) + len);
    encode_key(EVENTS, WireType::LengthDelimited, &mut field);
    encode_varint(len as u64, &mut field);
    if change.is_delete {
        encode_key(TYPE, WireType::Varint, &mut field);
        encode_varint(EventType::Delete as u64, &mut field);
    }
    put_part(KV, &change.kv, &mut field);
    if let Some(prev) = prev {
        put_part(PREV_KV, prev, &mut field);
    }
    field.freeze()
}

fn put_part(number: u32, part: &Bytes, field: &mut BytesMut) {
    encode_key(number, WireType::LengthDelimited, field);
    encode_varint(part.len() as u64, field);
    field.put_slice(part);
}
