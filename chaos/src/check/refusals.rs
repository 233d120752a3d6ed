//! Promise: a request is refused for the reason etcd refuses it, and only if that reason held at
//! some moment between the call and the refusal; and a request that is wrong by itself is never
//! answered. Refusals by the cluster (no leader, too many requests) are taken as given.

use crate::check::case::{Case, evaluate};
use crate::check::violation::Violation;
use crate::history::{Operation, Outcome, Refused, Request};
use crate::model::{Refusal, validate};

/// Looks at every operation that was refused, and at those that should have been.
pub fn check(case: &Case<'_>) -> Result<(), Violation> {
    for (index, operation) in case.history.operations.iter().enumerate() {
        let wrong = validate(&operation.request, &case.rules.limits).err();
        match (&operation.outcome, wrong) {
            (Outcome::Answered(_), Some(refusal)) => {
                let operation = case.subject(index);
                return Err(Violation::RefusalMissing { operation, refusal });
            }
            (Outcome::Refused(refused), _) => check_refused(case, index, refused, wrong)?,
            (Outcome::Answered(_), None) | (Outcome::Unknown, _) => {}
        }
    }
    Ok(())
}

fn check_refused(
    case: &Case<'_>,
    index: usize,
    refused: &Refused,
    wrong: Option<Refusal>,
) -> Result<(), Violation> {
    let Some(refusal) = Refusal::from_text(&refused.text) else { return Ok(()) };
    let operation = &case.history.operations[index];
    if refused.code != refusal.code() {
        return Err(Violation::RefusalCodeDiffers {
            operation: case.subject(index),
            expected: refusal.code().0,
            found: refused.clone(),
        });
    }
    let is_justified = match wrong {
        Some(wrong) => wrong == refusal,
        None => held(case, index, refusal),
    };
    if is_justified {
        return Ok(());
    }
    let (first, last) = case.window(operation);
    Err(Violation::RefusalUnjustified { operation: case.subject(index), first, last })
}

/// True if the reason can have held at some moment of the operation.
fn held(case: &Case<'_>, index: usize, refusal: Refusal) -> bool {
    let operation = &case.history.operations[index];
    match refusal {
        Refusal::Compacted => case.rules.compacts_itself || was_compacted(case, operation),
        Refusal::FutureRevision => match &operation.request {
            Request::Compact(request) => request.revision > case.window(operation).0,
            _ => was_refused_by_state(case, operation, refusal),
        },
        Refusal::KeyNotFound => was_refused_by_state(case, operation, refusal),
        Refusal::LeaseNotFound => named_leases(&operation.request)
            .iter()
            .any(|&lease| !case.leases.is_certainly_alive(case, lease, index)),
        Refusal::LeaseExists => match &operation.request {
            Request::LeaseGrant(request) => case.leases.is_possible(case, request.id, index),
            _ => false,
        },
        // These depend on the request alone, which was found to be right.
        Refusal::EmptyKey
        | Refusal::ValueProvided
        | Refusal::LeaseProvided
        | Refusal::TooManyOps
        | Refusal::DuplicateKey
        | Refusal::InvalidSortOption
        | Refusal::LeaseTtlTooLarge => false,
    }
}

fn was_compacted(case: &Case<'_>, operation: &Operation) -> bool {
    let compacted = operation.returned.map_or(i64::MAX, |at| case.compactions.possible_by(at));
    match &operation.request {
        Request::Compact(request) => request.revision <= compacted,
        request => {
            let (first, last) = case.window(operation);
            (first..=last).any(|revision| {
                evaluate(&case.timeline, revision, compacted, request)
                    == Some(Err(Refusal::Compacted))
            })
        }
    }
}

fn was_refused_by_state(case: &Case<'_>, operation: &Operation, refusal: Refusal) -> bool {
    let (first, last) = case.window(operation);
    (first..=last).any(|revision| {
        super::case::evaluate_uncompacted(&case.timeline, revision, &operation.request)
            == Some(Err(refusal))
    })
}

/// The leases that the request needs, on whatever path.
fn named_leases(request: &Request) -> Vec<i64> {
    use flotilla_proto::etcdserverpb::RequestOp;
    use flotilla_proto::etcdserverpb::request_op::Request as Op;

    fn gather(operations: &[RequestOp], leases: &mut Vec<i64>) {
        for operation in operations {
            match &operation.request {
                Some(Op::RequestPut(put)) if put.lease != 0 => leases.push(put.lease),
                Some(Op::RequestTxn(txn)) => {
                    gather(&txn.success, leases);
                    gather(&txn.failure, leases);
                }
                Some(Op::RequestRange(_) | Op::RequestPut(_) | Op::RequestDeleteRange(_))
                | None => {}
            }
        }
    }

    let mut leases = Vec::new();
    match request {
        Request::Put(put) if put.lease != 0 => leases.push(put.lease),
        Request::LeaseRevoke(revoke) => leases.push(revoke.id),
        Request::Txn(txn) => {
            gather(&txn.success, &mut leases);
            gather(&txn.failure, &mut leases);
        }
        Request::Put(_)
        | Request::Read(_)
        | Request::DeleteRange(_)
        | Request::Compact(_)
        | Request::LeaseGrant(_)
        | Request::LeaseKeepAlive(_)
        | Request::LeaseTimeToLive(_)
        | Request::LeaseLeases(_) => {}
    }
    leases
}
