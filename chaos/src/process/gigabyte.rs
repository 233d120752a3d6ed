//! Power that fails on a cluster with much data: how soon it serves again, and whether everything that
//! was acknowledged is there. No history is kept of so much: the keys, and their values, say what is due.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use flotilla_proto::etcdserverpb::kv_client::KvClient;
use flotilla_proto::etcdserverpb::{PutRequest, RangeRequest};
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::Channel;

use crate::process::clock::Clock;
use crate::process::disk::{Loss, Policy};
use crate::process::fault::Class;
use crate::process::options::Options;
use crate::process::prepare;
use crate::process::record::Recorder;
use crate::process::run::Run;
use crate::process::target::Target;
use crate::process::traffic::{Traffic, connect};
use crate::sim::chance::Chance;

/// How it is asked for.
pub const USAGE: &str = "flotilla-chaos power-cut --target NAME=COMMAND [--nodes 1|3|5] [--mib N] \
                         [--seed S] [--out DIR]";

/// Bytes of a value: no compression makes less of them.
const VALUE_BYTES: usize = 64 << 10;
/// Space that the store may take.
const QUOTA_BYTES: u64 = 8 << 30;
/// Puts under way at once.
const WRITERS: u64 = 16;
/// How long a put may take: the disks hold up much.
const PUT_WITHIN: Duration = Duration::from_secs(30);
/// How long a put may take that asks whether the cluster serves again.
const SERVES_WITHIN: Duration = Duration::from_secs(1);
/// All of it must be written, and served again, within these.
const FILL_WITHIN: Duration = Duration::from_secs(900);
const RETURN_WITHIN: Duration = Duration::from_secs(120);
/// The promise: a cluster with a gigabyte serves again by then.
const PROMISED_WITHIN: Duration = Duration::from_secs(10);
/// How long there is no power.
const DARK: Duration = Duration::from_secs(1);
const AGAIN_AFTER: Duration = Duration::from_millis(20);
/// Keys in one answer when everything is read again.
const KEYS_PER_READ: u64 = 64;
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// What it came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Bytes of values that were acknowledged before the power failed.
    pub bytes: u64,
    /// What was lost of what was not synced, over all disks.
    lost: Loss,
    /// Until the cluster acknowledged a put, from when the processes were started.
    pub writes_after: Duration,
    /// Until each member answered a linearizable read.
    pub reads_after: Duration,
    /// Acknowledged keys that are not there, or have another value.
    pub missing: Vec<String>,
}

impl Outcome {
    /// Whether everything is there, and soon enough.
    pub fn is_good(&self) -> bool {
        self.missing.is_empty() && self.writes_after.max(self.reads_after) <= PROMISED_WITHIN
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let verdict = if self.is_good() { "PASS" } else { "FAIL" };
        let Loss { changes, lost, bytes } = self.lost;
        writeln!(
            f,
            "{verdict}: {} MiB acknowledged; power cut on all, {lost} of {changes} changes lost, {bytes} \
             bytes; a put was acknowledged {:.2} s after the start, each member read after {:.2} s \
             (promised within {PROMISED_WITHIN:?}); {} acknowledged keys missing or wrong",
            self.bytes >> 20,
            self.writes_after.as_secs_f64(),
            self.reads_after.as_secs_f64(),
            self.missing.len()
        )?;
        self.missing.iter().take(10).try_for_each(|line| writeln!(f, "  {line}"))
    }
}

/// Makes the run that the words behind `power-cut` ask for.
///
/// # Errors
/// The words are not understood, or it could not be made.
pub fn power_cut(words: &[String]) -> anyhow::Result<Outcome> {
    let mut options =
        Options::new(Target { name: String::new(), words: Vec::new(), is_flotilla: false });
    let mut mib = 1_024;
    let mut words = words.iter();
    while let Some(flag) = words.next() {
        let value = words.next().with_context(|| format!("{flag} needs a value"))?;
        match flag.as_str() {
            "--target" => options.target = Target::parse(value)?,
            "--nodes" => options.nodes_count = value.parse()?,
            "--seed" => options.seed = value.parse()?,
            "--mib" => mib = value.parse()?,
            "--out" => options.out = value.into(),
            _ => bail!("unknown flag {flag}"),
        }
    }
    ensure!(!options.target.words.is_empty(), "--target is missing");
    options.classes = vec![Class::PowerCutAll];
    // A flag of etcd's: much data is not to be refused.
    options.target.words.push(format!("--quota-backend-bytes={QUOTA_BYTES}"));
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let outcome = runtime.block_on(cut_async(&options, mib << 20));
    runtime.shutdown_timeout(Duration::from_secs(5));
    outcome
}

async fn cut_async(options: &Options, bytes: u64) -> anyhow::Result<Outcome> {
    let folder = super::make_folder(options)?;
    let prepared = prepare::prepare(options, &folder)?;
    if let Some((_, reason)) = prepared.impossible.first() {
        bail!("the power cannot be cut here: {reason}");
    }
    let traffic = Traffic::new(1, 0, Vec::new(), Duration::ZERO);
    let run = Arc::new(Run::new(
        options.target.clone(),
        folder,
        Recorder::new(Clock::start()),
        traffic,
        prepared.network,
        prepared.nodes,
        options.nodes_count,
    ));
    super::start(&run).await?;
    let filling = Filling {
        seed: options.seed,
        next: AtomicU64::new(0),
        count: bytes / VALUE_BYTES as u64,
        acknowledged: (0..bytes / VALUE_BYTES as u64 + WRITERS * 4_096)
            .map(|_| AtomicBool::new(false))
            .collect(),
        is_over: AtomicBool::new(false),
    };
    let filling = Arc::new(filling);
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| tokio::spawn(write(Arc::clone(&run), Arc::clone(&filling), writer)))
        .collect();
    let deadline = Instant::now() + FILL_WITHIN;
    while filling.next.load(Ordering::Relaxed) < filling.count + WRITERS {
        ensure!(Instant::now() < deadline, "the keys were not written within {FILL_WITHIN:?}");
        sleep(AGAIN_AFTER).await;
    }
    // Others are under way.
    let mut chance = Chance::new(options.seed);
    let lost = cut(&run, Policy::draw(&mut chance)).await?;
    filling.is_over.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await?;
    }
    sleep(DARK).await;
    for node in run.members() {
        run.node(node).await.disk.heal();
    }
    let began = Instant::now();
    for node in run.members() {
        run.node(node).await.start(&run.target)?;
    }
    let (writes_after, reads_after) = tokio::try_join!(
        async {
            serve_put(&run).await?;
            anyhow::Ok(began.elapsed())
        },
        async {
            for node in run.members() {
                ensure!(run.wait_ready(node, RETURN_WITHIN).await, "n{node} does not come back");
            }
            Ok(began.elapsed())
        }
    )?;
    let (bytes, missing) = read_again(&run, &filling).await?;
    Ok(Outcome { bytes, lost, writes_after, reads_after, missing })
}

/// What is written, and what of it was acknowledged.
struct Filling {
    seed: u64,
    /// The next key.
    next: AtomicU64,
    /// So many are to be there before the power fails.
    count: u64,
    acknowledged: Vec<AtomicBool>,
    is_over: AtomicBool,
}

impl Filling {
    fn key(n: u64) -> Bytes {
        format!("p/{n:010}").into()
    }

    fn value(&self, n: u64) -> Vec<u8> {
        let mut chance = Chance::new(self.seed ^ n.rotate_left(32));
        std::iter::repeat_with(|| chance.draw().to_le_bytes())
            .take(VALUE_BYTES / 8)
            .flatten()
            .collect()
    }
}

async fn write(run: Arc<Run>, filling: Arc<Filling>, writer: u64) {
    let members = run.members();
    let home = members[writer as usize % members.len()];
    let mut channel: Option<Channel> = None;
    while !filling.is_over.load(Ordering::Relaxed) {
        let n = filling.next.fetch_add(1, Ordering::Relaxed);
        let Some(acknowledged) = filling.acknowledged.get(n as usize) else { return };
        // Written again until it is acknowledged, or the power is gone: the value is the same.
        while !filling.is_over.load(Ordering::Relaxed) {
            let Some(connected) = channel.take().or(connect(&run, home).await) else {
                sleep(AGAIN_AFTER).await;
                continue;
            };
            let put = put(Filling::key(n), filling.value(n).into());
            match timeout(PUT_WITHIN, KvClient::new(connected.clone()).put(put)).await {
                Ok(Ok(_)) => {
                    acknowledged.store(true, Ordering::Relaxed);
                    channel = Some(connected);
                    break;
                }
                _ => sleep(AGAIN_AFTER).await,
            }
        }
    }
}

fn put(key: Bytes, value: Bytes) -> PutRequest {
    PutRequest { key, value, ..PutRequest::default() }
}

async fn cut(run: &Run, policy: Policy) -> anyhow::Result<Loss> {
    let mut sum = Loss::default();
    let mut nodes = Vec::new();
    for node in run.members() {
        nodes.push(run.node(node).await);
    }
    // All disks before any process: what is acknowledged in between would be on no disk that is left.
    for held in &nodes {
        let loss = held.disk.mounted().context("it has an ordinary disk")?.cut(policy);
        sum.changes += loss.changes;
        sum.lost += loss.lost;
        sum.bytes += loss.bytes;
    }
    for held in &mut nodes {
        held.kill();
    }
    Ok(sum)
}

async fn serve_put(run: &Run) -> anyhow::Result<()> {
    let deadline = Instant::now() + RETURN_WITHIN;
    let mut last = "nobody was reached".to_owned();
    while Instant::now() < deadline {
        for node in run.members() {
            let Some(channel) = connect(run, node).await else { continue };
            let put = put(Bytes::from_static(b"served"), Bytes::from_static(b"again"));
            match timeout(SERVES_WITHIN, KvClient::new(channel).put(put)).await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(status)) => last = format!("n{node}: {}", status.message()),
                Err(_) => last = format!("n{node}: no answer within {SERVES_WITHIN:?}"),
            }
        }
        sleep(AGAIN_AFTER).await;
    }
    bail!("no put is acknowledged within {RETURN_WITHIN:?}: {last}")
}

/// Reads all keys. Answers how many bytes were acknowledged, and what of them is not there.
async fn read_again(run: &Run, filling: &Filling) -> anyhow::Result<(u64, Vec<String>)> {
    let channel = connect(run, run.members()[0]).await.context("n0 has just served")?;
    let mut kv = KvClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
    let (mut bytes, mut missing) = (0, Vec::new());
    let written = filling.next.load(Ordering::Relaxed).min(filling.acknowledged.len() as u64);
    let mut first = 0;
    while first < written {
        let last = (first + KEYS_PER_READ).min(written);
        let request = RangeRequest {
            key: Filling::key(first),
            range_end: Filling::key(last),
            ..RangeRequest::default()
        };
        let found = kv.range(request).await?.into_inner().kvs;
        for n in first..last {
            if !filling.acknowledged[n as usize].load(Ordering::Relaxed) {
                continue;
            }
            bytes += VALUE_BYTES as u64;
            let key = Filling::key(n);
            let name = String::from_utf8_lossy(&key).into_owned();
            match found.iter().find(|kv| kv.key == key) {
                None => missing.push(format!("{name} is not there")),
                Some(kv) if kv.value != filling.value(n) => {
                    missing.push(format!("{name} has another value"));
                }
                Some(_) => {}
            }
        }
        first = last;
    }
    Ok((bytes, missing))
}
