//! Promise: no event is sent twice to one watcher.

use std::collections::BTreeSet;

use crate::check::case::Case;
use crate::check::watch::{Fault, Transcript};

/// Remembers each event sent.
pub fn check(_: &Case<'_>, transcript: &Transcript<'_>) -> Result<(), Fault> {
    let mut sent_before = BTreeSet::new();
    for (_, sent) in transcript.events() {
        if !sent_before.insert((sent.event.revision(), sent.place)) {
            return Err(Fault::Duplicate { event: Box::new(sent.event.clone()) });
        }
    }
    Ok(())
}
