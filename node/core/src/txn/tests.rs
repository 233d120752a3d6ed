use bytes::Bytes;

use super::*;
use crate::NodeId;
use crate::command::Answer;
use crate::memory::MemoryView;
use crate::mvcc::Applier;
use crate::proto::Span;
use crate::proto::etcdserverpb as pb;
use crate::proto::internal;
use crate::spine::ranges::Range;
use crate::view::Batch;

const KEYS: usize = mvcc::NAMED_KEYS_MAX;

/// Ranges 1 [b, m) and 2 [m, ...).
fn ranges() -> Ranges {
    let mut ranges = Ranges::default();
    let key = |text: &'static str| Bytes::from_static(text.as_bytes());
    for (id, start, end) in [(1, "b", Some("m")), (2, "m", None)] {
        let span = Span { start: key(start), end: end.map(key) };
        ranges.insert(GroupId(id), Range::new(span, vec![NodeId(1)]));
    }
    ranges
}

/// `KEYS` keys in each range, all written at revision 2.
fn filled() -> MemoryView {
    let (mut view, mut batch) = (MemoryView::new(), Batch::default());
    let keys =
        ["c", "n"].into_iter().flat_map(|head| (0..KEYS).map(move |n| format!("{head}{n:05}")));
    let put = |key: String| internal::Effect { key: key.into(), ..Default::default() };
    let effects: Vec<_> = keys.map(put).collect();
    Applier::new(&view).apply(2, &effects, false, &mut batch, &mut Vec::new()).expect("memory");
    view.apply(&batch);
    view
}

fn delete(key: &'static str, range_end: &'static str) -> Command {
    let (key, range_end) =
        (Bytes::from_static(key.as_bytes()), Bytes::from_static(range_end.as_bytes()));
    Command::DeleteRange(pb::DeleteRangeRequest { key, range_end, ..Default::default() })
}

struct Attempt {
    coordinator: Coordinator,
    view: MemoryView,
    now: u64,
}

impl Attempt {
    fn new(command: Command, view: MemoryView) -> Self {
        Self::of(Job::Change(command), view)
    }

    fn of(job: Job, view: MemoryView) -> Self {
        let id = RequestId { origin: 3, n: 4 };
        Self { coordinator: Coordinator::new(id, job, &ranges()), view, now: 0 }
    }

    fn step(&mut self, input: Input) -> Vec<Effect> {
        let mut out = Vec::new();
        self.now += 1_000;
        self.coordinator
            .step(Time(self.now), &self.view, &ranges(), input, &mut out)
            .expect("memory");
        out
    }
}

fn head(revision: i64) -> Head {
    Head { revision, compact_revision: -1 }
}

fn lock(key: &'static str, range_end: &'static str) -> Lock {
    let (key, range_end) =
        (Bytes::from_static(key.as_bytes()), Bytes::from_static(range_end.as_bytes()));
    Lock { key, range_end, is_write: true, ..Lock::default() }
}

#[test]
fn a_delete_of_very_many_keys_names_spans_and_counts_on_from_range_to_range() {
    let mut attempt = Attempt::new(delete("c", "\0"), filled());
    assert_eq!(attempt.step(Input::Tick), [Effect::Prepare(GroupId(1), vec![lock("c", "m")])]);
    assert_eq!(attempt.step(Input::Tick), [], "one at a time, and not too often");
    let next = attempt.step(Input::Prepared(GroupId(1), 7));
    assert_eq!(next, [Effect::Prepare(GroupId(2), vec![lock("m", "\0")])]);
    assert_eq!(attempt.step(Input::Prepared(GroupId(2), 9)), [Effect::WantTicket]);
    let out = attempt.step(Input::Ticket(head(5)));
    let [Effect::Propose(Record { origin: 3, n: 4, body: Some(Body::TxnCommit(commit)) })] =
        &out[..]
    else {
        panic!("{out:?}")
    };
    let share = |range, prepared_at, key: &'static str, range_end: &'static str, sub| Share {
        range,
        prepared_at,
        effects: vec![internal::Effect {
            key: Bytes::from_static(key.as_bytes()),
            range_end: Bytes::from_static(range_end.as_bytes()),
            is_delete: true,
            ..Default::default()
        }],
        subs: vec![sub],
        split: None,
        merge: None,
    };
    let expected = [share(1, 7, "c", "m", 0), share(2, 9, "m", "\0", KEYS as u64)];
    assert_eq!(commit.shares, expected);
    let out = attempt.step(Input::Committed(3, 3));
    let [Effect::Reply(Ok(Answer::DeleteRange(answer)))] = &out[..] else { panic!("{out:?}") };
    assert_eq!(
        (answer.deleted, answer.header.as_ref().map(|it| it.revision)),
        (2 * KEYS as i64, Some(3))
    );

    // The shares, applied one after the other, are the whole.
    let mut whole = attempt.view.clone();
    let mut events = Vec::new();
    for share in &commit.shares {
        let mut batch = Batch::default();
        let (effects, subs) = (&share.effects, &share.subs);
        Applier::new(&whole)
            .apply_share(3, effects, subs, &mut batch, &mut events)
            .expect("memory");
        whole.apply(&batch);
    }
    assert_eq!(events.len(), 2 * KEYS);
    let left = mvcc::newest_keys_count(&whole, &Span::all()).expect("memory");
    assert_eq!(left, 0);
}

#[test]
fn a_range_without_a_key_to_delete_has_no_share() {
    let mut view = MemoryView::new();
    let mut batch = Batch::default();
    let put = internal::Effect { key: Bytes::from_static(b"x"), ..Default::default() };
    Applier::new(&view).apply(2, &[put], false, &mut batch, &mut Vec::new()).expect("memory");
    view.apply(&batch);
    let mut attempt = Attempt::new(delete("c", "\0"), view);
    attempt.step(Input::Prepared(GroupId(1), 7));
    assert_eq!(attempt.step(Input::Prepared(GroupId(2), 9)), [Effect::WantTicket]);
    let out = attempt.step(Input::Ticket(head(5)));
    let [Effect::Propose(Record { body: Some(Body::TxnCommit(commit)), .. })] = &out[..] else {
        panic!("{out:?}")
    };
    assert_eq!(commit.shares.iter().map(|share| share.range).collect::<Vec<_>>(), [2]);
}

#[test]
fn what_has_no_effect_is_answered_at_a_ticket_and_gives_its_locks_back() {
    let mut attempt = Attempt::new(delete("c", "\0"), MemoryView::new());
    attempt.step(Input::Prepared(GroupId(1), 7));
    assert_eq!(attempt.step(Input::Prepared(GroupId(2), 9)), [Effect::WantTicket]);
    let out = attempt.step(Input::Ticket(head(5)));
    let [Effect::Abort, Effect::Reply(Ok(Answer::DeleteRange(answer)))] = &out[..] else {
        panic!("{out:?}")
    };
    assert_eq!((answer.deleted, answer.header.as_ref().map(|it| it.revision)), (0, Some(5)));
    assert_eq!(attempt.step(Input::Ended), [], "its own end is no news");
}

#[test]
fn an_ended_attempt_is_tried_again_and_a_refused_one_is_not() {
    let again = Effect::TryAgain(Job::Change(delete("c", "\0")));
    let cases =
        [(Input::Ended, vec![again.clone()]), (Input::PrepareFailed(GroupId(1)), vec![again])];
    for (input, expected) in cases {
        let mut attempt = Attempt::new(delete("c", "\0"), filled());
        assert_eq!(attempt.step(input), expected);
        assert_eq!(attempt.step(Input::Prepared(GroupId(1), 7)), []);
    }
    let mut attempt = Attempt::new(delete("c", "\0"), filled());
    let out = attempt.step(Input::Rejected(Error::LeaseNotFound));
    assert_eq!(out, [Effect::Reply(Err(Error::LeaseNotFound))]);
}

#[test]
fn a_refusal_that_comes_late_does_not_make_a_second_attempt() {
    let mut attempt = Attempt::new(delete("c", "\0"), filled());
    attempt.step(Input::Tick);
    attempt.step(Input::Prepared(GroupId(1), 7));
    assert_eq!(attempt.step(Input::PrepareFailed(GroupId(1))), [], "an earlier leader's");
    attempt.step(Input::Prepared(GroupId(2), 9));
    attempt.step(Input::Ticket(head(5)));
    assert!(attempt.coordinator.is_decided());
    assert_eq!(attempt.step(Input::PrepareFailed(GroupId(2))), [], "it may be committed");
    let mut attempt = Attempt::new(delete("c", "\0"), filled());
    attempt.step(Input::Prepared(GroupId(1), 7));
    let again = Effect::TryAgain(Job::Change(delete("c", "\0")));
    assert_eq!(attempt.step(Input::PrepareFailed(GroupId(2))), [Effect::Abort, again]);
}

#[test]
fn a_lease_ends_with_its_keys_in_every_range() {
    let mut view = MemoryView::new();
    let mut batch = Batch::default();
    let put = |key: &'static str| internal::Effect {
        key: Bytes::from_static(key.as_bytes()),
        lease: 8,
        ..Default::default()
    };
    let effects = ["x", "a", "c"].map(put);
    Applier::new(&view).apply(2, &effects, false, &mut batch, &mut Vec::new()).expect("memory");
    view.apply(&batch);
    let job = Job::LeaseEnd { id: 8, expired_in_term: 3, granted_at: 9, ranges: [1, 2].into() };
    let id = RequestId { origin: 3, n: 4 };
    let mut attempt = Attempt { coordinator: Coordinator::new(id, job, &ranges()), view, now: 0 };
    let lock = Lock { lease: 8, is_write: true, ..Lock::default() };
    for range in 0..3 {
        let asked = [Effect::Prepare(GroupId(range), vec![lock.clone()])];
        assert_eq!(attempt.step(Input::Tick), if range == 0 { &asked[..] } else { &[] });
        let next = attempt.step(Input::Prepared(GroupId(range), 7 + range));
        match range {
            2 => assert_eq!(next, [Effect::WantTicket]),
            _ => assert_eq!(next, [Effect::Prepare(GroupId(range + 1), vec![lock.clone()])]),
        }
    }
    let out = attempt.step(Input::Ticket(head(5)));
    let [Effect::Propose(Record { body: Some(Body::TxnCommit(commit)), .. })] = &out[..] else {
        panic!("{out:?}")
    };
    let shares: Vec<_> =
        commit.shares.iter().map(|it| (it.range, it.effects[0].key.clone(), it.subs[0])).collect();
    let key = |key: &'static str| Bytes::from_static(key.as_bytes());
    assert_eq!(shares, [(0, key("a"), 0), (1, key("c"), 1), (2, key("x"), 2)]);
    assert_eq!(commit.spine_term, 7, "range 0 is locked by the leader of a term");
    let end = internal::LeaseEnd { id: 8, expired_in_term: 3, granted_at: 9 };
    assert_eq!(commit.lease_end, Some(end));
    assert_eq!(commit.ranges, [0, 1, 2]);
    let out = attempt.step(Input::Committed(6, 6));
    assert!(matches!(&out[..], [Effect::Reply(Ok(Answer::LeaseRevoke(_)))]), "{out:?}");
}

#[test]
fn a_read_of_the_past_is_evaluated_with_the_head_of_a_ticket() {
    let read =
        pb::RangeRequest { key: Bytes::from_static(b"c00000"), revision: 2, ..Default::default() };
    let put = pb::PutRequest { key: Bytes::from_static(b"x"), ..Default::default() };
    let op = |request| pb::RequestOp { request: Some(request) };
    let compare = pb::Compare {
        key: Bytes::from_static(b"d"),
        target: pb::compare::CompareTarget::Version.into(),
        target_union: Some(pb::compare::TargetUnion::Version(0)),
        ..Default::default()
    };
    let success = vec![
        op(pb::request_op::Request::RequestRange(read)),
        op(pb::request_op::Request::RequestPut(put)),
    ];
    let txn = pb::TxnRequest { compare: vec![compare], success, failure: Vec::new() };
    let mut attempt = Attempt::new(Command::Txn(txn), filled());
    attempt.step(Input::Prepared(GroupId(1), 7));
    assert_eq!(attempt.step(Input::Prepared(GroupId(2), 9)), [Effect::WantTicket]);
    let out = attempt.step(Input::Ticket(head(5)));
    let [Effect::Propose(Record { body: Some(Body::TxnCommit(commit)), .. })] = &out[..] else {
        panic!("{out:?}")
    };
    assert_eq!(commit.reads_at, 2);
}

#[test]
fn a_merge_locks_the_membership_of_both_and_all_keys_of_the_range_that_ceases() {
    let (left, right) = (GroupId(1), GroupId(2));
    let mut attempt = Attempt::of(Job::Merge { left, right }, filled());
    let members = |is_write| Lock { members: vec![1], is_write, ..Lock::default() };
    assert_eq!(attempt.step(Input::Tick), [Effect::Prepare(left, vec![members(false)])]);
    let next = attempt.step(Input::Prepared(left, 7));
    assert_eq!(next, [Effect::Prepare(right, vec![lock("m", "\0"), members(true)])]);
    assert_eq!(attempt.step(Input::Prepared(right, 9)), [Effect::WantTicket]);
    let out = attempt.step(Input::Ticket(head(5)));
    let [Effect::Propose(Record { body: Some(Body::TxnCommit(commit)), .. })] = &out[..] else {
        panic!("{out:?}")
    };
    let end = Bytes::from_static(b"\0");
    let merge = internal::Merge { left: 1, right: 2, end, left_at: 7, right_at: 9 };
    assert_eq!((&commit.merge, &commit.ranges[..]), (&Some(merge), &[1, 2][..]));
    assert!(commit.shares.is_empty(), "no key changes");
    let answer = internal::MergeAnswer { range: 1 };
    let out = attempt.step(Input::Committed(0, 5));
    assert_eq!(out, [Effect::Reply(Ok(Answer::Merge(answer)))]);
}

#[test]
fn a_merge_of_a_range_that_is_gone_is_tried_again_by_who_knows_what_to_say() {
    let job = Job::Merge { left: GroupId(1), right: GroupId(9) };
    let mut attempt = Attempt::of(job.clone(), filled());
    assert_eq!(attempt.step(Input::Tick), [Effect::TryAgain(job)]);
}
