//! Which replicas count when nodes are compared: those that are kept once the moves under way are
//! done. A move is then not started twice for the same reason, and a move under way is judged as it
//! was when it began.

use std::collections::BTreeSet;

use crate::keep::{Lag, keepers};
use crate::solve::Draft;
use crate::survey::{Range, Replica};
use crate::weigh::replica_weight;

/// How often all ranges with a surplus together are looked at again; a hundred moves at once need
/// no more than a few passes.
const LOOKS_MAX: usize = 20_000;

impl Draft<'_> {
    /// Counts every replica, then leaves out those that are not kept. Which those are depends on
    /// what is counted elsewhere, so it is looked at again until nothing changes, or often enough.
    pub(crate) fn count_all(&mut self) {
        let ids: Vec<u64> = self.survey.ranges.keys().copied().collect();
        for id in &ids {
            self.count_present(*id);
        }
        for id in &ids {
            self.leave_out_surplus(*id);
        }
        let ids: Vec<u64> = self.kept.keys().copied().collect();
        for _ in 0..LOOKS_MAX / ids.len().max(1) {
            let before = self.kept.clone();
            for id in &ids {
                self.leave_out_surplus(*id);
            }
            if self.kept == before {
                break;
            }
        }
        self.weights.take_means(&self.survey, self.policy);
    }

    /// Takes the range into the weights.
    pub(crate) fn count(&mut self, id: u64) {
        self.count_present(id);
        self.leave_out_surplus(id);
    }

    /// Takes the range out of the weights.
    pub(crate) fn uncount(&mut self, id: u64) {
        let Some(range) = self.survey.ranges.get(&id) else { return };
        let weight = replica_weight(self.policy, range);
        for replica in &range.replicas {
            if self.is_counted(id, range, replica.node) {
                self.weights.remove_replica(replica.node, weight);
            }
        }
        self.kept.remove(&id);
    }

    /// Bytes that the node carries, as on a node of mean capacity, with a replica of the range,
    /// whether or not it has one that is counted.
    pub(crate) fn fill_if_kept(&self, id: u64, range: &Range, node: u64) -> u64 {
        if self.is_counted(id, range, node) {
            self.weights.fill(node)
        } else {
            self.weights.fill_with(node, replica_weight(self.policy, range))
        }
    }

    /// By how much the node's fill may still change, in bytes as on a node of mean capacity:
    /// replicas of ranges of which a sound one will go, and which one depends on fills.
    pub(crate) fn fill_undecided(&self, node: u64) -> u64 {
        let is_undecided = |range: &&Range| {
            let sound = range.replicas.iter().filter(|replica| self.is_sound(replica));
            range.replica(node).is_some() && sound.count() > self.policy.replicas_count
        };
        let ranges = self.kept.keys().filter_map(|id| self.survey.ranges.get(id));
        let weights = ranges.filter(is_undecided).map(|range| replica_weight(self.policy, range));
        let undecided = weights.fold(0, u64::saturating_add);
        self.weights.fill_with(node, undecided).saturating_sub(self.weights.fill(node))
    }

    /// The replica is on a node that stays, and is not a learner that does not catch up.
    pub(crate) fn is_sound(&self, replica: &Replica) -> bool {
        self.survey.is_staying(self.policy, replica.node) && !replica.is_stuck(self.policy)
    }

    fn count_present(&mut self, id: u64) {
        let Some(range) = self.survey.ranges.get(&id) else { return };
        let weight = replica_weight(self.policy, range);
        for replica in &range.replicas {
            self.weights.add_replica(replica.node, weight);
        }
    }

    fn leave_out_surplus(&mut self, id: u64) {
        let Some(range) = self.survey.ranges.get(&id) else { return };
        let wanted_count = self.policy.replicas_count.max(1);
        // Without a quorum nothing will go for a long time.
        let is_surplus = range.replicas.len() > wanted_count;
        if !is_surplus || !self.survey.has_quorum(self.policy, &range.replicas) {
            return;
        }
        let nodes: Vec<u64> = range.replicas.iter().map(|replica| replica.node).collect();
        let kept = keepers(self, id, range, nodes, wanted_count, Lag::Counts);
        let kept: BTreeSet<u64> = kept.into_iter().collect();
        let weight = replica_weight(self.policy, range);
        for replica in &range.replicas {
            let was_counted = self.is_counted(id, range, replica.node);
            match (was_counted, kept.contains(&replica.node)) {
                (true, false) => self.weights.remove_replica(replica.node, weight),
                (false, true) => self.weights.add_replica(replica.node, weight),
                (true, true) | (false, false) => {}
            }
        }
        self.kept.insert(id, kept);
    }

    fn is_counted(&self, id: u64, range: &Range, node: u64) -> bool {
        let is_kept = self.kept.get(&id).is_none_or(|kept| kept.contains(&node));
        is_kept && range.replica(node).is_some()
    }
}
