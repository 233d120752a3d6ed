//! Promise: once the cluster is whole again, every open watcher gets everything. Asked only of
//! runs that gave the watchers the time for it.

use crate::check::case::Case;
use crate::check::watch::{Delivery, Fault, Transcript};

/// Looks for what is still due at the end.
pub fn check(case: &Case<'_>, transcript: &Transcript<'_>) -> Result<(), Fault> {
    let is_open = transcript.record.open_at_end
        && transcript.created.is_some()
        && !transcript.is_refused
        && !matches!(transcript.deliveries.last(), Some(Delivery::Canceled { .. }));
    if !case.rules.watchers_catch_up || !is_open {
        return Ok(());
    }
    let last_sent = transcript.events().last().map(|(_, sent)| sent);
    match transcript.next_due(case, last_sent, case.head) {
        Some(missed) => Err(Fault::NotCaughtUp { missed: Box::new(missed.clone()) }),
        None => Ok(()),
    }
}
