//! The limits of a hub, each with its unit. Tests lower them; a node changes only those that
//! follow from its configuration.

/// What a message may have beside a request's own bytes; etcd adds as much to its request limit.
pub const MESSAGE_SLACK_BYTES: usize = 512 << 10;
/// etcd's limit of a request in bytes when none is configured.
const REQUEST_BYTES_MAX: usize = 1536 << 10;

/// How much a hub does and keeps at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of responses (`Response::charge`) a stream may have queued before its watchers turn
    /// to the history and its requests are left unread. It is exceeded by at most one response to
    /// each request already read, and one with events.
    pub queue_bytes_max: usize,
    /// Responses of this many bytes are split for clients that allow it: the limit of a request
    /// and `MESSAGE_SLACK_BYTES`.
    pub fragment_bytes: usize,
    /// Distinct revisions in one response; etcd's limit for a watcher that catches up.
    pub response_revisions_max: usize,
    /// Bytes of events in one response, unless a single revision has more: many clients refuse
    /// messages above 4 MiB.
    pub response_bytes_max: usize,
    /// Events looked at after which a block of history ends, at the end of their revision. A
    /// watcher fewer revisions behind than this is served in every second block.
    pub block_rows_max: usize,
    /// Events some watcher may want after which a block of history ends, likewise.
    pub block_events_max: usize,
    /// Bytes of their keys and values after which a block of history ends, likewise.
    pub block_bytes_max: usize,
    /// Watchers served from one block of history.
    pub block_watchers_max: usize,
    /// Watchers of one stream that read history at the same time; the others wait for their turn,
    /// so that one stream cannot hold up the rest.
    pub stream_ready_max: usize,
    /// Events, counted once for each watcher, that are gathered before responses are made of them;
    /// exceeded by at most one revision.
    pub gather_events_max: usize,
    /// Streams that one tick tells progress, or closes for want of a leader.
    pub tick_streams_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            queue_bytes_max: 4 << 20,
            fragment_bytes: REQUEST_BYTES_MAX + MESSAGE_SLACK_BYTES,
            response_revisions_max: 1_000,
            response_bytes_max: 1 << 20,
            block_rows_max: 8_000,
            block_events_max: 4_000,
            block_bytes_max: 1 << 20,
            block_watchers_max: 512,
            stream_ready_max: 512,
            gather_events_max: 64 << 10,
            tick_streams_max: 1_000,
        }
    }
}
