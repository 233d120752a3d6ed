//! Header compression (RFC 7541) for the few headers of gRPC.
//!
//! Requests use indexed fields as usual clients do, so that the server's cost of reading headers
//! is the usual one. Of answers only the statuses and the message are kept.

use std::collections::VecDeque;

use super::huffman;
use super::method::Method;

/// Bytes of the dynamic table each side may use, HTTP/2's default.
pub(super) const TABLE_BYTES_MAX: usize = 4096;
/// Entries of the static table.
const STATIC_COUNT: usize = 61;
/// What an entry costs beside its text.
const ENTRY_OVERHEAD: usize = 32;

/// Writes request headers; each method's first request fills the table.
pub(super) struct Encoder {
    authority: String,
    token: Option<String>,
    inserted: usize,
    common: Option<usize>,
    paths: [Option<usize>; Method::COUNT],
    is_indexing: bool,
}

impl Encoder {
    /// `table_bytes` is what the peer allows.
    pub(super) fn new(authority: String, token: Option<String>, table_bytes: usize) -> Self {
        // All paths and common headers fit in the default; a smaller table is left unused.
        let is_indexing = table_bytes >= TABLE_BYTES_MAX;
        Self {
            authority,
            token,
            inserted: 0,
            common: None,
            paths: [None; Method::COUNT],
            is_indexing,
        }
    }

    /// Appends the header block of a call of `method`.
    pub(super) fn encode(&mut self, method: Method, out: &mut Vec<u8>) {
        // ":method: POST" and ":scheme: http" of the static table.
        out.extend_from_slice(&[0x83, 0x86]);
        if let (Some(common), Some(path)) = (self.common, self.paths[method as usize]) {
            out.push(self.indexed(path));
            let count = 4 + usize::from(self.token.is_some());
            for n in 0..count {
                out.push(self.indexed(common + n));
            }
            return;
        }
        let path = self.literal(4, "", method.path(), out);
        self.paths[method as usize] = path;
        if let Some(common) = self.common {
            for n in 0..4 + usize::from(self.token.is_some()) {
                out.push(self.indexed(common + n));
            }
            return;
        }
        let authority = self.authority.clone();
        self.common = self.literal(1, "", &authority, out);
        self.literal(31, "", "application/grpc", out);
        self.literal(0, "te", "trailers", out);
        self.literal(58, "", "flotilla-bench", out);
        if let Some(token) = self.token.clone() {
            self.literal(0, "token", &token, out);
        }
    }

    fn indexed(&self, ordinal: usize) -> u8 {
        let index = STATIC_COUNT + self.inserted - ordinal;
        0x80 | u8::try_from(index).expect("few entries: each method and the common headers")
    }

    /// A literal field, put in the table if that is used; its ordinal there.
    fn literal(
        &mut self,
        index: usize,
        name: &str,
        value: &str,
        out: &mut Vec<u8>,
    ) -> Option<usize> {
        if self.is_indexing {
            write_integer(out, 0x40, 6, index);
        } else {
            write_integer(out, 0x00, 4, index);
        }
        if index == 0 {
            write_integer(out, 0, 7, name.len());
            out.extend_from_slice(name.as_bytes());
        }
        write_integer(out, 0, 7, value.len());
        out.extend_from_slice(value.as_bytes());
        if !self.is_indexing {
            return None;
        }
        self.inserted += 1;
        Some(self.inserted - 1)
    }
}

fn write_integer(out: &mut Vec<u8>, first: u8, prefix_bits: u32, value: usize) {
    let max = (1usize << prefix_bits) - 1;
    if value < max {
        out.push(first | value as u8);
        return;
    }
    out.push(first | max as u8);
    let mut rest = value - max;
    while rest >= 128 {
        out.push((rest % 128) as u8 | 0x80);
        rest /= 128;
    }
    out.push(rest as u8);
}

/// What an answer's headers or trailers said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fields {
    pub(super) http_status: Option<u16>,
    pub(super) grpc_status: Option<u8>,
    pub(super) message: Option<String>,
}

#[derive(Clone)]
enum Field {
    HttpStatus(u16),
    GrpcStatus(u8),
    Message(String),
    Other,
}

struct Entry {
    name: Vec<u8>,
    field: Field,
    bytes: usize,
}

/// Reads the headers of answers.
pub(super) struct Decoder {
    table: VecDeque<Entry>,
    bytes: usize,
    bytes_max: usize,
    huffman: huffman::Decoder,
}

impl Decoder {
    pub(super) fn new() -> Self {
        Self {
            table: VecDeque::new(),
            bytes: 0,
            bytes_max: TABLE_BYTES_MAX,
            huffman: huffman::Decoder::new(),
        }
    }

    /// The fields of a header block, or nothing if the block is malformed.
    pub(super) fn decode(&mut self, mut block: &[u8]) -> Option<Fields> {
        let mut fields = Fields::default();
        while let Some(first) = block.first().copied() {
            if first & 0x80 != 0 {
                let index = read_integer(&mut block, 7)?;
                self.indexed(index, &mut fields)?;
            } else if first & 0xe0 == 0x20 {
                let size = read_integer(&mut block, 5)?;
                self.bytes_max = size.min(TABLE_BYTES_MAX);
                self.evict();
            } else {
                let is_kept = first & 0xc0 == 0x40;
                let index = read_integer(&mut block, if is_kept { 6 } else { 4 })?;
                let name = match index {
                    0 => self.string(&mut block)?,
                    n => self.name(n)?,
                };
                let value = self.string(&mut block)?;
                let field = classify(&name, &value);
                keep(&field, &mut fields);
                if is_kept {
                    let bytes = name.len() + value.len() + ENTRY_OVERHEAD;
                    self.bytes += bytes;
                    self.table.push_front(Entry { name, field, bytes });
                    self.evict();
                }
            }
        }
        Some(fields)
    }

    fn indexed(&self, index: usize, fields: &mut Fields) -> Option<()> {
        match index {
            0 => None,
            8..=14 => {
                const STATUSES: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
                fields.http_status = Some(STATUSES[index - 8]);
                Some(())
            }
            1..=STATIC_COUNT => Some(()),
            _ => {
                keep(&self.table.get(index - STATIC_COUNT - 1)?.field, fields);
                Some(())
            }
        }
    }

    fn name(&self, index: usize) -> Option<Vec<u8>> {
        match index {
            8..=14 => Some(b":status".to_vec()),
            // No other name of the static table matters here.
            1..=STATIC_COUNT => Some(Vec::new()),
            _ => Some(self.table.get(index - STATIC_COUNT - 1)?.name.clone()),
        }
    }

    fn string(&self, block: &mut &[u8]) -> Option<Vec<u8>> {
        let is_huffman = block.first()? & 0x80 != 0;
        let length = read_integer(block, 7)?;
        let (text, rest) = block.split_at_checked(length)?;
        *block = rest;
        if is_huffman { self.huffman.decode(text) } else { Some(text.to_vec()) }
    }

    fn evict(&mut self) {
        while self.bytes > self.bytes_max {
            match self.table.pop_back() {
                Some(entry) => self.bytes -= entry.bytes,
                None => self.bytes = 0,
            }
        }
    }
}

fn classify(name: &[u8], value: &[u8]) -> Field {
    let number = || std::str::from_utf8(value).ok()?.parse::<u16>().ok();
    match name {
        b":status" => Field::HttpStatus(number().unwrap_or(0)),
        b"grpc-status" => {
            Field::GrpcStatus(number().and_then(|code| u8::try_from(code).ok()).unwrap_or(2))
        }
        b"grpc-message" => Field::Message(percent_decode(value)),
        _ => Field::Other,
    }
}

/// gRPC writes what is not plain ASCII, and some writers more, as `%XX`.
fn percent_decode(text: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match escaped {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn keep(field: &Field, fields: &mut Fields) {
    match field {
        Field::HttpStatus(status) => fields.http_status = Some(*status),
        Field::GrpcStatus(status) => fields.grpc_status = Some(*status),
        Field::Message(message) => fields.message = Some(message.clone()),
        Field::Other => {}
    }
}

fn read_integer(block: &mut &[u8], prefix_bits: u32) -> Option<usize> {
    let max = (1usize << prefix_bits) - 1;
    let (first, mut rest) = block.split_first()?;
    let mut value = usize::from(*first) & max;
    if value == max {
        // Four more bytes are far beyond any header here.
        for shift in [0, 7, 14, 21] {
            let (byte, after) = rest.split_first()?;
            rest = after;
            value += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                *block = rest;
                return Some(value);
            }
        }
        return None;
    }
    *block = rest;
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_short_the_second_time() {
        let mut encoder = Encoder::new("localhost:1".into(), None, TABLE_BYTES_MAX);
        let (mut first, mut second, mut other) = (Vec::new(), Vec::new(), Vec::new());
        encoder.encode(Method::Put, &mut first);
        encoder.encode(Method::Put, &mut second);
        encoder.encode(Method::Range, &mut other);
        assert!(first.len() > 60);
        // Newest first: the user agent is index 62, the path, inserted first, 66.
        assert_eq!(second, [0x83, 0x86, 0x80 | 66, 0x80 | 65, 0x80 | 64, 0x80 | 63, 0x80 | 62]);
        // Another path was inserted, and the older entries moved up by one.
        assert_eq!(other[other.len() - 4..], [0x80 | 66, 0x80 | 65, 0x80 | 64, 0x80 | 63]);
    }

    #[test]
    fn messages_are_unescaped() {
        assert_eq!(percent_decode(b"no%20key 100%"), "no key 100%");
        assert_eq!(percent_decode(b"%zz%e2%82%ac"), "%zz€");
    }

    #[test]
    fn trailers_are_read_literally_and_by_index() {
        let mut decoder = Decoder::new();
        let mut block = vec![0x88, 0x40, 11];
        block.extend_from_slice(b"grpc-status\x0214");
        let fields = decoder.decode(&block).unwrap();
        assert_eq!((fields.http_status, fields.grpc_status), (Some(200), Some(14)));
        assert_eq!(decoder.decode(&[0x80 | 62]).unwrap().grpc_status, Some(14));
        // A table of no bytes forgets it.
        assert!(decoder.decode(&[0x20, 0x80 | 62]).is_none());
    }
}
