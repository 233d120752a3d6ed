use super::*;
use crate::proto::internal::Predicate;

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn span(start: &str, end: &str) -> Span {
    Span { start: bytes(start), end: (!end.is_empty()).then(|| bytes(end)) }
}

/// Ranges 1 [b, d), 2 [d, g) and 3 [p, ...).
fn ranges() -> Ranges {
    let mut ranges = Ranges::default();
    for (id, start, end) in [(2, "d", "g"), (1, "b", "d"), (3, "p", "")] {
        ranges.insert(GroupId(id), Range::new(span(start, end), vec![NodeId(1)]));
    }
    ranges
}

/// Leases below this exist, and history is kept from 10 on.
struct Below(i64);

impl Predicates for Below {
    fn check(&self, predicate: &Predicate) -> Option<Reason> {
        if predicate.leases.iter().any(|lease| *lease >= self.0) {
            return Some(Reason::LeaseNotFound);
        }
        (predicate.reads_at != 0 && predicate.reads_at < 10).then_some(Reason::Compacted)
    }
}

fn reference(range: u64, upto: u64) -> Ref {
    Ref { range, upto, ..Ref::default() }
}

#[test]
fn every_key_has_one_owner() {
    let ranges = ranges();
    let owners = [("", 0), ("a", 0), ("b", 1), ("czz", 1), ("d", 2), ("f", 2), ("g", 0), ("oz", 0)];
    for (key, owner) in owners.into_iter().chain([("p", 3), ("zz", 3)]) {
        assert_eq!(ranges.owner(key.as_bytes()), GroupId(owner), "{key}");
    }
}

#[test]
fn the_owners_of_a_span_come_in_order_of_their_keys_and_range_0_last() {
    let ranges = ranges();
    let cases: [(&str, &str, &[u64]); 14] = [
        ("a", "b", &[0]),
        ("a", "b\0", &[1, 0]),
        ("b", "d", &[1]),
        ("b", "c", &[1]),
        ("c", "e", &[1, 2]),
        ("b", "g", &[1, 2]),
        ("b", "h", &[1, 2, 0]),
        ("f", "q", &[2, 3, 0]),
        ("g", "p", &[0]),
        ("h", "i", &[0]),
        ("p", "", &[3]),
        ("q", "r", &[3]),
        ("", "", &[1, 2, 3, 0]),
        ("e", "e", &[]),
    ];
    for (start, end, owners) in cases {
        let found: Vec<u64> =
            ranges.overlapping(&span(start, end)).into_iter().map(|id| id.0).collect();
        assert_eq!(found, owners, "[{start}, {end})");
    }
}

#[test]
#[should_panic(expected = "a key has one owner (I9)")]
fn spans_never_overlap() {
    ranges().insert(GroupId(4), Range::new(span("f", "h"), Vec::new()));
}

#[test]
fn references_are_cumulative_and_repeating_one_changes_nothing() {
    let (mut ranges, mut revision) = (ranges(), 5);
    let run = ranges.assign(&reference(1, 3), &mut revision, &Below(1)).expect("three writes");
    assert_eq!((run.first, run.count, run.revision, revision), (1, 3, 6, 8));
    for stale in [0, 2, 3] {
        assert_eq!(ranges.assign(&reference(1, stale), &mut revision, &Below(1)), None);
    }
    let run = ranges.assign(&reference(1, 5), &mut revision, &Below(1)).expect("two more");
    assert_eq!((run.first, run.count, run.revision, revision), (4, 2, 9, 10));
    assert_eq!(ranges.assign(&reference(9, 5), &mut revision, &Below(1)), None, "no such range");
    assert_eq!(revision, 10);
}

#[test]
fn a_void_write_has_no_revision() {
    let (mut ranges, mut revision) = (ranges(), 5);
    let lease = |seq, lease| Predicate { seq, leases: vec![lease], reads_at: 0, pass: 0 };
    let past = |seq, reads_at| Predicate { seq, leases: Vec::new(), reads_at, pass: 0 };
    let named = Ref {
        predicates: vec![lease(1, 7), lease(2, 1), past(3, 9), past(4, 10), lease(9, 7)],
        ..reference(1, 5)
    };
    let run = ranges.assign(&named, &mut revision, &Below(7)).expect("five writes");
    let voids: Vec<_> = run.voids.iter().map(|void| (void.seq, void.reason())).collect();
    assert_eq!(voids, [(1, Reason::LeaseNotFound), (3, Reason::Compacted)]);
    assert_eq!((run.revision, revision), (6, 8));

    let named = Ref { predicates: vec![lease(6, 8), lease(7, 8)], ..reference(1, 7) };
    let run = ranges.assign(&named, &mut revision, &Below(7)).expect("two void ones");
    assert_eq!((run.revision, revision), (0, 8));
}

#[test]
fn runs_are_joined_while_they_go_on_and_kept_until_they_are_noted() {
    let (mut ranges, mut revision) = (ranges(), 5);
    for upto in [2, 3] {
        ranges.assign(&reference(1, upto), &mut revision, &Below(1));
    }
    ranges.assign(&reference(2, 1), &mut revision, &Below(1));
    ranges.assign(&reference(1, 4), &mut revision, &Below(1));
    let runs = |ranges: &Ranges| -> Vec<_> {
        let range = ranges.get(GroupId(1)).expect("it exists");
        range.runs().iter().map(|run| (run.first, run.count, run.revision)).collect()
    };
    assert_eq!(runs(&ranges), [(1, 3, 6), (4, 1, 10)]);

    let noted = |noted| Ref { noted, ..reference(1, 0) };
    ranges.assign(&noted(2), &mut revision, &Below(1));
    assert_eq!(runs(&ranges), [(1, 3, 6), (4, 1, 10)], "a run is kept whole");
    ranges.assign(&noted(3), &mut revision, &Below(1));
    assert_eq!(runs(&ranges), [(4, 1, 10)]);
    ranges.assign(&Ref { noted: 4, ..reference(1, 6) }, &mut revision, &Below(1));
    assert_eq!(runs(&ranges), [(5, 2, 11)]);
}

#[test]
fn a_range_that_notes_nothing_is_numbered_no_further_at_some_point() {
    let (mut ranges, mut revision) = (ranges(), 1);
    for n in 1..=RUNS_MAX as u64 + 5 {
        ranges.assign(&reference(1, n), &mut revision, &Below(1));
        ranges.assign(&reference(2, n), &mut revision, &Below(1));
    }
    let assigned = |ranges: &Ranges| ranges.get(GroupId(1)).expect("it exists").assigned;
    assert_eq!(assigned(&ranges), RUNS_MAX as u64);
    let all = RUNS_MAX as u64 + 5;
    let noted = Ref { noted: 1, ..reference(1, all) };
    ranges.assign(&noted, &mut revision, &Below(1)).expect("there is room again");
    assert_eq!(assigned(&ranges), all);
}

#[test]
fn what_is_stored_is_what_was_there() {
    let (mut ranges, mut revision) = (ranges(), 1);
    for n in 1..4 {
        ranges.assign(&reference(1, n), &mut revision, &Below(1));
        ranges.assign(&reference(3, n * 2), &mut revision, &Below(1));
    }
    let mut loaded = Ranges::default();
    for (id, _) in ranges.iter() {
        loaded.decode(id, &ranges.encode(id).expect("it exists")).expect("it is sound");
    }
    assert_eq!(loaded, ranges);
    let again = ranges.encode(GroupId(1)).expect("it exists");
    assert_eq!(loaded.decode(GroupId(4), &again), None, "its keys have an owner");
    assert_eq!(loaded.decode(GroupId(4), b"\xff"), None);
}

/// Range 1, held by these, after changes of who is to hold it that are not settled.
fn held(first: &[u64], changes: &[&[u64]]) -> Range {
    let mut ranges = Ranges::default();
    let nodes = |ids: &[u64]| ids.iter().copied().map(NodeId).collect();
    ranges.insert(GroupId(9), Range::new(span("x", "y"), nodes(first)));
    for ids in changes {
        ranges.set_replicas(GroupId(9), nodes(ids));
    }
    ranges.get(GroupId(9)).expect("it was put in").clone()
}

#[test]
fn a_member_goes_only_where_a_majority_is_left_whoever_votes_by_now() {
    let can = |range: &Range, id| range.can_do_without(NodeId(id), |_| true);
    assert!(can(&held(&[1, 2, 3], &[]), 3) && !can(&held(&[1, 2], &[]), 2));
    assert!(can(&held(&[1, 2], &[]), 3), "it is not held there");
    assert!(held(&[1, 2], &[]).can_do_without(NodeId(2), |id| id.0 == 1), "it has no vote");
    // First by 1, 2, 3 and 4, then without 3.
    let moving = held(&[1, 2, 3], &[&[1, 2, 4]]);
    assert!([1, 2, 3, 4].into_iter().all(|id| can(&moving, id)));
    // By 1, 3 and 4 in between, but by 1 and 4 in the end.
    let moving = held(&[1, 3], &[&[1, 4]]);
    assert!(![1, 3, 4].into_iter().any(|id| can(&moving, id)));
    // 4 was taken back, and may be one of two still.
    assert!(!can(&held(&[1, 3], &[&[1, 4], &[1]]), 4));
    // By 1 and 4 in between, before 5 was to come.
    assert!(!can(&held(&[1, 3], &[&[1, 4], &[1, 4, 5]]), 4));
}

#[test]
fn a_member_goes_only_when_the_one_that_went_before_has_no_vote() {
    let can_two_go = |count: u64| {
        let mut ranges = Ranges::default();
        let nodes = (1..=count).map(NodeId).collect();
        ranges.insert(GroupId(9), Range::new(span("x", "y"), nodes));
        ranges.set_member(NodeId(1), false, 3);
        ranges.get(GroupId(9)).expect("it was put in").can_do_without(NodeId(2), |_| true)
    };
    assert_eq!([3, 4, 5].map(can_two_go), [false, false, true]);
}
