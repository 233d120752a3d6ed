//! Promise: a watcher is cancelled because its client asked for it, or because what it needs
//! next is compacted; then it is told the compact revision. That nothing is skipped in silence
//! follows from the other promises.

use flotilla_proto::etcdserverpb::WatchResponse;

use crate::check::case::Case;
use crate::check::watch::{Delivery, Fault, Transcript};
use crate::history::Stamp;

/// Looks at the cancellation.
pub fn check(case: &Case<'_>, transcript: &Transcript<'_>) -> Result<(), Fault> {
    let mut needed = transcript.start;
    for delivery in &transcript.deliveries {
        match delivery {
            Delivery::Events(batch) => {
                let last = batch.events.last().map_or(0, |sent| sent.event.revision());
                // The last revision of a broken batch can be incomplete.
                needed = needed.max(if batch.is_whole { last + 1 } else { last });
            }
            Delivery::Progress { revision, .. } => needed = needed.max(revision + 1),
            Delivery::Canceled { response, at } => {
                return check_cancel(case, transcript, response, *at, needed);
            }
        }
    }
    Ok(())
}

fn check_cancel(
    case: &Case<'_>,
    transcript: &Transcript<'_>,
    response: &WatchResponse,
    at: Stamp,
    needed: i64,
) -> Result<(), Fault> {
    let compact_revision = response.compact_revision;
    let header = response.header.as_ref().map_or(0, |header| header.revision);
    let reason = response.cancel_reason.clone();
    let is_needed = if compact_revision == 0 {
        transcript.record.cancel_sent.is_some_and(|sent| sent <= at)
    } else {
        let was_asked =
            case.rules.compacts_itself || case.compactions.was_asked_by(compact_revision, at);
        was_asked && needed < compact_revision
    };
    if !is_needed {
        return Err(Fault::CancelledWrongly { compact_revision, reason });
    }
    if compact_revision != 0 && (header != 0 || !reason.is_empty()) {
        return Err(Fault::CompactionMisreported { header, reason });
    }
    Ok(())
}
