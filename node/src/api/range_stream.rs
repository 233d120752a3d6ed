//! KV.RangeStream: pieces of one read, each read when the client has taken the one before it.

use std::sync::Arc;

use flotilla_core::Error;
use flotilla_core::auth::{Needs, Pass};
use flotilla_core::mvcc::{Cursor, Failure, Head, check_range_stream};
use flotilla_core::proto::etcdserverpb as pb;
use flotilla_core::remote::Reading;
use futures::{Stream, stream};
use tonic::Status;

use super::guard::Client;
use super::read::RangeAnswer;
use super::status::IntoStatus;
use super::{Context, header, others, read};
use crate::metrics;

/// Bytes of one piece, exceeded by at most one key. Within the band that etcd aims at.
const PIECE_BYTES: usize = 1 << 20;

/// Where a stream of pieces stands.
struct Progress {
    context: Arc<Context>,
    client: Client,
    /// What it was let in with.
    pass: Pass,
    request: Arc<pb::RangeRequest>,
    head: Head,
    state: State,
}

enum State {
    /// Nothing was read.
    New,
    /// The next piece begins here.
    At(Cursor),
    /// Some of the keys are read on other nodes.
    Others(Box<Reading>),
    /// The last piece was sent, or an error.
    Ended,
}

pub(super) fn range_stream(
    context: Arc<Context>,
    client: Client,
    request: pb::RangeRequest,
) -> impl Stream<Item = Result<RangeAnswer, Status>> + Send {
    let head = context.router.head();
    let (request, pass) = (Arc::new(request), Pass::NOBODY);
    let progress = Progress { context, client, pass, request, head, state: State::New };
    stream::unfold(progress, |mut progress| async move {
        if matches!(progress.state, State::Ended) {
            return None;
        }
        let piece = progress.next().await;
        // What was read in the meantime may be another's by now.
        let is_permitted = progress.context.gate().admits(progress.pass);
        let piece =
            piece.and_then(|piece| is_permitted.map(|()| piece)).map_err(Error::into_status);
        if piece.is_err() {
            progress.state = State::Ended;
        }
        Some((piece, progress))
    })
}

impl Progress {
    async fn next(&mut self) -> Result<RangeAnswer, Error> {
        let piece = match std::mem::replace(&mut self.state, State::Ended) {
            State::New => self.first().await?,
            State::At(cursor) => self.following(cursor).await?,
            State::Others(reading) => Piece::Others(reading),
            State::Ended => return Ok(RangeAnswer::Whole(pb::RangeResponse::default())),
        };
        let (mut answer, next) = match piece {
            Piece::Here(answer, next) => (answer, next),
            Piece::Others(reading) => return self.read_others(reading).await,
        };
        metrics::traffic().ranges.increment(1);
        match next {
            Some(cursor) => self.state = State::At(cursor),
            None => {
                let header = answer.header_mut();
                *header = header::complete(&self.context, header.take());
            }
        }
        Ok(answer)
    }

    async fn first(&mut self) -> Result<Piece, Error> {
        check_range_stream(&self.request)?;
        if !self.request.serializable {
            self.context.router.ticket().await?;
        }
        let needs = || Needs::of_range(&self.request);
        let (head, pass) = self.client.permit_read(&self.context, needs).await?;
        (self.head, self.pass) = (head, pass);
        let others = || async { self.others(None) };
        read::attempt(&self.context, head, |head| self.page(head, None), others).await
    }

    /// Later pieces show the revision of the first one, for as long as it is readable.
    async fn following(&self, cursor: Cursor) -> Result<Piece, Error> {
        let board = self.context.board();
        let replacements = board.replacements();
        if board.is_whole() {
            let piece = self.page(board.head(), Some(cursor.clone())).await;
            if board.replacements() == replacements {
                return piece.map_err(sent);
            }
        }
        self.others(Some(cursor)).map_err(sent)
    }

    /// The rest, of which not all is shown here: by pages of ranges.
    fn others(&self, cursor: Option<Cursor>) -> Result<Piece, Failure> {
        let shown = self.context.board().reach().shown;
        let request = pb::RangeRequest::clone(&self.request);
        Ok(Piece::Others(Box::new(Reading::resume(shown, request, cursor)?)))
    }

    async fn read_others(&mut self, mut reading: Box<Reading>) -> Result<RangeAnswer, Error> {
        metrics::traffic().ranges.increment(1);
        loop {
            if !others::step(&self.context, &mut reading).await.map_err(sent)? {
                let mut answer = reading.finish();
                answer.header = header::complete(&self.context, answer.header);
                return Ok(RangeAnswer::Whole(answer));
            }
            let kvs = reading.drain();
            if !kvs.is_empty() {
                self.state = State::Others(reading);
                let answer = pb::RangeResponse { kvs, ..pb::RangeResponse::default() };
                return Ok(RangeAnswer::Whole(answer));
            }
        }
    }

    async fn page(&self, head: Head, cursor: Option<Cursor>) -> Result<Piece, Failure> {
        let store = self.context.store();
        let (answer, next) = read::page(store, head, &self.request, cursor, PIECE_BYTES).await?;
        Ok(Piece::Here(answer, next))
    }
}

/// A piece, and where the next one begins; or who finds it.
enum Piece {
    Here(RangeAnswer, Option<Cursor>),
    Others(Box<Reading>),
}

/// What is sent cannot be taken back and read anew.
fn sent(failure: Failure) -> Error {
    read::refusal(failure, Error::Compacted)
}
