//! Watch: the client's messages to the worker's hub, the hub's responses to the client.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use flotilla_core::Error;
use flotilla_core::auth::Needs;
use flotilla_core::proto::etcdserverpb::WatchRequest;
use flotilla_core::proto::etcdserverpb::watch_request::RequestUnion;
use flotilla_core::watch::Response;
use futures::Stream;
use tonic::Status;

use super::Context;
use super::call::Requests;
use super::guard::Client;
use super::status::IntoStatus;
use crate::watch::{Hub, Opened};

/// Messages of a client that are taken before others get their turn.
const REQUESTS_TOGETHER_MAX: usize = 32;

/// Ends only when the client is gone, or when there is no leader for long and the client asked for
/// one: closing the sending side leaves the watchers alive.
pub(super) fn watch(
    hub: &Hub,
    context: Arc<Context>,
    client: Client,
    requests: Requests<WatchRequest>,
    needs_leader: bool,
) -> impl Stream<Item = Result<Response, Status>> + Send + use<> {
    let (stream, requests) = (hub.open(needs_leader), Some(requests));
    Watching { context, client, stream, requests, checking: None, failure: None }
}

/// A create request, and whether its client may read the keys. A lost permission does not end what
/// was created before.
type Checking = Pin<Box<dyn Future<Output = (WatchRequest, Result<(), Error>)> + Send>>;

struct Watching {
    context: Arc<Context>,
    client: Client,
    stream: Opened,
    /// `None` when nothing more comes.
    requests: Option<Requests<WatchRequest>>,
    /// Those after it wait: answers keep the order of the requests.
    checking: Option<Checking>,
    /// A message that could not be received ends the stream.
    failure: Option<Status>,
}

impl Watching {
    fn take_requests(&mut self, cx: &mut TaskContext<'_>) {
        for _ in 0..REQUESTS_TOGETHER_MAX {
            if let Some(checking) = &mut self.checking {
                let Poll::Ready((request, permitted)) = checking.as_mut().poll(cx) else { return };
                self.checking = None;
                match permitted {
                    Ok(()) => self.stream.request(request),
                    Err(error) => self.stream.refuse(error),
                }
            }
            if !self.stream.is_reading() {
                return;
            }
            let Some(requests) = &mut self.requests else { return };
            match Pin::new(requests).poll_next(cx) {
                Poll::Pending => return,
                Poll::Ready(Some(Ok(request))) => self.take(request),
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

impl Watching {
    fn take(&mut self, request: WatchRequest) {
        let needs = match &request.request_union {
            // Its start is refused before anybody is asked.
            Some(RequestUnion::CreateRequest(create)) if create.start_revision >= 0 => {
                Needs::of_watch(create)
            }
            _ => return self.stream.request(request),
        };
        if !self.context.gate().is_enabled() {
            return self.stream.request(request);
        }
        let (context, client) = (self.context.clone(), self.client.clone());
        self.checking = Some(Box::pin(async move {
            let permitted = match context.router.ticket().await {
                Ok(_) => client.permit_read(&context, || needs.clone()).await.map(|_| ()),
                Err(error) => Err(error),
            };
            (request, permitted)
        }));
    }
}

impl Stream for Watching {
    type Item = Result<Response, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        self.take_requests(cx);
        if let Some(status) = self.failure.take() {
            return Poll::Ready(Some(Err(status)));
        }
        self.stream
            .poll_response(cx)
            .map(|response| response.map(|response| response.map_err(Error::into_status)))
    }
}
