//! Promise: progress to a revision means that everything up to it was sent, so a watcher may
//! start again after it and no event at or below it follows; progress never goes back; and a
//! response is never older than the events in it.

use crate::check::case::Case;
use crate::check::watch::{Delivery, Fault, Sent, Transcript};

/// Follows events and progress in order of arrival.
pub fn check(case: &Case<'_>, transcript: &Transcript<'_>) -> Result<(), Fault> {
    let mut announced = 0;
    let mut last_sent: Option<&Sent> = None;
    for delivery in &transcript.deliveries {
        match delivery {
            Delivery::Events(batch) => {
                for sent in &batch.events {
                    if sent.event.revision() > batch.header {
                        let event = Box::new(sent.event.clone());
                        return Err(Fault::HeaderBehind { header: batch.header, event });
                    }
                    last_sent = Some(sent);
                }
            }
            Delivery::Progress { revision, .. } => {
                if *revision < announced {
                    let (earlier, later) = (announced, *revision);
                    return Err(Fault::ProgressWentBack { earlier, later });
                }
                if let Some(missed) = transcript.next_due(case, last_sent, *revision) {
                    let missed = Box::new(missed.clone());
                    return Err(Fault::ProgressAhead { progress: *revision, missed });
                }
                announced = *revision;
            }
            Delivery::Canceled { .. } => {}
        }
    }
    Ok(())
}
