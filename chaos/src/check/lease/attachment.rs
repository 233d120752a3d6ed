//! Promise: no key is attached to a lease that is not there. A lease is there from its grant to
//! its end; whether its time was up is asked elsewhere.

use crate::check::case::Case;
use crate::check::violation::Violation;
use crate::history::{EMPTY_STORE_REVISION, Event};

/// Looks at every put with a lease.
pub fn check(case: &Case<'_>) -> Result<(), Violation> {
    for (revision, events) in case.timeline.events_between(EMPTY_STORE_REVISION, case.head) {
        for event in events {
            let Event::Put(pair) = event else { continue };
            if pair.lease != 0 && !case.leases.is_possible_before(case, pair.lease, revision) {
                return Err(Violation::AttachedToDeadLease {
                    revision,
                    key: pair.key.escape_ascii().to_string(),
                    lease: pair.lease,
                });
            }
        }
    }
    Ok(())
}
