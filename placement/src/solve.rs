//! From a survey to a plan: asks the rules one after the other and checks what they propose. Every
//! accepted step is carried out in the draft's own survey, so that the next proposal is judged by
//! what will be, and a plan is as good as its steps one by one.

use std::collections::{BTreeMap, BTreeSet};

use crate::check::{Refusal, Traffic, check, check_range};
use crate::plan::{About, Complaint, Decision, Plan, Rule, Step};
use crate::policy::Policy;
use crate::rules;
use crate::survey::{ROOT, Range, Survey};
use crate::units::{Ids, Millis};
use crate::weigh::{Weights, leader_weight};

/// Ranges that one complaint names.
const RANGES_NAMED_MAX: usize = 8;

/// What to do next. An empty list of decisions means that the cluster is as it should be, that
/// nothing can be done, or that what was begun is waited for.
pub fn plan(survey: &Survey, policy: &Policy) -> Plan {
    let mut draft = Draft::new(survey, policy);
    for (rule, apply) in rules::IN_ORDER {
        if rules::is_off(policy, rule) {
            continue;
        }
        draft.rule = rule;
        apply(&mut draft);
    }
    draft.into_plan()
}

/// A plan in the making.
pub(crate) struct Draft<'p> {
    pub(crate) policy: &'p Policy,
    /// As it will be when the steps so far are done.
    pub(crate) survey: Survey,
    pub(crate) weights: Weights,
    /// Of ranges with more replicas than wanted, the nodes of those that are kept in the end. Only
    /// these are counted in the weights, so that a move is not started twice for the same reason.
    pub(crate) kept: BTreeMap<u64, BTreeSet<u64>>,
    pub(crate) traffic: Traffic,
    /// Ranges that are to be merged: the right one to the left one.
    pub(crate) partners: BTreeMap<u64, u64>,
    /// Ranges on either side of `partners`.
    paired: BTreeSet<u64>,
    rule: Rule,
    /// Ranges that may be changed and are in no step yet.
    open: BTreeSet<u64>,
    is_spine_open: bool,
    transfers_count: usize,
    /// As many splits and merges are under way as may.
    is_out_of_splits: bool,
    decisions: Vec<Decision>,
    complaints: Vec<Complaint>,
    complaints_left_out_count: usize,
    /// Ranges whose next replica no node can take: because one is missing (`About::Cluster`) or
    /// because one should leave a node.
    stranded: BTreeMap<About, BTreeSet<u64>>,
}

impl<'p> Draft<'p> {
    fn new(survey: &Survey, policy: &'p Policy) -> Self {
        let partners = rules::merge_small::partners(survey, policy);
        let mut draft = Self {
            policy,
            survey: survey.clone(),
            weights: Weights::of(survey, policy),
            kept: BTreeMap::new(),
            traffic: Traffic::of(survey, policy),
            paired: partners.iter().flat_map(|(right, left)| [*right, *left]).collect(),
            partners,
            rule: Rule::SpineVoters,
            open: BTreeSet::new(),
            is_spine_open: true,
            transfers_count: 0,
            is_out_of_splits: false,
            decisions: Vec::new(),
            complaints: Vec::new(),
            complaints_left_out_count: 0,
            stranded: BTreeMap::new(),
        };
        draft.count_all();
        draft.look_at_cluster(survey);
        draft.look_at_nodes(survey);
        draft.look_at_ranges(survey);
        draft
    }

    fn look_at_cluster(&mut self, survey: &Survey) {
        if let Some((left, right)) = survey.crack() {
            let reason = Refusal::Cracked { left, right };
            self.complain(About::Cluster, format!("{reason}, nothing is split or merged"));
        }
        let staying = survey.nodes.keys().filter(|node| survey.is_staying(self.policy, **node));
        let staying_count = staying.count();
        let is_split = survey.ranges.keys().any(|id| *id != ROOT);
        let is_wanting = staying_count < self.policy.replicas_count;
        if is_split && is_wanting && self.policy.is_moving_replicas {
            let wanted_count = self.policy.replicas_count;
            let reason = format!(
                "nodes that live and are not draining: {staying_count}; replicas wanted of every \
                 range: {wanted_count}"
            );
            self.complain(About::Cluster, reason);
        }
    }

    fn look_at_nodes(&mut self, survey: &Survey) {
        for (id, node) in &survey.nodes {
            if !survey.is_living(self.policy, *id) {
                let silent = Millis(node.silent_ms);
                let limit = Millis(self.policy.silent_ms_max);
                let reason = format!("taken for dead, silent for {silent} (limit {limit})");
                self.complain(About::Node(*id), reason);
            }
        }
    }

    fn look_at_ranges(&mut self, survey: &Survey) {
        for id in survey.ranges.keys() {
            match check_range(survey, self.policy, *id) {
                Ok(_) => _ = self.open.insert(*id),
                Err(Refusal::IsChanging) => {}
                Err(refusal) => {
                    let about = if *id == ROOT { About::Spine } else { About::Range(*id) };
                    self.complain(about, format!("{refusal}, nothing can be changed"));
                }
            }
        }
    }

    /// Ranges that may be changed and are in no step yet, in the order of their ids.
    pub(crate) fn open_ranges(&self) -> Vec<u64> {
        if self.is_full() { Vec::new() } else { self.open.iter().copied().collect() }
    }

    /// Those of them that have replicas to move.
    pub(crate) fn movable_ranges(&self) -> Vec<u64> {
        let mut ids = self.open_ranges();
        ids.retain(|id| *id != ROOT);
        ids
    }

    pub(crate) fn is_open(&self, id: u64) -> bool {
        self.open.contains(&id) && !self.is_full()
    }

    pub(crate) fn is_spine_open(&self) -> bool {
        self.is_spine_open && !self.is_full()
    }

    /// No other replica may be sent, whatever the range.
    pub(crate) fn is_out_of_moves(&self) -> bool {
        self.is_full() || self.traffic.moves_count >= self.policy.moves_max
    }

    /// No other leader may be moved by this plan.
    pub(crate) fn is_out_of_transfers(&self) -> bool {
        self.is_full() || self.transfers_count >= self.policy.transfers_max
    }

    fn is_full(&self) -> bool {
        self.decisions.len() >= self.policy.steps_max
    }

    /// Nodes of the range that the given one is to be merged into.
    pub(crate) fn partner_nodes(&self, id: u64) -> Option<BTreeSet<u64>> {
        let left = self.partners.get(&id)?;
        self.survey.ranges.get(left).map(Range::voter_nodes)
    }

    /// The range is one of two that are to be merged.
    pub(crate) fn is_in_pair(&self, id: u64) -> bool {
        self.paired.contains(&id)
    }

    /// Every voter of the range is on a node that stays, there are as many as wanted, and nothing
    /// is under way.
    pub(crate) fn is_settled(&self, range: &Range) -> bool {
        range.replicas.len() == self.policy.replicas_count
            && range.replicas.iter().all(|replica| {
                !replica.is_learner && self.survey.is_staying(self.policy, replica.node)
            })
    }

    /// Nodes that may be given a replica of the range, whether or not they are busy right now.
    pub(crate) fn receivers(&self, range: &Range) -> Vec<u64> {
        self.survey.nodes.keys().copied().filter(|node| self.may_receive(range, *node)).collect()
    }

    pub(crate) fn may_receive(&self, range: &Range, node: u64) -> bool {
        range.replica(node).is_none()
            && self.survey.is_certain(self.policy, node)
            && !self.traffic.clogged.contains(&node)
            && self.survey.has_room(self.policy, node, range.bytes)
    }

    /// The node may be sent a replica of the range right now.
    pub(crate) fn is_free_for(&self, range: &Range, node: u64) -> bool {
        range
            .leader
            .into_iter()
            .chain([node])
            .all(|node| self.traffic.is_node_free(self.policy, node))
    }

    /// Takes a step into the plan if it is safe and no limit is reached; says whether it was.
    pub(crate) fn propose(&mut self, step: Step, reason: String) -> bool {
        let is_open = match step {
            Step::AddSpineVoter { .. }
            | Step::DemoteSpineVoter { .. }
            | Step::MoveSpineLeader { .. } => self.is_spine_open(),
            Step::AddLearner { .. }
            | Step::Promote { .. }
            | Step::RemoveReplica { .. }
            | Step::TransferLeader { .. }
            | Step::Split { .. }
            | Step::Merge { .. } => step.ranges().all(|id| self.is_open(id)),
        };
        if !is_open || self.is_out_of(&step) {
            return false;
        }
        if let Err(refusal) = check(&self.survey, self.policy, &step) {
            self.is_out_of_splits |= matches!(refusal, Refusal::TooManySplits { .. });
            return false;
        }
        self.begin(&step);
        step.ranges().for_each(|id| self.uncount(id));
        self.survey.foresee(&step);
        self.mark_changing(&step);
        let born = matches!(step, Step::Split { .. }).then(|| self.survey.ranges.keys().max());
        let born = born.flatten().copied();
        step.ranges().chain(born).for_each(|id| self.count(id));
        self.decisions.push(Decision { step, rule: self.rule, reason });
        true
    }

    /// A limit of the plan is reached, or one of the cluster that is known to be.
    fn is_out_of(&self, step: &Step) -> bool {
        match step {
            Step::TransferLeader { .. } => self.is_out_of_transfers(),
            Step::Split { .. } | Step::Merge { .. } => self.is_out_of_splits,
            Step::AddLearner { .. }
            | Step::Promote { .. }
            | Step::RemoveReplica { .. }
            | Step::AddSpineVoter { .. }
            | Step::DemoteSpineVoter { .. }
            | Step::MoveSpineLeader { .. } => false,
        }
    }

    /// Keeps track of what a step uses up.
    fn begin(&mut self, step: &Step) {
        for id in step.ranges() {
            self.open.remove(&id);
        }
        let range_of = |id: u64| self.survey.ranges.get(&id);
        match *step {
            Step::AddLearner { range, node } => {
                self.traffic.begin(range_of(range).and_then(|range| range.leader), node);
            }
            Step::TransferLeader { range, to } => {
                self.transfers_count += 1;
                let Some(range) = range_of(range) else { return };
                self.weights.move_leader(range.leader, to, leader_weight(self.policy, range));
            }
            Step::Promote { .. }
            | Step::RemoveReplica { .. }
            | Step::Split { .. }
            | Step::Merge { .. } => {}
            Step::AddSpineVoter { .. }
            | Step::DemoteSpineVoter { .. }
            | Step::MoveSpineLeader { .. } => self.is_spine_open = false,
        }
    }

    /// A split or merge takes its time and counts as under way until the next survey. It may also
    /// double the replicas that catch up.
    fn mark_changing(&mut self, step: &Step) {
        let (Step::Split { range: id, .. } | Step::Merge { left: id, .. }) = step else { return };
        if let Some(range) = self.survey.ranges.get_mut(id) {
            range.is_changing = true;
        }
        self.traffic = Traffic::of(&self.survey, self.policy);
    }

    pub(crate) fn complain(&mut self, about: About, reason: String) {
        if self.complaints.len() < self.policy.complaints_max {
            self.complaints.push(Complaint { about, reason });
        } else {
            self.complaints_left_out_count += 1;
        }
    }

    /// No node can take the next replica of the range. Said once for all ranges.
    pub(crate) fn complain_of_stranded(&mut self, about: About, range: u64) {
        self.stranded.entry(about).or_default().insert(range);
    }

    fn into_plan(mut self) -> Plan {
        for (about, ranges) in std::mem::take(&mut self.stranded) {
            let count = ranges.len();
            let named: Vec<u64> = ranges.into_iter().take(RANGES_NAMED_MAX).collect();
            let more = if count > named.len() { " and more" } else { "" };
            let named = Ids(&named);
            let reason = format!(
                "no node can take the next replica of ranges {named}{more} ({count} in all)"
            );
            self.complain(about, reason);
        }
        if self.complaints_left_out_count > 0 {
            let reason = format!("{} more complaints", self.complaints_left_out_count);
            self.complaints.push(Complaint { about: About::Cluster, reason });
        }
        // Whoever plans no longer leads once the spine's leader has moved: that comes last.
        self.decisions
            .sort_by_key(|decision| matches!(decision.step, Step::MoveSpineLeader { .. }));
        Plan { decisions: self.decisions, complaints: self.complaints }
    }
}
