//! What one watcher asked for and everything it was sent, in order of arrival. Holds no opinion
//! about whether that was right.

use flotilla_proto::etcdserverpb::{WatchCreateRequest, WatchResponse};

use crate::history::{ClientId, Stamp};

/// One watcher of one stream.
#[derive(Clone, Debug, PartialEq)]
pub struct WatchRecord {
    /// Who watches.
    pub client: ClientId,
    /// Taken before the create request was sent.
    pub invoked: Stamp,
    /// What was asked for.
    pub create: WatchCreateRequest,
    /// Every response of the stream that carries this watcher's id, and every one for the whole
    /// stream (`watch_id` -1 without `created`), from the created reply on. A client that lost
    /// its stream and comes back for the rest is a new watcher.
    pub received: Vec<Received>,
    /// When the client sent its cancel request, if it did.
    pub cancel_sent: Option<Stamp>,
    /// True if the stream was still open, and read to its end, when the run was over.
    pub open_at_end: bool,
}

/// One response and when it arrived.
#[derive(Clone, Debug, PartialEq)]
pub struct Received {
    /// Taken after the response arrived.
    pub at: Stamp,
    /// The response.
    pub response: WatchResponse,
}
