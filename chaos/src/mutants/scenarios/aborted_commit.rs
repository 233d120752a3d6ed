//! The record that commits a transaction is on its way when a range, which has waited too long, ends
//! the transaction. The end comes first: the locks are given back, and the commit must be void.

use bytes::Bytes;
use flotilla_core::command::RequestId;
use flotilla_core::proto::internal::{
    Effect, Member, Record, Share, TxnAbort, TxnCommit, record::Body,
};
use flotilla_core::spine::State;
use flotilla_core::spine::state::Verdict;
use flotilla_core::spine::txns::{self, Decision};
use flotilla_core::view::Batch;
use flotilla_core::{GroupId, NodeId};

use super::found;
use crate::sim::Finding;

/// Index at which both ranges have locked their keys.
const PREPARED_AT: u64 = 5;

/// See the module.
pub fn aborted_commit() -> Result<(), Finding> {
    let members = vec![Member { id: 1, ..Member::default() }];
    let mut state = State::bootstrap(1, members);
    state.pre_split(&[Bytes::from_static(b"a"), Bytes::from_static(b"m")], &[NodeId(1)]);
    let txn = RequestId { origin: 7, n: 1 };
    let mut rows = Batch::default();

    state.enter(2, 1);
    let body = Body::TxnAbort(TxnAbort { id: Some(txns::to_proto(txn)) });
    state.fold(&Record { body: Some(body), ..Record::default() }, &mut rows);
    let told: Vec<_> = [GroupId(1), GroupId(2)].map(|range| state.decision(range, txn)).to_vec();

    state.enter(3, 1);
    let put = |key: &'static [u8]| Effect { key: Bytes::from_static(key), ..Effect::default() };
    let share = |range, key| Share {
        range,
        prepared_at: PREPARED_AT,
        effects: vec![put(key)],
        ..Share::default()
    };
    let commit = TxnCommit {
        ranges: vec![1, 2],
        shares: vec![share(1, b"b"), share(2, b"n")],
        ..TxnCommit::default()
    };
    let (origin, n) = (txn.origin, txn.n);
    let record = Record { origin, n, body: Some(Body::TxnCommit(commit)) };
    let verdict = state.fold(&record, &mut rows);

    if told.iter().any(|it| *it != Some(Decision::Abort)) {
        return found(format!("a transaction has ended, and its ranges are told {told:?} (I8)"));
    }
    if verdict != Verdict::Duplicate || state.position().revision != 1 {
        return found(format!("a transaction that has ended comes to {verdict:?} (I8)"));
    }
    Ok(())
}
