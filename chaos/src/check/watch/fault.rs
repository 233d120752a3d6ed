//! Every way a watcher can be sent something wrong.

use thiserror::Error;

use crate::history::{Event, MalformedEvent};

/// What is wrong with what a watcher was sent.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum Fault {
    /// An event that etcd could not send.
    #[error(transparent)]
    Malformed(MalformedEvent),
    /// A response without a header.
    #[error("response {position} has no header")]
    NoHeader {
        /// Its place among the responses.
        position: usize,
    },
    /// Something was sent before the created reply.
    #[error("response {position} came before the created reply")]
    NotCreated {
        /// Its place among the responses.
        position: usize,
    },
    /// A second created reply.
    #[error("response {position} says created once more")]
    CreatedAgain {
        /// Its place among the responses.
        position: usize,
    },
    /// A created reply that carries events.
    #[error("the created reply carries events")]
    CreatedWithEvents,
    /// A create request was refused that is right, or accepted though it is wrong.
    #[error("the create request should {}have been refused ({reason:?})", if *should { "" } else { "not " })]
    RefusedWrongly {
        /// True if it should have been refused.
        should: bool,
        /// The reason in the response.
        reason: String,
    },
    /// Pieces of a response to a watcher that did not ask for them, or that do not end.
    #[error("response {position} is a piece that does not belong there")]
    StrayFragment {
        /// Its place among the responses.
        position: usize,
    },
    /// An event that did not happen.
    #[error("{event} did not happen")]
    NotInEvidence {
        /// The event.
        event: Box<Event>,
    },
    /// An event with content other than it had.
    #[error("sent {found}, which was {expected}")]
    ContentDiffers {
        /// What happened.
        expected: Box<Event>,
        /// What was sent.
        found: Box<Event>,
    },
    /// An event outside the span or against the filters.
    #[error("{event} was not asked for")]
    NotAskedFor {
        /// The event.
        event: Box<Event>,
    },
    /// An event after one that happened later.
    #[error("{later} was sent before {earlier}")]
    OutOfOrder {
        /// The event that happened first.
        earlier: Box<Event>,
        /// The event that was sent first.
        later: Box<Event>,
    },
    /// An event sent twice.
    #[error("{event} was sent twice")]
    Duplicate {
        /// The event.
        event: Box<Event>,
    },
    /// The events of one revision came in two responses.
    #[error("revision {revision} was split over two responses")]
    Split {
        /// The revision.
        revision: i64,
    },
    /// A revision of which some events were sent and others were not.
    #[error("revision {revision} was sent without {missed}")]
    Torn {
        /// The revision.
        revision: i64,
        /// The first event that was left out.
        missed: Box<Event>,
    },
    /// The first event is not the first one due.
    #[error("started with {first}, though {missed} was due before")]
    StartedLate {
        /// The first event that was due.
        missed: Box<Event>,
        /// The first event sent.
        first: Box<Event>,
    },
    /// An event below the start.
    #[error("{event} is below the start revision {start}")]
    StartedEarly {
        /// The event.
        event: Box<Event>,
        /// The first revision asked for.
        start: i64,
    },
    /// An event that was left out, while later ones were sent.
    #[error("{missed} was left out")]
    Missed {
        /// The event.
        missed: Box<Event>,
    },
    /// Progress was announced ahead of an event that was not sent yet.
    #[error("progress to {progress} was announced before {missed} was sent")]
    ProgressAhead {
        /// The revision announced.
        progress: i64,
        /// The first event that was due by then.
        missed: Box<Event>,
    },
    /// Progress went back.
    #[error("progress to {later} was announced after {earlier}")]
    ProgressWentBack {
        /// The revision announced first.
        earlier: i64,
        /// The revision announced after it.
        later: i64,
    },
    /// A response whose header is below its events.
    #[error("a response at {header} carries {event}")]
    HeaderBehind {
        /// The revision in the header.
        header: i64,
        /// The event.
        event: Box<Event>,
    },
    /// A header above the last revision of the run.
    #[error("a response at {header}, but the store only reached {head}")]
    HeaderBeyondHead {
        /// The revision in the header.
        header: i64,
        /// The last revision.
        head: i64,
    },
    /// Progress below a start that is in the future.
    #[error("progress to {progress} was announced below the start revision {start}")]
    ProgressBeforeStart {
        /// The revision announced.
        progress: i64,
        /// The first revision asked for.
        start: i64,
    },
    /// A previous pair that is not the one before the event, or is there unasked, or is not there.
    #[error("{event} came with previous pair {found}, should be {expected}")]
    PrevKvDiffers {
        /// The event.
        event: Box<Event>,
        /// The pair before it, printed.
        expected: String,
        /// The pair that was sent, printed.
        found: String,
    },
    /// The watcher was cancelled without a reason that holds.
    #[error("cancelled without need (compact revision {compact_revision}, reason {reason:?})")]
    CancelledWrongly {
        /// The compact revision in the response.
        compact_revision: i64,
        /// The reason in the response.
        reason: String,
    },
    /// A cancellation by compaction in another form than etcd's.
    #[error("cancelled by compaction with header revision {header} and reason {reason:?}")]
    CompactionMisreported {
        /// The revision in the header.
        header: i64,
        /// The reason in the response.
        reason: String,
    },
    /// Something was sent after the cancellation.
    #[error("response {position} came after the watcher was cancelled")]
    SentAfterCancel {
        /// Its place among the responses.
        position: usize,
    },
    /// An open watcher never got what happened long before the end of the run.
    #[error("{missed} was never sent, though the watcher was open until the end")]
    NotCaughtUp {
        /// The first event that is missing.
        missed: Box<Event>,
    },
}
