//! Promise: a write does to the state before it exactly what its request says, and its answer
//! tells exactly that. Looks at every operation that made a revision.

use crate::check::case::{Case, Place, evaluate_uncompacted};
use crate::check::violation::Violation;
use crate::model::agrees;

/// Replays each write on the state before its revision.
pub fn check(case: &Case<'_>) -> Result<(), Violation> {
    for (index, operation, place) in case.placed() {
        let Place::Write(revision) = place else { continue };
        let Some(result) = evaluate_uncompacted(&case.timeline, revision - 1, &operation.request)
        else {
            continue;
        };
        let operation_of = || case.subject(index);
        let step = result
            .map_err(|refusal| Violation::RefusalMissing { operation: operation_of(), refusal })?;
        let found = case.timeline.events_at(revision);
        if step.events != found {
            return Err(Violation::EffectDiffers {
                operation: operation_of(),
                expected: step.events,
                found: found.to_vec(),
            });
        }
        if let Some(answer) = operation.answer() {
            agrees(&step, answer).map_err(|difference| Violation::AnswerDiffers {
                operation: operation_of(),
                difference,
            })?;
        }
    }
    Ok(())
}
