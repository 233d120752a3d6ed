//! The answers of calls as JSON: one value, or a line for each of many.

use std::convert::Infallible;

use bytes::Bytes;
use futures::stream;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::{Full, StreamBody};
use prost_reflect::MessageDescriptor;
use serde::Serialize;
use tonic::body::Body;
use tonic::{Code, Status};

use super::super::inside::Answers;
use super::encode;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const GRPC_CONTENT_TYPE: HeaderName = HeaderName::from_static("grpc-metadata-content-type");
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// The answer of a method that gives one message.
pub(super) fn one(answer: Result<Bytes, Status>, output: &MessageDescriptor) -> Response<Body> {
    let text = answer.and_then(|message| {
        let mut text = Vec::new();
        encode::append(output, &message, &mut text).map_err(Status::internal)?;
        Ok(text)
    });
    match text {
        Ok(text) => json(Body::new(Full::new(Bytes::from(text)))),
        Err(status) => refusal(&status),
    }
}

/// The answers of a method that gives many. What ends them badly before the first line is the
/// status, and else the last line.
pub(super) async fn lines(
    answers: Result<Answers, Status>,
    output: MessageDescriptor,
) -> Response<Body> {
    let first = async {
        let mut lines = Lines { answers: answers?, output, has_ended: false };
        Ok(lines.next().await?.map(|first| (first, lines)))
    };
    match first.await {
        // Headers follow from what is written, and nothing is.
        Ok(None) => Response::new(Body::empty()),
        Ok(Some((first, lines))) => {
            let rest = stream::unfold((Some(first), lines), async |(first, mut lines)| {
                let line = match first {
                    Some(first) => first,
                    None => lines.next_or_last().await?,
                };
                Some((Ok::<_, Infallible>(Frame::data(line)), (None, lines)))
            });
            json(Body::new(StreamBody::new(rest)))
        }
        Err(status) => {
            let mut response = json(Body::new(Full::new(last(&status))));
            *response.status_mut() = http_status(status.code());
            response
        }
    }
}

struct Lines {
    answers: Answers,
    output: MessageDescriptor,
    has_ended: bool,
}

impl Lines {
    async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        let Some(message) = self.answers.next().await? else { return Ok(None) };
        let mut text = b"{\"result\":".to_vec();
        encode::append(&self.output, &message, &mut text).map_err(Status::internal)?;
        text.extend_from_slice(b"}\n");
        Ok(Some(text.into()))
    }

    async fn next_or_last(&mut self) -> Option<Bytes> {
        if self.has_ended {
            return None;
        }
        match self.next().await {
            Ok(line) => line,
            Err(status) => {
                self.has_ended = true;
                Some(last(&status))
            }
        }
    }
}

/// The line that tells why there are no more.
fn last(status: &Status) -> Bytes {
    #[derive(Serialize)]
    struct Last<'a> {
        error: Reason<'a>,
    }
    json_of(&Last { error: Reason::of(status) })
}

fn json(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response.headers_mut().insert(GRPC_CONTENT_TYPE, GRPC);
    response
}

/// Why there is no answer.
pub(super) fn refusal(status: &Status) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::new(json_of(&Reason::of(status)))));
    *response.status_mut() = http_status(status.code());
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    if status.code() == Code::Unauthenticated
        && let Ok(message) = HeaderValue::from_str(status.message())
    {
        response.headers_mut().insert(WWW_AUTHENTICATE, message);
    }
    response
}

/// The number and the text that a client is told.
#[derive(Serialize)]
struct Reason<'a> {
    code: i32,
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
}

impl<'a> Reason<'a> {
    fn of(status: &'a Status) -> Self {
        Self { code: status.code() as i32, message: status.message() }
    }
}

fn json_of(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).expect("numbers and texts are JSON").into()
}

/// The HTTP status that goes with a code.
pub(super) fn http_status(code: Code) -> StatusCode {
    let number = match code {
        Code::Ok => 200,
        Code::Cancelled => 499,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => 400,
        Code::DeadlineExceeded => 504,
        Code::NotFound => 404,
        Code::AlreadyExists | Code::Aborted => 409,
        Code::PermissionDenied => 403,
        Code::ResourceExhausted => 429,
        Code::Unimplemented => 501,
        Code::Unavailable => 503,
        Code::Unauthenticated => 401,
        Code::Unknown | Code::Internal | Code::DataLoss => 500,
    };
    StatusCode::from_u16(number).expect("each is between 100 and 999")
}
