//! The form of a file that is not a snapshot, in a directory of backups: a head, then frames. Owns sizes and
//! checksums; of a frame's content it knows that it is a `BackupFrame`.
//!
//! Layout, in bytes, numbers little-endian. Head: magic 8 | format version 4 | checksum of both 4. Frame:
//! content's length 4 | content's checksum 4 | content. Behind the last frame: its length 4. Checksums are
//! CRC-32C, as in the log and between nodes.

use std::ops::ControlFlow;

use prost::Message;

use super::Error;
use super::bolt::{Bytes, Damage};
use crate::proto::internal::BackupFrame;
use crate::proto::internal::backup_frame::Content;

/// Raised by any change that an older program would misread.
const FORMAT_VERSION: u32 = 1;
const MAGIC: [u8; 8] = *b"flotbak\0";
const FILE_HEAD_BYTES: usize = 16;
const FRAME_HEAD_BYTES: usize = 8;
const TAIL_BYTES: usize = 4;
/// Bytes of a frame's content: that of one message of a watch, which has no more than one event above the
/// limit of a request.
pub const CONTENT_BYTES_MAX: usize = 80 << 20;

/// The beginning of a file.
pub fn file_head() -> Vec<u8> {
    let mut head = MAGIC.to_vec();
    head.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    head.extend_from_slice(&crc32c::crc32c(&head).to_le_bytes());
    head
}

/// A frame, which is not the last.
///
/// # Panics
/// The content is above `CONTENT_BYTES_MAX`.
pub fn frame(content: Content) -> Vec<u8> {
    let content = BackupFrame { content: Some(content) }.encode_to_vec();
    assert!(content.len() <= CONTENT_BYTES_MAX, "a frame of {} bytes", content.len());
    let length = u32::try_from(content.len()).expect("below the limit");
    let mut frame = Vec::with_capacity(FRAME_HEAD_BYTES + content.len());
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(&crc32c::crc32c(&content).to_le_bytes());
    frame.extend_from_slice(&content);
    frame
}

/// The last frame of a file and what is behind it.
///
/// # Panics
/// See `frame`.
pub fn last_frame(content: Content) -> Vec<u8> {
    let mut bytes = frame(content);
    let length = u32::try_from(bytes.len()).expect("below the limit");
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes
}

/// Visits the contents of all frames; `Break` ends it.
///
/// # Errors
/// The file cannot be read, is damaged, cut or none of these files.
pub fn visit(
    file: &impl Bytes,
    visit: &mut dyn FnMut(Content) -> ControlFlow<()>,
) -> Result<(), Error> {
    let (start, last) = bounds(file)?;
    let mut at = start;
    loop {
        let (content, next) = read(file, at)?;
        let is_last = at == last;
        if !is_last && next > last {
            return Err(damage("its frames do not end where it says"));
        }
        if visit(content).is_break() || is_last {
            return Ok(());
        }
        at = next;
    }
}

/// The contents of the first and of the last frame.
///
/// # Errors
/// See `visit`.
pub fn ends(file: &impl Bytes) -> Result<(Content, Content), Error> {
    let (start, last) = bounds(file)?;
    Ok((read(file, start)?.0, read(file, last)?.0))
}

/// Where the first and the last frame begin.
fn bounds(file: &impl Bytes) -> Result<(u64, u64), Error> {
    let mut head = [0; FILE_HEAD_BYTES];
    if file.len() < (FILE_HEAD_BYTES + FRAME_HEAD_BYTES + TAIL_BYTES) as u64 {
        return Err(damage("it is cut short"));
    }
    file.read(0, &mut head)?;
    let (said, checksum) = head.split_at(FILE_HEAD_BYTES - 4);
    if !said.starts_with(&MAGIC) || u32_of(checksum) != crc32c::crc32c(said) {
        return Err(damage("it does not begin as a part of a backup"));
    }
    let version = u32_of(&said[MAGIC.len()..]);
    if version != FORMAT_VERSION {
        return Err(damage(format!("its format {version} is not known to this program")));
    }
    let mut tail = [0; TAIL_BYTES];
    let tail_at = file.len() - TAIL_BYTES as u64;
    file.read(tail_at, &mut tail)?;
    let last = tail_at.checked_sub(u64::from(u32_of(&tail)));
    let last = last.filter(|last| *last >= FILE_HEAD_BYTES as u64);
    let last = last.ok_or_else(|| damage("it does not end as a part of a backup"))?;
    if read(file, last)?.1 != tail_at {
        return Err(damage("it does not end as a part of a backup"));
    }
    Ok((FILE_HEAD_BYTES as u64, last))
}

/// The content of the frame at a place, and where the next one begins.
fn read(file: &impl Bytes, at: u64) -> Result<(Content, u64), Error> {
    let end = file.len() - TAIL_BYTES as u64;
    let content_at = at + FRAME_HEAD_BYTES as u64;
    if content_at > end {
        return Err(damage(format!("the frame at byte {at} is cut short")));
    }
    let mut head = [0; FRAME_HEAD_BYTES];
    file.read(at, &mut head)?;
    let (length, checksum) = (u32_of(&head[..4]), u32_of(&head[4..]));
    // What is asked of the memory is there in the file.
    if length as usize > CONTENT_BYTES_MAX || content_at + u64::from(length) > end {
        return Err(damage(format!("the frame at byte {at} is cut short")));
    }
    let mut content = vec![0; length as usize];
    file.read(content_at, &mut content)?;
    if crc32c::crc32c(&content) != checksum {
        return Err(damage(format!("the checksum of the frame at byte {at} is wrong")));
    }
    let frame = BackupFrame::decode(bytes::Bytes::from(content));
    let content = frame.ok().and_then(|frame| frame.content);
    let content = content.ok_or_else(|| damage(format!("byte {at} begins no known frame")))?;
    Ok((content, content_at + u64::from(length)))
}

fn u32_of(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes[..4].try_into().expect("four bytes"))
}

fn damage(what: impl Into<String>) -> Error {
    Error::Part(Damage(what.into()))
}
