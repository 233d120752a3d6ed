//! Segment files and their names. Owns the order of steps that makes a segment appear and go: a
//! file bears a segment's name only once its header is durable, and a freed file is overwritten
//! only once it has durably lost that name.

use std::io;
use std::path::{Path, PathBuf};

use super::error::Error;
use super::format::{SegmentHeader, UNIT_BYTES};
use crate::io::{Disk, File};

/// A segment of the log.
const SEGMENT_SUFFIX: &str = ".wal";
/// A freed segment, kept because writing into it needs no change of the file's metadata.
const SPARE_SUFFIX: &str = ".spare";
/// A file that is being prepared. It never holds anything worth keeping.
const NEW_SUFFIX: &str = ".new";
const LOCK_NAME: &str = "LOCK";

/// The directory of one log.
pub(super) struct Directory {
    disk: Box<dyn Disk>,
    path: PathBuf,
}

/// What a directory holds, each list in ascending order.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) segments: Vec<u64>,
    pub(super) spares: Vec<u64>,
    pub(super) unfinished: Vec<u64>,
}

/// A segment that frames can be written to.
pub(super) struct Active {
    pub(super) file: Box<dyn File>,
    pub(super) header: SegmentHeader,
    /// Where the next frame goes.
    pub(super) offset: u64,
    /// Up to here every block of the file has been written once.
    pub(super) written: u64,
}

impl Directory {
    pub(super) fn new(disk: Box<dyn Disk>, path: PathBuf) -> Directory {
        Directory { disk, path }
    }

    pub(super) fn segment_path(&self, sequence: u64) -> PathBuf {
        self.path_of(sequence, SEGMENT_SUFFIX)
    }

    /// Creates the directory if it is missing and locks it. The lock lasts as long as the answer.
    pub(super) fn lock(&self) -> Result<Box<dyn Send>, Error> {
        self.disk.create_dir(&self.path).map_err(fail("create", &self.path))?;
        let path = self.path.join(LOCK_NAME);
        match self.disk.lock(&path).map_err(fail("lock", &path))? {
            Some(lock) => Ok(lock),
            None => Err(Error::Locked { dir: self.path.clone() }),
        }
    }

    pub(super) fn list(&self) -> Result<Listing, Error> {
        let mut listing = Listing::default();
        for name in self.disk.list(&self.path).map_err(fail("list", &self.path))? {
            if let Some(sequence) = sequence_in(&name, SEGMENT_SUFFIX) {
                listing.segments.push(sequence);
            } else if let Some(sequence) = sequence_in(&name, SPARE_SUFFIX) {
                listing.spares.push(sequence);
            } else if let Some(sequence) = sequence_in(&name, NEW_SUFFIX) {
                listing.unfinished.push(sequence);
            }
        }
        listing.segments.sort_unstable();
        listing.spares.sort_unstable();
        listing.unfinished.sort_unstable();
        Ok(listing)
    }

    /// Names of files that are none of the log's, in order.
    pub(super) fn strangers(&self) -> Result<Vec<String>, Error> {
        let names = self.disk.list(&self.path).map_err(fail("list", &self.path))?;
        let suffixes = [SEGMENT_SUFFIX, SPARE_SUFFIX, NEW_SUFFIX];
        let is_ours = |name: &String| {
            name == LOCK_NAME || suffixes.iter().any(|suffix| sequence_in(name, suffix).is_some())
        };
        let mut strangers: Vec<String> = names.into_iter().filter(|name| !is_ours(name)).collect();
        strangers.sort();
        Ok(strangers)
    }

    pub(super) fn open(&self, sequence: u64) -> Result<Box<dyn File>, Error> {
        let path = self.segment_path(sequence);
        self.disk.open(&path).map_err(fail("open", &path))
    }

    /// A segment in a new file. Space is reserved but never written, so the writer still has to
    /// see to it that flushes need no metadata.
    pub(super) fn create(&self, header: SegmentHeader) -> Result<Active, Error> {
        let path = self.path_of(header.sequence, NEW_SUFFIX);
        let file = self.disk.create(&path).map_err(fail("create", &path))?;
        file.allocate(header.bytes).map_err(fail("reserve space for", &path))?;
        file.write_all_at(&header.encode(), 0).map_err(fail("write", &path))?;
        file.sync_all().map_err(fail("flush", &path))?;
        self.publish(&path, file, header, UNIT_BYTES)
    }

    /// A segment in a spare file.
    pub(super) fn recycle(&self, spare: u64, header: SegmentHeader) -> Result<Active, Error> {
        let path = self.path_of(spare, SPARE_SUFFIX);
        let file = self.disk.open(&path).map_err(fail("open", &path))?;
        file.write_all_at(&header.encode(), 0).map_err(fail("write", &path))?;
        file.sync_data().map_err(fail("flush", &path))?;
        self.publish(&path, file, header, header.bytes)
    }

    /// Takes a segment out of the log, durably, and keeps its file as a spare.
    pub(super) fn retire(&self, sequence: u64) -> Result<(), Error> {
        let path = self.segment_path(sequence);
        let spare = self.path_of(sequence, SPARE_SUFFIX);
        self.disk.rename(&path, &spare).map_err(fail("rename", &path))?;
        self.sync()
    }

    /// Takes a segment out of the log, durably, and deletes its file.
    pub(super) fn delete(&self, sequence: u64) -> Result<(), Error> {
        self.remove(sequence, SEGMENT_SUFFIX)?;
        self.sync()
    }

    pub(super) fn delete_spare(&self, sequence: u64) -> Result<(), Error> {
        self.remove(sequence, SPARE_SUFFIX)
    }

    pub(super) fn delete_unfinished(&self, sequence: u64) -> Result<(), Error> {
        self.remove(sequence, NEW_SUFFIX)
    }

    pub(super) fn spare_bytes(&self, sequence: u64) -> Result<u64, Error> {
        let path = self.path_of(sequence, SPARE_SUFFIX);
        let file = self.disk.open(&path).map_err(fail("open", &path))?;
        file.bytes().map_err(fail("measure", &path))
    }

    /// Makes changes of names durable.
    pub(super) fn sync(&self) -> Result<(), Error> {
        self.disk.sync_dir(&self.path).map_err(fail("flush", &self.path))
    }

    fn publish(
        &self,
        path: &Path,
        file: Box<dyn File>,
        header: SegmentHeader,
        written: u64,
    ) -> Result<Active, Error> {
        let name = self.segment_path(header.sequence);
        self.disk.rename(path, &name).map_err(fail("rename", path))?;
        self.sync()?;
        Ok(Active { file, header, offset: UNIT_BYTES, written })
    }

    fn remove(&self, sequence: u64, suffix: &str) -> Result<(), Error> {
        let path = self.path_of(sequence, suffix);
        self.disk.remove(&path).map_err(fail("delete", &path))
    }

    fn path_of(&self, sequence: u64, suffix: &str) -> PathBuf {
        self.path.join(format!("{sequence:016x}{suffix}"))
    }
}

/// Turns an error of the operating system into the log's own.
pub(super) fn fail<'a>(doing: &'static str, path: &'a Path) -> impl Fn(io::Error) -> Error + 'a {
    move |source| Error::Io { doing, path: path.to_owned(), source }
}

/// The number in a name made by [`Directory::path_of`]; `None` for any other name.
fn sequence_in(name: &str, suffix: &str) -> Option<u64> {
    let digits = name.strip_suffix(suffix)?;
    let is_ours = digits.len() == 16
        && digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    if is_ours { u64::from_str_radix(digits, 16).ok() } else { None }
}
