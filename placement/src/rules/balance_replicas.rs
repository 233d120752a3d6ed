//! Nodes carry about the same: a replica moves from a node that carries much to one that carries
//! little. Only if, after the move, the receiver still carries less than the giver did, by more
//! than the tolerance: each move then makes the fullest nodes less full, so that moves come to an
//! end and never go back and forth. Far from balance many replicas move at once, near to it one.

use std::cmp::Reverse;

use crate::keep::{Lag, loser};
use crate::plan::Step;
use crate::rules::restore_replicas::receive_cost;
use crate::solve::Draft;
use crate::units::Bytes;
use crate::weigh::replica_weight;

pub(crate) fn apply(draft: &mut Draft<'_>) {
    while !draft.is_out_of_moves() && start_one_move(draft) {}
}

/// From the fullest node that can give, to the emptiest that can take; of its ranges the largest.
fn start_one_move(draft: &mut Draft<'_>) -> bool {
    let mut givers: Vec<u64> = draft.survey.nodes.keys().copied().collect();
    givers.retain(|node| draft.survey.is_staying(draft.policy, *node));
    let mut takers = givers.clone();
    takers.retain(|node| draft.traffic.is_node_free(draft.policy, *node));
    givers.sort_by_key(|node| (Reverse(draft.weights.fill(*node)), *node));
    takers.sort_by_key(|node| receive_cost(draft, *node));
    let tolerance = draft.weights.fill_tolerance(draft.policy);
    for giver in givers {
        let is_far = |taker: &&u64| {
            draft.weights.fill(giver) > draft.weights.fill(**taker).saturating_add(tolerance)
        };
        let takers: Vec<u64> = takers.iter().filter(is_far).copied().collect();
        if takers.is_empty() {
            break;
        }
        let ranges = ranges_to_give(draft, giver);
        for taker in takers {
            if ranges.iter().any(|id| start(draft, *id, giver, taker, tolerance)) {
                return true;
            }
        }
    }
    false
}

/// Settled ranges with a replica on the node; the heaviest first, those that it leads last.
fn ranges_to_give(draft: &Draft<'_>, giver: u64) -> Vec<u64> {
    let mut ids = draft.movable_ranges();
    ids.retain(|id| {
        draft.survey.ranges.get(id).is_some_and(|range| {
            range.replica(giver).is_some() && draft.is_settled(range) && !draft.is_in_pair(*id)
        })
    });
    ids.sort_by_key(|id| {
        let range = draft.survey.ranges.get(id);
        let weight = range.map(|range| replica_weight(draft.policy, range));
        (Reverse(weight), range.and_then(|range| range.leader) == Some(giver), *id)
    });
    ids
}

fn start(draft: &mut Draft<'_>, id: u64, giver: u64, taker: u64, tolerance: u64) -> bool {
    let Some(range) = draft.survey.ranges.get(&id) else { return false };
    let (given, taken) = (draft.weights.fill(giver), draft.weights.fill(taker));
    let taken_after = draft.fill_if_kept(id, range, taker);
    let is_better = given > taken_after.saturating_add(tolerance);
    if !is_better || !draft.may_receive(range, taker) || !draft.is_free_for(range, taker) {
        return false;
    }
    // It must be better however the moves under way end, or it might be undone half-way.
    let undecided = draft.fill_undecided(giver).saturating_add(draft.fill_undecided(taker));
    if given <= taken_after.saturating_add(tolerance).saturating_add(undecided) {
        return false;
    }
    let mut nodes: Vec<u64> = range.replicas.iter().map(|replica| replica.node).collect();
    nodes.push(taker);
    if loser(draft, id, range, &nodes, Lag::Counts) != Some(giver) {
        return false;
    }
    let (given, taken, taken_after) = (Bytes(given), Bytes(taken), Bytes(taken_after));
    let tolerance = Bytes(tolerance);
    draft.propose(
        Step::AddLearner { range: id, node: taker },
        format!(
            "node {giver} carries {given}, node {taker} {taken} and {taken_after} with this \
             replica; the tolerance is {tolerance}"
        ),
    )
}
