//! Reads a log and changes nothing: every frame of every segment is looked at, also behind one that
//! is damaged, and the groups' logs are told as a start would find them.

use std::collections::BTreeMap;
use std::path::Path;

use flotilla_proto::ids::GroupId;

use super::error::Error;
use super::format::{FrameKind, UNIT_BYTES};
use super::operation::GroupLog;
use super::record::{Malformed, Records};
use super::recovery::{self, FrameRead, OpenSegment, TornTail, Window};
use super::segment::Directory;
use crate::io::ReadOnlyDisk;

/// What is in a log's directory.
#[derive(Debug, Default)]
pub struct Inspection {
    /// What every group remembers; `None` if that cannot be told.
    pub groups: Option<BTreeMap<GroupId, GroupLog>>,
    /// What is damaged or missing.
    pub problems: Vec<Error>,
    /// The log ends in the middle of a write that was never acknowledged.
    pub torn_tail: Option<TornTail>,
    pub segments_count: u64,
    /// Of all segments: frames that are whole, the records in them, and the bytes they take.
    pub frames_count: u64,
    pub records_count: u64,
    pub bytes: u64,
    /// Names of files that are none of the log's.
    pub strangers: Vec<String>,
}

/// Reads the log in a directory. Nobody may open it meanwhile: it is locked while `held` lives.
pub fn inspect(dir: &Path) -> Result<(Inspection, Box<dyn Send>), Error> {
    let directory = Directory::new(Box::new(ReadOnlyDisk), dir.to_owned());
    let held = directory.lock()?;
    let mut found = Inspection { strangers: directory.strangers()?, ..Inspection::default() };
    let listing = directory.list()?;
    for &sequence in &listing.segments {
        found.segments_count += 1;
        if let Err(error) = found.read_segment(&directory, sequence) {
            found.problems.push(error);
        }
    }
    if listing.segments.is_empty() {
        found.groups = Some(BTreeMap::new());
        return Ok((found, held));
    }
    match recovery::recover(&directory, &listing.segments) {
        Ok(log) => {
            found.torn_tail = log.recovered.torn_tail;
            if found.problems.is_empty() {
                found.groups = Some(log.recovered.groups);
            }
        }
        Err(error) if found.names(&error) => {}
        Err(error) => found.problems.push(error),
    }
    Ok((found, held))
}

impl Inspection {
    /// Looks at every frame of a segment.
    fn read_segment(&mut self, directory: &Directory, sequence: u64) -> Result<(), Error> {
        let segment = OpenSegment::open(directory, sequence, None)?;
        let mut window = Window::new(&segment);
        let mut offset = UNIT_BYTES;
        while offset < segment.header.bytes {
            let read = recovery::read_frame(&mut window, offset);
            if let Ok(FrameRead::Whole(header, payload)) = read {
                self.frames_count += 1;
                self.records_count += records_count(payload);
                self.bytes += header.frame_bytes();
                offset += header.frame_bytes();
                if header.kind == FrameKind::Seal {
                    break;
                }
                continue;
            }
            // The end, unless something follows.
            let Some(next) = segment.frame_from(offset + UNIT_BYTES)? else { break };
            let problem = "a frame is damaged that others follow".to_owned();
            self.problems.push(Error::Corrupt { path: segment.path.clone(), offset, problem });
            offset = next;
        }
        Ok(())
    }

    /// Whether a problem at the same place is known.
    fn names(&self, error: &Error) -> bool {
        let place = |error: &Error| match error {
            Error::Corrupt { path, offset, .. } => Some((path.clone(), *offset)),
            _ => None,
        };
        let found = place(error);
        found.is_some() && self.problems.iter().any(|known| place(known) == found)
    }
}

/// Records up to the first that makes no sense, which replay complains of.
fn records_count(payload: &[u8]) -> u64 {
    let mut records = Records::new(payload, 0);
    let mut count = 0;
    loop {
        match records.next() {
            Ok(Some(_)) => count += 1,
            Ok(None) | Err(Malformed) => return count,
        }
    }
}
