//! Promise: between the first and the last event sent to a watcher nothing that it asked for is
//! left out.

use crate::check::case::Case;
use crate::check::watch::{Fault, Transcript};

/// Compares what was sent with what was due, neighbour by neighbour.
pub fn check(case: &Case<'_>, transcript: &Transcript<'_>) -> Result<(), Fault> {
    let mut previous = None;
    for (_, sent) in transcript.events() {
        if let Some(missed) = transcript.next_due(case, previous, sent.event.revision())
            && *missed != sent.event
        {
            return Err(Fault::Missed { missed: Box::new(missed.clone()) });
        }
        previous = Some(sent);
    }
    Ok(())
}
