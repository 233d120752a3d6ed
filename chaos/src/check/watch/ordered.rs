//! Promise: events come in the order in which they happened, by revision and inside it.

use crate::check::case::Case;
use crate::check::watch::{Fault, Transcript};

/// Compares neighbours.
pub fn check(_: &Case<'_>, transcript: &Transcript<'_>) -> Result<(), Fault> {
    let mut previous = None;
    for (_, sent) in transcript.events() {
        let place = (sent.event.revision(), sent.place);
        if let Some((last, event)) = previous
            && place < last
        {
            return Err(Fault::OutOfOrder { earlier: sent.event.clone(), later: event });
        }
        previous = Some((place, sent.event.clone()));
    }
    Ok(())
}
