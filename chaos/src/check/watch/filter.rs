//! Promise: a watcher is sent only what it asked for: keys of its span, kinds it did not filter
//! out.

use crate::check::case::Case;
use crate::check::watch::{Fault, Transcript};

/// Looks at key and kind of each event.
pub fn check(_: &Case<'_>, transcript: &Transcript<'_>) -> Result<(), Fault> {
    match transcript.events().find(|(_, sent)| !transcript.wants(&sent.event)) {
        Some((_, sent)) => Err(Fault::NotAskedFor { event: Box::new(sent.event.clone()) }),
        None => Ok(()),
    }
}
