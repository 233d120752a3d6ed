//! Writes frames: encodes a batch, writes it once, flushes it once, and frees segments that no
//! group needs. Owns the active segment and the book. Runs on one thread and starts none; every
//! error is final, and after one it must not be used again.

use std::collections::VecDeque;
use std::io;
use std::time::Instant;

use super::book::{Book, Place};
use super::copy::{Copier, Copy};
use super::error::Error;
use super::format::{
    FRAME_HEADER_BYTES, FrameHeader, FrameKind, SegmentHeader, UNIT_BYTES, frame_bytes,
};
use super::operation::{Append, Flush};
use super::options::Options;
use super::record;
use super::segment::{Active, Directory};
use crate::failpoint::Failpoint;

/// The first life of a segment's file is different: its blocks are reserved but never written, and
/// the file system notes each first write in its own journal, which doubles the time of a flush. So
/// small writes are preceded, once in a while, by zeros of this length.
const ZEROS_BYTES: u64 = 1 << 20;

/// A write of this length or more would be slowed by zeros written before it.
const ZEROS_WRITE_BYTES_MAX: u64 = 64 << 10;

/// Memory kept for encoding between batches, in bytes; a larger batch borrows more for its time.
const BUFFER_BYTES_KEPT: usize = 8 << 20;

pub(super) struct Writer {
    pub(super) directory: Directory,
    pub(super) options: Options,
    pub(super) book: Book,
    pub(super) active: Active,
    /// All segments of the log from the oldest to the active one.
    pub(super) segments: VecDeque<Segment>,
    /// Freed segments, by their old sequence.
    pub(super) spares: Vec<u64>,
    /// Of the next frame.
    pub(super) number: u64,
    pub(super) copier: Option<Copier>,
    /// Entries copied forward so far, as recorded.
    pub(super) copied_bytes: u64,
    pub(super) buffer: Vec<u8>,
    /// Held until the log is no longer used.
    pub(super) _lock: Box<dyn Send>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) sequence: u64,
    pub(super) bytes: u64,
}

impl Writer {
    /// Writes all of `batch` as one frame and makes it durable. `batch_bytes` is the sum of
    /// [`record::append_bytes`].
    pub(super) fn write(
        &mut self,
        kind: FrameKind,
        batch: &[Append],
        batch_bytes: u64,
    ) -> Result<Flush, Error> {
        // Only appends make the log longer, so only they need to make it shorter.
        let copies = if kind == FrameKind::Data { self.copies()? } else { Vec::new() };
        let copies_bytes: u64 =
            copies.iter().map(|copy| record::entries_bytes(&copy.entries)).sum();
        self.copied_bytes += copies_bytes;
        self.make_room(batch_bytes + copies_bytes)?;
        self.encode(kind, &copies, batch)?;
        self.write_buffer()
    }

    /// Frees the oldest segment if no group needs it; answers whether it did. One at a time,
    /// because each takes a flush of the directory. What the book knows must be durable, as it is
    /// after [`Writer::write`].
    pub(super) fn free_oldest(&mut self) -> Result<bool, Error> {
        let oldest = self.segments[0];
        let is_active = oldest.sequence == self.active.header.sequence;
        if is_active || self.book.is_pinned(oldest.sequence) {
            return Ok(false);
        }
        self.copier = None;
        let is_spare_wanted = self.spares.len() < self.options.recycled_segments_max
            && oldest.bytes == self.options.segment_bytes;
        if is_spare_wanted {
            self.directory.retire(oldest.sequence)?;
            self.spares.push(oldest.sequence);
        } else {
            self.directory.delete(oldest.sequence)?;
        }
        self.segments.pop_front();
        Failpoint::WalSegmentFreed.reached();
        Ok(true)
    }

    /// Length of all segments of the log, in bytes, spares not counted.
    pub(super) fn retained_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// A few living entries of the oldest segment, when the log is too long and mostly dead. At
    /// least half of it being dead bounds the work: a whole round of copying frees as many bytes
    /// as it writes.
    fn copies(&mut self) -> Result<Vec<Copy>, Error> {
        let retained = self.retained_bytes();
        let is_worth_it = retained > self.options.retained_bytes_max
            && self.book.live_bytes() <= retained / 2
            && self.segments.len() > 1;
        if !is_worth_it {
            return Ok(Vec::new());
        }
        let oldest = self.segments[0].sequence;
        if self.copier.as_ref().is_none_or(|copier| copier.segment() != oldest) {
            let (file, path) = (self.directory.open(oldest)?, self.directory.segment_path(oldest));
            self.copier = Some(Copier::new(file, path, oldest, self.active.header.log_id));
        }
        let bytes_max = self.options.copy_bytes_max();
        let copier = self.copier.as_mut().expect("set above");
        let copies = copier.next(&self.book, bytes_max)?;
        if copies.is_empty() && copier.is_finished() && self.book.is_pinned(oldest) {
            return Err(Error::Corrupt {
                path: self.directory.segment_path(oldest),
                offset: UNIT_BYTES,
                problem: "it lacks entries that some group needs".to_owned(),
            });
        }
        Ok(copies)
    }

    /// Sees to it that a frame with this payload fits into the active segment, and the seal after
    /// it, by going on to a next segment if need be.
    fn make_room(&mut self, payload_bytes: u64) -> Result<(), Error> {
        if self.is_room(payload_bytes + self.checkpoint_bytes()) {
            return Ok(());
        }
        // An empty segment has too little room only if it was made when segments were shorter.
        let is_next_better =
            !self.is_at_start() || self.active.header.bytes < self.options.segment_bytes;
        let seal_end = self.active.offset + frame_bytes(self.checkpoint_bytes());
        if is_next_better && seal_end <= self.active.header.bytes {
            self.rotate()?;
        }
        if self.is_room(payload_bytes + self.checkpoint_bytes()) {
            return Ok(());
        }
        let groups = self.book.groups_count();
        Err(Error::TooManyGroups { groups, segment_bytes: self.active.header.bytes })
    }

    fn is_room(&self, payload_bytes: u64) -> bool {
        let end = self.active.offset + frame_bytes(payload_bytes);
        end + frame_bytes(0) <= self.active.header.bytes
    }

    /// No frame is in the active segment yet, so that the next one must bring the checkpoint.
    fn is_at_start(&self) -> bool {
        self.active.offset == UNIT_BYTES
    }

    fn checkpoint_bytes(&self) -> u64 {
        if self.is_at_start() { record::checkpoint_bytes(self.book.groups_count()) } else { 0 }
    }

    /// Creates the next segment, then seals the active one, then writes to the next: so a sealed
    /// segment that is the last one proves that a file was lost.
    fn rotate(&mut self) -> Result<(), Error> {
        let header = SegmentHeader {
            sequence: self.active.header.sequence + 1,
            bytes: self.options.segment_bytes,
            is_recycled: !self.spares.is_empty(),
            log_id: self.active.header.log_id,
        };
        let next = match self.spares.pop() {
            Some(spare) => self.directory.recycle(spare, header)?,
            None => self.directory.create(header)?,
        };
        Failpoint::WalSegmentMade.reached();
        self.encode(FrameKind::Seal, &[], &[])?;
        self.write_buffer()?;
        self.segments.push_back(Segment { sequence: header.sequence, bytes: header.bytes });
        self.active = next;
        Ok(())
    }

    /// Puts a whole frame into the buffer and takes note of its operations.
    fn encode(&mut self, kind: FrameKind, copies: &[Copy], batch: &[Append]) -> Result<(), Error> {
        let Writer { book, buffer, active, .. } = self;
        let SegmentHeader { log_id, sequence: segment, .. } = active.header;
        buffer.clear();
        buffer.resize(FRAME_HEADER_BYTES, 0);
        if active.offset == UNIT_BYTES {
            record::put_checkpoint(buffer, book.checkpoints());
        }
        for Copy { group, entries } in copies {
            let from = self.segments[0].sequence;
            book.moved(*group, entries, from, segment);
            record::put_copies(buffer, *group, entries);
        }
        for append in batch {
            for operation in &append.operations {
                let place = Place { segment, offset: active.offset + buffer.len() as u64 };
                book.apply(append.group, operation, place)
                    .map_err(|problem| Error::Misuse { group: append.group, problem })?;
                record::put_operation(buffer, append.group, operation);
            }
        }
        let payload = &buffer[FRAME_HEADER_BYTES..];
        let header = FrameHeader {
            log_id,
            segment,
            offset: active.offset,
            number: self.number,
            payload_bytes: u32::try_from(payload.len()).expect("a segment is far smaller"),
            payload_checksum: crc32c::crc32c(payload),
            kind,
        };
        header.encode(buffer);
        buffer.resize(header.frame_bytes() as usize, 0);
        Ok(())
    }

    /// Writes the frame in the buffer to the end of the log and makes it durable.
    fn write_buffer(&mut self) -> Result<Flush, Error> {
        let started = Instant::now();
        self.write_zeros().map_err(|error| self.failed("write", error))?;
        let Active { file, offset, .. } = &self.active;
        file.write_all_at(&self.buffer, *offset).map_err(|error| self.failed("write", error))?;
        let wrote = Instant::now();
        Failpoint::WalBeforeFlush.reached();
        if !self.options.flush_delay.is_zero() {
            std::thread::sleep(self.options.flush_delay);
        }
        if self.options.is_flushed {
            file.sync_data().map_err(|error| self.failed("flush", error))?;
        }
        let sync_duration = wrote.elapsed();
        let bytes = self.buffer.len() as u64;
        self.active.offset += bytes;
        self.active.written = self.active.written.max(self.active.offset);
        self.number += 1;
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER_BYTES_KEPT);
        Ok(Flush { bytes, write_duration: wrote - started, sync_duration })
    }

    /// Extends the part of the segment that needs no metadata, if the frame in the buffer would
    /// leave it.
    fn write_zeros(&mut self) -> io::Result<()> {
        let Active { file, header, offset, written } = &mut self.active;
        let bytes = self.buffer.len() as u64;
        if *offset + bytes <= *written || bytes >= ZEROS_WRITE_BYTES_MAX {
            return Ok(());
        }
        let end = (*offset + ZEROS_BYTES).min(header.bytes);
        let zeros = vec![0; (end - *offset) as usize];
        file.write_all_at(&zeros, *offset)?;
        *written = end;
        Ok(())
    }

    fn failed(&self, doing: &'static str, source: io::Error) -> Error {
        let path = self.directory.segment_path(self.active.header.sequence);
        Error::Io { doing, path, source }
    }
}
