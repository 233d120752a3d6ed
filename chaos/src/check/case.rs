//! A history with everything that is derived from it once and used by many checks: the timeline
//! of the evidence, the place of each operation, who knew what when. Judges nothing itself.

use crate::check::compaction::Compactions;
use crate::check::lease::Book;
use crate::check::rules::Rules;
use crate::check::sight::{Frontier, Seen, Witness};
use crate::check::violation::Subject;
use crate::history::{Answer, History, Operation, Request};
use crate::model::{
    Leases, NEVER_COMPACTED, Refusal, Step, Timeline, View, is_read_only, is_serializable,
};

/// A history ready to be judged.
#[derive(Clone, Debug)]
pub struct Case<'a> {
    /// What was recorded.
    pub history: &'a History,
    /// How to judge it.
    pub rules: &'a Rules,
    /// The evidence as a store; it is never compacted.
    pub timeline: Timeline,
    /// The last revision of the run.
    pub head: i64,
    /// Who saw which revision when.
    pub seen: Seen,
    /// How far the store can have been when.
    pub frontier: Frontier,
    /// The place of each operation, by its place in the history.
    pub places: Vec<Place>,
    /// What is known of compactions.
    pub compactions: Compactions,
    /// What is known of leases.
    pub leases: Book,
}

/// The place of an operation in the one order of all that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It made this revision.
    Write(i64),
    /// It changed no key, and came after this revision and before the next.
    After(i64),
    /// It was answered, but the answer does not tell its place.
    Unplaced,
    /// It was refused, or nothing shows that it ever happened.
    Nowhere,
}

impl<'a> Case<'a> {
    /// Names an operation for a violation.
    pub fn subject(&self, operation: usize) -> Subject {
        Subject::new(self.history, operation)
    }

    /// Names who saw a revision.
    pub fn witness(&self, witness: Witness) -> String {
        match witness {
            Witness::Operation(operation) => self.subject(operation).to_string(),
            Witness::Watcher(watcher) => {
                format!("watcher {watcher} ({})", self.history.watches[watcher])
            }
        }
    }

    /// The operations with a place, in the order of the history.
    pub fn placed(&self) -> impl Iterator<Item = (usize, &'a Operation, Place)> {
        self.history
            .operations
            .iter()
            .zip(&self.places)
            .enumerate()
            .map(|(index, (operation, place))| (index, operation, *place))
    }

    /// The revisions that the store can have had at some moment of an operation: from the last
    /// one seen before it to the last one possible at its end. An answer from an old state can
    /// come from any revision before.
    pub fn window(&self, operation: &Operation) -> (i64, i64) {
        let last = operation.returned.map_or(self.head, |at| self.frontier.by(at)).min(self.head);
        let seen = self.seen.revision_before(operation.invoked);
        let first = if is_linearizable(&operation.request) { seen } else { 0 };
        (first.clamp(crate::history::EMPTY_STORE_REVISION, last), last)
    }
}

/// What a request does to the state right after `revision`, by the model. Leases are taken to
/// exist; what depends on compaction is taken from `compacted`. `None` if it is not a request
/// that reads or changes keys.
pub fn evaluate(
    timeline: &Timeline,
    revision: i64,
    compacted: i64,
    request: &Request,
) -> Option<Result<Step, Refusal>> {
    let view = View { timeline, revision, compacted, leases: Leases::Assumed };
    match request {
        Request::Read(request) => Some(view.read(request)),
        Request::Put(request) => Some(view.put(request)),
        Request::DeleteRange(request) => Some(Ok(view.delete_range(request))),
        Request::Txn(request) => Some(view.txn(request)),
        Request::LeaseRevoke(request) => Some(view.revoke(request.id)),
        Request::Compact(_)
        | Request::LeaseGrant(_)
        | Request::LeaseKeepAlive(_)
        | Request::LeaseTimeToLive(_)
        | Request::LeaseLeases(_) => None,
    }
}

/// As [`evaluate`], on history that was never compacted.
pub fn evaluate_uncompacted(
    timeline: &Timeline,
    revision: i64,
    request: &Request,
) -> Option<Result<Step, Refusal>> {
    evaluate(timeline, revision, NEVER_COMPACTED, request)
}

/// True if the answer must show everything that was seen before the request was made.
pub fn is_linearizable(request: &Request) -> bool {
    match request {
        Request::Read(request) => !request.serializable,
        Request::Txn(request) => !(is_read_only(request) && is_serializable(request)),
        Request::Put(_)
        | Request::DeleteRange(_)
        | Request::Compact(_)
        | Request::LeaseGrant(_)
        | Request::LeaseRevoke(_) => true,
        Request::LeaseKeepAlive(_) | Request::LeaseTimeToLive(_) | Request::LeaseLeases(_) => false,
    }
}

/// True for a read, or a transaction that only reads, whose answer must not be old.
pub fn is_linearizable_read(request: &Request) -> bool {
    let is_read = match request {
        Request::Read(_) => true,
        Request::Txn(request) => is_read_only(request),
        Request::Put(_)
        | Request::DeleteRange(_)
        | Request::Compact(_)
        | Request::LeaseGrant(_)
        | Request::LeaseRevoke(_)
        | Request::LeaseKeepAlive(_)
        | Request::LeaseTimeToLive(_)
        | Request::LeaseLeases(_) => false,
    };
    is_read && is_linearizable(request)
}

/// True if the header of the answer is the place of the operation. The headers of the others are
/// filled in at some moment while they are served.
pub fn is_placed(answer: &Answer) -> bool {
    match answer {
        Answer::Read(_)
        | Answer::Put(_)
        | Answer::DeleteRange(_)
        | Answer::Txn(_)
        | Answer::LeaseGrant(_)
        | Answer::LeaseRevoke(_) => true,
        Answer::Compact(_)
        | Answer::LeaseKeepAlive(_)
        | Answer::LeaseTimeToLive(_)
        | Answer::LeaseLeases(_) => false,
    }
}
