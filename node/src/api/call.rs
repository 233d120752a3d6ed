//! One gRPC call: received, admitted, carried out, counted. What all methods have in common.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use flotilla_core::Error;
use futures::Stream;
use prost::Message;
use tokio::time::{Instant, Sleep};
use tonic::body::Body;
use tonic::codec::Encoder;
use tonic::server::Grpc;
use tonic::{Code, Status};
use tower::service_fn;

use super::codec::{self, Codec};
use super::guard::Client;
use super::inside::RequestBody;
use super::phases::Report;
use super::policy::{self, Wishes};
use super::status::IntoStatus;
use super::{Context, Method, once};
use crate::metrics::{CallMeter, upstream};
use crate::router::{Phase, Trace};

/// A call that was begun.
pub(super) struct Call {
    pub(super) context: Arc<Context>,
    pub(super) method: Method,
    pub(super) wishes: Wishes,
    pub(super) client: Client,
}

impl Call {
    /// Carries out a method that takes and gives one message. `is_local_read` tells of a request
    /// that asks for nothing but the local state.
    pub(super) async fn unary<Req, Res, E, F, Fut>(
        self,
        request: http::Request<RequestBody>,
        is_local_read: fn(&Req) -> bool,
        method: F,
    ) -> http::Response<Body>
    where
        Req: Message + Default + Send + 'static,
        Res: once::Answer + Send + 'static,
        E: IntoStatus,
        F: FnOnce(Arc<Context>, Client, Req) -> Fut,
        Fut: Future<Output = Result<Res, E>> + Send,
    {
        let Self { context, method: name, wishes, mut client } = self;
        let meter = context.meters.begin(name);
        let trace = Arc::new(Trace::begin());
        client.trace(trace.clone());
        let limit = context.config.warning_unary_request_duration;
        let report = Report::new(trace.clone(), name, limit, wishes.wants_phases);
        let span = context.spans.as_ref().and_then(|spans| {
            let sampled = spans.sample(request.headers())?;
            Some((spans.clone(), sampled))
        });
        let report = report.with_span(span);
        let share = name.reads_keys().then(|| client.begin_share(&context.budget));
        let answer_bytes_max = context.limits.answer_bytes_max;
        let answered = async {
            let bytes_max = context.limits.message_bytes_max;
            let request = once::receive(request.into_body(), bytes_max).await?;
            meter.received();
            let admitted = policy::admit(name, wishes, context.board(), is_local_read(&request));
            let admitted = match admitted {
                Ok(()) => client.admit(&context, name.guard()).await,
                refused => refused,
            };
            trace.spend(Phase::Queue);
            admitted.map_err(Error::into_status)?;
            let answer = method(context, client, request).await;
            trace.spend(Phase::Apply);
            answer.map_err(E::into_status)
        };
        let answered = answered.await;
        let response = answered.and_then(|answer| once::answer(answer, answer_bytes_max));
        let (code, response) = match response {
            Ok(response) => {
                meter.sent();
                (Code::Ok, response)
            }
            Err(status) => (status.code(), status.into_http()),
        };
        meter.end(code);
        let response = match share {
            Some(share) => share.hold(response),
            None => response,
        };
        report.follow(code, response)
    }

    /// Carries out a method that takes one message and gives a stream of them.
    pub(super) async fn server_stream<En, Req, F, S>(
        self,
        request: http::Request<RequestBody>,
        method: F,
    ) -> http::Response<Body>
    where
        En: Encoder<Error = Status> + Default + Send + 'static,
        En::Item: Send + 'static,
        Req: Message + Default + Send + 'static,
        F: Fn(Arc<Context>, Client, Req) -> S + Send + Sync,
        S: Stream<Item = Result<En::Item, Status>> + Send + 'static,
    {
        let mut grpc = grpc::<En, Req>(&self.context);
        let meter = self.context.meters.begin(self.method);
        let (call, meter, method) = (&self, &mut Some(meter), &method);
        let service = service_fn(|request: tonic::Request<Req>| {
            let meter = meter.take().expect("a call has one request");
            async move {
                let call = call.admit(meter).await?;
                call.meter.received();
                let client = call.client.clone();
                let answers = method(call.context.clone(), client, request.into_inner());
                Ok::<_, Status>(tonic::Response::new(call.answer_with(answers)))
            }
        });
        unreceived(grpc.server_streaming(service, request).await)
    }

    /// Carries out a method that takes and gives streams. `method` is handed the client's messages
    /// and makes the stream of answers.
    pub(super) async fn bidi_stream<En, Req, F, S>(
        self,
        request: http::Request<RequestBody>,
        method: F,
    ) -> http::Response<Body>
    where
        En: Encoder<Error = Status> + Default + Send + 'static,
        En::Item: Send + 'static,
        Req: Message + Default + Send + 'static,
        F: Fn(Arc<Context>, Client, Requests<Req>) -> S + Send + Sync,
        S: Stream<Item = Result<En::Item, Status>> + Send + 'static,
    {
        let mut grpc = grpc::<En, Req>(&self.context);
        let meter = self.context.meters.begin(self.method);
        let method_name = self.method;
        let (call, meter, method) = (&self, &mut Some(meter), &method);
        let service = service_fn(|request: tonic::Request<tonic::Streaming<Req>>| {
            let meter = meter.take().expect("a call has one stream of requests");
            async move {
                let call = call.admit(meter).await?;
                let requests = Requests {
                    messages: request.into_inner(),
                    received: call.meter.on_received(),
                    api: stream_api(method_name),
                };
                let answers = method(call.context.clone(), call.client.clone(), requests);
                Ok::<_, Status>(tonic::Response::new(call.answer_with(answers)))
            }
        });
        grpc.streaming(service, request).await
    }

    async fn admit(&self, meter: CallMeter) -> Result<Admitted, Status> {
        let admitted = policy::admit(self.method, self.wishes, self.context.board(), false);
        let admitted = match admitted {
            Ok(()) => self.client.admit(&self.context, self.method.guard()).await,
            Err(error) => Err(error),
        };
        match admitted {
            Ok(()) => {
                // The hub sees to its own streams.
                let is_guarded = self.wishes.needs_leader && self.method != Method::Watch;
                let (context, client) = (self.context.clone(), self.client.clone());
                Ok(Admitted { context, client, is_guarded, meter })
            }
            Err(error) => {
                let status = error.into_status();
                meter.end(status.code());
                Err(status)
            }
        }
    }
}

/// A call with a stream of answers.
struct Admitted {
    context: Arc<Context>,
    client: Client,
    /// It is cut off when there is no leader for long.
    is_guarded: bool,
    meter: CallMeter,
}

impl Admitted {
    fn answer_with<S>(self, answers: S) -> Answers<S> {
        let Self { context, client: _, is_guarded, meter } = self;
        let patience = context.limits.leaderless_stream_timeout;
        let leader = is_guarded.then(|| LeaderWatch::new(context, patience));
        Answers { answers: Box::pin(answers), leader, meter, has_ended: false }
    }
}

fn grpc<En, Req>(context: &Context) -> Grpc<Codec<En, Req>>
where
    En: Encoder<Error = Status> + Default + Send + 'static,
    En::Item: Send + 'static,
    Req: Message + Default + Send + 'static,
{
    Grpc::new(Codec::new())
        .max_decoding_message_size(context.limits.message_bytes_max)
        .max_encoding_message_size(context.limits.answer_bytes_max)
}

/// An answer that says nothing but why the request could not be received, in grpc-go's words.
fn unreceived(response: http::Response<Body>) -> http::Response<Body> {
    match Status::from_header_map(response.headers()) {
        Some(status) if status.code() == Code::OutOfRange => codec::received(status).into_http(),
        _ => response,
    }
}

/// The client's messages.
pub(super) struct Requests<Req> {
    messages: tonic::Streaming<Req>,
    received: metrics::Counter,
    /// As etcd calls what the stream is for, if it counts its failures.
    api: Option<&'static str>,
}

/// As etcd calls a stream whose failures it counts.
fn stream_api(method: Method) -> Option<&'static str> {
    match method {
        Method::Watch => Some("watch"),
        Method::LeaseKeepAlive => Some("lease-keepalive"),
        _ => None,
    }
}

impl<Req> Stream for Requests<Req> {
    type Item = Result<Req, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        let next = Pin::new(&mut self.messages).poll_next(cx);
        match (&next, self.api) {
            (Poll::Ready(Some(Ok(_))), _) => self.received.increment(1),
            (Poll::Ready(Some(Err(status))), Some(api)) if status.code() != Code::Cancelled => {
                upstream::stream_broke(api);
            }
            _ => {}
        }
        next.map_err(codec::received)
    }
}

/// The answers of a call, counted, and cut off when there is no leader for long and the client
/// asked for that.
struct Answers<S> {
    answers: Pin<Box<S>>,
    leader: Option<LeaderWatch>,
    meter: CallMeter,
    has_ended: bool,
}

impl<S, T> Stream for Answers<S>
where
    S: Stream<Item = Result<T, Status>>,
{
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        let mut next = self.answers.as_mut().poll_next(cx);
        if next.is_pending()
            && let Some(leader) = &mut self.leader
            && leader.poll_lost(cx).is_ready()
        {
            next = Poll::Ready(Some(Err(Error::NoLeader.into_status())));
        }
        match &next {
            Poll::Pending => {}
            Poll::Ready(Some(Ok(_))) => self.meter.sent(),
            Poll::Ready(Some(Err(status))) => {
                self.has_ended = true;
                self.meter.end(status.code());
            }
            Poll::Ready(None) => {
                self.has_ended = true;
                self.meter.end(Code::Ok);
            }
        }
        next
    }
}

/// Notices that there has been no leader for long.
struct LeaderWatch {
    context: Arc<Context>,
    patience: Duration,
    leaderless_since: Option<Instant>,
    next_look: Pin<Box<Sleep>>,
}

/// Looks at the leader in the time without one that is allowed.
const LOOKS: u32 = 12;

impl LeaderWatch {
    fn new(context: Arc<Context>, patience: Duration) -> Self {
        let next_look = Box::pin(tokio::time::sleep(patience / LOOKS));
        Self { context, patience, leaderless_since: None, next_look }
    }

    fn poll_lost(&mut self, cx: &mut TaskContext<'_>) -> Poll<()> {
        while self.next_look.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            self.next_look.as_mut().reset(now + self.patience / LOOKS);
            if self.context.board().leader() != 0 {
                self.leaderless_since = None;
                continue;
            }
            let since = *self.leaderless_since.get_or_insert(now);
            if now - since >= self.patience {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }
}
