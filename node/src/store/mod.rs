//! The applied state of a node, in RocksDB under the Raft log.
//!
//! A batch is applied whole or not at all; a crash loses the newest batches, never an older one,
//! and nothing that `flush` made durable. What the rows mean is not known here. Nothing is served
//! from a store that is damaged, and nothing is tried again after an error: both stop the process.

mod database;
mod error;
mod estimate;
mod head;
mod read_only;
mod recent;
mod shared;
mod staging;
mod tables;
mod tuning;

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::ops::Bound;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use flotilla_core::mvcc::{BLOCK_ROWS, Counts};
use flotilla_core::view::{Batch, Column, View, ViewError, Visit};

use database::{Database, Dir};
use head::Head;
use recent::Recent;
use shared::UnderWay;
use tuning::Tuning;

use crate::failpoint::Failpoint;

pub use error::Error;
pub use estimate::{Contents, Estimate};
pub use head::FORMAT;
pub use read_only::{Opened, ReadOnly, open_read_only};
pub use staging::{Sealed, Staging};
pub use tuning::{
    MEMORY_BYTES_DEFAULT, OPEN_FILES_MAX_DEFAULT, Options, WRITE_BUFFER_BYTES_DEFAULT,
    WRITE_RATE_BYTES_DEFAULT,
};

/// Rows of the column Meta whose keys begin with this belong to the node, not to what is
/// replicated. A snapshot neither brings nor removes them.
pub const LOCAL_PREFIX: &[u8] = &[flotilla_core::snapshot::NODE_LOCAL];

/// How old the answer of `Store::sizes` may be.
pub const SIZES_AGE_MAX: Duration = Duration::from_secs(1);

const LOCK_FILE: &str = "LOCK";

/// Whether a row stays on its node when snapshots are sent and received.
pub fn is_local(column: Column, key: &[u8]) -> bool {
    column == Column::Meta && key.starts_with(LOCAL_PREFIX)
}

/// The store. Clones share it; the last one dropped closes it.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

/// How much space the store takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Bytes of all files, and of the rows that will be in files after the next flush. Never 0.
    pub total: u64,
    /// Bytes of it that are not left over from overwritten and deleted rows. An estimate, at most
    /// `total`.
    pub in_use: u64,
}

struct Shared {
    dir: Dir,
    tuning: Tuning,
    /// The generation that is read and written.
    current: RwLock<Arc<Database>>,
    /// Held while a batch is applied and while the generation changes.
    writer: Mutex<Writer>,
    /// What the file HEAD says.
    head: Mutex<Head>,
    sizes: Mutex<Option<(Instant, Sizes)>>,
    /// How many keys spans have.
    counts: Counts,
    /// Some rows of keys.
    recent: Recent,
    /// The first error of a write or a flush.
    stopped: OnceLock<String>,
}

struct Writer {
    /// The number for the next generation.
    next_generation: u64,
}

/// Opens the store in `options.dir`, and makes an empty one if nothing is there. The time this
/// takes does not depend on how much the store holds. Blocks.
///
/// # Errors
/// The directory is in use, of a newer format, or damaged; or the operating system refuses.
pub fn open(options: &Options) -> Result<Store, Error> {
    let path = &options.dir;
    fs::create_dir_all(path).map_err(Error::io(path))?;
    let dir = Dir { path: path.clone(), lock: Arc::new(lock(path)?) };
    let tuning = Tuning::new(options);
    let mut head = match Head::read(path)? {
        Some(head) => head,
        None => begin(path)?,
    };
    let generations = database::generations(path)?;
    let database = if head.generation == 0 {
        let database = Database::create(&dir, 1, &tuning)?;
        Failpoint::StoreCreated.reached();
        database.flush()?;
        head = Head { generation: 1, flushed: database.sequence() };
        head.write(path)?;
        database
    } else {
        let database = Database::open(&dir, head.generation, head.flushed, &tuning)?;
        finish(&dir, &database, &mut head, &tuning)?;
        database
    };
    // Snapshots that were being received, and a generation that was replaced, at the last stop.
    for generation in generations.iter().filter(|generation| **generation != head.generation) {
        database::remove_generation(path, *generation)?;
    }
    let next_generation = head.generation + 1;
    Ok(Store {
        shared: Arc::new(Shared {
            dir,
            tuning,
            current: RwLock::new(Arc::new(database)),
            writer: Mutex::new(Writer { next_generation }),
            head: Mutex::new(head),
            sizes: Mutex::new(None),
            counts: Counts::new(BLOCK_ROWS),
            recent: Recent::new(options.recent_bytes()),
            stopped: OnceLock::new(),
        }),
    })
}

/// Ends what was under way with a group at the last stop.
fn finish(dir: &Dir, database: &Database, head: &mut Head, tuning: &Tuning) -> Result<(), Error> {
    let Some(under_way) = UnderWay::load(database)? else { return Ok(()) };
    let received = match under_way.generation {
        Some(generation) => Some(Database::open(dir, generation, 0, tuning)?),
        None => None,
    };
    shared::carry_out(database, under_way, received.as_ref(), usize::MAX)?;
    Failpoint::StartExchangeDone.reached();
    database.flush()?;
    head.flushed = database.sequence();
    head.write(&dir.path)
}

impl Store {
    /// Applies a batch: one atomic step for readers and for crashes. It is in memory only until
    /// the next `flush`, and waits when the disk cannot keep up. One thread applies at a time.
    ///
    /// # Errors
    /// RocksDB refuses, or did so before.
    pub fn apply(&self, batch: &Batch) -> Result<(), Error> {
        let _writer = self.writer()?;
        self.current().write(batch).map_err(|error| self.stop(error))?;
        self.shared.counts.note(batch);
        self.shared.recent.note(batch);
        Ok(())
    }

    /// Makes everything applied before the call durable. Blocks for as long as the disk takes;
    /// batches can be applied meanwhile.
    ///
    /// # Errors
    /// The disk refuses, or did so before.
    pub fn flush(&self) -> Result<(), Error> {
        self.check()?;
        let database = self.current();
        let flushed = database.sequence();
        if *locked(&self.shared.head) == (Head { generation: database.generation, flushed }) {
            return Ok(());
        }
        database.flush().map_err(|error| self.stop(error))?;
        Failpoint::StoreFlushed.reached();
        let mut head = locked(&self.shared.head);
        // Another flush may have come first, or the generation may have been replaced.
        if head.generation == database.generation && head.flushed < flushed {
            let next = Head { flushed, ..*head };
            next.write(&self.shared.dir.path).map_err(|error| self.stop(error))?;
            *head = next;
        }
        Ok(())
    }

    /// Lets `read` see one fixed moment, however long it takes. Its reads are not kept in the
    /// cache. Space that is freed meanwhile is given back only afterwards.
    pub fn with_snapshot<R>(&self, read: impl FnOnce(&dyn View) -> R) -> R {
        let database = self.current();
        let moment = database.moment();
        read(&moment)
    }

    /// Begins to receive a snapshot.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn stage(&self) -> Result<Staging, Error> {
        let mut writer = self.writer()?;
        let generation = writer.next_generation;
        writer.next_generation += 1;
        drop(writer);
        let database = Database::create(&self.shared.dir, generation, &self.shared.tuning)?;
        Failpoint::SnapshotBegun.reached();
        Ok(Staging::new(database, self.clone()))
    }

    /// Puts a received snapshot in the place of everything but the node's local rows: one atomic
    /// step for readers and for crashes, and durable on return.
    ///
    /// # Errors
    /// The disk refuses, or did so before.
    pub fn replace(&self, sealed: Sealed) -> Result<(), Error> {
        let _writer = self.writer()?;
        let (old, new) = (self.current(), sealed.database);
        copy_local_rows(&old, &new).map_err(|error| self.stop(error))?;
        Failpoint::ReplaceRowsCopied.reached();
        new.flush().map_err(|error| self.stop(error))?;
        Failpoint::ReplaceFlushed.reached();

        let mut head = locked(&self.shared.head);
        let next = Head { generation: new.generation, flushed: new.sequence() };
        new.keep();
        next.write(&self.shared.dir.path).map_err(|error| self.stop(error))?;
        *head = next;
        self.shared.recent.forget();
        *self.shared.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
        drop(head);
        self.shared.counts.forget();
        *locked(&self.shared.sizes) = None;
        // Readers that still hold it are let finish.
        old.retire();
        Ok(())
    }

    /// Where its files are.
    pub fn dir(&self) -> &Path {
        &self.shared.dir.path
    }

    /// How much space is taken, at most `SIZES_AGE_MAX` ago.
    ///
    /// # Errors
    /// RocksDB does not say.
    pub fn sizes(&self) -> Result<Sizes, Error> {
        let mut cached = locked(&self.shared.sizes);
        match *cached {
            Some((when, sizes)) if when.elapsed() < SIZES_AGE_MAX => Ok(sizes),
            _ => {
                let sizes = self.current().sizes()?;
                *cached = Some((Instant::now(), sizes));
                Ok(sizes)
            }
        }
    }

    /// Snapshots of it that somebody reads.
    pub fn open_views(&self) -> u64 {
        self.current().open_views()
    }

    /// About how much each of these spans of a column holds. Blocks for as long as reading the
    /// indexes of the files takes.
    ///
    /// # Errors
    /// RocksDB does not say.
    pub fn estimate(
        &self,
        column: Column,
        spans: &[(Bytes, Option<Bytes>)],
    ) -> Result<(Vec<Estimate>, Contents), Error> {
        let (sizes, contents) = self.current().approximate(column, spans)?;
        Ok((sizes.into_iter().map(|bytes| Estimate::of(bytes, &contents)).collect(), contents))
    }

    /// Gives back the space of overwritten and deleted rows, while the store stays in use. Blocks
    /// for as long as rewriting all files takes.
    ///
    /// # Errors
    /// The disk refuses, or a file is damaged.
    pub fn compact_space(&self) -> Result<(), Error> {
        self.flush()?;
        let database = self.current();
        let errors_before = database.background_errors()?;
        database.compact();
        *locked(&self.shared.sizes) = None;
        if database.background_errors()? != errors_before {
            let dir = self.shared.dir.path.clone();
            let detail = "compacting the files failed".to_owned();
            return Err(self.stop(Error::RocksDb { dir, detail }));
        }
        Ok(())
    }

    /// Reads all data on disk and checks every checksum. Blocks for as long as that takes.
    ///
    /// # Errors
    /// A file is damaged or cannot be read.
    pub fn verify(&self) -> Result<(), Error> {
        self.current().verify()
    }

    /// Flushes, and lets go of the store. It is closed when its other clones are dropped too.
    ///
    /// # Errors
    /// As `flush`.
    pub fn close(self) -> Result<(), Error> {
        self.flush()
    }

    fn tuning(&self) -> &Tuning {
        &self.shared.tuning
    }

    fn current(&self) -> Arc<Database> {
        self.shared.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The right to write, unless an error has ended it.
    fn writer(&self) -> Result<MutexGuard<'_, Writer>, Error> {
        let writer = locked(&self.shared.writer);
        self.check()?;
        Ok(writer)
    }

    fn check(&self) -> Result<(), Error> {
        match self.shared.stopped.get() {
            Some(reason) => Err(Error::Stopped(reason.clone())),
            None => Ok(()),
        }
    }

    /// Ends writing. A failed flush may have lost data that a second one would not miss.
    fn stop(&self, error: Error) -> Error {
        self.shared.stopped.get_or_init(|| error.to_string());
        error
    }
}

impl View for Store {
    fn get(&self, column: Column, key: &[u8]) -> Result<Option<Bytes>, ViewError> {
        let recent = (column == Column::Key).then(|| self.shared.recent.get(key)).flatten();
        recent.map_or_else(|| self.current().get(column, key), |row| Ok(Some(row)))
    }

    fn scan(
        &self,
        column: Column,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        visit: Visit<'_>,
    ) -> Result<(), ViewError> {
        self.current().scan(column, from, to, visit)
    }

    fn scan_back(
        &self,
        column: Column,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        visit: Visit<'_>,
    ) -> Result<(), ViewError> {
        self.current().scan_back(column, from, to, visit)
    }

    fn counts(&self) -> Option<&Counts> {
        Some(&self.shared.counts)
    }
}

fn lock(dir: &Path) -> Result<File, Error> {
    let path = dir.join(LOCK_FILE);
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    hold(file.map_err(Error::io(&path))?, dir)
}

/// Locks the file that stands for a directory.
fn hold(file: File, dir: &Path) -> Result<File, Error> {
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::InUse { dir: dir.to_path_buf() }),
        Err(TryLockError::Error(error)) => Err(Error::io(&dir.join(LOCK_FILE))(error)),
    }
}

/// A directory without a HEAD has no data.
fn check_empty(dir: &Path) -> Result<(), Error> {
    if database::generations(dir)?.is_empty() {
        return Ok(());
    }
    let detail = "it is missing, but there is data it should refer to";
    Err(Error::damaged(&dir.join(head::FILE), detail))
}

/// Marks a directory as a store that is being made.
fn begin(dir: &Path) -> Result<Head, Error> {
    check_empty(dir)?;
    let head = Head::default();
    head.write(dir)?;
    Ok(head)
}

fn copy_local_rows(from: &Database, to: &Database) -> Result<(), Error> {
    let mut batch = Batch::default();
    from.visit_from(Column::Meta, LOCAL_PREFIX, &mut |key, value| {
        if !is_local(Column::Meta, key) {
            return std::ops::ControlFlow::Break(());
        }
        batch.put(Column::Meta, key.to_vec(), value.to_vec());
        std::ops::ControlFlow::Continue(())
    })?;
    to.write(&batch)
}

/// Everything under these locks is replaced whole, so a panic of another holder left it whole.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
