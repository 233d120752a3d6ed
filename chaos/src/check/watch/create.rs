//! Promise: a create request gets one created reply, first of all; it is refused if it is wrong
//! and only then, in etcd's words; an id chosen by the client is used.

use crate::check::case::Case;
use crate::check::watch::{Fault, Transcript};
use crate::model::Refusal;

const EMPTY_SPAN: &str = "mvcc: watcher range is empty";
const DUPLICATE_ID: &str = "mvcc: duplicate watch ID provided on the WatchStream";
/// How refusals of a user begin.
const REFUSED_USER: &str = "rpc error: ";
const REFUSED_WATCH_ID: i64 = -1;

/// Looks at the created reply.
pub fn check(_: &Case<'_>, transcript: &Transcript<'_>) -> Result<(), Fault> {
    let Some(created) = transcript.created else { return Ok(()) };
    let create = &transcript.record.create;
    let reason = &created.cancel_reason;
    let is_wrong = create.start_revision < 0 || transcript.span().is_empty();
    let is_right = if created.canceled {
        let is_explained = if *reason == Refusal::Compacted.to_string() {
            create.start_revision < 0
        } else {
            match reason.as_str() {
                EMPTY_SPAN => transcript.span().is_empty(),
                DUPLICATE_ID => create.watch_id != 0,
                other => other.starts_with(REFUSED_USER),
            }
        };
        is_explained && created.watch_id == REFUSED_WATCH_ID
    } else {
        !is_wrong && (create.watch_id == 0 || create.watch_id == created.watch_id)
    };
    if is_right {
        return Ok(());
    }
    Err(Fault::RefusedWrongly { should: is_wrong, reason: reason.clone() })
}
