//! What a cluster would make of a plan: carries out steps on a survey as if all went well, and lets
//! time pass. For playing with a policy before a cluster is run by it, and for tests.

use std::collections::BTreeSet;

use crate::check::{Refusal, check};
use crate::plan::{Plan, Step};
use crate::policy::Policy;
use crate::solve::plan;
use crate::survey::{Load, ROOT, Range, Replica, Survey};

/// Entries that a new learner is behind.
const NEW_LAG_ENTRIES: u64 = 10_000;

/// A cluster that does what it is told.
#[derive(Clone, Debug)]
pub struct Rehearsal {
    /// The cluster.
    pub survey: Survey,
    /// What is planned by.
    pub policy: Policy,
    /// Entries that a replica catches up in a round.
    pub catch_up_entries: u64,
    /// Milliseconds that a round takes.
    pub round_ms: u64,
    /// Nodes whose learners never catch up.
    pub frozen: BTreeSet<u64>,
    /// Keys that have all the load of their range.
    pub hot_keys: BTreeSet<Vec<u8>>,
}

/// How many rounds `Rehearsal::run` took, and whether it came to an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Rounds with something to do or to wait for.
    pub rounds_count: usize,
    /// Nothing was left to do.
    pub is_settled: bool,
}

impl Rehearsal {
    /// A cluster in which learners catch up within a round of ten seconds.
    pub fn new(survey: Survey, policy: Policy) -> Self {
        Self {
            survey,
            policy,
            catch_up_entries: NEW_LAG_ENTRIES,
            round_ms: 10_000,
            frozen: BTreeSet::new(),
            hot_keys: BTreeSet::new(),
        }
    }

    /// Plans and carries out, round by round, until nothing is left to do or `rounds_max` is
    /// reached. `on_round` sees every plan that has decisions, before it is carried out.
    ///
    /// # Errors
    /// A planned step was refused when its turn came.
    pub fn run(
        &mut self,
        rounds_max: usize,
        mut on_round: impl FnMut(usize, &Survey, &Plan),
    ) -> Result<Outcome, (Step, Refusal)> {
        for rounds_count in 0..rounds_max {
            let plan = plan(&self.survey, &self.policy);
            if !plan.decisions.is_empty() {
                on_round(rounds_count + 1, &self.survey, &plan);
            }
            for decision in &plan.decisions {
                self.carry_out(&decision.step).map_err(|error| (decision.step.clone(), error))?;
            }
            let is_idle = plan.decisions.is_empty();
            if !self.settle() && is_idle {
                return Ok(Outcome { rounds_count, is_settled: true });
            }
            self.pass(self.round_ms);
        }
        Ok(Outcome { rounds_count: rounds_max, is_settled: false })
    }

    /// Takes one step.
    ///
    /// # Errors
    /// `check` refuses it.
    pub fn carry_out(&mut self, step: &Step) -> Result<(), Refusal> {
        check(&self.survey, &self.policy, step)?;
        self.survey.foresee(step);
        match step {
            Step::Split { range, key } => self.part(*range, key),
            Step::Merge { left, .. } => {
                if let Some(range) = self.survey.ranges.get_mut(left) {
                    find_split_keys(range, &self.hot_keys);
                }
            }
            Step::AddLearner { range, node } => {
                let replicas = self.survey.ranges.get_mut(range).map(|range| &mut range.replicas);
                let added = replicas.into_iter().flatten().find(|replica| replica.node == *node);
                if let Some(added) = added {
                    added.lag_entries = NEW_LAG_ENTRIES;
                }
            }
            Step::Promote { .. }
            | Step::RemoveReplica { .. }
            | Step::TransferLeader { .. }
            | Step::AddSpineVoter { .. }
            | Step::DemoteSpineVoter { .. }
            | Step::MoveSpineLeader { .. } => {}
        }
        Ok(())
    }

    /// What a cluster does by itself in a round: replicas catch up, changes end, groups whose
    /// leader is gone elect another. Says whether anything came of it.
    pub fn settle(&mut self) -> bool {
        let before = self.survey.clone();
        let mut survey = std::mem::take(&mut self.survey);
        let ids: Vec<u64> = survey.ranges.keys().copied().filter(|id| *id != ROOT).collect();
        for id in ids {
            let Some(mut range) = survey.ranges.remove(&id) else { continue };
            self.settle_group(&survey, &mut range.replicas, &mut range.leader);
            range.is_changing = false;
            survey.ranges.insert(id, range);
        }
        let mut spine = std::mem::take(&mut survey.spine);
        self.settle_group(&survey, &mut spine.replicas, &mut spine.leader);
        spine.is_changing = false;
        survey.spine = spine;
        if let Some(root) = survey.ranges.get_mut(&ROOT) {
            root.is_changing = false;
        }
        self.survey = survey;
        self.survey != before
    }

    /// A group with a quorum has a leader, and what lives catches up with it.
    fn settle_group(&self, survey: &Survey, replicas: &mut [Replica], leader: &mut Option<u64>) {
        if !survey.has_quorum(&self.policy, replicas) {
            return;
        }
        if survey.living_leader(&self.policy, replicas, *leader).is_none() {
            let living = replicas.iter().filter(|replica| {
                !replica.is_learner && survey.is_living(&self.policy, replica.node)
            });
            let best = living.min_by_key(|replica| (replica.lag_entries, replica.node));
            *leader = best.map(|replica| replica.node);
        }
        for replica in replicas {
            let is_frozen = replica.is_learner && self.frozen.contains(&replica.node);
            if *leader == Some(replica.node) {
                replica.lag_entries = 0;
            } else if survey.is_living(&self.policy, replica.node) && !is_frozen {
                replica.lag_entries = replica.lag_entries.saturating_sub(self.catch_up_entries);
            }
        }
    }

    /// Time goes by. Ranges that are asked little stay quiet; silent nodes are as silent as before.
    pub fn pass(&mut self, passed_ms: u64) {
        for range in self.survey.ranges.values_mut() {
            range.age_ms = range.age_ms.saturating_add(passed_ms);
            if range.load.writes_per_second <= self.policy.merge_writes_per_second {
                range.quiet_ms = range.quiet_ms.saturating_add(passed_ms);
            }
            for learner in range.replicas.iter_mut().filter(|replica| replica.is_learner) {
                learner.learner_ms = learner.learner_ms.saturating_add(passed_ms);
            }
        }
    }

    /// Gives both sides of a split their load and the keys at which they can be split again.
    fn part(&mut self, left: u64, key: &[u8]) {
        let is_right = |range: &Range| range.start.as_slice() == key;
        let right = self.survey.ranges.iter().find(|(_, range)| is_right(range));
        let Some(right) = right.map(|(id, _)| *id) else { return };
        let Some(mut child) = self.survey.ranges.remove(&right) else { return };
        if let Some(parent) = self.survey.ranges.get_mut(&left) {
            share_load(parent, &mut child, &self.hot_keys);
            find_split_keys(parent, &self.hot_keys);
        }
        find_split_keys(&mut child, &self.hot_keys);
        self.survey.ranges.insert(right, child);
    }
}

/// All of the load is on one side if it is all due to one key.
fn share_load(left: &mut Range, right: &mut Range, hot_keys: &BTreeSet<Vec<u8>>) {
    let whole = left.load.joined_with(right.load);
    match (hot_key(left, hot_keys), hot_key(right, hot_keys)) {
        (Some(_), None) => (left.load, right.load) = (whole, Load::default()),
        (None, Some(_)) => (left.load, right.load) = (Load::default(), whole),
        (None, None) | (Some(_), Some(_)) => {}
    }
}

fn hot_key<'k>(range: &Range, hot_keys: &'k BTreeSet<Vec<u8>>) -> Option<&'k Vec<u8>> {
    hot_keys.iter().find(|key| key.as_slice() == range.start.as_slice() || range.can_split_at(key))
}

fn find_split_keys(range: &mut Range, hot_keys: &BTreeSet<Vec<u8>>) {
    range.size_split_key = middle(&range.start, &range.end);
    range.load_split_key = match hot_key(range, hot_keys) {
        Some(key) => range.can_split_at(key).then(|| key.clone()),
        None => range.size_split_key.clone(),
    };
}

/// A short key about halfway between the two, read as fractions in base 256; an empty end is one.
pub fn middle(start: &[u8], end: &[u8]) -> Option<Vec<u8>> {
    let digits_count = start.len().max(end.len()) + 1;
    let digit = |key: &[u8], place: usize| u32::from(key.get(place).copied().unwrap_or(0));
    let mut carry = u32::from(end.is_empty());
    // The sum by digits from the left, halved on the way: what is left over goes to the next.
    let mut sums: Vec<u32> =
        (0..digits_count).map(|place| digit(start, place) + digit(end, place)).collect();
    for place in (1..digits_count).rev() {
        let over = sums[place] / 256;
        sums[place] %= 256;
        sums[place - 1] += over;
    }
    let mut middle = Vec::with_capacity(digits_count);
    for sum in sums {
        let whole = carry * 256 + sum;
        middle.push(u8::try_from(whole / 2).ok()?);
        carry = whole % 2;
    }
    let is_between = |key: &[u8]| start < key && (end.is_empty() || key < end);
    while middle.len() > 1 && is_between(&middle[..middle.len() - 1]) {
        middle.pop();
    }
    is_between(&middle).then_some(middle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_lies_between() {
        assert_eq!(middle(b"", b""), Some(vec![0x80]));
        assert_eq!(middle(b"b", b"d"), Some(b"c".to_vec()));
        assert_eq!(middle(b"b", b"c"), Some(b"b\x80".to_vec()));
        assert_eq!(middle(b"\xff\xff", b""), Some(b"\xff\xff\x80".to_vec()));
        assert_eq!(middle(b"b", b"b\x00"), None, "there is nothing between");
    }
}
