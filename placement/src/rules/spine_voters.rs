//! Who votes in the spine: all nodes of a small cluster; of a larger one an odd number, spread over
//! the zones. A voter that is dead or draining is replaced first and demoted after. Where there is
//! nobody to replace it, it keeps its vote unless the spine is the stronger without it.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::check::{Refusal, check};
use crate::plan::{About, Step};
use crate::solve::Draft;
use crate::survey::Replica;

pub(crate) fn apply(draft: &mut Draft<'_>) {
    let Some(spine) = Spine::of(draft) else { return };
    let _is_decided = demote_dead(draft, &spine)
        || add_voter(draft, &spine)
        || demote_draining(draft, &spine)
        || demote_surplus(draft, &spine)
        || spread(draft, &spine);
}

/// The spine as this rule sees it.
struct Spine {
    /// Voters on nodes that stay.
    staying: Vec<u64>,
    draining: Vec<u64>,
    dead: Vec<u64>,
    /// Learners that could vote.
    candidates: Vec<u64>,
    wanted_count: usize,
    /// There are too many voters for another to be added before one has gone.
    is_over_full: bool,
    leader: Option<u64>,
    /// Staying voters by zone.
    crowds: BTreeMap<String, usize>,
}

impl Spine {
    fn of(draft: &Draft<'_>) -> Option<Self> {
        let (survey, policy) = (&draft.survey, draft.policy);
        if !draft.is_spine_open() || survey.spine.is_changing {
            return None;
        }
        let nodes_of = |is_wanted: &dyn Fn(&Replica) -> bool| -> Vec<u64> {
            let replicas = survey.spine.replicas.iter().filter(|replica| is_wanted(replica));
            replicas.map(|replica| replica.node).collect()
        };
        let staying =
            nodes_of(&|replica| !replica.is_learner && survey.is_staying(policy, replica.node));
        let dead =
            nodes_of(&|replica| !replica.is_learner && !survey.is_living(policy, replica.node));
        let draining = nodes_of(&|replica| {
            !replica.is_learner
                && survey.is_living(policy, replica.node)
                && !survey.is_staying(policy, replica.node)
        });
        let candidates = nodes_of(&|replica| {
            replica.is_learner
                && replica.is_caught_up(policy)
                && survey.is_certain(policy, replica.node)
        });
        let able_count = nodes_of(&|replica| survey.is_staying(policy, replica.node)).len();
        let mut crowds = BTreeMap::new();
        for node in &staying {
            *crowds.entry(survey.zone(*node).to_owned()).or_default() += 1;
        }
        let voters_count = staying.len() + draining.len() + dead.len();
        Some(Self {
            is_over_full: voters_count > policy.spine_voters_max,
            staying,
            draining,
            dead,
            candidates,
            wanted_count: policy.spine_voters_count(able_count),
            leader: survey.spine.leader,
            crowds,
        })
    }

    fn voters_count(&self) -> usize {
        self.staying.len() + self.draining.len() + self.dead.len()
    }

    fn crowd(&self, draft: &Draft<'_>, node: u64) -> usize {
        self.crowds.get(draft.survey.zone(node)).copied().unwrap_or(0)
    }

    /// Who could vote next: in the zone with fewest voters, then the lowest id.
    fn best_candidate(&self, draft: &Draft<'_>) -> Option<u64> {
        self.candidates.iter().copied().min_by_key(|node| (self.crowd(draft, *node), *node))
    }
}

/// Without a dead voter an even number of voters needs one vote less, an odd number as many as
/// before: there, one goes alone only if another dead one follows it, or to make room.
fn demote_dead(draft: &mut Draft<'_>, spine: &Spine) -> bool {
    let voters_count = spine.voters_count();
    let Some(node) = spine.dead.iter().copied().max() else { return false };
    if voters_count % 2 == 1 && spine.dead.len() < 2 && !spine.is_over_full {
        return false;
    }
    draft.propose(
        Step::DemoteSpineVoter { node },
        format!("node {node} is dead; {voters_count} voters with it are no safer than without"),
    )
}

fn add_voter(draft: &mut Draft<'_>, spine: &Spine) -> bool {
    let (staying_count, wanted_count) = (spine.staying.len(), spine.wanted_count);
    if staying_count >= wanted_count {
        return false;
    }
    let Some(node) = spine.best_candidate(draft) else { return false };
    draft.propose(
        Step::AddSpineVoter { node },
        format!("{staying_count} of {wanted_count} wanted voters live and are not draining"),
    )
}

fn demote_draining(draft: &mut Draft<'_>, spine: &Spine) -> bool {
    let may_go = spine.staying.len() >= spine.wanted_count || spine.is_over_full;
    let draining = spine.draining.iter().copied().filter(|node| spine.leader != Some(*node));
    let Some(node) = draining.max().filter(|_| may_go) else { return false };
    let step = Step::DemoteSpineVoter { node };
    if let Err(refusal @ Refusal::SpineWeaker { .. }) = check(&draft.survey, draft.policy, &step) {
        let reason = format!("draining node {node} keeps its vote: without it {refusal}");
        draft.complain(About::Spine, reason);
        return false;
    }
    draft.propose(step, format!("node {node} is draining"))
}

fn demote_surplus(draft: &mut Draft<'_>, spine: &Spine) -> bool {
    let (staying_count, wanted_count) = (spine.staying.len(), spine.wanted_count);
    if staying_count <= wanted_count {
        return false;
    }
    let followers = spine.staying.iter().copied().filter(|node| spine.leader != Some(*node));
    let Some(node) = followers.max_by_key(|node| (spine.crowd(draft, *node), *node)) else {
        return false;
    };
    draft.propose(
        Step::DemoteSpineVoter { node },
        format!("{staying_count} voters, {wanted_count} wanted; its zone has most of them"),
    )
}

/// One voter more, in a zone that has at least two fewer than the most crowded one, which loses
/// one after.
fn spread(draft: &mut Draft<'_>, spine: &Spine) -> bool {
    let is_whole =
        spine.staying.len() == spine.wanted_count && spine.voters_count() == spine.wanted_count;
    let crowded = spine.crowds.iter().map(|(zone, crowd)| (*crowd, Reverse(zone))).max();
    let (Some((crowd_max, Reverse(crowded))), Some(node)) =
        (crowded.filter(|_| is_whole), spine.best_candidate(draft))
    else {
        return false;
    };
    let crowd = spine.crowd(draft, node);
    if crowd + 1 >= crowd_max {
        return false;
    }
    let zone = draft.survey.zone(node);
    let reason = format!("{crowd_max} voters are in zone '{crowded}', {crowd} in zone '{zone}'");
    draft.propose(Step::AddSpineVoter { node }, reason)
}
