//! Promises about leases, as far as a history can show them. Owns the book: when each lease was
//! granted, renewed and ended, as certain or as possible. A lease without keys can end without a
//! trace, so only time tells that one is there.

pub mod attachment;
pub mod expiry;
pub mod grant;
pub mod renewal;
pub mod revocation;
pub mod time_to_live;

use std::collections::BTreeMap;

use crate::check::attribution::{Attribution, Maker};
use crate::check::case::{Case, Place};
use crate::check::rules::{LeaseTime, Rules};
use crate::check::sight::Seen;
use crate::check::violation::Violation;
use crate::history::{Answer, History, Operation, Outcome, Request, Stamp};

const MILLION: u128 = 1_000_000;

/// What is known of all leases.
#[derive(Clone, Debug, Default)]
pub struct Book {
    lives: BTreeMap<i64, Life>,
    /// Grants of unknown outcome that left the choice of the lease to the server.
    nameless: Vec<Grant>,
}

/// What is known of the leases that had one id.
#[derive(Clone, Debug, Default)]
struct Life {
    grants: Vec<Grant>,
    renewals: Vec<Renewal>,
    ends: Vec<End>,
}

/// A grant that happened, or may have happened.
#[derive(Clone, Copy, Debug)]
struct Grant {
    operation: usize,
    invoked: Stamp,
    /// When and where it happened, and the TTL; `None` if that is not known.
    known: Option<KnownGrant>,
}

#[derive(Clone, Copy, Debug)]
struct KnownGrant {
    returned: Stamp,
    /// It came after this revision and before the next.
    after: i64,
    ttl_seconds: i64,
}

/// A renewal that happened, or may have happened.
#[derive(Clone, Copy, Debug)]
struct Renewal {
    invoked: Stamp,
    /// When it was acknowledged, and the TTL.
    known: Option<(Stamp, i64)>,
}

/// The end of a lease that happened, or may have happened.
#[derive(Clone, Copy, Debug)]
struct End {
    /// The revocation, if it was one.
    operation: Option<usize>,
    /// Zero if nobody asked for it.
    invoked: Stamp,
    returned: Option<Stamp>,
    place: EndPlace,
    certain: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EndPlace {
    /// It deleted the keys and made this revision.
    Write(i64),
    /// It found no keys, after this revision and before the next.
    After(i64),
    /// Not known.
    Somewhere,
}

/// All promises about leases, in turn.
pub fn check(case: &Case<'_>) -> Result<(), Violation> {
    attachment::check(case)?;
    revocation::check(case)?;
    grant::check(case)?;
    renewal::check(case)?;
    time_to_live::check(case)?;
    expiry::check(case)
}

impl Book {
    /// Writes down grants and renewals. The ends come later, by [`Book::add_ends`], since finding
    /// them needs this part.
    pub fn new(history: &History) -> Book {
        let mut book = Book::default();
        for (index, operation) in history.operations.iter().enumerate() {
            match &operation.request {
                Request::LeaseGrant(request) => book.add_grant(index, operation, request.id),
                Request::LeaseKeepAlive(request) => book.add_renewal(operation, request.id),
                Request::LeaseRevoke(_)
                | Request::LeaseTimeToLive(_)
                | Request::LeaseLeases(_)
                | Request::Read(_)
                | Request::Put(_)
                | Request::DeleteRange(_)
                | Request::Txn(_)
                | Request::Compact(_) => {}
            }
        }
        book
    }

    /// Writes down revocations and the ends that were found in the evidence.
    pub fn add_ends(&mut self, history: &History, attribution: &Attribution) {
        for (index, operation) in history.operations.iter().enumerate() {
            let Request::LeaseRevoke(request) = &operation.request else { continue };
            let (place, certain) = match (&operation.outcome, attribution.places[index]) {
                (Outcome::Refused(_), _) => continue,
                (Outcome::Answered(_), Place::Write(revision)) => {
                    (EndPlace::Write(revision), true)
                }
                (Outcome::Answered(_), Place::After(revision)) => {
                    (EndPlace::After(revision), true)
                }
                (Outcome::Answered(_), Place::Unplaced | Place::Nowhere)
                | (Outcome::Unknown, _) => (EndPlace::Somewhere, false),
            };
            self.lives.entry(request.id).or_default().ends.push(End {
                operation: Some(index),
                invoked: operation.invoked,
                returned: operation.returned,
                place,
                certain,
            });
        }
        for (&revision, maker) in &attribution.makers {
            if let Maker::LeaseEnd { lease, certain } = *maker {
                self.lives.entry(lease).or_default().ends.push(End {
                    operation: None,
                    invoked: 0,
                    returned: None,
                    place: EndPlace::Write(revision),
                    certain,
                });
            }
        }
    }

    /// True if some grant of the lease can have happened before the operation returned.
    pub fn is_possible(&self, lease: i64, operation: &Operation) -> bool {
        let latest = operation.returned.unwrap_or(Stamp::MAX);
        self.grants(lease).any(|grant| {
            grant.invoked <= latest && !std::ptr::eq(grant, operation_grant(operation, grant))
        })
    }

    /// True if the lease was there from the invocation of the operation to its return: it had
    /// been granted before, nothing can have ended it, and its time was not up. Without a
    /// notion of time this is never known.
    pub fn is_certainly_alive(&self, case: &Case<'_>, lease: i64, operation: &Operation) -> bool {
        let (Some(life), Some(to)) = (self.lives.get(&lease), operation.returned) else {
            return false;
        };
        let Some(time) = &case.rules.lease_time else { return false };
        let Some(grant) = life.last_known_grant(|known| known.returned < operation.invoked) else {
            return false;
        };
        let can_have_ended = life.ends.iter().any(|end| {
            !std::ptr::eq(operation, end_operation(case, end).unwrap_or(&NOBODY))
                && !end.is_certainly_before(&grant)
                && end.is_possible_by(case, to)
        });
        !can_have_ended && life.deadline(&grant, operation.invoked, time) > to
    }
}
