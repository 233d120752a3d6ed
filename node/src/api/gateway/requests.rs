//! From JSON to the messages of a call, framed as gRPC has them.

use std::convert::Infallible;

use bytes::Bytes;
use futures::{Stream, stream};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use prost::Message;
use prost_reflect::MessageDescriptor;

use super::super::inside;
use super::decode;

/// The messages that come in one after the other, each handed on when it is whole. What is no
/// message ends them, as the end of the body does: etcd's gateway says nothing of it either.
pub(super) fn frames(
    body: Incoming,
    descriptor: MessageDescriptor,
    bytes_max: usize,
) -> StreamBody<impl Stream<Item = Result<Frame<Bytes>, Infallible>>> {
    let source = Source { body, descriptor, bytes_max, read: Vec::new() };
    StreamBody::new(stream::unfold(source, async |mut source| {
        let framed = source.next().await?;
        Some((Ok(Frame::data(framed)), source))
    }))
}

struct Source {
    body: Incoming,
    descriptor: MessageDescriptor,
    /// Bytes that one message may take.
    bytes_max: usize,
    /// What was read and is no whole message yet.
    read: Vec<u8>,
}

impl Source {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            match decode::next(&self.descriptor, &self.read) {
                Ok(Some((message, bytes))) => {
                    self.read.drain(..bytes);
                    return Some(inside::frame(&message.encode_to_vec()));
                }
                Ok(None) => {}
                Err(_) => return None,
            }
            let more = self.body.frame().await?.ok()?;
            if let Ok(bytes) = more.into_data() {
                if self.read.len() + bytes.len() > self.bytes_max {
                    return None;
                }
                self.read.extend_from_slice(&bytes);
            }
        }
    }
}
