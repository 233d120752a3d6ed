//! Writing what was planned: the store first, the order's log last. Cut short anywhere, it can be begun
//! again.

use std::sync::mpsc;

use anyhow::Context as _;
use flotilla_core::group::{Append, Entry};
use flotilla_core::recover::Plan;
use flotilla_core::{GroupId, spine};

use super::Subject;
use crate::{range, store, wal};

/// Bytes of entries that are handed to the log at once; a single larger entry is, too.
const CHUNK_BYTES: usize = 4 << 20;
/// What an append to the log may be longer than the entries in it.
const APPEND_OVERHEAD_BYTES: u64 = 2 << 20;

/// Writes it all, durably.
pub(super) fn carry_out(subject: &Subject, plan: Plan) -> anyhow::Result<()> {
    let store = store::open(&store::Options::new(subject.store()))?;
    if !plan.rows.writes.is_empty() {
        store.apply(&plan.rows)?;
        store.flush()?;
    }
    let (done, reports) = mpsc::channel();
    let failed = done.clone();
    let mut options = wal::Options::new(subject.wal.clone());
    let record_bytes = spine::Limits::default().record_bytes_max.max(CHUNK_BYTES);
    options.make_room_for(record_bytes as u64 + APPEND_OVERHEAD_BYTES);
    // The receiver may have seen all that it waits for.
    let on_done = move |report: wal::Report| {
        report.done.iter().for_each(|_| drop(done.send(Ok(()))));
    };
    let on_failure = move |error: wal::Error| drop(failed.send(Err(error)));
    let (wal, _) = wal::open(options, Box::new(on_done), Box::new(on_failure))?;
    for (group, append) in plan.appends {
        for part in in_parts(append) {
            write(&wal, group, part, &reports)?;
        }
    }
    wal.close();
    store.close()?;
    Ok(())
}

fn write(
    wal: &wal::Handle,
    group: GroupId,
    append: Append,
    reports: &mpsc::Receiver<Result<(), wal::Error>>,
) -> anyhow::Result<()> {
    let append = range::to_wal(group, append);
    wal.try_append(append).map_err(|it| anyhow::anyhow!("the log refuses: {:?}", it.reason))?;
    reports.recv().context("the log's thread has ended")?.context("the log failed")
}

/// Only the last says that all of it is committed.
fn in_parts(append: Append) -> Vec<Append> {
    let Append { token, reset, hard_state, entries } = append;
    let (mut parts, mut bytes): (Vec<Vec<Entry>>, usize) = (vec![Vec::new()], 0);
    for entry in entries {
        let more = entry.memory_bytes();
        if bytes > 0 && bytes + more > CHUNK_BYTES {
            parts.push(Vec::new());
            bytes = 0;
        }
        bytes += more;
        parts.last_mut().expect("there is one").push(entry);
    }
    let last = parts.len() - 1;
    let part = |(n, entries): (usize, Vec<Entry>)| {
        let mut hard_state = hard_state;
        if n < last {
            hard_state.commit = 0;
        }
        Append { token, reset: reset.filter(|_| n == 0), hard_state, entries }
    };
    parts.into_iter().enumerate().map(part).collect()
}
