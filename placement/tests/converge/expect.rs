//! What must hold after every step, and what must hold when nothing is left to do.

use std::collections::{BTreeMap, BTreeSet};

use flotilla_placement::{Policy, ROOT, Range, Replica, Step, Survey};

/// One step took nothing that was there.
pub(crate) fn nothing_broken(
    seed: u64,
    before: &Survey,
    after: &Survey,
    policy: &Policy,
    step: &Step,
) {
    let at = format!("seed {seed}: {step}");
    expect_tiles(&at, after);
    for (id, range) in &after.ranges {
        let nodes: BTreeSet<u64> = range.replicas.iter().map(|replica| replica.node).collect();
        assert_eq!(nodes.len(), range.replicas.len(), "{at}: range {id} twice on a node");
        assert!(*id != ROOT || range.replicas.is_empty(), "{at}: the root range has replicas");
        let Some(old) = before.ranges.get(id).filter(|_| *id != ROOT) else { continue };
        if has_quorum(before, policy, &old.replicas) {
            assert!(has_quorum(after, policy, &range.replicas), "{at}: range {id} has no quorum");
        }
        if step.ranges().any(|changed| changed == *id) {
            assert!(complete_copies(after, policy, range) > 0, "{at}: range {id} has no copy");
        } else {
            assert_eq!(range, old, "{at}: range {id} has changed as well");
        }
    }
    if has_quorum(before, policy, &before.spine.replicas) {
        assert!(has_quorum(after, policy, &after.spine.replicas), "{at}: the spine has no quorum");
        let was_surplus = before.spine.voters().count() > policy.spine_voters_max;
        let is_weaker = spine_spare(after, policy) < spine_spare(before, policy);
        assert!(was_surplus || !is_weaker, "{at}: the spine bears less than before");
    }
}

/// Voters of the spine that may still die.
fn spine_spare(survey: &Survey, policy: &Policy) -> usize {
    let voters = survey.spine.voters();
    let living = voters.filter(|voter| survey.is_living(policy, voter.node)).count();
    living.saturating_sub(survey.spine.voters().count() / 2 + 1)
}

fn expect_tiles(at: &str, survey: &Survey) {
    let mut ranges: Vec<&Range> = survey.ranges.values().collect();
    ranges.sort_by(|left, right| left.start.cmp(&right.start));
    let edges = [ranges.first().map(|range| &range.start), ranges.last().map(|range| &range.end)];
    assert_eq!(edges, [Some(&Vec::new()), Some(&Vec::new())], "{at}: the keyspace is not covered");
    for pair in ranges.windows(2) {
        assert!(pair[0].end == pair[1].start && pair[0].start < pair[0].end, "{at}: spans");
    }
}

/// Nothing is left to do, and rightly so.
pub(crate) fn as_it_should_be(seed: u64, survey: &Survey, policy: &Policy) {
    let sums = Sums::of(survey, policy);
    // A replica that only waits to be removed is not counted by who balances.
    let is_surplus = |range: &Range| {
        range.replicas.len() > policy.replicas_count.max(1)
            && has_quorum(survey, policy, &range.replicas)
    };
    let has_surplus = survey.ranges.values().any(is_surplus);
    for (id, range) in &survey.ranges {
        let at = format!("seed {seed}: range {id} {range:?}");
        let can_change = if *id == ROOT {
            has_quorum(survey, policy, &survey.spine.replicas)
        } else {
            has_quorum(survey, policy, &range.replicas)
        };
        if !can_change {
            continue;
        }
        expect_small_enough(&at, policy, range);
        if *id != ROOT {
            expect_replicas(&at, survey, policy, range);
            expect_leader(&at, survey, policy, range, &sums);
            if !is_mergeable_with_any(survey, policy, *id) {
                expect_zones(&at, survey, policy, range);
                if !has_surplus {
                    expect_balance(&at, survey, policy, range, &sums);
                }
            }
        }
    }
    expect_merged(seed, survey, policy);
    expect_spine(seed, survey, policy);
}

/// What nodes carry and lead, and the means over the nodes that stay.
struct Sums {
    fill: BTreeMap<u64, u64>,
    mean_fill: u64,
    requests: BTreeMap<u64, u64>,
    mean_requests: u64,
    /// Capacity by node, if nodes are to be compared by it.
    capacities: Option<BTreeMap<u64, u64>>,
}

impl Sums {
    fn of(survey: &Survey, policy: &Policy) -> Self {
        let staying: Vec<u64> = nodes(survey, |node| survey.is_staying(policy, node));
        let capacities: BTreeMap<u64, u64> =
            staying.iter().map(|node| (*node, survey.nodes[node].capacity_bytes)).collect();
        let is_known = capacities.values().all(|capacity| *capacity > 0);
        let capacities = is_known.then_some(capacities);
        let mut sums = Self {
            fill: BTreeMap::new(),
            mean_fill: 0,
            requests: BTreeMap::new(),
            mean_requests: 0,
            capacities,
        };
        for (_, range) in survey.ranges.iter().filter(|(id, _)| **id != ROOT) {
            for replica in &range.replicas {
                *sums.fill.entry(replica.node).or_default() += weight(policy, range);
            }
            if let Some(leader) = living_leader(survey, policy, range) {
                *sums.requests.entry(leader).or_default() += requests(policy, range);
            }
        }
        let fill = sums.fill.clone();
        sums.fill = fill.iter().map(|(node, raw)| (*node, sums.scaled(*node, *raw))).collect();
        let count = staying.len().max(1) as u64;
        sums.mean_fill = staying.iter().map(|node| sums.fill(*node)).sum::<u64>() / count;
        sums.mean_requests = staying.iter().map(|node| sums.requests(*node)).sum::<u64>() / count;
        sums
    }

    /// As it would weigh on a node of mean capacity.
    fn scaled(&self, node: u64, bytes: u64) -> u64 {
        let Some(capacities) = &self.capacities else { return bytes };
        let Some(capacity) = capacities.get(&node) else { return bytes };
        let mean = capacities.values().sum::<u64>() / capacities.len() as u64;
        u64::try_from(u128::from(bytes) * u128::from(mean) / u128::from(*capacity)).expect("fits")
    }

    fn fill(&self, node: u64) -> u64 {
        self.fill.get(&node).copied().unwrap_or(0)
    }

    fn requests(&self, node: u64) -> u64 {
        self.requests.get(&node).copied().unwrap_or(0)
    }
}

fn expect_small_enough(at: &str, policy: &Policy, range: &Range) {
    let is_large = range.bytes > policy.split_bytes || range.keys > policy.split_keys;
    let has_middle = range.size_split_key.as_ref().is_some_and(|key| range.can_split_at(key));
    assert!(!is_large || !has_middle, "{at}: is large");
    let load = range.load;
    let is_hot = load.writes_per_second > policy.split_writes_per_second
        || load.write_bytes_per_second > policy.split_write_bytes_per_second
        || load.reads_per_second > policy.split_reads_per_second;
    let has_point = range.load_split_key.as_ref().is_some_and(|key| range.can_split_at(key));
    assert!(!is_hot || !has_point, "{at}: is hot");
}

fn expect_replicas(at: &str, survey: &Survey, policy: &Policy, range: &Range) {
    let able = nodes(survey, |node| survey.is_certain(policy, node));
    let voters: Vec<u64> = range.voters().map(|voter| voter.node).collect();
    // A leader that should go stays while nobody can be trusted to lead in its place.
    let has_successor =
        voters.iter().any(|node| range.leader != Some(*node) && survey.is_certain(policy, *node));
    let is_many = voters.len() > policy.replicas_count;
    assert!(!is_many || !has_successor, "{at}: too many voters");
    // A learner whose node was not heard of lately is waited for, and so is one that may not vote
    // before the surplus voter is gone.
    let waits = |learner: &Replica| {
        let is_certain = survey.is_certain(policy, learner.node);
        is_many || survey.is_staying(policy, learner.node) && !is_certain
    };
    assert!(range.learners().all(waits), "{at}: learners are left");
    let staying = range.replicas.iter().filter(|replica| survey.is_staying(policy, replica.node));
    let staying_count = staying.count();
    let has_all_able = able.iter().all(|node| voters.contains(node));
    // A voter that does not stay is there only because no other node could take its place.
    let is_full = staying_count >= policy.replicas_count;
    let is_waiting = range.learners().count() >= policy.learners_per_range_max;
    assert!(is_full || has_all_able || is_waiting, "{at}: {staying_count} replicas, able {able:?}");
}

fn expect_leader(at: &str, survey: &Survey, policy: &Policy, range: &Range, sums: &Sums) {
    let leader = living_leader(survey, policy, range);
    let leader = leader.unwrap_or_else(|| panic!("{at}: no leader"));
    let successors: Vec<u64> = range
        .voters()
        .map(|voter| voter.node)
        .filter(|node| *node != leader && survey.is_certain(policy, *node))
        .collect();
    let stays = survey.is_staying(policy, leader);
    assert!(stays || successors.is_empty(), "{at}: led by a draining node");
    let tolerance = sums.mean_requests * policy.balance_leaders_percent / 100;
    for successor in successors {
        let after = sums.requests(successor) + requests(policy, range);
        let here = sums.requests(leader);
        assert!(here <= after + tolerance, "{at}: {here} requests here, {after} there");
    }
}

fn expect_zones(at: &str, survey: &Survey, policy: &Policy, range: &Range) {
    if !is_settled(survey, policy, range) {
        return;
    }
    let voters: Vec<u64> = range.voters().map(|voter| voter.node).collect();
    let now = zone_pairs(survey, &voters);
    for (voter, able) in exchanges(survey, policy, &voters) {
        let then = zone_pairs(survey, &exchanged(&voters, voter, able));
        assert!(then >= now, "{at}: {able} for {voter} shares zones less");
    }
}

fn expect_balance(at: &str, survey: &Survey, policy: &Policy, range: &Range, sums: &Sums) {
    if !is_settled(survey, policy, range) {
        return;
    }
    let voters: Vec<u64> = range.voters().map(|voter| voter.node).collect();
    let now = zone_pairs(survey, &voters);
    let tolerance = sums.mean_fill * policy.balance_replicas_percent / 100;
    for (voter, able) in exchanges(survey, policy, &voters) {
        let then = zone_pairs(survey, &exchanged(&voters, voter, able));
        let after = sums.fill(able) + sums.scaled(able, weight(policy, range));
        // Scaled by capacity, sums may be off by one.
        let is_fair = sums.fill(voter) <= after + tolerance + 1;
        let here = sums.fill(voter);
        assert!(then > now || is_fair, "{at}: {able} for {voter}: {here}, {after} there");
    }
}

fn expect_merged(seed: u64, survey: &Survey, policy: &Policy) {
    let all_are_well = survey.nodes.keys().all(|node| survey.is_certain(policy, *node));
    // A replica on a node that nobody knows may keep its range, and so its neighbours.
    let all_are_known = survey
        .ranges
        .values()
        .all(|range| range.replicas.iter().all(|replica| survey.nodes.contains_key(&replica.node)));
    if all_are_well && all_are_known {
        for id in survey.ranges.keys() {
            let is_left_over = is_mergeable_with_any(survey, policy, *id);
            assert!(!is_left_over, "seed {seed}: range {id} could be merged");
        }
    }
}

fn expect_spine(seed: u64, survey: &Survey, policy: &Policy) {
    let spine = &survey.spine;
    if !has_quorum(survey, policy, &spine.replicas) {
        return;
    }
    let able_count =
        spine.replicas.iter().filter(|replica| survey.is_staying(policy, replica.node)).count();
    let wanted_count = match policy.spine_voters_max {
        voters_max if able_count <= voters_max => able_count,
        voters_max if voters_max % 2 == 0 => voters_max - 1,
        voters_max => voters_max,
    };
    let staying = |replica: &&Replica| survey.is_staying(policy, replica.node);
    let voters_count = spine.voters().count();
    let staying_count = spine.voters().filter(staying).count();
    // A node that was not heard of lately is not given a vote.
    let doubted_count =
        nodes(survey, |node| survey.is_staying(policy, node) && !survey.is_certain(policy, node))
            .len();
    assert!(staying_count <= wanted_count, "seed {seed}: {spine:?}");
    assert!(staying_count + doubted_count >= wanted_count, "seed {seed}: {spine:?}");
    let dead_count = spine.voters().filter(|voter| !survey.is_living(policy, voter.node)).count();
    assert!(dead_count == 0 || dead_count == 1 && voters_count % 2 == 1, "seed {seed}: {spine:?}");
    let leader = spine.leader.filter(|leader| survey.is_living(policy, *leader));
    assert!(leader.is_some(), "seed {seed}: {spine:?}");
}

fn is_mergeable_with_any(survey: &Survey, policy: &Policy, id: u64) -> bool {
    let range = &survey.ranges[&id];
    survey.ranges.iter().any(|(other_id, other)| {
        let (left, right) = if range.end == other.start { (range, other) } else { (other, range) };
        let is_adjacent = !left.end.is_empty() && left.end == right.start && id != *other_id;
        let load = left.load.joined_with(right.load);
        let is_small = left.bytes + right.bytes <= policy.merge_bytes
            && left.keys + right.keys <= policy.merge_keys
            && load.writes_per_second <= policy.merge_writes_per_second
            && load.write_bytes_per_second <= policy.merge_write_bytes_per_second
            && load.reads_per_second <= policy.merge_reads_per_second;
        let is_quiet = [left, right].iter().all(|range| {
            range.quiet_ms >= policy.merge_quiet_ms && range.age_ms >= policy.merge_age_ms
        });
        is_adjacent && is_small && is_quiet && id != ROOT && *other_id != ROOT
    })
}

fn is_settled(survey: &Survey, policy: &Policy, range: &Range) -> bool {
    let staying = range.voters().filter(|voter| survey.is_staying(policy, voter.node));
    range.replicas.len() == policy.replicas_count && staying.count() == policy.replicas_count
}

fn exchanges(survey: &Survey, policy: &Policy, voters: &[u64]) -> Vec<(u64, u64)> {
    let able = nodes(survey, |node| survey.is_certain(policy, node) && !voters.contains(&node));
    voters.iter().flat_map(|voter| able.iter().map(move |able| (*voter, *able))).collect()
}

fn exchanged(voters: &[u64], old: u64, new: u64) -> Vec<u64> {
    voters.iter().map(|voter| if *voter == old { new } else { *voter }).collect()
}

/// Pairs of nodes that share a zone.
fn zone_pairs(survey: &Survey, nodes: &[u64]) -> usize {
    let zone = |node: u64| survey.nodes[&node].zone.as_str();
    nodes
        .iter()
        .enumerate()
        .map(|(place, node)| {
            nodes[place + 1..].iter().filter(|other| zone(**other) == zone(*node)).count()
        })
        .sum()
}

fn nodes(survey: &Survey, is_wanted: impl Fn(u64) -> bool) -> Vec<u64> {
    survey.nodes.keys().copied().filter(|node| is_wanted(*node)).collect()
}

fn has_quorum(survey: &Survey, policy: &Policy, replicas: &[Replica]) -> bool {
    let voters: Vec<_> = replicas.iter().filter(|replica| !replica.is_learner).collect();
    let living = voters.iter().filter(|voter| survey.is_living(policy, voter.node)).count();
    !voters.is_empty() && living > voters.len() / 2
}

/// Living voters that have all entries, or lead.
fn complete_copies(survey: &Survey, policy: &Policy, range: &Range) -> usize {
    let is_complete = |voter: &&Replica| {
        let has_all = voter.lag_entries <= policy.lag_entries_max;
        survey.is_living(policy, voter.node) && (has_all || range.leader == Some(voter.node))
    };
    range.voters().filter(is_complete).count()
}

fn living_leader(survey: &Survey, policy: &Policy, range: &Range) -> Option<u64> {
    let leader = range.leader?;
    let is_voter = range.voters().any(|voter| voter.node == leader);
    (is_voter && survey.is_living(policy, leader)).then_some(leader)
}

fn weight(policy: &Policy, range: &Range) -> u64 {
    range.bytes + policy.replica_base_bytes
}

fn requests(policy: &Policy, range: &Range) -> u64 {
    range.load.writes_per_second
        + range.load.reads_per_second
        + policy.leader_base_requests_per_second
}
