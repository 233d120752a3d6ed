//! Promise: all events of one revision that a watcher asked for come in one response, or in the
//! pieces of one.

use std::collections::BTreeSet;

use crate::check::case::Case;
use crate::check::watch::{Batch, Fault, Transcript};

/// Looks for revisions in two batches, and for revisions in part.
pub fn check(case: &Case<'_>, transcript: &Transcript<'_>) -> Result<(), Fault> {
    let mut done = BTreeSet::new();
    for batch in transcript.batches() {
        let revisions: BTreeSet<i64> =
            batch.events.iter().map(|sent| sent.event.revision()).collect();
        if let Some(&revision) = revisions.intersection(&done).next() {
            return Err(Fault::Split { revision });
        }
        done.extend(revisions);
    }
    transcript.batches().try_for_each(|batch| check_whole(case, transcript, batch))
}

fn check_whole(case: &Case<'_>, transcript: &Transcript<'_>, batch: &Batch) -> Result<(), Fault> {
    let sent: BTreeSet<(i64, Option<usize>)> =
        batch.events.iter().map(|sent| (sent.event.revision(), sent.place)).collect();
    let mut revisions: BTreeSet<i64> = sent.iter().map(|(revision, _)| *revision).collect();
    if !batch.is_whole {
        // The stream broke inside the last revision.
        revisions.pop_last();
    }
    for revision in revisions {
        let missed = transcript
            .due(case, revision, revision)
            .find(|(_, place, _)| !sent.contains(&(revision, Some(*place))));
        if let Some((_, _, event)) = missed {
            return Err(Fault::Torn { revision, missed: Box::new(event.clone()) });
        }
    }
    Ok(())
}
