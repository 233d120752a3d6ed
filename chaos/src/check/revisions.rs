//! Promise: revisions are dense and agreed on. Every revision up to the head has content, all
//! sources tell the same content, and no answer names a revision that was never reached.
//! Who made each revision is not asked here.

use crate::check::violation::{Subject, Violation};
use crate::history::{EMPTY_STORE_REVISION, Event, History};
use crate::model::Timeline;

/// Builds the timeline of the evidence. Past a revision that is lost or in dispute no state is
/// known, so the first violation is the only one.
pub fn check(history: &History, head: i64) -> Result<Timeline, Violation> {
    if let Some(conflict) = history.evidence.conflicts().first() {
        return Err(Violation::EvidenceConflict {
            revision: conflict.revision,
            first: conflict.first.0.clone(),
            first_events: conflict.first.1.clone(),
            second: conflict.second.0.clone(),
            second_events: conflict.second.1.clone(),
        });
    }
    let mut timeline = Timeline::default();
    for revision in EMPTY_STORE_REVISION + 1..=head {
        let Some(events) = history.evidence.events_at(revision) else {
            return Err(lost(history, revision));
        };
        if !is_possible(revision, events) {
            return Err(Violation::ImpossibleRevision { revision, events: events.to_vec() });
        }
        timeline.append(revision, events.to_vec());
    }
    check_headers(history, head)?;
    Ok(timeline)
}

/// A revision exists because something changed, and its events carry its number.
fn is_possible(revision: i64, events: &[Event]) -> bool {
    !events.is_empty() && events.iter().all(|event| event.revision() == revision)
}

fn check_headers(history: &History, head: i64) -> Result<(), Violation> {
    for (index, operation) in history.operations.iter().enumerate() {
        let Some(answer) = operation.answer() else { continue };
        let operation = || Subject::new(history, index);
        if answer.header().is_none() {
            return Err(Violation::HeaderMissing { operation: operation() });
        }
        let revision = answer.revision();
        if revision <= head {
            continue;
        }
        if super::attribution::claims(answer) {
            return Err(Violation::LostRevision { revision, writer: Some(operation()) });
        }
        return Err(Violation::RevisionBeyondHead { operation: operation(), head });
    }
    Ok(())
}

fn lost(history: &History, revision: i64) -> Violation {
    let writer = history.operations.iter().position(|operation| {
        operation.answer().is_some_and(|answer| {
            answer.revision() == revision && super::attribution::claims(answer)
        })
    });
    Violation::LostRevision { revision, writer: writer.map(|index| Subject::new(history, index)) }
}
