//! What a directory of backups has, and whether it is sound.

use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::path::Path;

use anyhow::bail;
use flotilla_core::image::catalog::{Catalog, Next, Run};
use flotilla_core::image::{increment, schema};

use super::super::status::human;
use super::arguments::Format;
use super::directory::{Directory, Listing};
use crate::calendar;

/// A moment in milliseconds since 1970.
pub(super) fn moment(time_ms: u64) -> String {
    let micros = u32::try_from(time_ms % 1_000 * 1_000).expect("below a million");
    calendar::moment(time_ms / 1_000, Some(micros))
}

/// Lists bases, increments and what can be restored. Reads both ends of each file.
pub(super) fn status(dir: &Path, format: Format) -> anyhow::Result<String> {
    let directory = Directory::open(dir)?;
    let listing = directory.list()?;
    match format {
        Format::Simple => simple(&directory, &listing),
        Format::Json => json(&directory, &listing),
    }
}

fn simple(directory: &Directory, listing: &Listing) -> anyhow::Result<String> {
    let mut text = String::new();
    for base in &listing.bases {
        writeln!(
            text,
            "base       {:>12} {:>12}  {}  {:>7}  cluster {:x}",
            base.compact_revision,
            base.revision,
            moment(base.time_ms),
            human(base.bytes),
            base.cluster_id
        )?;
    }
    for run in &listing.increments {
        let summary = directory.summary(*run)?;
        writeln!(
            text,
            "increment  {:>12} {:>12}  {}  {:>7}  {} changes",
            run.first,
            run.last,
            moment(summary.time_ms),
            human(std::fs::metadata(directory.increment_path(*run))?.len()),
            summary.events_count
        )?;
    }
    let catalog = listing.catalog();
    for Run { first, last } in catalog.covered() {
        writeln!(text, "can be restored: revisions {first} to {last}")?;
    }
    if let Some(hole) = hole(&catalog) {
        writeln!(text, "MISSING: {hole}")?;
    }
    for name in &listing.others {
        writeln!(text, "not a part of it: {name}")?;
    }
    Ok(text)
}

fn json(directory: &Directory, listing: &Listing) -> anyhow::Result<String> {
    let bases: Vec<serde_json::Value> = listing
        .bases
        .iter()
        .map(|base| {
            serde_json::json!({
                "revision": base.revision,
                "compactRevision": base.compact_revision,
                "time": moment(base.time_ms),
                "bytes": base.bytes,
                "cluster": format!("{:x}", base.cluster_id),
            })
        })
        .collect();
    let mut increments = Vec::new();
    for run in &listing.increments {
        let summary = directory.summary(*run)?;
        increments.push(serde_json::json!({
            "first": run.first,
            "last": run.last,
            "time": moment(summary.time_ms),
            "bytes": std::fs::metadata(directory.increment_path(*run))?.len(),
            "changes": summary.events_count,
        }));
    }
    let catalog = listing.catalog();
    let covered: Vec<serde_json::Value> = catalog
        .covered()
        .into_iter()
        .map(|Run { first, last }| serde_json::json!({ "first": first, "last": last }))
        .collect();
    let whole = serde_json::json!({
        "bases": bases,
        "increments": increments,
        "restorable": covered,
        "missing": hole(&catalog),
    });
    Ok(format!("{whole}\n"))
}

/// What is missing behind the newest base, or between what can be restored.
fn hole(catalog: &Catalog) -> Option<String> {
    match catalog.next() {
        Next::Base => return Some("there is no complete base".to_owned()),
        Next::Missing(missing) => return Some(missing.to_string()),
        Next::After(_) => {}
    }
    let covered = catalog.covered();
    let (before, after) = covered.iter().zip(covered.get(1..)?).next()?;
    Some(format!("revisions {} to {} cannot be restored", before.last + 1, after.first - 1))
}

/// Reads everything. What is found is said by name, and is an error.
pub(super) fn verify(dir: &Path) -> anyhow::Result<String> {
    let directory = Directory::open(dir)?;
    let listing = directory.list()?;
    let mut findings = Vec::new();
    let mut clusters = std::collections::BTreeSet::new();
    for base in &listing.bases {
        clusters.insert(base.cluster_id);
        let read = directory.base(base).and_then(|(reader, _)| {
            let last = schema::revision(&reader)?;
            if last != base.revision {
                bail!("it is of revision {last}");
            }
            Ok(())
        });
        if let Err(error) = read {
            findings.push(format!("{}: {error:#}", directory.base_path(base.revision).display()));
        }
    }
    let mut changes = 0;
    for run in &listing.increments {
        let read = directory.summary(*run).and_then(|summary| {
            clusters.insert(summary.cluster_id);
            let file = directory.increment(*run)?;
            Ok(increment::visit(&file, &mut |_, _| ControlFlow::Continue(()))?.events_count)
        });
        match read {
            Ok(count) => changes += count,
            Err(error) => {
                let path = directory.increment_path(*run);
                findings.push(format!("{}: {error:#}", path.display()));
            }
        }
    }
    if clusters.len() > 1 {
        findings.push(format!("it is of {} clusters", clusters.len()));
    }
    findings.extend(hole(&listing.catalog()));
    if !findings.is_empty() {
        bail!("{} findings\n{}", findings.len(), findings.join("\n"));
    }
    let mut text = format!(
        "{} bases and {} increments with {changes} changes are sound\n",
        listing.bases.len(),
        listing.increments.len()
    );
    for Run { first, last } in listing.catalog().covered() {
        writeln!(text, "can be restored: revisions {first} to {last}")?;
    }
    Ok(text)
}
