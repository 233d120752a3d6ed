//! Promise: what is compacted stays compacted. No linearizable answer tells history below a
//! compaction that was acknowledged before, and each compaction goes further than the last, but
//! never further than the store.
//! Owns what is known of compactions over time.

use std::collections::BTreeMap;

use crate::check::case::{Case, Place, evaluate, is_linearizable};
use crate::check::violation::Violation;
use crate::history::{Answer, History, Request, Stamp};
use crate::model::{NEVER_COMPACTED, Refusal};

/// The compactions that were asked for.
#[derive(Clone, Debug, Default)]
pub struct Compactions {
    /// Moment of the invocation, and the highest compaction asked for by then.
    possible: Vec<(Stamp, i64)>,
    /// Moment of the acknowledgement, the highest compaction acknowledged by then, and the
    /// operation that asked for it.
    certain: Vec<(Stamp, i64, usize)>,
    /// The first moment at which each revision was asked to be compacted.
    asked: BTreeMap<i64, Stamp>,
}

impl Compactions {
    /// Gathers them. A refused compaction is none.
    pub fn new(history: &History) -> Compactions {
        let mut asked = Vec::new();
        let mut acknowledged = Vec::new();
        for (index, operation) in history.operations.iter().enumerate() {
            let Request::Compact(request) = &operation.request else { continue };
            if operation.is_unknown() || operation.answer().is_some() {
                asked.push((operation.invoked, request.revision));
            }
            if let (Some(at), Some(_)) = (operation.returned, operation.answer()) {
                acknowledged.push((at, request.revision, index));
            }
        }
        asked.sort_unstable();
        acknowledged.sort_unstable();
        let mut compactions = Compactions::default();
        for (at, revision) in asked {
            compactions.asked.entry(revision).or_insert(at);
            if compactions.possible.last().is_none_or(|last| revision > last.1) {
                compactions.possible.push((at, revision));
            }
        }
        for (at, revision, index) in acknowledged {
            if compactions.certain.last().is_none_or(|last| revision > last.1) {
                compactions.certain.push((at, revision, index));
            }
        }
        compactions
    }

    /// The highest compact revision that a store can have had by then.
    pub fn possible_by(&self, stamp: Stamp) -> i64 {
        let after = self.possible.partition_point(|(at, _)| *at <= stamp);
        self.possible[..after].last().map_or(NEVER_COMPACTED, |last| last.1)
    }

    /// True if exactly this revision was asked to be compacted by then.
    pub fn was_asked_by(&self, revision: i64, stamp: Stamp) -> bool {
        self.asked.get(&revision).is_some_and(|at| *at <= stamp)
    }

    /// The highest compaction acknowledged before a moment, and who asked for it.
    pub fn certain_before(&self, stamp: Stamp) -> Option<(i64, usize)> {
        let after = self.certain.partition_point(|(at, _, _)| *at < stamp);
        self.certain[..after].last().map(|&(_, revision, index)| (revision, index))
    }
}

/// Checks answers that tell history, and the compactions themselves.
pub fn check(case: &Case<'_>) -> Result<(), Violation> {
    check_reads(case)?;
    check_compactions(case)
}

fn check_reads(case: &Case<'_>) -> Result<(), Violation> {
    for (index, operation, place) in case.placed() {
        let before = match place {
            Place::Write(revision) => revision - 1,
            Place::After(revision) => revision,
            Place::Unplaced | Place::Nowhere => continue,
        };
        if operation.answer().is_none() || !is_linearizable(&operation.request) {
            continue;
        }
        let Some((compacted, by)) = case.compactions.certain_before(operation.invoked) else {
            continue;
        };
        let result = evaluate(&case.timeline, before, compacted, &operation.request);
        if let Some(Err(Refusal::Compacted)) = result {
            return Err(Violation::ReadBelowCompaction {
                operation: case.subject(index),
                compaction: case.subject(by),
            });
        }
    }
    Ok(())
}

fn check_compactions(case: &Case<'_>) -> Result<(), Violation> {
    let mut succeeded: Vec<(i64, usize)> = Vec::new();
    for (index, operation) in case.history.operations.iter().enumerate() {
        let (Request::Compact(request), Some(Answer::Compact(_))) =
            (&operation.request, operation.answer())
        else {
            continue;
        };
        if request.revision > case.window(operation).1 {
            return Err(Violation::CompactedFuture { operation: case.subject(index) });
        }
        if let Some((compacted, by)) = case.compactions.certain_before(operation.invoked)
            && request.revision <= compacted
        {
            return Err(Violation::CompactedAgain {
                operation: case.subject(index),
                earlier: case.subject(by),
            });
        }
        succeeded.push((request.revision, index));
    }
    // Of two compactions of one revision, whichever came second had nothing left to do.
    succeeded.sort_unstable();
    match succeeded.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        Some(pair) => Err(Violation::CompactedAgain {
            operation: case.subject(pair[1].1),
            earlier: case.subject(pair[0].1),
        }),
        None => Ok(()),
    }
}
