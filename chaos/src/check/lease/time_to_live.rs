//! Promise: TimeToLive and the list of leases report leases that were granted, with the TTL they
//! were granted, the keys they had at some moment, and a remaining time that only a renewal or a
//! change of the leader makes grow. Both may come from an old state.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use flotilla_proto::etcdserverpb::{LeaseTimeToLiveRequest, LeaseTimeToLiveResponse};

use crate::check::case::Case;
use crate::check::violation::Violation;
use crate::history::{Answer, EMPTY_STORE_REVISION, Operation, Request, Stamp};
use crate::model::Difference;

/// Looks at every answered TimeToLive and LeaseLeases.
pub fn check(case: &Case<'_>) -> Result<(), Violation> {
    for (index, operation, _) in case.placed() {
        match (&operation.request, operation.answer()) {
            (Request::LeaseTimeToLive(request), Some(Answer::LeaseTimeToLive(answer))) => {
                check_answer(case, index, request, answer).map_err(|difference| {
                    Violation::AnswerDiffers { operation: case.subject(index), difference }
                })?;
                check_keys(case, index, request, answer)?;
            }
            (Request::LeaseLeases(_), Some(Answer::LeaseLeases(answer))) => {
                let is_granted = |id| case.leases.is_possible(case, id, index);
                if !answer.leases.iter().all(|lease| is_granted(lease.id)) {
                    return Err(Violation::LeaseNotGone { operation: case.subject(index) });
                }
            }
            _ => {}
        }
    }
    check_growth(case)
}

fn check_answer(
    case: &Case<'_>,
    index: usize,
    request: &LeaseTimeToLiveRequest,
    answer: &LeaseTimeToLiveResponse,
) -> Result<(), Difference> {
    let differs = |field: &str, expected: String, found: String| {
        Err(Difference { field: field.to_owned(), expected, found })
    };
    if answer.id != request.id {
        return differs("ID", format!("{:x}", request.id), format!("{:x}", answer.id));
    }
    if answer.granted_ttl == 0 {
        if answer.ttl != -1 {
            return differs("TTL", "-1".to_owned(), answer.ttl.to_string());
        }
        return Ok(());
    }
    let granted = case.leases.granted_ttls(case, request.id);
    let is_granted = case.leases.is_possible(case, request.id, index);
    if !is_granted || !granted.contains(&answer.granted_ttl) {
        let expected = format!("one of {granted:?}");
        return differs("grantedTTL", expected, answer.granted_ttl.to_string());
    }
    Ok(())
}

fn check_keys(
    case: &Case<'_>,
    index: usize,
    request: &LeaseTimeToLiveRequest,
    answer: &LeaseTimeToLiveResponse,
) -> Result<(), Violation> {
    let mut keys = answer.keys.clone();
    keys.sort();
    let last = case.window(&case.history.operations[index]).1;
    let is_right = if request.keys && answer.granted_ttl > 0 {
        if case.rules.lease_keys_are_placed {
            let revision = answer.header.as_ref().map_or(0, |header| header.revision);
            let seen = case.seen.revision_before(case.history.operations[index].invoked);
            (seen..=last).contains(&revision)
                && case.timeline.attached(request.id, revision) == keys
        } else {
            was_attached(case, request.id, last, &keys)
        }
    } else {
        keys.is_empty()
    };
    if is_right {
        return Ok(());
    }
    Err(Violation::LeaseKeysDiffer {
        operation: case.subject(index),
        keys: keys.iter().map(|key| key.escape_ascii().to_string()).collect(),
    })
}

/// True if the lease had exactly these keys after some revision up to `last`.
fn was_attached(case: &Case<'_>, lease: i64, last: i64, keys: &[Bytes]) -> bool {
    let mut changes = case.timeline.attachment_changes(lease);
    changes.insert(EMPTY_STORE_REVISION);
    changes.range(..=last).any(|&revision| case.timeline.attached(lease, revision) == keys)
}

/// Compares each answer with the next that was asked for after it. The leader was the same
/// throughout if its term was seen before the first, is in the answer to the second, and no other
/// was seen for a while after that: the term in a header may lag behind the leader who answers.
fn check_growth(case: &Case<'_>) -> Result<(), Violation> {
    let terms = terms_seen(case);
    let while_after = case.rules.lease_time.as_ref().map_or(0, |time| time.grace);
    let mut by_lease: BTreeMap<i64, Vec<(&Operation, usize, &LeaseTimeToLiveResponse)>> =
        BTreeMap::new();
    for (index, operation, _) in case.placed() {
        if let Some(Answer::LeaseTimeToLive(answer)) = operation.answer()
            && answer.granted_ttl > 0
        {
            by_lease.entry(answer.id).or_default().push((operation, index, answer));
        }
    }
    for (lease, mut answers) in by_lease {
        answers.sort_by_key(|(operation, _, _)| operation.invoked);
        for pair in answers.windows(2) {
            let ((first, first_index, before), (second, second_index, after)) = (pair[0], pair[1]);
            let term = after.header.as_ref().map_or(0, |header| header.raft_term);
            let is_apart = first.returned.is_some_and(|at| at < second.invoked);
            let until = second.returned.unwrap_or(Stamp::MAX);
            let is_one_leader = before.header.as_ref().map_or(0, |it| it.raft_term) == term
                && term_before(&terms, first.invoked) == term
                && term_before(&terms, until.saturating_add(while_after)) == term;
            if after.ttl > before.ttl
                && is_one_leader
                && is_apart
                && !case.leases.can_be_renewed(lease, first.invoked, until)
            {
                return Err(Violation::TtlGrew {
                    first: case.subject(first_index),
                    second: case.subject(second_index),
                });
            }
        }
    }
    Ok(())
}

/// The highest term seen, over time.
fn terms_seen(case: &Case<'_>) -> Vec<(Stamp, u64)> {
    let returned: BTreeSet<(Stamp, u64)> = case
        .history
        .operations
        .iter()
        .filter_map(|operation| {
            let header = operation.answer()?.header()?;
            Some((operation.returned?, header.raft_term))
        })
        .collect();
    let mut highest = 0;
    returned
        .into_iter()
        .map(|(at, term)| {
            highest = highest.max(term);
            (at, highest)
        })
        .collect()
}

fn term_before(terms: &[(Stamp, u64)], stamp: Stamp) -> u64 {
    let after = terms.partition_point(|(at, _)| *at < stamp);
    terms[..after].last().map_or(0, |(_, term)| *term)
}
