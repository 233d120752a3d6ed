//! The spine's leader goes where most writes are led: their numbering then needs no hop over the
//! network. It stays unless another node leads more by a part and by an amount, so that it does not
//! flap.

use crate::plan::Step;
use crate::solve::Draft;
use crate::survey::{ROOT, Replica};
use crate::weigh::percent;

pub(crate) fn apply(draft: &mut Draft<'_>) {
    let Some(leader) = draft.survey.spine.leader else { return };
    if !draft.is_spine_open() {
        return;
    }
    let can_lead = |voter: &&Replica| {
        voter.is_caught_up(draft.policy) && draft.survey.is_certain(draft.policy, voter.node)
    };
    let voters = draft.survey.spine.voters().filter(can_lead).map(|voter| voter.node);
    let Some((most, std::cmp::Reverse(to))) =
        voters.map(|node| (writes_led(draft, node), std::cmp::Reverse(node))).max()
    else {
        return;
    };
    let here = writes_led(draft, leader);
    let policy = draft.policy;
    let limit = here
        .saturating_add(percent(here, policy.follow_load_percent))
        .saturating_add(policy.follow_load_writes_per_second);
    if to != leader && most > limit {
        draft.propose(
            Step::MoveSpineLeader { to },
            format!("node {to} leads {most} writes/s, node {leader} {here} (limit {limit})"),
        );
    }
}

/// Writes in a second of the ranges that the node leads, without those of the root range, which
/// move along with the spine's leader.
fn writes_led(draft: &Draft<'_>, node: u64) -> u64 {
    let led =
        draft.survey.ranges.iter().filter(|(id, range)| **id != ROOT && range.leader == Some(node));
    led.fold(0, |sum, (_, range)| sum.saturating_add(range.load.writes_per_second))
}
