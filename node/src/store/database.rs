//! One generation of the store: a RocksDB database in a directory of its own, and the reads of it.
//! It must never write to RocksDB's own log: the Raft log stands in for it.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::ops::{Bound, ControlFlow};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use flotilla_core::view::{Batch, Column, View, ViewError, Visit, Write};
use rocksdb::properties::{
    AGGREGATED_TABLE_PROPERTIES, CUR_SIZE_ALL_MEM_TABLES, ESTIMATE_LIVE_DATA_SIZE,
    NUM_ENTRIES_ACTIVE_MEM_TABLE, NUM_ENTRIES_IMM_MEM_TABLES, TOTAL_SST_FILES_SIZE,
};
use rocksdb::{
    BottommostLevelCompaction, ColumnFamily, CompactOptions, DB, FlushOptions,
    IngestExternalFileOptions, LiveFile, ReadOptions, Snapshot, WriteBatch, WriteOptions,
};

use super::head::sync_dir;
use super::tuning::{Tuning, column_name};
use super::{Contents, Error, Sizes};

const DIR_PREFIX: &str = "generation-";
/// Bytes that a row takes in a write batch beside its key and value, at most.
const BATCH_ROW_OVERHEAD_BYTES: usize = 16;
/// Bytes read ahead where every row of a column is read.
const READ_AHEAD_BYTES: usize = 2 << 20;

/// Stands for the end of all keys where an end must be named: few keys are above it, and what is
/// asked with it is approximate.
const KEY_MAX: [u8; 64] = [0xff; 64];

/// The directory of a store, locked against other users.
pub(super) struct Dir {
    pub(super) path: PathBuf,
    pub(super) lock: Arc<File>,
}

/// An open database.
pub(super) struct Database {
    // Declared before `place`: closed before its directory may go.
    rocks: DB,
    place: Place,
    pub(super) generation: u64,
    unlogged: WriteOptions,
}

/// The directory of a generation, removed with everything in it once it is retired and closed.
struct Place {
    path: PathBuf,
    is_retired: AtomicBool,
    /// Nobody else may open the store while a generation of it is open.
    _lock: Arc<File>,
}

#[derive(Clone, Copy)]
enum Direction {
    Ascending,
    Descending,
}

impl Database {
    /// Makes an empty generation, replacing what may be left of an attempt to make it. It is on
    /// disk, but nothing refers to it yet.
    pub(super) fn create(dir: &Dir, generation: u64, tuning: &Tuning) -> Result<Self, Error> {
        let path = generation_dir(&dir.path, generation);
        remove_dir(&path)?;
        fs::create_dir(&path).map_err(Error::io(&path))?;
        sync_dir(&dir.path)?;
        let rocks = DB::open_cf_descriptors(&tuning.to_create(), &path, tuning.columns())
            .map_err(|error| Error::rocks(&path, error))?;
        Ok(Self::new(rocks, dir, path, generation))
    }

    /// Opens the generation that HEAD names. It must be whole, and hold at least what was flushed
    /// up to the sequence number `flushed`.
    pub(super) fn open(
        dir: &Dir,
        generation: u64,
        flushed: u64,
        tuning: &Tuning,
    ) -> Result<Self, Error> {
        let path = whole_generation_dir(dir, generation)?;
        let rocks = DB::open_cf_descriptors(&tuning.to_open(), &path, tuning.columns())
            .map_err(|error| Error::rocks_open(&path, error))?;
        Self::new(rocks, dir, path, generation).with_all_flushed(flushed)
    }

    /// As `open`, for reading alone: nothing on the disk is changed.
    pub(super) fn open_read_only(
        dir: &Dir,
        generation: u64,
        flushed: u64,
        tuning: &Tuning,
    ) -> Result<Self, Error> {
        let path = whole_generation_dir(dir, generation)?;
        let (options, columns) = (tuning.to_open(), tuning.columns());
        let rocks = DB::open_cf_descriptors_read_only(&options, &path, columns, false)
            .map_err(|error| Error::rocks_open(&path, error))?;
        Self::new(rocks, dir, path, generation).with_all_flushed(flushed)
    }

    /// Refuses a database that has lost the end of its list of files.
    fn with_all_flushed(self, flushed: u64) -> Result<Self, Error> {
        let found = self.sequence();
        if found < flushed {
            let detail = format!(
                "its list of files (MANIFEST) ends at sequence number {found}, but {flushed} was \
                 made durable"
            );
            return Err(Error::damaged(&self.place.path, detail));
        }
        Ok(self)
    }

    fn new(rocks: DB, dir: &Dir, path: PathBuf, generation: u64) -> Self {
        let mut unlogged = WriteOptions::default();
        unlogged.disable_wal(true);
        let _lock = dir.lock.clone();
        let place = Place { path, is_retired: AtomicBool::new(false), _lock };
        Self { rocks, place, generation, unlogged }
    }

    /// Has the directory removed when the last user of this database is done with it.
    pub(super) fn retire(&self) {
        self.place.is_retired.store(true, Ordering::Relaxed);
    }

    /// Takes `retire` back.
    pub(super) fn keep(&self) {
        self.place.is_retired.store(false, Ordering::Relaxed);
    }

    /// RocksDB's number of the newest change; grows with every change.
    pub(super) fn sequence(&self) -> u64 {
        self.rocks.latest_sequence_number()
    }

    pub(super) fn write(&self, batch: &Batch) -> Result<(), Error> {
        let rows = batch.writes.iter().map(|write| match write {
            Write::Put(column, key, value) => (*column, &key[..], Some(&value[..])),
            Write::Delete(column, key) => (*column, &key[..], None),
        });
        self.write_rows(rows)
    }

    /// Sets the rows, or removes those without a value, as one.
    pub(super) fn write_rows<'a>(
        &self,
        rows: impl Iterator<Item = (Column, &'a [u8], Option<&'a [u8]>)> + Clone,
    ) -> Result<(), Error> {
        let bytes = rows
            .clone()
            .map(|(_, key, value)| {
                BATCH_ROW_OVERHEAD_BYTES + key.len() + value.map_or(0, <[u8]>::len)
            })
            .sum();
        let families = Column::ALL.map(|column| self.family(column));
        let mut batch = WriteBatch::with_capacity_bytes(bytes);
        for (column, key, value) in rows {
            let family = families[column as usize];
            match value {
                Some(value) => batch.put_cf(family, key, value),
                None => batch.delete_cf(family, key),
            }
        }
        self.rocks.write_opt(batch, &self.unlogged).map_err(|error| self.error(error))
    }

    /// Takes over files of rows, durable on return. They are gone from where they were.
    pub(super) fn ingest(
        &self,
        column: Column,
        options: &IngestExternalFileOptions,
        paths: Vec<PathBuf>,
    ) -> Result<(), Error> {
        let family = self.family(column);
        let done = self.rocks.ingest_external_file_cf_opts(family, options, paths);
        done.map_err(|error| self.error(error))
    }

    /// Where its files are.
    pub(super) fn dir(&self) -> &Path {
        &self.place.path
    }

    /// Returns when all that is written is on disk, all columns up to the same change.
    pub(super) fn flush(&self) -> Result<(), Error> {
        let mut options = FlushOptions::default();
        options.set_wait(true);
        let families = Column::ALL.map(|column| self.family(column));
        let families: Vec<_> = families.iter().collect();
        self.rocks.flush_cfs_opt(&families, &options).map_err(|error| self.error(error))
    }

    /// Rewrites the files so that space held by rows that are gone is given back.
    pub(super) fn compact(&self) {
        let mut options = CompactOptions::default();
        // Its own compactions go on meanwhile, or writers would be held up.
        options.set_exclusive_manual_compaction(false);
        options.set_bottommost_level_compaction(BottommostLevelCompaction::ForceOptimized);
        for column in Column::ALL {
            let family = self.family(column);
            self.rocks.compact_range_cf_opt(family, None::<&[u8]>, None::<&[u8]>, &options);
        }
    }

    /// How often a flush or compaction has failed since the database was opened.
    pub(super) fn background_errors(&self) -> Result<u64, Error> {
        let count = self.rocks.property_int_value(rocksdb::properties::BACKGROUND_ERRORS);
        Ok(count.map_err(|error| self.error(error))?.unwrap_or(0))
    }

    /// Reads every row of every file, which checks the checksum of every block.
    pub(super) fn verify(&self) -> Result<(), Error> {
        for column in Column::ALL {
            let mut options = ReadOptions::default();
            options.fill_cache(false);
            options.set_readahead_size(READ_AHEAD_BYTES);
            let all = (Bound::Unbounded, Bound::Unbounded);
            let mut visit = |_: &[u8], _: &[u8]| ControlFlow::Continue(());
            self.scan_with(options, column, all, Direction::Ascending, &mut visit)?;
        }
        Ok(())
    }

    /// As `verify`, but goes on behind the keys of a file that is damaged, so that all such files are
    /// found.
    pub(super) fn check_blocks(&self) -> Vec<Error> {
        let mut damages = Vec::new();
        let files = match self.live_files() {
            Ok(files) => files,
            Err(error) => return vec![error],
        };
        for column in Column::ALL {
            let mut from = Bound::Unbounded;
            loop {
                let mut options = ReadOptions::default();
                options.fill_cache(false);
                options.set_readahead_size(READ_AHEAD_BYTES);
                let bounds = (from.as_ref().map(|key: &Vec<u8>| &key[..]), Bound::Unbounded);
                let mut visit = |_: &[u8], _: &[u8]| ControlFlow::Continue(());
                let scanned =
                    self.scan_with(options, column, bounds, Direction::Ascending, &mut visit);
                let Err(error) = scanned else { break };
                let detail = error.to_string();
                damages.push(error);
                let of_column = |file: &&LiveFile| {
                    file.column_family_name == column_name(column)
                        && detail.contains(file.name.trim_start_matches('/'))
                };
                let end = files.iter().find(of_column).and_then(|file| file.end_key.clone());
                let is_further = |end: &Vec<u8>| match &from {
                    Bound::Excluded(before) => end > before,
                    Bound::Included(_) | Bound::Unbounded => true,
                };
                match end.filter(is_further) {
                    Some(end) => from = Bound::Excluded(end),
                    None => break,
                }
            }
        }
        damages
    }

    /// The files with rows.
    pub(super) fn live_files(&self) -> Result<Vec<LiveFile>, Error> {
        self.rocks.live_files().map_err(|error| self.error(error))
    }

    pub(super) fn sizes(&self) -> Result<Sizes, Error> {
        let mut sizes = Sizes { total: 0, in_use: 0 };
        for column in Column::ALL {
            let property = |name| {
                let value = self.rocks.property_int_value_cf(self.family(column), name);
                let value = value.map_err(|error| self.error(error))?;
                Ok::<u64, Error>(value.unwrap_or(0))
            };
            let unflushed = property(CUR_SIZE_ALL_MEM_TABLES)?;
            sizes.total += property(TOTAL_SST_FILES_SIZE)? + unflushed;
            sizes.in_use += property(ESTIMATE_LIVE_DATA_SIZE)? + unflushed;
        }
        // The estimate counts some rows twice while RocksDB has not merged them.
        sizes.in_use = sizes.in_use.min(sizes.total);
        Ok(sizes)
    }

    pub(super) fn open_views(&self) -> u64 {
        let count = self.rocks.property_int_value(rocksdb::properties::NUM_SNAPSHOTS);
        count.ok().flatten().unwrap_or(0)
    }

    /// Bytes that the files of a column take for each of these spans, and what is in its files as a
    /// whole: bytes, rows, and bytes of rows before they were compressed; then bytes and rows that
    /// are not in files yet.
    pub(super) fn approximate(
        &self,
        column: Column,
        spans: &[(Bytes, Option<Bytes>)],
    ) -> Result<(Vec<u64>, Contents), Error> {
        let family = self.family(column);
        let ranges: Vec<rocksdb::Range<'_>> = spans
            .iter()
            .map(|(from, to)| rocksdb::Range::new(from, to.as_deref().unwrap_or(&KEY_MAX)))
            .collect();
        let sizes = self.rocks.get_approximate_sizes_cf(family, &ranges);
        let number = |name| {
            let value = self.rocks.property_int_value_cf(family, name);
            Ok::<u64, Error>(value.map_err(|error| self.error(error))?.unwrap_or(0))
        };
        let tables = self.rocks.property_value_cf(family, AGGREGATED_TABLE_PROPERTIES);
        let tables = tables.map_err(|error| self.error(error))?.unwrap_or_default();
        let of_tables = |name: &str| {
            let value = tables.split(';').find_map(|it| it.trim().strip_prefix(name));
            value.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
        };
        let contents = Contents {
            files_bytes: number(TOTAL_SST_FILES_SIZE)?,
            rows: of_tables("# entries="),
            rows_bytes: of_tables("raw key size=") + of_tables("raw value size="),
            memory_bytes: number(CUR_SIZE_ALL_MEM_TABLES)?,
            memory_rows: number(NUM_ENTRIES_ACTIVE_MEM_TABLE)?
                + number(NUM_ENTRIES_IMM_MEM_TABLES)?,
        };
        Ok((sizes, contents))
    }

    /// Visits the rows of a column in ascending order, the first with a key not below `from`.
    pub(super) fn visit_from(
        &self,
        column: Column,
        from: &[u8],
        visit: Visit<'_>,
    ) -> Result<(), Error> {
        let bounds = (Bound::Included(from), Bound::Unbounded);
        self.scan_with(ReadOptions::default(), column, bounds, Direction::Ascending, visit)
    }

    /// A fixed moment of this database.
    pub(super) fn moment(&self) -> Moment<'_> {
        Moment { database: self, snapshot: self.rocks.snapshot() }
    }

    fn get_with(
        &self,
        options: &ReadOptions,
        column: Column,
        key: &[u8],
    ) -> Result<Option<Bytes>, Error> {
        let value = self.rocks.get_pinned_cf_opt(self.family(column), key, options);
        let value = value.map_err(|error| self.error(error))?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn scan_with(
        &self,
        mut options: ReadOptions,
        column: Column,
        (from, to): (Bound<&[u8]>, Bound<&[u8]>),
        direction: Direction,
        visit: Visit<'_>,
    ) -> Result<(), Error> {
        let lower = match from {
            Bound::Included(key) => key.to_vec(),
            Bound::Excluded(key) => key_after(key),
            Bound::Unbounded => Vec::new(),
        };
        let upper = match to {
            Bound::Included(key) => Some(key_after(key)),
            Bound::Excluded(key) => Some(key.to_vec()),
            Bound::Unbounded => None,
        };
        if upper.as_ref().is_some_and(|upper| *upper <= lower) {
            return Ok(());
        }
        options.set_iterate_lower_bound(lower);
        if let Some(upper) = upper {
            options.set_iterate_upper_bound(upper);
        }
        let mut rows = self.rocks.raw_iterator_cf_opt(self.family(column), options);
        match direction {
            Direction::Ascending => rows.seek_to_first(),
            Direction::Descending => rows.seek_to_last(),
        }
        while let Some((key, value)) = rows.item() {
            if visit(key, value).is_break() {
                break;
            }
            match direction {
                Direction::Ascending => rows.next(),
                Direction::Descending => rows.prev(),
            }
        }
        // The rows end both at the last one and at one that cannot be read.
        rows.status().map_err(|error| self.error(error))
    }

    fn family(&self, column: Column) -> &ColumnFamily {
        self.rocks.cf_handle(column_name(column)).expect("every column was opened")
    }

    fn error(&self, error: rocksdb::Error) -> Error {
        Error::rocks(&self.place.path, error)
    }
}

impl View for Database {
    fn get(&self, column: Column, key: &[u8]) -> Result<Option<Bytes>, ViewError> {
        Ok(self.get_with(&ReadOptions::default(), column, key)?)
    }

    fn scan(
        &self,
        column: Column,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        visit: Visit<'_>,
    ) -> Result<(), ViewError> {
        let options = ReadOptions::default();
        Ok(self.scan_with(options, column, (from, to), Direction::Ascending, visit)?)
    }

    fn scan_back(
        &self,
        column: Column,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        visit: Visit<'_>,
    ) -> Result<(), ViewError> {
        let options = ReadOptions::default();
        Ok(self.scan_with(options, column, (from, to), Direction::Descending, visit)?)
    }
}

/// A view that stays as it was when it was taken.
pub(super) struct Moment<'a> {
    database: &'a Database,
    snapshot: Snapshot<'a>,
}

impl Moment<'_> {
    /// Long reads of a moment leave the cache to the short reads of the present.
    fn options(&self) -> ReadOptions {
        let mut options = ReadOptions::default();
        options.set_snapshot(&self.snapshot);
        options.fill_cache(false);
        options
    }
}

impl View for Moment<'_> {
    fn get(&self, column: Column, key: &[u8]) -> Result<Option<Bytes>, ViewError> {
        Ok(self.database.get_with(&self.options(), column, key)?)
    }

    fn scan(
        &self,
        column: Column,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        visit: Visit<'_>,
    ) -> Result<(), ViewError> {
        let (options, direction) = (self.options(), Direction::Ascending);
        Ok(self.database.scan_with(options, column, (from, to), direction, visit)?)
    }

    fn scan_back(
        &self,
        column: Column,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        visit: Visit<'_>,
    ) -> Result<(), ViewError> {
        let (options, direction) = (self.options(), Direction::Descending);
        Ok(self.database.scan_with(options, column, (from, to), direction, visit)?)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.is_retired.load(Ordering::Relaxed)
            && let Err(error) = remove_dir(&self.path)
        {
            // Only space is lost, until the next start removes it.
            tracing::warn!(%error, "a replaced generation of the store could not be removed");
        }
    }
}

/// The directory of the generation that HEAD names.
fn whole_generation_dir(dir: &Dir, generation: u64) -> Result<PathBuf, Error> {
    let path = generation_dir(&dir.path, generation);
    if path.is_dir() {
        return Ok(path);
    }
    Err(Error::damaged(&path, "the directory of the current data is missing"))
}

/// The generations whose directories exist.
pub(super) fn generations(dir: &Path) -> Result<Vec<u64>, Error> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(Error::io(dir))? {
        let name = entry.map_err(Error::io(dir))?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(DIR_PREFIX));
        found.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    Ok(found)
}

/// Removes a generation that nothing refers to.
pub(super) fn remove_generation(dir: &Path, generation: u64) -> Result<(), Error> {
    remove_dir(&generation_dir(dir, generation))
}

fn generation_dir(dir: &Path, generation: u64) -> PathBuf {
    dir.join(format!("{DIR_PREFIX}{generation}"))
}

fn remove_dir(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io(path)(error)),
        _ => Ok(()),
    }
}

/// The first key in order after `key`.
fn key_after(key: &[u8]) -> Vec<u8> {
    let mut after = Vec::with_capacity(key.len() + 1);
    after.extend_from_slice(key);
    after.push(0);
    after
}
