//! Messages to bytes and back, with the error texts of grpc-go. Watch responses bring their events
//! already encoded.

use std::marker::PhantomData;

use bytes::Buf;
use flotilla_core::watch;
use prost::Message;
use prost::encoding::{self, WireType};
use tonic::codec::{BufferSettings, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Status};

use super::read::RangeAnswer;
use crate::metrics;

/// Bytes a call's buffers begin with. They grow to what a message needs; a call that stays idle
/// keeps no more than this.
const BUFFER_BYTES: usize = 512;
/// Bytes of encoded messages that are handed on together.
const TOGETHER_BYTES: usize = 32 << 10;

/// Encodes with `E` and decodes messages of the type `M`.
pub(super) struct Codec<E, M>(PhantomData<(E, M)>);

impl<E, M> Codec<E, M> {
    pub(super) fn new() -> Self {
        Self(PhantomData)
    }
}

impl<E, M> tonic::codec::Codec for Codec<E, M>
where
    E: Encoder<Error = Status> + Default + Send + 'static,
    E::Item: Send + 'static,
    M: Message + Default + Send + 'static,
{
    type Encode = E::Item;
    type Decode = M;
    type Encoder = E;
    type Decoder = FromProst<M>;

    fn encoder(&mut self) -> E {
        E::default()
    }

    fn decoder(&mut self) -> FromProst<M> {
        FromProst::new()
    }
}

/// Encodes a message.
pub(super) struct ToProst<M>(PhantomData<M>);

impl<M> Default for ToProst<M> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<M: Message> Encoder for ToProst<M> {
    type Item = M;
    type Error = Status;

    fn encode(&mut self, message: M, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        let bytes = message.encoded_len();
        metrics::traffic().sent_bytes.increment(bytes as u64);
        buffer.reserve(bytes);
        message.encode_raw(buffer);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER_BYTES, TOGETHER_BYTES)
    }
}

/// Encodes a watch response.
#[derive(Default)]
pub(super) struct ToWatchResponse;

impl Encoder for ToWatchResponse {
    type Item = watch::Response;
    type Error = Status;

    fn encode(
        &mut self,
        response: watch::Response,
        buffer: &mut EncodeBuf<'_>,
    ) -> Result<(), Status> {
        let bytes = response.encoded_len();
        metrics::traffic().sent_bytes.increment(bytes as u64);
        buffer.reserve(bytes);
        response.encode_into(buffer);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER_BYTES, TOGETHER_BYTES)
    }
}

/// Encodes a piece of a list.
#[derive(Default)]
pub(super) struct ToRangeStream;

impl Encoder for ToRangeStream {
    type Item = RangeAnswer;
    type Error = Status;

    fn encode(&mut self, piece: RangeAnswer, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        const RANGE_RESPONSE: u32 = 1;
        let piece_bytes = piece.encoded_len();
        let bytes = encoding::key_len(RANGE_RESPONSE)
            + encoding::encoded_len_varint(piece_bytes as u64)
            + piece_bytes;
        metrics::traffic().sent_bytes.increment(bytes as u64);
        buffer.reserve(bytes);
        encoding::encode_key(RANGE_RESPONSE, WireType::LengthDelimited, buffer);
        encoding::encode_varint(piece_bytes as u64, buffer);
        piece.encode_raw(buffer);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER_BYTES, TOGETHER_BYTES)
    }
}

/// Decodes a message.
pub(super) struct FromProst<M>(PhantomData<M>);

impl<M> FromProst<M> {
    pub(super) fn new() -> Self {
        Self(PhantomData)
    }
}

impl<M: Message + Default> Decoder for FromProst<M> {
    type Item = M;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<M>, Status> {
        decode(buffer).map(Some)
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER_BYTES, TOGETHER_BYTES)
    }
}

/// A received message.
///
/// # Errors
/// It cannot be read.
pub(super) fn decode<M: Message + Default>(message: impl Buf) -> Result<M, Status> {
    metrics::traffic().received_bytes.increment(message.remaining() as u64);
    M::decode(message).map_err(|error| unreadable(&error.to_string()))
}

fn unreadable(detail: &str) -> Status {
    let detail = if detail.ends_with("data is not UTF-8 encoded") {
        "string field contains invalid UTF-8"
    } else {
        detail
    };
    Status::internal(format!("grpc: error unmarshalling request: {detail}"))
}

/// What tonic says of a request that it could not receive, in the code and words of grpc-go.
pub(super) fn received(status: Status) -> Status {
    oversized(&status).unwrap_or(status)
}

fn oversized(status: &Status) -> Option<Status> {
    if status.code() != Code::OutOfRange {
        return None;
    }
    let rest = status.message().strip_prefix("Error, decoded message length too large: found ")?;
    let (found, rest) = rest.split_once(" bytes, the limit is: ")?;
    let limit = rest.strip_suffix(" bytes")?;
    let text = format!("grpc: received message larger than max ({found} vs. {limit})");
    Some(Status::resource_exhausted(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_is_too_large_is_told_in_the_words_of_grpc_go() {
        let tonic = "Error, decoded message length too large: found 2097153 bytes, \
                     the limit is: 2097152 bytes";
        let status = received(Status::out_of_range(tonic));
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(
            status.message(),
            "grpc: received message larger than max (2097153 vs. 2097152)"
        );
    }

    #[test]
    fn other_errors_keep_their_words() {
        let text = "etcdserver: mvcc: required revision has been compacted";
        let status = received(Status::out_of_range(text));
        assert_eq!((status.code(), status.message()), (Code::OutOfRange, text));
        let status = received(Status::internal("Unexpected EOF decoding stream."));
        assert_eq!(status.code(), Code::Internal);
    }

    #[test]
    fn bytes_that_are_no_text_are_told_in_the_words_of_grpc_go() {
        use flotilla_core::proto::etcdserverpb::DowngradeRequest;
        let error = DowngradeRequest::decode(&[0x12, 0x01, 0xff][..]).unwrap_err();
        let status = unreadable(&error.to_string());
        assert_eq!(status.code(), Code::Internal);
        assert_eq!(
            status.message(),
            "grpc: error unmarshalling request: string field contains invalid UTF-8"
        );
    }
}
