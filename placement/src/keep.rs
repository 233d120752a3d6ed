//! Which replica of a range is the best to lose: one order for all rules, so that what one rule
//! adds another does not take away. A rule that starts a move asks first whether the replica it
//! would add is kept in the end.

use std::collections::{BTreeMap, BTreeSet};

use crate::solve::Draft;
use crate::survey::Range;

/// What it costs to keep a replica; the one that costs most is the best to lose. Fields are
/// compared in the order in which they stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct KeepCost {
    /// Its node is dead or unknown.
    is_dead: bool,
    /// Its node is being emptied.
    is_draining: bool,
    /// It is a learner that does not catch up.
    is_stuck: bool,
    /// The range is to be merged and its partner is not on this node.
    is_apart: bool,
    /// Replicas of the range in its zone, itself included.
    zone_crowd: usize,
    /// Bytes its node carries if it keeps this one.
    fill_bytes: u64,
    /// It has no vote yet, so that nothing is lost with it.
    is_learner: bool,
    /// It does not lead, so that it can go at once.
    is_follower: bool,
    /// The lowest id stays.
    node: u64,
}

/// What to think of a learner that does not catch up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lag {
    /// It is worse than any sound replica.
    Counts,
    /// It is judged as if it had caught up.
    IsForgiven,
}

/// Of replicas of the range on these nodes, existing or not, those that stay when only so many may.
pub(crate) fn keepers(
    draft: &Draft<'_>,
    id: u64,
    range: &Range,
    mut nodes: Vec<u64>,
    count: usize,
    lag: Lag,
) -> Vec<u64> {
    while nodes.len() > count {
        let Some(loser) = loser(draft, id, range, &nodes, lag) else { break };
        nodes.retain(|node| *node != loser);
    }
    nodes
}

/// Of replicas of the range on these nodes, existing or not, the best to lose.
pub(crate) fn loser(
    draft: &Draft<'_>,
    id: u64,
    range: &Range,
    nodes: &[u64],
    lag: Lag,
) -> Option<u64> {
    let crowds = crowds(draft, range, nodes, lag);
    let partner_nodes = draft.partner_nodes(id);
    let cost = |node: u64| keep_cost(draft, id, range, node, lag, &crowds, partner_nodes.as_ref());
    nodes.iter().copied().max_by_key(|node| cost(*node))
}

fn keep_cost(
    draft: &Draft<'_>,
    id: u64,
    range: &Range,
    node: u64,
    lag: Lag,
    crowds: &BTreeMap<&str, usize>,
    partner_nodes: Option<&BTreeSet<u64>>,
) -> KeepCost {
    let is_living = draft.survey.is_living(draft.policy, node);
    KeepCost {
        is_dead: !is_living,
        is_draining: is_living && !draft.survey.is_staying(draft.policy, node),
        is_stuck: is_stuck(draft, range, node, lag),
        is_apart: partner_nodes.is_some_and(|nodes| !nodes.contains(&node)),
        zone_crowd: crowds.get(draft.survey.zone(node)).copied().unwrap_or(0),
        fill_bytes: draft.fill_if_kept(id, range, node),
        is_learner: range.replica(node).is_none_or(|replica| replica.is_learner),
        is_follower: range.leader != Some(node),
        node,
    }
}

/// Sound replicas by zone.
pub(crate) fn crowds<'d>(
    draft: &'d Draft<'_>,
    range: &Range,
    nodes: &[u64],
    lag: Lag,
) -> BTreeMap<&'d str, usize> {
    let mut crowds = BTreeMap::new();
    for node in nodes {
        if draft.survey.is_staying(draft.policy, *node) && !is_stuck(draft, range, *node, lag) {
            *crowds.entry(draft.survey.zone(*node)).or_default() += 1;
        }
    }
    crowds
}

fn is_stuck(draft: &Draft<'_>, range: &Range, node: u64, lag: Lag) -> bool {
    lag == Lag::Counts && range.replica(node).is_some_and(|replica| replica.is_stuck(draft.policy))
}
