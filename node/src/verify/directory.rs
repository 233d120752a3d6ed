//! The data directory of a node: its log and its store, and what a start would refuse.

use std::collections::BTreeMap;

use flotilla_core::group::Recovered;
use flotilla_core::spine::State;
use flotilla_core::view::Column;
use flotilla_core::{GroupId, verify};

use super::Paths;
use super::summary::{Damage, Summary};
use crate::cluster;
use crate::range;
use crate::store::{self, Opened, ReadOnly};
use crate::wal::{self, GroupLog, Inspection};

/// Everything that is there, locked.
pub(super) struct Directory {
    store: Option<Box<ReadOnly>>,
    log: Inspection,
    _locks: Vec<Box<dyn Send>>,
}

impl Directory {
    /// Opens store and log. What is damaged is a finding; what cannot be looked at is an error.
    pub(super) fn open(paths: &Paths, summary: &mut Summary) -> anyhow::Result<Self> {
        let member = paths.data.join("member");
        anyhow::ensure!(member.is_dir(), "{} is no data directory of a node", paths.data.display());
        let mut locks: Vec<Box<dyn Send>> = Vec::new();
        let store_dir = paths.store();
        let opened =
            if store_dir.is_dir() { Some(store::open_read_only(&store_dir)) } else { None };
        let store = match opened {
            None => None,
            Some(Ok(Opened::Nothing(lock))) => {
                locks.push(Box::new(lock));
                None
            }
            Some(Ok(Opened::Store(store))) => Some(store),
            Some(Err(error @ store::Error::InUse { .. })) => return Err(error.into()),
            Some(Err(error)) => {
                summary.find(Damage::Store, error);
                None
            }
        };
        let log = if paths.wal.is_dir() {
            let (log, lock) = wal::inspect(&paths.wal)?;
            locks.push(lock);
            log
        } else {
            Inspection { groups: Some(BTreeMap::new()), ..Inspection::default() }
        };
        Ok(Self { store, log, _locks: locks })
    }

    /// Checks what was opened.
    pub(super) fn check(mut self, summary: &mut Summary) {
        summary.set_log(&self.log);
        for problem in &self.log.problems {
            summary.find(Damage::Log, problem);
        }
        if let Some(torn) = &self.log.torn_tail {
            let (path, offset) = (torn.path.display(), torn.offset);
            summary.note(format!(
                "log file {path} ends in an unfinished write at byte {offset}, as after a crash"
            ));
        }
        for name in &self.log.strangers {
            summary.note(format!("file {name} in the log's directory is none of the log's"));
        }
        let groups = self.log.groups.take();
        let Some(store) = &self.store else {
            let is_log_empty = groups.as_ref().is_none_or(BTreeMap::is_empty);
            if is_log_empty {
                summary.note("there is no store");
            } else {
                summary.find(Damage::StoreMissing, "there is a log, but the store is empty");
            }
            return;
        };
        match store.files() {
            Ok((bytes, count)) => summary.set_store(bytes, count),
            Err(error) => summary.find(Damage::Store, error),
        }
        let damages = store.check_blocks();
        let is_readable = damages.is_empty();
        for damage in damages {
            summary.find(Damage::Store, damage);
        }
        if !is_readable {
            summary.note("rows were not compared, as not all can be read");
            return;
        }
        let identity = check_identity(store, self.log.segments_count, groups.as_ref(), summary);
        match store.under_way() {
            Ok(None) => {}
            Ok(Some(group)) => {
                summary.note(format!(
                    "rows were not compared: those of group {group} were being exchanged, which the \
                     next start finishes"
                ));
                return;
            }
            Err(error) => return summary.find(Damage::Store, error),
        }
        let logs = groups.and_then(|groups| understood(groups, summary));
        if identity {
            summary.set_report(verify::verify(store.view(), logs.as_ref()));
        } else {
            check_empty(store, summary);
        }
    }
}

/// What consensus would be given of each group; `None` if that cannot be told.
fn understood(
    groups: BTreeMap<GroupId, GroupLog>,
    summary: &mut Summary,
) -> Option<BTreeMap<GroupId, Recovered>> {
    let mut logs = BTreeMap::new();
    let mut are_all_read = true;
    for (group, log) in groups {
        match range::from_wal(log) {
            Ok(log) => {
                logs.insert(group, log);
            }
            Err(text) => {
                are_all_read = false;
                summary.find(Damage::Log, format!("group {group}: {text}"));
            }
        }
    }
    are_all_read.then_some(logs)
}

/// Whether the directory is a member's; with what a start would refuse.
fn check_identity(
    store: &ReadOnly,
    segments_count: u64,
    groups: Option<&BTreeMap<GroupId, GroupLog>>,
    summary: &mut Summary,
) -> bool {
    let spine_log = groups.map(|groups| groups.contains_key(&GroupId::SPINE));
    let identity = match cluster::identity(store.view()) {
        Ok(identity) => identity,
        Err(error) => {
            summary.find(Damage::Identity, error);
            return true;
        }
    };
    let Some((_, cluster_id)) = identity else {
        if spine_log == Some(true) {
            summary.find(Damage::StoreMissing, "there is a log, but the store is empty");
        }
        return false;
    };
    if segments_count == 0 {
        summary.find(Damage::LogMissing, "the store names a member, but the log is missing");
    }
    // That the state cannot be read is found later.
    if let Ok(Some(state)) = State::load(store.view()) {
        if state.cluster_id() != cluster_id {
            let other = state.cluster_id();
            summary.find(
                Damage::Identity,
                format!("the directory names clusters {cluster_id:x} and {other:x}"),
            );
        }
        let is_young = state.position().index <= Recovered::FIRST.index;
        if segments_count > 0 && spine_log == Some(false) && !is_young {
            summary.find(
                Damage::LogMissing,
                "the store holds a state, but the log of group 0 is missing",
            );
        }
    }
    true
}

/// A store that is nobody's yet has no rows.
fn check_empty(store: &ReadOnly, summary: &mut Summary) {
    for column in Column::ALL {
        let mut is_empty = true;
        let scanned = store.view().scan(
            column,
            std::ops::Bound::Unbounded,
            std::ops::Bound::Unbounded,
            &mut |_, _| {
                is_empty = false;
                std::ops::ControlFlow::Break(())
            },
        );
        if let Err(error) = scanned {
            summary.find(Damage::Store, error);
        } else if !is_empty {
            summary.find(
                Damage::Identity,
                format!("column {column:?} has rows, but the store names no member"),
            );
        }
    }
}
