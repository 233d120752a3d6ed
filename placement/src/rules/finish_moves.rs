//! Brings moves that have begun to their end. Nobody remembers a move; a range shows where it is:
//!
//! * a learner on a node that is dead or draining: it goes;
//! * more voters than wanted: the best one to lose goes, after it has handed over leadership;
//! * a learner that is among the best replicas once the worst are gone: it gets a vote as soon as
//!   it has caught up, and is waited for until then;
//! * a learner that is not: nobody wants it, it goes;
//! * a learner that does not catch up: it stays, as a second attempt would only send the data
//!   again, but nobody counts on it and its node is given nothing else (`restore_replicas` tries
//!   another node if a replica is missing).

use std::collections::BTreeSet;

use crate::keep::{Lag, crowds, keepers, loser};
use crate::plan::{About, Step};
use crate::solve::Draft;
use crate::survey::{Range, Replica};
use crate::units::{Bytes, Millis};

pub(crate) fn apply(draft: &mut Draft<'_>) {
    for id in draft.movable_ranges() {
        let is_moving = |range: &&Range| {
            range.learners().next().is_some() || range.replicas.len() > draft.policy.replicas_count
        };
        let range = draft.survey.ranges.get(&id).filter(is_moving);
        let Some(range) = range.cloned() else { continue };
        complain_of_stuck_learners(draft, id, &range);
        let _is_decided = !draft.is_open(id)
            || remove_lost_learner(draft, id, &range)
            || remove_surplus_voter(draft, id, &range)
            || remove_unwanted_learner(draft, id, &range)
            || promote_learner(draft, id, &range);
    }
}

fn remove_lost_learner(draft: &mut Draft<'_>, id: u64, range: &Range) -> bool {
    let is_lost = |learner: &&Replica| !draft.survey.is_staying(draft.policy, learner.node);
    let Some(node) = range.learners().find(is_lost).map(|learner| learner.node) else {
        return false;
    };
    let state = if draft.survey.is_living(draft.policy, node) { "draining" } else { "dead" };
    draft.propose(
        Step::RemoveReplica { range: id, node },
        format!("node {node} is {state}, its learner will not be needed"),
    )
}

fn remove_surplus_voter(draft: &mut Draft<'_>, id: u64, range: &Range) -> bool {
    let (count, wanted_count) = (range.voters().count(), draft.policy.replicas_count.max(1));
    if count <= wanted_count {
        return false;
    }
    let is_kept = |node: u64| draft.kept.get(&id).is_some_and(|kept| kept.contains(&node));
    let voters = range.voters().map(|voter| voter.node);
    let surplus: Vec<u64> = voters.filter(|node| !is_kept(*node)).collect();
    let Some(node) = loser(draft, id, range, &surplus, Lag::Counts) else { return false };
    let why = why_lost(draft, id, range, node);
    if range.leader != Some(node) {
        return draft.propose(
            Step::RemoveReplica { range: id, node },
            format!("{count} voters, {wanted_count} wanted; node {node} {why}"),
        );
    }
    let Some(to) = successor(draft, range) else { return false };
    draft.propose(
        Step::TransferLeader { range: id, to },
        format!("{count} voters, {wanted_count} wanted; the leader's node {node} {why}"),
    )
}

/// Why the replica on the node is the best to lose, in words.
fn why_lost(draft: &Draft<'_>, id: u64, range: &Range, node: u64) -> String {
    if !draft.survey.is_living(draft.policy, node) {
        return "is dead".to_owned();
    }
    if !draft.survey.is_staying(draft.policy, node) {
        return "is draining".to_owned();
    }
    let is_apart = draft.partner_nodes(id).is_some_and(|nodes| !nodes.contains(&node));
    if let Some(left) = draft.partners.get(&id).filter(|_| is_apart) {
        return format!("has no replica of range {left}, with which it is to be merged");
    }
    let nodes: Vec<u64> = range.replicas.iter().map(|replica| replica.node).collect();
    let zone = draft.survey.zone(node);
    let crowd = crowds(draft, range, &nodes, Lag::Counts).get(zone).copied().unwrap_or(0);
    if crowd > 1 && !zone.is_empty() {
        return format!("is one of {crowd} in zone {zone}");
    }
    let fill = Bytes(draft.fill_if_kept(id, range, node));
    format!("would carry {fill} with it, the most of them")
}

fn remove_unwanted_learner(draft: &mut Draft<'_>, id: u64, range: &Range) -> bool {
    let Some(kept) = draft.kept.get(&id) else { return false };
    // A stuck learner is not removed for being stuck, only if it were not wanted anyway.
    let kept_if_patient = kept_if_patient(draft, id, range);
    let unwanted = range.learners().find(|learner| {
        let kept = if learner.is_stuck(draft.policy) { &kept_if_patient } else { kept };
        !kept.contains(&learner.node)
    });
    let Some(node) = unwanted.map(|learner| learner.node) else { return false };
    let wanted_count = draft.policy.replicas_count;
    draft.propose(
        Step::RemoveReplica { range: id, node },
        format!("the learner on node {node} is not among the {wanted_count} best replicas"),
    )
}

fn promote_learner(draft: &mut Draft<'_>, id: u64, range: &Range) -> bool {
    let is_ready = |learner: &&Replica| {
        learner.is_caught_up(draft.policy) && draft.survey.is_certain(draft.policy, learner.node)
    };
    let ready = range.learners().find(is_ready);
    let Some(learner) = ready else { return false };
    let (node, lag_entries) = (learner.node, learner.lag_entries);
    let limit = draft.policy.lag_entries_max;
    draft.propose(
        Step::Promote { range: id, node },
        format!("node {node} has caught up, {lag_entries} entries behind (limit {limit})"),
    )
}

fn complain_of_stuck_learners(draft: &mut Draft<'_>, id: u64, range: &Range) {
    for learner in range.learners().filter(|learner| learner.is_stuck(draft.policy)) {
        let Replica { node, lag_entries, learner_ms, .. } = *learner;
        let waited = Millis(learner_ms);
        let reason =
            format!("the learner on node {node} is {lag_entries} entries behind after {waited}");
        draft.complain(About::Range(id), reason);
    }
}

/// Nodes of the replicas that would stay if those that are stuck caught up.
fn kept_if_patient(draft: &Draft<'_>, id: u64, range: &Range) -> BTreeSet<u64> {
    if !range.learners().any(|learner| learner.is_stuck(draft.policy)) {
        return BTreeSet::new();
    }
    let nodes = range.replicas.iter().map(|replica| replica.node).collect();
    let wanted_count = draft.policy.replicas_count.max(1);
    keepers(draft, id, range, nodes, wanted_count, Lag::IsForgiven).into_iter().collect()
}

/// Who leads in the place of a leader whose replica goes or whose node is emptied: the voter whose
/// node leads least.
pub(crate) fn successor(draft: &Draft<'_>, range: &Range) -> Option<u64> {
    let can_lead = |voter: &&Replica| {
        range.leader != Some(voter.node)
            && voter.is_caught_up(draft.policy)
            && draft.survey.is_certain(draft.policy, voter.node)
    };
    range
        .voters()
        .filter(can_lead)
        .map(|voter| voter.node)
        .min_by_key(|node| (draft.weights.leader_requests(*node), *node))
}
