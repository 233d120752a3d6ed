//! What a real etcd was seen to answer.

use super::script::check;
use super::*;

#[test]
fn revisions() {
    check(
        r#"
        > range a
        rev 1 count 0
        > put a 1
        rev 2
        > delete missing
        rev 2 deleted 0
        > txn
        rev 2 yes [  ]
        > put a 2
        rev 3
        > delete a
        rev 4 deleted 1
        > put a 3
        rev 5
        > range a
        rev 5 count 1: a=3 (create 5 mod 5 version 1)
        > range z ..a
        rev 5 count 0
        > delete z ..a
        rev 5 deleted 0
        "#,
    );
}

#[test]
fn nested_transaction_sees_puts_but_not_in_compares() {
    check(
        r#"
        > txn ( ) ( put n1 1 ; txn ( version n1 = 0 ) ( put n2 2 ) ( range n1 ) ; range n1 ; delete missing )
        rev 2 yes [ rev 2 ; rev 0 yes [ rev 2 ] ; rev 2 count 1: n1=1 (create 2 mod 2 version 1) ; rev 2 deleted 0 ]
        > range n ..o
        rev 2 count 2: n1=1 (create 2 mod 2 version 1), n2=2 (create 2 mod 2 version 1)
        "#,
    );
}

#[test]
fn put_beside_a_delete() {
    check(
        r#"
        > txn ( ) ( put q1 1 ; delete q ..\0 ) ( )
        rev 2 yes [ rev 2 ; rev 2 deleted 1 ]
        > range q1
        rev 2 count 0
        > txn ( ) ( put q1 1 ; delete q ..r ) ( )
        ! etcdserver: duplicate key given in txn request
        > put w 1
        rev 3
        > txn ( ) ( delete w ; delete w ) ( )
        rev 4 yes [ rev 4 deleted 1 ; rev 4 deleted 0 ]
        "#,
    );
}

#[test]
fn revisions_asked_for() {
    check(
        r#"
        > put a 1
        rev 2
        > put a 2
        rev 3
        > txn ( ) ( range a rev=-5 ) ( )
        ! etcdserver: mvcc: required revision has been compacted
        > txn ( ) ( range a rev=-1 ) ( )
        rev 3 yes [ rev 3 count 1: a=2 (create 2 mod 3 version 2) ]
        > range a rev=-5
        rev 3 count 1: a=2 (create 2 mod 3 version 2)
        > range a rev=4
        ! etcdserver: mvcc: required revision is a future revision
        > txn ( ) ( put e 1 ; range e rev=4 ) ( )
        ! etcdserver: mvcc: required revision is a future revision
        > range e
        rev 3 count 0
        > txn ( ) ( put e 1 ; range e rev=2 ; range a rev=2 ) ( )
        rev 4 yes [ rev 4 ; rev 4 count 0 ; rev 4 count 1: a=1 (create 2 mod 2 version 1) ]
        > txn ( ) ( nothing ) ( )
        ! etcdserver: key not found
        "#,
    );
}

#[test]
fn order_limit_and_count() {
    check(
        r#"
        > put s4 d
        rev 2
        > put s3 c
        rev 3
        > put s3 c
        rev 4
        > put s2 b
        rev 5
        > put s2 b
        rev 6
        > put s2 b
        rev 7
        > txn ( ) ( put s1 a ) ( )
        rev 8 yes [ rev 8 ]
        > put s1 a
        rev 9
        > put s1 a
        rev 10
        > put s1 a
        rev 11

        # A target without an order sorts no more than the first keys.
        > range s ..t limit=2 target=1
        rev 11 count 4 more: s3=c (create 3 mod 4 version 2), s2=b (create 5 mod 7 version 3)
        > range s ..t limit=2 target=1 order=1
        rev 11 count 4 more: s4=d (create 2 mod 2 version 1), s3=c (create 3 mod 4 version 2)
        > range s ..t limit=2 min_mod=1000
        rev 11 count 4
        > range s ..t limit=2 count_only
        rev 11 count 4
        "#,
    );
}

#[test]
fn compaction() {
    check(
        r#"
        > compact 0
        ok
        > compact 0
        ! etcdserver: mvcc: required revision has been compacted
        > put a 1
        rev 2
        > put a 2
        rev 3
        > put a 3
        rev 4
        > put a 4
        rev 5
        > compact 5
        ok
        > range a rev=5
        rev 5 count 1: a=4 (create 2 mod 5 version 4)
        > range a rev=4
        ! etcdserver: mvcc: required revision has been compacted
        > compact 6
        ! etcdserver: mvcc: required revision is a future revision
        > compact-rows
        ok
        > range a rev=5
        rev 5 count 1: a=4 (create 2 mod 5 version 4)
        "#,
    );
}

#[test]
fn kept_value_and_lease() {
    check(
        r#"
        > put a v
        rev 2
        > put a "" ignore_value prev
        rev 3: a=v (create 2 mod 2 version 1)
        > range a
        rev 3 count 1: a=v (create 2 mod 3 version 2)
        > put missing v ignore_lease
        ! etcdserver: key not found
        "#,
    );
}

#[test]
fn compares_with_a_missing_key() {
    check(
        r#"
        > txn ( create m = 0 ; lease m = 0 ; mod m = ) ( ) ( )
        rev 1 yes [  ]
        > txn ( value m = "" ) ( ) ( )
        rev 1 no [  ]
        > txn ( value m != x ) ( ) ( )
        rev 1 no [  ]
        > txn ( version m ..n = 0 ) ( ) ( )
        rev 1 yes [  ]
        "#,
    );
}

#[test]
fn same_key_on_both_branches() {
    check(
        r#"
        > txn ( ) ( txn ( ) ( put k 1 ) ( put k 2 ) ) ( )
        rev 2 yes [ rev 0 yes [ rev 2 ] ]
        > txn ( ) ( put k 1 ; txn ( ) ( put k 2 ) ( ) ) ( )
        ! etcdserver: duplicate key given in txn request
        > txn ( ) ( put k 1 ) ( put k 2 )
        rev 3 yes [ rev 3 ]
        "#,
    );
}

#[test]
fn operations_at_most() {
    let compares = |n| vec![pb::Compare { key: bytes("k"), ..Default::default() }; n];
    let puts = |from: usize, n: usize| -> Vec<_> {
        (from..from + n).map(|k| op_put(&format!("k{k}"), "")).collect()
    };
    let too_many = Err(Error::TooManyOps);
    let request = pb::TxnRequest { compare: compares(129), ..Default::default() };
    assert_eq!(check_txn(&request, OPS_MAX), too_many);
    let request =
        pb::TxnRequest { compare: compares(128), success: puts(0, 128), failure: puts(0, 128) };
    assert_eq!(check_txn(&request, OPS_MAX), Ok(()));
    for (nested, want) in [(64, Ok(())), (65, too_many)] {
        let mut ops = puts(0, 63);
        ops.push(op_txn(txn(puts(1000, nested))));
        assert_eq!(check_txn(&txn(ops), OPS_MAX), want, "{nested}");
    }
    // What is left shrinks along a path, and is not shared between neighbours.
    let deep = |n| op_txn(txn(vec![op_txn(txn(puts(0, n)))]));
    assert_eq!(check_txn(&txn(vec![deep(126)]), OPS_MAX), Ok(()));
    assert_eq!(check_txn(&txn(vec![deep(127)]), OPS_MAX), too_many);
    let beside = op_txn(txn(puts(500, 126)));
    assert_eq!(check_txn(&txn(vec![op_txn(txn(puts(0, 126))), beside]), OPS_MAX), Ok(()));
}
