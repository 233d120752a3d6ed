//! The fold: what each record does to the state, and that its rows give the same state back.

use super::*;
use crate::memory::MemoryView;

fn member(id: u64) -> Member {
    Member {
        id,
        name: format!("m{id}"),
        peer_urls: vec![format!("http://127.0.0.1:{id}")],
        ..Member::default()
    }
}

/// A state with the rows it has written, and the index of its last entry.
struct Fixture {
    state: State,
    view: MemoryView,
    n: u64,
}

impl Fixture {
    fn new() -> Self {
        let state = State::bootstrap(7, vec![member(1), member(2), member(3)]);
        let mut batch = Batch::default();
        state.write_all(&mut batch);
        let mut view = MemoryView::default();
        view.apply(&batch);
        Self { state, view, n: 0 }
    }

    fn fold(&mut self, body: Body) -> Verdict {
        self.n += 1;
        self.fold_as(9, self.n, body)
    }

    fn fold_as(&mut self, origin: u64, n: u64, body: Body) -> Verdict {
        let before = self.state.position();
        self.state.enter(before.index + 1, before.term);
        let mut batch = Batch::default();
        let verdict =
            self.state.fold(&internal::Record { origin, n, body: Some(body) }, &mut batch);
        self.state.write_windows(before.index, &mut batch);
        self.state.position().write(&mut batch);
        self.view.apply(&batch);
        let stored = State::load(&self.view).expect("readable").expect("stored");
        assert_eq!(stored, self.state, "the rows are the state");
        verdict
    }
}

fn put(lease: i64) -> Body {
    let effect = internal::Effect { key: "k".into(), lease, ..Default::default() };
    Body::Write(internal::Write { effects: vec![effect], pass: 0 })
}

fn grant(id: i64) -> Body {
    Body::LeaseGrant(internal::LeaseGrant { id, ttl: 10 })
}

fn revoke(id: i64, keys: &[&'static str], expired_in_term: u64) -> Body {
    let keys = keys.iter().map(|key| Bytes::from_static(key.as_bytes())).collect();
    Body::LeaseRevoke(internal::LeaseRevoke { id, keys, expired_in_term, ..Default::default() })
}

#[test]
fn bootstrap_leaves_revision_one_and_each_write_takes_the_next() {
    let mut fixture = Fixture::new();
    assert_eq!(fixture.state.position().revision, 1);
    assert_eq!(fixture.fold(put(0)), Verdict::Numbered(2));
    assert_eq!(fixture.fold(put(0)), Verdict::Numbered(3));
}

#[test]
fn a_write_that_names_a_missing_lease_is_void() {
    let mut fixture = Fixture::new();
    assert_eq!(fixture.fold(put(5)), Verdict::Rejected(Error::LeaseNotFound));
    assert_eq!(fixture.fold(grant(5)), Verdict::Done);
    assert_eq!(fixture.fold(grant(5)), Verdict::Rejected(Error::LeaseExist));
    assert_eq!(fixture.fold(put(5)), Verdict::Numbered(2));
    assert_eq!(fixture.fold(revoke(5, &["k"], 0)), Verdict::Numbered(3));
    assert_eq!(fixture.fold(put(5)), Verdict::Rejected(Error::LeaseNotFound));
    assert_eq!(fixture.state.position().revision, 3);
}

#[test]
fn revoking_a_lease_without_keys_takes_no_revision() {
    let mut fixture = Fixture::new();
    fixture.fold(grant(5));
    assert_eq!(fixture.fold(revoke(5, &[], 0)), Verdict::Done);
    assert_eq!(fixture.fold(revoke(5, &[], 0)), Verdict::Rejected(Error::LeaseNotFound));
}

#[test]
fn an_expiry_counts_only_in_the_term_of_the_leader_that_saw_it() {
    let mut fixture = Fixture::new();
    fixture.fold(grant(5));
    assert_eq!(fixture.fold(revoke(5, &[], 2)), Verdict::Rejected(Error::LeaseNotFound));
    assert!(fixture.state.leases().contains_key(&5));
    assert_eq!(fixture.fold(revoke(5, &[], 1)), Verdict::Done);
}

/// While the end of the one that expired was on its way a client ended it, and granted another.
#[test]
fn an_expiry_ends_no_other_lease_of_the_same_id() {
    let mut fixture = Fixture::new();
    fixture.fold(grant(5));
    let granted_at = fixture.state.leases()[&5].granted_at;
    assert_eq!(granted_at, fixture.state.position().index);
    fixture.fold(revoke(5, &[], 0));
    fixture.fold(grant(5));
    let late =
        internal::LeaseRevoke { id: 5, expired_in_term: 1, granted_at, ..Default::default() };
    let verdict = fixture.fold(Body::LeaseRevoke(late));
    assert_eq!(verdict, Verdict::Rejected(Error::LeaseNotFound));
    let lease_end = Some(internal::LeaseEnd { id: 5, expired_in_term: 1, granted_at });
    let late = internal::TxnCommit { lease_end, ..Default::default() };
    let verdict = fixture.fold(Body::TxnCommit(late));
    assert_eq!(verdict, Verdict::Rejected(Error::LeaseNotFound));
    assert!(fixture.state.leases().contains_key(&5));
    let granted_at = fixture.state.leases()[&5].granted_at;
    let end = internal::LeaseRevoke { id: 5, expired_in_term: 1, granted_at, ..Default::default() };
    assert_eq!(fixture.fold(Body::LeaseRevoke(end)), Verdict::Done);
}

#[test]
fn a_request_is_folded_once_however_often_it_is_logged() {
    let mut fixture = Fixture::new();
    assert_eq!(fixture.fold_as(4, 10, put(0)), Verdict::Numbered(2));
    assert_eq!(fixture.fold_as(4, 10, put(0)), Verdict::Duplicate);
    assert_eq!(fixture.fold_as(4, 7, put(0)), Verdict::Numbered(3), "late, but new");
    assert_eq!(fixture.fold_as(5, 10, put(0)), Verdict::Numbered(4), "another origin");
    let far = 10 + WINDOW_REQUESTS_MAX;
    assert_eq!(fixture.fold_as(4, far, put(0)), Verdict::Numbered(5));
    assert_eq!(fixture.fold_as(4, 10, put(0)), Verdict::Duplicate, "too old to tell");
    assert_eq!(fixture.fold_as(4, 11, put(0)), Verdict::Numbered(6), "just inside the window");
    assert_eq!(fixture.fold_as(4, far, put(0)), Verdict::Duplicate);
    assert_eq!(fixture.fold_as(4, far + 3 * WINDOW_REQUESTS_MAX, put(0)), Verdict::Numbered(7));
    assert_eq!(fixture.fold_as(4, far, put(0)), Verdict::Duplicate);
}

#[test]
fn the_origin_that_was_silent_longest_is_forgotten() {
    let mut fixture = Fixture::new();
    for origin in 1..=WINDOW_ORIGINS_MAX as u64 + 1 {
        fixture.fold_as(origin, 1, put(0));
    }
    assert_eq!(fixture.state.windows.len(), WINDOW_ORIGINS_MAX);
    assert!(!fixture.state.windows.contains_key(&1));
}

#[test]
fn compaction_moves_forward_only_and_not_beyond_the_revision() {
    let mut fixture = Fixture::new();
    let compact = |revision| Body::Compact(internal::Compact { revision });
    assert_eq!(fixture.fold(compact(2)), Verdict::Rejected(Error::FutureRevision));
    assert_eq!(fixture.fold(compact(0)), Verdict::Done, "once on a store never compacted");
    assert_eq!(fixture.fold(compact(0)), Verdict::Rejected(Error::Compacted));
    assert_eq!(fixture.fold(compact(1)), Verdict::Done);
    assert_eq!(fixture.state.position().compact_revision, 1);
}

#[test]
fn alarms_and_members_are_kept() {
    let mut fixture = Fixture::new();
    let alarm =
        |is_active| Body::Alarm(internal::Alarm { kind: ALARM_NOSPACE, member: 2, is_active });
    fixture.fold(alarm(true));
    assert!(fixture.state.has_alarm(ALARM_NOSPACE) && !fixture.state.has_alarm(ALARM_CORRUPT));
    fixture.fold(alarm(false));
    assert!(!fixture.state.has_alarm(ALARM_NOSPACE));

    let urls = |id, url: &str| {
        Body::MemberUrls(internal::MemberUrls { id, peer_urls: vec![url.to_owned()] })
    };
    let taken = fixture.fold(urls(2, "http://127.0.0.1:1"));
    assert_eq!(taken, Verdict::Rejected(Error::PeerUrlExist));
    assert_eq!(fixture.fold(urls(9, "http://a:1")), Verdict::Rejected(Error::MemberNotFound));
    assert_eq!(fixture.fold(urls(2, "http://a:1")), Verdict::Done);
    let name = internal::MemberAttributes {
        id: 3,
        name: "new".to_owned(),
        client_urls: vec!["http://c:1".to_owned()],
    };
    assert_eq!(fixture.fold(Body::MemberAttributes(name)), Verdict::Done);
    assert_eq!(fixture.state.members()[&3].name, "new");
}

#[test]
fn decisions_are_kept_for_a_while_with_their_first_outcome() {
    use crate::spine::decisions::DECISIONS_MAX;
    let mut fixture = Fixture::new();
    let last = DECISIONS_MAX as u64 + 2;
    for id in 1..=last {
        let decision = internal::Decision { id, step: format!("step {id}"), ..Default::default() };
        assert_eq!(fixture.fold(Body::Decision(decision)), Verdict::Done);
    }
    for (id, outcome) in [(1, "forgotten"), (7, "done"), (7, "too late"), (last + 1, "unknown")] {
        let outcome = internal::DecisionOutcome { id, outcome: outcome.to_owned() };
        assert_eq!(fixture.fold(Body::DecisionOutcome(outcome)), Verdict::Done);
    }
    let known = decisions(&fixture.view).expect("readable");
    assert!(known.iter().eq(fixture.state.decisions().iter()));
    assert_eq!(known.iter().map(|it| it.id).collect::<Vec<_>>(), (3..=last).collect::<Vec<_>>());
    let concluded: Vec<_> = known.iter().filter(|it| !it.outcome.is_empty()).collect();
    assert_eq!(concluded.len(), 1);
    assert_eq!((concluded[0].id, concluded[0].outcome.as_str()), (7, "done"));
}

#[test]
fn a_member_is_drained_and_no_longer() {
    let mut fixture = Fixture::new();
    let drain = |id, is_draining| Body::MemberDrain(internal::MemberDrain { id, is_draining });
    assert_eq!(fixture.fold(drain(2, true)), Verdict::Done);
    let drained = |fixture: &Fixture| {
        let members = fixture.state.members().values().filter(|member| member.is_draining);
        members.map(|member| member.id).collect::<Vec<_>>()
    };
    assert_eq!(drained(&fixture), [2]);
    assert_eq!(fixture.fold(drain(4, true)), Verdict::Rejected(Error::MemberNotFound));
    assert_eq!(fixture.fold(drain(2, false)), Verdict::Done);
    assert_eq!(drained(&fixture), [0_u64; 0]);
}

#[test]
fn a_removed_member_never_comes_back_and_takes_its_alarms_along() {
    use internal::member_change::Kind;
    let mut fixture = Fixture::new();
    let alarm = internal::Alarm { kind: ALARM_NOSPACE, member: 2, is_active: true };
    fixture.fold(Body::Alarm(alarm));
    let index = fixture.state.position().index + 1;
    fixture.state.enter(index, 1);
    let change = internal::MemberChange {
        kind: Kind::Remove.into(),
        member: Some(member(2)),
        ..Default::default()
    };
    let conf = internal::ConfState { voters: vec![1, 3], ..Default::default() };
    let mut batch = Batch::default();
    fixture.state.fold_change(&change, conf.clone(), &mut batch);
    fixture.state.position().write(&mut batch);
    fixture.view.apply(&batch);
    assert!(fixture.state.is_removed(NodeId(2)) && fixture.state.alarms().is_empty());
    assert_eq!(fixture.state.conf(), &conf);
    let stored = State::load(&fixture.view).expect("readable").expect("stored");
    assert_eq!(stored, fixture.state);
}

/// Ranges 1 [b, d), 2 [d, g) and 3 [g, ...).
fn with_ranges() -> Fixture {
    let mut fixture = Fixture::new();
    let keys = ["b", "d", "g"].map(|key| Bytes::from_static(key.as_bytes()));
    fixture.state.pre_split(&keys, &[NodeId(1), NodeId(2)]);
    let mut batch = Batch::default();
    fixture.state.write_all(&mut batch);
    fixture.view.apply(&batch);
    fixture
}

fn merge(left: u64, right: u64, end: &'static str) -> Body {
    let end = Bytes::from_static(end.as_bytes());
    let merge = internal::Merge { left, right, end, left_at: 5, right_at: 9 };
    Body::TxnCommit(internal::TxnCommit {
        merge: Some(merge),
        ranges: vec![left, right],
        ..internal::TxnCommit::default()
    })
}

fn split(parent: u64, key: &'static str, end: &'static str) -> Body {
    let (key, end) = (Bytes::from_static(key.as_bytes()), Bytes::from_static(end.as_bytes()));
    let split = internal::Split { parent, key, end, ..Default::default() };
    Body::TxnCommit(internal::TxnCommit {
        split: Some(split),
        ranges: vec![parent],
        ..internal::TxnCommit::default()
    })
}

#[test]
fn a_merged_range_has_ceased_and_its_keys_are_those_of_the_one_before_it() {
    let mut fixture = with_ranges();
    assert_eq!(fixture.fold(split(2, "f", "g")), Verdict::Committed(0));
    let revision = fixture.state.position().revision;
    assert_eq!(fixture.fold(merge(1, 2, "f")), Verdict::Committed(0));
    assert_eq!(fixture.state.position().revision, revision, "it takes none");
    let ranges = fixture.state.ranges();
    assert_eq!([ranges.owner(b"c"), ranges.owner(b"e")], [GroupId(1); 2]);
    assert_eq!(ranges.get(GroupId(1)).map(|it| it.generation), Some(2));
    assert_eq!(ranges.get(GroupId(4)).map(|it| it.parent), Some(GroupId(1)), "it was cut off 2");
    assert!(fixture.state.has_ceased(GroupId(2)) && !fixture.state.has_ceased(GroupId(9)));

    // Both logs have locks of it: the one hears what became of it, the other is not written any more.
    let id = RequestId { origin: 9, n: fixture.n };
    let Some(Decision::Commit(0, share)) = fixture.state.decision(GroupId(1), id) else {
        panic!("the left log is to tell of it")
    };
    assert_eq!(share.merge.map(|it| (it.right, it.right_at)), Some((2, 9)));
    assert_eq!(fixture.state.decision(GroupId(2), id), None);

    // Its id never comes back, and whoever locked it before comes too late.
    assert_eq!(fixture.fold(merge(2, 4, "g")), Verdict::Ended);
    assert_eq!(fixture.fold(split(2, "e", "f")), Verdict::Ended);
    assert_eq!(fixture.fold(split(1, "e", "f")), Verdict::Committed(0));
    assert_eq!(fixture.state.ranges().owner(b"e"), GroupId(5));
}

#[test]
fn only_neighbours_that_are_what_was_locked_are_merged() {
    let mut fixture = with_ranges();
    for (left, right, end) in [(1, 3, "\0"), (2, 1, "d"), (1, 2, "f"), (1, 2, "\0"), (1, 9, "g")] {
        assert_eq!(fixture.fold(merge(left, right, end)), Verdict::Ended, "{left}, {right}, {end}");
    }
    assert_eq!(fixture.state.ranges().iter().count(), 3);
    assert_eq!(fixture.fold(merge(2, 3, "\0")), Verdict::Committed(0));
    assert_eq!(fixture.fold(merge(1, 2, "g")), Verdict::Ended, "it has grown since it was locked");
    assert_eq!(fixture.fold(merge(1, 2, "\0")), Verdict::Committed(0));
    assert_eq!(fixture.state.ranges().get(GroupId(1)).map(|it| it.span.end.clone()), Some(None));
}

/// Found by fuzzing: a window that was too short was taken, and the first question about it panicked.
#[test]
fn rows_that_no_state_writes_are_damage() {
    let window = |seen: Vec<u8>| {
        internal::RequestWindow { top: 9, seen: seen.into(), index: 1 }.encode_to_vec()
    };
    let position = |revision: i64, compact_revision: i64| {
        let numbers = [1, 1, revision, compact_revision];
        numbers.iter().flat_map(|number| number.to_be_bytes()).collect::<Vec<u8>>()
    };
    let whole = vec![0; Window::WORDS * 8];
    let window_row = || numbered(row::WINDOW, 4);
    let cases = [
        (window_row(), window(whole.clone()), true),
        (window_row(), window(Vec::new()), false),
        (window_row(), window(whole[8..].to_vec()), false),
        (Bytes::from(vec![row::APPLIED]), position(5, 5), true),
        (Bytes::from(vec![row::APPLIED]), position(5, 6), false),
        (Bytes::from(vec![row::APPLIED]), position(5, -2), false),
        (Bytes::from(vec![row::APPLIED]), position(0, -1), false),
        (Bytes::from(vec![row::APPLIED]), [position(5, 5), vec![0]].concat(), false),
    ];
    for (key, value, is_sound) in cases {
        let mut view = Fixture::new().view;
        let mut batch = Batch::default();
        batch.put(Column::Meta, key.clone(), value);
        view.apply(&batch);
        assert_eq!(State::load(&view).is_ok(), is_sound, "{key:?}");
    }
}
