//! Promise: an event carries the pair before it if the watcher asked for that: as it was right
//! before the revision of the event, left out for a create and for what is compacted.

use flotilla_proto::mvccpb::KeyValue;

use crate::check::case::Case;
use crate::check::watch::{Batch, Fault, Sent, Transcript};
use crate::history::print_pair;

/// Looks up the pair before each event.
pub fn check(case: &Case<'_>, transcript: &Transcript<'_>) -> Result<(), Fault> {
    for (batch, sent) in transcript.events() {
        let event = &sent.event;
        let expected = if transcript.record.create.prev_kv && !event.is_create() {
            case.timeline.get(event.key(), event.revision() - 1)
        } else {
            None
        };
        let is_left_out = sent.prev_kv.is_none() && can_be_compacted(case, batch, sent);
        if sent.prev_kv.as_ref() != expected && !is_left_out {
            let print = |pair: Option<&KeyValue>| pair.map_or("none".to_owned(), print_pair);
            return Err(Fault::PrevKvDiffers {
                event: Box::new(event.clone()),
                expected: print(expected),
                found: print(sent.prev_kv.as_ref()),
            });
        }
    }
    Ok(())
}

fn can_be_compacted(case: &Case<'_>, batch: &Batch, sent: &Sent) -> bool {
    case.rules.compacts_itself || case.compactions.possible_by(batch.at) > sent.event.revision() - 1
}
