//! A store that is read and not changed, not even where a start would tidy up. It is locked meanwhile,
//! as for any other use.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use flotilla_core::GroupId;
use flotilla_core::view::{Column, View, ViewError, Visit};

use super::database::{self, Database, Dir};
use super::head::Head;
use super::shared::UnderWay;
use super::tuning::Tuning;
use super::{Error, LOCK_FILE, Options};

/// The rows of a store.
pub struct ReadOnly {
    database: Database,
}

/// What is in a store's directory.
pub enum Opened {
    /// No store, or one that was still being made. The lock is held.
    Nothing(Arc<File>),
    /// A store.
    Store(Box<ReadOnly>),
}

/// Opens the store in a directory for reading.
///
/// # Errors
/// It is in use, of a newer format, or damaged; or the operating system refuses.
pub fn open_read_only(path: &Path) -> Result<Opened, Error> {
    let lock = Arc::new(lock(path)?);
    let head = Head::read(path)?;
    if head.is_none() && !database::generations(path)?.is_empty() {
        let detail = "it is missing, but there is data it should refer to";
        return Err(Error::damaged(&path.join(super::head::FILE), detail));
    }
    let Some(head) = head.filter(|head| head.generation > 0) else {
        return Ok(Opened::Nothing(lock));
    };
    let dir = Dir { path: path.to_owned(), lock };
    let tuning = Tuning::new(&Options::new(path));
    let database = Database::open_read_only(&dir, head.generation, head.flushed, &tuning)?;
    Ok(Opened::Store(Box::new(ReadOnly { database })))
}

impl ReadOnly {
    /// Reads all data and checks every checksum, also behind files that are damaged.
    pub fn check_blocks(&self) -> Vec<Error> {
        self.database.check_blocks()
    }

    /// Bytes of all files with rows, and how many there are.
    ///
    /// # Errors
    /// RocksDB does not say.
    pub fn files(&self) -> Result<(u64, usize), Error> {
        let files = self.database.live_files()?;
        Ok((files.iter().map(|file| file.size as u64).sum(), files.len()))
    }

    /// The group whose rows were being exchanged at the last stop; the next start finishes that.
    ///
    /// # Errors
    /// The row that says so cannot be read.
    pub fn under_way(&self) -> Result<Option<GroupId>, Error> {
        Ok(UnderWay::load(&self.database)?.map(|under_way| under_way.group))
    }
}

impl View for ReadOnly {
    fn get(&self, column: Column, key: &[u8]) -> Result<Option<Bytes>, ViewError> {
        self.database.get(column, key)
    }

    fn scan(
        &self,
        column: Column,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        visit: Visit<'_>,
    ) -> Result<(), ViewError> {
        self.database.scan(column, from, to, visit)
    }

    fn scan_back(
        &self,
        column: Column,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        visit: Visit<'_>,
    ) -> Result<(), ViewError> {
        self.database.scan_back(column, from, to, visit)
    }
}

/// Locks what a node locks, and makes no file for it.
fn lock(dir: &Path) -> Result<File, Error> {
    let path = dir.join(LOCK_FILE);
    let file = match OpenOptions::new().read(true).open(&path) {
        // Nobody has opened a store here by that lock.
        Err(error) if error.kind() == ErrorKind::NotFound => File::open(dir),
        opened => opened,
    };
    let file = file.map_err(Error::io(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::InUse { dir: dir.to_path_buf() }),
        Err(TryLockError::Error(error)) => Err(Error::io(&path)(error)),
    }
}
