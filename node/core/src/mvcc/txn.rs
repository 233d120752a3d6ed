//! KV.Txn: conditions first, all on the state before; then checks; then the operations in order,
//! each seeing what the ones before it did.

use super::compare;
use super::delete;
use super::draft::{LateRead, header};
use super::evaluate::LeaseTable;
use super::keyspace::Keyspace;
use super::put;
use super::read;
use super::{Failure, Head};
use crate::Error;
use crate::proto::Span;
use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::request_op::Request;
use crate::proto::etcdserverpb::response_op::Response;
use crate::proto::internal::Effect;
use crate::view::View;

/// True if both branches are nothing but reads. A nested transaction counts as a write, whatever
/// it holds.
pub fn is_read_only(request: &pb::TxnRequest) -> bool {
    ops(request).all(|op| matches!(op.request, Some(Request::RequestRange(_))))
}

/// True if the transaction may be answered from a state that is behind: every operation of both
/// branches is a serializable read.
pub fn is_serializable(request: &pb::TxnRequest) -> bool {
    ops(request).all(|op| match &op.request {
        Some(Request::RequestRange(range)) => range.serializable,
        _ => false,
    })
}

fn ops(request: &pb::TxnRequest) -> impl Iterator<Item = &pb::RequestOp> {
    request.success.iter().chain(&request.failure)
}

/// A request on its way through the state, and what it has done so far.
pub(super) struct Execution<'a> {
    pub(super) keys: Keyspace<'a>,
    pub(super) leases: &'a dyn LeaseTable,
    /// In the order of their sub-revisions.
    pub(super) effects: Vec<Effect>,
    pub(super) late_reads: Vec<LateRead>,
    /// The lowest revision that was read by its number.
    pub(super) reads_at: Option<i64>,
    head: Head,
    /// What headers say as long as nothing has changed.
    revision_before: i64,
    /// Where the operation being executed stands: its place in its branch, below the places of
    /// the nested transactions around it.
    place: Vec<usize>,
}

impl<'a> Execution<'a> {
    pub(super) fn new(
        view: &'a dyn View,
        keys_at: i64,
        head: Head,
        leases: &'a dyn LeaseTable,
        revision_before: i64,
    ) -> Self {
        Self {
            keys: Keyspace::new(view, keys_at),
            leases,
            effects: Vec::new(),
            late_reads: Vec::new(),
            reads_at: None,
            head,
            revision_before,
            place: Vec::new(),
        }
    }

    /// The revision for the header of an operation that ends now.
    pub(super) fn revision_now(&self) -> i64 {
        if self.effects.is_empty() { self.revision_before } else { super::draft::THIS_REVISION }
    }
}

/// Which branch each transaction takes, in the order in which nested ones stand.
struct Path {
    succeeded: bool,
    nested: Vec<Path>,
}

/// Runs a checked transaction.
///
/// # Errors
/// For the client: what a read or put on the path taken is refused for; then nothing has effect.
pub(super) fn run(
    execution: &mut Execution<'_>,
    request: &pb::TxnRequest,
) -> Result<pb::TxnResponse, Failure> {
    let path = choose(&execution.keys, request)?;
    check(execution, request, &path)?;
    let mut answer = execute(execution, request, &path)?;
    answer.header = header(execution.revision_now());
    Ok(answer)
}

fn branch(request: &pb::TxnRequest, succeeded: bool) -> &[pb::RequestOp] {
    if succeeded { &request.success } else { &request.failure }
}

fn choose(keys: &Keyspace<'_>, request: &pb::TxnRequest) -> Result<Path, Failure> {
    let succeeded = compare::all_hold(keys, &request.compare)?;
    let mut nested = Vec::new();
    for op in branch(request, succeeded) {
        if let Some(Request::RequestTxn(txn)) = &op.request {
            nested.push(choose(keys, txn)?);
        }
    }
    Ok(Path { succeeded, nested })
}

fn check(
    execution: &mut Execution<'_>,
    request: &pb::TxnRequest,
    path: &Path,
) -> Result<(), Failure> {
    let mut nested = path.nested.iter();
    for op in branch(request, path.succeeded) {
        match &op.request {
            Some(Request::RequestRange(range)) => {
                check_revision(execution.head, range.revision)?;
                if range.revision != 0 {
                    let lowest = execution.reads_at.get_or_insert(range.revision);
                    *lowest = range.revision.min(*lowest);
                }
            }
            Some(Request::RequestPut(put)) => put::check(execution, put)?,
            Some(Request::RequestTxn(txn)) => check(execution, txn, next(&mut nested))?,
            Some(Request::RequestDeleteRange(_)) | None => {}
        }
    }
    Ok(())
}

/// Unlike a read of its own, one in a transaction is refused at a negative revision below the
/// compact revision, which is -1 before the first compaction.
fn check_revision(head: Head, revision: i64) -> Result<(), Error> {
    if revision == 0 {
        Ok(())
    } else if revision > head.revision {
        Err(Error::FutureRevision)
    } else if revision < head.compact_revision {
        Err(Error::Compacted)
    } else {
        Ok(())
    }
}

fn execute(
    execution: &mut Execution<'_>,
    request: &pb::TxnRequest,
    path: &Path,
) -> Result<pb::TxnResponse, Failure> {
    let ops = branch(request, path.succeeded);
    let mut nested = path.nested.iter();
    let mut responses = Vec::with_capacity(ops.len());
    for (n, op) in ops.iter().enumerate() {
        execution.place.push(n);
        let response = match &op.request {
            Some(Request::RequestRange(range)) => {
                Some(Response::ResponseRange(execute_range(execution, range)?))
            }
            Some(Request::RequestPut(put)) => {
                Some(Response::ResponsePut(put::execute(execution, put)?))
            }
            Some(Request::RequestDeleteRange(delete)) => {
                Some(Response::ResponseDeleteRange(delete::execute(execution, delete)?))
            }
            Some(Request::RequestTxn(txn)) => {
                let mut answer = execute(execution, txn, next(&mut nested))?;
                answer.header = header(0);
                Some(Response::ResponseTxn(answer))
            }
            None => None,
        };
        responses.push(pb::ResponseOp { response });
        execution.place.pop();
    }
    Ok(pb::TxnResponse { header: None, succeeded: path.succeeded, responses })
}

fn execute_range(
    execution: &mut Execution<'_>,
    request: &pb::RangeRequest,
) -> Result<pb::RangeResponse, Failure> {
    let mut answer = if request.revision > 0 {
        read::select(&execution.keys.at(request.revision), request)?
    } else {
        let span = Span::from_request(request.key.clone(), request.range_end.clone());
        let is_late = read::has_bounds(request)
            && !request.count_only
            && execution.keys.has_pending_in(&span);
        if is_late {
            let place = execution.place.clone();
            execution.late_reads.push(LateRead { place, request: request.clone() });
            read::select_all(&execution.keys, &span)?
        } else {
            read::select(&execution.keys, request)?
        }
    };
    answer.header = header(execution.revision_now());
    Ok(answer)
}

fn next<'p>(nested: &mut impl Iterator<Item = &'p Path>) -> &'p Path {
    nested.next().expect("every nested transaction on the path has its own")
}
