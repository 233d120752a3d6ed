//! One event to many watchers: CPU for each delivered event.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Settings, Side, Turn};
use crate::operation::Op;
use crate::perform::Performer;
use crate::process::Meter;
use crate::watcher::{WatchGroup, WatchSpan};

/// Watchers of the one key.
const WATCHERS: u64 = 1000;
/// Watches on one stream.
const PER_STREAM: usize = 100;
/// How long a delivery to all may take.
const DELIVERY_MAX: Duration = Duration::from_secs(30);

/// Puts one after the other; each waits until all watchers have it.
pub(super) async fn turn(side: &mut Side, settings: Settings) -> anyhow::Result<Turn> {
    let mut turn = Turn::default();
    let session = &side.session;
    let watchers = settings.scale.of(WATCHERS);
    let key = Bytes::from_static(b"/bench/fanout");
    let spans = vec![WatchSpan { key: key.clone(), end: Bytes::new() }; watchers as usize];
    let group = WatchGroup::open(&session.pool, &session.check, &spans, PER_STREAM).await?;
    let mut performer = Performer::new(session.pool.channel(0), session.check.clone());
    let op = Op::Put { key, value_bytes: 256, lease: 0 };
    let mut due = group.seen.events();
    let mut deliver = async || -> anyhow::Result<()> {
        performer.perform(&op).await?;
        due += watchers;
        group.seen.wait_events(due, DELIVERY_MAX).await
    };
    for _ in 0..10 {
        deliver().await?;
    }
    let mut meter = Meter::start(&session.pids)?;
    let (began, events_before) = (Instant::now(), group.seen.events());
    let mut slowest = Duration::ZERO;
    while began.elapsed() < settings.timing.length {
        let put = Instant::now();
        deliver().await?;
        slowest = slowest.max(put.elapsed());
        meter.sample();
    }
    let events = (group.seen.events() - events_before) as f64;
    let secs = began.elapsed().as_secs_f64();
    let usage = meter.finish()?;
    turn.set("events_per_sec", events / secs);
    turn.set("cpu_us_per_event", usage.servers_cpu_secs.unwrap_or(f64::NAN) * 1e6 / events);
    turn.set("generator_cpu_us_per_event", usage.generator_cpu_secs * 1e6 / events);
    turn.set("slowest_delivery_ms", slowest.as_secs_f64() * 1e3);
    Ok(turn)
}
