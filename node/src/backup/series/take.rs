//! Takes what a directory lacks: a base if nothing can follow on what is there, and increments.

use std::fs::File;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::{Context, anyhow, bail};
use flotilla_core::image::catalog::{Missing, Next};
use flotilla_core::image::{increment, schema};
use flotilla_proto::internal::BackupBase;
use flotilla_proto::mvccpb::KeyValue;
use prost::Message;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};

use super::super::file::{self, Hash};
use super::super::{save, status};
use super::cluster::{Cluster, Told};
use super::directory::{Directory, Listing};
use super::draft::Draft;
use super::show::moment;
use crate::ctl::Target;

/// Bytes after which an increment ends, exceeded by one message of a watch.
const INCREMENT_BYTES_MAX: u64 = 256 << 20;
/// How long nothing may come of what is known to be there.
const STALLED_AFTER: Duration = Duration::from_secs(60);
/// Between attempts, while it is followed.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// What is wanted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) dir: PathBuf,
    /// Any of them will do.
    pub(super) targets: Vec<Target>,
    /// Goes on until it is told to stop.
    pub(super) follows: bool,
    /// Of what is followed, how long changes may be in no complete increment.
    pub(super) interval: Duration,
    /// A new base is taken when the newest is older.
    pub(super) base_every: Option<Duration>,
    /// Bases that are kept. All if it is not said.
    pub(super) keep: Option<usize>,
}

/// How following ended.
enum Outcome {
    /// All there was is there.
    Reached,
    /// What comes next is compacted at this revision.
    Compacted(i64),
    /// A new base is wanted.
    BaseDue(&'static str),
    /// It was told to stop.
    Stopped,
}

/// Said with an error that another attempt, or another node, may not meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("asking the node")]
struct Asking;

/// Takes backups until the directory has all there was, or until it is told to stop.
pub(super) fn take(request: &Request) -> anyhow::Result<String> {
    let directory = Directory::create(&request.dir)?;
    let _lock = directory.lock()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let stop = on_signal()?;
        let mut taker = Taker { directory, request, stop, time_ms: 0, base: None };
        loop {
            for target in &request.targets {
                let error = match taker.run(target).await {
                    Ok(()) => return Ok(String::new()),
                    Err(error) => error.context(target.url().to_owned()),
                };
                let is_last = request.targets.last() == Some(target);
                if !error.is::<Asking>() || (is_last && !request.follows) {
                    return Err(error);
                }
                eprintln!("Error: {error:#}");
            }
            tokio::select! {
                () = sleep(TRY_AGAIN) => {}
                () = stopped(&mut taker.stop) => return Ok(String::new()),
            }
        }
    })
}

/// Becomes true when the program is asked to end.
fn on_signal() -> anyhow::Result<watch::Receiver<bool>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (tx, rx) = watch::channel(false);
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        // Nobody listens any more when everything is done.
        let _ = tx.send(true);
    });
    Ok(rx)
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|is_asked| *is_asked).await.is_err() {
        std::future::pending::<()>().await;
    }
}

struct Taker<'a> {
    directory: Directory,
    request: &'a Request,
    stop: watch::Receiver<bool>,
    /// The latest moment in the directory, in milliseconds since 1970.
    time_ms: u64,
    /// The newest.
    base: Option<BackupBase>,
}

impl Taker<'_> {
    /// With one node.
    async fn run(&mut self, target: &Target) -> anyhow::Result<()> {
        let cluster = Cluster::connect(target).await.context(Asking)?;
        let (cluster_id, wanted) = cluster.revision().await.context(Asking)?;
        loop {
            let listing = self.look(cluster_id)?;
            let catalog = listing.catalog();
            let (after, mut why) = match catalog.next() {
                Next::Base => (Vec::new(), Missing::Base.to_string()),
                Next::Missing(missing) => (Vec::new(), missing.to_string()),
                Next::After(after) => (after, String::new()),
            };
            if let Some(ahead) = after.iter().find(|at| **at > wanted) {
                let revision = cluster.revision().await.context(Asking)?.1;
                if *ahead > revision {
                    bail!(
                        "the cluster is at revision {revision}, and {} at {ahead}: this is \
                         another history, which needs another directory",
                        self.directory.path().display()
                    );
                }
            }
            self.check_history(&cluster, &listing).await?;
            let mut outcome = None;
            for at in after {
                match self.follow(&cluster, cluster_id, at, wanted).await? {
                    Outcome::Compacted(compact_revision) => {
                        why = format!(
                            "revision {} is compacted at {compact_revision} before it was taken",
                            at + 1
                        );
                    }
                    other => {
                        outcome = Some(other);
                        break;
                    }
                }
            }
            match outcome {
                Some(Outcome::Stopped) => return Ok(()),
                Some(Outcome::Reached) if !self.request.follows => return Ok(()),
                Some(Outcome::Reached) => continue,
                Some(Outcome::BaseDue(reason)) => reason.clone_into(&mut why),
                Some(Outcome::Compacted(_)) | None => {}
            }
            self.take_base(target, &cluster, cluster_id, &why).await?;
            if !self.request.follows {
                return Ok(());
            }
        }
    }

    /// What is there, which must be of this cluster.
    fn look(&mut self, cluster_id: u64) -> anyhow::Result<Listing> {
        let listing = self.directory.list()?;
        let newest = listing.increments.iter().max_by_key(|run| run.last);
        let newest = newest.map(|run| self.directory.summary(*run)).transpose()?;
        self.base = listing.bases.last().cloned();
        let of_increment = newest.map(|it| (it.cluster_id, it.time_ms));
        let of_base = self.base.as_ref().map(|it| (it.cluster_id, it.time_ms));
        for (found_id, time_ms) in of_increment.into_iter().chain(of_base) {
            if found_id != cluster_id {
                bail!(
                    "{} is of cluster {found_id:x}, and the node is of {cluster_id:x}: another \
                     cluster needs another directory",
                    self.directory.path().display()
                );
            }
            self.time_ms = self.time_ms.max(time_ms);
        }
        Ok(listing)
    }

    /// The cluster has the last put of the newest increment, too, unless it is compacted: an id alone
    /// does not tell a cluster from one that was founded anew in its place.
    async fn check_history(&self, cluster: &Cluster, listing: &Listing) -> anyhow::Result<()> {
        let Some(run) = listing.increments.iter().max_by_key(|run| run.last) else {
            return Ok(());
        };
        let mut newest = Vec::new();
        increment::visit(&self.directory.increment(*run)?, &mut |change, _| {
            if !change.is_delete {
                newest.clear();
                newest.extend_from_slice(change.kv);
            }
            ControlFlow::Continue(())
        })
        .with_context(|| self.directory.increment_path(*run).display().to_string())?;
        if newest.is_empty() {
            return Ok(());
        }
        let kv = KeyValue::decode(&newest[..])?;
        let found = cluster.key_at(kv.key.clone(), kv.mod_revision).await.context(Asking)?;
        if found.is_some_and(|found| found != [kv]) {
            bail!(
                "the cluster does not have what {} has: this is another history, which needs \
                 another directory",
                self.directory.increment_path(*run).display()
            );
        }
        Ok(())
    }

    /// Never goes back, whatever the clock does.
    fn now_ms(&mut self) -> u64 {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.time_ms = self.time_ms.max(u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
        self.time_ms
    }

    /// Takes increments behind a revision, up to the wanted one or for as long as it is followed.
    async fn follow(
        &mut self,
        cluster: &Cluster,
        cluster_id: u64,
        mut at: i64,
        wanted: i64,
    ) -> anyhow::Result<Outcome> {
        if at >= wanted && !self.request.follows {
            let auth_revision = cluster.auth_revision().await.context(Asking)?;
            return Ok(self.base_due(auth_revision).unwrap_or(Outcome::Reached));
        }
        let mut watcher = cluster.watch(at + 1).await.context(Asking)?;
        let mut draft: Option<Draft> = None;
        let every = self.request.interval;
        let mut ticks = interval_at(Instant::now() + every, every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        loop {
            let is_due = tokio::select! {
                told = watcher.next() => match told.context(Asking)? {
                    Told::Compacted(compact_revision) => {
                        if let Some(draft) = draft.take().filter(|draft| draft.is_whole) {
                            self.finish(draft, cluster).await?;
                        }
                        return Ok(Outcome::Compacted(compact_revision));
                    }
                    Told::Events { events, is_whole } => {
                        heard = Instant::now();
                        let draft = match &mut draft {
                            Some(draft) => draft,
                            none => none.insert(Draft::new(&self.directory, cluster_id, at + 1)?),
                        };
                        let time_ms = self.now_ms();
                        draft.add(time_ms, events, is_whole)?;
                        draft.bytes >= INCREMENT_BYTES_MAX
                            || (!self.request.follows && draft.writer.last() >= wanted)
                    }
                },
                _ = ticks.tick() => {
                    let (_, revision) = cluster.revision().await.context(Asking)?;
                    let is_behind = draft.is_none() && revision > at;
                    let is_stalled = is_behind || draft.as_ref().is_some_and(|it| !it.is_whole);
                    if is_stalled && heard.elapsed() > STALLED_AFTER {
                        let text = format!("nothing came within {} s", STALLED_AFTER.as_secs());
                        return Err(anyhow!(text).context(Asking));
                    }
                    if !is_stalled {
                        heard = Instant::now();
                    }
                    self.request.follows
                }
                () = stopped(&mut self.stop) => {
                    if let Some(draft) = draft.take().filter(|draft| draft.is_whole) {
                        self.finish(draft, cluster).await?;
                    }
                    return Ok(Outcome::Stopped);
                }
            };
            if !is_due || draft.as_ref().is_some_and(|draft| !draft.is_whole) {
                continue;
            }
            let auth_revision = match draft.take() {
                Some(draft) => {
                    at = draft.writer.last();
                    self.finish(draft, cluster).await?
                }
                None => cluster.auth_revision().await.context(Asking)?,
            };
            if let Some(due) = self.base_due(auth_revision) {
                return Ok(due);
            }
            if at >= wanted && !self.request.follows {
                return Ok(Outcome::Reached);
            }
        }
    }

    /// Whether a base is to be taken though increments could go on.
    fn base_due(&mut self, auth_revision: u64) -> Option<Outcome> {
        let now_ms = self.now_ms();
        let base = self.base.as_ref()?;
        if base.auth_revision != auth_revision {
            return Some(Outcome::BaseDue("users or roles were changed"));
        }
        let age = Duration::from_millis(now_ms.saturating_sub(base.time_ms));
        let is_old = self.request.base_every.is_some_and(|every| age >= every);
        is_old.then_some(Outcome::BaseDue("the newest base is old enough"))
    }

    /// Completes an increment. Gives the auth revision behind it.
    async fn finish(&mut self, draft: Draft, cluster: &Cluster) -> anyhow::Result<u64> {
        let ttls = cluster.ttls(draft.writer.leases().collect()).await.context(Asking)?;
        let auth_revision = cluster.auth_revision().await.context(Asking)?;
        let (first, last) = (draft.first, draft.writer.last());
        let changes = draft.writer.events_count();
        let bytes = draft.finish(&self.directory, auth_revision, &ttls)?;
        println!("revisions {first} to {last}: {changes} changes, {}", status::human(bytes));
        Ok(auth_revision)
    }

    /// Takes a base, and lets go what is not to be kept.
    async fn take_base(
        &mut self,
        target: &Target,
        cluster: &Cluster,
        cluster_id: u64,
        why: &str,
    ) -> anyhow::Result<()> {
        println!("a base is taken: {why}");
        // Users that change from here on are in a later base.
        let auth_revision = cluster.auth_revision().await.context(Asking)?;
        let draft = self.directory.draft()?;
        save::receive(target, File::options().write(true).open(draft.path())?)
            .await
            .context(Asking)?;
        let (reader, digest) =
            file::open(draft.path(), Hash::Required).context("what was received is not whole")?;
        let facts = schema::facts(&reader)?;
        let revision = schema::revision(&reader)?;
        let base = BackupBase {
            cluster_id,
            revision,
            compact_revision: facts.compact_revision.max(1),
            time_ms: self.now_ms(),
            auth_revision,
            bytes: reader.size(),
            sha256: digest.to_vec().into(),
        };
        println!(
            "base of revision {revision} at {}: {}",
            moment(base.time_ms),
            status::human(base.bytes)
        );
        self.directory.add_base(draft, base)?;
        if let Some(keep) = self.request.keep {
            let superseded = self.directory.list()?.catalog().superseded(keep);
            for revision in superseded.bases {
                self.directory.remove_base(revision)?;
                println!("base of revision {revision} is removed");
            }
            for run in superseded.increments {
                self.directory.remove_increment(run)?;
            }
        }
        Ok(())
    }
}
