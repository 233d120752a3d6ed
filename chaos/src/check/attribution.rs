//! Promise: each revision is made by exactly one operation, or by the end of a lease. Finds the
//! maker of every revision from what the answers claim and, where nobody claims it, from what
//! the operations without an answer would have done. Never takes a maker whose effect differs.

use std::collections::BTreeMap;

use flotilla_proto::etcdserverpb::TxnResponse;
use flotilla_proto::etcdserverpb::response_op::Response;

use crate::check::case::{Place, evaluate_uncompacted, is_placed};
use crate::check::lease::Book;
use crate::check::rules::Rules;
use crate::check::sight::Seen;
use crate::check::unknown_writes::{Assignment, Candidates, Match, brings, is_in_time};
use crate::check::violation::{Subject, Violation};
use crate::history::{Answer, EMPTY_STORE_REVISION, Event, History, Outcome, Request, Stamp};
use crate::model::{Timeline, validate};

/// How many revisions without a maker are reported; one is enough to fail, and finding out why
/// looks at the whole history.
const EXPLAINED_MAX: usize = 16;

/// Who made what.
#[derive(Clone, Debug, Default)]
pub struct Attribution {
    /// The place of each operation, by its place in the history.
    pub places: Vec<Place>,
    /// The maker of each revision.
    pub makers: BTreeMap<i64, Maker>,
}

/// What made a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Maker {
    /// This operation, which claims it or whose outcome is unknown.
    Operation(usize),
    /// The end of a lease. `certain` if no operation of unknown outcome other than a revocation
    /// of the lease can have done the same.
    LeaseEnd {
        /// The lease.
        lease: i64,
        /// See above.
        certain: bool,
    },
    /// Nothing that is known; reported as a violation.
    Nobody,
}

/// What attribution works on.
#[derive(Clone, Copy)]
pub(super) struct Facts<'a> {
    pub(super) history: &'a History,
    pub(super) rules: &'a Rules,
    pub(super) timeline: &'a Timeline,
    pub(super) seen: &'a Seen,
    pub(super) leases: &'a Book,
}

/// True if an answer says by itself that the operation changed something. A revocation does not
/// say.
pub fn claims(answer: &Answer) -> bool {
    match answer {
        Answer::Put(_) => true,
        Answer::DeleteRange(answer) => answer.deleted > 0,
        Answer::Txn(answer) => has_changed(answer),
        Answer::Read(_)
        | Answer::Compact(_)
        | Answer::LeaseGrant(_)
        | Answer::LeaseRevoke(_)
        | Answer::LeaseKeepAlive(_)
        | Answer::LeaseTimeToLive(_)
        | Answer::LeaseLeases(_) => false,
    }
}

/// Finds the maker of every revision, and reports those that cannot be found.
pub(super) fn attribute(facts: Facts<'_>) -> (Attribution, Vec<Violation>) {
    let mut violations = Vec::new();
    let mut places = first_places(facts.history);
    let mut makers = claimed(facts, &places, &mut violations);
    claim_revocations(facts, &mut places, &mut makers);

    let holes = holes(facts, &makers);
    let candidates = Candidates::new(facts);
    let assignment = candidates.assign(facts, &holes);
    let mut unexplained = Vec::new();
    for (hole, found) in holes.iter().zip(&assignment.matches) {
        let maker = match *found {
            Match::Operation(operation) => {
                places[operation] = Place::Write(hole.revision);
                Maker::Operation(operation)
            }
            Match::LeaseEnd { lease, certain } => Maker::LeaseEnd { lease, certain },
            Match::Nothing => {
                unexplained.push(hole);
                Maker::Nobody
            }
        };
        makers.insert(hole.revision, maker);
    }
    for hole in unexplained.into_iter().take(EXPLAINED_MAX) {
        violations.push(explain(facts, &candidates, &assignment, hole, &makers));
    }
    (Attribution { places, makers }, violations)
}

/// A revision that no answer claims.
#[derive(Clone, Debug)]
pub(super) struct Hole {
    pub(super) revision: i64,
    /// The lease whose end would have made exactly this revision.
    pub(super) ended: Option<i64>,
    /// Set if that lease cannot have run out by then; it can still have been revoked.
    pub(super) too_early: Option<(Stamp, Stamp)>,
}

fn first_places(history: &History) -> Vec<Place> {
    history
        .operations
        .iter()
        .map(|operation| match operation.answer() {
            None => Place::Nowhere,
            Some(answer) if claims(answer) => Place::Write(answer.revision()),
            Some(answer) if is_placed(answer) => Place::After(answer.revision()),
            Some(_) => Place::Unplaced,
        })
        .collect()
}

fn claimed(
    facts: Facts<'_>,
    places: &[Place],
    violations: &mut Vec<Violation>,
) -> BTreeMap<i64, Maker> {
    let mut makers = BTreeMap::new();
    for (index, place) in places.iter().enumerate() {
        let Place::Write(revision) = *place else { continue };
        match makers.get(&revision) {
            Some(Maker::Operation(first)) => violations.push(Violation::DuplicateRevision {
                revision,
                first: Subject::new(facts.history, *first),
                second: Subject::new(facts.history, index),
            }),
            Some(_) | None => {
                makers.insert(revision, Maker::Operation(index));
            }
        }
    }
    makers
}

/// A revocation made the revision in its header if that revision is unclaimed, deletes exactly
/// the keys of the lease, and was not seen before the revocation was asked for. Otherwise it
/// found no key.
fn claim_revocations(facts: Facts<'_>, places: &mut [Place], makers: &mut BTreeMap<i64, Maker>) {
    for (index, operation) in facts.history.operations.iter().enumerate() {
        let (Request::LeaseRevoke(request), Some(answer)) =
            (&operation.request, operation.answer())
        else {
            continue;
        };
        let revision = answer.revision();
        if !makers.contains_key(&revision)
            && facts.seen.revision_before(operation.invoked) < revision
            && ended_lease(facts.timeline, revision) == Some(request.id)
        {
            makers.insert(revision, Maker::Operation(index));
            places[index] = Place::Write(revision);
        }
    }
}

/// The lease whose end makes exactly this revision.
fn ended_lease(timeline: &Timeline, revision: i64) -> Option<i64> {
    let events = timeline.events_at(revision);
    let first = events.first()?;
    let lease = timeline.get(first.key(), revision - 1)?.lease;
    if lease == 0 || !events.iter().all(Event::is_delete) {
        return None;
    }
    let deleted = events.iter().map(Event::key);
    timeline.attached(lease, revision - 1).iter().eq(deleted).then_some(lease)
}

fn holes(facts: Facts<'_>, makers: &BTreeMap<i64, Maker>) -> Vec<Hole> {
    (EMPTY_STORE_REVISION + 1..=facts.timeline.revision())
        .filter(|revision| !makers.contains_key(revision))
        .map(|revision| {
            let ended = ended_lease(facts.timeline, revision);
            let too_early = ended.and_then(|lease| {
                facts.leases.ended_too_early(lease, revision, facts.seen, facts.rules)
            });
            Hole { revision, ended, too_early }
        })
        .collect()
}

/// Why no maker was found. The order of the reasons is from the most to the least telling.
fn explain(
    facts: Facts<'_>,
    candidates: &Candidates,
    assignment: &Assignment,
    hole: &Hole,
    makers: &BTreeMap<i64, Maker>,
) -> Violation {
    let Hole { revision, ended, too_early } = *hole;
    let history = facts.history;
    let possible = candidates.with_effect(facts, revision);
    let early = possible.iter().find(|&&operation| !is_in_time(facts, operation, revision));
    if let Some(&operation) = early {
        let seen_at = facts.seen.first(revision).map_or(0, |sighting| sighting.at);
        let operation = Subject::new(history, operation);
        return Violation::SeenBeforeInvoked { operation, revision, seen_at };
    }
    if let (Some(lease), Some((seen_at, deadline))) = (ended, too_early) {
        return Violation::LeaseExpiredEarly { lease, revision, seen_at, deadline };
    }
    // Whoever is possible was needed for another revision.
    if let Some(&operation) = possible.first() {
        let first = assignment.taken.get(&operation).copied().unwrap_or(revision);
        let operation = Subject::new(history, operation);
        return Violation::AppliedTwice { operation, first, second: revision };
    }
    if let Some(violation) = explain_by_answered(facts, revision, makers) {
        return violation;
    }
    explain_by_lease(facts, revision).unwrap_or_else(|| Violation::Phantom {
        revision,
        events: facts.timeline.events_at(revision).to_vec(),
    })
}

/// An operation that was answered or refused, and would have made this revision as well.
fn explain_by_answered(
    facts: Facts<'_>,
    revision: i64,
    makers: &BTreeMap<i64, Maker>,
) -> Option<Violation> {
    let events = facts.timeline.events_at(revision);
    for (index, operation) in facts.history.operations.iter().enumerate() {
        let is_recognised = events.iter().any(|event| match event {
            Event::Put(pair) => brings(&operation.request, pair),
            Event::Delete { .. } => false,
        });
        if !is_recognised || validate(&operation.request, &facts.rules.limits).is_err() {
            continue;
        }
        let operation_of = || Subject::new(facts.history, index);
        match &operation.outcome {
            Outcome::Refused(_) => {
                return Some(Violation::RefusedButApplied { operation: operation_of(), revision });
            }
            Outcome::Answered(_) | Outcome::Unknown => {
                let made = makers.iter().find(|(_, maker)| **maker == Maker::Operation(index));
                if let Some((&first, _)) = made {
                    return Some(Violation::AppliedTwice {
                        operation: operation_of(),
                        first,
                        second: revision,
                    });
                }
            }
        }
    }
    None
}

/// A revision that only deletes, among it keys of one lease, but not exactly its keys.
fn explain_by_lease(facts: Facts<'_>, revision: i64) -> Option<Violation> {
    let events = facts.timeline.events_at(revision);
    if !events.iter().all(Event::is_delete) {
        return None;
    }
    let lease = events
        .iter()
        .filter_map(|event| facts.timeline.get(event.key(), revision - 1))
        .map(|pair| pair.lease)
        .find(|&lease| lease != 0)?;
    let print = |key: &bytes::Bytes| key.escape_ascii().to_string();
    Some(Violation::LeaseEndedInParts {
        lease,
        revision,
        deleted: events.iter().map(|event| print(event.key())).collect(),
        attached: facts.timeline.attached(lease, revision - 1).iter().map(print).collect(),
    })
}

fn has_changed(answer: &TxnResponse) -> bool {
    answer.responses.iter().any(|response| match &response.response {
        Some(Response::ResponsePut(_)) => true,
        Some(Response::ResponseDeleteRange(answer)) => answer.deleted > 0,
        Some(Response::ResponseTxn(answer)) => has_changed(answer),
        Some(Response::ResponseRange(_)) | None => false,
    })
}

/// The events that a request makes right after `revision`; none if it is refused there or
/// changes nothing.
pub(super) fn effect(facts: Facts<'_>, operation: usize, revision: i64) -> Vec<Event> {
    let request = &facts.history.operations[operation].request;
    if validate(request, &facts.rules.limits).is_err() {
        return Vec::new();
    }
    match evaluate_uncompacted(facts.timeline, revision, request) {
        Some(Ok(step)) => step.events,
        Some(Err(_)) | None => Vec::new(),
    }
}
