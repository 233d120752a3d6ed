//! A store that is read and not changed, not even where a start would tidy up. It is locked meanwhile,
//! as for any other use.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use flotilla_core::GroupId;
use flotilla_core::view::View;

use super::database::{Database, Dir};
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
    if head.is_none() {
        super::check_empty(path)?;
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
    /// Its rows.
    pub fn view(&self) -> &dyn View {
        &self.database
    }

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

/// Locks what a node locks, and makes no file for it.
fn lock(dir: &Path) -> Result<File, Error> {
    let path = dir.join(LOCK_FILE);
    let file = match OpenOptions::new().read(true).open(&path) {
        // Nobody has opened a store here by that lock.
        Err(error) if error.kind() == ErrorKind::NotFound => File::open(dir),
        opened => opened,
    };
    super::hold(file.map_err(Error::io(&path))?, dir)
}
