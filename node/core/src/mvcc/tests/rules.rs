//! The rules of etcd's semantics, one conversation each.

use super::chance::Chance;
use super::script::check;
use super::*;

#[test]
fn a_life_of_a_key() {
    check(
        r#"
        > put k 1
        rev 2
        > put k 1
        rev 3
        > put k 2
        rev 4
        > range k
        rev 4 count 1: k=2 (create 2 mod 4 version 3)
        > delete k
        rev 5 deleted 1
        > delete k
        rev 5 deleted 0
        > range k
        rev 5 count 0
        > put k 3
        rev 6
        > range k
        rev 6 count 1: k=3 (create 6 mod 6 version 1)
        > range k rev=4
        rev 6 count 1: k=2 (create 2 mod 4 version 3)
        > range k rev=5
        rev 6 count 0
        > range k rev=1
        rev 6 count 0
        "#,
    );
}

#[test]
fn leases_of_keys() {
    check(
        r#"
        > grant 1
        ok
        > grant 2
        ok
        > put k 1 lease=9
        ! etcdserver: requested lease not found
        > put k 1 lease=1
        rev 2
        > lease-keys 1
        k
        > put k 2 lease=1
        rev 3
        > lease-keys 1
        k
        > put k "" lease=2 ignore_value
        rev 4
        > lease-keys 1
        none
        > lease-keys 2
        k
        > put k 3 ignore_lease
        rev 5
        > range k
        rev 5 count 1: k=3 (create 2 mod 5 version 4 lease 2)
        > put k 4
        rev 6
        > lease-keys 2
        none
        > put k 5 lease=2
        rev 7
        > delete k
        rev 8 deleted 1
        > lease-keys 2
        none
        > range k rev=7
        rev 8 count 1: k=5 (create 2 mod 7 version 6 lease 2)

        # The lease is looked up before the key.
        > put missing "" lease=9 ignore_value
        ! etcdserver: requested lease not found
        > txn ( ) ( put missing "" lease=9 ignore_value ) ( )
        ! etcdserver: requested lease not found
        "#,
    );
}

#[test]
fn a_span_and_its_ends() {
    check(
        r#"
        > put a 1
        rev 2
        > put b 2
        rev 3
        > put c 3
        rev 4
        > range b
        rev 4 count 1: b=2 (create 3 mod 3 version 1)
        > range b ..\0
        rev 4 count 2: b=2 (create 3 mod 3 version 1), c=3 (create 4 mod 4 version 1)
        > range a ..c
        rev 4 count 2: a=1 (create 2 mod 2 version 1), b=2 (create 3 mod 3 version 1)
        > range b ..b
        rev 4 count 0
        > range c ..a
        rev 4 count 0
        > range \0 ..\0 keys_only
        rev 4 count 3: a= (create 2 mod 2 version 1), b= (create 3 mod 3 version 1), c= (create 4 mod 4 version 1)
        > delete b ..\0 prev
        rev 5 deleted 2: b=2 (create 3 mod 3 version 1), c=3 (create 4 mod 4 version 1)
        "#,
    );
}

#[test]
fn limits_bounds_and_order() {
    check(
        r#"
        > put a z
        rev 2
        > put b y
        rev 3
        > put c x
        rev 4
        > put a z
        rev 5
        > range a ..d limit=3 keys_only
        rev 5 count 3: a= (create 2 mod 5 version 2), b= (create 3 mod 3 version 1), c= (create 4 mod 4 version 1)
        > range a ..d limit=2 keys_only
        rev 5 count 3 more: a= (create 2 mod 5 version 2), b= (create 3 mod 3 version 1)
        > range a ..d limit=-1 order=2 keys_only
        rev 5 count 3: c= (create 4 mod 4 version 1), b= (create 3 mod 3 version 1), a= (create 2 mod 5 version 2)
        > range a ..d limit=1 order=1 target=4 keys_only
        rev 5 count 3 more: c= (create 4 mod 4 version 1)
        > range a ..d limit=1 order=2 target=3
        rev 5 count 3 more: a=z (create 2 mod 5 version 2)
        > range a ..d limit=1 order=1 target=2
        rev 5 count 3 more: a=z (create 2 mod 5 version 2)

        # Bounds are inclusive, leave the count alone, and are applied before the limit.
        > range a ..d min_mod=3 max_mod=4
        rev 5 count 3: b=y (create 3 mod 3 version 1), c=x (create 4 mod 4 version 1)
        > range a ..d min_create=3 limit=1
        rev 5 count 3 more: b=y (create 3 mod 3 version 1)
        > range a ..d max_create=3 limit=2
        rev 5 count 3: a=z (create 2 mod 5 version 2), b=y (create 3 mod 3 version 1)
        > range a ..d min_mod=5 limit=1
        rev 5 count 3: a=z (create 2 mod 5 version 2)
        > range a ..d count_only order=2 limit=1 max_mod=1
        rev 5 count 3
        "#,
    );
}

#[test]
fn compares() {
    check(
        r#"
        > grant 4
        ok
        > put a 5 lease=4
        rev 2
        > put b 5
        rev 3
        > put b 5
        rev 4
        > txn ( value a = 5 ; version a = 1 ; create a = 2 ; mod a = 2 ; lease a = 4 ) ( ) ( )
        rev 4 yes [  ]
        > txn ( value a > 40 ; value a < 6 ; value a != 4 ) ( ) ( )
        rev 4 yes [  ]
        > txn ( version a > 1 ) ( ) ( range b )
        rev 4 no [ rev 4 count 1: b=5 (create 3 mod 4 version 2) ]
        > txn ( version a ..c > 0 ) ( ) ( )
        rev 4 yes [  ]
        > txn ( version a ..c = 1 ) ( ) ( )
        rev 4 no [  ]
        > txn ( value a ..\0 = 5 ) ( ) ( )
        rev 4 yes [  ]

        # All must hold. An unset number is zero, an unknown result true, an unknown target equal.
        > txn ( version a = 1 ; version b = 1 ) ( ) ( )
        rev 4 no [  ]
        > txn ( version a > ) ( ) ( )
        rev 4 yes [  ]
        > txn ( version a 9 1 ) ( ) ( )
        rev 4 yes [  ]
        > txn ( 9 a = 77 ) ( ) ( )
        rev 4 yes [  ]
        "#,
    );
}

#[test]
fn a_value_given_for_another_target_counts_as_zero() {
    let mut store = Store::new();
    store.put(put("a", "")).unwrap();
    let compare = |target, union| pb::Compare {
        key: bytes("a"),
        target,
        target_union: Some(union),
        ..Default::default()
    };
    use crate::proto::etcdserverpb::compare::TargetUnion;
    for (compare, want) in [
        (compare(0, TargetUnion::ModRevision(1)), false),
        (compare(4, TargetUnion::Version(1)), true),
        (compare(3, TargetUnion::Version(1)), true),
    ] {
        let request = pb::TxnRequest { compare: vec![compare.clone()], ..Default::default() };
        assert_eq!(store.txn(request).unwrap().succeeded, want, "{compare:?}");
    }
}

#[test]
fn transaction_headers_and_reads_of_own_writes() {
    check(
        r#"
        > put a 1
        rev 2
        > txn ( ) ( range a ; delete none ; put a 2 prev ; range a ; delete a prev ; range a ; delete a ) ( )
        ! etcdserver: duplicate key given in txn request
        > txn ( ) ( range a ; delete none ; put b 2 prev ; range a ..c ; delete a prev ; range a ..c ; delete a ) ( )
        rev 3 yes [ rev 2 count 1: a=1 (create 2 mod 2 version 1) ; rev 2 deleted 0 ; rev 3 ; rev 3 count 2: a=1 (create 2 mod 2 version 1), b=2 (create 3 mod 3 version 1) ; rev 3 deleted 1: a=1 (create 2 mod 2 version 1) ; rev 3 count 1: b=2 (create 3 mod 3 version 1) ; rev 3 deleted 0 ]
        > txn ( version b = 9 ) ( put b 3 ) ( range b )
        rev 3 no [ rev 3 count 1: b=2 (create 3 mod 3 version 1) ]

        # A nested transaction of nothing but reads.
        > txn ( ) ( txn ( version b = 1 ) ( range b count_only ) ( ) ) ( )
        rev 3 yes [ rev 0 yes [ rev 3 count 1 ] ]
        "#,
    );
}

#[test]
fn bounds_on_the_revision_that_is_being_made() {
    check(
        r#"
        > put a 1
        rev 2
        > put b 1
        rev 3
        > txn ( ) ( put a 2 ; put c 2 ; range a ..d min_mod=4 ; range a ..d max_mod=3 ; range a ..d min_mod=5 ; range a ..d min_create=4 limit=1 ; range a ..d max_mod=4 order=2 target=3 limit=2 ) ( )
        rev 4 yes [ rev 4 ; rev 4 ; rev 4 count 3: a=2 (create 2 mod 4 version 2), c=2 (create 4 mod 4 version 1) ; rev 4 count 3: b=1 (create 3 mod 3 version 1) ; rev 4 count 3 ; rev 4 count 3: c=2 (create 4 mod 4 version 1) ; rev 4 count 3 more: a=2 (create 2 mod 4 version 2), c=2 (create 4 mod 4 version 1) ]
        > txn ( ) ( txn ( ) ( put a 3 ; range a ..d min_mod=5 keys_only ) ( ) ) ( )
        rev 5 yes [ rev 0 yes [ rev 5 ; rev 5 count 3: a= (create 2 mod 5 version 3) ] ]
        "#,
    );
}

#[test]
fn checks_of_a_transaction_are_for_the_path_taken() {
    check(
        r#"
        > put a 1
        rev 2
        > txn ( version a = 1 ) ( range a ) ( put b 1 lease=9 ; range a rev=99 )
        rev 2 yes [ rev 2 count 1: a=1 (create 2 mod 2 version 1) ]
        > txn ( version a = 2 ) ( range a ) ( put b 1 lease=9 ; range a rev=99 )
        ! etcdserver: requested lease not found
        > txn ( version a = 2 ) ( range a ) ( range a rev=99 ; put b 1 lease=9 )
        ! etcdserver: mvcc: required revision is a future revision
        > txn ( ) ( put c 1 ; put b "" ignore_value ) ( )
        ! etcdserver: key not found
        > range c
        rev 2 count 0

        # Also of the one that a nested transaction takes, with the state before.
        > txn ( ) ( put c 1 ; txn ( version c = 0 ) ( range a rev=3 ) ( ) ) ( )
        ! etcdserver: mvcc: required revision is a future revision

        # Found by the checks, but gone when its turn comes.
        > txn ( ) ( delete a ..\0 ; put a "" ignore_value ) ( )
        ! etcdserver: key not found
        > range a
        rev 2 count 1: a=1 (create 2 mod 2 version 1)
        > compact 2
        ok
        > txn ( ) ( range a rev=-1 ) ( )
        ! etcdserver: mvcc: required revision has been compacted
        > txn ( ) ( range a rev=1 ; put a 2 ) ( )
        ! etcdserver: mvcc: required revision has been compacted
        "#,
    );
}

#[test]
fn duplicate_keys() {
    check(
        r#"
        > txn ( ) ( put k 1 ; put k 2 ) ( )
        ! etcdserver: duplicate key given in txn request
        > txn ( ) ( ) ( put k 1 ; put k 2 )
        ! etcdserver: duplicate key given in txn request
        > txn ( ) ( put k 1 ; delete k ) ( )
        ! etcdserver: duplicate key given in txn request
        > txn ( ) ( delete a ..l ; txn ( ) ( ) ( put k 1 ) ) ( )
        ! etcdserver: duplicate key given in txn request
        > txn ( ) ( put k 1 ; txn ( ) ( ) ( delete a ..l ) ) ( )
        ! etcdserver: duplicate key given in txn request
        > txn ( ) ( txn ( ) ( put k 1 ) ( ) ; txn ( ) ( put k 2 ) ( ) ) ( )
        ! etcdserver: duplicate key given in txn request
        > txn ( ) ( txn ( ) ( put k 1 ) ( put k 3 ) ; txn ( ) ( ) ( put k 2 ) ) ( )
        ! etcdserver: duplicate key given in txn request
        > txn ( ) ( txn ( ) ( delete k ) ( ) ; txn ( ) ( put k 2 ) ( ) ) ( )
        ! etcdserver: duplicate key given in txn request

        # A delete that comes in a later nested transaction is not looked at, nor one on the other
        # branch, nor one that ends where the key begins.
        > txn ( ) ( txn ( ) ( put k 2 ) ( ) ; txn ( ) ( delete k ) ( ) ) ( )
        rev 2 yes [ rev 0 yes [ rev 2 ] ; rev 0 yes [ rev 2 deleted 1 ] ]
        > txn ( ) ( txn ( ) ( put k 2 ) ( delete k ) ) ( )
        rev 3 yes [ rev 0 yes [ rev 3 ] ]
        > txn ( ) ( delete a ..k ; put k 3 ; delete l ..z ) ( )
        rev 4 yes [ rev 3 deleted 0 ; rev 4 ; rev 4 deleted 0 ]
        > txn ( ) ( delete k ..k ; delete z ..a ; put k 4 ) ( )
        rev 5 yes [ rev 4 deleted 0 ; rev 4 deleted 0 ; rev 5 ]
        > txn ( ) ( delete a ..c ; delete b ..m ; delete c ..e ; put k 4 ) ( )
        ! etcdserver: duplicate key given in txn request
        "#,
    );
}

/// The quirk of an open-ended delete lets one transaction change a key twice.
#[test]
fn a_key_changed_twice_at_one_revision() {
    check(
        r#"
        > put k 1
        rev 2
        > txn ( ) ( put k 2 ; delete a ..\0 prev ; range k ) ( )
        rev 3 yes [ rev 3 ; rev 3 deleted 1: k=2 (create 2 mod 3 version 2) ; rev 3 count 0 ]
        > range k rev=2
        rev 3 count 1: k=1 (create 2 mod 2 version 1)
        > range k rev=3
        rev 3 count 0
        > put k 4
        rev 4
        > range k rev=3
        rev 4 count 0
        > txn ( ) ( delete a ..\0 ; put k 5 prev ; put l 5 ; range a ..\0 ) ( )
        rev 5 yes [ rev 5 deleted 1 ; rev 5 ; rev 5 ; rev 5 count 2: k=5 (create 5 mod 5 version 1), l=5 (create 5 mod 5 version 1) ]
        > put k 6
        rev 6
        > range k rev=5
        rev 6 count 1: k=5 (create 5 mod 5 version 1)
        > range k rev=4
        rev 6 count 1: k=4 (create 4 mod 4 version 1)
        "#,
    );
}

#[test]
fn requests_that_are_wrong_in_any_state() {
    let cases: [(Result<(), Error>, Result<(), Error>); 11] = [
        (check_put(&put("", "")), Err(Error::EmptyKey)),
        (
            check_put(&pb::PutRequest { ignore_value: true, ..put("k", "v") }),
            Err(Error::ValueProvided),
        ),
        (
            check_put(&pb::PutRequest { ignore_lease: true, lease: 1, ..put("k", "v") }),
            Err(Error::LeaseProvided),
        ),
        (check_delete(&delete("", "z")), Err(Error::EmptyKey)),
        (check_range(&range("", "z")), Err(Error::EmptyKey)),
        (
            check_range(&pb::RangeRequest { sort_order: 3, ..range("a", "") }),
            Err(Error::InvalidSortOption),
        ),
        (
            check_range(&pb::RangeRequest { sort_target: -1, ..range("a", "") }),
            Err(Error::InvalidSortOption),
        ),
        (check_txn(&txn(vec![op_range("", "")]), OPS_MAX), Err(Error::EmptyKey)),
        (check_txn(&txn(vec![op_txn(txn(vec![op_put("", "")]))]), OPS_MAX), Err(Error::EmptyKey)),
        (
            check_txn(
                &pb::TxnRequest { compare: vec![Default::default()], ..Default::default() },
                OPS_MAX,
            ),
            Err(Error::EmptyKey),
        ),
        (check_txn(&txn(vec![op_delete("", "")]), OPS_MAX), Err(Error::EmptyKey)),
    ];
    for (n, (got, want)) in cases.into_iter().enumerate() {
        assert_eq!(got, want, "{n}");
    }
}

#[test]
fn streamed_reads_that_are_refused() {
    let ok = range("a", "z");
    assert_eq!(check_range_stream(&ok), Ok(()));
    let ascending = pb::RangeRequest { sort_order: 1, ..ok.clone() };
    assert_eq!(check_range_stream(&ascending), Ok(()));
    let only_target = pb::RangeRequest { sort_target: 3, ..ok.clone() };
    assert_eq!(check_range_stream(&only_target), Ok(()));
    let empty = range("", "z");
    assert_eq!(check_range_stream(&empty), Err(Error::EmptyKey));
    let unknown = pb::RangeRequest { sort_order: 9, min_mod_revision: 1, ..ok.clone() };
    assert_eq!(check_range_stream(&unknown), Err(Error::InvalidSortOption));
    let descending = pb::RangeRequest { sort_order: 2, count_only: true, ..ok.clone() };
    assert_eq!(check_range_stream(&descending), Err(Error::RangeStreamSort));
    let by_value = pb::RangeRequest { sort_order: 1, sort_target: 4, ..ok.clone() };
    assert_eq!(check_range_stream(&by_value), Err(Error::RangeStreamSort));
    for bound in 0..4 {
        let mut bounded = ok.clone();
        *[
            &mut bounded.min_mod_revision,
            &mut bounded.max_mod_revision,
            &mut bounded.min_create_revision,
            &mut bounded.max_create_revision,
        ][bound] = -1;
        assert_eq!(check_range_stream(&bounded), Err(Error::RangeStreamFilter));
    }
}

/// What a branch puts, and what it deletes as `(key, range_end)`.
type Changed = (BTreeSet<Bytes>, Vec<(Bytes, Bytes)>);

/// The rule spelled out as etcd does it, comparing everything with everything.
fn overlap_slowly(ops: &[pb::RequestOp]) -> Result<Changed, Error> {
    let mut puts: BTreeSet<Bytes> = BTreeSet::new();
    let mut deletes: Vec<(Bytes, Bytes)> = Vec::new();
    let is_deleted =
        |deletes: &[(Bytes, Bytes)], key: &Bytes| {
            deletes.iter().any(|(start, end)| {
                if end.is_empty() { start == key } else { start <= key && key < end }
            })
        };
    for op in ops {
        if let Some(Request::RequestDeleteRange(delete)) = &op.request {
            deletes.push((delete.key.clone(), delete.range_end.clone()));
        }
    }
    for op in ops {
        if let Some(Request::RequestTxn(txn)) = &op.request {
            let (success_puts, success_deletes) = overlap_slowly(&txn.success)?;
            let (failure_puts, failure_deletes) = overlap_slowly(&txn.failure)?;
            for key in &success_puts {
                if puts.contains(key) || is_deleted(&deletes, key) {
                    return Err(Error::DuplicateKey);
                }
                puts.insert(key.clone());
            }
            for key in &failure_puts {
                let is_double = puts.contains(key) && !success_puts.contains(key);
                if is_double || is_deleted(&deletes, key) {
                    return Err(Error::DuplicateKey);
                }
                puts.insert(key.clone());
            }
            deletes.extend(success_deletes);
            deletes.extend(failure_deletes);
        }
    }
    for op in ops {
        if let Some(Request::RequestPut(put)) = &op.request {
            if puts.contains(&put.key) || is_deleted(&deletes, &put.key) {
                return Err(Error::DuplicateKey);
            }
            puts.insert(put.key.clone());
        }
    }
    Ok((puts, deletes))
}

#[test]
fn random_overlaps_are_found_as_by_comparing_everything() {
    fn ops(chance: &mut Chance, depth: usize) -> Vec<pb::RequestOp> {
        let key = |chance: &mut Chance| char::from(b'a' + chance.below(12) as u8).to_string();
        let mut list = Vec::new();
        for _ in 0..chance.below(5) {
            list.push(match chance.below(6) {
                0 | 1 => op_put(&key(chance), ""),
                2 => op_delete(&key(chance), ""),
                3 => op_delete(&key(chance), &key(chance)),
                4 if chance.one_in(4) => op_delete(&key(chance), "\0"),
                _ if depth > 0 => op_txn(pb::TxnRequest {
                    success: ops(chance, depth - 1),
                    failure: ops(chance, depth - 1),
                    ..Default::default()
                }),
                _ => op_put(&key(chance), ""),
            });
        }
        list
    }
    let mut chance = Chance::new(7);
    let (mut accepted, mut refused) = (0, 0);
    for _ in 0..20_000 {
        let request = txn(ops(&mut chance, 3));
        let want = overlap_slowly(&request.success).map(drop);
        assert_eq!(check_txn(&request, OPS_MAX), want, "{request:?}");
        accepted += usize::from(want.is_ok());
        refused += usize::from(want.is_err());
    }
    assert!(accepted > 2_000 && refused > 2_000, "{accepted} {refused}");
}

/// Deeply nested and wide transactions must not take long to check: 20 000 operations under 90
/// levels, each with a delete of its own.
#[test]
fn checking_a_large_transaction_is_cheap() {
    let many: Vec<_> = (0..200).map(|n| op_put(&format!("put/{n}"), "")).collect();
    let mut ops: Vec<_> = Vec::new();
    for n in 0..100 {
        let ops_of_one = (0..200).map(|m| op_put(&format!("put/{n}/{m}"), "")).collect();
        ops.push(op_txn(txn(ops_of_one)));
    }
    ops.push(op_txn(txn(many)));
    for level in 0..90 {
        ops = vec![op_delete(&format!("level/{level}"), ""), op_txn(txn(ops))];
    }
    assert_eq!(check_txn(&txn(ops), usize::MAX), Ok(()));
}

#[test]
fn costs_for_the_quota() {
    let put = |value: &str| op_put("key", value);
    let cost = |command| quota_cost(&command);
    assert_eq!(cost(Command::Put(super::put("key", "value"))), 256 + 8);
    assert_eq!(cost(Command::DeleteRange(delete("key", ""))), 0);
    assert_eq!(cost(Command::LeaseGrant(Default::default())), 64);
    let request = pb::TxnRequest {
        success: vec![put(""), op_range("a", ""), op_delete("a", "")],
        failure: vec![
            put("12345"),
            op_txn(pb::TxnRequest {
                success: vec![put("")],
                failure: vec![put("1")],
                ..Default::default()
            }),
        ],
        ..Default::default()
    };
    assert_eq!(cost(Command::Txn(request)), (256 + 8) + (256 + 4));
    assert_eq!(cost(Command::Txn(txn(vec![op_delete("a", "")]))), 0);
}

#[test]
fn which_transactions_are_reads() {
    let serializable = pb::RangeRequest { serializable: true, ..range("a", "") };
    let read = op(Request::RequestRange(serializable));
    let cases = [
        (txn(vec![]), true, true),
        (txn(vec![op_range("a", "")]), true, false),
        (txn(vec![read.clone()]), true, true),
        (
            pb::TxnRequest { failure: vec![op_put("a", "")], ..txn(vec![read.clone()]) },
            false,
            false,
        ),
        (
            pb::TxnRequest { failure: vec![op_range("a", "")], ..txn(vec![read.clone()]) },
            true,
            false,
        ),
        (txn(vec![op_txn(txn(vec![read]))]), false, false),
        (txn(vec![pb::RequestOp { request: None }]), false, false),
    ];
    for (request, reads, serializes) in cases {
        assert_eq!(is_read_only(&request), reads, "{request:?}");
        assert_eq!(is_serializable(&request), serializes, "{request:?}");
    }
}

/// A blind put is decided without reading, and its previous pair comes from applying it.
#[test]
fn a_blind_put_reads_nothing_before_it_is_applied() {
    struct Closed;
    impl crate::view::View for Closed {
        fn get(
            &self,
            _: crate::view::Column,
            _: &[u8],
        ) -> Result<Option<Bytes>, crate::view::ViewError> {
            panic!("read")
        }
        fn scan(
            &self,
            _: crate::view::Column,
            _: std::ops::Bound<&[u8]>,
            _: std::ops::Bound<&[u8]>,
            _: crate::view::Visit<'_>,
        ) -> Result<(), crate::view::ViewError> {
            panic!("scan")
        }
        fn scan_back(
            &self,
            _: crate::view::Column,
            _: std::ops::Bound<&[u8]>,
            _: std::ops::Bound<&[u8]>,
            _: crate::view::Visit<'_>,
        ) -> Result<(), crate::view::ViewError> {
            panic!("scan")
        }
    }
    let mut store = Store::new();
    store.put(put("k", "1")).unwrap();
    let request = pb::PutRequest { prev_kv: true, ..put("k", "2") };
    let command = Command::Put(request.clone());
    let evaluated = evaluate(&Closed, store.head, &store.leases, &command).unwrap();
    let Evaluated::Effects { effects, draft, .. } = evaluated else { panic!("no effect") };
    assert!(draft.wants_prev());
    let prev = store.apply(&effects, true);
    let Answer::Put(answer) = draft.settle(store.head.revision, prev) else { panic!("no put") };
    assert_eq!(answer.header.unwrap().revision, 3);
    assert_eq!(show(&[answer.prev_kv.unwrap()]), "k=1");
    // A transaction's put is decided on the state before, so it does not want it again.
    let command = Command::Txn(txn(vec![op(Request::RequestPut(request))]));
    let evaluated = evaluate(&store.view, store.head, &store.leases, &command).unwrap();
    let Evaluated::Effects { draft, .. } = evaluated else { panic!("no effect") };
    assert!(!draft.wants_prev());
}

/// Effects are numbered when they are committed, which may be long after they were decided.
#[test]
fn an_answer_is_settled_at_whatever_revision_the_write_gets() {
    let mut store = Store::new();
    store.put(put("a", "1")).unwrap();
    let ops = vec![op_range("a", ""), op_put("b", "1"), op_range("b", ""), op_delete("none", "")];
    let command = Command::Txn(txn(ops));
    let evaluated = evaluate(&store.view, store.head, &store.leases, &command).unwrap();
    let Evaluated::Effects { draft, .. } = evaluated else { panic!("no effect") };
    let Answer::Txn(answer) = draft.settle(50, None) else { panic!("no transaction") };
    let text = format!("{answer:?}");
    assert_eq!(answer.header.unwrap().revision, 50);
    assert!(text.contains("revision: 49"), "{text}");
    assert!(!text.contains("922337"), "a placeholder is left: {text}");
}

#[test]
#[should_panic(expected = "a key is deleted that is not there")]
fn deleting_what_is_not_there_stops_the_process() {
    let effects = [Effect { key: bytes("k"), is_delete: true, ..Default::default() }];
    Store::new().apply(&effects, false);
}

#[test]
#[should_panic(expected = "comes after")]
fn applying_twice_stops_the_process() {
    let mut store = Store::new();
    store.put(put("k", "1")).unwrap();
    store.head.revision -= 1;
    let _ = store.put(put("k", "1"));
}
