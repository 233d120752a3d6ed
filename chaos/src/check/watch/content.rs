//! Promise: every event that is sent happened, with exactly this value, lease, version and
//! revisions; so a create is told from a change. A delete carries its key and revision only.

use crate::check::case::Case;
use crate::check::watch::{Fault, Transcript};

/// Compares each event with the evidence.
pub fn check(case: &Case<'_>, transcript: &Transcript<'_>) -> Result<(), Fault> {
    for (_, sent) in transcript.events() {
        let event = &sent.event;
        let Some(place) = sent.place else {
            return Err(Fault::NotInEvidence { event: Box::new(event.clone()) });
        };
        let expected = &case.timeline.events_at(event.revision())[place];
        if event != expected {
            let (expected, found) = (Box::new(expected.clone()), Box::new(event.clone()));
            return Err(Fault::ContentDiffers { expected, found });
        }
    }
    Ok(())
}
