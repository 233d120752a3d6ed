//! Nodes lead about the same: leadership moves to a voter on a node that leads less. Only if the
//! node would still lead less than the old leader's did, by more than the tolerance, so that it
//! never comes back. The root range is left out: it is led by the spine's leader, whose place
//! `follow_load` chooses.

use std::cmp::Reverse;

use crate::plan::Step;
use crate::solve::Draft;
use crate::survey::{Range, Replica};
use crate::weigh::leader_weight;

pub(crate) fn apply(draft: &mut Draft<'_>) {
    while !draft.is_out_of_transfers() && move_one_leader(draft) {}
}

/// From the node that leads most and can give.
fn move_one_leader(draft: &mut Draft<'_>) -> bool {
    let ids = draft.movable_ranges();
    let best = ids.into_iter().filter_map(|id| offer(draft, id)).min();
    best.is_some_and(|offer| propose(draft, &offer))
}

/// A leader that could move; the least is the best. Fields are compared in the order in which they
/// stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Offer {
    /// What its node leads, in requests in a second.
    given_requests: Reverse<u64>,
    from: u64,
    /// What the busier of both nodes would lead afterwards, likewise.
    requests_max: u64,
    range: u64,
    to: u64,
}

fn offer(draft: &Draft<'_>, id: u64) -> Option<Offer> {
    let range = draft.survey.ranges.get(&id)?;
    let from = range.leader?;
    // One more voter than wanted: who leads is about to be decided by which one goes. And a leader
    // that sends its data to a learner is not disturbed.
    let is_surplus = range.voters().count() > draft.policy.replicas_count;
    if is_surplus || range.learners().any(|learner| learner.is_catching_up(draft.policy)) {
        return None;
    }
    let given = draft.weights.leader_requests(from);
    let weight = leader_weight(draft.policy, range);
    let tolerance = draft.weights.leader_tolerance(draft.policy);
    let to = least_leading_voter(draft, range)?;
    let taken_after = draft.weights.leader_requests(to).saturating_add(weight);
    (given > taken_after.saturating_add(tolerance)).then(|| Offer {
        given_requests: Reverse(given),
        from,
        requests_max: taken_after.max(given.saturating_sub(weight)),
        range: id,
        to,
    })
}

fn least_leading_voter(draft: &Draft<'_>, range: &Range) -> Option<u64> {
    let can_lead = |voter: &&Replica| {
        range.leader != Some(voter.node)
            && voter.is_caught_up(draft.policy)
            && draft.survey.is_certain(draft.policy, voter.node)
    };
    let nodes = range.voters().filter(can_lead).map(|voter| voter.node);
    nodes.min_by_key(|node| (draft.weights.leader_requests(*node), *node))
}

fn propose(draft: &mut Draft<'_>, offer: &Offer) -> bool {
    let Offer { given_requests: Reverse(given), from, range, to, .. } = *offer;
    let taken = draft.weights.leader_requests(to);
    let tolerance = draft.weights.leader_tolerance(draft.policy);
    draft.propose(
        Step::TransferLeader { range, to },
        format!(
            "node {from} leads {given} requests/s, node {to} {taken}; the tolerance is {tolerance}"
        ),
    )
}
