//! Whether a step may be taken: what must never happen, whoever asked for it. Planning runs every
//! step through here, whoever carries it out does so again with what is known by then, and so does
//! an operator's command. It never asks whether a step is wise, only whether it is safe.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::plan::Step;
use crate::policy::Policy;
use crate::survey::{ROOT, Range, Replica, Survey, quorum};
use crate::units::{Bytes, Key};

/// Why a step may not be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No range has this id.
    UnknownRange(u64),
    /// The root range is carried by the spine: it has no replicas to move and cannot be merged.
    RootRange,
    /// A change of this range, or of the spine's membership, is under way.
    IsChanging,
    /// The survey lists two replicas of the range on one node.
    DoubleReplica(u64),
    /// Fewer voters live than must agree.
    NoQuorum { living_count: usize, voters_count: usize },
    /// No living voter is known to lead.
    NoLeader,
    /// The node is unknown, or was silent for too long.
    NodeDead(u64),
    /// The node was silent for long enough to be doubted.
    NodeSilent(u64),
    /// The node is being emptied.
    NodeDraining(u64),
    /// The node's disk has no room for the range.
    NodeFull { node: u64, bytes: u64 },
    /// A learner that does not catch up is on the node.
    NodeClogged(u64),
    /// The node sends or receives as many replicas as it may.
    NodeBusy { node: u64, moves_max: usize },
    /// As many replicas catch up in the cluster as may.
    TooManyMoves { moves_max: usize },
    /// The range has as many learners as it may.
    TooManyLearners { learners_max: usize },
    /// The node has a replica.
    HasReplica(u64),
    /// The node has none.
    HasNoReplica(u64),
    /// The replica votes.
    IsVoter(u64),
    /// The replica does not vote.
    IsLearner(u64),
    /// The replica is too far behind.
    Lags { node: u64, lag_entries: u64, lag_entries_max: u64 },
    /// The range has more voters than wanted and must lose one first.
    TooManyVoters { voters_count: usize },
    /// The range would have fewer voters than wanted.
    TooFewVoters { voters_count: usize },
    /// The node leads; leadership must be transferred first.
    IsLeader(u64),
    /// Too few of the voters that would remain live, or have all entries.
    QuorumLost { sound_count: usize, voters_count: usize },
    /// The key leaves one side empty, or lies outside.
    KeyOutside(Vec<u8>),
    /// As many splits and merges are under way as may.
    TooManySplits { splits_max: usize },
    /// The cluster has as many ranges as it may.
    TooManyRanges { ranges_max: usize },
    /// The spans do not tile the keyspace here.
    Cracked { left: u64, right: u64 },
    /// The left one's span does not end where the right one's starts.
    NotAdjacent,
    /// The two are not on the same nodes, as voters only.
    NotTogether,
    /// The two together would be split again.
    WouldSplitAgain,
    /// The node has no copy of the spine.
    NotInSpine(u64),
    /// The spine would survive the loss of fewer voters than it does.
    SpineWeaker { spare_count: usize, spare_after_count: usize },
    /// The spine has one voter more than wanted and must lose one first.
    TooManySpineVoters { voters_count: usize },
}

/// May this step be taken?
///
/// # Errors
/// It could cost a quorum, the last copy that has all entries, or more at once than allowed; or it
/// does not fit what the survey shows.
pub fn check(survey: &Survey, policy: &Policy, step: &Step) -> Result<(), Refusal> {
    match step {
        Step::AddLearner { range, node } => check_add_learner(survey, policy, *range, *node),
        Step::Promote { range, node } => check_promote(survey, policy, *range, *node),
        Step::RemoveReplica { range, node } => check_remove(survey, policy, *range, *node),
        Step::TransferLeader { range, to } => check_transfer(survey, policy, *range, *to),
        Step::Split { range, key } => check_split(survey, policy, *range, key),
        Step::Merge { left, right } => check_merge(survey, policy, *left, *right),
        Step::AddSpineVoter { node } => check_add_spine_voter(survey, policy, *node),
        Step::DemoteSpineVoter { node } => check_demote_spine_voter(survey, policy, *node),
        Step::MoveSpineLeader { to } => check_move_spine_leader(survey, policy, *to),
    }
}

/// Replicas that are being sent data: how many, by which nodes, and which nodes are clogged by one
/// that does not catch up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    pub(crate) moves_count: usize,
    pub(crate) moves_by_node: BTreeMap<u64, usize>,
    pub(crate) clogged: BTreeSet<u64>,
}

impl Traffic {
    pub(crate) fn of(survey: &Survey, policy: &Policy) -> Self {
        let mut traffic = Self::default();
        for range in survey.ranges.values().filter(|range| range.learners().next().is_some()) {
            // Without a quorum nothing is sent, nobody knows for how long, and the receiver is not
            // to blame.
            if !survey.has_quorum(policy, &range.replicas) {
                continue;
            }
            let stuck = range.learners().filter(|learner| learner.is_stuck(policy));
            traffic.clogged.extend(stuck.map(|learner| learner.node));
            for learner in range.learners().filter(|learner| learner.is_catching_up(policy)) {
                traffic.begin(range.leader, learner.node);
            }
        }
        traffic
    }

    /// One more replica is sent.
    pub(crate) fn begin(&mut self, source: Option<u64>, target: u64) {
        self.moves_count += 1;
        for node in source.into_iter().chain([target]) {
            *self.moves_by_node.entry(node).or_default() += 1;
        }
    }

    pub(crate) fn is_node_free(&self, policy: &Policy, node: u64) -> bool {
        self.moves_by_node.get(&node).is_none_or(|count| *count < policy.moves_per_node_max)
    }
}

/// The range can be changed by consensus, now: what every step on a range needs.
pub(crate) fn check_range<'s>(
    survey: &'s Survey,
    policy: &Policy,
    id: u64,
) -> Result<&'s Range, Refusal> {
    let range = survey.ranges.get(&id).ok_or(Refusal::UnknownRange(id))?;
    if range.is_changing {
        return Err(Refusal::IsChanging);
    }
    if id == ROOT {
        check_spine(survey, policy)?;
    } else {
        check_group(survey, policy, &range.replicas, range.leader)?;
    }
    Ok(range)
}

/// As `check_range`, for steps that change replicas.
fn check_movable<'s>(survey: &'s Survey, policy: &Policy, id: u64) -> Result<&'s Range, Refusal> {
    if id == ROOT {
        return Err(Refusal::RootRange);
    }
    check_range(survey, policy, id)
}

fn check_spine(survey: &Survey, policy: &Policy) -> Result<(), Refusal> {
    if survey.spine.is_changing {
        return Err(Refusal::IsChanging);
    }
    check_group(survey, policy, &survey.spine.replicas, survey.spine.leader)
}

fn check_group(
    survey: &Survey,
    policy: &Policy,
    replicas: &[Replica],
    leader: Option<u64>,
) -> Result<(), Refusal> {
    let is_double = |(place, replica): &(usize, &Replica)| {
        replicas[..*place].iter().any(|other| other.node == replica.node)
    };
    if let Some((_, double)) = replicas.iter().enumerate().find(is_double) {
        return Err(Refusal::DoubleReplica(double.node));
    }
    if !survey.has_quorum(policy, replicas) {
        let voters: Vec<_> = replicas.iter().filter(|replica| !replica.is_learner).collect();
        let living = voters.iter().filter(|voter| survey.is_living(policy, voter.node));
        let living_count = living.count();
        return Err(Refusal::NoQuorum { living_count, voters_count: voters.len() });
    }
    survey.living_leader(policy, replicas, leader).map(|_| ()).ok_or(Refusal::NoLeader)
}

/// The node may be given something to do.
fn check_certain(survey: &Survey, policy: &Policy, node: u64) -> Result<(), Refusal> {
    if !survey.is_living(policy, node) {
        return Err(Refusal::NodeDead(node));
    }
    if !survey.is_staying(policy, node) {
        return Err(Refusal::NodeDraining(node));
    }
    if !survey.is_certain(policy, node) {
        return Err(Refusal::NodeSilent(node));
    }
    Ok(())
}

fn check_caught_up(policy: &Policy, replica: &Replica) -> Result<(), Refusal> {
    if replica.is_caught_up(policy) {
        return Ok(());
    }
    Err(Refusal::Lags {
        node: replica.node,
        lag_entries: replica.lag_entries,
        lag_entries_max: policy.lag_entries_max,
    })
}

fn check_add_learner(survey: &Survey, policy: &Policy, id: u64, node: u64) -> Result<(), Refusal> {
    let range = check_movable(survey, policy, id)?;
    check_certain(survey, policy, node)?;
    if range.replica(node).is_some() {
        return Err(Refusal::HasReplica(node));
    }
    if range.learners().count() >= policy.learners_per_range_max {
        return Err(Refusal::TooManyLearners { learners_max: policy.learners_per_range_max });
    }
    if !survey.has_room(policy, node, range.bytes) {
        return Err(Refusal::NodeFull { node, bytes: range.bytes });
    }
    let traffic = Traffic::of(survey, policy);
    if traffic.clogged.contains(&node) {
        return Err(Refusal::NodeClogged(node));
    }
    if traffic.moves_count >= policy.moves_max {
        return Err(Refusal::TooManyMoves { moves_max: policy.moves_max });
    }
    let mut parties = range.leader.into_iter().chain([node]);
    if let Some(node) = parties.find(|node| !traffic.is_node_free(policy, *node)) {
        return Err(Refusal::NodeBusy { node, moves_max: policy.moves_per_node_max });
    }
    Ok(())
}

/// A quorum of the living outlasts every promotion of a living learner: one more vote is needed at
/// most, and one more is there.
fn check_promote(survey: &Survey, policy: &Policy, id: u64, node: u64) -> Result<(), Refusal> {
    let range = check_movable(survey, policy, id)?;
    let learner = range.replica(node).ok_or(Refusal::HasNoReplica(node))?;
    if !learner.is_learner {
        return Err(Refusal::IsVoter(node));
    }
    check_certain(survey, policy, node)?;
    check_caught_up(policy, learner)?;
    let voters_count = range.voters().count();
    if voters_count > policy.replicas_count {
        return Err(Refusal::TooManyVoters { voters_count });
    }
    Ok(())
}

fn check_remove(survey: &Survey, policy: &Policy, id: u64, node: u64) -> Result<(), Refusal> {
    let range = check_movable(survey, policy, id)?;
    let removed = range.replica(node).ok_or(Refusal::HasNoReplica(node))?;
    if removed.is_learner {
        return Ok(());
    }
    if range.leader == Some(node) {
        return Err(Refusal::IsLeader(node));
    }
    let left = || range.voters().filter(|voter| voter.node != node);
    let voters_count = left().count();
    if voters_count < policy.replicas_count {
        return Err(Refusal::TooFewVoters { voters_count });
    }
    let living_count = left().filter(|voter| survey.is_living(policy, voter.node)).count();
    if living_count < quorum(voters_count) {
        return Err(Refusal::QuorumLost { sound_count: living_count, voters_count });
    }
    // A dead voter adds nothing, so that it is enough to keep one copy that has all entries. One
    // that lives may only go if the others can agree at once, without waiting for one that lags.
    let is_sound = |voter: &&Replica| {
        survey.is_living(policy, voter.node)
            && (voter.is_caught_up(policy) || range.leader == Some(voter.node))
    };
    let sound_count = left().filter(is_sound).count();
    let is_removed_living = survey.is_living(policy, node);
    let needed_count = if is_removed_living { quorum(voters_count) } else { 1 };
    if sound_count < needed_count {
        return Err(Refusal::QuorumLost { sound_count, voters_count });
    }
    Ok(())
}

fn check_transfer(survey: &Survey, policy: &Policy, id: u64, to: u64) -> Result<(), Refusal> {
    let range = check_movable(survey, policy, id)?;
    let successor = range.replica(to).ok_or(Refusal::HasNoReplica(to))?;
    if successor.is_learner {
        return Err(Refusal::IsLearner(to));
    }
    if range.leader == Some(to) {
        return Err(Refusal::IsLeader(to));
    }
    check_certain(survey, policy, to)?;
    check_caught_up(policy, successor)
}

fn check_split(survey: &Survey, policy: &Policy, id: u64, key: &[u8]) -> Result<(), Refusal> {
    let range = check_range(survey, policy, id)?;
    if !range.can_split_at(key) {
        return Err(Refusal::KeyOutside(key.to_vec()));
    }
    check_reshape(survey, policy)?;
    if survey.ranges.len() >= policy.ranges_max {
        return Err(Refusal::TooManyRanges { ranges_max: policy.ranges_max });
    }
    Ok(())
}

fn check_merge(survey: &Survey, policy: &Policy, left: u64, right: u64) -> Result<(), Refusal> {
    let left = check_movable(survey, policy, left)?;
    let right = check_movable(survey, policy, right)?;
    if !left.is_left_of(right) {
        return Err(Refusal::NotAdjacent);
    }
    if left.voter_nodes() != right.voter_nodes() {
        return Err(Refusal::NotTogether);
    }
    for range in [left, right] {
        if range.learners().next().is_some() {
            return Err(Refusal::NotTogether);
        }
        for voter in range.voters() {
            if !survey.is_living(policy, voter.node) {
                return Err(Refusal::NodeDead(voter.node));
            }
            check_caught_up(policy, voter)?;
        }
    }
    if !fits_together(policy, left, right) {
        return Err(Refusal::WouldSplitAgain);
    }
    check_reshape(survey, policy)
}

/// Two ranges together are below half of every limit of splitting, whatever the limits of merging
/// say: the distance that keeps split and merge from alternating.
fn fits_together(policy: &Policy, left: &Range, right: &Range) -> bool {
    let load = left.load.joined_with(right.load);
    let sums = [
        (left.bytes.saturating_add(right.bytes), policy.split_bytes),
        (left.keys.saturating_add(right.keys), policy.split_keys),
        (load.writes_per_second, policy.split_writes_per_second),
        (load.write_bytes_per_second, policy.split_write_bytes_per_second),
        (load.reads_per_second, policy.split_reads_per_second),
    ];
    sums.iter().all(|(sum, limit)| *sum <= limit / 2)
}

/// Spans may change: they tile the keyspace, and few enough changes are under way. The survey does
/// not say what kind of change a range is in, so each counts, except where a replica is caught up
/// or a quorum is missing, which may last.
fn check_reshape(survey: &Survey, policy: &Policy) -> Result<(), Refusal> {
    if let Some((left, right)) = survey.crack() {
        return Err(Refusal::Cracked { left, right });
    }
    let may_be_split = |(id, range): &(&u64, &Range)| {
        range.is_changing
            && range.learners().next().is_none()
            && (**id == ROOT || survey.has_quorum(policy, &range.replicas))
    };
    if survey.ranges.iter().filter(may_be_split).count() >= policy.splits_max {
        return Err(Refusal::TooManySplits { splits_max: policy.splits_max });
    }
    Ok(())
}

fn check_add_spine_voter(survey: &Survey, policy: &Policy, node: u64) -> Result<(), Refusal> {
    check_spine(survey, policy)?;
    let learner = survey.spine.replica(node).ok_or(Refusal::NotInSpine(node))?;
    if !learner.is_learner {
        return Err(Refusal::IsVoter(node));
    }
    check_certain(survey, policy, node)?;
    check_caught_up(policy, learner)?;
    let voters_count = survey.spine.voters().count();
    if voters_count > policy.spine_voters_max {
        return Err(Refusal::TooManySpineVoters { voters_count });
    }
    Ok(())
}

fn check_demote_spine_voter(survey: &Survey, policy: &Policy, node: u64) -> Result<(), Refusal> {
    check_spine(survey, policy)?;
    let voter = survey.spine.replica(node).ok_or(Refusal::NotInSpine(node))?;
    if voter.is_learner {
        return Err(Refusal::IsLearner(node));
    }
    if survey.spine.leader == Some(node) {
        return Err(Refusal::IsLeader(node));
    }
    let living = |voters: &mut dyn Iterator<Item = &Replica>| {
        voters.filter(|voter| survey.is_living(policy, voter.node)).count()
    };
    let before_count = survey.spine.voters().count();
    let living_before_count = living(&mut survey.spine.voters());
    let after_count = before_count - 1;
    let living_after_count = living(&mut survey.spine.voters().filter(|voter| voter.node != node));
    let Some(spare_after_count) = living_after_count.checked_sub(quorum(after_count)) else {
        return Err(Refusal::QuorumLost {
            sound_count: living_after_count,
            voters_count: after_count,
        });
    };
    let spare_count = living_before_count.saturating_sub(quorum(before_count));
    let is_surplus = before_count > policy.spine_voters_max;
    if spare_after_count < spare_count && !is_surplus {
        return Err(Refusal::SpineWeaker { spare_count, spare_after_count });
    }
    Ok(())
}

fn check_move_spine_leader(survey: &Survey, policy: &Policy, to: u64) -> Result<(), Refusal> {
    check_spine(survey, policy)?;
    let successor = survey.spine.replica(to).ok_or(Refusal::NotInSpine(to))?;
    if successor.is_learner {
        return Err(Refusal::IsLearner(to));
    }
    if survey.spine.leader == Some(to) {
        return Err(Refusal::IsLeader(to));
    }
    check_certain(survey, policy, to)?;
    check_caught_up(policy, successor)
}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownRange(range) => write!(out, "there is no range {range}"),
            Self::RootRange => out.write_str("the root range is carried by the spine"),
            Self::IsChanging => out.write_str("a change is under way"),
            Self::DoubleReplica(node) => write!(out, "there are two replicas on node {node}"),
            Self::NoQuorum { living_count, voters_count } => write!(
                out,
                "only {living_count} of {voters_count} voters live, {} must agree",
                quorum(*voters_count)
            ),
            Self::NoLeader => out.write_str("no living voter is known to lead"),
            Self::NodeDead(node) => write!(out, "node {node} is dead or unknown"),
            Self::NodeSilent(node) => write!(out, "node {node} was not heard of lately"),
            Self::NodeDraining(node) => write!(out, "node {node} is draining"),
            Self::NodeFull { node, bytes } => {
                write!(out, "node {node} has no room for {}", Bytes(*bytes))
            }
            Self::NodeClogged(node) => {
                write!(out, "a learner on node {node} does not catch up")
            }
            Self::NodeBusy { node, moves_max } => {
                write!(out, "node {node} sends or receives {moves_max} replicas, the most it may")
            }
            Self::TooManyMoves { moves_max } => {
                write!(out, "{moves_max} replicas catch up in the cluster, the most that may")
            }
            Self::TooManyLearners { learners_max } => {
                write!(out, "the range has {learners_max} learners, the most it may")
            }
            Self::HasReplica(node) => write!(out, "node {node} has a replica"),
            Self::HasNoReplica(node) => write!(out, "node {node} has no replica"),
            Self::IsVoter(node) => write!(out, "the replica on node {node} votes"),
            Self::IsLearner(node) => write!(out, "the replica on node {node} has no vote"),
            Self::Lags { node, lag_entries, lag_entries_max } => write!(
                out,
                "node {node} is {lag_entries} entries behind, more than {lag_entries_max}"
            ),
            Self::TooManyVoters { voters_count } => {
                write!(out, "there are {voters_count} voters, one must go first")
            }
            Self::TooFewVoters { voters_count } => {
                write!(out, "only {voters_count} voters would remain")
            }
            Self::IsLeader(node) => write!(out, "node {node} leads"),
            Self::QuorumLost { sound_count, voters_count } => write!(
                out,
                "of {voters_count} voters that would remain only {sound_count} could agree"
            ),
            Self::KeyOutside(key) => write!(out, "key {} does not part the span", Key(key)),
            Self::TooManySplits { splits_max } => {
                write!(out, "{splits_max} splits and merges are under way, the most that may")
            }
            Self::TooManyRanges { ranges_max } => {
                write!(out, "there are {ranges_max} ranges, the most there may be")
            }
            Self::Cracked { left, right } => {
                write!(out, "the spans of ranges {left} and {right} do not meet")
            }
            Self::NotAdjacent => out.write_str("the spans are not next to each other"),
            Self::NotTogether => out.write_str("the two are not on the same nodes"),
            Self::WouldSplitAgain => out.write_str("the two together would be split again"),
            Self::NotInSpine(node) => write!(out, "node {node} has no copy of the spine"),
            Self::SpineWeaker { spare_count, spare_after_count } => write!(
                out,
                "the spine could bear the loss of {spare_after_count} voters instead of \
                 {spare_count}"
            ),
            Self::TooManySpineVoters { voters_count } => {
                write!(out, "the spine has {voters_count} voters, one must go first")
            }
        }
    }
}

impl std::error::Error for Refusal {}
