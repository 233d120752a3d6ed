//! What is left of a run: `history.jsonl` (everything that was seen), `report.json` (the verdict
//! and all numbers) and `report.html` (the same for a person, in one file that needs no other).

mod history_file;
mod html;
mod json;
mod timeline;

use std::path::Path;

use anyhow::Context as _;

use crate::history::{History, Stamp};
use crate::process::availability;
use crate::process::fault::{Class, Ground};
use crate::process::options::Options;
use crate::process::run::Run;
use crate::process::verdict::Judgement;
use crate::process::verify::Disk;

/// Everything a report is made of.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    /// How the run was asked for.
    pub options: &'a Options,
    /// The run.
    pub run: &'a Run,
    /// The faults.
    pub ground: &'a Ground,
    /// What was seen.
    pub history: &'a History,
    /// The verdict.
    pub judgement: &'a Judgement,
    /// What is on the disks of the nodes.
    pub disks: &'a [Disk],
    /// Faults that were asked for and are not possible.
    pub impossible: &'a [(Class, String)],
    /// What else is known of the surroundings.
    pub notes: &'a [String],
    /// Begin and end of the load.
    pub load: (Stamp, Stamp),
}

impl Report<'_> {
    /// Writes all files into a folder.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn write(&self, folder: &Path) -> anyhow::Result<()> {
        let operations = &self.history.operations;
        let (from, to) = self.load;
        let availability = availability::measure(operations, self.ground, from, to);
        let data = json::Data::new(self, availability);
        let json = serde_json::to_string_pretty(&data).context("numbers and text become JSON")?;
        let html = html::page(self, &data);
        let nodes = self.run.recorder.notes().nodes.clone();
        let history = history_file::lines(self.history, &nodes);
        for (name, text) in
            [("report.json", json), ("report.html", html), ("history.jsonl", history)]
        {
            let file = folder.join(name);
            std::fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
        }
        Ok(())
    }
}
