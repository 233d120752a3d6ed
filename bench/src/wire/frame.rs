//! HTTP/2 frames (RFC 9113) as bytes.

/// Bytes before each payload.
pub(super) const HEAD_BYTES: usize = 9;
/// Largest payload we send and accept, HTTP/2's default.
pub(super) const PAYLOAD_BYTES_MAX: usize = 16_384;
/// Window of a new connection or stream before anyone says otherwise.
pub(super) const WINDOW_BYTES_DEFAULT: u32 = 65_535;
/// What a client sends first.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const END_STREAM: u8 = 0x1;
pub(super) const ACK: u8 = 0x1;
pub(super) const END_HEADERS: u8 = 0x4;
pub(super) const PADDED: u8 = 0x8;
pub(super) const PRIORITY: u8 = 0x20;

pub(super) const SETTING_TABLE_BYTES: u16 = 1;
pub(super) const SETTING_PUSH: u16 = 2;
pub(super) const SETTING_STREAMS_MAX: u16 = 3;
pub(super) const SETTING_WINDOW: u16 = 4;

/// The error code with which a client gives up a stream.
pub(super) const CANCEL: u32 = 8;

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) length: usize,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

impl Head {
    /// Reads a head; `bytes` holds at least nine.
    pub(super) fn read(bytes: &[u8]) -> Self {
        let number = u32::from_be_bytes([bytes[5], bytes[6], bytes[7], bytes[8]]);
        Self {
            length: u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]) as usize,
            kind: bytes[3],
            flags: bytes[4],
            stream: number & 0x7fff_ffff,
        }
    }

    pub(super) fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Appends the head of a frame.
pub(super) fn write_head(out: &mut Vec<u8>, length: usize, kind: u8, flags: u8, stream: u32) {
    debug_assert!(length < 1 << 24);
    out.extend_from_slice(&(length as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
}

/// Appends SETTINGS.
pub(super) fn write_settings(out: &mut Vec<u8>, settings: &[(u16, u32)]) {
    write_head(out, settings.len() * 6, SETTINGS, 0, 0);
    for (id, value) in settings {
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
}

/// Appends WINDOW_UPDATE; stream 0 is the connection.
pub(super) fn write_window_update(out: &mut Vec<u8>, stream: u32, bytes: u32) {
    write_head(out, 4, WINDOW_UPDATE, 0, stream);
    out.extend_from_slice(&bytes.to_be_bytes());
}

/// Appends RST_STREAM.
pub(super) fn write_reset(out: &mut Vec<u8>, stream: u32, error: u32) {
    write_head(out, 4, RST_STREAM, 0, stream);
    out.extend_from_slice(&error.to_be_bytes());
}

/// The payload of DATA or HEADERS without padding and priority, or nothing if they do not fit.
pub(super) fn content(head: Head, payload: &[u8]) -> Option<&[u8]> {
    let mut content = payload;
    if head.has(PADDED) {
        let (padding, rest) = content.split_first()?;
        content = rest.get(..rest.len().checked_sub(usize::from(*padding))?)?;
    }
    if head.kind == HEADERS && head.has(PRIORITY) {
        content = content.get(5..)?;
    }
    Some(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_reads_as_it_was_written() {
        let mut out = Vec::new();
        write_head(&mut out, 70_000, DATA, END_STREAM, 0x7fff_fffd);
        let head = Head { length: 70_000, kind: DATA, flags: END_STREAM, stream: 0x7fff_fffd };
        assert_eq!(Head::read(&out), head);
    }

    #[test]
    fn padding_is_cut_and_too_much_of_it_refused() {
        let head = Head { length: 6, kind: DATA, flags: PADDED, stream: 1 };
        assert_eq!(content(head, &[2, b'a', b'b', b'c', 0, 0]), Some(&b"abc"[..]));
        assert_eq!(content(head, &[9, b'a']), None);
    }
}
