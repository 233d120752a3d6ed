//! `put`, `range`, `txn-put`, `txn-mixed` and `lease-keepalive`.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use bytes::Bytes;
use flotilla_proto::etcdserverpb as pb;
use prost::Message as _;

use super::summary::{print, summary};
use super::{Benchmark, Results};
use crate::flags::Flags;
use crate::operation::{Op, Span};
use crate::perform::Performer;
use crate::random::Random;
use crate::wire::Method;

/// Seed of the draws; etcd's program draws anew each time, this one repeats.
const SEED: u64 = 1;
/// Seconds a kept lease lives.
const LEASE_TTL_SECS: i64 = 100;

/// The keys of a keyspace as etcd's program makes them: a varint, padded with zeros.
#[derive(Clone, Copy)]
struct Keys {
    bytes: usize,
    count: u64,
    is_sequential: bool,
}

impl Keys {
    fn parse(flags: &Flags) -> anyhow::Result<Self> {
        let keys = Self {
            bytes: flags.or("key-size", 8)?,
            count: flags.or("key-space-size", 1)?,
            is_sequential: flags.is_on("sequential-keys")?,
        };
        ensure!(keys.count > 0, "expected positive --key-space-size, got ({})", keys.count);
        ensure!(keys.bytes >= 8, "--key-size is at least 8");
        Ok(keys)
    }

    fn key(self, number: u64) -> Bytes {
        let mut key = Vec::with_capacity(self.bytes);
        let mut rest = (number % self.count) << 1;
        while rest >= 0x80 {
            key.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        key.push(rest as u8);
        key.resize(self.bytes.max(key.len()), 0);
        Bytes::from(key)
    }

    fn draw(self, number: u64) -> Bytes {
        if self.is_sequential {
            self.key(number)
        } else {
            self.key(Random::new(SEED, number).bits())
        }
    }
}

impl Benchmark {
    fn performer(&self, client: usize) -> Performer {
        Performer::new(self.pool.channel(client), self.check.clone())
    }

    /// Runs the operations `op` makes, one for each number.
    async fn operate(
        &self,
        total: u64,
        rate: f64,
        op: impl Fn(u64) -> Op + Clone + Send + Sync + 'static,
    ) -> anyhow::Result<Results> {
        let request = move |mut performer: Performer, number| {
            let op = op(number);
            async move {
                let answer = performer.perform(&op).await;
                (performer, answer.map(|_| ()))
            }
        };
        self.drive(total, rate, |client| self.performer(client), request).await
    }
}

fn total(flags: &Flags) -> anyhow::Result<u64> {
    flags.or("total", 10_000)
}

/// `put`
pub(super) async fn put(bench: &Benchmark, flags: &Flags) -> anyhow::Result<()> {
    let keys = Keys::parse(flags)?;
    let value_bytes = flags.or("val-size", 8)?;
    let delta: i64 = flags.or("compact-index-delta", 1000)?;
    let compacting = flags.duration("compact-interval")?.filter(|every| !every.is_zero());
    let compacting =
        compacting.map(|every| tokio::spawn(compact(bench.performer(0), every, delta)));
    let op = move |number| Op::Put { key: keys.draw(number), value_bytes, lease: 0 };
    let results = bench.operate(total(flags)?, flags.or("rate", 0.0)?, op).await?;
    if let Some(compacting) = compacting {
        compacting.abort();
    }
    print(&format!("{}\n", summary(&results, bench.style)))?;
    if flags.is_on("check-hashkv")? {
        hash_kv(bench).await?;
    }
    Ok(())
}

async fn compact(mut performer: Performer, every: Duration, keep: i64) {
    loop {
        tokio::time::sleep(every).await;
        let read = Op::Get { key: Bytes::from_static(b"foo"), is_serializable: false };
        // A compaction that fails is tried again at the next interval.
        if performer.perform(&read).await.is_ok() {
            let _ = performer.perform(&Op::Compact { keep }).await;
        }
    }
}

async fn hash_kv(bench: &Benchmark) -> anyhow::Result<()> {
    let began = Instant::now();
    let request = pb::HashKvRequest::default().encode_to_vec();
    let answer = bench.pool.channel(0).unary(Method::HashKv, &request).await?;
    let hash = pb::HashKvResponse::decode(answer)?.hash;
    let status = bench.pool.status().await?;
    print(&format!(
        "HashKV Summary:\n\tHashKV: {hash}\n\tEndpoint: {}\n\tTime taken to get hashkv: {:?}\n\tDB size: {} B\n",
        bench.endpoints[0],
        began.elapsed(),
        status.db_size
    ))
}

fn is_serializable(flags: &Flags) -> anyhow::Result<bool> {
    let (word, is_serializable) = match flags.text("consistency").unwrap_or("l") {
        "l" => ("linearizable", false),
        "s" => ("serializable", true),
        other => bail!("--consistency: l or s, not {other:?}"),
    };
    print(&format!("bench with {word} range\n"))?;
    Ok(is_serializable)
}

/// `range key [end-range]`
pub(super) async fn range(
    bench: &Benchmark,
    flags: &Flags,
    words: &[String],
) -> anyhow::Result<()> {
    let (key, end) = match words {
        [key] => (key.clone(), String::new()),
        [key, end] => (key.clone(), end.clone()),
        _ => bail!("range key [end-range]"),
    };
    let span = Span {
        key: Bytes::from(key),
        end: Bytes::from(end),
        limit: flags.or("limit", 0)?,
        is_serializable: is_serializable(flags)?,
        expected_count: None,
    };
    let op = move |_| Op::List(span.clone());
    let results = bench.operate(total(flags)?, flags.or("rate", 0.0)?, op).await?;
    print(&summary(&results, bench.style))
}

/// `txn-put`
pub(super) async fn txn_put(bench: &Benchmark, flags: &Flags) -> anyhow::Result<()> {
    let keys = Keys::parse(flags)?;
    let ops: u64 = flags.or("txn-ops", 1)?;
    ensure!(
        ops <= keys.count,
        "expected --txn-ops <= --key-space-size, got {ops} > {}",
        keys.count
    );
    let value_bytes = flags.or("val-size", 8)?;
    let op = move |number: u64| {
        let keys = (0..ops).map(|n| keys.key(number * ops + n)).collect();
        Op::TxnPut { keys, value_bytes }
    };
    let results = bench.operate(total(flags)?, flags.or("rate", 0.0)?, op).await?;
    print(&format!("{}\n", summary(&results, bench.style)))
}

/// `txn-mixed [key] [end-range]`
pub(super) async fn txn_mixed(bench: &Benchmark, flags: &Flags) -> anyhow::Result<()> {
    let keys = Keys::parse(flags)?;
    let value_bytes = flags.or("val-size", 8)?;
    let ratio: f64 = flags.or("rw-ratio", 1.0)?;
    ensure!(ratio >= 0.0, "--rw-ratio is not negative");
    let end = flags.text("end-key").filter(|end| !end.is_empty());
    let span = Span {
        key: Bytes::from_static(&[0]),
        end: end.map_or(Bytes::from_static(&[0]), |end| Bytes::copy_from_slice(end.as_bytes())),
        limit: flags.or("limit", 1000)?,
        is_serializable: is_serializable(flags)?,
        expected_count: None,
    };
    let is_read =
        move |number| Random::new(SEED, number ^ (1 << 60)).unit() < ratio / (1.0 + ratio);
    let results = Arc::new(std::sync::Mutex::new([Results::default(), Results::default()]));
    let (rate, total) = (flags.or("rate", 0.0)?, total(flags)?);
    let shared = results.clone();
    let began = Instant::now();
    let request = move |mut performer: Performer, number| {
        let op = match is_read(number) {
            true => Op::TxnRange(span.clone()),
            false => Op::TxnPut { keys: vec![keys.key(number)], value_bytes },
        };
        let shared = shared.clone();
        async move {
            let sent = Instant::now();
            let answer = performer.perform(&op).await.map(|_| ());
            let kind = usize::from(!is_read(number));
            let mut shared = shared.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            shared[kind].add(sent - began, sent.elapsed(), answer);
            drop(shared);
            (performer, Ok(()))
        }
    };
    let all = bench.drive(total, rate, |client| bench.performer(client), request).await?;
    let mut results = results.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    for (name, results) in ["Read", "Write"].iter().zip(results.iter_mut()) {
        results.total = all.total;
        let count = results.latencies.len() as u64 + results.errors.values().sum::<u64>();
        let text = summary(results, bench.style);
        print(&format!("Total {name} Ops: {count}\nDetails:{text}\n"))?;
    }
    Ok(())
}

/// `lease-keepalive`
pub(super) async fn lease_keep_alive(bench: &Benchmark, flags: &Flags) -> anyhow::Result<()> {
    let request = |(mut performer, lease): (Performer, Arc<AtomicI64>), _| async move {
        if lease.load(Ordering::Relaxed) == 0 {
            match performer.perform(&Op::Grant { ttl_secs: LEASE_TTL_SECS }).await {
                Ok(answer) => lease.store(answer.lease, Ordering::Relaxed),
                Err(status) => return ((performer, lease), Err(status)),
            }
        }
        let op = Op::KeepAlive { lease: lease.load(Ordering::Relaxed) };
        let answer = performer.perform(&op).await.map(|_| ());
        ((performer, lease), answer)
    };
    let client = |client| (bench.performer(client), Arc::new(AtomicI64::new(0)));
    let results = bench.drive(total(flags)?, 0.0, client, request).await?;
    print(&summary(&results, bench.style))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_varints_padded_with_zeros() {
        let keys = Keys { bytes: 8, count: 1000, is_sequential: true };
        assert_eq!(keys.draw(1)[..], [2, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(keys.draw(64)[..3], [0x80, 1, 0]);
        assert_eq!(keys.draw(1001), keys.draw(1));
    }
}
