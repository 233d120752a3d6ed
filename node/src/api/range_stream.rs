//! KV.RangeStream: pieces of one read, each read when the client has taken the one before it.

use std::sync::Arc;

use flotilla_core::Error;
use flotilla_core::mvcc::{Cursor, Failure, Head, Page, check_range_stream};
use flotilla_core::proto::etcdserverpb as pb;
use futures::{Stream, stream};
use tonic::Status;

use super::status::IntoStatus;
use super::{Context, header, read};
use crate::metrics;
use crate::supervise::fatal;

/// Bytes of one piece, exceeded by at most one key. Within the band that etcd aims at.
const PIECE_BYTES: usize = 1 << 20;

/// Where a stream of pieces stands.
struct Progress {
    context: Arc<Context>,
    request: Arc<pb::RangeRequest>,
    state: State,
}

enum State {
    /// Nothing was read.
    New,
    /// The next piece begins here.
    At(Cursor),
    /// The last piece was sent, or an error.
    Ended,
}

pub(super) fn range_stream(
    context: Arc<Context>,
    request: pb::RangeRequest,
) -> impl Stream<Item = Result<pb::RangeStreamResponse, Status>> + Send {
    let progress = Progress { context, request: Arc::new(request), state: State::New };
    stream::unfold(progress, |mut progress| async move {
        if matches!(progress.state, State::Ended) {
            return None;
        }
        let piece = progress.next().await.map_err(Error::into_status);
        if piece.is_err() {
            progress.state = State::Ended;
        }
        let piece = piece.map(|piece| pb::RangeStreamResponse { range_response: Some(piece) });
        Some((piece, progress))
    })
}

impl Progress {
    async fn next(&mut self) -> Result<pb::RangeResponse, Error> {
        let page = match std::mem::replace(&mut self.state, State::Ended) {
            State::New => self.first().await?,
            State::At(cursor) => self.following(cursor).await?,
            State::Ended => return Ok(pb::RangeResponse::default()),
        };
        metrics::traffic().ranges.increment(1);
        let Page { mut answer, next } = page;
        match next {
            Some(cursor) => self.state = State::At(cursor),
            None => {
                answer.header = header::complete(&self.context, answer.header);
            }
        }
        Ok(answer)
    }

    async fn first(&self) -> Result<Page, Error> {
        check_range_stream(&self.request)?;
        let head = match self.request.serializable {
            true => self.context.board().head(),
            false => self.context.router.ticket().await?,
        };
        read::attempt(&self.context, head, |head| self.page(head, None)).await
    }

    /// Later pieces show the revision of the first one, for as long as it is readable.
    async fn following(&self, cursor: Cursor) -> Result<Page, Error> {
        let replacements = read::until_whole(&self.context).await?;
        match self.page(self.context.board().head(), Some(cursor)).await {
            // A part of the store was replaced meanwhile, which happens seldom enough.
            _ if self.context.board().replacements() != replacements => Err(Error::Timeout),
            Ok(page) => Ok(page),
            Err(Failure::Client(error)) => Err(error),
            Err(Failure::Overtaken) => Err(Error::Compacted),
            Err(Failure::View(error)) => fatal(&error.to_string()),
        }
    }

    async fn page(&self, head: Head, cursor: Option<Cursor>) -> Result<Page, Failure> {
        read::page(self.context.store(), head, &self.request, cursor, PIECE_BYTES).await
    }
}
