//! A run: how consecutive writes of a range were numbered. Those that are not void have consecutive
//! revisions.

use crate::proto::internal::Run;

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
