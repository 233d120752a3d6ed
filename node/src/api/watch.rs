//! Watch: the client's messages to the worker's hub, the hub's responses to the client.

use std::pin::Pin;
use std::task::{Context, Poll};

use flotilla_core::Error;
use flotilla_core::proto::etcdserverpb::WatchRequest;
use flotilla_core::watch::Response;
use futures::Stream;
use tonic::Status;

use super::call::Requests;
use super::status::IntoStatus;
use crate::watch::{Hub, Opened};

/// Messages of a client that are taken before others get their turn.
const REQUESTS_TOGETHER_MAX: usize = 32;

/// Ends only when the client is gone, or when there is no leader for long and the client asked for
/// one: closing the sending side leaves the watchers alive.
pub(super) fn watch(
    hub: &Hub,
    requests: Requests<WatchRequest>,
    needs_leader: bool,
) -> impl Stream<Item = Result<Response, Status>> + Send + use<> {
    Watching { stream: hub.open(needs_leader), requests: Some(requests), failure: None }
}

struct Watching {
    stream: Opened,
    /// `None` when nothing more comes.
    requests: Option<Requests<WatchRequest>>,
    /// A message that could not be received ends the stream.
    failure: Option<Status>,
}

impl Watching {
    fn take_requests(&mut self, cx: &mut Context<'_>) {
        for _ in 0..REQUESTS_TOGETHER_MAX {
            if !self.stream.is_reading() {
                return;
            }
            let Some(requests) = &mut self.requests else { return };
            match Pin::new(requests).poll_next(cx) {
                Poll::Pending => return,
                Poll::Ready(Some(Ok(request))) => self.stream.request(request),
                Poll::Ready(Some(Err(status))) => {
                    self.failure = Some(status);
                    self.requests = None;
                }
                Poll::Ready(None) => self.requests = None,
            }
        }
        // There may be more, and nobody else will say so.
        cx.waker().wake_by_ref();
    }
}

impl Stream for Watching {
    type Item = Result<Response, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.take_requests(cx);
        if let Some(status) = self.failure.take() {
            return Poll::Ready(Some(Err(status)));
        }
        self.stream
            .poll_response(cx)
            .map(|response| response.map(|response| response.map_err(Error::into_status)))
    }
}
