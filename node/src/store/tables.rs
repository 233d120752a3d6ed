//! Received rows as files that RocksDB takes over as they are: putting them into the store costs the
//! apply thread no more than a few small flushes, however many they are, and other groups wait no
//! longer than that. They are written by whoever receives.

use std::fs;
use std::ops::{Bound, ControlFlow};
use std::path::{Path, PathBuf};

use flotilla_core::GroupId;
use flotilla_core::snapshot::{Install, Scope};
use flotilla_core::view::{Column, View};
use rocksdb::{IngestExternalFileOptions, SstFileWriter};

use super::Error;
use super::database::Database;
use super::head::sync_dir;
use super::tuning::Tuning;
use crate::failpoint::Failpoint;

/// A file is ended after so many bytes, before its last block.
const TABLE_BYTES: u64 = if cfg!(test) { 16 << 10 } else { 64 << 20 };
/// Their directory, in that of the received generation.
const DIR: &str = "tables";

/// The rows of a received snapshot, column by column, in the order in which they are to be put into a
/// store.
pub(super) struct Tables(Vec<(Column, Vec<PathBuf>)>);

impl Tables {
    /// Writes them, durable on return. `None` if the rows are not those of a range alone.
    ///
    /// # Errors
    /// A row is not of the range, or the disk refuses.
    pub(super) fn write(
        received: &Database,
        group: GroupId,
        tuning: &Tuning,
    ) -> Result<Option<Self>, Error> {
        if group == GroupId::SPINE {
            return Ok(None);
        }
        let Some(scope) = Scope::of_install(received, received, group)? else { return Ok(None) };
        let dir = received.dir().join(DIR);
        fs::create_dir(&dir).map_err(Error::io(&dir))?;
        let mut tables = Vec::new();
        for column in Install::COPIED {
            tables.push((column, write_column(received, column, &scope, &dir, tuning)?));
        }
        sync_dir(&dir)?;
        Ok(Some(Self(tables)))
    }

    /// Puts them into a store, durable on return: of a crash in between, every column is left whole or
    /// not at all, and none before the one ahead of it.
    ///
    /// # Errors
    /// RocksDB refuses.
    pub(super) fn put_into(self, database: &Database) -> Result<(), Error> {
        let mut options = IngestExternalFileOptions::default();
        options.set_move_files(true);
        for (column, paths) in self.0 {
            if !paths.is_empty() {
                database.ingest(column, &options, paths)?;
            }
            Failpoint::InstallBetweenFiles.reached();
        }
        Ok(())
    }
}

fn write_column(
    received: &Database,
    column: Column,
    scope: &Scope,
    dir: &Path,
    tuning: &Tuning,
) -> Result<Vec<PathBuf>, Error> {
    let options = tuning.column(column);
    let mut paths: Vec<PathBuf> = Vec::new();
    let mut writer: Option<SstFileWriter<'_>> = None;
    let mut failure = None;
    let rocks = |path: &Path| {
        let path = path.to_path_buf();
        move |error| Error::rocks(&path, error)
    };
    let mut add = |key: &[u8], value: &[u8]| -> Result<(), Error> {
        if !scope.holds(column, key, value)? {
            return Err(Error::Row(format!("a snapshot holds a row of others: {key:02x?}")));
        }
        if let Some(mut full) = writer.take_if(|writer| writer.file_size() >= TABLE_BYTES) {
            full.finish().map_err(rocks(dir))?;
        }
        if writer.is_none() {
            let path = dir.join(format!("{column:?}-{}.sst", paths.len()));
            let next = SstFileWriter::create(options);
            next.open(&path).map_err(rocks(&path))?;
            paths.push(path);
            writer = Some(next);
        }
        writer.as_mut().expect("it was just made").put(key, value).map_err(rocks(dir))
    };
    received.scan(column, Bound::Unbounded, Bound::Unbounded, &mut |key, value| {
        failure = add(key, value).err();
        if failure.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    if let Some(error) = failure {
        return Err(error);
    }
    if let Some(mut last) = writer {
        last.finish().map_err(rocks(dir))?;
    }
    Ok(paths)
}
