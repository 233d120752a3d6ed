//! Promise: events come in the order in which they happened, by revision and inside it.

use crate::check::case::Case;
use crate::check::watch::{Fault, Sent, Transcript};

/// Compares neighbours.
pub fn check(_: &Case<'_>, transcript: &Transcript<'_>) -> Result<(), Fault> {
    let mut previous: Option<&Sent> = None;
    for (_, sent) in transcript.events() {
        if let Some(last) = previous
            && (sent.event.revision(), sent.place) < (last.event.revision(), last.place)
        {
            let earlier = Box::new(sent.event.clone());
            return Err(Fault::OutOfOrder { earlier, later: Box::new(last.event.clone()) });
        }
        previous = Some(sent);
    }
    Ok(())
}
