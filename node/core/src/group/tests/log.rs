//! The log in memory, entries and changes in their encodings.

use protobuf::Message as _;
use raft::{GetEntriesContext, Storage};

use super::*;

fn log() -> Log {
    let mut recovered = Recovered::first(voters([1]));
    recovered.truncated = Recovered::FIRST;
    Log::new(recovered)
}

fn indexes(log: &Log, low: u64, high: u64, bytes_max: Option<u64>) -> Vec<u64> {
    let entries = log.entries(low, high, bytes_max, GetEntriesContext::empty(false)).unwrap();
    entries.iter().map(|entry| entry.index).collect()
}

#[test]
fn appending_replaces_the_tail() {
    let mut log = log();
    log.append(&[entry(2, 1, "a"), entry(3, 1, "b"), entry(4, 1, "c")]);
    assert_eq!(log.last(), Position { index: 4, term: 1 });
    log.append(&[entry(3, 2, "longer")]);
    assert_eq!(log.last(), Position { index: 3, term: 2 });
    assert_eq!(log.bytes(), 2 * entry::ENTRY_OVERHEAD_BYTES + 7);
    log.append(&[]);
    assert_eq!(log.position(4), None);
    assert_eq!(log.position(1), Some(Recovered::FIRST));
    assert_eq!(log.position(0), None);
}

#[test]
fn truncating_keeps_the_term_before_the_first_entry() {
    let mut log = log();
    let entries: Vec<_> = (2..200).map(|index| entry(index, index / 50 + 1, "12345")).collect();
    log.append(&entries);
    log.set_applied(Position { index: 180, term: 4 });
    assert_eq!(log.truncate(150), Some(Position { index: 150, term: 4 }));
    assert_eq!(log.truncate(150), None);
    assert_eq!(log.truncate(3), None);
    assert_eq!(log.first_index(), Ok(151));
    assert_eq!(log.term(150), Ok(4));
    assert!(log.term(149).is_err() && log.term(200).is_err());
    assert_eq!(log.bytes(), 49 * (entry::ENTRY_OVERHEAD_BYTES + 5));
    assert!(log.entries(150, 152, None, GetEntriesContext::empty(false)).is_err());
    assert_eq!(indexes(&log, 151, 154, None), [151, 152, 153]);
    log.reset(Position { index: 500, term: 9 });
    assert_eq!((log.bytes(), log.last()), (0, Position { index: 500, term: 9 }));
    assert_eq!(log.position(180), None);
}

#[test]
fn reading_keeps_to_the_limit_but_always_gets_on() {
    let mut log = log();
    log.append(&[entry(2, 1, "a"), entry(3, 1, "b"), entry(4, 1, "c")]);
    let one = entry(2, 1, "a").wire_bytes() as u64;
    assert_eq!(indexes(&log, 2, 5, Some(0)), [2]);
    assert_eq!(indexes(&log, 2, 5, Some(2 * one - 1)), [2]);
    assert_eq!(indexes(&log, 2, 5, Some(2 * one)), [2, 3]);
    assert_eq!(indexes(&log, 3, 4, Some(u64::MAX)), [3]);
    assert_eq!(indexes(&log, 5, 5, None), [0; 0]);
}

#[test]
fn reading_copies_no_data() {
    let mut log = log();
    let data = command("a command");
    log.append(&[Entry { data: data.clone(), ..entry(2, 1, "") }]);
    let entries = log.entries(2, 3, None, GetEntriesContext::empty(false)).unwrap();
    assert_eq!(entries[0].data.as_ptr(), data.as_ptr());
    assert_eq!(message::entry_from_raft(entries[0].clone()).data.as_ptr(), data.as_ptr());
}

#[test]
fn a_snapshot_waits_until_the_state_knows_the_receiver() {
    let mut log = log();
    log.append(&[entry(2, 1, "a")]);
    log.set_applied(Position { index: 2, term: 1 });
    assert!(log.snapshot(0, 7).is_err());
    log.set_applied_conf(ConfState { learners: vec![7], ..voters([1]) });
    assert!(log.snapshot(3, 7).is_err());
    let snapshot = log.snapshot(0, 7).unwrap();
    assert_eq!(snapshot.get_metadata().index, 2);
    assert_eq!(snapshot.get_metadata().get_conf_state().get_learners(), [7]);
}

#[test]
fn changes_are_encoded_as_raft_reads_them() {
    let steps = [
        ChangeStep::AddVoter(NodeId(1)),
        ChangeStep::AddLearner(NodeId(u64::MAX)),
        ChangeStep::Remove(NodeId(300)),
    ];
    for count in 0..=3 {
        let change = Change { steps: steps[..count].to_vec() };
        let bytes = change.encode();
        let mut raft_change = eraftpb::ConfChangeV2::default();
        raft_change.merge_from_bytes(&bytes).unwrap();
        assert_eq!(raft_change, change.to_raft());
        assert_eq!(Change::decode(bytes), Some(change));
    }
    assert_eq!(Change::default().encode(), Bytes::new());
}

#[test]
fn what_is_no_change_is_not_decoded() {
    let encoded = |change: &eraftpb::ConfChangeV2| Bytes::from(change.write_to_bytes().unwrap());
    let good = Change::one(ChangeStep::Remove(NodeId(4))).to_raft();
    assert!(Change::decode(encoded(&good)).is_some());
    let mut explicit = good.clone();
    explicit.set_transition(eraftpb::ConfChangeTransition::Explicit);
    assert_eq!(Change::decode(encoded(&explicit)), None);
    let mut nobody = good.clone();
    nobody.mut_changes()[0].node_id = 0;
    assert_eq!(Change::decode(encoded(&nobody)), None);
    let mut with_context = good;
    with_context.context = command("context");
    assert_eq!(Change::decode(encoded(&with_context)), None);
    assert_eq!(Change::decode(Bytes::from_static(&[0x12, 0x02, 0x08, 0x09])), None);
    assert_eq!(Change::decode(Bytes::from_static(b"\xff\xff")), None);
}

#[test]
fn impossible_memberships_are_recognised() {
    let joint = ConfState {
        voters: vec![1, 2],
        learners: vec![6],
        voters_outgoing: vec![1, 3],
        learners_next: vec![3],
        auto_leave: true,
    };
    assert_eq!(conf::check(&joint), Ok(()));
    let check = |change: fn(&mut ConfState)| {
        let mut conf = joint.clone();
        change(&mut conf);
        assert!(conf::check(&conf).is_err(), "{conf:?}");
    };
    check(|c| c.voters.clear());
    check(|c| c.voters.push(0));
    check(|c| c.learners.push(6));
    check(|c| c.voters.push(1));
    check(|c| c.learners.push(2));
    check(|c| c.learners.push(3));
    check(|c| c.learners_next.push(4));
    check(|c| c.learners_next.push(1));
    check(|c| {
        c.voters_outgoing.clear();
        c.learners_next.clear();
    });
    check(|c| c.voters = (1..=5000).collect());
    for conf in [&joint, &voters([3, 1, 2])] {
        let raft_conf = conf::to_raft(conf);
        let mut sorted = conf.clone();
        sorted.voters.sort_unstable();
        assert_eq!(conf::from_raft(&raft_conf), sorted);
    }
}
