//! What is on the disks of a node that is down, and what is to be made of it. Changes nothing but what
//! any start would finish.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail, ensure};
use flotilla_core::recover::{Plan, Refused, plan};

use super::Subject;
use crate::store::{self, Opened};
use crate::{cluster, range, wal};

/// A plan, unless the directory is damaged, in use, or nobody's.
pub(super) fn look(subject: &Subject) -> anyhow::Result<Plan> {
    let data = subject.data.display();
    let path = subject.store();
    ensure!(path.is_dir(), "{data} is no data directory of a node");
    let store = loop {
        match store::open_read_only(&path)? {
            Opened::Nothing(_) => bail!("{data} holds no state of a node"),
            Opened::Store(store) if store.under_way()?.is_none() => break store,
            Opened::Store(store) => drop(store),
        }
        // Rows were being exchanged when the node went down: to open the store finishes that.
        store::open(&store::Options::new(&path))?.close()?;
    };
    let identity = cluster::identity(store.view())?;
    let (node, _) = identity.with_context(|| format!("{data} is no member's"))?;
    let (log, _lock) = wal::inspect(&subject.wal)?;
    if let Some(problem) = log.problems.first() {
        bail!("the log is damaged: {problem}. `flotilla verify` says what to do");
    }
    ensure!(log.segments_count > 0, "the log is missing: {}", subject.wal.display());
    let mut logs = BTreeMap::new();
    for (group, log) in log.groups.context("the log cannot be read")? {
        logs.insert(group, range::from_wal(log).map_err(anyhow::Error::msg)?);
    }
    let planned = plan(store.view(), &logs, node, subject.gives_up_lost_ranges);
    if let Err(refused @ Refused::Lost(_)) = planned {
        bail!(
            "{refused}. Their keys are lost unless another member has them: recover the member that \
             has most, or give these up (--give-up-lost-ranges): they begin anew, without a key"
        );
    }
    Ok(planned?)
}
