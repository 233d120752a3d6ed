//! Starting from what is on disk: what a crash explains is mended, everything else is refused.

use super::*;

fn recovered() -> Recovered {
    Recovered {
        hard_state: HardState { term: 3, vote: 2, commit: 4 },
        truncated: Position { index: 2, term: 1 },
        entries: vec![entry(3, 1, "a"), entry(4, 2, "b"), entry(5, 3, "c")],
        applied: Position { index: 3, term: 1 },
        conf: voters([1, 2, 3]),
    }
}

fn error(change: impl Fn(&mut Recovered)) -> Error {
    let mut recovered = recovered();
    change(&mut recovered);
    Group::new(config(1), recovered, Box::new(Seeded(1))).err().expect("it is refused")
}

#[test]
fn a_node_goes_on_where_it_stopped() {
    let mut group = start(1, recovered());
    assert_eq!((group.commit(), group.last_index(), group.role().term), (4, 5, 3));
    assert_eq!(group.applied().index, 3);
    // What was committed and not applied comes again, and nothing else.
    assert_eq!(committed(&step(&mut group, Input::Tick)), [4]);
    assert_eq!(step(&mut group, Input::Tick), []);
}

#[test]
fn an_applied_entry_is_committed_whatever_was_flushed() {
    let mut recovered = recovered();
    recovered.hard_state.commit = 0;
    recovered.applied = Position { index: 5, term: 3 };
    assert_eq!(start(1, recovered).commit(), 5);
}

#[test]
fn damage_is_refused() {
    assert_eq!(error(|r| r.entries[1].index = 5), Error::Gap { after: 3, index: 5, term: 2 });
    assert_eq!(error(|r| r.entries[2].term = 1), Error::Gap { after: 4, index: 5, term: 1 });
    assert_eq!(error(|r| drop(r.entries.remove(0))), Error::Gap { after: 2, index: 4, term: 2 });
    assert_eq!(error(|r| r.hard_state.term = 2), Error::TermLost { stored: 2, found: 3 });
    assert_eq!(error(|r| r.hard_state.commit = 6), Error::LogLost { last: 5, commit: 6 });
    assert_eq!(
        error(|r| r.applied = Position { index: 1, term: 1 }),
        Error::StateBehindLog { applied: 1, truncated: 2 }
    );
    // Committed as (4, 2): no snapshot can have put another entry there.
    assert_eq!(
        error(|r| r.applied = Position { index: 4, term: 3 }),
        Error::StateDisagrees { applied: 4 }
    );
    assert!(matches!(error(|r| r.conf.voters.clear()), Error::Conf(_)));
    assert!(matches!(error(|r| r.conf.learners = vec![1]), Error::Conf(_)));
    let without_state = |r: &mut Recovered| {
        *r = Recovered { conf: r.conf.clone(), ..Recovered::joining() };
    };
    assert_eq!(error(without_state), Error::ConfWithoutState);
}

#[test]
fn wrong_limits_are_refused() {
    let refused = |change: fn(&mut Config)| {
        let mut config = config(1);
        change(&mut config);
        let result = Group::new(config, recovered(), Box::new(Seeded(1)));
        assert!(matches!(result.err(), Some(Error::Config(_))));
    };
    refused(|c| c.id = NodeId(0));
    refused(|c| c.heartbeat_ticks = 0);
    refused(|c| c.election_ticks = c.heartbeat_ticks);
    refused(|c| c.inflight_messages_max = 0);
    refused(|c| c.uncommitted_bytes_max = 1);
}

/// A snapshot was installed, and the crash came before the log was reset.
#[test]
fn a_log_that_the_state_left_behind_starts_anew() {
    for applied in [Position { index: 5, term: 4 }, Position { index: 9, term: 4 }] {
        let mut group = start(1, Recovered { applied, ..recovered() });
        assert_eq!((group.last_index(), group.commit()), (applied.index, applied.index));
        let out = step(&mut group, Input::Tick);
        let hard_state = HardState { term: 4, vote: 0, commit: applied.index };
        let want = Append { token: 0, reset: Some(applied), hard_state, entries: vec![] };
        assert_eq!(out, [Effect::Append(want)]);
        // Nothing is promised on top of it before it is on disk.
        let mut append = message(Kind::Append, 2, 1, 4);
        (append.index, append.log_term) = (applied.index, 4);
        assert_eq!(sent(&step(&mut group, Input::Message(append))), []);
        let out = step(&mut group, Input::Persisted { token: 0 });
        assert_eq!(sent(&out), [(Kind::AppendAnswer, 2)]);
    }
}

/// Entries of a lost leader reach beyond the snapshot that replaced the state.
#[test]
fn a_log_that_contradicts_the_state_starts_anew() {
    let mut recovered = recovered();
    recovered.hard_state.commit = 3;
    recovered.applied = Position { index: 4, term: 4 };
    let mut group = start(1, recovered);
    assert_eq!(group.last_index(), 4);
    let append = appends(&step(&mut group, Input::Tick)).pop().unwrap();
    assert_eq!(append.reset, Some(Position { index: 4, term: 4 }));
}

/// The snapshot's place is in the log after all: the entries behind it stay.
#[test]
fn a_log_that_contains_the_state_is_kept() {
    let mut group = start(1, Recovered { applied: Position { index: 5, term: 3 }, ..recovered() });
    assert_eq!(group.truncated().index, 2);
    assert_eq!(step(&mut group, Input::Tick), []);
}

#[test]
fn a_first_start_writes_the_log_from_the_state() {
    let mut group = start(1, Recovered::first(voters([1])));
    let out = step(&mut group, Input::Campaign);
    let appends = appends(&out);
    assert_eq!(appends[0].reset, Some(Recovered::FIRST));
    assert_eq!(appends[1].entries[0].position(), Position { index: 2, term: 2 });
}

#[test]
fn a_node_without_state_waits_to_be_added() {
    let mut group = start(4, Recovered::joining());
    for _ in 0..100 {
        assert_eq!(step(&mut group, Input::Tick), []);
    }
    let out = step(&mut group, Input::Campaign);
    assert_eq!(refusals(&out), [Refusal::CannotCampaign]);
}
