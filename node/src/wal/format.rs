//! The bytes of a segment file: a header in its first unit, then frames, each starting on a unit.
//! Owns sizes, magic numbers and checksums; knows nothing of what a frame's payload says.
//! All numbers are little-endian. A frame is written in one piece and only after every earlier
//! frame is durable: recovery relies on it.

use std::ops::Range;

/// Frames start at multiples of this, so that a flush never writes into a page, disk block or
/// sector that holds something already acknowledged. It is the page size of the operating system
/// and the block size of common file systems and disks.
pub(super) const UNIT_BYTES: u64 = 4096;

/// Raised by any change that an older program would misread.
pub(super) const FORMAT_VERSION: u32 = 1;

/// The largest segment a header may claim, so that no length read from disk leads to a larger
/// allocation.
pub(super) const SEGMENT_BYTES_MAX: u64 = 256 << 20;

/// Indexes of entries and the numbers of segments and frames stay below this, so that adding to one
/// never overflows, whatever a checksum vouches for.
pub(super) const NUMBER_MAX: u64 = 1 << 62;

/// Room for the header, one frame with its checkpoint, and the seal.
pub(super) const SEGMENT_BYTES_MIN: u64 = 16 * UNIT_BYTES;

pub(super) const SEGMENT_HEADER_BYTES: usize = 48;
pub(super) const FRAME_HEADER_BYTES: usize = 64;

const SEGMENT_MAGIC: [u8; 8] = *b"flotlog\0";
const FRAME_MAGIC: u32 = 0xf107_f2a3;

const IS_RECYCLED: u32 = 1;

/// The first bytes of a segment file. Layout, in bytes:
/// magic 8 | format version 4 | checksum of all other header bytes 4 | log id 8 | sequence 8 |
/// segment bytes 8 | flags 4 | zero 4. These stay the same in every format version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    /// Chosen at random when the log is created; the same in all its segments and frames. It keeps
    /// files of another log from being taken for this one's, and stored values from imitating a
    /// frame.
    pub(super) log_id: u64,
    /// 1 for the first segment, and one more for each next.
    pub(super) sequence: u64,
    /// Length of the whole file.
    pub(super) bytes: u64,
    /// The file served as an earlier segment, whose frames may follow this segment's own.
    pub(super) is_recycled: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SegmentHeaderProblem {
    /// Not a segment, or damaged.
    Damaged(&'static str),
    NewerFormat(u32),
}

impl SegmentHeader {
    /// A whole unit.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut unit = vec![0; UNIT_BYTES as usize];
        unit[0..8].copy_from_slice(&SEGMENT_MAGIC);
        unit[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        unit[16..24].copy_from_slice(&self.log_id.to_le_bytes());
        unit[24..32].copy_from_slice(&self.sequence.to_le_bytes());
        unit[32..40].copy_from_slice(&self.bytes.to_le_bytes());
        let flags = if self.is_recycled { IS_RECYCLED } else { 0 };
        unit[40..44].copy_from_slice(&flags.to_le_bytes());
        let checksum = checksum_without(&unit[..SEGMENT_HEADER_BYTES], 12..16);
        unit[12..16].copy_from_slice(&checksum.to_le_bytes());
        unit
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<SegmentHeader, SegmentHeaderProblem> {
        use SegmentHeaderProblem::{Damaged, NewerFormat};
        let Some(bytes) = bytes.get(..SEGMENT_HEADER_BYTES) else {
            return Err(Damaged("the file ends inside its header"));
        };
        if bytes[0..8] != SEGMENT_MAGIC {
            return Err(Damaged("the file does not start as a log segment"));
        }
        if u32_at(bytes, 12) != checksum_without(bytes, 12..16) {
            return Err(Damaged("the header's checksum is wrong"));
        }
        let version = u32_at(bytes, 8);
        if version > FORMAT_VERSION {
            return Err(NewerFormat(version));
        }
        let header = SegmentHeader {
            log_id: u64_at(bytes, 16),
            sequence: u64_at(bytes, 24),
            bytes: u64_at(bytes, 32),
            is_recycled: u32_at(bytes, 40) & IS_RECYCLED != 0,
        };
        let is_size_sound = (SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&header.bytes)
            && header.bytes.is_multiple_of(UNIT_BYTES);
        if version == 0 || !is_size_sound || header.sequence >= NUMBER_MAX {
            return Err(Damaged(
                "the header claims a length, number or version that never existed",
            ));
        }
        Ok(header)
    }
}

/// Why a frame was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FrameKind {
    /// Appends wait for it.
    Data,
    /// Nobody waits for it. It proves that the frames before it were durable.
    Confirm,
    /// The segment ends here and the next one exists.
    Seal,
    /// The log was closed in order.
    Close,
}

/// The first bytes of a frame. Layout, in bytes:
/// magic 4 | checksum of all other header bytes 4 | log id 8 | segment sequence 8 | offset 8 |
/// number 8 | payload bytes 4 | payload checksum 4 | kind 4 | zero 12. Then the payload, then
/// zeros up to the next unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHeader {
    pub(super) log_id: u64,
    /// With `offset`, keeps a frame of the file's earlier life from being taken for a new one.
    pub(super) segment: u64,
    /// Where in the file the frame starts.
    pub(super) offset: u64,
    /// One more than the number of the frame before it, across segments.
    pub(super) number: u64,
    pub(super) payload_bytes: u32,
    pub(super) payload_checksum: u32,
    pub(super) kind: FrameKind,
}

impl FrameHeader {
    /// Writes into the first [`FRAME_HEADER_BYTES`] of `bytes`.
    pub(super) fn encode(&self, bytes: &mut [u8]) {
        let bytes = &mut bytes[..FRAME_HEADER_BYTES];
        bytes.fill(0);
        bytes[0..4].copy_from_slice(&FRAME_MAGIC.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.log_id.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.segment.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.offset.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.number.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.payload_bytes.to_le_bytes());
        bytes[44..48].copy_from_slice(&self.payload_checksum.to_le_bytes());
        let kind: u32 = match self.kind {
            FrameKind::Data => 1,
            FrameKind::Confirm => 2,
            FrameKind::Seal => 3,
            FrameKind::Close => 4,
        };
        bytes[48..52].copy_from_slice(&kind.to_le_bytes());
        let checksum = checksum_without(bytes, 4..8);
        bytes[4..8].copy_from_slice(&checksum.to_le_bytes());
    }

    /// `None` unless the bytes are a whole header with a right checksum.
    pub(super) fn decode(bytes: &[u8]) -> Option<FrameHeader> {
        let bytes = bytes.get(..FRAME_HEADER_BYTES)?;
        if !starts_like_frame(bytes) || u32_at(bytes, 4) != checksum_without(bytes, 4..8) {
            return None;
        }
        let kind = match u32_at(bytes, 48) {
            1 => FrameKind::Data,
            2 => FrameKind::Confirm,
            3 => FrameKind::Seal,
            4 => FrameKind::Close,
            _ => return None,
        };
        let header = FrameHeader {
            log_id: u64_at(bytes, 8),
            segment: u64_at(bytes, 16),
            offset: u64_at(bytes, 24),
            number: u64_at(bytes, 32),
            payload_bytes: u32_at(bytes, 40),
            payload_checksum: u32_at(bytes, 44),
            kind,
        };
        (header.number < NUMBER_MAX).then_some(header)
    }

    /// Whether this frame was written at this place of this log, and not in an earlier life of the
    /// file.
    pub(super) fn is_at(&self, log_id: u64, segment: u64, offset: u64) -> bool {
        self.log_id == log_id && self.segment == segment && self.offset == offset
    }

    /// Header, payload and padding.
    pub(super) fn frame_bytes(&self) -> u64 {
        frame_bytes(u64::from(self.payload_bytes))
    }
}

/// What a frame with that payload takes in its segment.
pub(super) fn frame_bytes(payload_bytes: u64) -> u64 {
    (FRAME_HEADER_BYTES as u64 + payload_bytes).next_multiple_of(UNIT_BYTES)
}

pub(super) fn starts_like_frame(bytes: &[u8]) -> bool {
    bytes.starts_with(&FRAME_MAGIC.to_le_bytes())
}

fn checksum_without(bytes: &[u8], hole: Range<usize>) -> u32 {
    let checksum = crc32c::crc32c(&bytes[..hole.start]);
    crc32c::crc32c_append(checksum, &bytes[hole.end..])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("a slice of four"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("a slice of eight"))
}
