//! Tests of the log: its behaviour, its space, its thread, random histories with crashes, and
//! damage to its files. Owns the model they compare with, which is the meaning of the operations
//! written down in the plainest way.

mod behaviour;
mod costs;
mod damage;
mod fuzz;
mod history;
mod space;
mod thread;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use flotilla_proto::ids::GroupId;

use super::format::FrameKind;
use super::writer::Writer;
use super::*;
use crate::io::fake_disk::FakeDisk;

const LOG_ID: u64 = 0x1234_5678_9abc_def0;

/// What every group should remember.
type Model = BTreeMap<GroupId, GroupLog>;

/// The smallest segments there are.
fn options() -> Options {
    Options {
        segment_bytes: 64 << 10,
        batch_bytes_max: 8 << 10,
        confirm_delay: Duration::from_secs(3600),
        ..Options::new(PathBuf::from("/log"))
    }
}

fn segment_path(sequence: u64) -> PathBuf {
    PathBuf::from(format!("/log/{sequence:016x}.wal"))
}

fn open_fake(disk: &FakeDisk, options: Options) -> Result<(Writer, Recovered), Error> {
    open_writer(Box::new(disk.clone()), options, LOG_ID)
}

fn entry(index: u64, term: u64, data: &str) -> Entry {
    Entry { index, term, kind: 0, data: Bytes::copy_from_slice(data.as_bytes()) }
}

/// Entries `first` to `last`, each of `bytes` bytes that depend on everything.
fn entries(group: u64, first: u64, last: u64, term: u64, bytes: usize) -> Operation {
    let make = |index: u64| {
        let text = format!("{group}/{index}/{term} ");
        let data = text.bytes().cycle().take(bytes).collect();
        Entry { index, term, kind: index as u8, data }
    };
    Operation::Entries((first..=last).map(make).collect())
}

fn hard_state(term: u64, vote: u64, commit: u64) -> Operation {
    Operation::HardState(HardState { term, vote, commit })
}

fn append(group: u64, operations: Vec<Operation>) -> Append {
    Append { group: GroupId(group), token: 0, is_flush_needed: true, operations }
}

/// Writes one frame, as the log's thread does.
fn write(writer: &mut Writer, appends: &[Append]) -> Result<(), Error> {
    write_kind(writer, FrameKind::Data, appends)
}

fn close(writer: &mut Writer) {
    write_kind(writer, FrameKind::Close, &[]).expect("closes");
}

fn write_kind(writer: &mut Writer, kind: FrameKind, appends: &[Append]) -> Result<(), Error> {
    let sizes = appends.iter().map(|append| record::append_bytes(append).expect("a sound append"));
    let bytes = sizes.sum();
    writer.write(kind, appends, bytes)?;
    writer.free_oldest()?;
    Ok(())
}

fn apply_all(model: &mut Model, appends: &[Append]) {
    for append in appends {
        for operation in &append.operations {
            apply(model, append.group, operation);
        }
    }
}

fn apply(model: &mut Model, group: GroupId, operation: &Operation) {
    if *operation == Operation::Remove {
        model.remove(&group);
        return;
    }
    let log = model.entry(group).or_default();
    match operation {
        Operation::Entries(entries) => {
            if let Some(first) = entries.first() {
                log.entries.retain(|entry| entry.index < first.index);
            }
            log.entries.extend(entries.iter().cloned());
        }
        Operation::HardState(state) => log.hard_state = *state,
        Operation::Truncate { index, term } => {
            if *index > log.truncated.0 {
                log.truncated = (*index, *term);
                log.entries.retain(|entry| entry.index > *index);
            }
        }
        Operation::Reset { index, term } => {
            log.truncated = (*index, *term);
            log.entries.clear();
        }
        Operation::Remove => unreachable!("handled above"),
    }
}

fn last_index(log: &GroupLog) -> u64 {
    log.entries.last().map_or(log.truncated.0, |entry| entry.index)
}
