//! Sleep: who may, who wakes whom, and that a sleeping group costs nothing.

use super::*;

/// Three nodes that know each other, led by the first, and idle long enough to sleep.
fn asleep() -> Network {
    let mut network = Network::new(1, 3, 3);
    network.all_alive();
    network.elect(1);
    idle(&mut network);
    for id in 1..=3 {
        assert!(network.group(id).is_asleep(), "node {id}");
    }
    network
}

fn idle(network: &mut Network) {
    for _ in 0..30 {
        network.tick_all();
    }
}

#[test]
fn a_group_that_sleeps_sends_nothing() {
    let mut network = asleep();
    let role = network.group(2).role();
    for _ in 0..1000 {
        for id in 1..=3 {
            network.tick(id);
        }
        assert!(network.wire.is_empty(), "{:?}", network.wire);
    }
    assert_eq!(network.group(2).role(), role);
    assert!(network.group(1).is_leader());
}

#[test]
fn a_proposal_is_committed_at_once() {
    let mut network = asleep();
    network.propose(1, &["woken"]);
    network.settle();
    assert!((1..=3).all(|id| !network.group(id).is_asleep()));
    let last = network.group(1).last_index();
    assert!((1..=3).all(|id| network.nodes[&id].state.applied.index == last));
    idle(&mut network);
    assert!((1..=3).all(|id| network.group(id).is_asleep()), "and sleeps again");
}

#[test]
fn a_ticket_of_a_follower_wakes_the_leader() {
    let mut network = asleep();
    network.ticket(2);
    assert!(!network.group(2).is_asleep() && network.group(1).is_asleep());
    network.settle();
    assert!(!network.group(1).is_asleep());
    assert_eq!(network.seen["ticket ready"], 1);
}

#[test]
fn a_leader_whose_node_is_gone_is_replaced() {
    let mut network = asleep();
    network.isolate(1);
    network.alive(2, [3]);
    network.alive(3, [2]);
    assert!(!network.group(2).is_asleep() && !network.group(3).is_asleep());
    for _ in 0..30 {
        network.tick(2);
        network.tick(3);
        network.settle();
    }
    assert!(network.group(2).is_leader() || network.group(3).is_leader());
    assert!(network.group(1).is_asleep(), "it has not heard of anything");
    // Whoever speaks for a later term wakes it.
    network.heal();
    network.all_alive();
    idle(&mut network);
    assert_eq!(network.group(1).role().leader, network.group(2).role().leader);
    assert!(!network.group(1).is_leader());
    assert!((1..=3).all(|id| network.group(id).is_asleep()));
}

/// The leader is there, and the followers whose news are of others go on sleeping.
#[test]
fn a_follower_sleeps_on_when_another_follower_goes() {
    let mut network = asleep();
    network.alive(2, [1]);
    assert!(network.group(2).is_asleep());
    network.isolate(3);
    network.alive(1, [2]);
    assert!(!network.group(1).is_asleep(), "a leader makes sure of its quorum");
    idle(&mut network);
    assert!(network.group(1).is_asleep() && network.group(2).is_asleep());
    assert!(network.group(1).is_leader());
}

#[test]
fn a_member_that_is_there_and_lags_keeps_the_leader_awake() {
    let mut network = asleep();
    network.isolate(3);
    network.propose(1, &["unknown to node 3"]);
    idle(&mut network);
    assert!(!network.group(1).is_asleep());
    network.alive(1, [2]);
    idle(&mut network);
    assert!(network.group(1).is_asleep(), "nobody waits for a node that is not there");
    network.heal();
    network.alive(1, [2, 3]);
    idle(&mut network);
    assert!((1..=3).all(|id| network.group(id).is_asleep()));
    assert_eq!(network.nodes[&3].state, network.nodes[&1].state);
}

#[test]
fn a_leader_without_a_quorum_does_not_sleep() {
    let mut network = Network::new(1, 3, 3);
    network.elect(1);
    for _ in 0..20 {
        network.tick_all();
    }
    assert!(network.group(1).is_leader() && !network.group(1).is_asleep());
    network.alive(1, [3]);
    network.alive(3, [1]);
    idle(&mut network);
    assert!(network.group(1).is_asleep(), "two of three are one");
}

/// A follower that did not hear of it asks for votes, and so finds its leader.
#[test]
fn a_follower_that_missed_it_does_not_depose_the_leader() {
    let mut network = Network::new(1, 3, 3);
    network.all_alive();
    network.elect(1);
    let term = network.group(1).role().term;
    while !network.group(1).is_asleep() {
        network.tick(1);
        let is_lost = |message: &RaftMessage| message.kind == Kind::Sleep as u32 && message.to == 3;
        network.wire.retain(|message| !is_lost(message));
        network.settle();
    }
    assert!(network.group(2).is_asleep() && !network.group(3).is_asleep());
    idle(&mut network);
    assert!((1..=3).all(|id| network.group(id).is_asleep()));
    assert_eq!((network.group(1).is_leader(), network.group(3).role().term), (true, term));
}

#[test]
fn a_follower_with_another_log_does_not_sleep() {
    let mut network = Network::new(1, 3, 3);
    network.all_alive();
    network.elect(1);
    network.settle();
    let (term, last) = (network.group(1).role().term, network.group(1).last_index());
    let sleep = |last| {
        let message = message(Kind::Sleep, 1, 2, term);
        Input::Message(RaftMessage { index: last, commit: last, ..message })
    };
    // As an earlier message of the same leader that comes late.
    network.input(2, sleep(last - 1));
    assert!(!network.group(2).is_asleep());
    let group = network.nodes.get_mut(&2).and_then(|node| node.group.as_mut()).unwrap();
    let out = step(group, sleep(last + 1));
    assert_eq!(ignored(&out), [Ignored::LostEntries]);
    network.input(2, sleep(last));
    assert!(network.group(2).is_asleep());
}

#[test]
fn sleep_of_a_leader_that_was_replaced_is_not_followed() {
    let mut network = Network::new(1, 3, 3);
    network.all_alive();
    network.elect(1);
    let old = network.group(1).role().term;
    network.input(1, Input::Transfer(NodeId(2)));
    network.settle();
    assert!(network.group(2).is_leader());
    let last = network.group(3).last_index();
    let message = message(Kind::Sleep, 1, 3, old);
    network.input(3, Input::Message(RaftMessage { index: last, commit: last, ..message }));
    assert!(!network.group(3).is_asleep());
    assert_eq!(network.group(3).role().leader, Some(NodeId(2)));
}
