//! Sending the state instead of the log: when, in what order, and what a stale one may do.

use super::*;

fn mark(index: u64, term: u64, conf: ConfState) -> SnapshotMark {
    SnapshotMark { index, term, conf: Some(conf) }
}

fn snapshot(from: u64, to: u64, term: u64, index: u64) -> RaftMessage {
    let snapshot = Some(mark(index, term, voters([1, 2, 3])));
    RaftMessage { snapshot, ..message(Kind::Snapshot, from, to, term) }
}

fn received(group: &mut Group, message: RaftMessage, mark: SnapshotMark) -> Vec<Effect> {
    step(group, Input::SnapshotReceived { message, mark })
}

fn refused(out: &[Effect]) -> Option<Ignored> {
    out.iter().find_map(|effect| match effect {
        Effect::SnapshotRefused(reason) => Some(*reason),
        _ => None,
    })
}

/// A member whose log holds entries of an old leader that nobody else has.
fn diverged() -> Group {
    let mut recovered = Recovered::first(voters([1, 2, 3]));
    recovered.truncated = Recovered::FIRST;
    recovered.hard_state = HardState { term: 2, vote: 0, commit: 1 };
    recovered.entries = (2..=8).map(|index| entry(index, 2, "lost")).collect();
    start(2, recovered)
}

#[test]
fn a_follower_behind_the_log_gets_the_state() {
    let mut network = Network::new(1, 3, 3);
    network.elect(1);
    network.isolate(3);
    network.propose(1, &["a", "b", "c"]);
    network.settle();
    network.checkpoint(1);
    network.truncate(1, 100);
    assert_eq!(network.group(1).truncated(), network.group(1).applied());
    network.propose(1, &["d"]);
    network.settle();
    network.heal();
    for _ in 0..5 {
        network.tick_all();
    }
    assert_eq!(network.seen["install"], 1);
    assert_eq!(network.nodes[&3].state, network.nodes[&1].state);
    assert!(network.group(1).progress().iter().all(|progress| !progress.is_snapshotting));
    // It goes on from there, also after a restart.
    network.propose(1, &["e"]);
    network.settle();
    network.crash(3, 0);
    network.restart(3);
    for _ in 0..5 {
        network.tick_all();
    }
    assert_eq!(network.nodes[&3].state, network.nodes[&1].state);
}

/// The membership may be ahead of the state. A snapshot says where the state stands.
#[test]
fn a_snapshot_speaks_of_the_applied_state() {
    let mut network = Network::new(1, 1, 3);
    network.elect(1);
    let change = Change::one(ChangeStep::AddLearner(NodeId(2)));
    network.input(1, Input::ProposeChange { change, context: Bytes::new() });
    network.settle();
    network.isolate(2);
    network.propose(1, &["a"]);
    network.settle();
    network.checkpoint(1);
    network.truncate(1, 100);
    let applied = network.group(1).applied();
    let change = Change::one(ChangeStep::AddLearner(NodeId(3)));
    network.input(1, Input::ProposeChange { change, context: Bytes::new() });
    network.persist(1, usize::MAX);
    assert_eq!(network.group(1).conf().learners, [2, 3]);
    assert_eq!(network.snapshots.len(), 0, "the state does not know node 3 yet");
    network.heal();
    while network.snapshots.is_empty() {
        network.tick(1);
        for id in 1..=2 {
            network.persist(id, usize::MAX);
        }
        network.deliver(0);
    }
    let message = &network.snapshots[0].message;
    assert_eq!(message.to, 2);
    let conf = ConfState { learners: vec![2], ..voters([1]) };
    assert_eq!(message.snapshot, Some(mark(applied.index, applied.term, conf)));
}

#[test]
fn the_state_comes_before_the_log_and_both_before_the_answer() {
    let mut group = diverged();
    let conf = ConfState { learners: vec![7], ..voters([1, 2, 3]) };
    // The data stands later than the leader's message said.
    let out = received(&mut group, snapshot(1, 2, 3, 5), mark(6, 3, conf.clone()));
    assert_eq!(
        out,
        [
            Effect::Role(Role { part: Part::Follower, leader: Some(NodeId(1)), term: 3 }),
            Effect::Install { mark: mark(6, 3, conf.clone()) },
        ]
    );
    // Entries that follow wait behind the installation.
    let mut append = message(Kind::Append, 1, 2, 3);
    (append.index, append.log_term, append.commit) = (6, 3, 7);
    append.entries = vec![entry(7, 3, "new").into_proto()];
    assert_eq!(step(&mut group, Input::Message(append)), []);
    let again = received(&mut group, snapshot(1, 2, 3, 9), mark(9, 3, voters([1, 2, 3])));
    assert_eq!(refused(&again), Some(Ignored::Busy));

    let appends = appends(&step(&mut group, Input::SnapshotInstalled));
    assert_eq!(appends.len(), 2);
    assert_eq!(appends[0].reset, Some(Position { index: 6, term: 3 }));
    assert!(appends[0].entries.is_empty(), "no conflicting entry is kept");
    assert_eq!(appends[1].entries, [entry(7, 3, "new")]);

    let out = step(&mut group, Input::Persisted { token: appends[0].token });
    assert_eq!(messages(&out)[0].index, 6);
    assert_eq!(group.applied(), Position { index: 6, term: 3 });
    assert_eq!(group.conf(), conf);
    let out = step(&mut group, Input::Persisted { token: appends[1].token });
    assert_eq!(committed(&out), [7]);
    // What was applied before the snapshot may be reported late.
    step(&mut group, Input::Applied { index: 1 });
    assert_eq!(group.applied().index, 6);
}

/// raft-rs would look for entries between the old state and the snapshot, and panic.
#[test]
fn nobody_campaigns_while_a_snapshot_is_installed() {
    let mut group = diverged();
    received(&mut group, snapshot(1, 2, 3, 6), mark(6, 3, voters([1, 2, 3])));
    let check = |group: &mut Group| {
        for _ in 0..50 {
            assert_eq!(step(group, Input::Tick), []);
        }
        assert_eq!(refusals(&step(group, Input::Campaign)), [Refusal::CannotCampaign]);
        let out = step(group, Input::Message(message(Kind::TimeoutNow, 1, 2, 3)));
        assert_eq!(ignored(&out), [Ignored::Busy]);
        assert_eq!(step(group, Input::Truncate { index: 6 }), []);
    };
    check(&mut group);
    let token = appends(&step(&mut group, Input::SnapshotInstalled))[0].token;
    check(&mut group);
    step(&mut group, Input::Persisted { token });
    for _ in 0..12 {
        step(&mut group, Input::Tick);
    }
    assert_eq!(group.role().part, Part::Candidate);
}

#[test]
fn what_is_not_a_good_snapshot_is_refused() {
    let conf = voters([1, 2, 3]);
    let check = |message: RaftMessage, mark: SnapshotMark, want: Ignored| {
        let mut group = diverged();
        let out = received(&mut group, message, mark);
        assert_eq!(refused(&out), Some(want));
        assert_eq!((group.commit(), group.last_index()), (1, 8));
        assert!(!out.iter().any(|effect| matches!(effect, Effect::Install { .. })));
    };
    let good = snapshot(1, 2, 3, 6);
    let sound = mark(6, 3, conf.clone());
    check(RaftMessage { group: 9, ..good.clone() }, sound.clone(), Ignored::Misdirected);
    check(RaftMessage { kind: 3, ..good.clone() }, sound.clone(), Ignored::UnknownKind);
    check(RaftMessage { term: 0, ..good.clone() }, sound.clone(), Ignored::Malformed);
    // Of an earlier term, and no leader is known in whose name it could be taken.
    check(RaftMessage { term: 1, ..good.clone() }, sound.clone(), Ignored::Stale);
    check(good.clone(), mark(0, 3, conf.clone()), Ignored::Malformed);
    check(good.clone(), mark(6, 0, conf.clone()), Ignored::Malformed);
    check(good.clone(), mark(6, 4, conf.clone()), Ignored::Malformed);
    check(good.clone(), mark(u64::MAX, 3, conf), Ignored::Malformed);
    check(good.clone(), SnapshotMark { conf: None, ..sound }, Ignored::Malformed);
    check(good.clone(), mark(6, 3, voters([1, 3])), Ignored::NotMember);
    check(good, mark(6, 3, voters([1, 1, 2])), Ignored::Malformed);
}

#[test]
fn an_old_snapshot_is_answered_with_what_is_known() {
    let mut group = diverged();
    let conf = voters([1, 2, 3]);
    // In the log already: the commit index moves, nothing is installed.
    let out = received(&mut group, snapshot(1, 2, 2, 4), mark(4, 2, conf.clone()));
    assert_eq!(refused(&out), Some(Ignored::NotNeeded));
    assert_eq!((group.commit(), group.last_index()), (4, 8));
    for index in [3, 4] {
        let out = received(&mut group, snapshot(1, 2, 2, index), mark(index, 2, conf.clone()));
        assert_eq!(refused(&out), Some(Ignored::Stale));
        assert_eq!(messages(&out)[0].index, 4, "or the leader would send it for ever");
    }
    // Another entry where one is committed: impossible.
    let out = received(&mut group, snapshot(1, 2, 2, 4), mark(4, 1, conf));
    assert_eq!(refused(&out), Some(Ignored::Malformed));
    assert_eq!(messages(&out), []);
}

/// A long transfer outlives its leader; its data is as good under the next.
#[test]
fn a_snapshot_of_an_earlier_leader_is_taken_in_the_name_of_the_present_one() {
    let mut group = diverged();
    step(&mut group, Input::Message(message(Kind::Heartbeat, 3, 2, 4)));
    let out = received(&mut group, snapshot(1, 2, 3, 6), mark(6, 3, voters([1, 2, 3])));
    assert_eq!(refused(&out), None);
    let append = appends(&step(&mut group, Input::SnapshotInstalled)).pop().unwrap();
    assert_eq!(append.reset, Some(Position { index: 6, term: 3 }));
    let out = step(&mut group, Input::Persisted { token: append.token });
    let answer = messages(&out).pop().unwrap();
    assert_eq!((answer.to, answer.term, answer.index), (3, 4, 6));
    assert_eq!(group.role().leader, Some(NodeId(3)));
}

#[test]
fn a_failed_snapshot_is_sent_again() {
    let mut network = Network::new(1, 3, 4);
    network.elect(1);
    let change = Change::one(ChangeStep::AddLearner(NodeId(4)));
    network.input(1, Input::ProposeChange { change, context: Bytes::new() });
    for _ in 0..10 {
        while !network.wire.is_empty() {
            network.deliver(0);
        }
        for id in 1..=4 {
            network.persist(id, usize::MAX);
            network.apply(id, usize::MAX);
        }
        network.deliver_snapshot(false);
        network.tick(1);
    }
    assert_eq!(network.seen.get("install"), None);
    for _ in 0..5 {
        network.tick_all();
    }
    assert_eq!(network.nodes[&4].state, network.nodes[&1].state);
}

#[test]
#[should_panic(expected = "no snapshot was to be installed")]
fn installing_what_was_never_asked_for_is_a_bug() {
    step(&mut diverged(), Input::SnapshotInstalled);
}

/// A member whose state was lost, with entries after 4 that it has vouched for.
fn without_state() -> Group {
    let recovered = Recovered {
        hard_state: HardState { term: 3, vote: 0, commit: 4 },
        truncated: Position { index: 4, term: 2 },
        entries: (5..=8).map(|index| entry(index, 2 + u64::from(index > 6), "kept")).collect(),
        ..Recovered::default()
    };
    Group::empty(config(2), recovered, Box::new(Seeded(2))).unwrap()
}

#[test]
fn entries_that_were_vouched_for_outlive_the_state_before_them() {
    let conf = voters([1, 2, 3]);
    let check = |index: u64, term: u64, kept: &[Entry]| {
        let mut group = without_state();
        let out = received(&mut group, snapshot(1, 2, 3, index), mark(index, term, conf.clone()));
        assert_eq!(refused(&out), None);
        let appends = appends(&step(&mut group, Input::SnapshotInstalled));
        assert_eq!(appends.len(), 1, "nothing may come between the two on the disk");
        assert_eq!(appends[0].reset, Some(Position { index, term }));
        assert_eq!(appends[0].entries, kept);
        let out = step(&mut group, Input::Persisted { token: appends[0].token });
        assert_eq!(messages(&out)[0].index, index, "the leader is told of the state alone");
        assert_eq!(group.last_index(), index + kept.len() as u64);
    };
    let kept = [entry(6, 2, "kept"), entry(7, 3, "kept"), entry(8, 3, "kept")];
    check(5, 2, &kept);
    check(4, 2, &[entry(5, 2, "kept"), kept[0].clone(), kept[1].clone(), kept[2].clone()]);
    check(8, 3, &[]);
    check(9, 3, &[]);
    // The leader's history is another: what was kept was never committed.
    check(6, 3, &[]);
    // A state from before all that it has: committed entries between the two would be missing.
    let out = received(&mut without_state(), snapshot(1, 2, 3, 3), mark(3, 2, conf.clone()));
    assert_eq!(refused(&out), Some(Ignored::Stale));
}

/// In step with the leader, and with an entry that is not committed yet.
#[test]
fn a_member_with_a_wrong_state_is_sent_the_right_one() {
    let mut network = Network::new(1, 3, 3);
    network.elect(1);
    network.propose(1, &["a", "b"]);
    network.settle();
    network.input(1, Input::RequestSnapshot);
    assert_eq!(network.seen.get("install"), None, "a leader has nobody to ask");
    network.input(2, Input::RequestSnapshot);
    network.tick_all();
    assert_eq!(network.seen.get("install"), Some(&1));
    network.propose(1, &["c"]);
    network.settle();
    (0..3).for_each(|_| network.tick_all());
    assert_eq!(network.seen.get("install"), Some(&1), "it was asked for once");
    assert_eq!(network.nodes[&2].state, network.nodes[&1].state);
}

/// The third member is gone, so nothing is committed without the one that asks.
#[test]
fn whoever_asks_for_the_state_holds_nothing_up() {
    let mut network = Network::new(1, 3, 3);
    network.elect(1);
    network.isolate(3);
    // It has the entry, and the leader does not know so.
    network.propose(1, &["a"]);
    network.persist(1, usize::MAX);
    while !network.wire.is_empty() {
        network.deliver(0);
    }
    network.persist(2, usize::MAX);
    network.wire.clear();
    let last = network.group(2).last_index();
    assert!(network.group(1).commit() < last && network.group(1).last_index() == last);
    network.input(2, Input::RequestSnapshot);
    while network.snapshots.is_empty() {
        network.tick(1);
        while !network.wire.is_empty() {
            network.deliver(0);
        }
    }
    network.deliver_snapshot(true);
    assert_eq!(network.group(2).last_index(), last, "it has vouched for what the state lacks");
    for _ in 0..3 {
        network.tick_all();
    }
    assert_eq!(network.seen.get("install"), Some(&1));
    assert_eq!((network.group(1).commit(), network.group(2).commit()), (last, last));
    assert_eq!(network.nodes[&2].state, network.nodes[&1].state);
}
