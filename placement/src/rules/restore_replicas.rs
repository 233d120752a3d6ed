//! A range with fewer living replicas than wanted gets a new one, in the zone that has least of it,
//! on the node that carries least.

use crate::keep::{Lag, crowds};
use crate::plan::{About, Step};
use crate::solve::Draft;
use crate::survey::{Range, Replica};

pub(crate) fn apply(draft: &mut Draft<'_>) {
    for id in draft.movable_ranges() {
        let Some(range) = draft.survey.ranges.get(&id) else { continue };
        let wanted_count = draft.policy.replicas_count;
        let living_count = present(draft, range).count();
        if living_count >= wanted_count {
            continue;
        }
        let range = range.clone();
        let missing = format!("{living_count} of {wanted_count} replicas are alive");
        match receiver(draft, &range) {
            Receiver::None => complain_of_room(draft, id, &range),
            Receiver::IsBusy => {}
            Receiver::Node(node) => {
                let reason = format!("{missing}; node {node} {}", why_received(draft, node));
                draft.propose(Step::AddLearner { range: id, node }, reason);
            }
        }
    }
}

/// Where the next replica of a range goes.
pub(crate) enum Receiver {
    /// No node can take one.
    None,
    /// The best nodes send or receive as much as they may: a worse one is not taken, as the replica
    /// would only be moved again.
    IsBusy,
    /// This one.
    Node(u64),
}

/// The best node for one more replica of the range.
pub(crate) fn receiver(draft: &Draft<'_>, range: &Range) -> Receiver {
    let nodes: Vec<u64> = range.replicas.iter().map(|replica| replica.node).collect();
    let crowds = crowds(draft, range, &nodes, Lag::Counts);
    let crowd = |node: u64| crowds.get(draft.survey.zone(node)).copied().unwrap_or(0);
    let receivers = draft.receivers(range);
    let Some(crowd_min) = receivers.iter().map(|node| crowd(*node)).min() else {
        return Receiver::None;
    };
    if draft.is_out_of_moves() {
        return Receiver::IsBusy;
    }
    receivers
        .into_iter()
        .filter(|node| crowd(*node) == crowd_min && draft.is_free_for(range, *node))
        .min_by_key(|node| receive_cost(draft, *node))
        .map_or(Receiver::IsBusy, Receiver::Node)
}

/// Among nodes of equal zones: what they carry, then how busy they are, then the lowest id.
pub(crate) fn receive_cost(draft: &Draft<'_>, node: u64) -> (u64, u64, u64, u64) {
    let known = draft.survey.nodes.get(&node);
    let write_bytes = known.map_or(0, |known| known.write_bytes_per_second);
    let requests = known.map_or(0, |known| known.requests_per_second);
    (draft.weights.fill(node), write_bytes, requests, node)
}

/// Why a node receives a replica, in words.
pub(crate) fn why_received(draft: &Draft<'_>, node: u64) -> String {
    let fill = crate::units::Bytes(draft.weights.fill(node));
    match draft.survey.zone(node) {
        "" => format!("carries least ({fill})"),
        zone => format!("in zone {zone} carries least ({fill})"),
    }
}

/// Replicas that live, whether or not they are to stay, and can be counted on.
fn present<'r>(draft: &Draft<'_>, range: &'r Range) -> impl Iterator<Item = &'r Replica> {
    range.replicas.iter().filter(|replica| {
        draft.survey.is_living(draft.policy, replica.node) && !replica.is_stuck(draft.policy)
    })
}

/// That there are too few nodes at all is said once, for the cluster.
fn complain_of_room(draft: &mut Draft<'_>, id: u64, range: &Range) {
    let has_others =
        draft.survey.nodes.keys().any(|node| {
            draft.survey.is_staying(draft.policy, *node) && range.replica(*node).is_none()
        });
    if has_others {
        draft.complain_of_stranded(About::Cluster, id);
    }
}
