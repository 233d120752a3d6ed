//! Many leases expire within seconds, each with a key, while puts are measured.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use bytes::Bytes;

use super::{PROBE_OUTSTANDING, PROBE_RATE, Settings, Side, Turn, plan_of, probe};
use crate::check::Check;
use crate::operation::{Op, Span};
use crate::perform::Performer;
use crate::random::Random;
use crate::session::Timing;
use crate::wire::Channel;

/// Leases.
const LEASES: u64 = 100_000;
/// Within this time all of them expire.
const WINDOW: Duration = Duration::from_secs(10);
/// Grants under way.
const OUTSTANDING: usize = 256;
/// Assumed grants (with their key) a second, to choose when the window begins.
const GRANTS_PER_SEC: u64 = 2500;
/// Shortest time before the window begins.
const LEAD_MIN: Duration = Duration::from_secs(4);
/// How late the last key may vanish.
const GRACE: Duration = Duration::from_secs(60);

/// Idle puts, then puts while leases expire.
pub(super) async fn turn(side: &mut Side, settings: Settings) -> anyhow::Result<Turn> {
    let mut turn = Turn::default();
    let puts = plan_of("P1", "put", PROBE_OUTSTANDING, settings.scale)?;
    side.session.prepare(&puts.fill).await?;
    let idle_shape = probe(PROBE_RATE, settings.timing.length);
    let idle = side.session.load(&puts, &idle_shape, settings.timing).await?;
    let idle = turn.keep(&puts, &idle_shape, &idle);

    let leases = settings.scale.of(LEASES);
    let lead = LEAD_MIN + Duration::from_secs(leases / GRANTS_PER_SEC);
    let window_begins = Instant::now() + lead;
    grant_all(side, leases, window_begins).await?;
    ensure!(
        Instant::now() < window_begins,
        "granting {leases} leases took longer than {lead:?}; the window has begun"
    );
    tokio::time::sleep_until(window_begins.into()).await;
    let shape = probe(PROBE_RATE, WINDOW);
    let timing = Timing { warmup_max: Duration::ZERO, length: WINDOW };
    let busy = side.session.load(&puts, &shape, timing).await?;
    let busy = turn.keep(&puts, &shape, &busy);
    let late = wait_gone(side, window_begins + WINDOW).await?;
    turn.set("put_p99_ms_idle", idle.latency.p99_ms);
    turn.set("put_p99_ms_expiring", busy.latency.p99_ms);
    turn.set("put_p99_over_idle", busy.latency.p99_ms / idle.latency.p99_ms);
    turn.set("last_key_late_secs", late);
    Ok(turn)
}

async fn grant_all(side: &Side, leases: u64, window_begins: Instant) -> anyhow::Result<()> {
    let next = Arc::new(AtomicU64::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for slot in 0..OUTSTANDING {
        let (channel, check) = (side.session.pool.channel(slot), side.session.check.clone());
        let random = Random::new(side.session.seed, (1 << 41) + slot as u64);
        tasks.spawn(grant_some(channel, check, next.clone(), leases, window_begins, random));
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

async fn grant_some(
    channel: Arc<Channel>,
    check: Arc<Check>,
    next: Arc<AtomicU64>,
    leases: u64,
    window_begins: Instant,
    mut random: Random,
) -> anyhow::Result<()> {
    let mut performer = Performer::new(channel, check);
    loop {
        let n = next.fetch_add(1, Ordering::Relaxed);
        if n >= leases {
            return Ok(());
        }
        let due = window_begins + WINDOW.mul_f64(random.unit());
        let left = due.saturating_duration_since(Instant::now());
        let ttl_secs = left.as_secs_f64().round().max(1.0) as i64;
        let lease = performer.perform(&Op::Grant { ttl_secs }).await?.lease;
        let key = Bytes::from(format!("/expiring/{n:09}"));
        performer.perform(&Op::Put { key, value_bytes: 64, lease }).await?;
    }
}

/// Waits until no leased key is left; how many seconds after `due` that was.
async fn wait_gone(side: &Side, due: Instant) -> anyhow::Result<f64> {
    let mut performer = Performer::new(side.session.pool.channel(0), side.session.check.clone());
    let span = Span::prefix("/expiring/");
    loop {
        let left = performer.perform(&Op::Count(span.clone())).await?.keys;
        if left == 0 {
            return Ok(Instant::now().saturating_duration_since(due).as_secs_f64());
        }
        ensure!(
            Instant::now() < due + GRACE,
            "{left} leased keys are left {GRACE:?} after their time"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
