//! Promises about leases, as far as a history can show them. Owns the book: when each lease was
//! granted, renewed and ended, as certain or as possible. A lease without keys can end without a
//! trace, so only time tells that one is there.

pub mod attachment;
pub mod expiry;
pub mod grant;
pub mod renewal;
pub mod revocation;
pub mod time_to_live;

use std::collections::{BTreeMap, BTreeSet};

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
    /// It made this revision.
    Write(i64),
    /// It made this revision, or came after it and before the next.
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
                // Even if it seems to have deleted the keys itself, the lease may have run out
                // right before, and been granted once more.
                (Outcome::Answered(_), Place::Write(revision) | Place::After(revision)) => {
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

    /// True if some other operation can have granted the lease before `operation` returned.
    pub fn is_possible(&self, case: &Case<'_>, lease: i64, operation: usize) -> bool {
        let latest = case.history.operations[operation].returned.unwrap_or(Stamp::MAX);
        self.grants(lease).any(|grant| grant.operation != operation && grant.invoked <= latest)
    }

    /// True if the lease was there from the invocation of the operation to its return: it had
    /// been granted before, nothing else can have ended it, and its time was not up. Without a
    /// notion of time this is never certain.
    pub fn is_certainly_alive(&self, case: &Case<'_>, lease: i64, operation: usize) -> bool {
        let subject = &case.history.operations[operation];
        let (Some(life), Some(to)) = (self.lives.get(&lease), subject.returned) else {
            return false;
        };
        let Some(time) = &case.rules.lease_time else { return false };
        life.grants.iter().any(|grant| {
            let can_have_ended = || {
                life.ends.iter().any(|end| {
                    end.operation != Some(operation)
                        && !end.is_before(grant)
                        && end.is_possible_by(case, to)
                })
            };
            grant.known.is_some_and(|known| known.returned < subject.invoked)
                && life.deadline(grant, subject.invoked, time) > to
                && !can_have_ended()
        })
    }

    /// True if the lease was gone when the operation was invoked: it was never granted, or it
    /// was seen to have ended, and nothing can have granted it again by the time the operation
    /// returned.
    pub fn is_certainly_gone(&self, case: &Case<'_>, lease: i64, operation: usize) -> bool {
        let subject = &case.history.operations[operation];
        let latest = subject.returned.unwrap_or(Stamp::MAX);
        let possible: Vec<&Grant> =
            self.grants(lease).filter(|grant| grant.invoked <= latest).collect();
        if possible.is_empty() {
            return true;
        }
        self.lives.get(&lease).is_some_and(|life| {
            life.ends.iter().any(|end| {
                end.certain
                    && end.operation != Some(operation)
                    && end.is_known_before(case, subject.invoked)
                    && possible.iter().all(|grant| grant.is_before(end))
            })
        })
    }

    /// True if the lease can have been there right before `revision` was made.
    fn is_possible_before(&self, case: &Case<'_>, lease: i64, revision: i64) -> bool {
        let ends = self.lives.get(&lease).map_or(&[][..], |life| &life.ends);
        self.grants(lease).any(|grant| {
            let is_in_time = match grant.known {
                Some(known) => known.after < revision,
                None => case.seen.revision_before(grant.invoked) < revision,
            };
            let has_ended = |end: &End| {
                end.certain && grant.is_before(end) && end.place.is_before_write(revision)
            };
            is_in_time && !ends.iter().any(has_ended)
        })
    }

    /// When the end of the lease in `revision` was first seen, and the earliest moment its time
    /// can have been up, if the first is before the second. The lease runs from the invocation
    /// of its last acknowledged renewal at least, whenever the server carried that out.
    pub(super) fn ended_too_early(
        &self,
        lease: i64,
        revision: i64,
        seen: &Seen,
        rules: &Rules,
    ) -> Option<(Stamp, Stamp)> {
        let time = rules.lease_time.as_ref()?;
        let life = self.lives.get(&lease)?;
        let is_ambiguous =
            !self.nameless.is_empty() || life.grants.iter().any(|grant| grant.known.is_none());
        if is_ambiguous {
            return None;
        }
        let seen_at = seen.first(revision)?.at;
        // A renewal that can belong to a later grant says nothing of this one.
        let later = life.grants.iter().filter(|grant| grant.is_known_from(revision));
        let until = later.map(|grant| grant.invoked.saturating_sub(1)).fold(seen_at, Stamp::min);
        // If it is not certain which grant was the last, the shortest counts.
        let deadlines = life.last_grants(revision).map(|it| life.deadline(it, until, time));
        let deadline = deadlines.min()?;
        (seen_at < deadline).then_some((seen_at, deadline))
    }

    /// An acknowledged grant of the lease that had returned before a moment, the last one asked
    /// for.
    fn grant_before(&self, lease: i64, stamp: Stamp) -> Option<usize> {
        self.grants(lease)
            .filter(|grant| grant.known.is_some_and(|known| known.returned < stamp))
            .max_by_key(|grant| grant.invoked)
            .map(|grant| grant.operation)
    }

    /// The TTLs, in seconds, that the lease was or may have been granted.
    fn granted_ttls(&self, case: &Case<'_>, lease: i64) -> BTreeSet<i64> {
        self.grants(lease)
            .filter_map(|grant| match grant.known {
                Some(known) => Some(known.ttl_seconds),
                None => match &case.history.operations[grant.operation].request {
                    Request::LeaseGrant(request) => {
                        Some(request.ttl.max(case.rules.limits.lease_ttl_min_seconds))
                    }
                    _ => None,
                },
            })
            .collect()
    }

    /// True if something can have renewed the lease, or granted it, between two moments.
    fn can_be_renewed(&self, lease: i64, from: Stamp, until: Stamp) -> bool {
        let is_between = |invoked: Stamp, returned: Option<Stamp>| {
            invoked <= until && returned.is_none_or(|at| at >= from)
        };
        let renewals = self.lives.get(&lease).map_or(&[][..], |life| &life.renewals);
        self.grants(lease)
            .any(|grant| is_between(grant.invoked, grant.known.map(|known| known.returned)))
            || renewals
                .iter()
                .any(|renewal| is_between(renewal.invoked, renewal.known.map(|known| known.0)))
    }

    /// For each lease the latest moment its time can be up in a cluster that is healthy from a
    /// moment on. Leases of which a grant or renewal has an unknown outcome are left out: it may
    /// still come. A nameless grant may be one of any lease.
    fn latest_ends(&self, healthy_from: Stamp, time: &LeaseTime) -> Vec<(i64, Stamp)> {
        let mut ends = Vec::new();
        if !self.nameless.is_empty() {
            return ends;
        }
        for (&lease, life) in &self.lives {
            let granted = life
                .grants
                .iter()
                .map(|grant| grant.known.map(|known| (known.returned, known.ttl_seconds)));
            let renewed = life.renewals.iter().map(|renewal| renewal.known);
            let Some(all) = granted.chain(renewed).collect::<Option<Vec<_>>>() else { continue };
            let latest = all.into_iter().map(|(returned, ttl_seconds)| {
                latest_end(returned.max(healthy_from), ttl_seconds, time)
            });
            if let Some(latest) = latest.max() {
                ends.push((lease, latest));
            }
        }
        ends
    }

    fn grants(&self, lease: i64) -> impl Iterator<Item = &Grant> {
        let named = self.lives.get(&lease).map_or(&[][..], |life| &life.grants);
        named.iter().chain(&self.nameless)
    }

    fn add_grant(&mut self, index: usize, operation: &Operation, lease: i64) {
        let mut grant = Grant { operation: index, invoked: operation.invoked, known: None };
        match &operation.outcome {
            Outcome::Answered(Answer::LeaseGrant(answer)) => {
                grant.known = operation.returned.map(|returned| KnownGrant {
                    returned,
                    after: answer.header.as_ref().map_or(0, |header| header.revision),
                    ttl_seconds: answer.ttl,
                });
                self.lives.entry(answer.id).or_default().grants.push(grant);
            }
            Outcome::Unknown if lease == 0 => self.nameless.push(grant),
            Outcome::Unknown => self.lives.entry(lease).or_default().grants.push(grant),
            Outcome::Answered(_) | Outcome::Refused(_) => {}
        }
    }

    fn add_renewal(&mut self, operation: &Operation, lease: i64) {
        let known = match (&operation.outcome, operation.returned) {
            (Outcome::Answered(Answer::LeaseKeepAlive(answer)), Some(at)) if answer.ttl > 0 => {
                Some((at, answer.ttl))
            }
            (Outcome::Unknown, _) => None,
            (Outcome::Answered(_) | Outcome::Refused(_), _) => return,
        };
        let renewal = Renewal { invoked: operation.invoked, known };
        self.lives.entry(lease).or_default().renewals.push(renewal);
    }
}

impl Life {
    /// The acknowledged grants that can have been the last one before `revision` was made.
    fn last_grants(&self, revision: i64) -> impl Iterator<Item = &Grant> {
        let before: Vec<&Grant> = self
            .grants
            .iter()
            .filter(|grant| grant.known.is_some() && !grant.is_known_from(revision))
            .collect();
        before
            .clone()
            .into_iter()
            .filter(move |grant| !before.iter().any(|later| grant.is_before_grant(later)))
    }

    /// The earliest moment at which the time of the grant can have been up, going by the
    /// renewals acknowledged until `at`.
    fn deadline(&self, grant: &Grant, at: Stamp, time: &LeaseTime) -> Stamp {
        let Some(known) = grant.known else { return 0 };
        let granted = earliest_end(grant.invoked, known.ttl_seconds, time);
        self.renewals
            .iter()
            .filter(|renewal| renewal.invoked > known.returned)
            .filter_map(|renewal| {
                let (returned, ttl_seconds) = renewal.known?;
                (returned <= at).then(|| earliest_end(renewal.invoked, ttl_seconds, time))
            })
            .fold(granted, Stamp::max)
    }
}

/// The moment a lease renewed at `from` can end, if the clock that ends it runs as fast as is
/// allowed.
fn earliest_end(from: Stamp, ttl_seconds: i64, time: &LeaseTime) -> Stamp {
    let ttl = u128::try_from(ttl_seconds).unwrap_or(0) * u128::from(time.stamps_per_second);
    let drifted = ttl * (MILLION - u128::from(time.drift_ppm).min(MILLION)) / MILLION;
    from.saturating_add(Stamp::try_from(drifted).unwrap_or(Stamp::MAX))
}

/// The moment a lease renewed at `from` ends, if the clock that ends it runs as slowly as is
/// allowed.
fn latest_end(from: Stamp, ttl_seconds: i64, time: &LeaseTime) -> Stamp {
    let ttl = u128::try_from(ttl_seconds).unwrap_or(0) * u128::from(time.stamps_per_second);
    let drifted = ttl * (MILLION + u128::from(time.drift_ppm)) / MILLION;
    from.saturating_add(Stamp::try_from(drifted).unwrap_or(Stamp::MAX))
}

impl Grant {
    /// True if it was acknowledged, and came after `revision` was made.
    fn is_known_from(&self, revision: i64) -> bool {
        self.known.is_some_and(|known| known.after >= revision)
    }

    /// True if it certainly came before the other.
    fn is_before_grant(&self, other: &Grant) -> bool {
        let (Some(this), Some(that)) = (self.known, other.known) else { return false };
        this.after < that.after || (this.after == that.after && this.returned < other.invoked)
    }

    /// True if it certainly came before the end.
    fn is_before(&self, end: &End) -> bool {
        let Some(known) = self.known else { return false };
        match end.place {
            EndPlace::Write(revision) => known.after < revision,
            EndPlace::After(revision) => {
                known.after < revision || (known.after == revision && known.returned < end.invoked)
            }
            EndPlace::Somewhere => known.returned < end.invoked,
        }
    }
}

impl End {
    /// True if it certainly came before the grant.
    fn is_before(&self, grant: &Grant) -> bool {
        let Some(known) = grant.known else { return false };
        match self.place {
            EndPlace::Write(revision) => revision <= known.after,
            EndPlace::After(revision) => {
                revision < known.after
                    || (revision == known.after
                        && self.returned.is_some_and(|at| at < grant.invoked))
            }
            EndPlace::Somewhere => false,
        }
    }

    /// True if it can have happened by then.
    fn is_possible_by(&self, case: &Case<'_>, stamp: Stamp) -> bool {
        match self.place {
            EndPlace::Write(revision) => revision <= case.frontier.by(stamp),
            EndPlace::After(_) | EndPlace::Somewhere => self.invoked <= stamp,
        }
    }

    /// True if someone knew of it before then.
    fn is_known_before(&self, case: &Case<'_>, stamp: Stamp) -> bool {
        match self.place {
            EndPlace::Write(revision) => case.seen.revision_before(stamp) >= revision,
            EndPlace::After(_) | EndPlace::Somewhere => self.returned.is_some_and(|at| at < stamp),
        }
    }
}

impl EndPlace {
    fn is_before_write(self, revision: i64) -> bool {
        match self {
            EndPlace::Write(at) | EndPlace::After(at) => at < revision,
            EndPlace::Somewhere => false,
        }
    }
}
