//! What etcd's security advisories of its permission checks taught, each as a test.

use super::rules::get;
use super::*;
use crate::auth::Access;
use crate::proto::Span;
use crate::proto::etcdserverpb::request_op::Request;

fn op(request: Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

fn put(key: &str) -> pb::PutRequest {
    pb::PutRequest { key: Bytes::from(key.to_owned()), ..pb::PutRequest::default() }
}

/// CVE-2026-33343: what is nested in a transaction was not looked at.
#[test]
fn nested_transactions_are_walked_to_the_bottom_of_both_branches() {
    let auth = with_permissions(&[(Type::Readwrite, "mine", "")]);
    let mine = Request::RequestPut(put("mine"));
    for others in [
        Request::RequestRange(get("other", "")),
        Request::RequestPut(put("other")),
        Request::RequestDeleteRange(pb::DeleteRangeRequest {
            key: "other".into(),
            ..Default::default()
        }),
    ] {
        for depth in 0..20 {
            for is_success in [true, false] {
                let nest = |mut ops: Vec<pb::RequestOp>| {
                    for _ in 0..depth {
                        let mut txn = pb::TxnRequest::default();
                        match is_success {
                            true => txn.success = ops,
                            false => txn.failure = ops,
                        }
                        ops = vec![op(Request::RequestTxn(txn))];
                    }
                    pb::TxnRequest { failure: ops, ..pb::TxnRequest::default() }
                };
                let good = nest(vec![op(mine.clone())]);
                assert!(ask(&auth, &Needs::of_txn(&good)).is_ok());
                let bad = nest(vec![op(mine.clone()), op(others.clone())]);
                assert_eq!(ask(&auth, &Needs::of_txn(&bad)), Err(Error::PermissionDenied));
            }
        }
    }
    let compare = pb::Compare { key: "other".into(), ..pb::Compare::default() };
    let compares = pb::TxnRequest { compare: vec![compare], ..pb::TxnRequest::default() };
    assert_eq!(ask(&auth, &Needs::of_txn(&compares)), Err(Error::PermissionDenied));
}

/// CVE-2026-44283: the old value, and a lease, inside a transaction's put.
#[test]
fn an_old_value_is_a_read_and_a_lease_is_all_of_its_keys() {
    let auth = with_permissions(&[(Type::Write, "w", ""), (Type::Readwrite, "rw", "")]);
    let refused = Err(Error::PermissionDenied);
    for (key, is_readable) in [("w", false), ("rw", true)] {
        let blind = put(key);
        let reading = pb::PutRequest { prev_kv: true, ..blind.clone() };
        let delete = pb::DeleteRangeRequest {
            key: Bytes::from(key.to_owned()),
            prev_kv: true,
            ..Default::default()
        };
        let txn = |put: &pb::PutRequest| pb::TxnRequest {
            success: vec![op(Request::RequestPut(put.clone()))],
            ..pb::TxnRequest::default()
        };
        assert!(ask(&auth, &Needs::of_put(&blind)).is_ok());
        assert!(ask(&auth, &Needs::of_txn(&txn(&blind))).is_ok());
        assert_eq!(ask(&auth, &Needs::of_put(&reading)).is_ok(), is_readable);
        assert_eq!(ask(&auth, &Needs::of_txn(&txn(&reading))).is_ok(), is_readable);
        assert_eq!(ask(&auth, &Needs::of_delete(&delete)).is_ok(), is_readable);
    }
    let leased = pb::PutRequest { lease: 7, ..put("w") };
    let txn = pb::TxnRequest {
        failure: vec![op(Request::RequestPut(leased.clone()))],
        ..pb::TxnRequest::default()
    };
    for needs in [Needs::of_put(&leased), Needs::of_txn(&txn), Needs::of_lease(LeaseId(7))] {
        let with = |keys: &[&'static str]| {
            let keys: Vec<Bytes> = keys.iter().copied().map(Bytes::from).collect();
            auth.check(&Caller::user("u"), &needs, |lease| {
                assert_eq!(lease, LeaseId(7));
                Ok::<_, Error>(keys.clone())
            })
        };
        assert!(with(&[]).is_ok());
        assert!(with(&["w", "rw"]).is_ok());
        assert_eq!(with(&["w", "other"]), refused);
    }
}

/// CVE-2023-32082: the names of a lease's keys were told to whoever asked.
#[test]
fn the_keys_of_a_lease_are_told_to_who_may_read_them() {
    let auth = with_permissions(&[(Type::Write, "w", ""), (Type::Read, "r", "")]);
    let needs = Needs::of_lease_keys(LeaseId(7));
    let with = |key: &'static str| {
        let keys = move |_| Ok::<_, Error>(vec![Bytes::from(key)]);
        auth.check(&Caller::user("u"), &needs, keys)
    };
    assert!(with("r").is_ok());
    assert_eq!(with("w"), Err(Error::PermissionDenied));
}

/// GHSA-xg4h-6gfc-h4m8: one key was granted, and everything after it could be watched.
#[test]
fn a_watch_is_checked_for_the_span_that_it_will_have() {
    let one_key = with_permissions(&[(Type::Read, "k", "")]);
    let watch = |key: &'static str, range_end: &'static str| {
        let (key, range_end) = (Bytes::from(key), Bytes::from(range_end));
        Needs::of_watch(&pb::WatchCreateRequest { key, range_end, ..Default::default() })
    };
    assert!(ask(&one_key, &watch("k", "")).is_ok());
    let wider = [("k", "\0"), ("k", "k\0\0"), ("k", "l"), ("", ""), ("", "\0"), ("j", "l")];
    for (key, range_end) in wider {
        let needs = watch(key, range_end);
        assert_eq!(ask(&one_key, &needs), Err(Error::PermissionDenied), "{key:?} {range_end:?}");
    }
    // The least key there is, as a watcher without a key means it.
    let needs = watch("", "\0");
    let lowest = Span { start: Bytes::from_static(b"\0"), end: None };
    assert_eq!(needs.spans, [(lowest, Access::Read)]);
    let all = with_permissions(&[(Type::Read, "\0", "\0")]);
    assert!(ask(&all, &needs).is_ok());
}

/// Spans that touch are one; a gap of a single key is a gap.
#[test]
fn grants_are_joined_where_they_touch() {
    let joined = with_permissions(&[
        (Type::Read, "a", "b"),
        (Type::Read, "b", ""),
        (Type::Read, "b\0", "c"),
    ]);
    assert!(ask(&joined, &Needs::of_range(&get("a", "c"))).is_ok());
    let parted = with_permissions(&[(Type::Read, "a", "b"), (Type::Read, "b\0", "c")]);
    assert_eq!(ask(&parted, &Needs::of_range(&get("a", "c"))), Err(Error::PermissionDenied));
    assert!(ask(&parted, &Needs::of_range(&get("b\0", "c"))).is_ok());
    // A span without a key: asked for as etcd asks.
    assert!(ask(&parted, &Needs::of_range(&get("b\0", "a"))).is_ok());
    assert_eq!(ask(&parted, &Needs::of_range(&get("d", "a"))), Err(Error::PermissionDenied));
}
