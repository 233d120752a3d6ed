//! Promise: the order of revisions is an order of real time. What was seen before an operation
//! was invoked comes before it: a write gets a higher revision, a linearizable answer shows at
//! least that revision. Answers that may be old are exempt.

use crate::check::case::{Case, Place, is_linearizable};
use crate::check::violation::Violation;

/// Compares each place with the highest revision seen before the operation was invoked.
pub fn check(case: &Case<'_>) -> Result<(), Violation> {
    for (index, operation, place) in case.placed() {
        let Some(seen) = case.seen.before(operation.invoked) else { continue };
        match place {
            Place::Write(revision) if revision <= seen.revision => {
                return Err(Violation::WrittenInPast {
                    operation: case.subject(index),
                    seen: seen.revision,
                    seen_at: seen.at,
                    witness: case.witness(seen.witness),
                });
            }
            Place::After(revision)
                if revision < seen.revision && is_linearizable(&operation.request) =>
            {
                return Err(Violation::StaleRead {
                    operation: case.subject(index),
                    seen: seen.revision,
                    seen_at: seen.at,
                    witness: case.witness(seen.witness),
                });
            }
            Place::Write(_) | Place::After(_) | Place::Unplaced | Place::Nowhere => {}
        }
    }
    Ok(())
}
