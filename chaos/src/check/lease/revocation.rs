//! Promise: revoking a lease deletes all keys attached to it, in one revision and nothing else,
//! and only a lease that is there can be revoked. That a revision holds a part of them only is
//! found when its maker is looked for.

use crate::check::case::{Case, Place};
use crate::check::violation::Violation;
use crate::history::Request;

/// Looks at every acknowledged revocation.
pub fn check(case: &Case<'_>) -> Result<(), Violation> {
    for (index, operation, place) in case.placed() {
        let (Request::LeaseRevoke(request), Some(_)) = (&operation.request, operation.answer())
        else {
            continue;
        };
        if case.leases.is_certainly_gone(case, request.id, index) {
            return Err(Violation::LeaseNotGone { operation: case.subject(index) });
        }
        let Place::After(revision) = place else { continue };
        let keys = case.timeline.attached(request.id, revision);
        if !keys.is_empty() {
            return Err(Violation::RevokeLeftKeys {
                operation: case.subject(index),
                keys: keys.iter().map(|key| key.escape_ascii().to_string()).collect(),
            });
        }
    }
    Ok(())
}
