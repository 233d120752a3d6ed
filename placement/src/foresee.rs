//! What a survey shows once a step has been taken. A draft goes on from there, a rehearsal lives in
//! it.

use crate::plan::Step;
use crate::survey::{Load, ROOT, Replica, Survey};

/// How far behind a learner is said to be when nothing has been heard of it yet, in entries.
const LAG_ENTRIES_UNKNOWN: u64 = u64::MAX;

impl Survey {
    /// Takes a step, as if it went well and at once.
    pub(crate) fn foresee(&mut self, step: &Step) {
        match step {
            Step::AddLearner { range, node } => self.add_learner(*range, *node),
            Step::Promote { range, node } => {
                let replicas = self.ranges.get_mut(range).map(|range| &mut range.replicas);
                set_vote(replicas.into_iter().flatten(), *node, true);
            }
            Step::RemoveReplica { range, node } => self.remove_replica(*range, *node),
            Step::TransferLeader { range, to } => {
                if let Some(range) = self.ranges.get_mut(range) {
                    range.leader = Some(*to);
                }
            }
            Step::Split { range, key } => self.split(*range, key),
            Step::Merge { left, right } => self.merge(*left, *right),
            Step::AddSpineVoter { node } => set_vote(&mut self.spine.replicas, *node, true),
            Step::DemoteSpineVoter { node } => set_vote(&mut self.spine.replicas, *node, false),
            Step::MoveSpineLeader { to } => self.spine.leader = Some(*to),
        }
    }

    fn add_learner(&mut self, range: u64, node: u64) {
        let Some(range) = self.ranges.get_mut(&range) else { return };
        let lag_entries = LAG_ENTRIES_UNKNOWN;
        range.replicas.push(Replica { node, is_learner: true, lag_entries, learner_ms: 0 });
        range.generation = range.generation.saturating_add(1);
        if let Some(node) = self.nodes.get_mut(&node) {
            node.used_bytes = node.used_bytes.saturating_add(range.bytes);
        }
    }

    fn remove_replica(&mut self, range: u64, node: u64) {
        let Some(range) = self.ranges.get_mut(&range) else { return };
        range.replicas.retain(|replica| replica.node != node);
        range.generation = range.generation.saturating_add(1);
        if let Some(node) = self.nodes.get_mut(&node) {
            node.used_bytes = node.used_bytes.saturating_sub(range.bytes);
        }
    }

    /// The right half becomes a range with the next free id, on the same nodes. What is held and
    /// asked is parted in halves, for want of better knowledge.
    fn split(&mut self, id: u64, key: &[u8]) {
        let last_id = self.ranges.keys().max().copied().unwrap_or(ROOT);
        let Some(parent) = self.ranges.get_mut(&id) else { return };
        let load = parent.load;
        let half = Load {
            writes_per_second: load.writes_per_second / 2,
            write_bytes_per_second: load.write_bytes_per_second / 2,
            reads_per_second: load.reads_per_second / 2,
        };
        parent.generation = parent.generation.saturating_add(1);
        parent.quiet_ms = 0;
        parent.age_ms = 0;
        parent.load = half;
        parent.load_split_key = None;
        parent.size_split_key = None;
        let mut child = parent.clone();
        parent.end = key.to_vec();
        child.start = key.to_vec();
        child.bytes /= 2;
        child.keys /= 2;
        parent.bytes -= child.bytes;
        parent.keys -= child.keys;
        if id == ROOT {
            child.replicas.clone_from(&self.spine.replicas);
            child.leader = self.spine.leader;
        }
        self.ranges.insert(last_id.saturating_add(1), child);
    }

    fn merge(&mut self, left: u64, right: u64) {
        let Some(retired) = self.ranges.remove(&right) else { return };
        let Some(extended) = self.ranges.get_mut(&left) else { return };
        extended.end = retired.end;
        extended.generation = extended.generation.max(retired.generation).saturating_add(1);
        extended.bytes = extended.bytes.saturating_add(retired.bytes);
        extended.keys = extended.keys.saturating_add(retired.keys);
        extended.load = extended.load.joined_with(retired.load);
        extended.quiet_ms = extended.quiet_ms.min(retired.quiet_ms);
        extended.age_ms = 0;
        extended.load_split_key = None;
        extended.size_split_key = None;
    }
}

fn set_vote<'r>(replicas: impl IntoIterator<Item = &'r mut Replica>, node: u64, is_voter: bool) {
    for replica in replicas.into_iter().filter(|replica| replica.node == node) {
        replica.is_learner = !is_voter;
        replica.learner_ms = 0;
    }
}
