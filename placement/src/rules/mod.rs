//! The rules of placement, one per file, in the order in which they are asked: first what keeps the
//! cluster safe, then what finishes moves that have begun, then what makes it better. A rule reads
//! the draft and proposes steps; it does not know of the other rules. What an earlier rule decided
//! for a range stands.

pub mod hand_over;

pub(crate) mod balance_leaders;
pub(crate) mod balance_replicas;
pub(crate) mod drain_node;
pub(crate) mod finish_moves;
pub(crate) mod follow_load;
pub(crate) mod merge_small;
pub(crate) mod restore_replicas;
pub(crate) mod spine_voters;
pub(crate) mod split_hot;
pub(crate) mod split_large;
pub(crate) mod spread_zones;

use crate::plan::Rule;
use crate::policy::Policy;
use crate::solve::Draft;

type Apply = fn(&mut Draft<'_>);

/// Whether a rule does nothing but what the policy has switched off.
pub(crate) fn is_off(policy: &Policy, rule: Rule) -> bool {
    match rule {
        Rule::SpineVoters => !policy.is_moving_votes,
        Rule::FinishMoves | Rule::RestoreReplicas | Rule::SpreadZones | Rule::BalanceReplicas => {
            !policy.is_moving_replicas
        }
        Rule::DrainNode
        | Rule::SplitLarge
        | Rule::SplitHot
        | Rule::MergeSmall
        | Rule::BalanceLeaders
        | Rule::FollowLoad => false,
    }
}

/// All rules by priority.
pub(crate) const IN_ORDER: [(Rule, Apply); 11] = [
    (Rule::SpineVoters, spine_voters::apply),
    (Rule::FinishMoves, finish_moves::apply),
    (Rule::RestoreReplicas, restore_replicas::apply),
    (Rule::DrainNode, drain_node::apply),
    (Rule::SpreadZones, spread_zones::apply),
    (Rule::SplitLarge, split_large::apply),
    (Rule::SplitHot, split_hot::apply),
    (Rule::MergeSmall, merge_small::apply),
    (Rule::BalanceReplicas, balance_replicas::apply),
    (Rule::BalanceLeaders, balance_leaders::apply),
    (Rule::FollowLoad, follow_load::apply),
];
