//! Calls of this node to itself, for what is built upon the API: the JSON gateway, locks and
//! elections. They carry the metadata of the client they are for and go through the same door as
//! its own calls would, so nothing is checked, counted or refused in another way.

use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderValue, TE};
use http::{HeaderMap, Request, Uri};
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use prost::Message;
use tonic::body::Body;
use tonic::codegen::StdError;
use tonic::{Code, Status};

use super::Method;
use super::service::Service;

/// Bytes in front of a message on a stream: whether it is compressed, and its length.
pub(super) const FRAME_HEAD_BYTES: usize = 5;

/// The messages of a call.
pub(super) enum RequestBody {
    /// A client's.
    Network(Incoming),
    /// This node's.
    Local(Body),
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        match self.get_mut() {
            Self::Network(body) => Pin::new(body).poll_frame(cx).map_err(StdError::from),
            Self::Local(body) => Pin::new(body).poll_frame(cx).map_err(StdError::from),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Network(body) => body.is_end_stream(),
            Self::Local(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Network(body) => body.size_hint(),
            Self::Local(body) => body.size_hint(),
        }
    }
}

/// Makes calls for one client.
#[derive(Clone)]
pub(super) struct Inside {
    service: Service,
    metadata: HeaderMap,
}

impl Inside {
    /// `metadata` is what the client sent, of which its token and its wishes count.
    pub(super) fn new(service: Service, mut metadata: HeaderMap) -> Self {
        metadata.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        metadata.insert(TE, HeaderValue::from_static("trailers"));
        Self { service, metadata }
    }

    /// One message for another.
    pub(super) async fn call<Req, Res>(&self, method: Method, request: &Req) -> Result<Res, Status>
    where
        Req: Message,
        Res: Message + Default,
    {
        let answer = self.call_encoded(method, &request.encode_to_vec()).await?;
        decoded(&answer)
    }

    /// As `call`, with both messages encoded.
    pub(super) async fn call_encoded(
        &self,
        method: Method,
        request: &[u8],
    ) -> Result<Bytes, Status> {
        let mut answers = self.stream(method, Body::new(Full::new(frame(request)))).await?;
        let answer = answers.next().await?.unwrap_or_default();
        // The trailers come after it, and may say that it does not count.
        while answers.next().await?.is_some() {}
        Ok(answer)
    }

    /// A call with many answers. `requests` are framed.
    pub(super) async fn stream(&self, method: Method, requests: Body) -> Result<Answers, Status> {
        let mut request = Request::new(RequestBody::Local(requests));
        *request.uri_mut() = Uri::try_from(format!("/{}/{}", method.service(), method.name()))
            .expect("names of methods are fit for a path");
        request.headers_mut().clone_from(&self.metadata);
        let answer = self.service.carry_out(method, request).await;
        let (head, body) = answer.unwrap_or_else(|never| match never {}).into_parts();
        match failure(&head.headers) {
            Some(status) => Err(status),
            None => Ok(Answers { body, read: BytesMut::new() }),
        }
    }
}

/// A message as gRPC puts it on a stream.
pub(super) fn frame(message: &[u8]) -> Bytes {
    frame_of(message.len(), |framed| framed.put_slice(message))
}

/// The same of a message of so many bytes, less than 4 GiB, which `write` puts there.
pub(super) fn frame_of(length: usize, write: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut framed = BytesMut::with_capacity(FRAME_HEAD_BYTES + length);
    begin_frame(length, &mut framed);
    write(&mut framed);
    framed.freeze()
}

/// What comes before a message of so many bytes, less than 4 GiB.
pub(super) fn begin_frame(length: usize, framed: &mut BytesMut) {
    framed.put_u8(0);
    framed.put_u32(u32::try_from(length).expect("no message has 4 GiB"));
}

/// The answers of a call.
pub(super) struct Answers {
    body: Body,
    /// What has come and is no whole message yet.
    read: BytesMut,
}

impl Answers {
    /// The next one, encoded. `None` when they have come to a good end.
    ///
    /// # Errors
    /// They have come to a bad one.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            if let Some(message) = self.take() {
                return Ok(Some(message));
            }
            let Some(frame) = self.body.frame().await else { return Ok(None) };
            match frame?.into_data() {
                Ok(bytes) => self.read.extend_from_slice(&bytes),
                Err(frame) => {
                    if let Some(status) = frame.trailers_ref().and_then(failure) {
                        return Err(status);
                    }
                }
            }
        }
    }

    fn take(&mut self) -> Option<Bytes> {
        let length = self.read.get(1..FRAME_HEAD_BYTES)?.get_u32() as usize;
        if self.read.len() < FRAME_HEAD_BYTES + length {
            return None;
        }
        self.read.advance(FRAME_HEAD_BYTES);
        Some(self.read.split_to(length).freeze())
    }
}

/// An answer of this node, which is what it should be.
pub(super) fn decoded<M: Message + Default>(message: &[u8]) -> Result<M, Status> {
    M::decode(message).map_err(|error| Status::internal(error.to_string()))
}

fn failure(headers: &HeaderMap) -> Option<Status> {
    Status::from_header_map(headers).filter(|status| status.code() != Code::Ok)
}
