//! Tests of the model against what is known of etcd, one behaviour each. That the model answers
//! as etcd does was also tried with random requests against a real server.

use bytes::Bytes;
use flotilla_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use flotilla_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use flotilla_proto::etcdserverpb::request_op::Request as Op;
use flotilla_proto::etcdserverpb::response_op::Response;
use flotilla_proto::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, DeleteRangeResponse, LeaseGrantRequest,
    LeaseKeepAliveRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest, PutRequest, PutResponse,
    RangeRequest, RangeResponse, RequestOp, TxnRequest, TxnResponse,
};
use flotilla_proto::mvccpb::KeyValue;

use crate::history::{Answer, Event, Request};
use crate::model::requests::Requests;
use crate::model::{Limits, Model, Refusal, Step, agrees};

const OPEN: &str = "\0";

fn put(key: &'static str, value: &'static str) -> PutRequest {
    PutRequest { key: Bytes::from(key), value: Bytes::from(value), ..PutRequest::default() }
}

fn leased(key: &'static str, value: &'static str, lease: i64) -> PutRequest {
    PutRequest { lease, ..put(key, value) }
}

fn delete(key: &'static str, range_end: &'static str) -> DeleteRangeRequest {
    DeleteRangeRequest { key: Bytes::from(key), range_end: Bytes::from(range_end), prev_kv: true }
}

fn read(key: &'static str, range_end: &'static str) -> RangeRequest {
    RangeRequest {
        key: Bytes::from(key),
        range_end: Bytes::from(range_end),
        ..RangeRequest::default()
    }
}

fn txn(compare: Vec<Compare>, success: Vec<Op>, failure: Vec<Op>) -> TxnRequest {
    let operations =
        |it: Vec<Op>| it.into_iter().map(|request| RequestOp { request: Some(request) }).collect();
    TxnRequest { compare, success: operations(success), failure: operations(failure) }
}

fn compare(key: &'static str, result: CompareResult, union: Option<TargetUnion>) -> Compare {
    let target = match union {
        Some(TargetUnion::Version(_)) => CompareTarget::Version,
        Some(TargetUnion::CreateRevision(_)) => CompareTarget::Create,
        Some(TargetUnion::ModRevision(_)) => CompareTarget::Mod,
        Some(TargetUnion::Lease(_)) => CompareTarget::Lease,
        Some(TargetUnion::Value(_)) | None => CompareTarget::Value,
    };
    Compare {
        result: result.into(),
        target: target.into(),
        key: Bytes::from(key),
        range_end: Bytes::new(),
        target_union: union,
    }
}

/// Applies a request that must be answered.
fn apply(model: &mut Model, request: Request) -> Step {
    model.apply(&request).unwrap_or_else(|refusal| panic!("{request} was refused: {refusal}"))
}

fn do_put(model: &mut Model, request: PutRequest) -> PutResponse {
    match apply(model, Request::Put(request)).answer {
        Answer::Put(answer) => answer,
        answer => panic!("{answer:?}"),
    }
}

fn do_delete(model: &mut Model, request: DeleteRangeRequest) -> DeleteRangeResponse {
    match apply(model, Request::DeleteRange(request)).answer {
        Answer::DeleteRange(answer) => answer,
        answer => panic!("{answer:?}"),
    }
}

fn do_read(model: &mut Model, request: RangeRequest) -> RangeResponse {
    match apply(model, Request::Read(request)).answer {
        Answer::Read(answer) => answer,
        answer => panic!("{answer:?}"),
    }
}

fn do_txn(model: &mut Model, request: TxnRequest) -> TxnResponse {
    match apply(model, Request::Txn(request)).answer {
        Answer::Txn(answer) => answer,
        answer => panic!("{answer:?}"),
    }
}

fn do_grant(model: &mut Model, id: i64) {
    apply(model, Request::LeaseGrant(LeaseGrantRequest { id, ttl: 60 }));
}

fn refusal(model: &mut Model, request: Request) -> Refusal {
    let before = format!("{model:?}");
    let refusal = model.apply(&request).expect_err("it must be refused");
    assert_eq!(format!("{model:?}"), before, "a refusal changes nothing");
    refusal
}

fn keys(pairs: &[KeyValue]) -> Vec<String> {
    pairs.iter().map(|pair| pair.key.escape_ascii().to_string()).collect()
}

fn one(pairs: &[KeyValue]) -> (i64, i64, i64) {
    assert_eq!(pairs.len(), 1);
    (pairs[0].create_revision, pairs[0].mod_revision, pairs[0].version)
}

/// s1 to s4 with versions 4, 3, 2, 1 and values d, c, b, a; the last revision is 11.
fn sorted() -> Model {
    let mut model = Model::default();
    for (key, value, versions) in [("s1", "d", 4), ("s2", "c", 3), ("s3", "b", 2), ("s4", "a", 1)] {
        for _ in 0..versions {
            do_put(&mut model, put(key, value));
        }
    }
    model
}

#[test]
fn revisions_count_changes_only() {
    let mut model = Model::default();
    assert_eq!(do_read(&mut model, read("a", "")).header.expect("set").revision, 1);
    assert_eq!(do_put(&mut model, put("a", "1")).header.expect("set").revision, 2);
    // Equal values are a change, too.
    assert_eq!(do_put(&mut model, put("a", "1")).header.expect("set").revision, 3);
    let nothing = do_delete(&mut model, delete("z", ""));
    assert_eq!((nothing.deleted, nothing.header.expect("set").revision), (0, 3));
    let empty = do_txn(&mut model, txn(vec![], vec![], vec![]));
    assert_eq!((empty.succeeded, empty.header.expect("set").revision), (true, 3));
}

#[test]
fn a_delete_ends_the_life_of_a_key() {
    let mut model = Model::default();
    do_put(&mut model, put("a", "1"));
    do_put(&mut model, put("a", "2"));
    assert_eq!(one(&do_read(&mut model, read("a", "")).kvs), (2, 3, 2));
    do_delete(&mut model, delete("a", ""));
    assert!(do_read(&mut model, read("a", "")).kvs.is_empty());
    do_put(&mut model, put("a", "3"));
    assert_eq!(one(&do_read(&mut model, read("a", "")).kvs), (5, 5, 1));
}

#[test]
fn reads_of_the_past() {
    let mut model = Model::default();
    do_put(&mut model, put("a", "1"));
    do_put(&mut model, put("a", "2"));
    do_delete(&mut model, delete("a", ""));
    for (revision, count) in [(1, 0), (2, 1), (3, 1), (4, 0), (0, 0), (-5, 0)] {
        let answer = do_read(&mut model, RangeRequest { revision, ..read("a", "") });
        assert_eq!(answer.count, count, "at {revision}");
        assert_eq!(answer.header.expect("set").revision, 4);
    }
    let future = RangeRequest { revision: 5, ..read("a", "") };
    assert_eq!(refusal(&mut model, Request::Read(future)), Refusal::FutureRevision);
}

#[test]
fn spans() {
    let mut model = Model::default();
    for key in ["a", "aa", "b", "c"] {
        do_put(&mut model, put(key, "1"));
    }
    for (key, range_end, found) in [
        ("a", "", vec!["a"]),
        ("a", "b", vec!["a", "aa"]),
        ("b", OPEN, vec!["b", "c"]),
        ("\0", OPEN, vec!["a", "aa", "b", "c"]),
        ("c", "a", vec![]),
        ("b", "b", vec![]),
    ] {
        assert_eq!(
            keys(&do_read(&mut model, read(key, range_end)).kvs),
            found,
            "{key} {range_end}"
        );
    }
}

#[test]
fn limit_count_and_more() {
    let mut model = sorted();
    for (limit, found, more) in [(0, 4, false), (-1, 4, false), (3, 3, true), (4, 4, false)] {
        let answer = do_read(&mut model, RangeRequest { limit, ..read("s", "t") });
        assert_eq!((answer.kvs.len(), answer.more, answer.count), (found, more, 4), "{limit}");
    }
    let count_only = RangeRequest { limit: 2, count_only: true, ..read("s", "t") };
    let answer = do_read(&mut model, count_only);
    assert_eq!((answer.kvs.len(), answer.more, answer.count), (0, false, 4));
}

#[test]
fn a_target_without_order_sorts_only_what_the_limit_fetched() {
    let mut model = sorted();
    let mut request = RangeRequest { limit: 2, ..read("s", "t") };
    request.set_sort_target(SortTarget::Version);
    let answer = do_read(&mut model, request.clone());
    assert_eq!((keys(&answer.kvs), answer.more), (vec!["s3".into(), "s2".into()], true));
    request.set_sort_order(SortOrder::Ascend);
    assert_eq!(keys(&do_read(&mut model, request.clone()).kvs), ["s4", "s3"]);
    request.set_sort_order(SortOrder::Descend);
    assert_eq!(keys(&do_read(&mut model, request).kvs), ["s1", "s2"]);
}

#[test]
fn keys_only_sorts_by_the_values_it_leaves_out() {
    let mut model = sorted();
    let mut request = RangeRequest { keys_only: true, ..read("s", "t") };
    request.set_sort_target(SortTarget::Value);
    let answer = do_read(&mut model, request);
    assert_eq!(keys(&answer.kvs), ["s4", "s3", "s2", "s1"]);
    assert!(answer.kvs.iter().all(|pair| pair.value.is_empty() && pair.version > 0));
}

#[test]
fn revision_bounds_are_inclusive_and_leave_the_count() {
    let mut model = sorted();
    let request = RangeRequest { min_mod_revision: 8, max_mod_revision: 10, ..read("s", "t") };
    let answer = do_read(&mut model, request);
    assert_eq!((keys(&answer.kvs), answer.count), (vec!["s2".into(), "s3".into()], 4));
    let request = RangeRequest { min_create_revision: 6, max_create_revision: 9, ..read("s", "t") };
    assert_eq!(keys(&do_read(&mut model, request).kvs), ["s2", "s3"]);
    let request = RangeRequest { limit: 2, min_mod_revision: 99, ..read("s", "t") };
    let answer = do_read(&mut model, request);
    assert_eq!((answer.kvs.len(), answer.more, answer.count), (0, false, 4));
}

#[test]
fn puts_keep_what_they_are_told_to_keep() {
    let mut model = Model::default();
    do_grant(&mut model, 7);
    let keeps_value = PutRequest { ignore_value: true, ..put("a", "") };
    let keeps_lease = PutRequest { ignore_lease: true, ..put("a", "2") };
    for request in [&keeps_value, &keeps_lease] {
        let request = Request::Put(request.clone());
        assert_eq!(refusal(&mut model, request), Refusal::KeyNotFound);
    }
    do_put(&mut model, leased("a", "1", 7));
    do_put(&mut model, keeps_lease);
    let answer = do_put(&mut model, PutRequest { prev_kv: true, ..keeps_value });
    let previous = answer.prev_kv.expect("it was there");
    assert_eq!((previous.value.as_ref(), previous.lease, previous.version), (&b"2"[..], 7, 2));
    let pair = do_read(&mut model, read("a", "")).kvs.remove(0);
    assert_eq!((pair.value.as_ref(), pair.lease, pair.version), (&b"2"[..], 0, 3));
    // An unknown lease is found before the missing key.
    let request = PutRequest { lease: 8, ignore_value: true, ..put("none", "") };
    assert_eq!(refusal(&mut model, Request::Put(request.clone())), Refusal::LeaseNotFound);
    let request = Request::Txn(txn(vec![], vec![Op::RequestPut(request)], vec![]));
    assert_eq!(refusal(&mut model, request), Refusal::LeaseNotFound);
}

#[test]
fn deletes_tell_what_they_deleted_in_key_order() {
    let mut model = Model::default();
    for key in ["b", "a", "c"] {
        do_put(&mut model, put(key, "1"));
    }
    let step = apply(&mut model, Request::DeleteRange(delete("a", "c")));
    let Answer::DeleteRange(answer) = &step.answer else { panic!("{step:?}") };
    assert_eq!((answer.deleted, keys(&answer.prev_kvs)), (2, vec!["a".into(), "b".into()]));
    let deleted = |key: &'static str| Event::Delete { key: Bytes::from(key), revision: 5 };
    assert_eq!(step.events, [deleted("a"), deleted("b")]);
    let silent = DeleteRangeRequest { prev_kv: false, ..delete("c", "") };
    assert!(do_delete(&mut model, silent).prev_kvs.is_empty());
}

#[test]
fn compares_of_missing_keys() {
    use CompareResult::{Equal, Greater, Less, NotEqual};
    let zero = |union: fn(i64) -> TargetUnion| compare("none", Equal, Some(union(0)));
    let value = |it: &'static str| Some(TargetUnion::Value(Bytes::from(it)));
    for (compare, holds) in [
        (zero(TargetUnion::Version), true),
        (zero(TargetUnion::CreateRevision), true),
        (zero(TargetUnion::ModRevision), true),
        (zero(TargetUnion::Lease), true),
        (compare("none", Greater, Some(TargetUnion::Version(0))), false),
        (compare("none", Less, Some(TargetUnion::Version(1))), true),
        (compare("none", Equal, value("")), false),
        (compare("none", NotEqual, value("x")), false),
        (compare("none", Equal, None), false),
    ] {
        let mut model = Model::default();
        let request = txn(vec![compare.clone()], vec![], vec![]);
        assert_eq!(do_txn(&mut model, request).succeeded, holds, "{compare:?}");
    }
}

#[test]
fn compares_of_spans_hold_for_every_key() {
    let mut model = sorted();
    let on_span = |key, range_end: &'static str, result, union| Compare {
        range_end: Bytes::from(range_end),
        ..compare(key, result, Some(union))
    };
    let value = |it: &'static str| TargetUnion::Value(Bytes::from(it));
    for (compare, holds) in [
        (on_span("s", "t", CompareResult::Greater, TargetUnion::Version(0)), true),
        (on_span("s", OPEN, CompareResult::Greater, TargetUnion::Version(1)), false),
        (on_span("s1", "s4", CompareResult::Greater, TargetUnion::Version(1)), true),
        (on_span("x", "y", CompareResult::Equal, TargetUnion::Version(0)), true),
        (on_span("y", "x", CompareResult::Equal, TargetUnion::Version(0)), true),
        (on_span("x", "y", CompareResult::NotEqual, value("q")), false),
        (on_span("s", "t", CompareResult::Less, value("e")), true),
        (on_span("s", "t", CompareResult::NotEqual, value("c")), false),
    ] {
        let request = txn(vec![compare.clone()], vec![], vec![]);
        assert_eq!(do_txn(&mut model, request).succeeded, holds, "{compare:?}");
    }
}

#[test]
fn compares_with_odd_enums_and_unions() {
    let mut model = sorted();
    let version = Some(TargetUnion::Version(4));
    let mut unknown_result = compare("s1", CompareResult::Equal, version.clone());
    unknown_result.result = 9;
    let mut unknown_target = compare("s1", CompareResult::Equal, version.clone());
    unknown_target.target = 9;
    let mut unknown_target_greater = unknown_target.clone();
    unknown_target_greater.result = CompareResult::Greater.into();
    let mut other_union = compare("s1", CompareResult::Greater, version);
    other_union.target_union = Some(TargetUnion::ModRevision(99));
    for (compare, holds) in [
        (unknown_result, true),
        (unknown_target, true),
        (unknown_target_greater, false),
        // Counts as zero.
        (other_union, true),
    ] {
        let request = txn(vec![compare.clone()], vec![], vec![]);
        assert_eq!(do_txn(&mut model, request).succeeded, holds, "{compare:?}");
    }
}

#[test]
fn a_transaction_decides_on_the_state_before_and_reads_its_own_writes() {
    let mut model = Model::default();
    let is_new = |key| vec![compare(key, CompareResult::Equal, Some(TargetUnion::Version(0)))];
    let inner = txn(
        is_new("n1"),
        vec![Op::RequestPut(put("n2", "2"))],
        vec![Op::RequestRange(read("n1", ""))],
    );
    let answer = do_txn(
        &mut model,
        txn(
            is_new("n1"),
            vec![
                Op::RequestRange(read("n1", "")),
                Op::RequestPut(put("n1", "1")),
                Op::RequestTxn(inner),
                Op::RequestRange(read("n", "o")),
                Op::RequestDeleteRange(delete("none", "")),
            ],
            vec![],
        ),
    );
    assert_eq!(model.revision(), 2);
    let responses: Vec<Response> =
        answer.responses.into_iter().map(|it| it.response.expect("set")).collect();
    let Response::ResponseRange(before) = &responses[0] else { panic!("{responses:?}") };
    assert_eq!((before.count, before.header.expect("set").revision), (0, 1));
    let Response::ResponseTxn(inner) = &responses[2] else { panic!("{responses:?}") };
    assert!(inner.succeeded, "decided before n1 was put");
    assert_eq!(inner.header, Some(Default::default()));
    let Response::ResponseRange(after) = &responses[3] else { panic!("{responses:?}") };
    assert_eq!((after.count, after.header.expect("set").revision), (2, 2));
    let Response::ResponseDeleteRange(nothing) = &responses[4] else { panic!("{responses:?}") };
    assert_eq!((nothing.deleted, nothing.header.expect("set").revision), (0, 2));
}

#[test]
fn reads_in_a_transaction_look_at_its_revision_before() {
    let mut model = Model::default();
    do_put(&mut model, put("e", "1"));
    let with_read = |revision| {
        let read = RangeRequest { revision, ..read("e", "") };
        Request::Txn(txn(
            vec![],
            vec![Op::RequestPut(put("e", "2")), Op::RequestRange(read)],
            vec![],
        ))
    };
    assert_eq!(refusal(&mut model, with_read(3)), Refusal::FutureRevision);
    assert_eq!(refusal(&mut model, with_read(-5)), Refusal::Compacted);
    apply(&mut model, with_read(-1));
    let Answer::Txn(answer) = apply(&mut model, with_read(2)).answer else { panic!("a txn") };
    let Some(Response::ResponseRange(past)) = &answer.responses[1].response else {
        panic!("{answer:?}")
    };
    assert_eq!((past.kvs[0].value.as_ref(), past.header.expect("set").revision), (&b"1"[..], 4));
}

#[test]
fn transactions_that_touch_a_key_twice() {
    let put_op = |key| Op::RequestPut(put(key, "1"));
    let delete_op = |key, end| Op::RequestDeleteRange(delete(key, end));
    let nested = |success, failure| Op::RequestTxn(txn(vec![], success, failure));
    let cases: Vec<(&str, Vec<Op>, bool)> = vec![
        ("two puts", vec![put_op("k"), put_op("k")], false),
        ("put and delete", vec![put_op("k"), delete_op("k", "")], false),
        ("delete and put", vec![delete_op("a", "z"), put_op("k")], false),
        ("two deletes", vec![delete_op("k", ""), delete_op("a", "z")], true),
        ("put at the end of a delete", vec![delete_op("a", "k"), put_op("k")], true),
        ("open-ended delete", vec![put_op("k"), delete_op("a", OPEN)], true),
        ("put and nested put", vec![put_op("k"), nested(vec![put_op("k")], vec![])], false),
        ("nested then and else", vec![nested(vec![put_op("k")], vec![put_op("k")])], true),
        (
            "two nested",
            vec![nested(vec![put_op("k")], vec![]), nested(vec![], vec![put_op("k")])],
            false,
        ),
        (
            "nested delete, then nested put",
            vec![nested(vec![delete_op("k", "")], vec![]), nested(vec![put_op("k")], vec![])],
            false,
        ),
        (
            "nested put, then nested delete",
            vec![nested(vec![put_op("k")], vec![]), nested(vec![delete_op("k", "")], vec![])],
            true,
        ),
        (
            "delete in a branch not taken",
            vec![nested(vec![], vec![delete_op("k", "")]), put_op("k")],
            false,
        ),
    ];
    for (name, operations, is_right) in cases {
        // The other branch is checked as well.
        for request in [txn(vec![], operations.clone(), vec![]), txn(vec![], vec![], operations)] {
            let result = Model::default().apply(&Request::Txn(request));
            assert_eq!(result.is_ok(), is_right, "{name}");
            assert!(is_right || result == Err(Refusal::DuplicateKey), "{name}");
        }
    }
}

#[test]
fn a_key_put_and_deleted_in_one_transaction() {
    let mut model = Model::default();
    do_put(&mut model, put("q", "0"));
    let request = txn(
        vec![],
        vec![
            Op::RequestPut(put("q", "1")),
            Op::RequestDeleteRange(delete("q", OPEN)),
            Op::RequestRange(read("q", "")),
        ],
        vec![],
    );
    let step = apply(&mut model, Request::Txn(request));
    assert_eq!(step.events.len(), 2);
    assert!(!step.events[0].is_delete() && step.events[1].is_delete());
    let Answer::Txn(answer) = &step.answer else { panic!("{step:?}") };
    let Some(Response::ResponseDeleteRange(deleted)) = &answer.responses[1].response else {
        panic!("{answer:?}")
    };
    assert_eq!((deleted.deleted, deleted.prev_kvs[0].version), (1, 2));
    assert_eq!(do_read(&mut model, read("q", "")).count, 0);
    assert_eq!(do_read(&mut model, RangeRequest { revision: 2, ..read("q", "") }).count, 1);
    // Keeping what the transaction has removed is refused as a whole.
    do_put(&mut model, put("q", "2"));
    let keeps = PutRequest { ignore_value: true, ..put("q", "") };
    let request =
        txn(vec![], vec![Op::RequestDeleteRange(delete("q", OPEN)), Op::RequestPut(keeps)], vec![]);
    assert_eq!(refusal(&mut model, Request::Txn(request)), Refusal::KeyNotFound);
}

#[test]
fn requests_that_are_wrong_in_any_state() {
    let mut model = Model::default();
    let wrong_order = RangeRequest { sort_order: 3, ..read("a", "") };
    let wrong_target = RangeRequest { sort_target: 5, ..read("a", "") };
    let with_value = PutRequest { ignore_value: true, ..put("a", "1") };
    let with_lease = PutRequest { ignore_lease: true, ..leased("a", "1", 1) };
    let empty_operation =
        TxnRequest { success: vec![RequestOp { request: None }], ..TxnRequest::default() };
    let empty_compare = txn(vec![compare("", CompareResult::Equal, None)], vec![], vec![]);
    let inner = txn(vec![], vec![], vec![Op::RequestRange(read("", ""))]);
    let long = LeaseGrantRequest { id: 1, ttl: 9_000_000_001 };
    for (request, expected) in [
        (Request::Read(read("", "")), Refusal::EmptyKey),
        (Request::Put(put("", "1")), Refusal::EmptyKey),
        (Request::DeleteRange(delete("", "a")), Refusal::EmptyKey),
        (Request::Txn(empty_compare), Refusal::EmptyKey),
        (Request::Txn(txn(vec![], vec![], vec![Op::RequestTxn(inner)])), Refusal::EmptyKey),
        (Request::Read(wrong_order), Refusal::InvalidSortOption),
        (Request::Read(wrong_target), Refusal::InvalidSortOption),
        (Request::Put(with_value), Refusal::ValueProvided),
        (Request::Put(with_lease), Refusal::LeaseProvided),
        (Request::Txn(empty_operation), Refusal::KeyNotFound),
        (Request::LeaseGrant(long), Refusal::LeaseTtlTooLarge),
    ] {
        assert_eq!(refusal(&mut model, request.clone()), expected, "{request}");
    }
}

#[test]
fn the_longest_transactions() {
    let reads = |count| vec![Op::RequestRange(read("a", "")); count];
    let compares =
        |count| vec![compare("a", CompareResult::Equal, Some(TargetUnion::Version(0))); count];
    let nested = |outer: usize, inner: usize| {
        let mut operations = reads(outer - 1);
        operations.push(Op::RequestTxn(txn(vec![], reads(inner), vec![])));
        txn(vec![], operations, vec![])
    };
    for (request, is_right) in [
        (txn(compares(128), reads(128), reads(128)), true),
        (txn(compares(129), vec![], vec![]), false),
        (txn(vec![], vec![], reads(129)), false),
        (nested(64, 64), true),
        (nested(64, 65), false),
    ] {
        let result = Model::default().apply(&Request::Txn(request));
        assert!(result.is_ok() == is_right, "{result:?}");
        assert!(is_right || result == Err(Refusal::TooManyOps));
    }
}

#[test]
fn leases_and_their_keys() {
    let mut model = Model::default();
    do_grant(&mut model, -3);
    let keys_of = |model: &mut Model| {
        let request = LeaseTimeToLiveRequest { id: -3, keys: true };
        match apply(model, Request::LeaseTimeToLive(request)).answer {
            Answer::LeaseTimeToLive(answer) => answer.keys,
            answer => panic!("{answer:?}"),
        }
    };
    for key in ["w3", "w1", "w2", "w4"] {
        do_put(&mut model, leased(key, "1", -3));
    }
    assert_eq!(keys_of(&mut model), ["w1", "w2", "w3", "w4"]);
    // A put without the lease and a delete detach.
    do_put(&mut model, put("w4", "2"));
    do_delete(&mut model, delete("w2", ""));
    assert_eq!(keys_of(&mut model), ["w1", "w3"]);
    let step = apply(&mut model, Request::LeaseRevoke(LeaseRevokeRequest { id: -3 }));
    let deleted: Vec<&[u8]> = step.events.iter().map(|it| it.key().as_ref()).collect();
    assert_eq!((step.answer.revision(), deleted), (8, vec![&b"w1"[..], &b"w3"[..]]));
    let again = Request::LeaseRevoke(LeaseRevokeRequest { id: -3 });
    assert_eq!(refusal(&mut model, again), Refusal::LeaseNotFound);
    let attach = Request::Put(leased("w1", "1", -3));
    assert_eq!(refusal(&mut model, attach), Refusal::LeaseNotFound);
    // The lease stays in the history.
    let past = do_read(&mut model, RangeRequest { revision: 3, ..read("w1", "") });
    assert_eq!(past.kvs[0].lease, -3);
}

#[test]
fn lease_answers() {
    let mut model = Model::default();
    let mut grant = |id, ttl| match model.apply(&Request::LeaseGrant(LeaseGrantRequest { id, ttl }))
    {
        Ok(Step { answer: Answer::LeaseGrant(answer), .. }) => Ok((answer.id, answer.ttl)),
        Ok(step) => panic!("{step:?}"),
        Err(refusal) => Err(refusal),
    };
    assert_eq!(grant(1, 0), Ok((1, 2)));
    assert_eq!(grant(1, 5), Err(Refusal::LeaseExists));
    assert_eq!(grant(0, 60), Ok((2, 60)));
    let renew = |model: &mut Model, id| {
        let request = Request::LeaseKeepAlive(LeaseKeepAliveRequest { id });
        match apply(model, request).answer {
            Answer::LeaseKeepAlive(answer) => answer.ttl,
            answer => panic!("{answer:?}"),
        }
    };
    assert_eq!((renew(&mut model, 2), renew(&mut model, 9)), (60, 0));
    let request = Request::LeaseTimeToLive(LeaseTimeToLiveRequest { id: 9, keys: true });
    let Answer::LeaseTimeToLive(none) = apply(&mut model, request).answer else { panic!("a ttl") };
    assert_eq!((none.ttl, none.granted_ttl), (-1, 0));
    assert!(model.expire(2).is_empty());
    assert_eq!(renew(&mut model, 2), 0);
    assert_eq!(model.revision(), 1);
}

#[test]
fn compaction() {
    let mut model = Model::default();
    for value in ["1", "2", "3", "4"] {
        do_put(&mut model, put("a", value));
    }
    let compact = |revision| Request::Compact(CompactionRequest { revision, physical: false });
    let read_at = |revision| Request::Read(RangeRequest { revision, ..read("a", "") });
    apply(&mut model, compact(0));
    assert_eq!(refusal(&mut model, compact(0)), Refusal::Compacted);
    assert_eq!(refusal(&mut model, compact(6)), Refusal::FutureRevision);
    assert_eq!(apply(&mut model, compact(3)).answer.revision(), 5);
    assert_eq!(refusal(&mut model, compact(3)), Refusal::Compacted);
    assert_eq!(refusal(&mut model, read_at(2)), Refusal::Compacted);
    apply(&mut model, read_at(3));
    apply(&mut model, read_at(-1));
    let in_txn = |revision| {
        let read = RangeRequest { revision, ..read("a", "") };
        Request::Txn(txn(vec![], vec![Op::RequestRange(read)], vec![]))
    };
    assert_eq!(refusal(&mut model, in_txn(2)), Refusal::Compacted);
    assert_eq!(refusal(&mut model, in_txn(-1)), Refusal::Compacted);
    apply(&mut model, in_txn(3));
    apply(&mut model, compact(5));
    apply(&mut model, read_at(5));
}

#[test]
fn texts_and_codes_are_those_of_etcd() {
    for refusal in Refusal::ALL {
        assert_eq!(Refusal::from_text(&refusal.to_string()), Some(refusal));
    }
    let received = Refusal::LeaseNotFound.received();
    assert_eq!(
        (received.code.0, received.text.as_str()),
        (5, "etcdserver: requested lease not found")
    );
    assert_eq!(Refusal::from_text("etcdserver: no leader"), None);
}

#[test]
fn an_answer_agrees_only_if_every_field_does() {
    let mut model = sorted();
    let mut request = RangeRequest { limit: 2, ..read("s", "t") };
    request.set_sort_target(SortTarget::Create);
    request.set_sort_order(SortOrder::Descend);
    let step = apply(&mut model, Request::Read(request));
    let Answer::Read(right) = &step.answer else { panic!("{step:?}") };
    type Bend = fn(&mut RangeResponse);
    let bends: [(&str, Bend); 7] = [
        ("header", |it| it.header = None),
        ("header.revision", |it| it.header.as_mut().expect("set").revision = 10),
        ("count", |it| it.count = 3),
        ("more", |it| it.more = false),
        ("kvs.len", |it| it.kvs.truncate(1)),
        ("kvs[1]", |it| it.kvs[1].version = 9),
        ("kvs[0]", |it| it.kvs.swap(0, 1)),
    ];
    assert_eq!(agrees(&step, &step.answer), Ok(()));
    for (field, bend) in bends {
        let mut answer = right.clone();
        bend(&mut answer);
        let difference = agrees(&step, &Answer::Read(answer)).expect_err("it is bent");
        assert_eq!(difference.field, field);
    }
    let other = Answer::Put(PutResponse { header: right.header, prev_kv: None });
    assert_eq!(agrees(&step, &other).expect_err("another kind").field, "answer");
}

#[test]
fn equal_sort_keys_may_come_in_any_order() {
    let mut model = Model::default();
    for (key, value) in [("a", "x"), ("b", "x"), ("c", "x"), ("d", "w")] {
        do_put(&mut model, put(key, value));
    }
    let mut request = RangeRequest { limit: 3, ..read("a", "z") };
    request.set_sort_target(SortTarget::Value);
    request.set_sort_order(SortOrder::Ascend);
    let step = apply(&mut model, Request::Read(request));
    let all = do_read(&mut model, read("a", "z")).kvs;
    let Answer::Read(right) = &step.answer else { panic!("{step:?}") };
    for (order, is_right) in [
        ([3, 0, 1], true),
        ([3, 1, 0], true),
        ([3, 2, 1], true),
        ([0, 1, 2], false),
        ([0, 3, 1], false),
        ([3, 1, 1], false),
    ] {
        let kvs = order.map(|position: usize| all[position].clone()).to_vec();
        let answer = Answer::Read(RangeResponse { kvs, ..right.clone() });
        assert_eq!(agrees(&step, &answer).is_ok(), is_right, "{order:?}");
    }
}

#[test]
fn inner_headers_carry_the_revision_only() {
    let mut model = Model::default();
    let request = txn(vec![], vec![Op::RequestPut(put("a", "1"))], vec![]);
    let step = apply(&mut model, Request::Txn(request));
    let mut found = step.answer.clone();
    found.header_mut().as_mut().expect("set").member_id = 5;
    assert_eq!(agrees(&step, &found), Ok(()));
    let Answer::Txn(answer) = &mut found else { panic!("{found:?}") };
    let Some(Response::ResponsePut(inner)) = &mut answer.responses[0].response else {
        panic!("{answer:?}")
    };
    inner.header.as_mut().expect("set").member_id = 5;
    let difference = agrees(&step, &found).expect_err("etcd leaves it out");
    assert_eq!(difference.field, "responses[0].put.header");
}

#[test]
fn random_requests_are_repeatable_and_reach_every_refusal() {
    let mut model = Model::new(Limits { txn_ops_max: 2, ..Limits::default() });
    let (mut first, mut second) = (Requests::new(5), Requests::new(5));
    let mut met = std::collections::BTreeSet::new();
    for _ in 0..5_000 {
        let request = first.next(&model);
        assert_eq!(request, second.next(&model));
        met.extend(model.apply(&request).err());
    }
    let expected = Refusal::ALL.into_iter().filter(|it| *it != Refusal::InvalidSortOption);
    assert_eq!(met, expected.collect());
}
