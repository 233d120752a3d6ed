//! Adding, promoting, removing; joint memberships; leaders that remove themselves.

use super::*;

fn propose(network: &mut Network, steps: &[ChangeStep]) -> Vec<Effect> {
    let leader = network.leader().unwrap();
    let change = Change { steps: steps.to_vec() };
    network.input(leader, Input::ProposeChange { change, context: command("member") })
}

fn learner(id: u64) -> ChangeStep {
    ChangeStep::AddLearner(NodeId(id))
}

fn voter(id: u64) -> ChangeStep {
    ChangeStep::AddVoter(NodeId(id))
}

fn remove(id: u64) -> ChangeStep {
    ChangeStep::Remove(NodeId(id))
}

#[test]
fn a_learner_is_added_promoted_and_removed() {
    let mut network = Network::new(1, 3, 4);
    network.elect(1);
    let out = propose(&mut network, &[learner(4)]);
    assert!(matches!(out[0], Effect::Proposed { count: 1, .. }));
    assert!(network.group(1).is_change_pending());
    network.settle();
    // The log of the first members starts after their first state, so this took a snapshot.
    assert_eq!(network.seen["install"], 1);
    assert_eq!(network.nodes[&4].state, network.nodes[&1].state);
    assert!(network.group(4).is_learner() && !network.group(4).is_change_pending());
    propose(&mut network, &[voter(4)]);
    network.settle();
    assert_eq!(network.group(4).conf(), voters([1, 2, 3, 4]));
    assert!(!network.group(4).is_learner());
    propose(&mut network, &[remove(4)]);
    network.settle();
    assert_eq!(network.group(1).conf(), voters([1, 2, 3]));
}

#[test]
fn the_change_and_its_context_come_back_together() {
    let mut network = Network::new(1, 1, 2);
    network.elect(1);
    propose(&mut network, &[learner(2)]);
    network.persist(1, usize::MAX);
    let out = network.last_effects.clone();
    let at = out.iter().position(|effect| matches!(effect, Effect::ConfApplied { .. })).unwrap();
    let conf = ConfState { learners: vec![2], ..voters([1]) };
    let index = network.group(1).last_index();
    let change = Some(Change::one(learner(2)));
    assert_eq!(out[at], Effect::ConfApplied { index, change, conf });
    let Effect::Commit(entries) = &out[at + 1] else { panic!("{:?}", out[at + 1]) };
    let last = entries.last().unwrap();
    assert_eq!((last.index, last.kind), (index, EntryKind::Change));
    assert_eq!(last.context, command("member"));
}

#[test]
fn changes_that_do_not_fit_are_refused() {
    let mut network = Network::new(1, 1, 3);
    let change = Change::one(learner(2));
    let out = network.input(1, Input::ProposeChange { change, context: Bytes::new() });
    assert_eq!(refusals(&out), [Refusal::NotLeader]);
    network.elect(1);
    let last = network.group(1).last_index();
    for steps in [&[][..], &[remove(1)], &[learner(1)], &[learner(0)], &[voter(0)]] {
        assert_eq!(refusals(&propose(&mut network, steps)), [Refusal::ChangeInvalid]);
    }
    assert_eq!(network.group(1).last_index(), last, "nothing was put in their place");
    propose(&mut network, &[learner(2)]);
    assert_eq!(refusals(&propose(&mut network, &[learner(3)])), [Refusal::ChangePending]);
    // Committed, but not applied: still pending.
    network.persist(1, usize::MAX);
    assert_eq!(refusals(&propose(&mut network, &[learner(3)])), [Refusal::ChangePending]);
    network.settle();
    assert_eq!(refusals(&propose(&mut network, &[learner(3)])), []);
}

/// A new leader cannot know whether its predecessor's last entries hold a change.
#[test]
fn a_new_leader_changes_nothing_before_its_inheritance_is_applied() {
    let mut network = Network::new(1, 1, 2);
    network.input(1, Input::Campaign);
    network.persist(1, usize::MAX);
    network.settle();
    network.propose(1, &["a"]);
    network.persist(1, usize::MAX);
    network.crash(1, 0);
    network.restart(1);
    network.input(1, Input::Campaign);
    network.persist(1, usize::MAX);
    assert!(network.group(1).is_established());
    assert_eq!(refusals(&propose(&mut network, &[learner(2)])), [Refusal::ChangePending]);
    network.apply(1, usize::MAX);
    assert_eq!(refusals(&propose(&mut network, &[learner(2)])), []);
}

#[test]
fn several_steps_go_through_a_joint_membership() {
    let mut network = Network::new(1, 3, 5);
    network.elect(1);
    propose(&mut network, &[voter(4), voter(5), remove(2), remove(3)]);
    for _ in 0..5 {
        network.tick_all();
    }
    assert!(network.seen["joint"] > 0);
    assert_eq!(network.group(1).conf(), voters([1, 4, 5]));
    network.propose(1, &["a"]);
    network.settle();
    assert_eq!(network.nodes[&5].state, network.nodes[&1].state);
}

/// raft-rs leaves a joint membership when its leader applies the change. Here the leader that
/// entered it goes away first, and its successor has applied the change before it is elected.
#[test]
fn a_joint_membership_is_left_after_the_leader_changed() {
    let mut network = Network::new(1, 4, 4);
    network.elect(1);
    propose(&mut network, &[learner(1), learner(4)]);
    // Everyone commits and applies the change, but the leader reports it as applied never.
    for _ in 0..30 {
        network.deliver(0);
        for id in 1..=4 {
            network.persist(id, usize::MAX);
        }
        for id in 2..=4 {
            network.apply(id, usize::MAX);
        }
    }
    assert!(!network.group(2).conf().voters_outgoing.is_empty());
    network.crash(1, 0);
    network.elect(2);
    network.restart(1);
    for _ in 0..20 {
        network.tick_all();
    }
    let conf = ConfState { learners: vec![1, 4], ..voters([2, 3]) };
    for id in 1..=4 {
        assert_eq!(network.group(id).conf(), conf);
    }
}

/// It has just taken over a state and applies late. raft-rs forgets a demand to campaign that finds a change
/// which is not applied, and the leader would take no proposals until it gives up.
#[test]
fn a_voter_that_has_yet_to_apply_that_it_votes_is_handed_the_leadership() {
    let mut network = Network::new(1, 3, 4);
    network.elect(1);
    propose(&mut network, &[learner(4)]);
    network.settle();
    propose(&mut network, &[voter(4)]);
    let all_but_apply_4 = |network: &mut Network| {
        for _ in 0..30 {
            network.deliver(0);
            for id in 1..=4 {
                network.persist(id, usize::MAX);
            }
            for id in 1..=3 {
                network.apply(id, usize::MAX);
            }
        }
    };
    all_but_apply_4(&mut network);
    assert!(network.unapplied(4) > 0 && !network.group(4).is_learner());
    network.input(1, Input::Transfer(NodeId(4)));
    all_but_apply_4(&mut network);
    assert_eq!((network.leader(), network.group(1).transferee()), (Some(1), Some(NodeId(4))));
    network.settle();
    assert_eq!(network.leader(), Some(4));
}

/// A demand of a leadership that is over is not met later.
#[test]
fn a_demand_to_campaign_ends_with_the_leader_that_made_it() {
    let mut network = Network::new(1, 3, 4);
    network.elect(1);
    propose(&mut network, &[learner(4)]);
    network.settle();
    propose(&mut network, &[voter(4)]);
    for _ in 0..30 {
        network.deliver(0);
        for id in 1..=4 {
            network.persist(id, usize::MAX);
        }
    }
    let term = network.group(4).role().term;
    network.input(4, Input::Message(message(Kind::TimeoutNow, 1, 4, term)));
    network.input(4, Input::Message(message(Kind::Heartbeat, 2, 4, term + 1)));
    network.persist(4, usize::MAX);
    network.apply(4, usize::MAX);
    assert_eq!(
        (network.group(4).role().part, network.group(4).role().term),
        (Part::Follower, term + 1)
    );
}

/// However it came about that raft-rs does not leave a joint membership by itself.
#[test]
fn a_joint_membership_that_raft_forgot_is_left() {
    let mut network = Network::new(1, 3, 3);
    network.elect(1);
    propose(&mut network, &[learner(2), learner(3)]);
    while network.group(1).conf().voters_outgoing.is_empty() {
        for id in 1..=3 {
            network.persist(id, usize::MAX);
        }
        network.deliver(0);
    }
    let leader = network.nodes.get_mut(&1).unwrap().group.as_mut().unwrap();
    leader.raft.raft.pending_conf_index = 0;
    network.settle();
    assert_eq!(network.group(1).conf().learners, [2, 3]);
    assert_eq!(network.group(1).conf().voters_outgoing, [0; 0]);
}

/// raft-rs would let it go on: it would answer reads all alone, and panic at the next answer.
#[test]
fn a_leader_that_is_removed_steps_down() {
    let mut network = Network::new(1, 2, 2);
    network.elect(1);
    propose(&mut network, &[remove(1)]);
    network.settle();
    assert!(!network.group(1).is_leader());
    assert_eq!(network.group(2).conf(), voters([2]), "the other learned of it");
    let ticket = network.ticket(1);
    assert!(network.nodes[&1].group.is_some() && ticket > 0);
    network.elect(2);
    network.propose(2, &["a"]);
    for _ in 0..30 {
        network.tick_all();
    }
    assert_eq!(network.leader(), Some(2));
    assert_eq!(network.open_tickets(), 0);
    assert_eq!(network.seen.get("ticket ready"), None);
}

#[test]
fn a_leader_that_becomes_a_learner_steps_down() {
    let mut network = Network::new(1, 3, 3);
    network.elect(1);
    propose(&mut network, &[learner(1)]);
    for _ in 0..30 {
        network.tick_all();
    }
    assert!(network.group(1).is_learner());
    let leader = network.leader().unwrap();
    assert_ne!(leader, 1);
    network.propose(leader, &["a"]);
    network.settle();
    assert_eq!(network.nodes[&1].state, network.nodes[&leader].state);
}

/// A learner with a wrong address never answers; that costs the voters nothing (M17).
#[test]
fn a_learner_has_no_say() {
    let mut network = Network::new(1, 3, 4);
    network.elect(1);
    network.isolate(4);
    propose(&mut network, &[learner(4)]);
    network.settle();
    network.isolate(3);
    network.propose(1, &["a"]);
    for _ in 0..20 {
        network.tick_all();
    }
    assert_eq!(network.leader(), Some(1));
    assert_eq!(network.group(1).applied().index, network.group(1).last_index());
    network.isolate(2);
    network.propose(1, &["b"]);
    network.settle();
    assert!(network.group(1).commit() < network.group(1).last_index());
}

#[test]
fn a_committed_entry_that_is_no_change_changes_nothing() {
    let mut recovered = Recovered::first(voters([1]));
    recovered.truncated = Recovered::FIRST;
    recovered.hard_state = HardState { term: 1, vote: 0, commit: 4 };
    let bad = |index, data: Bytes| Entry {
        index,
        term: 1,
        kind: EntryKind::Change,
        data,
        context: Bytes::new(),
    };
    recovered.entries = vec![
        bad(2, command("nonsense")),
        bad(3, Change::one(remove(1)).encode()),
        bad(4, Bytes::new()),
    ];
    let mut group = start(1, recovered);
    let out = step(&mut group, Input::Tick);
    assert_eq!(committed(&out), [2, 3, 4]);
    for index in 2..=4 {
        let conf = voters([1]);
        assert!(out.contains(&Effect::ConfApplied { index, change: None, conf }));
    }
}
