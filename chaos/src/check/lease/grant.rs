//! Promise: a grant gives the lease that was asked for, with the TTL that was asked for or the
//! least one allowed, and never while the lease is there.

use flotilla_proto::etcdserverpb::{LeaseGrantRequest, LeaseGrantResponse};

use crate::check::case::Case;
use crate::check::violation::Violation;
use crate::history::{Answer, Request};
use crate::model::Difference;

/// Looks at every acknowledged grant.
pub fn check(case: &Case<'_>) -> Result<(), Violation> {
    for (index, operation, _) in case.placed() {
        let (Request::LeaseGrant(request), Some(Answer::LeaseGrant(answer))) =
            (&operation.request, operation.answer())
        else {
            continue;
        };
        check_answer(case, request, answer).map_err(|difference| Violation::AnswerDiffers {
            operation: case.subject(index),
            difference,
        })?;
        if case.leases.is_certainly_alive(case, answer.id, index) {
            let earlier = case.leases.grant_before(answer.id, operation.invoked);
            return Err(Violation::LeaseGrantedTwice {
                operation: case.subject(index),
                earlier: case.subject(earlier.unwrap_or(index)),
            });
        }
    }
    Ok(())
}

fn check_answer(
    case: &Case<'_>,
    request: &LeaseGrantRequest,
    answer: &LeaseGrantResponse,
) -> Result<(), Difference> {
    let differs = |field: &str, expected: String, found: String| {
        Err(Difference { field: field.to_owned(), expected, found })
    };
    let is_chosen_by_server = request.id == 0 && answer.id > 0;
    if answer.id != request.id && !is_chosen_by_server {
        return differs("ID", format!("{:x}", request.id), format!("{:x}", answer.id));
    }
    let ttl = request.ttl.max(case.rules.limits.lease_ttl_min_seconds);
    if answer.ttl != ttl {
        return differs("TTL", ttl.to_string(), answer.ttl.to_string());
    }
    if !answer.error.is_empty() {
        return differs("error", String::new(), answer.error.clone());
    }
    Ok(())
}
