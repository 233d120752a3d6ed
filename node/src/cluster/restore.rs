//! From a backup to a data directory with which a founder of a new cluster starts.
//!
//! Each founder restores from the same file. All of them come to the same state, and to a cluster id
//! that depends on it: who restored from another file belongs to another cluster.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use flotilla_core::NodeId;
use flotilla_core::image::{self, Change, Facts, Source};
use flotilla_core::membership::identity;
use flotilla_core::mvcc::{self, Loader};
use flotilla_core::spine::State;
use flotilla_core::view::Batch;
use tempfile::TempDir;

use super::bootstrap::{self, Founder};
use crate::config::Config;
use crate::failpoint::Failpoint;
use crate::store::{self, Store};
use crate::wal;

/// Bytes of keys and values in a batch.
const BATCH_BYTES: usize = 4 << 20;
/// Changes in a batch.
const BATCH_CHANGES: usize = 10_000;

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The backup cannot be read.
    #[error(transparent)]
    Image(#[from] image::Error),
    /// The configuration names no founder of a cluster.
    #[error(transparent)]
    Bootstrap(#[from] bootstrap::Error),
    /// What was restored cannot be written.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The log cannot be made.
    #[error(transparent)]
    Wal(#[from] wal::Error),
    /// The backup's revision and what is added to it are too high.
    #[error("there is no revision {0} revisions after {1}")]
    RevisionTooHigh(i64, i64),
    /// There is something already.
    #[error("{0} is there already and not empty: nothing was changed")]
    Occupied(PathBuf),
    /// The cluster is to begin with ranges.
    #[error("a restored cluster begins with one range: --initial-split-keys is for new ones")]
    SplitKeys,
    /// A directory cannot be made or named.
    #[error("{0}: {1}")]
    Io(PathBuf, io::Error),
}

/// What was restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The member.
    pub node: NodeId,
    /// The new cluster.
    pub cluster_id: u64,
    /// With which it begins.
    pub revision: i64,
    /// With which it begins.
    pub compact_revision: i64,
    /// (kind, member) of alarms that were active. They spoke of members that are no more.
    pub alarms: BTreeSet<(i32, u64)>,
}

/// Restores a backup into the directories of a configuration. The new cluster is so many revisions
/// later than the backup, and compacted up to there; zero keeps revision and history. `digest` is
/// of the whole backup. Either the directories are complete afterwards, or as they were before.
///
/// # Errors
/// See `Error`.
pub fn restore(
    config: &Config,
    backup: &impl Source,
    digest: &[u8],
    bump: i64,
) -> Result<Restored, Error> {
    if !config.initial_split_keys.is_empty() {
        return Err(Error::SplitKeys);
    }
    let founder = Founder::new(config)?;
    let has_own_wal_dir = !config.wal_dir.starts_with(&config.data_dir);
    let mut targets = vec![config.data_dir.as_path()];
    targets.extend(has_own_wal_dir.then_some(config.wal_dir.as_path()));
    targets.iter().try_for_each(|target| ensure_free(target))?;
    let drafts: Vec<TempDir> = targets.iter().map(|it| beside(it)).collect::<Result<_, _>>()?;

    let data_dir = drafts[0].path();
    let store_dir = data_dir.join("member").join("store");
    let store = store::open(&store::Options::new(store_dir))?;
    let restored = fill(&store, backup, config, &founder, digest, bump)?;
    store.close()?;
    Failpoint::RestoreFilled.reached();
    // An empty log: it is the one of a founder that went down as soon as it had begun.
    let wal_dir = match config.wal_dir.strip_prefix(&config.data_dir) {
        Ok(within) => data_dir.join(within),
        Err(_) => drafts[1].path().to_owned(),
    };
    let options = wal::Options::new(wal_dir);
    let (wal, _) = wal::open(options, Box::new(|_| {}), Box::new(|_| {}))?;
    wal.close();
    // The data directory last: without it the member has not begun.
    for (draft, target) in drafts.into_iter().zip(targets).rev() {
        give_name(draft, target)?;
    }
    Ok(restored)
}

/// Writes everything into an empty store.
fn fill(
    store: &Store,
    backup: &impl Source,
    config: &Config,
    founder: &Founder,
    digest: &[u8],
    bump: i64,
) -> Result<Restored, Error> {
    let Facts { leases, auth, alarms, compact_revision, .. } = backup.facts()?;
    let last = load(store, backup, &leases.keys().copied().collect())?;
    let found = last.max(compact_revision).max(backup.revision_min());
    let too_high = || Error::RevisionTooHigh(bump, found);
    let revision = found.checked_add(bump).filter(|it| *it < i64::MAX / 2).ok_or_else(too_high)?;
    let compact_revision = if bump > 0 { revision } else { compact_revision };

    let mut salt = digest.to_vec();
    salt.extend_from_slice(&bump.to_be_bytes());
    let founded = identity::cluster_id(&founder.ids(), &[], config.range_replicas);
    let cluster_id = identity::restored_cluster_id(founded, &salt);
    let mut state = State::bootstrap(cluster_id, founder.members.clone());
    state.want_replicas(config.range_replicas);
    state.restore(revision, compact_revision, leases, auth);
    let mut batch = Batch::default();
    state.write_all(&mut batch);
    mvcc::note_compacted(compact_revision, &mut batch);
    bootstrap::write_identity(&mut batch, founder.node, cluster_id);
    store.apply(&batch)?;
    store.flush()?;
    Ok(Restored { node: founder.node, cluster_id, revision, compact_revision, alarms })
}

/// Writes the history. Gives the revision of the last change; 0 if there is none.
fn load(store: &Store, backup: &impl Source, leases: &BTreeSet<i64>) -> Result<i64, Error> {
    let mut last = 0;
    let mut loader = Loader::new(store, leases);
    let mut batch = Batch::default();
    let (mut bytes, mut changes) = (0, 0);
    let mut result = Ok(());
    backup.visit_changes(&mut |change: Change<'_>| {
        last = change.revision.main;
        if !change.kv.is_empty() {
            bytes += change.kv.len();
            changes += 1;
            result = loader.add(&change, &mut batch).map_err(bootstrap::Error::from);
        }
        if result.is_ok() && (bytes >= BATCH_BYTES || changes >= BATCH_CHANGES) {
            (bytes, changes) = (0, 0);
            result = store.apply(&std::mem::take(&mut batch)).map_err(bootstrap::Error::from);
            Failpoint::RestoreBatch.reached();
            loader = Loader::new(store, leases);
        }
        if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    result?;
    store.apply(&batch)?;
    Ok(last)
}

/// Nothing is there, or an empty directory.
fn ensure_free(target: &Path) -> Result<(), Error> {
    match fs::read_dir(target).map(|mut found| found.next().is_none()) {
        Ok(true) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(false) => Err(Error::Occupied(target.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            Err(Error::Occupied(target.to_owned()))
        }
        Err(error) => Err(Error::Io(target.to_owned(), error)),
    }
}

/// A directory beside a target, which goes when it is dropped.
fn beside(target: &Path) -> Result<TempDir, Error> {
    let parent = parent(target);
    fs::create_dir_all(&parent).map_err(|error| Error::Io(parent.clone(), error))?;
    let made = tempfile::Builder::new().prefix(".restoring-").tempdir_in(&parent);
    made.map_err(|error| Error::Io(parent, error))
}

fn give_name(draft: TempDir, target: &Path) -> Result<(), Error> {
    let at = |error| Error::Io(target.to_owned(), error);
    sync_all(draft.path()).map_err(at)?;
    Failpoint::RestoreBeforeName.reached();
    // An empty directory is replaced.
    fs::rename(draft.path(), target).map_err(at)?;
    // It has another name by now.
    let _ = draft.keep();
    File::open(parent(target)).and_then(|dir| dir.sync_all()).map_err(at)
}

/// Makes the names in a directory, and in those within it, durable.
fn sync_all(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_all(&entry.path())?;
        }
    }
    File::open(dir)?.sync_all()
}

fn parent(target: &Path) -> PathBuf {
    match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}
