//! The commands of etcd's own `benchmark` program: the same flags, the same summary.
//!
//! `put`, `range`, `txn-put`, `txn-mixed`, `lease-keepalive`, `stm`, `watch`, `watch-latency`.
//! Flags it knows and this program cannot honour are refused, never ignored.

mod requests;
mod stm;
mod summary;
mod watch;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};

use crate::check::Check;
use crate::connect::{self, Pool};
use crate::flags::{Flags, Spec};
use crate::wire::{Method, Options, Status};

/// Commands it understands.
pub const COMMANDS: [&str; 8] =
    ["put", "range", "txn-put", "txn-mixed", "lease-keepalive", "stm", "watch", "watch-latency"];

const COMMON: Spec = Spec {
    values: &[
        "endpoints",
        "conns",
        "clients",
        "user",
        "dial-timeout",
        "cert",
        "key",
        "cacert",
        "output",
    ],
    switches: &["precise", "sample", "target-leader"],
};
const OWN: Spec = Spec {
    values: &[
        "key-size",
        "val-size",
        "rate",
        "total",
        "key-space-size",
        "compact-interval",
        "compact-index-delta",
        "consistency",
        "limit",
        "txn-ops",
        "end-key",
        "rw-ratio",
        "report-interval",
        "streams",
        "watch-per-stream",
        "watched-key-total",
        "put-rate",
        "put-total",
        "watchers-per-stream",
        "isolation",
        "keys",
        "keys-per-txn",
        "txn-wr-percent",
        "stm-locker",
    ],
    switches: &["sequential-keys", "check-hashkv", "prevkv"],
};

/// Most clients.
const CLIENTS_MAX: usize = 100_000;
/// Most requests, since each latency is kept.
const TOTAL_MAX: u64 = 100_000_000;

/// Runs one command; false if answers were wrong.
///
/// # Errors
/// Flags that are not understood, or endpoints that cannot be reached.
pub fn run(arguments: &[String]) -> anyhow::Result<bool> {
    let flags = Flags::parse(arguments, &[&COMMON, &OWN])?;
    let Some((command, words)) = flags.words.split_first() else {
        bail!("one of {} is needed", COMMANDS.join(", "));
    };
    for (flag, why) in [
        ("cert", "TLS is not supported"),
        ("key", "TLS is not supported"),
        ("cacert", "TLS is not supported"),
        ("output", "use `flotilla-bench run --json` for data"),
        ("report-interval", "use `flotilla-bench run --json` for a timeline"),
    ] {
        ensure!(flags.text(flag).is_none(), "--{flag}: {why}");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let bench = Benchmark::open(&flags).await?;
        match command.as_str() {
            "put" => requests::put(&bench, &flags).await?,
            "range" => requests::range(&bench, &flags, words).await?,
            "txn-put" => requests::txn_put(&bench, &flags).await?,
            "txn-mixed" => requests::txn_mixed(&bench, &flags).await?,
            "lease-keepalive" => requests::lease_keep_alive(&bench, &flags).await?,
            "stm" => stm::run(&bench, &flags).await?,
            "watch" => watch::watch(&bench, &flags).await?,
            "watch-latency" => watch::latency(&bench, &flags).await?,
            other => bail!("unknown benchmark {other:?}; {} are known", COMMANDS.join(", ")),
        }
        let violations = bench.check.violations();
        for example in &violations.examples {
            summary::print(&format!("WRONG ANSWER: {example}\n"))?;
        }
        Ok(violations.count == 0)
    })
}

/// What all commands share.
struct Benchmark {
    pool: Pool,
    endpoints: Vec<String>,
    clients: usize,
    style: summary::Style,
    check: Arc<Check>,
}

impl Benchmark {
    async fn open(flags: &Flags) -> anyhow::Result<Self> {
        let endpoints = flags.text("endpoints").unwrap_or("127.0.0.1:2379");
        let mut endpoints: Vec<String> = endpoints.split(',').map(str::to_owned).collect();
        let mut options = connect::log_in(&endpoints, flags.text("user")).await?;
        options.call_timeout = Duration::from_secs(60);
        if flags.is_on("target-leader")? {
            endpoints = vec![leader(&endpoints, &options).await?];
        }
        let clients = flags.or("clients", 1)?;
        ensure!((1..=CLIENTS_MAX).contains(&clients), "1 to {CLIENTS_MAX} clients");
        let connections = flags.or("conns", 1)?;
        let pool = Pool::open(&endpoints, connections, &options).await?;
        let style = summary::Style {
            is_precise: flags.is_on("precise")?,
            has_samples: flags.is_on("sample")?,
        };
        Ok(Self { pool, endpoints, clients, style, check: Arc::new(Check::default()) })
    }

    /// Runs `total` requests over the clients, at most `rate` a second (zero is no limit).
    /// `client` makes a client's state; `request` does the request of this number.
    async fn drive<S, F>(
        &self,
        total: u64,
        rate: f64,
        client: impl Fn(usize) -> S,
        request: impl Fn(S, u64) -> F + Clone + Send + 'static,
    ) -> anyhow::Result<Results>
    where
        S: Send + 'static,
        F: Future<Output = (S, Result<(), Status>)> + Send,
    {
        ensure!(total <= TOTAL_MAX, "at most {TOTAL_MAX} requests");
        let next = Arc::new(AtomicU64::new(0));
        let shared = Arc::new(Mutex::new(Results::default()));
        let began = Instant::now();
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..self.clients {
            let (mut state, request) = (client(n), request.clone());
            let (next, shared) = (next.clone(), shared.clone());
            tasks.spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= total {
                        return;
                    }
                    pace(began, number, rate).await;
                    let sent = Instant::now();
                    let (after, result) = request(state, number).await;
                    state = after;
                    let mut results = shared.lock().unwrap_or_else(PoisonError::into_inner);
                    results.add(sent - began, sent.elapsed(), result);
                }
            });
        }
        while let Some(done) = tasks.join_next().await {
            done?;
        }
        let mut results =
            std::mem::take(&mut *shared.lock().unwrap_or_else(PoisonError::into_inner));
        results.total = began.elapsed();
        Ok(results)
    }
}

/// Waits until request `number` is due at `rate` a second.
async fn pace(began: Instant, number: u64, rate: f64) {
    if rate > 0.0 {
        let due = began + Duration::from_secs_f64(number as f64 / rate);
        tokio::time::sleep_until(due.into()).await;
    }
}

/// What requests measured.
#[derive(Default)]
struct Results {
    /// When each was sent, and its latency.
    latencies: Vec<(Duration, Duration)>,
    errors: BTreeMap<String, u64>,
    total: Duration,
}

impl Results {
    fn add(&mut self, at: Duration, latency: Duration, result: Result<(), Status>) {
        match result {
            Ok(()) => self.latencies.push((at, latency)),
            Err(status) => *self.errors.entry(status.to_string()).or_default() += 1,
        }
    }
}

async fn leader(endpoints: &[String], options: &Options) -> anyhow::Result<String> {
    use flotilla_proto::etcdserverpb as pb;
    use prost::Message as _;
    for endpoint in endpoints {
        let address = connect::address(endpoint)?;
        let connection = crate::wire::Connection::open(&address, options.clone()).await?;
        let answer =
            connection.unary(Method::Status, &pb::StatusRequest::default().encode_to_vec()).await?;
        let status = pb::StatusResponse::decode(answer)?;
        if status.header.map_or(0, |header| header.member_id) == status.leader {
            return Ok(endpoint.clone());
        }
    }
    bail!("no endpoint leads")
}
