//! The wiring of a node, and nothing else: open the disk, find out who this node is, start the
//! threads and actors, hand them to each other, wait for a signal, take everything down in order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use actix::prelude::*;
use anyhow::Context as _;
use flotilla_core::group;
use flotilla_core::membership::Policy;
use flotilla_core::range::replica::Input;
use flotilla_core::range::stored;
use flotilla_core::spine::{self, Replica};
use flotilla_core::stage::Stage;
use flotilla_core::time::{Length, Time};
use flotilla_core::view::Batch;
use flotilla_core::{GroupId, NodeId};
use tokio::sync::{Notify, mpsc};

use crate::auth::Gate;
use crate::cluster::{Bootstrapped, announce, auto_compact, bootstrap, refuse_lost_log};
use crate::config::{CheckAtStart, Config};
use crate::console::{Console, Teller};
use crate::corruption;
use crate::failpoint::Failpoint;
use crate::hand_over::hand_over;
use crate::peer::{self, Peers};
use crate::placement::{self, Driver, Measurer};
use crate::range::{
    self, Applier, Completion, Mail, Maker, Meters, Outbox, Parts, Ranges, SpineActor,
};
use crate::router::{Board, Pending, Router};
use crate::runtime::{Listeners, Workers};
use crate::spans::Spans;
use crate::store::{self, Store};
use crate::supervise::fatal;
use crate::{CLUSTER_VERSION, ETCD_VERSION, metrics, recover, service_manager, tls, wal};

/// How long a stopping node waits for its apply thread.
const APPLY_END_TIMEOUT: Duration = Duration::from_secs(5);
/// How often it is looked whether there is something to show.
const SHOWN_POLL: Duration = Duration::from_millis(10);
/// What an append to the log may be longer than the largest record in it.
const APPEND_OVERHEAD_BYTES: u64 = 2 << 20;
/// Ticks in one heartbeat interval: elections are drawn in finer steps than heartbeats.
const TICKS_PER_HEARTBEAT: u32 = 5;

/// What `--version` prints.
pub fn version() -> String {
    format!("flotilla Version: {}\netcd API: {ETCD_VERSION}", env!("CARGO_PKG_VERSION"))
}

/// Runs a node until it is told to stop.
///
/// # Errors
/// It cannot start.
pub fn run(config: Config) -> anyhow::Result<()> {
    let system = System::new();
    let applying = system.block_on(run_on_system(config))?;
    // Drops the actor, and with it the way to the apply thread, which then ends. The process must
    // not end under it: RocksDB's own end would come while it is in use.
    drop(system);
    let deadline = Instant::now() + APPLY_END_TIMEOUT;
    while !applying.is_finished() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Returns the apply thread, which goes on until the actor is dropped.
async fn run_on_system(config: Config) -> anyhow::Result<JoinHandle<()>> {
    let metrics_handle = metrics::install().context("metrics cannot be set up")?;
    // Ports first: a second process on the same ports must not touch the data.
    let listeners = Listeners::bind(&config).await?;
    std::fs::create_dir_all(&config.data_dir)
        .with_context(|| format!("cannot create {}", config.data_dir.display()))?;
    let ends = tls::Ends::open(&config)?;

    if config.force_new_cluster {
        recover::at_start(&config.data_dir, &config.wal_dir, config.give_up_lost_ranges)?;
    }
    let (completions, reports) = mpsc::channel(range::COMPLETIONS_MAX);
    let store = store::open(&store::Options::new(config.data_dir.join("member").join("store")))?;
    refuse_lost_log(&store, &config.wal_dir)?;
    let ranges = Arc::new(Ranges::default());
    let (wal, mut logs) = open_wal(&config, completions.clone(), ranges.clone())?;
    if let Some(torn) = &logs.torn_tail {
        tracing::warn!(?torn, "the log ended in an unfinished write, which was cut off");
    }
    let Bootstrapped { node, cluster_id, state, recovered, remote_members } =
        bootstrap(&config, &ends.to_peers, &store, &mut logs, &listeners.peers).await?;

    Failpoint::StartKnown.reached();

    let board = Arc::new(Board::new(cluster_id, node.0));
    let pending = Arc::new(Pending::default());
    let gate = Arc::new(Gate::open(&config, state.auth().clone())?);
    let router = Router::new(pending.clone(), board.clone(), store.clone(), gate.clone());
    let config = Arc::new(config);
    let spans = config.distributed_tracing.as_ref().map(Spans::start).transpose()?.map(Arc::new);
    let workers = Workers::start(&config, &router, metrics_handle.clone(), spans.as_ref())?;
    let teller = Teller::new(config.clone(), router.clone(), metrics_handle);

    let stage = match state.position().index {
        0 => Stage::joining(),
        _ => Stage::open(&store)?,
    };
    // Some of them the spine's state may not know yet, or not any more.
    let ranges_here = stored::ids(&store)?;
    let ended = look_at_ended(&store, &state, &ranges_here, &logs)?;
    let is_without_row = |range: &GroupId| {
        *range != GroupId::SPINE && !ranges_here.contains(range) && !ended.contains(range)
    };
    let without_row: BTreeSet<GroupId> =
        logs.groups.keys().copied().filter(is_without_row).collect();
    let has_ranges = !ranges_here.is_empty() || state.ranges().iter().next().is_some();
    let started = Instant::now();
    // The apply thread brings it up to date when it has looked at the ranges.
    board.set_reach(stage.reach());
    let (applier, applying) = Applier {
        store: store.clone(),
        node,
        stage,
        ranges: ranges.clone(),
        board: board.clone(),
        pending: pending.clone(),
        started,
        completions: completions.clone(),
        publish: workers.publisher(),
        compaction_rows_max: config.compaction_batch_limit,
        compaction_pause: config.compaction_sleep_interval,
        warn_after: config.warning_apply_duration,
        compacting_since: None,
        left: VecDeque::new(),
    }
    .start()?;

    let meters = Arc::new(Meters::new(started));
    let (heartbeats, heard) = mpsc::channel(range::HEARTBEATS_MAX);
    let has_state = state.position().index > group::Recovered::FIRST.index;
    let is_alone = state.conf().voters == [node.0];
    let spine_config = replica_config(&config, node);
    let chance = Box::new(range::OperatingSystem);
    let mut replica = Replica::new(spine_config.clone(), Time(0), state, recovered, chance)
        .context("the data directory is damaged")?;
    replica.set_logs(without_row);
    let maker = Maker {
        spine: spine_config,
        store: store.clone(),
        wal: wal.clone(),
        applier: applier.clone(),
        ranges: ranges.clone(),
        started,
        meters: meters.clone(),
        logs: Arc::new(Mutex::new(logs.groups)),
    };
    let (peer_events, events) = mpsc::channel(peer::EVENTS_MAX);
    let mut peers =
        Peers::new(ends.to_peers.clone(), board.clone(), store.clone(), peer_events.clone());
    peers.set_members(&remote_members, &BTreeSet::new());
    let removed = Arc::new(Notify::new());
    let on_removed = {
        let removed = removed.clone();
        Box::new(move || removed.notify_one())
    };
    let parts = Parts {
        replica,
        tick: tick(&config),
        store: store.clone(),
        outbox: Outbox::new(GroupId::SPINE, wal.clone(), applier.clone()),
        ranges: ranges.clone(),
        maker: maker.clone(),
        peers,
        pending: pending.clone(),
        board: board.clone(),
        gate,
        meters: meters.clone(),
        heartbeats,
        completions: completions.clone(),
        started,
        on_removed,
    };
    let actor = SpineActor::new(parts, reports, events).start();
    router.register(GroupId::SPINE, actor.clone().recipient());
    ended.into_iter().for_each(|range| maker.forget(range));
    for range in &ranges_here {
        maker.restart(*range, &actor)?;
        Failpoint::StartRangeBegun.reached();
    }
    drop((applier, maker));
    if is_alone {
        actor.try_send(range::Campaign).context("the spine's actor did not start")?;
    }

    for listener in listeners.peers {
        let (board, store, events) = (board.clone(), store.clone(), peer_events.clone());
        let (tell, ranges) = (teller.tell(), ranges.clone());
        let runs = Arc::new(move |range| ranges.get(range).is_some());
        actix::spawn(peer::serve(listener, ends.peers.clone(), board, store, events, tell, runs));
    }
    if has_ranges && !until_shown(&board, &removed).await {
        return Ok(applying);
    }
    let to_compare = || (router.clone(), ends.to_peers.clone());
    match config.corrupt_check_at_start {
        _ if !has_state => {}
        CheckAtStart::Before => corruption::check_at_start(&router, &ends.to_peers).await?,
        CheckAtStart::After => {
            let (router, tls) = to_compare();
            actix::spawn(corruption::check_after_start(router, tls));
        }
        CheckAtStart::Never => {}
    }
    if config.rebuild_wrong_data {
        let (router, tls) = to_compare();
        actix::spawn(corruption::rebuild_when_wrong(router, tls, actor.clone()));
    }
    let (for_leader, tls) = to_compare();
    actix::spawn(corruption::run(for_leader, tls, config.corrupt_checks));
    let (measurer, findings) = Measurer::start(store.clone(), config.data_dir.clone())?;
    let parts = placement::Parts {
        config: config.clone(),
        router: router.clone(),
        spine: actor.clone(),
        meters,
    };
    Driver::new(parts, &measurer, findings, heard).start();
    let accepting = workers.accept(listeners.clients, &ends);
    let console = Console::start(listeners.consoles, &ends, teller)?;
    service_manager::watchdog();
    announce_when_ready(&config, &router, node);
    if let Some(policy) = config.auto_compaction {
        actix::spawn(auto_compact::run(router.clone(), policy));
    }

    wait_for_stop(&removed).await;
    tracing::info!("stopping");
    service_manager::stopping();
    drop(accepting);
    console.stop();
    hand_over(&actor, &board, node).await;
    pending.stop();
    workers.stop();
    if let Some(spans) = spans {
        tokio::task::spawn_blocking(move || spans.stop()).await?;
    }
    tokio::task::spawn_blocking(|| measurer.stop()).await?;
    let wal_closed = tokio::task::spawn_blocking(move || wal.close());
    close_store(store).await;
    wal_closed.await?;
    tracing::info!("stopped");
    Ok(applying)
}

/// Ranges of which the log remembers what nobody needs: they have ended here, and a crash came between
/// the store and the log. What the store keeps of those that ended and are in no log is dropped once
/// the spine's state has come to their end.
fn look_at_ended(
    store: &Store,
    state: &spine::State,
    ranges_here: &[GroupId],
    logs: &wal::Recovered,
) -> anyhow::Result<Vec<GroupId>> {
    let ended = stored::ended_ids(store)?;
    let mut batch = Batch::default();
    for range in &ended {
        if !logs.groups.contains_key(range) && state.has_ceased(*range) {
            stored::forget_ended(*range, &mut batch);
        }
    }
    store.apply(&batch)?;
    // A range that begins anew here, when its parent comes there, needs its log from the beginning.
    let is_of_use = |range: &GroupId, log: &wal::GroupLog| {
        ranges_here.contains(range)
            || !state.has_ceased(*range)
            || log.truncated.0 <= group::Recovered::FIRST.index && !log.entries.is_empty()
    };
    let logs = logs.groups.iter();
    let useless = logs.filter(|(range, log)| ended.contains(range) || !is_of_use(range, log));
    Ok(useless.map(|(range, _)| *range).collect())
}

fn open_wal(
    config: &Config,
    completions: mpsc::Sender<Completion>,
    ranges: Arc<Ranges>,
) -> anyhow::Result<(wal::Handle, wal::Recovered)> {
    let mut options = wal::Options::new(config.wal_dir.clone());
    let limits = spine::Limits::default();
    let record_bytes = limits.record_bytes_max.max(config.max_request_bytes) as u64;
    options.make_room_for(record_bytes + APPEND_OVERHEAD_BYTES);
    options.flush_delay = config.wal_flush_delay;
    options.is_flushed = !config.unsafe_no_fsync;
    let on_done = move |report: wal::Report| {
        if let Some(flush) = &report.flush {
            metrics::upstream::flushed(flush.bytes, flush.write_duration, flush.sync_duration);
        }
        // A later token of a group stands for all before it.
        let mut newest = BTreeMap::new();
        for done in report.done.iter().filter(|done| done.token != range::NO_TOKEN) {
            newest.insert(done.group, done.token);
        }
        for (group, token) in newest {
            if group == GroupId::SPINE {
                // The actor ends only with the process.
                let _ = completions.blocking_send(Completion::Persisted(token));
            } else if let Some(actor) = ranges.get(group) {
                range::deliver(&actor, Mail(Input::Persisted(token)));
            }
        }
    };
    let on_failure = |error: wal::Error| fatal(&format!("the log failed: {error}"));
    Ok(wal::open(options, Box::new(on_done), Box::new(on_failure))?)
}

fn tick(config: &Config) -> Duration {
    config.heartbeat_interval / TICKS_PER_HEARTBEAT
}

fn replica_config(config: &Config, node: NodeId) -> spine::Config {
    let length = |duration: Duration| {
        Length(u64::try_from(duration.as_micros()).expect("configured times are short"))
    };
    let limits = config.limits();
    let mut group = group::Config::new(node, GroupId::SPINE);
    let per_heartbeat = TICKS_PER_HEARTBEAT as usize;
    group.heartbeat_ticks = per_heartbeat;
    group.election_ticks = limits.election_ticks as usize * per_heartbeat;
    group.is_pre_vote = config.pre_vote;
    spine::Config {
        node,
        origin: rand::random_range(1..u64::MAX),
        tick: length(tick(config)),
        group,
        election_timeout: length(config.election_timeout),
        request_timeout: length(limits.request_timeout),
        policy: Policy {
            learners_max: config.max_learners,
            is_strict: config.strict_reconfig_check,
        },
        limits: spine::Limits {
            request_bytes_max: config.max_request_bytes,
            retention: group::Retention {
                flush_entries: config.snapshot_count,
                catch_up_entries: config.snapshot_catchup_entries,
                ..group::Retention::default()
            },
            ..spine::Limits::default()
        },
        cluster_version: CLUSTER_VERSION.to_owned(),
    }
}

fn announce_when_ready(config: &Arc<Config>, router: &Router, node: NodeId) {
    let (config, router) = (config.clone(), router.clone());
    actix::spawn(async move {
        announce::announce(&router, node, &config).await;
        announce::until_serving(&router).await;
        tracing::info!(
            member = %node,
            name = config.name,
            cluster = format_args!("{:x}", router.board().cluster_id()),
            "ready to serve client requests"
        );
        service_manager::ready();
    });
}

/// Waits until there is something to show to clients. False if the node is to stop before.
async fn until_shown(board: &Board, removed: &Notify) -> bool {
    let shown = async {
        while board.applied_index() == 0 {
            tokio::time::sleep(SHOWN_POLL).await;
        }
    };
    tokio::select! {
        () = shown => true,
        () = wait_for_stop(removed) => false,
    }
}

async fn wait_for_stop(removed: &Notify) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        fatal("signals cannot be received");
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        () = removed.notified() => {}
    }
}

async fn close_store(store: Store) {
    let closed = tokio::task::spawn_blocking(move || store.close()).await;
    if let Ok(Err(error)) = closed {
        // The log has everything that was acknowledged.
        tracing::error!(%error, "the store was not closed in order");
    }
}
