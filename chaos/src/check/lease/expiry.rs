//! Promise: in a healthy cluster a lease that nobody keeps alive ends soon after its time is up.
//! That it does not end before is asked when the maker of the revision is looked for.

use crate::check::case::{Case, Place, is_linearizable};
use crate::check::violation::Violation;

/// Looks at the state that the last linearizable answer shows.
pub fn check(case: &Case<'_>) -> Result<(), Violation> {
    let Some(time) = &case.rules.lease_time else { return Ok(()) };
    let Some(healthy_from) = time.healthy_from else { return Ok(()) };
    let last = case
        .placed()
        .filter_map(|(index, operation, place)| match place {
            Place::After(revision) if is_linearizable(&operation.request) => {
                Some((operation.invoked, revision, index))
            }
            Place::After(_) | Place::Write(_) | Place::Unplaced | Place::Nowhere => None,
        })
        .max();
    let Some((invoked, revision, index)) = last else { return Ok(()) };
    for (lease, latest) in case.leases.latest_ends(healthy_from, time) {
        let deadline = latest.saturating_add(time.grace);
        if deadline >= invoked {
            continue;
        }
        if let Some(key) = case.timeline.attached(lease, revision).first() {
            return Err(Violation::LeaseOutlived {
                lease,
                key: key.escape_ascii().to_string(),
                operation: case.subject(index),
                deadline,
            });
        }
    }
    Ok(())
}
