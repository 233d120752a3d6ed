//! Votes of replicas that have no state.

use crate::group::{self, Entry, EntryKind, HardState, Kind, Position, Recovered};
use crate::memory::MemoryView;
use crate::proto::internal::RaftMessage;
use crate::range::replica::tests::hand_over::{RANGE, config};
use crate::range::replica::{Effect, Input, Replica};
use crate::time::Time;

pub(super) struct Least;

impl group::Chance for Least {
    fn below(&mut self, _: u64) -> u64 {
        0
    }
}

/// What node 1 hears when it asks node 3 for its vote in term 5, with a log that ends there.
fn votes(log_end: Position, log: Recovered) -> Vec<RaftMessage> {
    let mut replica = Replica::empty(config(3), Time(0), log, Box::new(Least)).unwrap();
    let ask = RaftMessage {
        group: RANGE.0,
        to: 3,
        from: 1,
        kind: Kind::Vote as u32,
        term: 5,
        log_term: log_end.term,
        index: log_end.index,
        ..RaftMessage::default()
    };
    let (store, mut inputs, mut heard) = (MemoryView::new(), vec![Input::Message(ask)], Vec::new());
    while let Some(input) = inputs.pop() {
        let mut out = Vec::new();
        replica.step(Time(0), &store, input, &mut out).unwrap();
        for effect in out {
            match effect {
                Effect::Append(append) => inputs.push(Input::Persisted(append.token)),
                Effect::Send(message) => heard.push(message),
                _ => {}
            }
        }
    }
    heard
}

#[test]
fn who_has_lost_its_state_votes_as_its_log_says() {
    let begin = Position { index: 1, term: 1 };
    let is_given = |heard: &[RaftMessage]| {
        heard.len() == 1 && heard[0].kind == Kind::VoteAnswer as u32 && !heard[0].reject
    };
    assert!(is_given(&votes(begin, Recovered::default())));

    // It has voted before, and had no entry yet.
    let hard_state = HardState { term: 4, vote: 2, commit: 1 };
    assert!(is_given(&votes(begin, Recovered { hard_state, ..Recovered::default() })));
    let same_term = HardState { term: 5, vote: 2, commit: 0 };
    let refused = votes(begin, Recovered { hard_state: same_term, ..Recovered::default() });
    assert!(refused.iter().all(|answer| answer.reject), "one vote in a term: {refused:?}");

    // Others may have counted on these.
    let entry = |index| Entry { index, term: 4, kind: EntryKind::Normal, ..Entry::default() };
    let truncated = begin;
    let entries = vec![entry(2), entry(3)];
    let with_entries = Recovered { hard_state, truncated, entries, ..Recovered::default() };
    let asked = |index, term| votes(Position { index, term }, with_entries.clone());
    assert_eq!(asked(1, 1), []);
    assert_eq!(asked(2, 4), []);
    assert_eq!(asked(9, 3), [], "a longer log of an earlier term has less");
    assert!(is_given(&asked(3, 4)));
    assert!(is_given(&asked(2, 5)), "what it has is not committed");
    let truncated = Position { index: 9, term: 4 };
    let without_entries = Recovered { hard_state, truncated, ..Recovered::default() };
    assert_eq!(votes(begin, without_entries.clone()), []);
    assert!(is_given(&votes(truncated, without_entries)));
}
