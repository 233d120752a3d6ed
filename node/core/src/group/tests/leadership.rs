//! Elections, timeouts from the injected source of chance, handing over.

use super::*;

#[test]
fn a_silent_leader_is_replaced() {
    let mut network = Network::new(1, 3, 3);
    network.elect(1);
    network.isolate(1);
    for _ in 0..40 {
        network.tick_all();
    }
    let leader = network.leader().unwrap();
    assert_ne!(leader, 1);
    // Cut off from its quorum, the old one stepped down without being told.
    assert!(!network.group(1).is_leader());
    network.heal();
    let term = network.group(leader).role().term;
    for _ in 0..10 {
        network.tick_all();
    }
    assert_eq!(network.group(1).role().leader, Some(NodeId(leader)));
    assert_eq!(network.group(1).role().term, term, "its return disturbs nobody");
}

/// Ticks until the others have a leader.
fn ticks_without_leader(network: &mut Network, ticks_max: usize) -> Option<usize> {
    (1..=ticks_max).find(|_| {
        network.tick_all();
        network.leader().is_some_and(|leader| leader != 1)
    })
}

#[test]
fn a_leader_whose_connections_break_is_replaced_at_once() {
    // Two heartbeats are waited for, one more tick, and what is drawn.
    let Config { election_ticks, heartbeat_ticks, .. } = config(1);
    let least = 2 * heartbeat_ticks + 1;
    let most = least + election_ticks / 3 - 1;
    let mut replaced_count = 0;
    for seed in 0..50 {
        let mut network = Network::new(seed, 3, 3);
        network.elect(1);
        for _ in 0..3 {
            network.tick_all();
        }
        network.isolate(1);
        for id in [2, 3] {
            network.input(id, Input::Unreachable(NodeId(1)));
        }
        assert_eq!(ticks_without_leader(&mut network, least - 1), None, "seed {seed}");
        let ticks = ticks_without_leader(&mut network, most + 1 - least);
        replaced_count += usize::from(ticks.is_some());
        // Both may have asked at the same moment, and ask again as ever.
        let ticks = ticks.or_else(|| ticks_without_leader(&mut network, 6 * election_ticks));
        assert!(ticks.is_some(), "seed {seed}");
    }
    assert!(replaced_count >= 15, "{replaced_count} of 50");
}

#[test]
fn a_leader_that_lives_stays_when_connections_to_it_break() {
    for seed in 0..50 {
        let mut network = Network::new(seed, 3, 3);
        network.elect(1);
        let term = network.group(1).role().term;
        for round in 0..20 {
            network.input(2, Input::Unreachable(NodeId(1)));
            if round % 2 == 0 {
                network.input(3, Input::Unreachable(NodeId(1)));
            }
            assert_eq!(ticks_without_leader(&mut network, 2), None, "seed {seed}");
        }
        // Who hears of it no more asks in vain, and does not depose it.
        network.isolate(2);
        network.input(2, Input::Unreachable(NodeId(1)));
        assert_eq!(ticks_without_leader(&mut network, 30), None, "seed {seed}");
        network.heal();
        for _ in 0..3 {
            network.tick_all();
        }
        assert_eq!(network.group(2).role().leader, Some(NodeId(1)));
        assert_eq!(network.group(1).role().term, term);
    }
}

#[test]
fn timeouts_come_from_the_injected_chance() {
    struct Fixed(u64);
    impl Chance for Fixed {
        fn below(&mut self, bound: u64) -> u64 {
            self.0.min(bound - 1)
        }
    }
    for extra in 0..6 {
        let recovered = Recovered::first(voters([1, 2, 3]));
        let mut group = Group::new(config(1), recovered, Box::new(Fixed(extra))).unwrap();
        step(&mut group, Input::Persisted { token: 0 });
        for round in 0..5 {
            // A leader's word starts the wait anew, in every term.
            step(&mut group, Input::Message(message(Kind::Heartbeat, 2, 1, 2 + round)));
            let token = group.outbox.oldest().unwrap();
            step(&mut group, Input::Persisted { token });
            for _ in 0..(6 + extra - 1) {
                assert_eq!(step(&mut group, Input::Tick), []);
            }
            assert!(sent(&step(&mut group, Input::Tick)).contains(&(Kind::PreVote, 2)));
        }
    }
}

#[test]
fn a_leader_hands_over() {
    let mut network = Network::new(1, 3, 3);
    network.elect(1);
    network.propose(1, &["a"]);
    let out = network.input(1, Input::Transfer(NodeId(3)));
    assert_eq!(network.group(1).transferee(), Some(NodeId(3)));
    assert!(refusals(&out).is_empty());
    let out = network.propose(1, &["b"]);
    assert_eq!(refusals(&out), [Refusal::Transferring]);
    network.settle();
    assert_eq!(network.leader(), Some(3));
    assert_eq!(network.group(1).role().leader, Some(NodeId(3)));
    assert_eq!(network.group(3).applied().index, network.committed());
}

#[test]
fn a_transfer_to_a_dead_node_is_given_up() {
    let mut network = Network::new(1, 3, 3);
    network.elect(1);
    network.isolate(3);
    network.input(1, Input::Transfer(NodeId(3)));
    for _ in 0..7 {
        network.tick_all();
    }
    assert_eq!(network.group(1).transferee(), None);
    let out = network.propose(1, &["a"]);
    assert_eq!(refusals(&out), []);
}

#[test]
fn the_leadership_goes_to_voters_only() {
    let mut network = Network::new(1, 3, 4);
    network.elect(1);
    let change = Change::one(ChangeStep::AddLearner(NodeId(4)));
    network.input(1, Input::ProposeChange { change, context: Bytes::new() });
    network.settle();
    for target in [1, 4, 9] {
        let out = network.input(1, Input::Transfer(NodeId(target)));
        assert_eq!(refusals(&out), [Refusal::NotVoter]);
    }
    let out = network.input(2, Input::Transfer(NodeId(3)));
    assert_eq!(refusals(&out), [Refusal::NotLeader]);
    assert_eq!(refusals(&network.input(4, Input::Campaign)), [Refusal::CannotCampaign]);
    assert_eq!(refusals(&network.input(1, Input::Campaign)), [Refusal::CannotCampaign]);
}

#[test]
fn a_role_is_reported_before_what_follows_from_it() {
    let mut group = start(1, Recovered::first(voters([1])));
    step(&mut group, Input::Tick);
    let out = step(&mut group, Input::Campaign);
    let role = Role { part: Part::Leader, leader: Some(NodeId(1)), term: 2 };
    assert_eq!(out[0], Effect::Role(role));
    assert_eq!(group.role(), role);
}
