//! Merges small, quiet neighbours. The two must be on the same nodes first, so the right one is
//! moved to the left one's nodes, one replica at a time; while they are a pair neither is moved to
//! balance anything. Which ranges are a pair depends on spans, sizes and quiet alone, not on where
//! replicas are, so that it stays the same while they move.

use std::collections::BTreeMap;

use crate::plan::Step;
use crate::policy::Policy;
use crate::solve::Draft;
use crate::survey::{ROOT, Range, Survey};
use crate::units::{Bytes, Millis};

pub(crate) fn apply(draft: &mut Draft<'_>) {
    for (right, left) in draft.partners.clone() {
        let _is_decided = merge(draft, left, right) || bring_together(draft, left, right);
    }
}

/// Neighbours to merge: the right one to the left one. No range is in two pairs.
pub(crate) fn partners(survey: &Survey, policy: &Policy) -> BTreeMap<u64, u64> {
    let mut partners = BTreeMap::new();
    if !policy.is_auto_merge {
        return partners;
    }
    let ids = survey.ids_by_span();
    let mut is_left_taken = false;
    for pair in ids.windows(2) {
        let (left, right) = (pair[0], pair[1]);
        is_left_taken = !is_left_taken && should_merge(survey, policy, left, right);
        if is_left_taken {
            partners.insert(right, left);
        }
    }
    partners
}

fn should_merge(survey: &Survey, policy: &Policy, left: u64, right: u64) -> bool {
    let is_root = left == ROOT || right == ROOT;
    let (Some(left), Some(right)) = (survey.ranges.get(&left), survey.ranges.get(&right)) else {
        return false;
    };
    let is_ready = |range: &Range| {
        range.replicas.iter().all(|replica| survey.is_living(policy, replica.node))
            && range.quiet_ms >= policy.merge_quiet_ms
            && range.age_ms >= policy.merge_age_ms
    };
    !is_root
        && left.is_left_of(right)
        && !policy.borders_fixed.contains(&right.start)
        && is_ready(left)
        && is_ready(right)
        && is_small_together(policy, left, right)
}

fn is_small_together(policy: &Policy, left: &Range, right: &Range) -> bool {
    let load = left.load.joined_with(right.load);
    // Half of the limits of splitting is what `check` allows.
    let sums = [
        (left.bytes.saturating_add(right.bytes), policy.merge_bytes, policy.split_bytes),
        (left.keys.saturating_add(right.keys), policy.merge_keys, policy.split_keys),
        (load.writes_per_second, policy.merge_writes_per_second, policy.split_writes_per_second),
        (
            load.write_bytes_per_second,
            policy.merge_write_bytes_per_second,
            policy.split_write_bytes_per_second,
        ),
        (load.reads_per_second, policy.merge_reads_per_second, policy.split_reads_per_second),
    ];
    sums.iter().all(|(sum, merge, split)| *sum <= *merge.min(&(split / 2)))
}

fn merge(draft: &mut Draft<'_>, left: u64, right: u64) -> bool {
    let ranges = &draft.survey.ranges;
    let (Some(left_range), Some(right_range)) = (ranges.get(&left), ranges.get(&right)) else {
        return false;
    };
    let bytes = Bytes(left_range.bytes.saturating_add(right_range.bytes));
    let keys = left_range.keys.saturating_add(right_range.keys);
    let quiet = Millis(left_range.quiet_ms.min(right_range.quiet_ms));
    let limit = Bytes(draft.policy.merge_bytes);
    draft.propose(
        Step::Merge { left, right },
        format!("{bytes} and {keys} keys together (limit {limit}), quiet for {quiet}"),
    )
}

fn bring_together(draft: &mut Draft<'_>, left: u64, right: u64) -> bool {
    if draft.is_out_of_moves() || !draft.is_open(right) {
        return false;
    }
    let ranges = &draft.survey.ranges;
    let (Some(left_range), Some(right_range)) = (ranges.get(&left), ranges.get(&right)) else {
        return false;
    };
    if !draft.is_settled(left_range) || !draft.is_settled(right_range) {
        return false;
    }
    let receivers = draft.receivers(right_range);
    let is_next = |node: &&u64| {
        left_range.voters().any(|voter| voter.node == **node)
            && draft.is_free_for(right_range, **node)
    };
    let Some(node) = receivers.iter().find(is_next).copied() else { return false };
    draft.propose(
        Step::AddLearner { range: right, node },
        format!("to be merged with range {left}, which is on node {node}"),
    )
}
