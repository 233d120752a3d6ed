//! Promise: a watcher that names the revision to start at continues there without a gap. The
//! first event it is sent is the first one due.

use crate::check::case::Case;
use crate::check::watch::{Fault, Transcript};

/// Looks at the first event.
pub fn check(case: &Case<'_>, transcript: &Transcript<'_>) -> Result<(), Fault> {
    let Some((_, first)) = transcript.events().next() else { return Ok(()) };
    match transcript.next_due(case, None, first.event.revision()) {
        Some(missed) if *missed != first.event => Err(Fault::StartedLate {
            missed: Box::new(missed.clone()),
            first: Box::new(first.event.clone()),
        }),
        Some(_) | None => Ok(()),
    }
}
