//! What nodes carry: bytes of replicas, requests of the ranges they lead. The numbers by which the
//! rules of balance compare nodes.

use std::collections::BTreeMap;

use crate::policy::Policy;
use crate::survey::{ROOT, Range, Survey};

/// What each node carries, or will carry once the moves under way are done: a draft counts only
/// the replicas that are kept. Dead nodes are weighed as well, but not part of a mean.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Weights {
    replica_bytes: BTreeMap<u64, u64>,
    leader_requests: BTreeMap<u64, u64>,
    /// Capacities by node and their mean, if all that stay are known.
    capacities: Option<(BTreeMap<u64, u64>, u64)>,
    /// Mean of `fill` over the nodes that stay.
    mean_fill: u64,
    /// Mean of `leader_requests` over the nodes that stay.
    mean_requests: u64,
}

/// What a replica of the range counts for, in bytes.
pub(crate) fn replica_weight(policy: &Policy, range: &Range) -> u64 {
    range.bytes.saturating_add(policy.replica_base_bytes)
}

/// What leading the range counts for, in requests in a second.
pub(crate) fn leader_weight(policy: &Policy, range: &Range) -> u64 {
    let requests = range.load.writes_per_second.saturating_add(range.load.reads_per_second);
    requests.saturating_add(policy.leader_base_requests_per_second)
}

impl Weights {
    /// Leaders as they are; no replica is counted yet.
    pub(crate) fn of(survey: &Survey, policy: &Policy) -> Self {
        let mut weights = Self { capacities: capacities(survey, policy), ..Self::default() };
        // The root range is left out: every node has it, and its leader is the spine's.
        for (_, range) in survey.ranges.iter().filter(|(id, _)| **id != ROOT) {
            if let Some(leader) = survey.living_leader(policy, &range.replicas, range.leader) {
                add(&mut weights.leader_requests, leader, leader_weight(policy, range));
            }
        }
        weights
    }

    /// Takes the means, when everything is counted.
    pub(crate) fn take_means(&mut self, survey: &Survey, policy: &Policy) {
        let staying = || survey.nodes.keys().filter(|node| survey.is_staying(policy, **node));
        self.mean_fill = mean(staying().map(|node| self.fill(*node)));
        self.mean_requests = mean(staying().map(|node| self.leader_requests(*node)));
    }

    /// Bytes of the node's replicas, as they would weigh on a node of mean capacity.
    pub(crate) fn fill(&self, node: u64) -> u64 {
        self.fill_with(node, 0)
    }

    /// As `fill`, once the node has a replica of this weight as well.
    pub(crate) fn fill_with(&self, node: u64, weight: u64) -> u64 {
        let bytes = self.replica_bytes.get(&node).copied().unwrap_or(0).saturating_add(weight);
        let Some((capacities, mean)) = &self.capacities else { return bytes };
        let capacity = capacities.get(&node).copied().unwrap_or(*mean).max(1);
        let scaled = u128::from(bytes) * u128::from(*mean) / u128::from(capacity);
        u64::try_from(scaled).unwrap_or(u64::MAX)
    }

    /// Requests in a second of the ranges that the node leads.
    pub(crate) fn leader_requests(&self, node: u64) -> u64 {
        self.leader_requests.get(&node).copied().unwrap_or(0)
    }

    /// By how much fills may differ, in bytes.
    pub(crate) fn fill_tolerance(&self, policy: &Policy) -> u64 {
        percent(self.mean_fill, policy.balance_replicas_percent)
    }

    /// By how much leaders may differ, in requests in a second.
    pub(crate) fn leader_tolerance(&self, policy: &Policy) -> u64 {
        percent(self.mean_requests, policy.balance_leaders_percent)
    }

    pub(crate) fn add_replica(&mut self, node: u64, weight: u64) {
        add(&mut self.replica_bytes, node, weight);
    }

    pub(crate) fn remove_replica(&mut self, node: u64, weight: u64) {
        remove(&mut self.replica_bytes, node, weight);
    }

    pub(crate) fn move_leader(&mut self, from: Option<u64>, to: u64, weight: u64) {
        if let Some(from) = from {
            remove(&mut self.leader_requests, from, weight);
        }
        add(&mut self.leader_requests, to, weight);
    }
}

/// So many per cent of it.
pub(crate) fn percent(of: u64, percent: u64) -> u64 {
    u64::try_from(u128::from(of) * u128::from(percent) / 100).unwrap_or(u64::MAX)
}

fn capacities(survey: &Survey, policy: &Policy) -> Option<(BTreeMap<u64, u64>, u64)> {
    let by_node: BTreeMap<u64, u64> = survey
        .nodes
        .iter()
        .filter(|(node, _)| survey.is_staying(policy, **node))
        .map(|(node, known)| (*node, known.capacity_bytes))
        .collect();
    let mean = mean(by_node.values().copied());
    (!by_node.values().any(|capacity| *capacity == 0)).then_some((by_node, mean))
}

fn mean(values: impl Iterator<Item = u64>) -> u64 {
    let (sum, count) =
        values.fold((0u128, 0u128), |(sum, count), value| (sum + u128::from(value), count + 1));
    u64::try_from(sum / count.max(1)).unwrap_or(u64::MAX)
}

fn add(weights: &mut BTreeMap<u64, u64>, node: u64, weight: u64) {
    let sum = weights.entry(node).or_default();
    *sum = sum.saturating_add(weight);
}

fn remove(weights: &mut BTreeMap<u64, u64>, node: u64, weight: u64) {
    let sum = weights.entry(node).or_default();
    *sum = sum.saturating_sub(weight);
}
