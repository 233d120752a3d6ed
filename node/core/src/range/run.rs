//! A run: how consecutive writes of a range were numbered. Those that are not void have consecutive
//! revisions.

use crate::proto::internal::{Run, Void};
use crate::range::numbering::Verdict;

/// Sequence number of the last write.
pub fn last(run: &Run) -> u64 {
    run.first + run.count - 1
}

/// Whether the write after a run can be written as a part of it. `revision` is that of the next
/// write that is not void; 0 when there is none.
pub fn is_continued_by(run: &Run, revision: i64) -> bool {
    let numbered_count = run.count - run.voids.len() as u64;
    let expected = run.revision.saturating_add_unsigned(numbered_count);
    run.revision == 0 || revision == 0 || revision == expected
}

/// Writes down how the write after all of these was numbered.
pub fn add(runs: &mut Vec<Run>, seq: u64, verdict: Verdict) {
    let revision = match verdict {
        Verdict::Void(_) => 0,
        Verdict::Numbered(revision) => revision,
    };
    if !runs.last().is_some_and(|last| is_continued_by(last, revision)) {
        runs.push(Run { first: seq, ..Run::default() });
    }
    let run = runs.last_mut().expect("pushed above");
    run.count += 1;
    match verdict {
        Verdict::Void(reason) => run.voids.push(Void { seq, reason: reason.into() }),
        Verdict::Numbered(revision) if run.revision == 0 => run.revision = revision,
        Verdict::Numbered(_) => {}
    }
}
