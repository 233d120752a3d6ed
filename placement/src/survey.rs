//! What the spine's leader knows of the cluster when it plans: nodes, ranges and the spine itself.
//! Facts only; what they mean is for the policy and the rules.

use std::collections::{BTreeMap, BTreeSet};

use crate::policy::Policy;

/// The range that the spine carries inline. It has no replicas of its own, is never moved or
/// merged, but can be split.
pub const ROOT: u64 = 0;

/// All that is known of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// By node id. A node that is not listed counts as dead.
    pub nodes: BTreeMap<u64, Node>,
    /// By range id. The spans tile the keyspace.
    pub ranges: BTreeMap<u64, Range>,
    /// The group that orders everything.
    pub spine: Spine,
}

/// A process of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// What it fails together with. Nodes without a label (empty) share one nameless zone.
    pub zone: String,
    /// Milliseconds since it was last heard of, counted from when the spine's leader took over if
    /// nothing was heard since.
    pub silent_ms: u64,
    /// An operator wants it empty.
    pub is_draining: bool,
    /// Bytes its disk holds; 0 = unknown.
    pub capacity_bytes: u64,
    /// Bytes of it in use.
    pub used_bytes: u64,
    /// Bytes it writes in a second.
    pub write_bytes_per_second: u64,
    /// Requests it answers in a second.
    pub requests_per_second: u64,
}

/// A span of keys and the group that owns it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// First key of its span.
    pub start: Vec<u8>,
    /// First key behind its span; empty = the span has no end.
    pub end: Vec<u8>,
    /// Counts changes of its span and membership.
    pub generation: u64,
    /// Its copies, none for the root range.
    pub replicas: Vec<Replica>,
    /// The node that leads it, as far as known.
    pub leader: Option<u64>,
    /// Bytes of its keys and values.
    pub bytes: u64,
    /// Keys it holds.
    pub keys: u64,
    /// What is asked of it, smoothed over a minute or so.
    pub load: Load,
    /// The busiest point, found by the node that leads it.
    pub load_split_key: Option<Vec<u8>>,
    /// The middle by size, found by the node that leads it.
    pub size_split_key: Option<Vec<u8>>,
    /// A split, merge or change of membership is under way.
    pub is_changing: bool,
    /// Milliseconds since its load was last above the limit of quiet ranges.
    pub quiet_ms: u64,
    /// Milliseconds since it came about by a split or merge, on either side of it.
    pub age_ms: u64,
}

/// One copy of a range, or of the spine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replica {
    /// Where it is.
    pub node: u64,
    /// It follows but has no vote.
    pub is_learner: bool,
    /// Entries it is behind the leader.
    pub lag_entries: u64,
    /// Milliseconds it has been a learner, as the leader counts them; 0 for a voter.
    pub learner_ms: u64,
}

/// What is asked of a range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Writes in a second.
    pub writes_per_second: u64,
    /// Bytes of keys and values in them.
    pub write_bytes_per_second: u64,
    /// Reads in a second.
    pub reads_per_second: u64,
}

/// The spine's group. Every node has a copy, as a voter or as a learner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spine {
    /// Its copies.
    pub replicas: Vec<Replica>,
    /// The node that leads it.
    pub leader: Option<u64>,
    /// A change of its membership is under way.
    pub is_changing: bool,
}

impl Replica {
    /// A voter that has all entries.
    pub fn voter(node: u64) -> Self {
        Self { node, ..Self::default() }
    }

    /// A learner that has all entries.
    pub fn learner(node: u64) -> Self {
        Self { node, is_learner: true, ..Self::default() }
    }

    /// It may vote, lead or be counted on.
    pub fn is_caught_up(&self, policy: &Policy) -> bool {
        self.lag_entries <= policy.lag_entries_max
    }

    /// A learner that still lags though it had all the time it should need.
    pub fn is_stuck(&self, policy: &Policy) -> bool {
        self.is_learner
            && !self.is_caught_up(policy)
            && self.learner_ms >= policy.learner_patience_ms
    }

    /// A learner that data is being sent to.
    pub fn is_catching_up(&self, policy: &Policy) -> bool {
        self.is_learner && !self.is_caught_up(policy) && !self.is_stuck(policy)
    }
}

impl Load {
    /// Both together.
    #[must_use]
    pub fn joined_with(self, other: Self) -> Self {
        Self {
            writes_per_second: self.writes_per_second.saturating_add(other.writes_per_second),
            write_bytes_per_second: self
                .write_bytes_per_second
                .saturating_add(other.write_bytes_per_second),
            reads_per_second: self.reads_per_second.saturating_add(other.reads_per_second),
        }
    }
}

impl Range {
    /// Its copy on a node.
    pub fn replica(&self, node: u64) -> Option<&Replica> {
        self.replicas.iter().find(|replica| replica.node == node)
    }

    /// The copies that vote.
    pub fn voters(&self) -> impl Iterator<Item = &Replica> {
        self.replicas.iter().filter(|replica| !replica.is_learner)
    }

    /// The copies that do not.
    pub fn learners(&self) -> impl Iterator<Item = &Replica> {
        self.replicas.iter().filter(|replica| replica.is_learner)
    }

    /// Nodes of its voters.
    pub fn voter_nodes(&self) -> BTreeSet<u64> {
        self.voters().map(|replica| replica.node).collect()
    }

    /// The key parts the span in two that are not empty.
    pub fn can_split_at(&self, key: &[u8]) -> bool {
        self.start.as_slice() < key && (self.end.is_empty() || key < self.end.as_slice())
    }

    /// Its span ends where the other's starts.
    pub fn is_left_of(&self, other: &Self) -> bool {
        !self.end.is_empty() && self.end == other.start
    }
}

impl Spine {
    /// The copies that vote.
    pub fn voters(&self) -> impl Iterator<Item = &Replica> {
        self.replicas.iter().filter(|replica| !replica.is_learner)
    }

    /// Its copy on a node.
    pub fn replica(&self, node: u64) -> Option<&Replica> {
        self.replicas.iter().find(|replica| replica.node == node)
    }
}

impl Survey {
    /// The node is known and was heard of lately enough to count on it.
    pub fn is_living(&self, policy: &Policy, node: u64) -> bool {
        self.nodes.get(&node).is_some_and(|known| known.silent_ms < policy.silent_ms_max)
    }

    /// The node is living and is to stay.
    pub fn is_staying(&self, policy: &Policy, node: u64) -> bool {
        self.is_living(policy, node) && self.nodes.get(&node).is_some_and(|node| !node.is_draining)
    }

    /// The node is to stay and was heard of just now: it may be given something.
    pub fn is_certain(&self, policy: &Policy, node: u64) -> bool {
        self.is_staying(policy, node)
            && self.nodes.get(&node).is_some_and(|node| node.silent_ms < policy.silent_ms_doubt)
    }

    /// The node's disk can take this much more and keep its reserve.
    pub fn has_room(&self, policy: &Policy, node: u64, bytes: u64) -> bool {
        let Some(node) = self.nodes.get(&node) else { return false };
        let limit = u128::from(node.capacity_bytes) * u128::from(policy.node_used_percent_max);
        let used = (u128::from(node.used_bytes) + u128::from(bytes)) * 100;
        node.capacity_bytes == 0 || used <= limit
    }

    /// The node's zone, empty if it has none.
    pub fn zone(&self, node: u64) -> &str {
        self.nodes.get(&node).map_or("", |node| node.zone.as_str())
    }

    /// Of these copies, a quorum of the voters lives.
    pub fn has_quorum(&self, policy: &Policy, replicas: &[Replica]) -> bool {
        let voters = replicas.iter().filter(|replica| !replica.is_learner);
        let (mut voters_count, mut living_count) = (0, 0);
        for voter in voters {
            voters_count += 1;
            living_count += usize::from(self.is_living(policy, voter.node));
        }
        voters_count > 0 && living_count >= quorum(voters_count)
    }

    /// The leader of these copies, if it is a living voter of them.
    pub fn living_leader(
        &self,
        policy: &Policy,
        replicas: &[Replica],
        leader: Option<u64>,
    ) -> Option<u64> {
        let leader = leader?;
        let is_voter = replicas.iter().any(|replica| replica.node == leader && !replica.is_learner);
        (is_voter && self.is_living(policy, leader)).then_some(leader)
    }

    /// Range ids in the order of their spans.
    pub fn ids_by_span(&self) -> Vec<u64> {
        let mut ids: Vec<u64> = self.ranges.keys().copied().collect();
        ids.sort_by_key(|id| (self.ranges.get(id).map(|range| range.start.as_slice()), *id));
        ids
    }

    /// Two neighbours between which keys are owned by nobody or by both; `None` if the spans tile
    /// the keyspace.
    pub fn crack(&self) -> Option<(u64, u64)> {
        let ids = self.ids_by_span();
        let edges = [ids.first(), ids.last()];
        if let [Some(first), Some(last)] = edges {
            let is_whole = self.ranges[first].start.is_empty() && self.ranges[last].end.is_empty();
            if !is_whole {
                return Some((*last, *first));
            }
        }
        ids.windows(2)
            .find(|pair| !self.ranges[&pair[0]].is_left_of(&self.ranges[&pair[1]]))
            .map(|pair| (pair[0], pair[1]))
    }
}

/// Voters that must agree.
pub fn quorum(voters_count: usize) -> usize {
    voters_count / 2 + 1
}
