//! What a request may touch is known before it is looked at any closer.

use super::*;
use crate::proto::Span;

fn keys(footprint: &Footprint) -> Vec<(&str, Mode)> {
    let text = |key: &Bytes| std::str::from_utf8(key).unwrap().to_owned().leak() as &str;
    footprint.keys.iter().map(|(key, mode)| (text(key), *mode)).collect()
}

fn span(start: &str, end: &str) -> Span {
    Span::from_request(bytes(start), bytes(end))
}

#[test]
fn single_operations() {
    let blind =
        footprint(&Command::Put(pb::PutRequest { lease: 7, prev_kv: true, ..put("k", "v") }));
    assert_eq!(keys(&blind), [("k", Mode::Blind)]);
    assert_eq!(blind.leases, [LeaseId(7)]);
    for request in [
        pb::PutRequest { ignore_value: true, ..put("k", "") },
        pb::PutRequest { ignore_lease: true, ..put("k", "") },
    ] {
        assert_eq!(keys(&footprint(&Command::Put(request))), [("k", Mode::Write)]);
    }
    let one = footprint(&Command::DeleteRange(delete("k", "")));
    assert_eq!((keys(&one), one.spans.clone()), (vec![("k", Mode::Write)], vec![]));
    let many = footprint(&Command::DeleteRange(delete("k", "\0")));
    assert_eq!((keys(&many), many.spans.clone()), (vec![], vec![(span("k", "\0"), Mode::Write)]));
    assert_eq!(footprint(&Command::DeleteRange(delete("k", "a"))), Footprint::default());
    assert_eq!(footprint(&Command::Compact(Default::default())), Footprint::default());
}

#[test]
fn a_transaction_uses_all_that_any_branch_might() {
    let request = pb::TxnRequest {
        compare: vec![
            pb::Compare { key: bytes("c"), ..Default::default() },
            pb::Compare { key: bytes("b"), ..Default::default() },
            pb::Compare { key: bytes("x"), range_end: bytes("z"), ..Default::default() },
        ],
        success: vec![
            op(Request::RequestPut(pb::PutRequest { lease: 2, ..put("b", "") })),
            op_range("r", ""),
            op_range("r", "s"),
        ],
        failure: vec![op_txn(pb::TxnRequest {
            failure: vec![
                op_delete("d", ""),
                op_delete("d", "e"),
                op(Request::RequestPut(pb::PutRequest { lease: 1, ..put("p", "") })),
            ],
            ..Default::default()
        })],
    };
    let got = footprint(&Command::Txn(request));
    assert_eq!(
        keys(&got),
        [
            ("b", Mode::Write),
            ("c", Mode::Read),
            ("d", Mode::Write),
            ("p", Mode::Write),
            ("r", Mode::Read)
        ]
    );
    assert_eq!(
        got.spans,
        [(span("x", "z"), Mode::Read), (span("r", "s"), Mode::Read), (span("d", "e"), Mode::Write)]
    );
    assert_eq!(got.leases, [LeaseId(1), LeaseId(2)]);
    assert_eq!(got.reads_at, None);
}

#[test]
fn the_past_is_read_where_the_keys_are_now() {
    let past = op(Request::RequestRange(pb::RangeRequest { revision: 5, ..range("a", "z") }));
    let got = footprint(&Command::Txn(txn(vec![past])));
    let spans = vec![(span("a", "z"), Mode::Read)];
    assert_eq!(got, Footprint { spans, reads_at: Some(5), ..Default::default() });
    let now = op(Request::RequestRange(pb::RangeRequest { revision: -1, ..range("a", "z") }));
    let got = footprint(&Command::Txn(txn(vec![now])));
    assert_eq!((got.spans, got.reads_at), (vec![(span("a", "z"), Mode::Read)], Some(-1)));
}
