//! KV, without RangeStream.

use std::time::{Duration, Instant};

use flotilla_core::auth::{Needs, Pass};
use flotilla_core::command::{Answer, Command};
use flotilla_core::proto::etcdserverpb as pb;
use flotilla_core::proto::etcdserverpb::request_op::Request;
use flotilla_core::{Error, mvcc};

use super::guard::Client;
use super::read::RangeAnswer;
use super::{Context, header, quota, read};
use crate::metrics::requests::{self, RequestKind};
use crate::router::expect_answer;

/// Pause between looks at a compaction whose end a client waits for.
const COMPACTION_LOOK: Duration = Duration::from_millis(10);

/// True for a request that any member may answer from what it has.
pub(super) fn is_local_read(request: &pb::RangeRequest) -> bool {
    request.serializable
}

pub(super) async fn range(
    context: &Context,
    client: &Client,
    request: pb::RangeRequest,
) -> Result<RangeAnswer, Error> {
    mvcc::check_range(&request)?;
    context.board().usage().count_read(&request.key);
    client.count(context, || std::iter::once(&request.key[..])).await;
    let needs = || Needs::of_range(&request);
    let read = |head| read::range(context, head, request.clone(), client.share());
    let began = Instant::now();
    let answer = client.read(context, request.serializable, needs, read).await;
    requests::request_done(RequestKind::RANGE, began.elapsed(), answer.is_ok());
    let mut answer = answer?;
    let header = answer.header_mut();
    *header = header::complete(context, header.take());
    Ok(answer)
}

pub(super) async fn put(
    context: &Context,
    client: &Client,
    request: pb::PutRequest,
) -> Result<pb::PutResponse, Error> {
    let command = Command::Put(request);
    quota::check(context, &command).await?;
    let Command::Put(request) = command else { unreachable!("it was made above") };
    mvcc::check_put(&request)?;
    client.count(context, || std::iter::once(&request.key[..])).await;
    let pass = client.permit(context, || Needs::of_put(&request)).await?;
    let answer = client.submit(context, pass, Command::Put(request)).await?;
    let mut answer = expect_answer(answer, |answer| match answer {
        Answer::Put(answer) => Some(answer),
        _ => None,
    });
    answer.header = header::complete(context, answer.header);
    Ok(answer)
}

pub(super) async fn delete_range(
    context: &Context,
    client: &Client,
    request: pb::DeleteRangeRequest,
) -> Result<pb::DeleteRangeResponse, Error> {
    mvcc::check_delete(&request)?;
    client.count(context, || std::iter::once(&request.key[..])).await;
    let pass = client.permit(context, || Needs::of_delete(&request)).await?;
    let answer = client.submit(context, pass, Command::DeleteRange(request)).await?;
    let mut answer = expect_answer(answer, |answer| match answer {
        Answer::DeleteRange(answer) => Some(answer),
        _ => None,
    });
    answer.header = header::complete(context, answer.header);
    Ok(answer)
}

pub(super) async fn txn(
    context: &Context,
    client: &Client,
    request: pb::TxnRequest,
) -> Result<pb::TxnResponse, Error> {
    let command = Command::Txn(request);
    quota::check(context, &command).await?;
    let Command::Txn(request) = command else { unreachable!("it was made above") };
    mvcc::check_txn(&request, context.limits.txn_ops_max)?;
    client.count(context, || keys(&request)).await;
    let mut answer = if mvcc::is_read_only(&request) {
        context.board().usage().count_read(first_key(&request));
        let is_local = mvcc::is_serializable(&request);
        let needs = || Needs::of_txn(&request);
        let read = |head| read::txn(context, head, request.clone(), client.share());
        let began = Instant::now();
        let answer = client.read(context, is_local, needs, read).await;
        requests::request_done(RequestKind::READ_TXN, began.elapsed(), answer.is_ok());
        answer?
    } else {
        let pass = client.permit(context, || Needs::of_txn(&request)).await?;
        let answer = client.submit(context, pass, Command::Txn(request)).await?;
        expect_answer(answer, |answer| match answer {
            Answer::Txn(answer) => Some(answer),
            _ => None,
        })
    };
    answer.header = header::complete(context, answer.header);
    Ok(answer)
}

/// The keys of a transaction, without those of transactions in it.
fn keys(request: &pb::TxnRequest) -> impl Iterator<Item = &[u8]> {
    let compared = request.compare.iter().map(|compare| &compare.key[..]);
    let operations = request.success.iter().chain(&request.failure);
    compared.chain(operations.filter_map(|op| match &op.request {
        Some(Request::RequestRange(range)) => Some(&range.key[..]),
        Some(Request::RequestPut(put)) => Some(&put.key[..]),
        Some(Request::RequestDeleteRange(delete)) => Some(&delete.key[..]),
        Some(Request::RequestTxn(_)) | None => None,
    }))
}

/// Stands for all that a transaction reads.
fn first_key(request: &pb::TxnRequest) -> &[u8] {
    let compared = request.compare.first().map(|compare| &compare.key[..]);
    let read = request.success.iter().chain(&request.failure).find_map(|op| match &op.request {
        Some(Request::RequestRange(range)) => Some(&range.key[..]),
        _ => None,
    });
    compared.or(read).unwrap_or_default()
}

pub(super) async fn compact(
    context: &Context,
    client: &Client,
    request: pb::CompactionRequest,
) -> Result<pb::CompactionResponse, Error> {
    let answer = client.submit(context, Pass::NODE, Command::Compact(request)).await?;
    let mut answer = expect_answer(answer, |answer| match answer {
        Answer::Compact(answer) => Some(answer),
        _ => None,
    });
    if request.physical {
        // It ends: the apply thread does it in the background, whatever else it has to do.
        while context.board().compacted() < request.revision {
            tokio::time::sleep(COMPACTION_LOOK).await;
        }
    }
    answer.header = header::complete(context, answer.header);
    Ok(answer)
}
