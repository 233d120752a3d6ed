//! Promise: a keep-alive tells the truth. A lease that was seen to end is not renewed, by
//! whatever node that still takes itself for the leader, and a lease that is there is found.

use crate::check::case::Case;
use crate::check::violation::Violation;
use crate::history::{Answer, Request};
use crate::model::Difference;

/// Looks at every answered keep-alive.
pub fn check(case: &Case<'_>) -> Result<(), Violation> {
    for (index, operation, _) in case.placed() {
        let (Request::LeaseKeepAlive(request), Some(Answer::LeaseKeepAlive(answer))) =
            (&operation.request, operation.answer())
        else {
            continue;
        };
        let subject = || case.subject(index);
        if answer.id != request.id {
            let difference = Difference {
                field: "ID".to_owned(),
                expected: format!("{:x}", request.id),
                found: format!("{:x}", answer.id),
            };
            return Err(Violation::AnswerDiffers { operation: subject(), difference });
        }
        if answer.ttl > 0 {
            if case.leases.is_certainly_gone(case, request.id, index) {
                return Err(Violation::LeaseNotGone { operation: subject() });
            }
            check_ttl(case, index, request.id, answer.ttl)?;
        } else if case.leases.is_certainly_alive(case, request.id, index) {
            return Err(Violation::LeaseLost { operation: subject() });
        }
    }
    Ok(())
}

/// A renewal answers the granted TTL.
fn check_ttl(case: &Case<'_>, index: usize, lease: i64, ttl: i64) -> Result<(), Violation> {
    let granted = case.leases.granted_ttls(case, lease);
    if granted.contains(&ttl) {
        return Ok(());
    }
    let difference = Difference {
        field: "TTL".to_owned(),
        expected: format!("one of {granted:?}"),
        found: ttl.to_string(),
    };
    Err(Violation::AnswerDiffers { operation: case.subject(index), difference })
}
