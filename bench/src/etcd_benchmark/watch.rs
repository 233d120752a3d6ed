//! `watch` and `watch-latency`.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use bytes::Bytes;

use super::summary::{print, rate, summary};
use super::{Benchmark, Results, pace};
use crate::flags::Flags;
use crate::operation::Op;
use crate::perform::Performer;
use crate::random::Random;
use crate::watcher::{WatchGroup, WatchSpan};

/// How long events may take to arrive after the last put.
const DELIVERY_MAX: Duration = Duration::from_secs(60);

fn random_key(bytes: usize, number: u64) -> Bytes {
    let mut random = Random::new(1, number);
    (0..bytes).map(|_| b'a' + random.below(26) as u8).collect()
}

/// `watch`
pub(super) async fn watch(bench: &Benchmark, flags: &Flags) -> anyhow::Result<()> {
    let streams: usize = flags.or("streams", 10)?;
    let per_stream: usize = flags.or("watch-per-stream", 100)?;
    let keys_count: usize = flags.or("watched-key-total", 1)?;
    let key_bytes: usize = flags.or("key-size", 32)?;
    ensure!(
        streams > 0 && per_stream > 0 && keys_count > 0,
        "streams, watches and keys are positive"
    );
    let keys: Vec<Bytes> = (0..keys_count).map(|n| random_key(key_bytes, n as u64)).collect();
    let watches = streams * per_stream;
    let spans: Vec<WatchSpan> = (0..watches)
        .map(|n| WatchSpan { key: keys[n % keys_count].clone(), end: Bytes::new() })
        .collect();
    let began = Instant::now();
    let group = WatchGroup::open(&bench.pool, &bench.check, &spans, per_stream).await?;
    let created = rate(watches as u64, began.elapsed().as_secs_f64(), bench.style);
    print(&format!("Watch creation summary:\n{created}\n"))?;

    let puts: u64 = flags.or("put-total", 1000)?;
    let put_rate: f64 = flags.or("put-rate", 0.0)?;
    let watchers_of = |n: usize| watches / keys_count + usize::from(n < watches % keys_count);
    let due: u64 = (0..puts).map(|n| watchers_of(n as usize % keys_count) as u64).sum();
    let began = Instant::now();
    let request = move |mut performer: Performer, number: u64| {
        let key = keys[number as usize % keys_count].clone();
        async move {
            let op = Op::Put { key, value_bytes: 4, lease: 0 };
            let answer = performer.perform(&op).await;
            (performer, answer.map(|_| ()))
        }
    };
    let client = |client| Performer::new(bench.pool.channel(client), bench.check.clone());
    let results = bench.drive(puts, put_rate, client, request).await?;
    if !results.errors.is_empty() {
        bail!("puts failed: {:?}", results.errors);
    }
    group.seen.wait_events(due, DELIVERY_MAX).await?;
    let received = rate(due, began.elapsed().as_secs_f64(), bench.style);
    print(&format!("Watch events received summary:\n{received}\n"))
}

/// `watch-latency`: latency counts from the end of the put; an event that overtakes the put's
/// answer has none.
pub(super) async fn latency(bench: &Benchmark, flags: &Flags) -> anyhow::Result<()> {
    ensure!(!flags.is_on("prevkv")?, "--prevkv is not built");
    let streams: usize = flags.or("streams", 10)?;
    let per_stream: usize = flags.or("watchers-per-stream", 10)?;
    let puts: u64 = flags.or("put-total", 1000)?;
    let put_rate: f64 = flags.or("put-rate", 100.0)?;
    let key = random_key(flags.or("key-size", 32)?, 0);
    let value_bytes = flags.or("val-size", 32)?;
    ensure!(streams > 0 && per_stream > 0, "streams and watchers are positive");
    let spans = vec![WatchSpan { key: key.clone(), end: Bytes::new() }; streams * per_stream];
    let group = WatchGroup::open_logged(&bench.pool, &bench.check, &spans, per_stream).await?;
    let mut performer = Performer::new(bench.pool.channel(0), bench.check.clone());
    let mut put_results = Results::default();
    let mut ends = HashMap::new();
    let began = Instant::now();
    for number in 0..puts {
        pace(began, number, put_rate).await;
        let sent = Instant::now();
        let op = Op::Put { key: key.clone(), value_bytes, lease: 0 };
        let answer = performer.perform(&op).await?;
        put_results.add(sent - began, sent.elapsed(), Ok(()));
        ends.insert(answer.revision, Instant::now());
    }
    group.seen.wait_events(puts * spans.len() as u64, DELIVERY_MAX).await?;
    put_results.total = began.elapsed();
    let mut watch_results = Results { total: began.elapsed(), ..Results::default() };
    for (revision, at) in group.seen.take_log() {
        if let Some(end) = ends.get(&revision) {
            watch_results.add(*end - began, at.saturating_duration_since(*end), Ok(()));
        }
    }
    print(&format!("\nPut summary:\n{}", summary(&put_results, bench.style)))?;
    print(&format!("\nWatch events summary:\n{}", summary(&watch_results, bench.style)))
}
