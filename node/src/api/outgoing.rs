//! What a connection writes, in few system calls. The HTTP/2 library hands down every frame of data of
//! 256 bytes or more by itself where the connection takes several slices at once, and gathers frames of
//! less than 1 KiB where it does not. So this says that it does not, which gathers the answers to many
//! calls; and holds the head of a large frame back until the frame itself follows, and then writes both
//! with one call.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A piece of fewer bytes than this is held back until more comes, or a flush.
const PIECE_BYTES_MIN: usize = 1 << 10;

/// A connection of a client.
pub(super) struct Outgoing<S> {
    io: S,
    /// Written by the library, not by the connection: fewer bytes than `PIECE_BYTES_MIN`.
    held: BytesMut,
}

impl<S> Outgoing<S> {
    pub(super) fn new(io: S) -> Self {
        Self { io, held: BytesMut::new() }
    }
}

impl<S: AsyncWrite + Unpin> Outgoing<S> {
    fn poll_write_held(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.held.is_empty() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.held))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.held.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Outgoing<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Outgoing<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Self { io, held } = self.get_mut();
        loop {
            if held.len() + bytes.len() < PIECE_BYTES_MIN {
                held.extend_from_slice(bytes);
                return Poll::Ready(Ok(bytes.len()));
            }
            if held.is_empty() {
                return Pin::new(io).poll_write(cx, bytes);
            }
            let both = [IoSlice::new(held), IoSlice::new(bytes)];
            let written = ready!(Pin::new(&mut *io).poll_write_vectored(cx, &both))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let of_held = written.min(held.len());
            held.advance(of_held);
            if written > of_held {
                return Poll::Ready(Ok(written - of_held));
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        false
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write_held(cx))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write_held(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn everything_arrives_in_order_however_it_is_cut() {
        // Few bytes at a time, so that most writes end in the middle.
        let (ours, mut theirs) = tokio::io::duplex(700);
        let sizes = [9, 16_384, 1, 1_023, 1_024, 0, 500, 500, 500, 3, 9, 5_000, 40];
        let all: Vec<u8> = (0..sizes.iter().sum::<usize>()).map(|n| (n % 251) as u8).collect();
        let want = all.clone();
        let writing = tokio::spawn(async move {
            let mut outgoing = Outgoing::new(ours);
            let mut rest = &all[..];
            for (turn, size) in sizes.into_iter().enumerate() {
                let (piece, others) = rest.split_at(size);
                outgoing.write_all(piece).await.unwrap();
                if turn % 4 == 3 {
                    outgoing.flush().await.unwrap();
                }
                rest = others;
            }
            outgoing.shutdown().await.unwrap();
        });
        let mut got = Vec::new();
        theirs.read_to_end(&mut got).await.unwrap();
        writing.await.unwrap();
        assert!(got == want);
    }

    #[tokio::test]
    async fn a_small_piece_waits_for_a_flush_and_no_longer() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let mut outgoing = Outgoing::new(ours);
        outgoing.write_all(b"head").await.unwrap();
        let mut got = [0; 4];
        let arrives = tokio::time::timeout(Duration::ZERO, theirs.read_exact(&mut got));
        assert!(arrives.await.is_err(), "it is held");
        outgoing.flush().await.unwrap();
        theirs.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"head");
    }
}
