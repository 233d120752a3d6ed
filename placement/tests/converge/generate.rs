//! Clusters by chance: of every size, in every state, half-way through moves, and worse.

use std::collections::BTreeSet;

use flotilla_placement::rehearse::{Rehearsal, middle};
use flotilla_placement::{Load, Node, Policy, ROOT, Range, Replica, Spine, Step, Survey};

const MIB: u64 = 1 << 20;
const TIB: u64 = 1 << 40;

/// Numbers that look like chance and are the same for the same seed (splitmix64).
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5bf0_3635)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn pick<T: Clone>(&mut self, values: &[T]) -> T {
        let place = usize::try_from(self.below(values.len() as u64)).expect("small");
        values[place].clone()
    }

    /// Some of them, each at most once.
    fn some_of(&mut self, values: &[u64], count: u64) -> Vec<u64> {
        let mut left = values.to_vec();
        let mut chosen = Vec::new();
        while (chosen.len() as u64) < count && !left.is_empty() {
            let place = usize::try_from(self.below(left.len() as u64)).expect("small");
            chosen.push(left.swap_remove(place));
        }
        chosen
    }
}

pub(crate) fn rehearsal(chance: &mut Chance) -> Rehearsal {
    let policy = policy(chance);
    let nodes_count = 1 + chance.below(12);
    let mut survey = Survey::default();
    let zones_count = chance.below(5);
    // Unknown, equal, or different.
    let capacity_kind = chance.below(3);
    for place in 0..nodes_count {
        let node = node(chance, zones_count, capacity_kind);
        survey.nodes.insert(place * 3 + 1, node);
    }
    survey.spine = spine(chance, &survey, &policy);
    add_ranges(chance, &mut survey);
    let mut rehearsal = Rehearsal::new(survey, policy);
    rehearsal.catch_up_entries = chance.pick(&[10_000, 4_000]);
    rehearsal
}

fn policy(chance: &mut Chance) -> Policy {
    Policy {
        replicas_count: chance.pick(&[1, 2, 3, 3, 3, 3, 5]),
        spine_voters_max: chance.pick(&[3, 4, 5, 5]),
        moves_max: chance.pick(&[1, 3, 8, 50]),
        moves_per_node_max: chance.pick(&[1, 2, 4]),
        learners_per_range_max: chance.pick(&[1, 2]),
        transfers_max: chance.pick(&[1, 4, 16]),
        splits_max: chance.pick(&[1, 4]),
        steps_max: chance.pick(&[5, 64]),
        balance_replicas_percent: chance.pick(&[0, 10, 20]),
        balance_leaders_percent: chance.pick(&[0, 10]),
        split_hot_age_ms: 0,
        ..Policy::default()
    }
}

fn node(chance: &mut Chance, zones_count: u64, capacity_kind: u64) -> Node {
    let zone = chance.below(zones_count.max(1) + 1);
    let is_named = zones_count > 0 && zone < zones_count;
    let capacity_bytes = match capacity_kind {
        0 => 0,
        1 => TIB,
        _ => TIB + chance.below(4) * TIB,
    };
    Node {
        zone: if is_named { format!("z{zone}") } else { String::new() },
        silent_ms: chance.pick(&[0, 0, 0, 0, 0, 0, 0, 2_000, 15_000, 90_000]),
        is_draining: chance.percent(12),
        capacity_bytes,
        used_bytes: capacity_bytes / 10,
        write_bytes_per_second: chance.below(3) * MIB,
        requests_per_second: chance.below(1_000),
    }
}

fn spine(chance: &mut Chance, survey: &Survey, policy: &Policy) -> Spine {
    let nodes: Vec<u64> = survey.nodes.keys().copied().collect();
    let living: Vec<u64> =
        nodes.iter().copied().filter(|node| survey.is_living(policy, *node)).collect();
    let voters_count = 1 + chance.below(7);
    let voters = chance.some_of(&nodes, voters_count);
    let replicas = nodes
        .iter()
        .map(|node| {
            let lag_entries = chance.pick(&[0, 0, 5, 20_000]);
            let is_learner = !voters.contains(node);
            Replica { node: *node, is_learner, lag_entries, learner_ms: 0 }
        })
        .collect();
    let leader = voters.iter().copied().find(|node| living.contains(node));
    Spine { replicas, leader, is_changing: chance.percent(5) }
}

fn add_ranges(chance: &mut Chance, survey: &mut Survey) {
    let ranges_count = chance.below(61);
    let mut borders = BTreeSet::new();
    while (borders.len() as u64) < ranges_count {
        let number = u16::try_from(1 + chance.below(60_000)).expect("small");
        borders.insert(number.to_be_bytes().to_vec());
    }
    let mut edges: Vec<Vec<u8>> = vec![Vec::new()];
    edges.extend(borders);
    edges.push(Vec::new());
    let root_place = usize::try_from(chance.below(edges.len() as u64 - 1)).expect("small");
    for (place, pair) in edges.windows(2).enumerate() {
        let id = if place == root_place { ROOT } else { place as u64 + 100 };
        let range = range(chance, survey, id, &pair[0], &pair[1]);
        survey.ranges.insert(id, range);
    }
}

fn range(chance: &mut Chance, survey: &Survey, id: u64, start: &[u8], end: &[u8]) -> Range {
    let mut range = Range {
        start: start.to_vec(),
        end: end.to_vec(),
        generation: 1,
        bytes: chance.pick(&[0, MIB, 5 * MIB, 60 * MIB, 200 * MIB, 700 * MIB]),
        keys: chance.pick(&[0, 100, 50_000, 400_000, 1_200_000]),
        load: load(chance),
        is_changing: chance.percent(5),
        quiet_ms: chance.pick(&[0, 10_000_000]),
        age_ms: chance.pick(&[0, 10_000_000]),
        ..Range::default()
    };
    if chance.percent(90) {
        range.size_split_key = middle(start, end);
        range.load_split_key = middle(start, end);
    }
    if id != ROOT {
        add_replicas(chance, survey, &mut range);
    }
    range
}

fn load(chance: &mut Chance) -> Load {
    if chance.percent(60) {
        return Load::default();
    }
    Load {
        writes_per_second: chance.pick(&[10, 400, 3_000, 50_000]),
        write_bytes_per_second: chance.pick(&[0, MIB / 2, 100 * MIB]),
        reads_per_second: chance.pick(&[0, 1_000, 150_000]),
    }
}

/// Voters mostly where they live, and sometimes anything.
fn add_replicas(chance: &mut Chance, survey: &Survey, range: &mut Range) {
    let mut nodes: Vec<u64> = survey.nodes.keys().copied().collect();
    if chance.percent(5) {
        nodes.push(999);
    }
    let voters_count = chance.pick(&[1, 2, 3, 3, 3, 3, 4, 5]);
    let learners_count = chance.pick(&[0, 0, 0, 1, 2]);
    let chosen = chance.some_of(&nodes, voters_count + learners_count);
    for (place, node) in chosen.iter().enumerate() {
        let is_learner = place as u64 >= voters_count;
        let lag_entries = chance.pick(&[0, 0, 0, 500, 15_000]);
        let learner_ms = if is_learner { chance.pick(&[0, 60_000]) } else { 0 };
        range.replicas.push(Replica { node: *node, is_learner, lag_entries, learner_ms });
    }
    range.leader = match chance.below(10) {
        0 => None,
        1 => Some(chance.pick(&nodes)),
        _ => chosen.first().copied(),
    };
}

/// Something happens to a cluster at rest.
pub(crate) fn disturb(chance: &mut Chance, survey: &mut Survey) {
    let ids: Vec<u64> = survey.nodes.keys().copied().collect();
    for id in ids {
        let Some(node) = survey.nodes.get_mut(&id) else { continue };
        if chance.percent(20) {
            node.silent_ms = chance.pick(&[0, 0, 90_000]);
            node.is_draining = chance.percent(25);
        }
    }
    if chance.percent(50) {
        let id = survey.nodes.keys().max().copied().unwrap_or(0) + 1;
        let capacity_bytes = survey.nodes.values().map(|node| node.capacity_bytes).max();
        let node = Node { capacity_bytes: capacity_bytes.unwrap_or(0), ..Node::default() };
        survey.nodes.insert(id, node);
        survey.spine.replicas.push(Replica::learner(id));
    }
    for range in survey.ranges.values_mut() {
        if chance.percent(20) {
            range.load = load(chance);
        }
        if chance.percent(20) {
            range.quiet_ms = 10_000_000;
            range.age_ms = 10_000_000;
        }
        if chance.percent(5) {
            range.bytes = range.bytes.saturating_mul(3);
        }
    }
}

/// Any step on anything, mostly on what is there.
pub(crate) fn step(chance: &mut Chance, survey: &Survey) -> Step {
    let ranges: Vec<u64> = survey.ranges.keys().copied().collect();
    let nodes: Vec<u64> = survey.nodes.keys().copied().collect();
    let range = chance.pick(&ranges);
    let held = survey
        .ranges
        .get(&range)
        .map_or(Vec::new(), |range| range.replicas.iter().map(|replica| replica.node).collect());
    let holder = if held.is_empty() { chance.pick(&nodes) } else { chance.pick(&held) };
    let node = chance.pick(&nodes);
    match chance.below(10) {
        0 => Step::AddLearner { range, node },
        1 => Step::Promote { range, node: holder },
        2 | 3 => Step::RemoveReplica { range, node: holder },
        4 => Step::TransferLeader { range, to: holder },
        5 => {
            let key = survey.ranges.get(&range).and_then(|range| range.size_split_key.clone());
            Step::Split { range, key: key.unwrap_or_default() }
        }
        6 => {
            let next = survey.ranges.iter().find(|(_, other)| {
                survey.ranges.get(&range).is_some_and(|range| range.end == other.start)
            });
            Step::Merge { left: range, right: next.map_or(range, |(id, _)| *id) }
        }
        7 => Step::AddSpineVoter { node },
        8 => Step::DemoteSpineVoter { node },
        _ => Step::MoveSpineLeader { to: node },
    }
}

/// What no cluster would report.
pub(crate) fn garble(chance: &mut Chance, survey: &mut Survey, policy: &mut Policy) {
    let huge = [0, 1, u64::MAX - 1, u64::MAX];
    for node in survey.nodes.values_mut() {
        if chance.percent(30) {
            node.capacity_bytes = chance.pick(&huge);
            node.used_bytes = chance.pick(&huge);
            node.silent_ms = chance.pick(&huge);
            node.requests_per_second = chance.pick(&huge);
        }
    }
    for range in survey.ranges.values_mut() {
        if chance.percent(30) {
            range.bytes = chance.pick(&huge);
            range.keys = chance.pick(&huge);
            range.load.writes_per_second = chance.pick(&huge);
            range.load.reads_per_second = chance.pick(&huge);
            range.quiet_ms = chance.pick(&huge);
            range.age_ms = chance.pick(&huge);
        }
        if chance.percent(10) {
            range.start = vec![chance.next().to_le_bytes()[0]];
        }
        if chance.percent(10) {
            range.size_split_key = Some(Vec::new());
            range.load_split_key = Some(vec![0xff; 9]);
        }
        if chance.percent(10) {
            let copies = range.replicas.clone();
            range.replicas.extend(copies);
        }
        if chance.percent(10) {
            range.leader = Some(12_345);
        }
    }
    if chance.percent(30) {
        survey.spine.replicas.clear();
    }
    if chance.percent(20) {
        survey.nodes.clear();
    }
    if chance.percent(20) {
        survey.ranges.remove(&ROOT);
    }
    if chance.percent(30) {
        policy.replicas_count = chance.pick(&[0, 1, 100]);
        policy.spine_voters_max = chance.pick(&[0, 1, 100]);
        policy.moves_max = 0;
        policy.merge_bytes = u64::MAX;
        policy.silent_ms_doubt = u64::MAX;
        policy.balance_leaders_percent = u64::MAX;
    }
}
