//! Reads of the applied state on the worker that serves the client. A read that could take long is
//! done in pieces or on another thread, so that the worker's other clients do not wait for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes};
use flotilla_core::mvcc::{self, Cursor, EncodedPage, EncodedRange, Failure, Head, Page, Rest};
use flotilla_core::proto::Span;
use flotilla_core::proto::etcdserverpb as pb;
use flotilla_core::proto::etcdserverpb::request_op::Request;
use flotilla_core::{Error, LeaseId};
use prost::Message as _;
use tokio::task;

use super::budget::{Share, memory_bytes};
use super::{Context, others};
use crate::metrics::{self, requests};
use crate::store::Store;
use crate::supervise::fatal;

/// Bytes read in one go on a worker: a fraction of a millisecond.
const PIECE_BYTES: usize = 256 << 10;
/// A span with more bytes of keys than this is large: what must look at all of it leaves the
/// worker. One key with its numbers has about 50.
const LARGE_SPAN_BYTES: usize = 16 << 10;
/// Times a read is done again because compaction overtook it, or a part of the store was replaced.
const ATTEMPTS_MAX: u32 = 8;
/// Pause before a read that compaction overtook is done again.
const OVERTAKEN_PAUSE: Duration = Duration::from_millis(10);

/// An answer of KV.Range.
pub(super) enum RangeAnswer {
    /// A message.
    Whole(pb::RangeResponse),
    /// One whose keys are encoded.
    Encoded(EncodedRange),
}

impl RangeAnswer {
    /// Its header.
    pub(super) fn header_mut(&mut self) -> &mut Option<pb::ResponseHeader> {
        match self {
            Self::Whole(answer) => &mut answer.header,
            Self::Encoded(answer) => &mut answer.header,
        }
    }

    /// Bytes of the message.
    pub(super) fn encoded_len(&self) -> usize {
        match self {
            Self::Whole(answer) => answer.encoded_len(),
            Self::Encoded(answer) => answer.encoded_len(),
        }
    }

    /// Writes the message.
    pub(super) fn encode_raw(&self, buffer: &mut impl BufMut) {
        match self {
            Self::Whole(answer) => answer.encode_raw(buffer),
            Self::Encoded(answer) => {
                let [before, after] = answer.around();
                before.encode_raw(buffer);
                answer.kvs.iter().for_each(|kvs| buffer.put_slice(kvs));
                after.encode_raw(buffer);
            }
        }
    }
}

/// Answers a checked KV.Range at a head or a later one.
pub(super) async fn range(
    context: &Context,
    head: Head,
    request: pb::RangeRequest,
    share: Option<&Share>,
) -> Result<RangeAnswer, Error> {
    metrics::traffic().ranges.increment(1);
    let began = Instant::now();
    let answer = range_uncounted(context, head, request, share).await;
    requests::range_done(began.elapsed(), answer.is_ok());
    answer
}

async fn range_uncounted(
    context: &Context,
    head: Head,
    request: pb::RangeRequest,
    share: Option<&Share>,
) -> Result<RangeAnswer, Error> {
    // One value is no list.
    let share = share.filter(|_| !request.range_end.is_empty());
    let here = |head| range_here(context.store(), head, &request, share);
    let others = || async { others::range(context, &request, share).await.map(RangeAnswer::Whole) };
    attempt(context, head, here, others).await
}

async fn range_here(
    store: &Store,
    head: Head,
    request: &pb::RangeRequest,
    share: Option<&Share>,
) -> Result<RangeAnswer, Failure> {
    if mvcc::is_encodable(request) {
        return encoded(store, head, request, share).await.map(RangeAnswer::Encoded);
    }
    if is_in_key_order(request) {
        return in_pieces(store, head, request, share).await.map(RangeAnswer::Whole);
    }
    let answer = if request.range_end.is_empty() || is_small(store, head, request)? {
        mvcc::read(store, head, request)?
    } else {
        let request = request.clone();
        elsewhere(store, move |store| mvcc::read(store, head, &request)).await?
    };
    Share::take_whole(share, memory_bytes(&answer.kvs)).await?;
    Ok(RangeAnswer::Whole(answer))
}

/// Answers a checked KV.Txn that only reads, at a head or a later one.
pub(super) async fn txn(
    context: &Context,
    head: Head,
    request: pb::TxnRequest,
    share: Option<&Share>,
) -> Result<pb::TxnResponse, Error> {
    let store = context.store();
    let has_spans = reads_spans(&request);
    let request = Arc::new(request);
    let here = |head| {
        let request = request.clone();
        async move {
            let answer = if has_spans {
                elsewhere(store, move |store| mvcc::read_txn(store, head, &request)).await?
            } else {
                mvcc::read_txn(store, head, &request)?
            };
            Share::take_whole(share, answer.encoded_len()).await?;
            Ok(answer)
        }
    };
    attempt(context, head, here, || others::txn(context, &request, share)).await
}

/// The keys attached to a lease at a head or a later one, in ascending order, and at which.
pub(super) async fn lease_keys(
    context: &Context,
    head: Head,
    lease: LeaseId,
) -> Result<(Head, Vec<Bytes>), Error> {
    let here = |head: Head| {
        elsewhere(context.store(), move |store| {
            Ok((head, mvcc::lease_keys_at(store, lease, &Span::all(), head.revision)?))
        })
    };
    attempt(context, head, here, || others::lease_keys(context, lease)).await
}

/// Reads one piece of a KV.RangeStream, and tells where the next one begins.
pub(super) async fn page(
    store: &Store,
    head: Head,
    request: &Arc<pb::RangeRequest>,
    cursor: Option<Cursor>,
    bytes_max: usize,
) -> Result<(RangeAnswer, Option<Cursor>), Failure> {
    if mvcc::is_encodable(request) {
        let (answer, next) = encoded_piece(store, head, request, cursor, bytes_max).await?;
        return Ok((RangeAnswer::Encoded(answer), next));
    }
    // The last piece of a limited read counts the keys that are left.
    let Page { answer, next } = if request.count_only || request.limit > 0 {
        let request = request.clone();
        let read = move |store: &Store| mvcc::read_page(store, head, &request, cursor, bytes_max);
        elsewhere(store, read).await?
    } else {
        mvcc::read_page(store, head, request, cursor, bytes_max)?
    };
    Ok((RangeAnswer::Whole(answer), next))
}

/// Does a read: of the store while that shows all ranges, with the help of `others` while it does not. It
/// is done again when compaction took what it needed, at a newer head, and when a part of the store was
/// replaced or removed meanwhile. A read at a revision of the client's choice then finds that revision
/// compacted.
pub(super) async fn attempt<T, H, O>(
    context: &Context,
    mut head: Head,
    here: impl Fn(Head) -> H,
    others: impl Fn() -> O,
) -> Result<T, Error>
where
    H: Future<Output = Result<T, Failure>>,
    O: Future<Output = Result<T, Failure>>,
{
    let board = context.board();
    for _ in 0..ATTEMPTS_MAX {
        let replacements = board.replacements();
        let result = if board.is_whole() {
            let result = here(head).await;
            if board.replacements() != replacements {
                continue;
            }
            result
        } else {
            others().await
        };
        match result {
            Err(Failure::Overtaken) => tokio::time::sleep(OVERTAKEN_PAUSE).await,
            result => return result.map_err(|failure| refusal(failure, Error::Timeout)),
        }
        head = board.head();
    }
    Err(Error::Timeout)
}

/// What the client hears of a read that failed and is not done again: `overtaken` where compaction
/// took what it needed.
pub(super) fn refusal(failure: Failure, overtaken: Error) -> Error {
    match failure {
        Failure::Client(error) => error,
        Failure::Overtaken => overtaken,
        Failure::View(error) => fatal(&error.to_string()),
    }
}

/// Runs work that takes long on a thread that may block.
pub(super) async fn elsewhere<T: Send + 'static>(
    store: &Store,
    work: impl FnOnce(&Store) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let store = store.clone();
    // Only a node that stops drops the work; a panic has ended the process.
    task::spawn_blocking(move || work(&store)).await.unwrap_or(Err(Error::Stopped.into()))
}

/// All keys of the span are wanted as they come, so that pieces can be put together.
fn is_in_key_order(request: &pb::RangeRequest) -> bool {
    const KEY: i32 = pb::range_request::SortTarget::Key as i32;
    !request.count_only
        && request.limit <= 0
        && request.sort_target == KEY
        && mvcc::check_range_stream(request).is_ok()
}

/// A list that is sent as it was read.
async fn encoded(
    store: &Store,
    head: Head,
    request: &pb::RangeRequest,
    share: Option<&Share>,
) -> Result<EncodedRange, Failure> {
    let bytes_of = |answer: &EncodedRange| answer.kvs.iter().map(Bytes::len).sum();
    let (mut answer, mut next) = encoded_piece(store, head, request, None, PIECE_BYTES).await?;
    Share::take_whole(share, bytes_of(&answer)).await?;
    while let Some(cursor) = next {
        task::yield_now().await;
        let piece = encoded_piece(store, head, request, Some(cursor), PIECE_BYTES).await?;
        if let Some(share) = share {
            share.take_bytes(bytes_of(&piece.0)).await?;
        }
        let mut kvs = answer.kvs;
        kvs.extend(piece.0.kvs);
        answer = EncodedRange { kvs, ..piece.0 };
        next = piece.1;
    }
    Ok(answer)
}

/// A piece of such a list, and where the next one begins.
async fn encoded_piece(
    store: &Store,
    head: Head,
    request: &pb::RangeRequest,
    cursor: Option<Cursor>,
    bytes_max: usize,
) -> Result<(EncodedRange, Option<Cursor>), Failure> {
    let EncodedPage { mut answer, rest } =
        mvcc::read_encoded(store, head, request, cursor, bytes_max)?;
    match rest {
        Rest::Done => Ok((answer, None)),
        Rest::Next(cursor) => Ok((answer, Some(cursor))),
        Rest::Count(rest) => {
            let count = elsewhere(store, move |store| mvcc::count_rest(store, head, &rest));
            answer.count += count.await?;
            Ok((answer, None))
        }
    }
}

async fn in_pieces(
    store: &Store,
    head: Head,
    request: &pb::RangeRequest,
    share: Option<&Share>,
) -> Result<pb::RangeResponse, Failure> {
    let Page { mut answer, mut next } = mvcc::read_page(store, head, request, None, PIECE_BYTES)?;
    Share::take_whole(share, memory_bytes(&answer.kvs)).await?;
    while let Some(cursor) = next {
        task::yield_now().await;
        let piece = mvcc::read_page(store, head, request, Some(cursor), PIECE_BYTES)?;
        if let Some(share) = share {
            share.take(&piece.answer.kvs).await?;
        }
        answer.kvs.extend(piece.answer.kvs);
        answer.header = piece.answer.header;
        answer.count = piece.answer.count;
        next = piece.next;
    }
    Ok(answer)
}

/// Whether looking at every key of the span takes no longer than a piece.
fn is_small(store: &Store, head: Head, request: &pb::RangeRequest) -> Result<bool, Failure> {
    let keys = pb::RangeRequest {
        key: request.key.clone(),
        range_end: request.range_end.clone(),
        revision: request.revision,
        keys_only: true,
        ..pb::RangeRequest::default()
    };
    Ok(mvcc::read_page(store, head, &keys, None, LARGE_SPAN_BYTES)?.next.is_none())
}

fn reads_spans(request: &pb::TxnRequest) -> bool {
    let is_span = |op: &pb::RequestOp| match &op.request {
        Some(Request::RequestRange(range)) => !range.range_end.is_empty(),
        Some(Request::RequestTxn(txn)) => reads_spans(txn),
        Some(Request::RequestPut(_) | Request::RequestDeleteRange(_)) | None => false,
    };
    request.compare.iter().any(|compare| !compare.range_end.is_empty())
        || request.success.iter().chain(&request.failure).any(is_span)
}
