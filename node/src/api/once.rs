//! One message in, one message out: nearly all calls, and nearly all of their messages come in one piece.
//! Such a piece is decoded where it lies, and the answer is encoded into the one buffer that is sent.
//! What comes otherwise, cut into pieces or wrong, is left to what streams are received with.

use std::collections::VecDeque;
use std::pin::{Pin, pin};
use std::task::{Context as TaskContext, Poll};

use bytes::{Buf, Bytes, BytesMut};
use futures::TryStreamExt;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http_body::Frame;
use http_body_util::BodyExt;
use prost::Message;
use tonic::Status;
use tonic::body::Body;
use tonic::codec::Streaming;
use tonic::codegen::StdError;

use super::codec::{self, FromProst};
use super::inside::{FRAME_HEAD_BYTES, RequestBody, begin_frame, frame_of};
use super::read::RangeAnswer;
use crate::metrics;

/// The message of a call of at most so many bytes, once the client has said that there are no more.
///
/// # Errors
/// In grpc-go's words: there is none, it is too large, or it cannot be read.
pub(super) async fn receive<M>(mut body: RequestBody, bytes_max: usize) -> Result<M, Status>
where
    M: Message + Default + Send + 'static,
{
    let first = body.frame().await;
    if http_body::Body::is_end_stream(&body)
        && let Some(Ok(frame)) = &first
        && let Some(message) = frame.data_ref().and_then(|data| whole(data, bytes_max))
    {
        return codec::decode(message);
    }
    let body = Resumed { first, rest: body };
    let mut messages = pin!(Streaming::new_request(FromProst::new(), body, None, Some(bytes_max)));
    let received = async {
        let message = messages.try_next().await?;
        let message = message.ok_or_else(|| Status::internal("Missing request message."))?;
        // To the end, which is when the client has said all.
        messages.trailers().await?;
        Ok(message)
    };
    received.await.map_err(codec::received)
}

/// The message, if a piece is one and nothing else.
fn whole(piece: &Bytes, bytes_max: usize) -> Option<Bytes> {
    let (is_compressed, mut length) = piece.get(..FRAME_HEAD_BYTES)?.split_first()?;
    let length = length.get_u32() as usize;
    let is_whole =
        *is_compressed == 0 && piece.len() == FRAME_HEAD_BYTES + length && length <= bytes_max;
    is_whole.then(|| piece.slice(FRAME_HEAD_BYTES..))
}

/// What is sent as one message.
pub(super) trait Answer {
    /// Bytes of the message.
    fn length(&self) -> usize;

    /// The message of so many bytes with its head, in one buffer or in several.
    fn into_frames(self, length: usize) -> Frames;
}

/// Buffers that are sent one after the other.
pub(super) struct Frames {
    first: Option<Bytes>,
    more: VecDeque<Bytes>,
}

impl<M: Message> Answer for M {
    fn length(&self) -> usize {
        self.encoded_len()
    }

    fn into_frames(self, length: usize) -> Frames {
        let first = frame_of(length, |framed| self.encode_raw(framed));
        Frames { first: Some(first), more: VecDeque::new() }
    }
}

impl Answer for RangeAnswer {
    fn length(&self) -> usize {
        self.encoded_len()
    }

    /// Keys that are encoded are sent from where they lie.
    fn into_frames(self, length: usize) -> Frames {
        let answer = match self {
            Self::Whole(answer) => return answer.into_frames(length),
            Self::Encoded(answer) => answer,
        };
        let [before, after] = answer.around();
        let mut first = BytesMut::with_capacity(FRAME_HEAD_BYTES + before.encoded_len());
        begin_frame(length, &mut first);
        before.encode_raw(&mut first);
        let mut more: VecDeque<Bytes> = answer.kvs.into();
        more.push_back(after.encode_to_vec().into());
        Frames { first: Some(first.freeze()), more }
    }
}

/// An answer.
///
/// # Errors
/// It has more than so many bytes; in grpc-go's words.
pub(super) fn answer<A: Answer>(
    message: A,
    bytes_max: usize,
) -> Result<http::Response<Body>, Status> {
    let length = message.length();
    if length > bytes_max.min(u32::MAX as usize) {
        let text =
            format!("grpc: trying to send message larger than max ({length} vs. {bytes_max})");
        return Err(Status::resource_exhausted(text));
    }
    metrics::traffic().sent_bytes.increment(length as u64);
    let body = Once { frames: message.into_frames(length), has_ended: false };
    let mut response = http::Response::new(Body::new(body));
    response.headers_mut().insert(CONTENT_TYPE, GRPC);
    Ok(response)
}

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const OK: HeaderValue = HeaderValue::from_static("0");

/// A message, and that all is well.
struct Once {
    frames: Frames,
    has_ended: bool,
}

impl http_body::Body for Once {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Frames { first, more } = &mut self.frames;
        if let Some(data) = first.take().or_else(|| more.pop_front()) {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if std::mem::replace(&mut self.has_ended, true) {
            return Poll::Ready(None);
        }
        let mut trailers = HeaderMap::with_capacity(1);
        trailers.insert(Status::GRPC_STATUS, OK);
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.has_ended
    }
}

/// A body of which one frame was taken.
struct Resumed {
    first: Option<Result<Frame<Bytes>, StdError>>,
    rest: RequestBody,
}

impl http_body::Body for Resumed {
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        match self.first.take() {
            Some(first) => Poll::Ready(Some(first)),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.rest.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use flotilla_core::mvcc::EncodedRange;
    use flotilla_core::proto::etcdserverpb::{PutRequest, RangeResponse, ResponseHeader};
    use flotilla_core::proto::mvccpb::KeyValue;
    use http_body_util::StreamBody;
    use tonic::Code;

    use super::super::inside::frame;
    use super::*;

    const BYTES_MAX: usize = 1_000;

    /// What is made of a message that arrives in such pieces.
    async fn received(pieces: Vec<Bytes>) -> Result<PutRequest, (Code, String)> {
        let frames = pieces.into_iter().map(|piece| Ok::<_, Status>(Frame::data(piece)));
        let body = Body::new(StreamBody::new(futures::stream::iter(frames)));
        let message = receive(RequestBody::Local(body), BYTES_MAX).await;
        message.map_err(|status| (status.code(), status.message().to_owned()))
    }

    fn request() -> PutRequest {
        let (key, value) = (Bytes::from_static(b"key"), Bytes::from_static(b"value"));
        PutRequest { key, value, ..PutRequest::default() }
    }

    #[tokio::test]
    async fn a_message_arrives_however_it_is_cut() {
        let framed = frame(&request().encode_to_vec());
        for at in 0..=framed.len() {
            let pieces = vec![framed.slice(..at), framed.slice(at..)];
            assert_eq!(received(pieces).await, Ok(request()), "cut at {at}");
        }
        assert_eq!(received(vec![framed.clone()]).await, Ok(request()));
        // Of two the first counts.
        let two = [&framed[..], &frame(b"")[..]].concat();
        assert_eq!(received(vec![two.into()]).await, Ok(request()));
        assert_eq!(received(vec![frame(b"")]).await, Ok(PutRequest::default()));
    }

    #[tokio::test]
    async fn a_whole_piece_is_decoded_where_it_lies() {
        let framed = frame(&request().encode_to_vec());
        let body = Body::new(http_body_util::Full::new(framed.clone()));
        let message: PutRequest = receive(RequestBody::Local(body), BYTES_MAX).await.unwrap();
        assert!(framed.as_ptr_range().contains(&message.key.as_ptr()));
    }

    #[tokio::test]
    async fn what_is_wrong_is_told_in_the_words_of_streams() {
        let missing = Err((Code::Internal, "Missing request message.".to_owned()));
        assert_eq!(received(vec![]).await, missing);
        assert_eq!(received(vec![Bytes::new()]).await, missing);
        let cut = received(vec![frame(b"12345").slice(..8)]).await.unwrap_err();
        assert_eq!(cut.0, Code::Internal);
        let compressed = [&[1][..], &frame(b"")[1..]].concat();
        let (code, text) = received(vec![compressed.into()]).await.unwrap_err();
        assert!(code == Code::Internal && text.contains("compressed-flag"), "{text}");
        let large = received(vec![frame(&[0; BYTES_MAX + 1])]).await;
        let text = "grpc: received message larger than max (1001 vs. 1000)";
        assert_eq!(large, Err((Code::ResourceExhausted, text.to_owned())));
        let unreadable = received(vec![frame(&[0xff])]).await.unwrap_err();
        assert!(unreadable.1.starts_with("grpc: error unmarshalling request: "), "{unreadable:?}");
    }

    #[tokio::test]
    async fn an_answer_is_one_piece_and_a_good_end() {
        let answer = answer(request(), BYTES_MAX).unwrap();
        assert_eq!(answer.headers()[CONTENT_TYPE], "application/grpc");
        let body = answer.into_body().collect().await.unwrap();
        assert_eq!(body.trailers().unwrap()[Status::GRPC_STATUS], "0");
        assert_eq!(body.to_bytes(), frame(&request().encode_to_vec()));
    }

    #[tokio::test]
    async fn keys_that_are_encoded_are_sent_from_where_they_lie() {
        let kv = |key| KeyValue { key: Bytes::from_static(key), ..KeyValue::default() };
        let whole = RangeResponse {
            header: Some(ResponseHeader { revision: 7, ..ResponseHeader::default() }),
            kvs: vec![kv(b"a"), kv(b"b"), kv(b"c")],
            more: true,
            count: 9,
        };
        let piece = |kvs: &[KeyValue]| {
            let kvs = kvs.to_vec();
            Bytes::from(RangeResponse { kvs, ..RangeResponse::default() }.encode_to_vec())
        };
        let pieces = vec![piece(&whole.kvs[..2]), piece(&whole.kvs[2..])];
        let encoded = EncodedRange {
            header: whole.header,
            kvs: pieces.clone(),
            more: whole.more,
            count: whole.count,
        };
        let answer = answer(RangeAnswer::Encoded(encoded), BYTES_MAX).unwrap();
        let mut body = pin!(answer.into_body());
        let mut sent = Vec::new();
        while let Some(frame) = body.frame().await {
            sent.extend(frame.unwrap().into_data());
        }
        assert_eq!(sent[1].as_ptr(), pieces[0].as_ptr());
        assert_eq!(sent[2].as_ptr(), pieces[1].as_ptr());
        let message = super::whole(&sent.concat().into(), BYTES_MAX).unwrap();
        assert_eq!(RangeResponse::decode(message).unwrap(), whole);
    }

    #[test]
    fn an_answer_that_is_too_large_is_refused() {
        let status = answer(request(), 3).unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(status.message(), "grpc: trying to send message larger than max (12 vs. 3)");
    }
}
