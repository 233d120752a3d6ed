//! What `flotilla verify` has to say: a line for each finding and each note, then figures.

use std::fmt;
use std::time::{Duration, Instant};

use flotilla_core::verify::Report;
use flotilla_core::view::Column;
use flotilla_placement::units::Bytes;

use crate::wal::Inspection;

/// What is wrong with the files, in one word that an operator can look up. What is wrong with what is
/// in them is a `flotilla_core::verify::Kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Damage {
    /// A file of the log cannot be read, or is not what was written.
    Log,
    /// The log of a store is not there.
    LogMissing,
    /// A file of the store cannot be read, or is not what was written.
    Store,
    /// The store of a log is not there.
    StoreMissing,
    /// Whose the directory is cannot be told, or is told twice.
    Identity,
}

impl Damage {
    /// As in docs/verify.md.
    fn name(self) -> &'static str {
        match self {
            Self::Log => "log-damaged",
            Self::LogMissing => "log-missing",
            Self::Store => "store-damaged",
            Self::StoreMissing => "store-missing",
            Self::Identity => "identity",
        }
    }
}

/// What was looked at, and what was found.
#[derive(Debug)]
pub(super) struct Summary {
    findings: Vec<String>,
    notes: Vec<String>,
    log: [u64; 4],
    store_bytes: u64,
    store_files: usize,
    report: Report,
    started: Instant,
    took: Duration,
}

impl Summary {
    pub(super) fn begin() -> Self {
        Self {
            findings: Vec::new(),
            notes: Vec::new(),
            log: [0; 4],
            store_bytes: 0,
            store_files: 0,
            report: Report::default(),
            started: Instant::now(),
            took: Duration::ZERO,
        }
    }

    pub(super) fn end(&mut self) {
        self.took = self.started.elapsed();
    }

    pub(super) fn is_clean(&self) -> bool {
        self.findings.is_empty() && self.report.is_clean()
    }

    pub(super) fn find(&mut self, damage: Damage, text: impl fmt::Display) {
        self.findings.push(format!("{}: {}", damage.name(), one_line(text)));
    }

    pub(super) fn note(&mut self, text: impl fmt::Display) {
        self.notes.push(one_line(text));
    }

    pub(super) fn set_log(&mut self, log: &Inspection) {
        self.log = [log.segments_count, log.frames_count, log.records_count, log.bytes];
    }

    pub(super) fn set_store(&mut self, bytes: u64, files: usize) {
        (self.store_bytes, self.store_files) = (bytes, files);
    }

    pub(super) fn set_report(&mut self, report: Report) {
        self.report = report;
    }

    fn findings_count(&self) -> u64 {
        let listed = self.findings.len() + self.report.findings.len();
        listed as u64 + self.report.unlisted_count
    }
}

/// RocksDB's words may go over several.
fn one_line(text: impl fmt::Display) -> String {
    text.to_string().replace(['\n', '\r'], " ")
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { report, .. } = self;
        for finding in &self.findings {
            writeln!(f, "found: {finding}")?;
        }
        for finding in &report.findings {
            writeln!(f, "found: {}", one_line(finding))?;
        }
        if report.unlisted_count > 0 {
            writeln!(f, "found: {} more of the kind", report.unlisted_count)?;
        }
        for note in self.notes.iter().chain(&report.notes) {
            writeln!(f, "note: {note}")?;
        }
        let [segments, frames, records, bytes] = self.log;
        let bytes = Bytes(bytes);
        writeln!(f, "log: {segments} segments, {frames} frames, {records} records, {bytes}")?;
        let (groups, entries) = (report.groups_count, report.entries_count);
        writeln!(f, "groups: {groups}, with {entries} entries")?;
        let names = ["keys", "revisions", "history", "attachments to leases", "meta"];
        let rows = Column::ALL.map(|column| report.rows_count[column as usize]);
        let rows: Vec<String> =
            names.iter().zip(rows).map(|(name, count)| format!("{count} {name}")).collect();
        let (files, bytes) = (self.store_files, Bytes(self.store_bytes));
        writeln!(f, "store: {files} files, {bytes}; rows: {}", rows.join(", "))?;
        let seconds = self.took.as_secs_f64();
        writeln!(f, "{} findings in {seconds:.3} s", self.findings_count())
    }
}
