//! How RocksDB is set up: the budgets a node gives it, and what suits each column.
//! The numbers were chosen by measurement; docs/decisions/0002-store.md has the figures.

use std::path::PathBuf;

use flotilla_core::view::Column;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DBCompressionType, InfoLogger, LogLevel,
    WriteBufferManager,
};

/// Bytes of memory for blocks read from disk, rows that are not flushed yet and rows that were written
/// lately, together.
pub const MEMORY_BYTES_DEFAULT: usize = 256 << 20;
/// Bytes of it that rows not flushed yet may take. Writers wait for the disk at about that.
pub const WRITE_BUFFER_BYTES_DEFAULT: usize = 128 << 20;
/// Bytes a second that flushes and compactions may write at most.
pub const WRITE_RATE_BYTES_DEFAULT: u64 = 256 << 20;
/// Files held open. Each holds its index and filter in memory beside `memory_bytes`: about 0.4 %
/// of the data in it, 1 MiB at most.
pub const OPEN_FILES_MAX_DEFAULT: u32 = 512;

/// The part of the memory that is for rows that were written lately.
const RECENT_SHARE: usize = 16;
/// Threads for flushes and compactions, for all stores of the process.
const BACKGROUND_JOBS_MAX: i32 = 2;
/// One compaction never spreads over several threads: they would take both cores of a small node.
const SUBCOMPACTIONS_MAX: u32 = 1;
/// The rate limiter hands out its budget this often.
const RATE_PERIOD_US: i64 = 100_000;
/// How often compaction may go before a waiting flush: once in so many times.
const RATE_FAIRNESS: i32 = 10;
/// A column begins to flush, and all others with it, when it takes this part of the budget for
/// unflushed rows. The two large columns fill alike, so two thirds of the budget are left for what
/// arrives meanwhile.
const FLUSH_SHARE: usize = 6;
/// So many such parts of a column waiting for the disk stop writers: the budget is used up.
const FLUSHES_WAITING_MAX: i32 = 2;
/// Flushed files that wait before they are merged into the sorted levels, which rewrites what they
/// overlap with. More make writing cheaper and reading dearer.
const UNSORTED_FILES: i32 = 6;
/// So many unsorted files slow writers down, and so many stop them.
const UNSORTED_FILES_SLOW: i32 = 24;
const UNSORTED_FILES_STOP: i32 = 40;
/// A file being written is pushed to the disk in pieces, or the log's small flushes would wait
/// behind the whole of it.
const SYNC_EVERY_BYTES: u64 = 1 << 20;
/// Bytes of one file after a compaction.
const FILE_BYTES: u64 = 64 << 20;
/// Bytes of the first sorted level.
const FIRST_LEVEL_BYTES: u64 = 256 << 20;
/// Bytes after which RocksDB begins a new list of its files.
const MANIFEST_BYTES_MAX: usize = 16 << 20;
/// Bits of filter a key: one in a hundred lookups of an absent key reads a block in vain.
const FILTER_BITS: f64 = 10.0;
/// Share of a write buffer that is spent on a filter over its keys.
const BUFFER_FILTER_SHARE: f64 = 0.02;
/// A file is compacted early where of this many neighbouring rows...
const TOMBSTONE_WINDOW: usize = 4096;
/// ...so many only delete others: reads would step over them and their space is not given back.
const TOMBSTONES_MAX: usize = 2048;
/// RocksDB's own format of its table files. Fixed, so that a new library does not write files
/// that the version before it cannot read.
const TABLE_FORMAT: i32 = 7;

/// Where a store is and what it may use.
#[derive(Clone, Debug)]
pub struct Options {
    /// The directory that holds nothing but the store. Made if it is missing.
    pub dir: PathBuf,
    /// Bytes of memory for cached blocks, unflushed rows and rows that were written lately, together.
    pub memory_bytes: usize,
    /// Bytes of `memory_bytes` for unflushed rows.
    pub write_buffer_bytes: usize,
    /// Bytes a second for flushes and compactions together.
    pub write_rate_bytes: u64,
    /// Files held open.
    pub open_files_max: u32,
}

impl Options {
    /// A store in `dir` with the default budgets.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            memory_bytes: MEMORY_BYTES_DEFAULT,
            write_buffer_bytes: WRITE_BUFFER_BYTES_DEFAULT,
            write_rate_bytes: WRITE_RATE_BYTES_DEFAULT,
            open_files_max: OPEN_FILES_MAX_DEFAULT,
        }
    }

    /// Bytes of `memory_bytes` for rows that were written lately.
    pub(super) fn recent_bytes(&self) -> usize {
        self.memory_bytes / RECENT_SHARE
    }
}

/// RocksDB's options, built once for a store: its generations share the memory and the rate.
pub(super) struct Tuning {
    database: rocksdb::Options,
    columns: Vec<(Column, rocksdb::Options)>,
}

impl Tuning {
    pub(super) fn new(options: &Options) -> Self {
        let blocks_bytes = options.memory_bytes - options.recent_bytes();
        let cache = Cache::new_hyper_clock_cache(blocks_bytes, 0);
        // Unflushed rows are charged to the cache, which then holds fewer blocks. This must not be
        // what stops writers: a generation that waits for its next rows could stop them for good.
        let buffers = WriteBufferManager::new_write_buffer_manager_with_cache(
            options.write_buffer_bytes,
            false,
            cache.clone(),
        );
        let columns = Column::ALL
            .into_iter()
            .map(|column| (column, column_options(column, options, &cache)))
            .collect();
        Self { database: database_options(options, &buffers), columns }
    }

    /// For a generation that is being made.
    pub(super) fn to_create(&self) -> rocksdb::Options {
        let mut database = self.database.clone();
        database.create_if_missing(true);
        database.set_error_if_exists(true);
        database.create_missing_column_families(true);
        database
    }

    /// For a generation that must be there.
    pub(super) fn to_open(&self) -> rocksdb::Options {
        self.database.clone()
    }

    /// For files of a column's rows.
    pub(super) fn column(&self, column: Column) -> &rocksdb::Options {
        let found = self.columns.iter().find(|(it, _)| *it == column);
        &found.expect("every column has its options").1
    }

    pub(super) fn columns(&self) -> impl Iterator<Item = ColumnFamilyDescriptor> + '_ {
        self.columns.iter().map(|(column, options)| {
            ColumnFamilyDescriptor::new(column_name(*column), options.clone())
        })
    }
}

/// The name of a column's family in RocksDB; part of the format.
pub(super) const fn column_name(column: Column) -> &'static str {
    match column {
        Column::Key => "key",
        Column::Revision => "revision",
        Column::History => "history",
        Column::LeaseKey => "lease_key",
        Column::Meta => "meta",
    }
}

fn database_options(options: &Options, buffers: &WriteBufferManager) -> rocksdb::Options {
    let mut database = rocksdb::Options::default();
    // All columns reach the disk up to one and the same batch. Together with a log that is never
    // written this is the whole of crash safety: the newest batches may be lost, never half of one.
    database.set_atomic_flush(true);
    database.set_paranoid_checks(true);
    database.set_write_buffer_manager(buffers);
    database.set_max_background_jobs(BACKGROUND_JOBS_MAX);
    database.set_max_subcompactions(SUBCOMPACTIONS_MAX);
    let rate = i64::try_from(options.write_rate_bytes).unwrap_or(i64::MAX);
    // A fixed rate: one that tunes itself was seen to hold flushes back for seconds.
    database.set_ratelimiter(rate, RATE_PERIOD_US, RATE_FAIRNESS);
    database.set_bytes_per_sync(SYNC_EVERY_BYTES);
    database.set_max_open_files(i32::try_from(options.open_files_max).unwrap_or(i32::MAX));
    // A start must not read every file for figures that only steer compaction.
    database.set_skip_stats_update_on_db_open(true);
    database.set_max_manifest_file_size(MANIFEST_BYTES_MAX);
    // There is one writer.
    database.set_allow_concurrent_memtable_write(false);
    database.set_stats_dump_period_sec(0);
    database.set_stats_persist_period_sec(0);
    database.set_info_logger(InfoLogger::new_callback_logger(LogLevel::Warn, |level, message| {
        match level {
            LogLevel::Error | LogLevel::Fatal => tracing::error!("RocksDB: {message}"),
            LogLevel::Warn => tracing::warn!("RocksDB: {message}"),
            // The header lists every option at each start, whatever level is asked for.
            LogLevel::Debug | LogLevel::Info | LogLevel::Header => {
                tracing::debug!("RocksDB: {message}");
            }
        }
    }));
    database
}

fn column_options(column: Column, options: &Options, cache: &Cache) -> rocksdb::Options {
    let mut family = rocksdb::Options::default();
    family.set_write_buffer_size(options.write_buffer_bytes / FLUSH_SHARE);
    family.set_max_write_buffer_number(FLUSHES_WAITING_MAX);
    family.set_level_zero_file_num_compaction_trigger(UNSORTED_FILES);
    family.set_level_zero_slowdown_writes_trigger(UNSORTED_FILES_SLOW);
    family.set_level_zero_stop_writes_trigger(UNSORTED_FILES_STOP);
    family.set_target_file_size_base(FILE_BYTES);
    family.set_max_bytes_for_level_base(FIRST_LEVEL_BYTES);
    family.set_compression_type(DBCompressionType::Lz4);
    family.add_compact_on_deletion_collector_factory(TOMBSTONE_WINDOW, TOMBSTONES_MAX, 0.0);

    let mut table = BlockBasedOptions::default();
    table.set_format_version(TABLE_FORMAT);
    table.set_block_cache(cache);
    // Indexes and filters stay in memory while their file is open. In the cache they would push
    // each other out once it is small beside the data, and every read would load one anew.
    table.set_cache_index_and_filter_blocks(false);
    table.set_optimize_filters_for_memory(true);
    match column {
        // Read by exact key before every write and for most reads; listed by span.
        Column::Key => {
            table.set_block_size(4 << 10);
            table.set_bloom_filter(FILTER_BITS, false);
            family.set_memtable_prefix_bloom_ratio(BUFFER_FILTER_SHARE);
            family.set_memtable_whole_key_filtering(true);
        }
        // Written in ascending order and read in long runs. One compression for all levels lets
        // RocksDB move its files down without rewriting them.
        Column::Revision => table.set_block_size(8 << 10),
        Column::History | Column::LeaseKey | Column::Meta => table.set_block_size(4 << 10),
    }
    family.set_block_based_table_factory(&table);
    family
}
