//! Promise: an operation that changed nothing tells the state of the revision in its header,
//! whether it read the present or the past, and whether it had to be linearizable or not. That
//! holds for transactions and deletes that found nothing to do, too.

use crate::check::case::{Case, Place, evaluate_uncompacted};
use crate::check::violation::Violation;
use crate::history::Request;
use crate::model::agrees;

/// Answers each such operation again, right after the revision in its header.
pub fn check(case: &Case<'_>) -> Result<(), Violation> {
    for (index, operation, place) in case.placed() {
        let (Place::After(revision), Some(answer)) = (place, operation.answer()) else { continue };
        let Some(result) = evaluate_uncompacted(&case.timeline, revision, &operation.request)
        else {
            continue;
        };
        let operation_of = || case.subject(index);
        let step = result
            .map_err(|refusal| Violation::RefusalMissing { operation: operation_of(), refusal })?;
        // How a revocation can fail to delete is told by the check of leases.
        if matches!(operation.request, Request::LeaseRevoke(_)) {
            continue;
        }
        agrees(&step, answer).map_err(|difference| Violation::AnswerDiffers {
            operation: operation_of(),
            difference,
        })?;
    }
    Ok(())
}
