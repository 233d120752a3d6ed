//! Promises to watchers, one a file, each looking at one watcher at a time against the evidence.
//! Order matters: the first ones make sure that the later ones can read what was sent.

pub mod atomic;
pub mod bookmark;
pub mod cancel;
pub mod caught_up;
pub mod content;
pub mod create;
mod delivery;
mod fault;
pub mod filter;
pub mod future_start;
pub mod ordered;
pub mod prev_kv;
pub mod reliable;
pub mod resumable;
pub mod unique;

pub use delivery::{Batch, Delivery, Sent, Transcript};
pub use fault::Fault;

use crate::check::case::Case;
use crate::check::violation::Violation;

/// A promise to one watcher.
type Promise = fn(&Case<'_>, &Transcript<'_>) -> Result<(), Fault>;

const PROMISES: [Promise; 13] = [
    create::check,
    content::check,
    filter::check,
    future_start::check,
    ordered::check,
    unique::check,
    atomic::check,
    resumable::check,
    reliable::check,
    bookmark::check,
    prev_kv::check,
    cancel::check,
    caught_up::check,
];

/// The first promise broken to each watcher.
pub fn check(case: &Case<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (index, record) in case.history.watches.iter().enumerate() {
        let transcript = Transcript::read(case, record);
        let result = transcript
            .and_then(|transcript| PROMISES.iter().try_for_each(|check| check(case, &transcript)));
        if let Err(fault) = result {
            violations.push(Violation::Watch {
                watcher: index,
                line: record.to_string(),
                fault: Box::new(fault),
            });
        }
    }
    violations
}
