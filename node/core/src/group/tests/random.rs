//! Random histories of small groups: lost, repeated and reordered messages, partitions, slow disks,
//! crashes that lose unflushed writes, snapshots, membership changes, transfers, sleep on wrong news
//! of who is there. Each seed ends with a healthy network that must agree, go on, and sleep.

use super::network::State;
use super::*;

const EVENTS: u64 = 3000;
const SEEDS: u64 = if cfg!(debug_assertions) { 100 } else { 1000 };

#[test]
fn every_promise_holds_under_faults() {
    let mut seen = std::collections::BTreeMap::<&str, u64>::new();
    for seed in 0..SEEDS {
        let network = run(seed, false);
        for (what, count) in network.seen {
            *seen.entry(what).or_default() += count;
        }
    }
    // A run in which none of this happens proves nothing.
    let wanted = [
        "commit",
        "crash",
        "crash in install",
        "follower asleep",
        "install",
        "joint",
        "leader",
        "leader asleep",
        "learner added",
        "promoted",
        "removed",
        "snapshot asked for",
        "snapshot refused",
        "ticket dropped",
        "ticket ready",
        "transfer",
        "truncate",
        "woken",
    ];
    for what in wanted {
        assert!(seen.get(what).is_some_and(|count| *count >= SEEDS / 20), "{what}: {seen:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_effects() {
    for seed in 0..20 {
        let first = run(seed, true);
        let second = run(seed, true);
        assert_eq!(first.trace, second.trace, "seed {seed}");
        assert!(first.trace.is_some_and(|trace| trace != 0));
    }
}

fn run(seed: u64, is_traced: bool) -> Network {
    let mut chance = Seeded(seed.wrapping_mul(0x51_7c_c1_b7_27_22_0a_95));
    let voters_count = [1, 2, 3, 3, 3, 5][chance.below(6) as usize];
    let mut network = Network::new(seed, voters_count, voters_count + chance.below(3));
    network.trace = is_traced.then_some(1);
    let mut faults = Faults {
        loss: [0, 2, 10][chance.below(3) as usize],
        repeat: [0, 2, 10][chance.below(3) as usize],
        reorder: [1, 1, 4, 30][chance.below(4) as usize],
        crash: [0, 4, 20][chance.below(3) as usize],
        cut: [0, 3, 10][chance.below(3) as usize],
        slow_disk: [100, 50, 15][chance.below(3) as usize],
        has_changes: chance.is_hit(50),
        proposals: 0,
    };
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        for _ in 0..EVENTS {
            faults.event(&mut network, &mut chance);
        }
        recover(&mut network);
    }));
    if let Err(panic) = result {
        eprintln!("seed {seed}");
        std::panic::resume_unwind(panic);
    }
    network
}

struct Faults {
    loss: u64,
    repeat: u64,
    /// Messages among which the next is chosen.
    reorder: u64,
    crash: u64,
    cut: u64,
    slow_disk: u64,
    has_changes: bool,
    proposals: u64,
}

impl Faults {
    fn event(&mut self, network: &mut Network, chance: &mut Seeded) {
        let ids = network.ids();
        let id = ids[chance.below(ids.len() as u64) as usize];
        if !network.is_up(id) {
            if chance.is_hit(20) {
                network.restart(id);
            }
            return;
        }
        match chance.below(1000) {
            0..420 => {
                for _ in 0..=chance.below(4) {
                    self.deliver(network, chance);
                }
            }
            420..540 => network.tick(id),
            540..700 if chance.is_hit(self.slow_disk) => {
                let queued = network.queued(id) as u64;
                if queued > 0 {
                    network.persist(id, 1 + chance.below(queued) as usize);
                }
            }
            700..790 => network.apply(id, 1 + chance.below(6) as usize),
            790..830 => self.propose(network, chance),
            830..850 => {
                network.ticket(id);
            }
            850..890 => network.checkpoint(id),
            890..910 => {
                let last = network.group(id).last_index();
                network.truncate(id, last - chance.below(4).min(last));
            }
            910..935 => network.install(id, chance.is_hit(20)),
            935..960 => network.deliver_snapshot(chance.is_hit(80)),
            960..970 if self.has_changes => change(network, chance),
            970..973 => transfer(network, id),
            973..978 if chance.below(40) < self.crash => {
                let kept = chance.below(network.queued(id) as u64 + 1) as usize;
                network.crash(id, kept);
            }
            978..981 if chance.below(20) < self.cut => network.isolate(id),
            981..990 => network.heal(),
            990 => {
                network.input(id, Input::Campaign);
            }
            991 => {
                let other = ids[chance.below(ids.len() as u64) as usize];
                network.input(id, Input::Unreachable(NodeId(other)));
            }
            992 => {
                let heard: Vec<u64> = ids.into_iter().filter(|_| chance.is_hit(70)).collect();
                network.alive(id, heard);
            }
            993 => network.alive(id, ids),
            995 => {
                network.see("snapshot asked for");
                network.input(id, Input::RequestSnapshot);
            }
            // Nothing happens for a while.
            994 => {
                for _ in 0..20 {
                    network.tick(id);
                    (0..4).for_each(|_| self.deliver(network, chance));
                }
            }
            _ => {}
        }
    }

    fn deliver(&self, network: &mut Network, chance: &mut Seeded) {
        if network.wire.is_empty() {
            return;
        }
        let at = chance.below(self.reorder.min(network.wire.len() as u64)) as usize;
        if chance.is_hit(self.loss) {
            network.wire.remove(at);
            return;
        }
        if chance.is_hit(self.repeat) {
            let message = network.wire[at].clone();
            network.wire.push_back(message);
        }
        network.deliver(at);
        // A flood of heartbeats in a long partition is not what is tested.
        while network.wire.len() > 200 {
            network.wire.pop_front();
        }
    }

    fn propose(&mut self, network: &mut Network, chance: &mut Seeded) {
        let leaders: Vec<_> = network
            .ids()
            .into_iter()
            .filter(|id| network.is_up(*id) && network.group(*id).is_leader())
            .collect();
        let Some(id) = leaders.get(chance.below(leaders.len().max(1) as u64) as usize) else {
            return;
        };
        let commands = (0..1 + chance.below(4))
            .map(|_| {
                self.proposals += 1;
                let mut text = format!("command {}", self.proposals);
                text.extend(std::iter::repeat_n('.', chance.below(3) as usize * 200));
                text.into_bytes().into()
            })
            .collect();
        network.input(*id, Input::Propose(commands));
    }
}

/// Proposes a random change to a leader.
fn change(network: &mut Network, chance: &mut Seeded) {
    let Some(leader) = network.leader() else { return };
    let ids = network.ids();
    let conf = network.group(leader).conf();
    let mut pick = || NodeId(ids[chance.below(ids.len() as u64) as usize]);
    let mut step = || {
        let node = pick();
        match (conf.voters.contains(&node.0), conf.learners.contains(&node.0)) {
            (true, _) if conf.voters.len().is_multiple_of(2) => ChangeStep::Remove(node),
            (true, _) => ChangeStep::AddLearner(node),
            (false, true) => ChangeStep::AddVoter(node),
            (false, false) => ChangeStep::AddLearner(node),
        }
    };
    let first = step();
    let mut steps = vec![first];
    let second = step();
    if node_of(first) != node_of(second) && first != second {
        steps.push(second);
    }
    // Nobody asks that of a leader with one other voter: see `only_other_voter` of the spine.
    if conf.voters.len() == 2 && steps.contains(&ChangeStep::Remove(NodeId(leader))) {
        return;
    }
    let input = Input::ProposeChange { change: Change { steps }, context: command("who") };
    let out = network.input(leader, input);
    if out.iter().any(|effect| matches!(effect, Effect::Proposed { .. })) {
        network.see(match first {
            ChangeStep::AddVoter(_) => "promoted",
            ChangeStep::AddLearner(_) => "learner added",
            ChangeStep::Remove(_) => "removed",
        });
    }
}

fn node_of(step: ChangeStep) -> NodeId {
    match step {
        ChangeStep::AddVoter(node) | ChangeStep::AddLearner(node) | ChangeStep::Remove(node) => {
            node
        }
    }
}

fn transfer(network: &mut Network, to: u64) {
    let Some(leader) = network.leader() else { return };
    network.input(leader, Input::Transfer(NodeId(to)));
    if network.group(leader).transferee() == Some(NodeId(to)) {
        network.see("transfer");
    }
}

/// Heals everything; the group must elect a leader, leave a joint membership, commit, answer every
/// ticket, bring every member to the same state, and sleep.
fn recover(network: &mut Network) {
    network.heal();
    for id in network.ids() {
        if !network.is_up(id) {
            network.restart(id);
        }
        // Connections that carried nothing are broken, and made again.
        network.alive(id, []);
        network.alive(id, network.ids());
    }
    let mut last = None;
    for _ in 0..400 {
        network.settle();
        network.tick_all();
        let Some(leader) = network.leader() else { continue };
        let group = network.group(leader);
        if !group.is_established() || !group.conf().voters_outgoing.is_empty() {
            continue;
        }
        // What an earlier leader was given may be lost.
        let Some(last) = last.filter(|last: &Position| last.term == group.role().term) else {
            let out = network.propose(leader, &["the end"]);
            if let Some(Effect::Proposed { first, .. }) =
                out.iter().find(|effect| matches!(effect, Effect::Proposed { .. }))
            {
                last = Some(*first);
            }
            continue;
        };
        let conf = group.conf();
        let members: Vec<_> = conf.voters.iter().chain(&conf.learners).copied().collect();
        let states: Vec<_> = members.iter().map(|id| &network.nodes[id].state).collect();
        let is_even = states.windows(2).all(|pair| pair[0] == pair[1]);
        // A member that missed its removal asks for votes, and wakes the others.
        let is_stranger = |id: &u64| !members.contains(id);
        let is_disturbed = network
            .ids()
            .into_iter()
            .filter(is_stranger)
            .any(|id| network.group(id).role().part == Part::Candidate);
        let is_asleep = members.iter().all(|id| network.group(*id).is_asleep()) || is_disturbed;
        if states[0].applied >= last && is_even && network.open_tickets() == 0 && is_asleep {
            assert_eq!(states[0].conf, conf, "the stored membership is the one in force");
            return;
        }
    }
    for id in network.ids() {
        let group = network.group(id);
        let State { applied, conf, .. } = &network.nodes[&id].state;
        let (role, commit) = (group.role(), group.commit());
        eprintln!("node {id}: {role:?}, commit {commit}, asleep {}", group.is_asleep());
        eprintln!("  state at {applied:?} with {conf:?}; {:?}", group.progress());
    }
    panic!("the group does not recover; {} tickets are open", network.open_tickets());
}
