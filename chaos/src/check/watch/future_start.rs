//! Promise: a watcher that starts at a revision of the future hears nothing of what lies before
//! it, neither events nor progress.

use crate::check::case::Case;
use crate::check::watch::{Delivery, Fault, Transcript};

/// Looks at events and progress below the start that was asked for.
pub fn check(_: &Case<'_>, transcript: &Transcript<'_>) -> Result<(), Fault> {
    let start = transcript.start;
    for delivery in &transcript.deliveries {
        match delivery {
            Delivery::Events(batch) => {
                let early = batch.events.iter().find(|sent| sent.event.revision() < start);
                if let Some(sent) = early {
                    let event = Box::new(sent.event.clone());
                    return Err(Fault::StartedEarly { event, start });
                }
            }
            // From now on includes knowing how far "now" is.
            Delivery::Progress { revision, .. }
                if *revision < start && transcript.record.create.start_revision > 0 =>
            {
                return Err(Fault::ProgressBeforeStart { progress: *revision, start });
            }
            Delivery::Progress { .. } | Delivery::Canceled { .. } => {}
        }
    }
    Ok(())
}
