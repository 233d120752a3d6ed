//! No message can make a node panic or believe what cannot be. The honest ones pass unharmed.

use std::collections::VecDeque;

use prost::Message as _;

use super::*;
use crate::proto::internal::LogEntry;

fn log_entry(index: u64, term: u64) -> LogEntry {
    LogEntry { index, term, data: command("x"), ..LogEntry::default() }
}

/// A follower of node 1 in term 3, with entries 2..=4 of term 3, the first two committed.
fn follower() -> Group {
    let mut group = start(2, Recovered::first(voters([1, 2, 3])));
    let mut append = message(Kind::Append, 1, 2, 3);
    (append.index, append.log_term, append.commit) = (1, 1, 3);
    append.entries = (2..=4).map(|index| log_entry(index, 3)).collect();
    let out = step(&mut group, Input::Message(append));
    let token = appends(&out).last().unwrap().token;
    step(&mut group, Input::Persisted { token });
    assert_eq!((group.commit(), group.last_index()), (3, 4));
    group
}

fn check(group: &mut Group, message: RaftMessage, want: Ignored) {
    let (from, kind) = (NodeId(message.from), message.kind);
    let (role, commit, last) = (group.role(), group.commit(), group.last_index());
    let out = step(group, Input::Message(message));
    assert_eq!(out, [Effect::Ignored { from, kind, reason: want }]);
    assert_eq!((group.role(), group.commit(), group.last_index()), (role, commit, last));
}

#[test]
fn envelopes_are_checked() {
    let group = &mut follower();
    let good = message(Kind::Heartbeat, 1, 2, 3);
    let with = |change: fn(&mut RaftMessage)| {
        let mut message = good.clone();
        change(&mut message);
        message
    };
    check(group, with(|m| m.group = 6), Ignored::Misdirected);
    check(group, with(|m| m.to = 3), Ignored::Misdirected);
    check(group, with(|m| m.from = 0), Ignored::Misdirected);
    check(group, with(|m| m.from = 2), Ignored::Misdirected);
    check(group, with(|m| m.term = 0), Ignored::Malformed);
    check(group, with(|m| m.term = NUMBER_MAX), Ignored::Malformed);
    check(group, with(|m| m.commit = u64::MAX), Ignored::Malformed);
    check(group, with(|m| m.request_snapshot = 1), Ignored::Malformed);
    check(group, with(|m| m.snapshot = Some(SnapshotMark::default())), Ignored::Malformed);
    check(group, with(|m| m.entries.push(log_entry(5, 3))), Ignored::Malformed);
    // Proposals, local kinds, forwarded transfers, unknown numbers, snapshots without data.
    for kind in [0, 1, 2, 7, 10, 11, 12, 13, 19, u32::MAX] {
        check(group, RaftMessage { kind, ..good.clone() }, Ignored::UnknownKind);
    }
    assert_eq!(ignored(&step(group, Input::Message(good))), []);
}

#[test]
fn appends_are_checked() {
    let group = &mut follower();
    let mut good = message(Kind::Append, 1, 2, 3);
    (good.index, good.log_term) = (4, 3);
    good.entries = vec![log_entry(5, 3), log_entry(6, 3)];
    let with = |change: fn(&mut RaftMessage)| {
        let mut message = good.clone();
        change(&mut message);
        message
    };
    check(group, with(|m| m.entries[0].index = 6), Ignored::Malformed);
    check(group, with(|m| m.entries[1].index = 7), Ignored::Malformed);
    check(group, with(|m| m.entries[1].term = 2), Ignored::Malformed);
    check(group, with(|m| m.entries[1].term = 4), Ignored::Malformed);
    check(group, with(|m| m.entries[0].term = 0), Ignored::Malformed);
    check(group, with(|m| m.entries[0].kind = 1), Ignored::Malformed);
    check(group, with(|m| m.entries[0].kind = 9), Ignored::Malformed);
    check(group, with(|m| m.log_term = 4), Ignored::Malformed);
    // raft-rs would match an unknown index with the term zero and tear a hole into the log.
    check(group, with(|m| (m.index, m.log_term) = (9, 0)), Ignored::Malformed);
    let far_off = RaftMessage { index: 9, log_term: 0, entries: vec![], ..good.clone() };
    check(group, far_off, Ignored::Malformed);
    check(group, with(|m| (m.index, m.log_term) = (0, 3)), Ignored::Malformed);
    check(group, with(|m| m.from = 3), Ignored::SecondLeader);
    let out = step(group, Input::Message(good));
    assert_eq!(appends(&out)[0].entries.len(), 2);
}

#[test]
fn a_node_that_lost_entries_says_so() {
    let group = &mut follower();
    let mut heartbeat = message(Kind::Heartbeat, 1, 2, 3);
    heartbeat.commit = 5;
    check(group, heartbeat.clone(), Ignored::LostEntries);
    heartbeat.commit = 4;
    step(group, Input::Message(heartbeat));
    assert_eq!(group.commit(), 4);
}

#[test]
fn only_the_leader_may_demand_a_campaign() {
    let group = &mut follower();
    check(group, message(Kind::TimeoutNow, 3, 2, 3), Ignored::Stale);
    check(group, message(Kind::TimeoutNow, 1, 2, 4), Ignored::Stale);
    step(group, Input::Message(message(Kind::TimeoutNow, 1, 2, 3)));
    assert_eq!((group.role().part, group.role().term), (Part::Candidate, 4));
}

#[test]
fn read_indexes_are_checked() {
    let group = &mut follower();
    let mut request = message(Kind::ReadIndex, 3, 2, 0);
    request.entries = vec![LogEntry { data: command("name"), ..LogEntry::default() }];
    // A follower would pass it on, and panic if it carried a term.
    check(group, request.clone(), Ignored::NotLeader);
    check(group, RaftMessage { term: 3, ..request.clone() }, Ignored::Malformed);
    check(group, RaftMessage { entries: vec![], ..request.clone() }, Ignored::Malformed);
    let answer = RaftMessage { kind: Kind::ReadIndexAnswer as u32, term: 3, ..request.clone() };
    check(group, answer.clone(), Ignored::Stale);
    check(group, RaftMessage { entries: vec![], ..answer }, Ignored::Malformed);

    let mut network = Network::new(1, 3, 3);
    network.elect(1);
    let leader = network.nodes.get_mut(&1).unwrap().group.as_mut().unwrap();
    let stranger = RaftMessage { from: 9, to: 1, ..request };
    check(leader, stranger, Ignored::NotMember);
}

#[test]
fn a_leader_believes_no_impossible_answer() {
    let mut network = Network::new(1, 3, 3);
    network.elect(1);
    let leader = network.nodes.get_mut(&1).unwrap().group.as_mut().unwrap();
    let term = leader.role().term;
    let mut answer = message(Kind::AppendAnswer, 2, 1, term);
    answer.index = leader.last_index() + 1;
    check(leader, answer.clone(), Ignored::Malformed);
    check(leader, RaftMessage { from: 9, index: 1, ..answer }, Ignored::NotMember);
    check(leader, message(Kind::HeartbeatAnswer, 9, 1, term), Ignored::NotMember);
    check(leader, message(Kind::Heartbeat, 2, 1, term), Ignored::SecondLeader);
    check(leader, message(Kind::Append, 2, 1, term), Ignored::SecondLeader);
}

#[test]
fn every_message_survives_the_wire() {
    let mut sent = message(Kind::Append, 1, 2, 3);
    (sent.log_term, sent.index, sent.commit, sent.commit_term) = (2, 8, 7, 2);
    (sent.reject, sent.reject_hint, sent.priority) = (true, 5, -1);
    sent.context = command("context");
    sent.entries =
        vec![log_entry(9, 3), LogEntry { kind: 2, context: command("member"), ..log_entry(10, 3) }];
    let conf = ConfState {
        voters: vec![1, 2],
        learners: vec![6],
        voters_outgoing: vec![1, 3],
        learners_next: vec![3],
        auto_leave: true,
    };
    sent.snapshot = Some(SnapshotMark { index: 4, term: 2, conf: Some(conf) });
    for kind in (0..30).filter_map(Kind::from_number) {
        sent.kind = kind as u32;
        let raft_message = message::to_raft(sent.clone(), kind);
        assert_eq!(message::from_raft(GROUP.0, raft_message), (kind, sent.clone()));
    }
}

/// Real traffic with random damage: a node may ignore it or be misled by it, but not panic.
#[test]
fn damaged_messages_do_no_harm_to_the_process() {
    let seeds = if cfg!(debug_assertions) { 100 } else { 1000 };
    for seed in 0..seeds {
        let mut chance = Seeded(seed);
        let mut groups: Vec<_> =
            (1..=3).map(|id| start(id, Recovered::first(voters([1, 2, 3])))).collect();
        let mut wire = VecDeque::new();
        for _ in 0..600 {
            let group = &mut groups[chance.below(3) as usize];
            match chance.below(10) {
                0..3 => run(group, Input::Tick, &mut wire),
                3 => run(group, Input::Propose(vec![command("command")]), &mut wire),
                4 if chance.is_hit(20) => run(group, snapshot(&mut chance), &mut wire),
                4 => run(group, Input::Ticket(chance.next()), &mut wire),
                _ => {
                    let Some(sent) = wire.pop_front() else { continue };
                    let sent = damage(sent, &mut chance);
                    let to = (sent.to.clamp(1, 3) - 1) as usize;
                    run(&mut groups[to], Input::Message(sent), &mut wire);
                }
            }
            wire.truncate(100);
        }
    }
}

/// Flushes and applies at once: damage is what is tested.
fn run(group: &mut Group, input: Input, wire: &mut VecDeque<RaftMessage>) {
    let mut inputs = vec![input];
    while let Some(input) = inputs.pop() {
        for effect in step(group, input) {
            match effect {
                Effect::Send(message) => wire.push_back(message),
                Effect::Append(append) => inputs.push(Input::Persisted { token: append.token }),
                Effect::Commit(entries) => {
                    let index = entries.last().unwrap().index;
                    inputs.push(Input::Applied { index });
                }
                Effect::Install { .. } => inputs.push(Input::SnapshotInstalled),
                _ => {}
            }
        }
    }
}

/// A snapshot of anything, from anyone.
fn snapshot(chance: &mut Seeded) -> Input {
    let mut ids = || (0..chance.below(4)).map(|_| chance.below(5)).collect();
    let conf = ConfState {
        voters: ids(),
        learners: ids(),
        voters_outgoing: ids(),
        learners_next: ids(),
        auto_leave: chance.is_hit(50),
    };
    let conf = if chance.is_hit(50) { conf } else { voters([1, 2, 3]) };
    let (index, term) = (chance.below(60), chance.below(6));
    let mark = SnapshotMark { index, term, conf: Some(conf) };
    let (from, to) = (chance.below(5), 1 + chance.below(3));
    Input::SnapshotReceived { message: message(Kind::Snapshot, from, to, chance.below(8)), mark }
}

fn damage(mut sent: RaftMessage, chance: &mut Seeded) -> RaftMessage {
    for _ in 0..chance.below(3) {
        let small = chance.below(8);
        let (index, term) = (sent.index.wrapping_add(small), sent.term.wrapping_add(small));
        let number = [small, index, term, u64::MAX][chance.below(4) as usize];
        match chance.below(14) {
            0 => sent.term = number,
            1 => sent.log_term = number,
            2 => sent.index = number,
            3 => sent.commit = number,
            4 => sent.commit_term = number,
            5 => sent.reject = !sent.reject,
            6 => sent.reject_hint = number,
            7 => sent.kind = (number % 20) as u32,
            8 => sent.from = number,
            9 => sent.request_snapshot = number,
            10 => sent.context = command("CampaignTransfer"),
            11 => drop(sent.entries.pop()),
            12 => sent.entries.push(log_entry(number, small)),
            _ => {
                let mut bytes = sent.encode_to_vec();
                let at = chance.below(bytes.len() as u64) as usize;
                bytes[at] ^= 1 << chance.below(8);
                sent = RaftMessage::decode(&bytes[..]).unwrap_or(sent);
            }
        }
    }
    sent
}
