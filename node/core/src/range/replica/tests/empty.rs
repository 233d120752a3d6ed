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

/// What node 1 hears when it asks node 3 for its vote in term 5.
fn votes(log: Recovered) -> Vec<RaftMessage> {
    let mut replica = Replica::empty(config(3), Time(0), log, Box::new(Least)).unwrap();
    let ask = RaftMessage {
        group: RANGE.0,
        to: 3,
        from: 1,
        kind: Kind::Vote as u32,
        term: 5,
        log_term: 1,
        index: 1,
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
fn who_never_had_a_state_votes_and_who_may_have_lost_one_does_not() {
    let voted = votes(Recovered::default());
    assert_eq!(voted.len(), 1);
    assert_eq!((voted[0].kind, voted[0].reject), (Kind::VoteAnswer as u32, false));

    // It has voted before, and had no entry yet.
    let hard_state = HardState { term: 4, vote: 2, commit: 1 };
    assert_eq!(votes(Recovered { hard_state, ..Recovered::default() }).len(), 1);
    let same_term = HardState { term: 5, vote: 2, commit: 0 };
    let refused = votes(Recovered { hard_state: same_term, ..Recovered::default() });
    assert!(refused.iter().all(|answer| answer.reject), "one vote in a term: {refused:?}");

    let entry = Entry { index: 2, term: 4, kind: EntryKind::Normal, ..Entry::default() };
    let with_entries = Recovered { hard_state, entries: vec![entry], ..Recovered::default() };
    assert_eq!(votes(with_entries), []);
    let truncated = Position { index: 9, term: 4 };
    assert_eq!(votes(Recovered { hard_state, truncated, ..Recovered::default() }), []);
}
