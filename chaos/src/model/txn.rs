//! Txn: all conditions, nested ones too, are decided on the state before it; then the chosen
//! operations are checked, and only then carried out, in order, each seeing the ones before.

use flotilla_proto::etcdserverpb::request_op::Request as Op;
use flotilla_proto::etcdserverpb::response_op::Response;
use flotilla_proto::etcdserverpb::{
    RangeRequest, RequestOp, ResponseHeader, ResponseOp, TxnRequest, TxnResponse,
};

use crate::model::Refusal;
use crate::model::draft::Draft;
use crate::model::view::View;

/// True if no branch holds anything but reads. Such a transaction never enters the log; one that
/// holds another transaction does, even if that one only reads.
pub fn is_read_only(request: &TxnRequest) -> bool {
    operations(request).all(|operation| matches!(operation, Some(Op::RequestRange(_))))
}

/// True if it may be answered from an old state: it only reads, and each read allows it. One
/// without any operation counts, too.
pub fn is_serializable(request: &TxnRequest) -> bool {
    operations(request)
        .all(|operation| matches!(operation, Some(Op::RequestRange(read)) if read.serializable))
}

impl View<'_> {
    /// Checks every operation on the chosen path against the state before the transaction.
    pub(super) fn check_txn(&self, request: &TxnRequest) -> Result<(), Refusal> {
        for operation in self.chosen(request).1 {
            match operation.request.as_ref() {
                Some(Op::RequestRange(read)) => self.check_inner_revision(read)?,
                Some(Op::RequestPut(put)) => {
                    self.check_lease(put)?;
                    self.check_kept(put)?;
                }
                Some(Op::RequestTxn(inner)) => self.check_txn(inner)?,
                Some(Op::RequestDeleteRange(_)) | None => {}
            }
        }
        Ok(())
    }

    /// Whether the conditions hold, and the operations to carry out.
    fn chosen<'r>(&self, request: &'r TxnRequest) -> (bool, &'r [RequestOp]) {
        let succeeded = request.compare.iter().all(|compare| self.holds(compare));
        (succeeded, if succeeded { &request.success } else { &request.failure })
    }

    /// Unlike a plain read, a read inside a transaction looks at negative revisions, too.
    fn check_inner_revision(&self, request: &RangeRequest) -> Result<(), Refusal> {
        if request.revision > self.revision {
            return Err(Refusal::FutureRevision);
        }
        if request.revision != 0 && request.revision < self.compacted {
            return Err(Refusal::Compacted);
        }
        Ok(())
    }
}

impl Draft<'_> {
    /// The chosen operations must have been checked.
    pub(super) fn txn(&mut self, request: &TxnRequest) -> Result<TxnResponse, Refusal> {
        let mut answer = self.branch(request)?;
        answer.header = self.header();
        Ok(answer)
    }

    fn branch(&mut self, request: &TxnRequest) -> Result<TxnResponse, Refusal> {
        let (succeeded, chosen) = self.view.chosen(request);
        let mut responses = Vec::with_capacity(chosen.len());
        for operation in chosen {
            let response = match operation.request.as_ref() {
                Some(Op::RequestRange(read)) => Response::ResponseRange(self.read(read)),
                Some(Op::RequestPut(put)) => Response::ResponsePut(self.put(put)?),
                Some(Op::RequestDeleteRange(delete)) => {
                    Response::ResponseDeleteRange(self.delete_range(delete))
                }
                Some(Op::RequestTxn(inner)) => Response::ResponseTxn(self.branch(inner)?),
                None => return Err(Refusal::KeyNotFound),
            };
            responses.push(ResponseOp { response: Some(response) });
        }
        // The header of an inner transaction is there and empty.
        Ok(TxnResponse { header: Some(ResponseHeader::default()), succeeded, responses })
    }
}

/// The operations of both branches, not those of inner transactions.
fn operations(request: &TxnRequest) -> impl Iterator<Item = Option<&Op>> {
    request.success.iter().chain(&request.failure).map(|operation| operation.request.as_ref())
}
