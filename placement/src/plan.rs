//! What comes out of planning: steps in the order in which to take them, each with the rule and the
//! reason behind it, and what nothing can be done about.

use std::fmt;

use crate::units::Key;

/// What to do next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In the order of their weight; moving the spine's leader, who carries them out, comes last.
    /// One range is in at most one of them, and so is the spine.
    pub decisions: Vec<Decision>,
    /// What an operator should look at, because no step can help, or not by itself.
    pub complaints: Vec<Complaint>,
}

/// One step, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What to do.
    pub step: Step,
    /// The rule that asked for it.
    pub rule: Rule,
    /// Why, in words and numbers.
    pub reason: String,
}

/// One change of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// A replica without a vote is made on the node and is sent the data.
    AddLearner { range: u64, node: u64 },
    /// The learner gets a vote.
    Promote { range: u64, node: u64 },
    /// The replica, voter or learner, goes.
    RemoveReplica { range: u64, node: u64 },
    /// Another voter leads.
    TransferLeader { range: u64, to: u64 },
    /// Keys from this one on become a range of their own.
    Split { range: u64, key: Vec<u8> },
    /// The left range takes over the span of the right one.
    Merge { left: u64, right: u64 },
    /// A learner of the spine gets a vote.
    AddSpineVoter { node: u64 },
    /// A voter of the spine becomes a learner.
    DemoteSpineVoter { node: u64 },
    /// Another voter leads the spine.
    MoveSpineLeader { to: u64 },
}

/// The rules, in the order in which they are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// `rules::spine_voters`.
    SpineVoters,
    /// `rules::finish_moves`.
    FinishMoves,
    /// `rules::restore_replicas`.
    RestoreReplicas,
    /// `rules::drain_node`.
    DrainNode,
    /// `rules::spread_zones`.
    SpreadZones,
    /// `rules::split_large`.
    SplitLarge,
    /// `rules::split_hot`.
    SplitHot,
    /// `rules::merge_small`.
    MergeSmall,
    /// `rules::balance_replicas`.
    BalanceReplicas,
    /// `rules::balance_leaders`.
    BalanceLeaders,
    /// `rules::follow_load`.
    FollowLoad,
}

/// Something that no step can help.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// What it is about.
    pub about: About,
    /// What is wrong, in words and numbers.
    pub reason: String,
}

/// What a complaint is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum About {
    /// The cluster as a whole.
    Cluster,
    /// The spine.
    Spine,
    /// A node.
    Node(u64),
    /// A range.
    Range(u64),
}

impl Step {
    /// The ranges it changes.
    pub fn ranges(&self) -> impl Iterator<Item = u64> {
        let (first, second) = match *self {
            Self::AddLearner { range, .. }
            | Self::Promote { range, .. }
            | Self::RemoveReplica { range, .. }
            | Self::TransferLeader { range, .. }
            | Self::Split { range, .. } => (Some(range), None),
            Self::Merge { left, right } => (Some(left), Some(right)),
            Self::AddSpineVoter { .. }
            | Self::DemoteSpineVoter { .. }
            | Self::MoveSpineLeader { .. } => (None, None),
        };
        first.into_iter().chain(second)
    }
}

impl Rule {
    /// Its name, which is that of its file.
    pub fn name(self) -> &'static str {
        match self {
            Self::SpineVoters => "spine_voters",
            Self::FinishMoves => "finish_moves",
            Self::RestoreReplicas => "restore_replicas",
            Self::DrainNode => "drain_node",
            Self::SpreadZones => "spread_zones",
            Self::SplitLarge => "split_large",
            Self::SplitHot => "split_hot",
            Self::MergeSmall => "merge_small",
            Self::BalanceReplicas => "balance_replicas",
            Self::BalanceLeaders => "balance_leaders",
            Self::FollowLoad => "follow_load",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddLearner { range, node } => {
                write!(out, "add_learner range={range} node={node}")
            }
            Self::Promote { range, node } => write!(out, "promote range={range} node={node}"),
            Self::RemoveReplica { range, node } => {
                write!(out, "remove_replica range={range} node={node}")
            }
            Self::TransferLeader { range, to } => {
                write!(out, "transfer_leader range={range} to={to}")
            }
            Self::Split { range, key } => write!(out, "split range={range} key={}", Key(key)),
            Self::Merge { left, right } => write!(out, "merge left={left} right={right}"),
            Self::AddSpineVoter { node } => write!(out, "add_spine_voter node={node}"),
            Self::DemoteSpineVoter { node } => write!(out, "demote_spine_voter node={node}"),
            Self::MoveSpineLeader { to } => write!(out, "move_spine_leader to={to}"),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

impl fmt::Display for About {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cluster => out.write_str("cluster"),
            Self::Spine => out.write_str("spine"),
            Self::Node(node) => write!(out, "node {node}"),
            Self::Range(range) => write!(out, "range {range}"),
        }
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}  [{}] {}", self.step, self.rule, self.reason)
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.about, self.reason)
    }
}
