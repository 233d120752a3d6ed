//! Frames on an upgraded connection: length, CRC-32C of the content, content. Owns the form and its
//! limit; a frame that breaks either ends the connection.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use prost::Message;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes of one frame's content.
pub const FRAME_BYTES_MAX: usize = 80 << 20;
const HEAD_BYTES: usize = 8;

/// Appends a frame to a buffer.
pub(super) fn put(message: &impl Message, buffer: &mut BytesMut) {
    let at = buffer.len();
    buffer.extend_from_slice(&[0; HEAD_BYTES]);
    message.encode(buffer).expect("a growing buffer has room");
    let content = &buffer[at + HEAD_BYTES..];
    let length = u32::try_from(content.len()).expect("frames are far below four gigabytes");
    let checksum = crc32c::crc32c(content);
    buffer[at..at + 4].copy_from_slice(&length.to_le_bytes());
    buffer[at + 4..at + 8].copy_from_slice(&checksum.to_le_bytes());
}

/// Writes one frame.
pub(super) async fn write(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &impl Message,
) -> io::Result<usize> {
    let mut buffer = BytesMut::new();
    put(message, &mut buffer);
    stream.write_all(&buffer).await?;
    stream.flush().await?;
    Ok(buffer.len())
}

/// Reads frames from a stream.
pub(super) struct Reader<S> {
    stream: S,
    buffer: BytesMut,
    /// Of the frames taken since they were asked for.
    taken_bytes: u64,
}

impl<S: AsyncRead + Unpin> Reader<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, buffer: BytesMut::with_capacity(64 << 10), taken_bytes: 0 }
    }

    /// Bytes of the frames that `next` gave since the last call.
    pub(super) fn taken_bytes(&mut self) -> u64 {
        std::mem::take(&mut self.taken_bytes)
    }

    /// The next frame, or `None` at the end of the stream.
    pub(super) async fn next<M: Message + Default>(&mut self) -> io::Result<Option<M>> {
        match self.next_content().await? {
            Some(content) => Ok(Some(M::decode(content).map_err(io::Error::other)?)),
            None => Ok(None),
        }
    }

    async fn next_content(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            if let Some(content) = self.take()? {
                return Ok(Some(content));
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
        }
    }

    fn take(&mut self) -> io::Result<Option<Bytes>> {
        if self.buffer.len() < HEAD_BYTES {
            return Ok(None);
        }
        let word =
            |at: usize| u32::from_le_bytes(self.buffer[at..at + 4].try_into().expect("four bytes"));
        let (length, checksum) = (word(0) as usize, word(4));
        if length > FRAME_BYTES_MAX {
            let text = format!("a frame of {length} bytes is larger than {FRAME_BYTES_MAX}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        if self.buffer.len() < HEAD_BYTES + length {
            // Room for the rest at once, but never on the word of a length alone: the sender has
            // to keep up with the memory it asks for.
            let missing = HEAD_BYTES + length - self.buffer.len();
            self.buffer.reserve(missing.min(self.buffer.len().max(64 << 10)));
            return Ok(None);
        }
        self.taken_bytes += (HEAD_BYTES + length) as u64;
        self.buffer.advance(HEAD_BYTES);
        let content = self.buffer.split_to(length).freeze();
        if crc32c::crc32c(&content) != checksum {
            let text = "the checksum of a frame does not match";
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        Ok(Some(content))
    }
}

#[cfg(test)]
mod tests {
    use flotilla_core::proto::internal::PeerHello;

    use super::*;

    fn hello() -> PeerHello {
        PeerHello { protocol: 1, cluster_id: 2, from: 3, to: 4, ..PeerHello::default() }
    }

    async fn read_all(bytes: Vec<u8>) -> (Vec<PeerHello>, io::Result<()>) {
        let mut reader = Reader::new(&bytes[..]);
        let mut frames = Vec::new();
        loop {
            match reader.next().await {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => return (frames, Ok(())),
                Err(error) => return (frames, Err(error)),
            }
        }
    }

    #[actix::test]
    async fn frames_come_back_whole_and_in_order() {
        let mut buffer = BytesMut::new();
        put(&hello(), &mut buffer);
        put(&PeerHello::default(), &mut buffer);
        let (frames, end) = read_all(buffer.to_vec()).await;
        assert_eq!(frames, vec![hello(), PeerHello::default()]);
        assert!(end.is_ok());
    }

    #[actix::test]
    async fn any_flipped_bit_and_any_cut_ends_the_stream_with_an_error() {
        let mut buffer = BytesMut::new();
        put(&hello(), &mut buffer);
        for bit in 0..buffer.len() * 8 {
            let mut bytes = buffer.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let (frames, end) = read_all(bytes).await;
            assert!(frames.is_empty() && end.is_err(), "bit {bit}");
        }
        for length in 1..buffer.len() {
            let (frames, end) = read_all(buffer[..length].to_vec()).await;
            assert!(frames.is_empty() && end.is_err(), "cut at {length}");
        }
    }
}
