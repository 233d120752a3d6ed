//! A closed loop: a fixed number of requests is always under way, each answered before the next of
//! its slot begins.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use flotilla_proto::etcdserverpb::kv_client::KvClient;
use flotilla_proto::etcdserverpb::{PutRequest, RangeRequest};
use futures::future::try_join_all;
use hdrhistogram::Histogram;
use tonic::transport::{Channel, Endpoint};

/// Distinct keys that are written and read.
pub const KEYS_COUNT: u64 = 10_000;
/// Bytes of a value.
pub const VALUE_BYTES: usize = 256;

/// What each request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// KV.Put of a 256-byte value.
    Put,
    /// KV.Range of one key, linearizable.
    Get,
}

/// One measured interval.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Requests answered.
    pub count: u64,
    /// How long it took.
    pub elapsed: Duration,
    /// Latency of each request, in microseconds.
    pub latency: Histogram<u64>,
    /// Revisions seen never went back on any slot, and every read found its key.
    pub is_sound: bool,
}

impl Measured {
    /// Requests a second.
    pub fn rate(&self) -> f64 {
        self.count as f64 / self.elapsed.as_secs_f64()
    }
}

/// Connections to the endpoints, dealt out in turn.
///
/// # Errors
/// An endpoint cannot be reached.
pub async fn connect(endpoints: &[String], count: usize) -> anyhow::Result<Vec<Channel>> {
    let channels = (0..count).map(|n| {
        let url = endpoints[n % endpoints.len()].clone();
        async move {
            let endpoint = Endpoint::from_shared(url.clone())?.tcp_nodelay(true);
            endpoint.connect().await.with_context(|| format!("connect to {url}"))
        }
    });
    try_join_all(channels).await
}

/// Runs the loop for a while.
///
/// # Errors
/// A request fails.
pub async fn run(
    channels: &[Channel],
    work: Work,
    outstanding: usize,
    length: Duration,
) -> anyhow::Result<Measured> {
    let began = Instant::now();
    let until = began + length;
    let slots = (0..outstanding).map(|slot| {
        let client = KvClient::new(channels[slot % channels.len()].clone());
        tokio::spawn(run_slot(client, work, slot as u64, until))
    });
    let mut total =
        Measured { count: 0, elapsed: Duration::ZERO, latency: Histogram::new(3)?, is_sound: true };
    for slot in try_join_all(slots).await? {
        let slot = slot?;
        total.count += slot.count;
        total.latency.add(&slot.latency)?;
        total.is_sound &= slot.is_sound;
    }
    total.elapsed = began.elapsed();
    Ok(total)
}

async fn run_slot(
    mut client: KvClient<Channel>,
    work: Work,
    slot: u64,
    until: Instant,
) -> anyhow::Result<Measured> {
    let mut measured =
        Measured { count: 0, elapsed: Duration::ZERO, latency: Histogram::new(3)?, is_sound: true };
    let value = Bytes::from(vec![b'v'; VALUE_BYTES]);
    // Knuth's multiplier spreads the slots over the keys without a generator's state.
    let mut n = slot.wrapping_mul(2_654_435_761);
    let mut newest = 0;
    loop {
        let began = Instant::now();
        if began >= until {
            return Ok(measured);
        }
        n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let key = key((n >> 33) % KEYS_COUNT);
        let header = match work {
            Work::Put => {
                let request = PutRequest { key, value: value.clone(), ..Default::default() };
                client.put(request).await?.into_inner().header
            }
            Work::Get => {
                let request = RangeRequest { key, ..Default::default() };
                let answer = client.range(request).await?.into_inner();
                measured.is_sound &= answer.kvs.len() == 1;
                answer.header
            }
        };
        let revision = header.context("an answer has a header")?.revision;
        measured.is_sound &= match work {
            Work::Put => revision > newest,
            Work::Get => revision >= newest,
        };
        newest = revision;
        measured.count += 1;
        measured.latency.record(u64::try_from(began.elapsed().as_micros())?)?;
    }
}

/// Writes every key once.
///
/// # Errors
/// A request fails.
pub async fn fill(channels: &[Channel]) -> anyhow::Result<()> {
    let value = Bytes::from(vec![b'v'; VALUE_BYTES]);
    for first in (0..KEYS_COUNT).step_by(500) {
        let puts = (first..first + 500).map(|n| {
            let mut client = KvClient::new(channels[n as usize % channels.len()].clone());
            let request = PutRequest { key: key(n), value: value.clone(), ..Default::default() };
            async move { client.put(request).await }
        });
        try_join_all(puts).await?;
    }
    Ok(())
}

fn key(n: u64) -> Bytes {
    Bytes::from(format!("/bench/{n:012}"))
}
