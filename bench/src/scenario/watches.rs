//! Memory of idle watches, and of a watcher that does not read.

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;

use super::{Settings, Side, Turn};
use crate::connect::Pool;
use crate::operation::{Op, end_of};
use crate::perform::Performer;
use crate::process;
use crate::random::Random;
use crate::watcher::{WatchGroup, WatchSpan, create_request};
use crate::wire::{Method, Options};

/// Idle watches.
const WATCHES: u64 = 100_000;
/// Watches on one stream.
const PER_STREAM: usize = 1000;
/// Bytes of events a stalled watcher misses.
const MISSED_BYTES: u64 = 256 << 20;
/// Bytes of one value.
const VALUE_BYTES: usize = 16 << 10;
/// Keys written while the watcher stalls; few, so that the store itself grows by history only.
const KEYS: u64 = 64;
/// Puts under way.
const OUTSTANDING: usize = 64;
/// Time for memory to settle before it is read.
const SETTLE: Duration = Duration::from_millis(500);
/// Window of the stalled stream: the store may send no more than this.
const STALLED_WINDOW_BYTES: u32 = 64 << 10;

/// Idle watches first, then the stalled one.
pub(super) async fn turn(side: &mut Side, settings: Settings) -> anyhow::Result<Turn> {
    let mut turn = Turn::default();
    let watches = settings.scale.of(WATCHES);
    let before = resident_mib(side).await?;
    let spans: Vec<WatchSpan> = (0..watches)
        .map(|n| WatchSpan { key: Bytes::from(format!("/idle/{n:09}")), end: Bytes::new() })
        .collect();
    let group =
        WatchGroup::open(&side.session.pool, &side.session.check, &spans, PER_STREAM).await?;
    let with = resident_mib(side).await?;
    drop(group);
    turn.set("idle_memory_growth_mib", (with - before).max(0.1));
    turn.set(
        "idle_memory_bytes_per_watch",
        (with - before).max(0.0) * f64::from(1 << 20) / watches as f64,
    );

    // The same puts without and with the stalled watcher; the difference is what it holds.
    let puts = settings.scale.of(MISSED_BYTES / VALUE_BYTES as u64);
    let start = resident_mib(side).await?;
    put_all(side, puts).await?;
    let alone = resident_mib(side).await? - start;
    let options = Options { stream_window_bytes: STALLED_WINDOW_BYTES, ..Options::default() };
    let pool = Pool::open(&side.cluster.endpoints, 1, &options).await?;
    let mut stalled = pool.channel(0).stream(Method::Watch).await?;
    let span = WatchSpan { key: Bytes::from_static(b"/stalled/"), end: end_of("/stalled/") };
    stalled.send(&create_request(&span));
    stalled.next().await?;
    let start = resident_mib(side).await?;
    put_all(side, puts).await?;
    let beside = resident_mib(side).await? - start;
    drop(stalled);
    let missed_mib = (puts * VALUE_BYTES as u64) as f64 / f64::from(1 << 20);
    turn.set("stalled_growth_mib", beside);
    turn.set("unstalled_growth_mib", alone);
    turn.set("stalled_held_share", ((beside - alone) / missed_mib).max(0.0));
    Ok(turn)
}

async fn resident_mib(side: &Side) -> anyhow::Result<f64> {
    tokio::time::sleep(SETTLE).await;
    let memory = process::total_memory(&side.session.pids)?;
    let memory = memory.context("memory is seen only of a store that is started here")?;
    // Mapped files grow with the data whatever watchers do.
    Ok(memory.anonymous_bytes as f64 / f64::from(1 << 20))
}

async fn put_all(side: &Side, puts: u64) -> anyhow::Result<()> {
    let mut tasks = tokio::task::JoinSet::new();
    for slot in 0..OUTSTANDING as u64 {
        let mut performer =
            Performer::new(side.session.pool.channel(slot as usize), side.session.check.clone());
        let mut random = Random::new(side.session.seed, (1 << 42) + slot);
        let count = puts / OUTSTANDING as u64 + 1;
        tasks.spawn(async move {
            for _ in 0..count {
                let key = Bytes::from(format!("/stalled/{}", random.below(KEYS)));
                performer.perform(&Op::Put { key, value_bytes: VALUE_BYTES, lease: 0 }).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}
