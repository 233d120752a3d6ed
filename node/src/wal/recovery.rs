//! Reads the log back: finds its end, tells a torn tail from damage, and answers with what every
//! group remembers. Owns that judgement, which rests on one rule of writing: a frame is written
//! only once all before it are durable. So only the last frame can be torn, and a bad frame with
//! a later one behind it was acknowledged. Never changes a segment's content.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};

use flotilla_proto::ids::GroupId;

use super::book::{Book, Place};
use super::error::Error;
use super::format::{
    FORMAT_VERSION, FRAME_HEADER_BYTES, FrameHeader, FrameKind, SEGMENT_HEADER_BYTES,
    SegmentHeader, SegmentHeaderProblem, UNIT_BYTES, starts_like_frame,
};
use super::operation::GroupLog;
use super::replay::Replay;
use super::segment::{Active, Directory, fail};
use super::writer::Segment;
use crate::io::File;

/// Bytes asked of the disk at once.
const READ_BYTES: u64 = 1 << 20;

/// What a restart finds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    pub groups: BTreeMap<GroupId, GroupLog>,
    /// The log ended in the middle of a write that was never acknowledged; it was cut there.
    pub torn_tail: Option<TornTail>,
    /// The log had been closed in order, or is new.
    pub is_clean: bool,
}

/// A write that a crash interrupted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    pub path: PathBuf,
    /// In the file, in bytes; the log goes on from here.
    pub offset: u64,
    /// As far as it can be told.
    pub bytes: u64,
}

/// Everything needed to go on writing.
pub(super) struct Found {
    pub(super) recovered: Recovered,
    pub(super) book: Book,
    pub(super) segments: VecDeque<Segment>,
    pub(super) active: Active,
    /// Of the next frame.
    pub(super) number: u64,
    /// A segment that was prepared when the log ended, and holds nothing.
    pub(super) prepared: Option<u64>,
}

/// Reads segments `sequences`, which are in ascending order and at least one.
pub(super) fn recover(directory: &Directory, sequences: &[u64]) -> Result<Found, Error> {
    for pair in sequences.windows(2) {
        if pair[1] != pair[0] + 1 {
            return Err(Error::Missing { path: directory.segment_path(pair[0] + 1) });
        }
    }
    let mut reader = Reader::new(directory);
    let mut segments = VecDeque::new();
    let mut end: Option<End> = None;
    let mut prepared = None;
    for &sequence in sequences {
        let segment = OpenSegment::open(directory, sequence, reader.log_id)?;
        reader.log_id = Some(segment.header.log_id);
        if let Some(end) = &end {
            // The segment before has no seal. That is sound if this one was only prepared.
            let is_last = Some(&sequence) == sequences.last();
            if !is_last || segment.has_frame_from(UNIT_BYTES)? {
                let problem = "the log breaks off here, yet goes on in the next file";
                return Err(corrupt(&end.segment.path, end.offset, problem));
            }
            prepared = Some(sequence);
            continue;
        }
        segments.push_back(Segment { sequence, bytes: segment.header.bytes });
        end = reader.read_segment(segment)?;
    }
    match end {
        Some(end) => reader.finish(end, segments, prepared),
        None => {
            let last = sequences.last().expect("at least one segment");
            Err(Error::Missing { path: directory.segment_path(last + 1) })
        }
    }
}

/// Here is no frame, and none follows in this segment.
struct End {
    segment: OpenSegment,
    offset: u64,
    /// Length of what seems to be an interrupted write.
    torn_bytes: Option<u64>,
}

pub(super) struct OpenSegment {
    file: Box<dyn File>,
    pub(super) path: PathBuf,
    pub(super) header: SegmentHeader,
}

impl OpenSegment {
    /// Opens a segment and checks its header, also against the log it should belong to.
    pub(super) fn open(
        directory: &Directory,
        sequence: u64,
        log_id: Option<u64>,
    ) -> Result<OpenSegment, Error> {
        let path = directory.segment_path(sequence);
        let file = directory.open(sequence)?;
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        let read = file.read_full_at(&mut bytes, 0).map_err(fail("read", &path))?;
        let header = match SegmentHeader::decode(&bytes[..read]) {
            Ok(header) => header,
            Err(SegmentHeaderProblem::Damaged(problem)) => return Err(corrupt(&path, 0, problem)),
            Err(SegmentHeaderProblem::NewerFormat(found)) => {
                return Err(Error::NewerFormat { path, found, known: FORMAT_VERSION });
            }
        };
        if header.sequence != sequence {
            return Err(corrupt(&path, 0, "the header belongs to a segment of another name"));
        }
        if log_id.is_some_and(|log_id| log_id != header.log_id) {
            return Err(corrupt(&path, 0, "the header belongs to another log"));
        }
        // Files are never written before they have their full length.
        let file_bytes = file.bytes().map_err(fail("measure", &path))?;
        if file_bytes < header.bytes {
            return Err(corrupt(&path, file_bytes, "the file was cut short here"));
        }
        Ok(OpenSegment { file, path, header })
    }

    /// Makes the last frame durable and answers whether it really is. Its writer may have died
    /// before the flush, or of the flush: then memory can show a frame that the disk never got
    /// and never will, because a failed flush leaves the pages looking clean.
    fn settle(&self, last: &HeldFrame) -> Result<bool, Error> {
        self.file.sync_data().map_err(fail("flush", &self.path))?;
        self.file.forget_cache().map_err(fail("reread", &self.path))?;
        let mut window = Window::new(self);
        Ok(match read_frame(&mut window, last.header.offset)? {
            FrameRead::Whole(header, payload) => header == last.header && payload == last.payload,
            FrameRead::Bad { .. } => false,
        })
    }

    /// Whether any frame of this life of the file starts at `offset` or behind it.
    fn has_frame_from(&self, offset: u64) -> Result<bool, Error> {
        Ok(self.frame_from(offset)?.is_some())
    }

    /// Where the first frame of this life of the file starts, at `offset` or behind it.
    pub(super) fn frame_from(&self, offset: u64) -> Result<Option<u64>, Error> {
        let mut window = Window::new(self);
        let mut unit = offset;
        while unit < self.header.bytes {
            let header = FrameHeader::decode(window.read(unit, FRAME_HEADER_BYTES as u64)?);
            let SegmentHeader { log_id, sequence, .. } = self.header;
            if header.is_some_and(|header| header.is_at(log_id, sequence, unit)) {
                return Ok(Some(unit));
            }
            unit += UNIT_BYTES;
        }
        Ok(None)
    }
}

/// Reads frames in the order they were written.
struct Reader<'a> {
    directory: &'a Directory,
    /// Unknown before the first segment was opened.
    log_id: Option<u64>,
    /// Of the next frame; unknown before the first one was read.
    number: Option<u64>,
    replay: Replay,
    /// The last frame. It is replayed only when another follows, or once it is known to be
    /// durable.
    held: Option<HeldFrame>,
}

struct HeldFrame {
    header: FrameHeader,
    payload: Vec<u8>,
}

impl<'a> Reader<'a> {
    fn new(directory: &'a Directory) -> Reader<'a> {
        let replay = Replay::default();
        Reader { directory, log_id: None, number: None, replay, held: None }
    }

    /// Reads the segment's frames up to its seal, or to the end of the log.
    fn read_segment(&mut self, segment: OpenSegment) -> Result<Option<End>, Error> {
        let mut window = Window::new(&segment);
        let mut offset = UNIT_BYTES;
        loop {
            let (header, payload) = match read_frame(&mut window, offset)? {
                FrameRead::Whole(header, payload) => (header, payload),
                FrameRead::Bad { torn_bytes } => {
                    if segment.has_frame_from(offset + UNIT_BYTES)? {
                        let problem = "a frame is damaged that others follow";
                        return Err(corrupt(&segment.path, offset, problem));
                    }
                    return Ok(Some(End { segment, offset, torn_bytes }));
                }
            };
            if self.number.is_some_and(|number| number != header.number) {
                let problem = "frames are missing before this one";
                return Err(corrupt(&segment.path, offset, problem));
            }
            self.number = Some(header.number + 1);
            self.hold(header, payload)?;
            if header.kind == FrameKind::Seal {
                return Ok(None);
            }
            offset += header.frame_bytes();
        }
    }

    /// Replays the frame held before and holds this one.
    fn hold(&mut self, header: FrameHeader, payload: &[u8]) -> Result<(), Error> {
        let mut next = match self.held.take() {
            Some(held) => {
                self.replay(&held)?;
                held.payload
            }
            None => Vec::new(),
        };
        next.clear();
        next.extend_from_slice(payload);
        self.held = Some(HeldFrame { header, payload: next });
        Ok(())
    }

    fn replay(&mut self, held: &HeldFrame) -> Result<(), Error> {
        let FrameHeader { segment, offset, .. } = held.header;
        let place = Place { segment, offset: offset + FRAME_HEADER_BYTES as u64 };
        let is_first = offset == UNIT_BYTES;
        self.replay.apply(&held.payload, place, is_first).map_err(|problem| Error::Corrupt {
            path: self.directory.segment_path(segment),
            offset,
            problem,
        })
    }

    /// Makes the end of the log durable, and cuts it if that turns out impossible.
    fn finish(
        mut self,
        mut end: End,
        mut segments: VecDeque<Segment>,
        mut prepared: Option<u64>,
    ) -> Result<Found, Error> {
        let mut is_clean = end.torn_bytes.is_none();
        if let Some(held) = self.held.take() {
            // A segment without frames follows a sealed one, which holds the last frame.
            let empty = if held.header.segment == end.segment.header.sequence {
                None
            } else {
                let sealed = OpenSegment::open(self.directory, held.header.segment, self.log_id)?;
                Some(std::mem::replace(&mut end.segment, sealed))
            };
            if end.segment.settle(&held)? {
                self.replay(&held)?;
                is_clean &= held.header.kind == FrameKind::Close;
                if let Some(empty) = empty {
                    end.segment = empty;
                }
            } else {
                is_clean = false;
                end.offset = held.header.offset;
                end.torn_bytes = Some(held.header.frame_bytes());
                self.number = Some(held.header.number);
                if let Some(empty) = empty {
                    segments.pop_back();
                    prepared = Some(empty.header.sequence);
                }
            }
        } else if end.segment.header.sequence != 1 {
            // Only the very first segment is ever left without an older one and without a frame.
            return Err(corrupt(&end.segment.path, end.offset, "its first frame is damaged"));
        }
        let End { segment, offset, torn_bytes } = end;
        let (groups, book) = self.replay.finish().map_err(|problem| {
            let oldest = self.directory.segment_path(segments[0].sequence);
            corrupt(&oldest, UNIT_BYTES, &problem)
        })?;
        let torn_tail =
            torn_bytes.map(|bytes| TornTail { path: segment.path.clone(), offset, bytes });
        let OpenSegment { file, header, .. } = segment;
        let written = if header.is_recycled { header.bytes } else { offset };
        Ok(Found {
            recovered: Recovered { groups, torn_tail, is_clean },
            book,
            segments,
            active: Active { file, header, offset, written },
            number: self.number.unwrap_or(1),
            prepared,
        })
    }
}

pub(super) enum FrameRead<'a> {
    Whole(FrameHeader, &'a [u8]),
    /// No frame that is whole. `torn_bytes` is there if something seems to have been written
    /// here in this life of the file; what an earlier life left behind is no such sign.
    Bad {
        torn_bytes: Option<u64>,
    },
}

pub(super) fn read_frame<'a>(
    window: &'a mut Window<'_>,
    offset: u64,
) -> Result<FrameRead<'a>, Error> {
    let SegmentHeader { log_id, sequence, bytes, is_recycled } = window.segment.header;
    let unit = window.read(offset, UNIT_BYTES)?;
    let header = FrameHeader::decode(unit);
    let Some(header) = header.filter(|header| header.is_at(log_id, sequence, offset)) else {
        let is_blank = unit.iter().all(|byte| *byte == 0);
        let is_ours = starts_like_frame(unit) && unit[16..24] == sequence.to_le_bytes();
        let is_torn = is_ours || (!is_recycled && !is_blank);
        return Ok(FrameRead::Bad { torn_bytes: is_torn.then_some(UNIT_BYTES) });
    };
    if header.frame_bytes() > bytes - offset {
        let problem = "a frame claims to be longer than the file";
        return Err(corrupt(&window.segment.path, offset, problem));
    }
    let payload =
        window.read(offset + FRAME_HEADER_BYTES as u64, u64::from(header.payload_bytes))?;
    if crc32c::crc32c(payload) != header.payload_checksum {
        return Ok(FrameRead::Bad { torn_bytes: Some(header.frame_bytes()) });
    }
    Ok(FrameRead::Whole(header, payload))
}

/// A part of a segment in memory, so that small reads become few.
pub(super) struct Window<'a> {
    segment: &'a OpenSegment,
    start: u64,
    bytes: Vec<u8>,
}

impl<'a> Window<'a> {
    pub(super) fn new(segment: &'a OpenSegment) -> Window<'a> {
        Window { segment, start: 0, bytes: Vec::new() }
    }

    /// These bytes, or those before the end of the segment.
    fn read(&mut self, offset: u64, bytes: u64) -> Result<&[u8], Error> {
        let end = (offset + bytes).min(self.segment.header.bytes);
        let is_inside = self.start <= offset && end <= self.start + self.bytes.len() as u64;
        if !is_inside {
            let wanted = bytes.max(READ_BYTES).min(self.segment.header.bytes - offset);
            self.bytes.resize(wanted as usize, 0);
            self.start = offset;
            let path = &self.segment.path;
            let read = self
                .segment
                .file
                .read_full_at(&mut self.bytes, offset)
                .map_err(fail("read", path))?;
            if (read as u64) < wanted {
                return Err(corrupt(path, offset + read as u64, "the file was cut short here"));
            }
        }
        Ok(&self.bytes[(offset - self.start) as usize..(end - self.start) as usize])
    }
}

fn corrupt(path: &Path, offset: u64, problem: &str) -> Error {
    Error::Corrupt { path: path.to_owned(), offset, problem: problem.to_owned() }
}
