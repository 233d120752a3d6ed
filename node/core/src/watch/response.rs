//! What a stream is sent: an `etcdserverpb.WatchResponse` whose events are shared and already
//! encoded. Owns its size and its bytes, which are exactly those prost would write.

use bytes::{BufMut, Bytes};
use prost::Message;

use crate::proto::etcdserverpb as pb;

/// Memory a queued response takes beside its bytes: itself and its slot in the queue. Counted so
/// that a stream cannot queue any number of empty responses.
pub const OVERHEAD_BYTES: usize = 160;

/// The id of a refused watcher and of progress that speaks for a whole stream.
pub const NO_WATCHER: i64 = -1;

/// One message to a client.
#[derive(Clone, Debug, PartialEq)]
pub struct Response {
    /// Cluster, member, revision and term.
    pub header: pb::ResponseHeader,
    /// The watcher this is about, or `NO_WATCHER`.
    pub watch_id: i64,
    /// Answers a create request.
    pub is_created: bool,
    /// Nothing more of the watcher follows.
    pub is_canceled: bool,
    /// The lowest revision still readable, when the watcher wanted an older one; otherwise 0.
    pub compact_revision: i64,
    /// Why a create request was refused; otherwise empty.
    pub cancel_reason: &'static str,
    /// The rest of the same response follows in the next one.
    pub is_fragment: bool,
    /// Encoded elements of `events`.
    pub(super) events: Events,
}

impl Response {
    /// An empty response of a watcher.
    pub(super) fn new(header: pb::ResponseHeader, watch_id: i64) -> Self {
        Self {
            header,
            watch_id,
            is_created: false,
            is_canceled: false,
            compact_revision: 0,
            cancel_reason: "",
            is_fragment: false,
            events: Events::None,
        }
    }

    /// How many events it brings.
    pub fn events_count(&self) -> usize {
        self.events.as_slice().len()
    }

    /// Bytes it takes of its stream's budget until `Input::Sent` gives them back.
    pub fn charge(&self) -> usize {
        OVERHEAD_BYTES + self.encoded_len()
    }

    /// Bytes that `encode_into` writes.
    pub fn encoded_len(&self) -> usize {
        self.frame().encoded_len() + self.events.as_slice().iter().map(Bytes::len).sum::<usize>()
    }

    /// Appends the encoded message.
    pub fn encode_into(&self, buffer: &mut impl BufMut) {
        // `events` has the highest field number, so its elements follow all other fields.
        self.frame().encode_raw(buffer);
        for event in self.events.as_slice() {
            buffer.put_slice(event);
        }
    }

    /// The message without its events.
    fn frame(&self) -> pb::WatchResponse {
        pb::WatchResponse {
            header: Some(self.header),
            watch_id: self.watch_id,
            created: self.is_created,
            canceled: self.is_canceled,
            compact_revision: self.compact_revision,
            cancel_reason: self.cancel_reason.to_owned(),
            fragment: self.is_fragment,
            events: Vec::new(),
        }
    }
}

/// Encoded elements of `events`. One element, by far the most frequent case when an event goes to
/// many watchers, needs no memory of its own.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Events {
    #[default]
    None,
    One(Bytes),
    Many(Vec<Bytes>),
}

impl Events {
    pub(super) fn as_slice(&self) -> &[Bytes] {
        match self {
            Self::None => &[],
            Self::One(event) => std::slice::from_ref(event),
            Self::Many(events) => events,
        }
    }
}

impl From<Vec<Bytes>> for Events {
    fn from(mut events: Vec<Bytes>) -> Self {
        match events.len() {
            0 => Self::None,
            1 => Self::One(events.remove(0)),
            _ => Self::Many(events),
        }
    }
}
