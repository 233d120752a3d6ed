//! The verdict: runs every promise over a history and says PASS, FAIL or INVALID. A history that
//! breaks a promise fails even if it is too short to pass.

use std::fmt;

use thiserror::Error;

use crate::check::attribution::{Facts, Maker, attribute};
use crate::check::case::Case;
use crate::check::compaction::Compactions;
use crate::check::lease::Book;
use crate::check::rules::Rules;
use crate::check::sight::{Frontier, Seen};
use crate::check::violation::Violation;
use crate::check::{
    answers, compaction, lease, reads, real_time, refusals, replicas, revisions, watch, well_formed,
};
use crate::history::{EMPTY_STORE_REVISION, History, Stamp};
use crate::model::Timeline;

/// What a history is worth.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Every promise was kept.
    Pass(Summary),
    /// At least one was broken. Of each promise only the first violation is reported.
    Fail(Vec<Violation>),
    /// The history proves nothing.
    Invalid(Invalid),
}

/// What a history that passed consists of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Operations that were answered.
    pub answered: usize,
    /// Operations that were refused.
    pub refused: usize,
    /// Operations of unknown outcome.
    pub unknown: usize,
    /// Of those, the ones that made a revision.
    pub unknown_applied: usize,
    /// Revisions above that of the empty store.
    pub revisions: usize,
    /// Events sent to watchers.
    pub events: usize,
}

/// Why a history proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Invalid {
    /// An operation has an outcome but no time at which it came.
    #[error("operation {operation} has an outcome and never returned")]
    NoReturn {
        /// Its place in the history.
        operation: usize,
    },
    /// An operation returned before it was invoked.
    #[error("operation {operation} returned before it was invoked")]
    ReturnedBeforeInvoked {
        /// Its place in the history.
        operation: usize,
    },
    /// An answer of another kind than the request.
    #[error("operation {operation} has the answer of another request")]
    WrongAnswer {
        /// Its place in the history.
        operation: usize,
    },
    /// Nobody stated how far the evidence goes.
    #[error("the evidence was not closed")]
    OpenEvidence,
    /// The evidence goes further than was stated.
    #[error("the evidence goes to revision {highest}, but was closed at {head}")]
    EvidenceBeyondHead {
        /// Where it was closed.
        head: i64,
        /// How far it goes.
        highest: i64,
    },
    /// The run did too little.
    #[error("{found} {what} are too few, at least {wanted} are needed")]
    TooFew {
        /// Of what.
        what: &'static str,
        /// How many there were.
        found: usize,
        /// How many are needed.
        wanted: usize,
    },
}

type Promise = fn(&Case<'_>) -> Result<(), Violation>;

/// Every promise that is judged from the whole case; the others are in [`judge`].
const PROMISES: [Promise; 6] = [
    answers::check,
    reads::check,
    real_time::check,
    refusals::check,
    compaction::check,
    lease::check,
];

/// Judges a history.
pub fn judge(history: &History, rules: &Rules) -> Verdict {
    let head = match well_formed::check(history) {
        Ok(head) => head,
        Err(invalid) => return Verdict::Invalid(invalid),
    };
    let mut violations: Vec<Violation> =
        replicas::check(&history.hashes).err().into_iter().collect();
    let case = match revisions::check(history, head) {
        Ok(timeline) => open(history, rules, timeline, &mut violations),
        Err(violation) => {
            violations.push(violation);
            return Verdict::Fail(violations);
        }
    };
    violations.extend(PROMISES.iter().filter_map(|check| check(&case).err()));
    violations.extend(watch::check(&case));
    if !violations.is_empty() {
        return Verdict::Fail(violations);
    }
    match well_formed::check_size(history, head, rules) {
        Ok(()) => Verdict::Pass(Summary::new(&case)),
        Err(invalid) => Verdict::Invalid(invalid),
    }
}

/// Derives the case, reporting revisions that have no maker, or two.
fn open<'a>(
    history: &'a History,
    rules: &'a Rules,
    timeline: Timeline,
    violations: &mut Vec<Violation>,
) -> Case<'a> {
    let seen = Seen::new(history);
    let mut leases = Book::new(history);
    let facts = Facts { history, rules, timeline: &timeline, seen: &seen, leases: &leases };
    let (attribution, found) = attribute(facts);
    violations.extend(found);
    leases.add_ends(history, &attribution);
    let frontier = Frontier::new(attribution.makers.iter().map(|(&revision, maker)| {
        let invoked: Stamp = match *maker {
            Maker::Operation(operation) => history.operations[operation].invoked,
            Maker::LeaseEnd { .. } | Maker::Nobody => 0,
        };
        (revision, invoked)
    }));
    Case {
        history,
        rules,
        head: timeline.revision(),
        timeline,
        seen,
        frontier,
        places: attribution.places,
        compactions: Compactions::new(history),
        leases,
    }
}

impl Summary {
    fn new(case: &Case<'_>) -> Summary {
        let operations = &case.history.operations;
        let unknown = operations.iter().filter(|it| it.is_unknown()).count();
        let answered = operations.iter().filter(|it| it.answer().is_some()).count();
        let unknown_applied = case
            .placed()
            .filter(|(_, operation, place)| {
                operation.is_unknown() && matches!(place, super::case::Place::Write(_))
            })
            .count();
        let received = case.history.watches.iter().flat_map(|watch| &watch.received);
        Summary {
            answered,
            refused: operations.len() - answered - unknown,
            unknown,
            unknown_applied,
            revisions: usize::try_from(case.head - EMPTY_STORE_REVISION).unwrap_or(0),
            events: received.map(|received| received.response.events.len()).sum(),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Pass(summary) => write!(
                f,
                "PASS: {} answered, {} refused, {} unknown ({} applied), {} revisions, {} events",
                summary.answered,
                summary.refused,
                summary.unknown,
                summary.unknown_applied,
                summary.revisions,
                summary.events,
            ),
            Verdict::Fail(violations) => {
                write!(f, "FAIL: {} violations", violations.len())?;
                violations.iter().try_for_each(|violation| write!(f, "\n  {violation}"))
            }
            Verdict::Invalid(invalid) => write!(f, "INVALID: {invalid}"),
        }
    }
}
