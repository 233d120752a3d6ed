//! A range whose replicas share a zone more than they must gets one in a zone that has less of it.
//! The best to lose is then one of the crowded zone.

use crate::keep::{Lag, crowds};
use crate::plan::Step;
use crate::rules::restore_replicas::receive_cost;
use crate::solve::Draft;
use crate::survey::Range;

pub(crate) fn apply(draft: &mut Draft<'_>) {
    for id in draft.movable_ranges() {
        if draft.is_out_of_moves() {
            return;
        }
        let Some(range) = draft.survey.ranges.get(&id) else { continue };
        // A range that is to be merged goes where its partner is.
        if !draft.is_settled(range) || draft.partners.contains_key(&id) {
            continue;
        }
        if let Some((node, reason)) = better(draft, range) {
            draft.propose(Step::AddLearner { range: id, node }, reason);
        }
    }
}

/// A node in a zone with at least two replicas fewer than the most crowded one, the least crowded
/// first: with one fewer, the move would only change which zone is crowded.
fn better(draft: &Draft<'_>, range: &Range) -> Option<(u64, String)> {
    let nodes: Vec<u64> = range.replicas.iter().map(|replica| replica.node).collect();
    let crowds = crowds(draft, range, &nodes, Lag::Counts);
    let (crowded, crowd_max) = crowds.iter().max_by_key(|(_, crowd)| **crowd)?;
    if *crowd_max < 2 {
        return None;
    }
    let crowd = |node: u64| crowds.get(draft.survey.zone(node)).copied().unwrap_or(0);
    let receivers = draft.receivers(range);
    let is_better = |node: &u64| crowd(*node) + 1 < *crowd_max;
    let crowd_min = receivers.iter().copied().filter(is_better).map(crowd).min()?;
    let node = receivers
        .into_iter()
        .filter(|node| crowd(*node) == crowd_min && draft.is_free_for(range, *node))
        .min_by_key(|node| receive_cost(draft, *node))?;
    let zone = named(draft.survey.zone(node));
    let crowded = named(crowded);
    let reason = format!("{crowd_max} replicas are in zone {crowded}, {crowd_min} in zone {zone}");
    Some((node, reason))
}

fn named(zone: &str) -> &str {
    if zone.is_empty() { "(none)" } else { zone }
}
