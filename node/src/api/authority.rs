//! Clients built on grpc-go of etcd 3.4 and older name the node by a whole URL, or by a socket's
//! path, where HTTP/2 wants host and port, and the HTTP library refuses their calls. What stands
//! between it and the socket looks at the first call of a connection and, if its authority is none,
//! puts a harmless one of the same length in its place, so that both ends' header tables agree.
//! Sources: RFC 9113, sections 4.1 and 6.2; RFC 7541, sections 5 and 6, appendix B.

use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, BytesMut};
use http::uri::Authority;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes before a frame's payload.
const FRAME_HEAD_BYTES: usize = 9;
/// The largest payload that a client may send unless it was told otherwise, which it was not.
const FRAME_BYTES_MAX: usize = 16_384;
const HEADERS: u8 = 1;
const FLAG_END_HEADERS: u8 = 0x04;
const FLAG_PADDED: u8 = 0x08;
const FLAG_PRIORITY: u8 = 0x20;
/// Bytes of the stream's priority in front of a header block.
const PRIORITY_BYTES: usize = 5;
/// `:authority` in the table of headers that every connection begins with.
const AUTHORITY: usize = 1;
/// Bytes read at once while there is anything to look for.
const READ_BYTES: usize = 4_096;

/// A connection on which an authority need not be one.
pub(super) struct Mended<S> {
    io: S,
    /// `None` once there is nothing more to look for.
    look: Option<Box<Look>>,
}

/// What was read and not handed on.
struct Look {
    is_past_preface: bool,
    /// An authority was mended: more may follow.
    is_mending: bool,
    /// Bytes of the present frame that are handed on as they are.
    passing_bytes: usize,
    read: BytesMut,
    checked: BytesMut,
}

impl<S> Mended<S> {
    pub(super) fn new(io: S) -> Self {
        let look = Look {
            is_past_preface: false,
            is_mending: false,
            passing_bytes: 0,
            read: BytesMut::new(),
            checked: BytesMut::new(),
        };
        Self { io, look: Some(Box::new(look)) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Mended<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { io, look } = &mut *self;
        while let Some(looking) = look {
            if looking.checked.has_remaining() {
                let bytes = looking.checked.len().min(buffer.remaining());
                buffer.put_slice(&looking.checked.split_to(bytes));
                return Poll::Ready(Ok(()));
            }
            if looking.is_over() {
                *look = None;
                break;
            }
            let mut chunk = [0; READ_BYTES];
            let mut chunk = ReadBuf::new(&mut chunk);
            ready!(Pin::new(&mut *io).poll_read(cx, &mut chunk))?;
            if chunk.filled().is_empty() {
                looking.give_up();
                continue;
            }
            looking.read.put_slice(chunk.filled());
            looking.advance();
        }
        Pin::new(io).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Mended<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

impl Look {
    /// `passing_bytes` of a connection that is not looked at any more.
    const ALL: usize = usize::MAX;

    fn is_over(&self) -> bool {
        self.passing_bytes == Self::ALL && self.read.is_empty()
    }

    /// Whatever it is, the HTTP library is to judge it.
    fn give_up(&mut self) {
        self.passing_bytes = Self::ALL;
        self.checked.put(&mut self.read);
    }

    /// Hands on what can be.
    fn advance(&mut self) {
        if !self.is_past_preface {
            let bytes = self.read.len().min(PREFACE.len());
            if self.read[..bytes] != PREFACE[..bytes] {
                return self.give_up();
            }
            if bytes < PREFACE.len() {
                return;
            }
            self.is_past_preface = true;
            self.pass(PREFACE.len());
        }
        loop {
            let bytes = self.passing_bytes.min(self.read.len());
            self.pass(bytes);
            if self.passing_bytes != Self::ALL {
                self.passing_bytes -= bytes;
            }
            let Some(head) = self.read.first_chunk::<FRAME_HEAD_BYTES>() else { return };
            let [high, middle, low, kind, flags, ..] = *head;
            let frame_bytes =
                FRAME_HEAD_BYTES + u32::from_be_bytes([0, high, middle, low]) as usize;
            if kind != HEADERS {
                self.passing_bytes = frame_bytes;
                continue;
            }
            if flags & FLAG_END_HEADERS == 0 || frame_bytes > FRAME_HEAD_BYTES + FRAME_BYTES_MAX {
                return self.give_up();
            }
            if self.read.len() < frame_bytes {
                return;
            }
            let frame = self.read.split_to(frame_bytes);
            match mend(&frame, flags) {
                Some(mended) => {
                    self.is_mending = true;
                    self.checked.put_slice(&mended);
                }
                None => {
                    self.checked.put_slice(&frame);
                    if !self.is_mending {
                        return self.give_up();
                    }
                }
            }
        }
    }

    fn pass(&mut self, bytes: usize) {
        self.checked.put(self.read.split_to(bytes));
    }
}

/// The frame with an authority in the place of what is none, or `None` if all is well, or nothing
/// can be made of it.
fn mend(frame: &[u8], flags: u8) -> Option<Vec<u8>> {
    let mut block = FRAME_HEAD_BYTES..frame.len();
    if flags & FLAG_PADDED != 0 {
        let padding_bytes = usize::from(*frame.get(block.start)?);
        block = block.start + 1..block.end.checked_sub(padding_bytes)?;
    }
    if flags & FLAG_PRIORITY != 0 {
        block.start += PRIORITY_BYTES;
    }
    let mut fields = Fields { block: frame.get(block.clone())?, at: 0 };
    let mut authority = None;
    while let Some(field) = fields.next()? {
        if field.name == AUTHORITY {
            authority = Some(field.value);
        }
    }
    let value = authority?;
    let text = text(&fields.block[value.clone()])?;
    if text.is_empty() || Authority::try_from(&text[..]).is_ok() {
        return None;
    }
    let harmless = text.iter().map(|byte| match byte {
        b'.' => b'.',
        byte if byte.is_ascii_alphanumeric() => *byte,
        _ => b'-',
    });
    let mut mended = Vec::with_capacity(frame.len() + text.len());
    mended.extend_from_slice(&frame[..block.start + value.start]);
    put_number(&mut mended, text.len());
    mended.extend(harmless);
    mended.extend_from_slice(&frame[block.start + value.end..]);
    let payload_bytes = mended.len() - FRAME_HEAD_BYTES;
    if payload_bytes > FRAME_BYTES_MAX {
        return None;
    }
    let length = u32::try_from(payload_bytes).ok()?.to_be_bytes();
    mended[..3].copy_from_slice(&length[1..]);
    Some(mended)
}

/// The fields of a header block that are written out. The others need the connection's table.
struct Fields<'a> {
    block: &'a [u8],
    at: usize,
}

struct Field {
    /// Its number in the table, 0 if the name is written out as well.
    name: usize,
    /// Its value, with the length in front.
    value: Range<usize>,
}

impl Fields<'_> {
    /// `None` when the block cannot be understood, `Some(None)` at its end.
    fn next(&mut self) -> Option<Option<Field>> {
        while let Some(&first) = self.block.get(self.at) {
            let name = match first {
                // The table's size changes, or the whole field is in the table.
                0x20..0x40 => {
                    self.number(5)?;
                    continue;
                }
                0x80.. => {
                    self.number(7)?;
                    continue;
                }
                0x40..0x80 => self.number(6)?,
                0x00..0x20 => self.number(4)?,
            };
            if name == 0 {
                self.text()?;
            }
            return Some(Some(Field { name, value: self.text()? }));
        }
        Some(None)
    }

    /// A number that begins in the last `bits` of a byte.
    fn number(&mut self, bits: u32) -> Option<usize> {
        let (number, bytes) = number(&self.block[self.at..], bits)?;
        self.at += bytes;
        Some(number)
    }

    fn text(&mut self) -> Option<Range<usize>> {
        let start = self.at;
        let bytes = self.number(7)?;
        self.at = self.at.checked_add(bytes)?;
        (self.at <= self.block.len()).then_some(start..self.at)
    }
}

/// The number and how many bytes it takes.
fn number(bytes: &[u8], bits: u32) -> Option<(usize, usize)> {
    /// Lengths here are below 2^14; what takes more bytes is none.
    const MORE_BYTES_MAX: usize = 4;
    let mask = (1_usize << bits) - 1;
    let mut number = usize::from(*bytes.first()?) & mask;
    if number < mask {
        return Some((number, 1));
    }
    for n in 0..MORE_BYTES_MAX {
        let byte = usize::from(*bytes.get(1 + n)?);
        number += (byte & 0x7f) << (7 * n);
        if byte & 0x80 == 0 {
            return Some((number, 2 + n));
        }
    }
    None
}

/// Writes the length of a text that is not compressed.
fn put_number(bytes: &mut Vec<u8>, number: usize) {
    const FULL: usize = 0x7f;
    if number < FULL {
        bytes.push(number as u8);
        return;
    }
    bytes.push(FULL as u8);
    let mut rest = number - FULL;
    while rest >= 0x80 {
        bytes.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
}

/// Undoes the compression of a text with its length in front.
fn text(bytes: &[u8]) -> Option<Vec<u8>> {
    let is_compressed = bytes.first()? & 0x80 != 0;
    let (_, length_bytes) = number(bytes, 7)?;
    let coded = &bytes[length_bytes..];
    if is_compressed { decompressed(coded) } else { Some(coded.to_vec()) }
}

/// The characters whose codes have 5, 6, … 15 bits. Codes of one length are consecutive numbers,
/// and the first of a length follows the last of the one before it. Longer codes do not occur in
/// what names a host.
const CODES: [&[u8]; 11] = [
    b"012aceiost",
    b" %-./3456789=A_bdfghlmnpru",
    b":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz",
    b"&*,;XZ",
    b"",
    b"!\"()?",
    b"'+|",
    b"#>",
    b"\0$@[]~",
    b"^}",
    b"<`{",
];
/// Bits of the shortest code.
const CODE_BITS_MIN: usize = 5;

fn decompressed(coded: &[u8]) -> Option<Vec<u8>> {
    let bits = coded.iter().flat_map(|byte| (0..8).rev().map(move |n| byte >> n & 1));
    let mut text = Vec::with_capacity(coded.len() * 8 / CODE_BITS_MIN);
    let (mut code, mut code_bits, mut first) = (0_usize, 0_usize, 0_usize);
    for bit in bits {
        code = code << 1 | usize::from(bit);
        code_bits += 1;
        first <<= 1;
        if code_bits < CODE_BITS_MIN {
            continue;
        }
        let characters = CODES.get(code_bits - CODE_BITS_MIN)?;
        if let Some(character) = characters.get(code - first) {
            text.push(*character);
            (code, code_bits, first) = (0, 0, 0);
        } else {
            first += characters.len();
        }
    }
    // What is left fills the last byte: the beginning of a code of ones.
    let is_filling = code_bits < 8 && code + 1 == 1 << code_bits;
    is_filling.then_some(text)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    /// Compressed, as a client writes it.
    fn compressed(text: &str) -> Vec<u8> {
        let mut bits = String::new();
        for byte in text.bytes() {
            let mut code = 0;
            for (n, characters) in CODES.iter().enumerate() {
                let length = n + CODE_BITS_MIN;
                if let Some(at) = characters.iter().position(|character| *character == byte) {
                    bits.push_str(&format!("{:0length$b}", code + at));
                }
                code = (code + characters.len()) << 1;
            }
        }
        while !bits.len().is_multiple_of(8) {
            bits.push('1');
        }
        let bytes = bits.as_bytes().chunks(8).map(|byte| std::str::from_utf8(byte).unwrap());
        bytes.map(|byte| u8::from_str_radix(byte, 2).unwrap()).collect()
    }

    fn with_length(coded: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x80 | u8::try_from(coded.len()).unwrap()];
        bytes.extend_from_slice(coded);
        bytes
    }

    /// POST, http, a path that is written out, the authority, and one more field.
    fn block(authority: &str) -> Vec<u8> {
        let mut block = vec![0x83, 0x86, 0x44, 0x02, b'/', b'x', 0x41];
        block.extend(with_length(&compressed(authority)));
        block.extend_from_slice(b"\x40\x01a\x01b");
        block
    }

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = length[1..].to_vec();
        frame.extend_from_slice(&[kind, flags, 0, 0, 0, 1]);
        frame.extend_from_slice(payload);
        frame
    }

    fn read_all(sent: &[u8], step: usize) -> Vec<u8> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut builder = tokio_stream::iter(
                sent.chunks(step)
                    .map(|part| Ok::<_, io::Error>(bytes::Bytes::copy_from_slice(part))),
            );
            let mut io = Mended::new(ReadParts { parts: &mut builder, left: BytesMut::new() });
            let mut received = Vec::new();
            io.read_to_end(&mut received).await.unwrap();
            received
        })
    }

    /// Gives one part at a time.
    struct ReadParts<'a, S> {
        parts: &'a mut S,
        left: BytesMut,
    }

    impl<S> AsyncRead for ReadParts<'_, S>
    where
        S: futures::Stream<Item = io::Result<bytes::Bytes>> + Unpin,
    {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            if self.left.is_empty()
                && let Some(part) = ready!(Pin::new(&mut *self.parts).poll_next(cx))
            {
                self.left.put(part?);
            }
            let bytes = self.left.len().min(buffer.remaining());
            buffer.put_slice(&self.left.split_to(bytes));
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn texts_are_decompressed_as_in_the_examples_of_the_rfc() {
        let examples: [(&[u8], &str); 4] = [
            (
                &[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff],
                "www.example.com",
            ),
            (&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf], "no-cache"),
            (&[0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xa9, 0x7d, 0x7f], "custom-key"),
            (&[0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xb8, 0xe8, 0xb4, 0xbf], "custom-value"),
        ];
        for (coded, wanted) in examples {
            assert_eq!(decompressed(coded).unwrap(), wanted.as_bytes());
            assert_eq!(compressed(wanted), coded);
        }
        assert_eq!(decompressed(&[0xff, 0xff, 0xff, 0xff]), None, "the end mark is no text");
    }

    #[test]
    fn numbers_are_read_and_written_as_in_the_examples_of_the_rfc() {
        assert_eq!(number(&[0b1110_1010], 5), Some((10, 1)));
        assert_eq!(number(&[0b0001_1111, 0b1001_1010, 0b0000_1010], 5), Some((1337, 3)));
        assert_eq!(number(&[42], 8), Some((42, 1)));
        assert_eq!(number(&[0x7f, 0xff, 0xff, 0xff, 0xff, 0x0f], 7), None);
        assert_eq!(number(&[0x7f], 7), None);
        for length in [0, 126, 127, 128, 300, 16_000] {
            let mut bytes = Vec::new();
            put_number(&mut bytes, length);
            assert_eq!(number(&bytes, 7), Some((length, bytes.len())));
        }
    }

    #[test]
    fn a_url_is_replaced_by_a_name_of_the_same_length() {
        let sent = [
            PREFACE.to_vec(),
            frame(4, 0, &[]),
            frame(HEADERS, FLAG_END_HEADERS, &block("http://127.0.0.1:2379")),
            frame(0, 1, b"payload \x01 of data"),
            frame(HEADERS, FLAG_END_HEADERS, &[0x83, 0xbe]),
            frame(HEADERS, FLAG_END_HEADERS, &block("unix:///tmp/a b")),
        ]
        .concat();
        let plain = |text: &str| {
            let mut block = vec![0x83, 0x86, 0x44, 0x02, b'/', b'x', 0x41];
            block.push(u8::try_from(text.len()).unwrap());
            block.extend_from_slice(text.as_bytes());
            block.extend_from_slice(b"\x40\x01a\x01b");
            block
        };
        let wanted = [
            PREFACE.to_vec(),
            frame(4, 0, &[]),
            frame(HEADERS, FLAG_END_HEADERS, &plain("http---127.0.0.1-2379")),
            frame(0, 1, b"payload \x01 of data"),
            frame(HEADERS, FLAG_END_HEADERS, &[0x83, 0xbe]),
            frame(HEADERS, FLAG_END_HEADERS, &plain("unix----tmp-a-b")),
        ]
        .concat();
        for step in [1, 7, 64, 10_000] {
            assert_eq!(read_all(&sent, step), wanted, "{step} bytes at a time");
        }
        assert!(Authority::try_from("http---127.0.0.1-2379").is_ok());
    }

    #[test]
    fn padding_and_priority_stay() {
        let inner = block("http://a");
        let mut payload = vec![3, 1, 2, 3, 4, 5];
        payload.extend_from_slice(&inner);
        payload.extend_from_slice(&[0; 3]);
        let flags = FLAG_END_HEADERS | FLAG_PADDED | FLAG_PRIORITY;
        let mended = mend(&frame(HEADERS, flags, &payload), flags).unwrap();
        assert_eq!(mended[FRAME_HEAD_BYTES..][..6], payload[..6]);
        assert!(mended.ends_with(b"\x08http---a\x40\x01a\x01b\0\0\0"));
        let length = u32::from_be_bytes([0, mended[0], mended[1], mended[2]]) as usize;
        assert_eq!(length, mended.len() - FRAME_HEAD_BYTES);
    }

    #[test]
    fn everything_else_is_handed_on_as_it_is() {
        let good = frame(HEADERS, FLAG_END_HEADERS, &block("127.0.0.1:2379"));
        let later = frame(HEADERS, FLAG_END_HEADERS, &block("http://a"));
        let begun = frame(HEADERS, 0, &block("http://a"));
        let cut = frame(HEADERS, FLAG_END_HEADERS, &block("http://a")[..9]);
        let cases: [&[u8]; 7] = [
            b"GET / HTTP/1.1\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nXX",
            b"\x16\x03\x01 garbage",
            b"",
            &[PREFACE, &good, &later].concat(),
            &[PREFACE, &begun].concat(),
            &[PREFACE, &cut, &good, &[1, 2, 3]].concat(),
        ];
        for sent in cases {
            for step in [1, 5, 10_000] {
                assert_eq!(read_all(sent, step), sent, "{step} bytes at a time");
            }
        }
    }
}
