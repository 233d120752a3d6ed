//! The answer to a write whose revision is not known yet, since writes are numbered only when
//! they are committed.

use super::read;
use crate::command::Answer;
use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::response_op::Response;
use crate::proto::mvccpb::KeyValue;

/// Stands for the write's own revision. Sorts after every other one, as that revision does.
pub(super) const THIS_REVISION: i64 = i64::MAX;
/// Stands for the revision just before the write's own.
pub(super) const REVISION_BEFORE: i64 = i64::MAX - 1;

/// A header that holds the revision only.
/// The header that a machine begins; whoever answers the client completes it.
pub fn header(revision: i64) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader { revision, ..Default::default() })
}

/// A read in a transaction whose bounds on revisions concern keys that the transaction itself has
/// changed. The draft holds all keys of its span; they are picked when the revision is known.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct LateRead {
    /// Where the operation stands, from the outermost transaction inwards.
    pub(super) place: Vec<usize>,
    pub(super) request: pb::RangeRequest,
}

/// An answer that lacks nothing but the write's revision and, for some, the previous pair.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    answer: Answer,
    late_reads: Vec<LateRead>,
    wants_prev: bool,
}

impl Draft {
    pub(super) fn new(answer: Answer, late_reads: Vec<LateRead>) -> Self {
        Self { answer, late_reads, wants_prev: false }
    }

    pub(super) fn of_blind_put(wants_prev: bool) -> Self {
        let answer = pb::PutResponse { header: header(THIS_REVISION), prev_kv: None };
        Self { answer: Answer::Put(answer), late_reads: Vec::new(), wants_prev }
    }

    /// The answer of what changed nothing and was evaluated with its revision known.
    pub(super) fn into_unchanged(self) -> Answer {
        self.answer
    }

    /// True if the key of effect 0 as it was before is part of the answer and only known when the
    /// write is applied.
    pub fn wants_prev(&self) -> bool {
        self.wants_prev
    }

    /// The answer of a write that was given `revision`. `prev` is what `Applier::apply` returned
    /// if the draft wants it.
    pub fn settle(self, revision: i64, prev: Option<KeyValue>) -> Answer {
        let mut answer = self.answer;
        match &mut answer {
            Answer::Put(put) => {
                settle_put(put, revision);
                if self.wants_prev {
                    put.prev_kv = prev;
                }
            }
            Answer::DeleteRange(delete) => settle_delete(delete, revision),
            Answer::Txn(txn) => {
                settle_txn(txn, revision);
                for late in &self.late_reads {
                    read::arrange(&late.request, range_at(txn, &late.place));
                }
            }
            _ => unreachable!("only changes of keys have drafts"),
        }
        answer
    }
}

fn settle_txn(txn: &mut pb::TxnResponse, revision: i64) {
    settle_header(&mut txn.header, revision);
    for op in &mut txn.responses {
        match &mut op.response {
            Some(Response::ResponseRange(range)) => {
                settle_header(&mut range.header, revision);
                settle_kvs(&mut range.kvs, revision);
            }
            Some(Response::ResponsePut(put)) => settle_put(put, revision),
            Some(Response::ResponseDeleteRange(delete)) => settle_delete(delete, revision),
            Some(Response::ResponseTxn(txn)) => settle_txn(txn, revision),
            None => {}
        }
    }
}

fn settle_put(put: &mut pb::PutResponse, revision: i64) {
    settle_header(&mut put.header, revision);
    settle_kvs(put.prev_kv.as_mut_slice(), revision);
}

fn settle_delete(delete: &mut pb::DeleteRangeResponse, revision: i64) {
    settle_header(&mut delete.header, revision);
    settle_kvs(&mut delete.prev_kvs, revision);
}

fn settle_header(header: &mut Option<pb::ResponseHeader>, revision: i64) {
    if let Some(header) = header {
        settle_revision(&mut header.revision, revision);
    }
}

fn settle_kvs(kvs: &mut [KeyValue], revision: i64) {
    for kv in kvs {
        settle_revision(&mut kv.mod_revision, revision);
        settle_revision(&mut kv.create_revision, revision);
    }
}

fn settle_revision(slot: &mut i64, revision: i64) {
    match *slot {
        THIS_REVISION => *slot = revision,
        REVISION_BEFORE => *slot = revision - 1,
        _ => {}
    }
}

fn range_at<'a>(txn: &'a mut pb::TxnResponse, place: &[usize]) -> &'a mut pb::RangeResponse {
    let (&first, inner) = place.split_first().expect("a place is never empty");
    match &mut txn.responses[first].response {
        Some(Response::ResponseRange(range)) if inner.is_empty() => range,
        Some(Response::ResponseTxn(txn)) => range_at(txn, inner),
        _ => unreachable!("the place of a late read is that of a read"),
    }
}

#[cfg(test)]
impl Draft {
    /// True if a read among the operations could not be finished without the revision.
    pub(super) fn has_late_reads(&self) -> bool {
        !self.late_reads.is_empty()
    }
}
