//! Tickets: each answered once, and never by a leader that was replaced (M5).

use super::*;

fn ready(out: &[Effect]) -> Vec<(u64, u64)> {
    let pick = |effect: &Effect| match effect {
        Effect::TicketReady { context, index } => Some((*context, *index)),
        _ => None,
    };
    out.iter().filter_map(pick).collect()
}

fn dropped(out: &[Effect]) -> Vec<u64> {
    let pick = |effect: &Effect| match effect {
        Effect::TicketDropped { context } => Some(*context),
        _ => None,
    };
    out.iter().filter_map(pick).collect()
}

#[test]
fn one_round_answers_a_leader_and_a_follower() {
    let mut network = Network::new(1, 3, 3);
    network.elect(1);
    network.settle();
    for id in [1, 2] {
        network.ticket(id);
    }
    assert_eq!(network.open_tickets(), 2);
    network.settle();
    assert_eq!(network.seen["ticket ready"], 2);
}

#[test]
fn the_only_voter_answers_at_once() {
    let mut network = Network::new(1, 1, 1);
    network.elect(1);
    network.ticket(1);
    assert_eq!(ready(&network.last_effects), [(1, network.group(1).commit())]);
}

/// raft-rs would forget a read index that comes before the first commit of a term.
#[test]
fn a_new_leader_holds_tickets_until_it_knows_what_is_committed() {
    let mut network = Network::new(1, 3, 3);
    network.settle();
    network.input(1, Input::Campaign);
    while !network.group(1).is_leader() {
        network.deliver(0);
        for id in 1..=3 {
            network.persist(id, 1);
        }
    }
    network.isolate(3);
    network.ticket(1);
    // The follower asks as soon as it learns of its leader.
    network.ticket(2);
    network.settle_until_sent(Kind::ReadIndex);
    assert_eq!(network.wire.back().unwrap().from, 2);
    network.deliver(network.wire.len() - 1);
    assert!(!network.group(1).is_established());
    assert_eq!(network.open_tickets(), 2);
    network.settle();
    assert_eq!(network.open_tickets(), 0);
    assert_eq!(network.seen["ticket ready"], 2);
}

#[test]
fn a_ticket_without_a_leader_waits_for_one() {
    let mut network = Network::new(1, 3, 3);
    network.ticket(2);
    network.settle();
    assert_eq!(network.open_tickets(), 1);
    network.elect(1);
    network.settle();
    assert_eq!(network.seen["ticket ready"], 1);
}

#[test]
fn a_ticket_that_waits_too_long_is_dropped() {
    let mut network = Network::new(1, 3, 3);
    network.isolate(2);
    let context = network.ticket(2);
    for tick in 0..=12 {
        assert_eq!(dropped(&network.last_effects), [0_u64; 0], "at tick {tick}");
        network.tick(2);
    }
    assert_eq!(dropped(&network.last_effects), [context]);
}

#[test]
fn a_lost_request_is_dropped_in_time() {
    let mut network = Network::new(1, 3, 3);
    network.elect(1);
    network.settle();
    network.ticket(2);
    network.wire.clear();
    for _ in 0..13 {
        network.tick_all();
    }
    assert_eq!(network.seen["ticket dropped"], 1);
    assert_eq!(network.open_tickets(), 0);
}

#[test]
fn a_stale_leader_answers_nothing() {
    let mut network = Network::new(1, 3, 3);
    network.elect(1);
    network.isolate(1);
    network.ticket(1);
    for _ in 0..4 {
        network.tick(1);
        network.settle();
    }
    assert!(network.group(1).is_leader(), "it does not know yet");
    assert_eq!(network.open_tickets(), 1);
    network.elect(2);
    network.propose(2, &["unknown to node 1"]);
    network.settle();
    for _ in 0..12 {
        network.tick(1);
    }
    assert_eq!(network.seen["ticket dropped"], 1);
    assert_eq!(network.seen.get("ticket ready"), None);
}

#[test]
fn asked_tickets_are_dropped_when_the_leader_changes() {
    let mut network = Network::new(1, 3, 3);
    network.elect(1);
    network.settle();
    let context = network.ticket(2);
    let late: Vec<_> = network.wire.drain(..).collect();
    let out = network.input(2, Input::Message(message(Kind::Heartbeat, 3, 2, 9)));
    assert_eq!(dropped(&out), [context]);
    assert_eq!(late.len(), 1);
}

#[test]
fn an_answer_to_another_start_or_node_is_no_answer() {
    let mut network = Network::new(1, 3, 3);
    network.elect(1);
    network.settle();
    network.input(2, Input::Ticket(77));
    network.settle_until_sent(Kind::ReadIndexAnswer);
    let answer = network.wire.pop_back().unwrap();
    assert_eq!(answer.kind, Kind::ReadIndexAnswer as u32);
    let name = answer.entries[0].data.clone();
    let mut other = |change: fn(&mut Vec<u8>)| {
        let mut wrong = answer.clone();
        let mut bytes = name.to_vec();
        change(&mut bytes);
        wrong.entries[0].data = bytes.into();
        let out = network.input(2, Input::Message(wrong));
        assert_eq!(ignored(&out), [Ignored::Stale]);
    };
    other(|name| name[7] ^= 1);
    other(|name| name[15] ^= 1);
    other(|name| name[23] ^= 1);
    other(|name| name.push(0));
    other(Vec::clear);
    let out = step(
        network.nodes.get_mut(&2).unwrap().group.as_mut().unwrap(),
        Input::Message(answer.clone()),
    );
    assert_eq!(ready(&out), [(77, answer.index)]);
    // Once is enough.
    let out = network.input(2, Input::Message(answer));
    assert_eq!(ignored(&out), [Ignored::Stale]);
}

#[test]
fn there_is_a_limit_to_open_tickets() {
    let mut config = config(1);
    config.tickets_max = 2;
    let recovered = Recovered::first(voters([1, 2, 3]));
    let mut group = Group::new(config, recovered, Box::new(Seeded(1))).unwrap();
    assert_eq!(dropped(&step(&mut group, Input::Ticket(1))), [0_u64; 0]);
    assert_eq!(dropped(&step(&mut group, Input::Ticket(2))), [0_u64; 0]);
    assert_eq!(dropped(&step(&mut group, Input::Ticket(3))), [3]);
}
