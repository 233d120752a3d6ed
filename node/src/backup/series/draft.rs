//! An increment that is being written: as a file without a name, until it is whole.

use std::collections::BTreeMap;
use std::io::{BufWriter, Write};

use anyhow::Context;
use flotilla_core::image::catalog::Run;
use flotilla_core::image::increment;
use flotilla_proto::mvccpb::Event;
use tempfile::NamedTempFile;

use super::directory::Directory;

/// An increment that is being written.
pub(super) struct Draft {
    pub(super) first: i64,
    pub(super) writer: increment::Writer,
    file: BufWriter<NamedTempFile>,
    pub(super) bytes: u64,
    /// The last change ends its revision.
    pub(super) is_whole: bool,
}

impl Draft {
    pub(super) fn new(directory: &Directory, cluster_id: u64, first: i64) -> anyhow::Result<Self> {
        let (writer, head) = increment::Writer::new(cluster_id, first)?;
        let mut file = BufWriter::new(directory.draft()?);
        file.write_all(&head)?;
        Ok(Self { first, writer, file, bytes: head.len() as u64, is_whole: true })
    }

    pub(super) fn add(
        &mut self,
        time_ms: u64,
        events: Vec<Event>,
        is_whole: bool,
    ) -> anyhow::Result<()> {
        let frame = self.writer.add(time_ms, events).context("the node left changes out")?;
        self.file.write_all(&frame)?;
        self.bytes += frame.len() as u64;
        self.is_whole = is_whole;
        Ok(())
    }

    /// Adds the end, and gives the increment its name. Gives its bytes.
    pub(super) fn finish(
        self,
        directory: &Directory,
        auth_revision: u64,
        ttls: &BTreeMap<i64, i64>,
    ) -> anyhow::Result<u64> {
        let run = Run { first: self.first, last: self.writer.last() };
        let end = self.writer.finish(auth_revision, ttls);
        let mut file = self.file.into_inner().map_err(|error| error.into_error())?;
        file.write_all(&end)?;
        directory.add_increment(file, run)?;
        Ok(self.bytes + end.len() as u64)
    }
}
