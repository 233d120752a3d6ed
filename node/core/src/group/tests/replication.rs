//! Proposing, batching, flow control, truncation.

use super::*;

#[test]
fn only_a_leader_proposes() {
    let mut network = Network::new(1, 3, 3);
    let out = network.propose(2, &["a"]);
    assert_eq!(refusals(&out), [Refusal::NotLeader]);
    network.elect(1);
    let out = network.propose(2, &["a"]);
    assert_eq!(out, [Effect::Refused(Refusal::NotLeader)], "it is not passed on");
}

#[test]
fn empty_commands_are_refused_whole() {
    let mut network = Network::new(1, 1, 1);
    network.elect(1);
    let last = network.group(1).last_index();
    assert_eq!(refusals(&network.propose(1, &[])), [Refusal::Empty]);
    assert_eq!(refusals(&network.propose(1, &["a", ""])), [Refusal::Empty]);
    assert_eq!(network.group(1).last_index(), last);
}

#[test]
fn what_is_uncommitted_is_limited() {
    let mut network = Network::new(1, 3, 3);
    network.elect(1);
    network.isolate(1);
    let large = "x".repeat(3000);
    assert_eq!(refusals(&network.propose(1, &[&large])), []);
    assert_eq!(refusals(&network.propose(1, &[&large])), [Refusal::Full]);
    assert_eq!(refusals(&network.propose(1, &["y"])), []);
    // A change is measured like any other, and leaves no trace when refused.
    assert_eq!(refusals(&network.propose(1, &[&"z".repeat(998)])), []);
    let change = Change::one(ChangeStep::AddLearner(NodeId(4)));
    let out = network.input(1, Input::ProposeChange { change, context: Bytes::new() });
    assert_eq!(refusals(&out), [Refusal::Full]);
    assert!(!network.group(1).is_change_pending());
    network.heal();
    for _ in 0..10 {
        network.tick_all();
    }
    assert_eq!(network.group(1).uncommitted_bytes(), 0);
    // One is always taken, however large.
    assert_eq!(refusals(&network.propose(1, &[&"x".repeat(9000)])), []);
}

#[test]
fn entries_travel_in_batches_within_limits() {
    let mut network = Network::new(1, 3, 3);
    network.elect(1);
    network.settle();
    network.isolate(2);
    let commands: Vec<_> = (0..60).map(|n| format!("{n:050}")).collect();
    let commands: Vec<_> = commands.iter().map(String::as_str).collect();
    let out = network.propose(1, &commands);
    let batch: Vec<_> = messages(&out).into_iter().filter(|message| message.to == 3).collect();
    let bytes: usize = batch[0].entries.iter().map(|entry| entry.data.len()).sum();
    assert!(batch.len() == 1 && (750..=1000).contains(&bytes), "{bytes}");
    network.heal();
    for _ in 0..10 {
        network.tick_all();
    }
    for id in [2, 3] {
        assert_eq!(network.nodes[&id].state, network.nodes[&1].state);
    }
}

#[test]
fn unanswered_messages_are_limited() {
    let mut network = Network::new(1, 3, 3);
    network.elect(1);
    network.settle();
    let mut count = 0;
    for _ in 0..10 {
        let out = network.propose(1, &["a"]);
        count += sent(&out).iter().filter(|sent| **sent == (Kind::Append, 3)).count();
    }
    assert_eq!(count, 4);
}

#[test]
fn truncation_keeps_to_the_state() {
    let mut network = Network::new(1, 1, 1);
    network.elect(1);
    network.propose(1, &["a", "b", "c"]);
    network.persist(1, usize::MAX);
    network.apply(1, 2);
    let applied = network.group(1).applied().index;
    assert_eq!(network.input(1, Input::Truncate { index: applied + 1 }), []);
    let out = network.input(1, Input::Truncate { index: applied });
    assert_eq!(out, [Effect::Truncate(network.group(1).applied())]);
    assert_eq!(network.input(1, Input::Truncate { index: applied }), []);
    assert_eq!(network.group(1).truncated().index, applied);
    // The term before the first entry is still known: the log goes on.
    network.propose(1, &["d"]);
    network.settle();
    assert_eq!(network.group(1).applied().index, network.committed());
}

#[test]
#[should_panic(expected = "applied 9")]
fn applying_what_was_never_handed_out_is_a_bug() {
    let mut group = start(1, Recovered::first(voters([1])));
    step(&mut group, Input::Applied { index: 9 });
}

#[test]
fn a_leader_knows_its_members() {
    let mut network = Network::new(1, 3, 4);
    network.elect(1);
    let change = Change::one(ChangeStep::AddLearner(NodeId(4)));
    network.input(1, Input::ProposeChange { change, context: Bytes::new() });
    network.settle();
    network.isolate(3);
    network.propose(1, &["a"]);
    for _ in 0..20 {
        network.tick_all();
    }
    let progress = network.group(1).progress();
    let last = network.group(1).last_index();
    let nodes: Vec<_> = progress.iter().map(|progress| progress.node.0).collect();
    assert_eq!(nodes, [1, 2, 3, 4]);
    let matched: Vec<_> = progress.iter().map(|progress| progress.matched == last).collect();
    assert_eq!(matched, [true, true, false, true]);
    let active: Vec<_> = progress.iter().map(|progress| progress.is_recently_active).collect();
    assert_eq!(active, [true, true, false, true]);
    assert_eq!(
        progress.iter().map(|p| p.is_learner).collect::<Vec<_>>(),
        [false, false, false, true]
    );
    assert!(network.group(2).progress().is_empty());
}
