//! Empties a node that an operator wants to take away: what it leads is led by others, then its
//! replicas are made anew elsewhere. That its vote in the spine goes is up to `spine_voters`.

use crate::plan::{About, Step};
use crate::rules::finish_moves::successor;
use crate::rules::restore_replicas::{Receiver, receiver, why_received};
use crate::solve::Draft;
use crate::survey::{Range, Replica};

pub(crate) fn apply(draft: &mut Draft<'_>) {
    move_spine_leader(draft);
    for id in draft.movable_ranges() {
        let is_affected =
            |range: &&Range| range.voters().any(|voter| is_draining(draft, voter.node));
        let range = draft.survey.ranges.get(&id).filter(is_affected);
        let Some(range) = range.cloned() else { continue };
        let _is_decided = move_leader(draft, id, &range) || add_replica(draft, id, &range);
    }
}

fn move_spine_leader(draft: &mut Draft<'_>) {
    let Some(leader) = draft.survey.spine.leader else { return };
    if !draft.is_spine_open() || !is_draining(draft, leader) {
        return;
    }
    let can_lead = |voter: &&Replica| {
        voter.is_caught_up(draft.policy) && draft.survey.is_certain(draft.policy, voter.node)
    };
    let successor = draft.survey.spine.voters().filter(can_lead).map(|voter| voter.node).min();
    match successor {
        Some(to) => {
            let reason = format!("the spine's leader is on node {leader}, which is draining");
            draft.propose(Step::MoveSpineLeader { to }, reason);
        }
        None => {
            let reason = format!("led by draining node {leader}, no other voter can lead");
            draft.complain(About::Spine, reason);
        }
    }
}

fn move_leader(draft: &mut Draft<'_>, id: u64, range: &Range) -> bool {
    let Some(leader) = range.leader.filter(|leader| is_draining(draft, *leader)) else {
        return false;
    };
    let Some(to) = successor(draft, range) else { return false };
    draft.propose(
        Step::TransferLeader { range: id, to },
        format!("led by node {leader}, which is draining; node {to} leads least of the voters"),
    )
}

fn add_replica(draft: &mut Draft<'_>, id: u64, range: &Range) -> bool {
    if !draft.policy.is_moving_replicas {
        return false;
    }
    let leaving = range.voters().find(|voter| is_draining(draft, voter.node));
    let Some(from) = leaving.map(|voter| voter.node) else { return false };
    let sound = range.replicas.iter().filter(|replica| draft.is_sound(replica));
    if sound.count() >= draft.policy.replicas_count {
        return false;
    }
    match receiver(draft, range) {
        Receiver::None => {
            draft.complain_of_stranded(About::Node(from), id);
            false
        }
        Receiver::IsBusy => false,
        Receiver::Node(node) => draft.propose(
            Step::AddLearner { range: id, node },
            format!("node {from} is draining; node {node} {}", why_received(draft, node)),
        ),
    }
}

fn is_draining(draft: &Draft<'_>, node: u64) -> bool {
    draft.survey.is_living(draft.policy, node) && !draft.survey.is_staying(draft.policy, node)
}
