//! Moving living entries out of the oldest segment, so that groups which write rarely cannot keep
//! it forever. Owns the position in that segment; reads a little at a time so that no flush waits
//! long. Never writes: the writer puts what it finds at the end of the log.

use std::path::PathBuf;

use bytes::Bytes;
use flotilla_proto::ids::GroupId;

use super::book::{Book, Place};
use super::error::Error;
use super::format::{FRAME_HEADER_BYTES, FrameHeader, FrameKind, UNIT_BYTES};
use super::operation::Entry;
use super::record::{Entries, EntryRef, Record, Records, entries_bytes};
use super::segment::fail;
use crate::io::File;

/// Reading stops after so many bytes of frames, whatever they held.
const SCAN_BYTES_PER_FLUSH: u64 = 1 << 20;

const MALFORMED: &str = "a record with a right checksum makes no sense";

/// Consecutive living entries of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Copy {
    pub(super) group: GroupId,
    pub(super) entries: Vec<Entry>,
}

/// Reads one sealed segment from front to back.
pub(super) struct Copier {
    file: Box<dyn File>,
    path: PathBuf,
    segment: u64,
    log_id: u64,
    /// Where the current frame starts.
    offset: u64,
    /// The current frame, if it was read already.
    frame: Option<FrameHeader>,
    payload: Vec<u8>,
    /// Of the next record, in the payload.
    record: usize,
    /// Entries of that record that have been dealt with.
    entries_done: usize,
    is_finished: bool,
}

impl Copier {
    /// Starts at the first frame of a segment of the log with that id.
    pub(super) fn new(file: Box<dyn File>, path: PathBuf, segment: u64, log_id: u64) -> Copier {
        Copier {
            file,
            path,
            segment,
            log_id,
            offset: UNIT_BYTES,
            frame: None,
            payload: Vec::new(),
            record: 0,
            entries_done: 0,
            is_finished: false,
        }
    }

    pub(super) fn segment(&self) -> u64 {
        self.segment
    }

    /// Whether the whole segment was read.
    pub(super) fn is_finished(&self) -> bool {
        self.is_finished
    }

    /// Some more entries that are live according to `book`, maybe none: about `bytes_max` of them
    /// as records, or one if that is larger. They must be noted in the book as moved before the
    /// next call.
    pub(super) fn next(&mut self, book: &Book, bytes_max: u64) -> Result<Vec<Copy>, Error> {
        let mut copies = Copies { list: Vec::new(), bytes: 0, bytes_max };
        let mut scanned = 0;
        while !self.is_finished && scanned < SCAN_BYTES_PER_FLUSH {
            let frame = match self.frame {
                Some(frame) => frame,
                None => {
                    let frame = self.read_frame()?;
                    scanned += frame.frame_bytes();
                    frame
                }
            };
            self.frame = Some(frame);
            if !self.copy_frame(book, &mut copies)? {
                break;
            }
            self.is_finished = frame.kind == FrameKind::Seal;
            self.offset += frame.frame_bytes();
            self.frame = None;
            self.record = 0;
        }
        Ok(copies.list)
    }

    fn read_frame(&mut self) -> Result<FrameHeader, Error> {
        let mut header = [0; FRAME_HEADER_BYTES];
        self.read(&mut header, self.offset)?;
        let header = FrameHeader::decode(&header)
            .filter(|header| header.is_at(self.log_id, self.segment, self.offset))
            .ok_or_else(|| self.corrupt("a frame is gone that was there before"))?;
        let mut payload = std::mem::take(&mut self.payload);
        payload.resize(header.payload_bytes as usize, 0);
        self.read(&mut payload, self.offset + FRAME_HEADER_BYTES as u64)?;
        self.payload = payload;
        if crc32c::crc32c(&self.payload) != header.payload_checksum {
            return Err(self.corrupt("the checksum of a frame's content is wrong"));
        }
        Ok(header)
    }

    /// Collects from the current frame. False when the copies are full before its end.
    fn copy_frame(&mut self, book: &Book, copies: &mut Copies) -> Result<bool, Error> {
        let payload = std::mem::take(&mut self.payload);
        let is_done = self.copy_records(&payload, book, copies);
        self.payload = payload;
        is_done
    }

    fn copy_records(
        &mut self,
        payload: &[u8],
        book: &Book,
        copies: &mut Copies,
    ) -> Result<bool, Error> {
        let mut records = Records::new(payload, self.record);
        loop {
            self.record = records.position();
            match records.next().map_err(|_| self.corrupt(MALFORMED))? {
                None => return Ok(true),
                Some(Record::Entries(entries) | Record::Copies(entries)) => {
                    if !self.copy_entries(&entries, book, copies)? {
                        return Ok(false);
                    }
                }
                Some(
                    Record::HardState { .. }
                    | Record::Truncate { .. }
                    | Record::Reset { .. }
                    | Record::Remove { .. }
                    | Record::Checkpoint(_),
                ) => {}
            }
        }
    }

    fn copy_entries(
        &mut self,
        entries: &Entries<'_>,
        book: &Book,
        copies: &mut Copies,
    ) -> Result<bool, Error> {
        let group = entries.group;
        let offset = self.offset + (FRAME_HEADER_BYTES + self.record) as u64;
        let place = Place { segment: self.segment, offset };
        for entry in entries.iter().skip(self.entries_done) {
            let entry = entry.map_err(|_| self.corrupt(MALFORMED))?;
            if book.is_live(group, entry.index, entry.term, place) && !copies.add(group, &entry) {
                return Ok(false);
            }
            self.entries_done += 1;
        }
        self.entries_done = 0;
        Ok(true)
    }

    fn read(&self, buffer: &mut [u8], offset: u64) -> Result<(), Error> {
        let read = self.file.read_full_at(buffer, offset).map_err(fail("read", &self.path))?;
        if read < buffer.len() {
            return Err(self.corrupt("the file ends inside a frame"));
        }
        Ok(())
    }

    fn corrupt(&self, problem: &str) -> Error {
        let problem = problem.to_owned();
        Error::Corrupt { path: self.path.clone(), offset: self.offset, problem }
    }
}

/// What one call of [`Copier::next`] collects.
struct Copies {
    list: Vec<Copy>,
    /// As records.
    bytes: u64,
    bytes_max: u64,
}

impl Copies {
    /// False, and nothing added, if the entry is one too many.
    fn add(&mut self, group: GroupId, entry: &EntryRef<'_>) -> bool {
        let entry = Entry {
            index: entry.index,
            term: entry.term,
            kind: entry.kind,
            data: Bytes::copy_from_slice(entry.data),
        };
        let bytes = entries_bytes(std::slice::from_ref(&entry));
        if self.bytes > 0 && self.bytes + bytes > self.bytes_max {
            return false;
        }
        self.bytes += bytes;
        match self.list.last_mut() {
            Some(last) if last.is_followed_by(group, &entry) => last.entries.push(entry),
            _ => self.list.push(Copy { group, entries: vec![entry] }),
        }
        true
    }
}

impl Copy {
    fn is_followed_by(&self, group: GroupId, entry: &Entry) -> bool {
        let last_index = self.entries.last().map(|last| last.index);
        self.group == group && last_index.is_some_and(|last| last + 1 == entry.index)
    }
}
