//! One watcher: what it wants, and how far it has got. Knows nothing of others.

use super::index::Place;
use super::slab::{NONE, Slot};
use crate::mvcc;
use crate::proto::Span;
use crate::proto::etcdserverpb::WatchCreateRequest;
use crate::proto::etcdserverpb::watch_create_request::FilterType;

/// How a watcher gets its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Not at all: it is being made or removed.
    Detached,
    /// As they are published.
    Live,
    /// From the history, with the next block that covers `next`. Above the frontier only while a block
    /// is under way that it came too late for.
    Ready,
    /// From the history, once its stream has room.
    Parked,
    /// Not any more: what it wants is compacted. The id stays taken until the client cancels it.
    Compacted,
}

/// Small on purpose: there may be a million that never see an event.
#[derive(Debug)]
pub(super) struct Watcher {
    pub(super) id: i64,
    /// No event below this revision is sent. While reading history, the first revision not sent.
    pub(super) next: i64,
    pub(super) stream: Slot,
    pub(super) place: Place,
    /// Its entry among the events gathered at present.
    pub(super) gathered: u32,
    pub(super) phase: Phase,
    pub(super) options: Options,
    /// It begins above the frontier: its stream has no progress to tell yet.
    pub(super) is_waiting: bool,
    /// No event was sent since the last interval of progress began.
    pub(super) is_quiet: bool,
}

/// What a client asked of one watcher beside keys and revision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) wants_prev: bool,
    pub(super) drops_puts: bool,
    pub(super) drops_deletes: bool,
    pub(super) takes_fragments: bool,
    pub(super) wants_progress: bool,
    /// It was created without a start revision: whatever comes next.
    pub(super) is_from_now: bool,
}

impl Watcher {
    pub(super) fn new(id: i64, stream: Slot, next: i64, options: Options) -> Self {
        Self {
            id,
            next,
            stream,
            place: Place { bucket: NONE, position: NONE },
            gathered: NONE,
            phase: Phase::Detached,
            options,
            is_waiting: false,
            is_quiet: true,
        }
    }

    /// Whether an event on one of its keys is to be sent.
    pub(super) fn wants(&self, change: &mvcc::Event) -> bool {
        let is_dropped =
            if change.is_delete { self.options.drops_deletes } else { self.options.drops_puts };
        change.revision >= self.next && !is_dropped
    }

    /// The lowest revision at which progress may be told. One that was given no start revision
    /// starts after the revision it was created at, and that one it may be told.
    pub(super) fn progress_from(&self) -> i64 {
        self.next - i64::from(self.options.is_from_now)
    }
}

/// Why a client may not watch, in the words of grpc-go. What went wrong on the way is no permission.
pub(super) fn refusal_reason(error: crate::Error) -> &'static str {
    match error {
        crate::Error::UserEmpty => {
            "rpc error: code = InvalidArgument desc = etcdserver: user name is empty"
        }
        crate::Error::InvalidAuthToken => {
            "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token"
        }
        crate::Error::AuthOldRevision => {
            "rpc error: code = InvalidArgument desc = etcdserver: revision of auth store is old"
        }
        _ => "rpc error: code = PermissionDenied desc = etcdserver: permission denied",
    }
}

/// The reasons for which a create request is refused, in the order of the checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("the start revision is negative")]
    NegativeStart,
    #[error("the span is empty")]
    EmptySpan,
    #[error("the id is taken")]
    DuplicateId,
}

impl Refusal {
    /// The text clients match on.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::NegativeStart => crate::Error::Compacted.text(),
            Self::EmptySpan => "mvcc: watcher range is empty",
            Self::DuplicateId => "mvcc: duplicate watch ID provided on the WatchStream",
        }
    }
}

/// The keys and options of a create request. An empty key means the lowest one, a zero byte.
pub(super) fn read_request(request: &WatchCreateRequest) -> Result<(Span, Options), Refusal> {
    if request.start_revision < 0 {
        return Err(Refusal::NegativeStart);
    }
    let key =
        if request.key.is_empty() { bytes::Bytes::from_static(b"\0") } else { request.key.clone() };
    let span = Span::from_request(key, request.range_end.clone());
    if span.is_empty() {
        return Err(Refusal::EmptySpan);
    }
    // Filters that are not known are ignored.
    let has_filter = |filter: FilterType| request.filters.contains(&filter.into());
    let options = Options {
        wants_prev: request.prev_kv,
        drops_puts: has_filter(FilterType::Noput),
        drops_deletes: has_filter(FilterType::Nodelete),
        takes_fragments: request.fragment,
        wants_progress: request.progress_notify,
        is_from_now: request.start_revision == 0,
    };
    Ok((span, options))
}
