//! The leader is killed while puts are tried at every node: how long does none succeed?

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use flotilla_proto::etcdserverpb as pb;
use prost::Message as _;

use super::{Settings, Side, Turn};
use crate::connect::{self, Pool};
use crate::operation::Op;
use crate::perform::Performer;
use crate::wire::{Method, Options};

/// How long one attempt may take; the next begins at once.
const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(300);
/// Puts before the kill.
const QUIET: Duration = Duration::from_secs(1);
/// How long the cluster may take to write again.
const RECOVERY_MAX: Duration = Duration::from_secs(30);
/// Time given to a node to come back before the next turn.
const RETURN_MAX: Duration = Duration::from_secs(60);

/// Kills the leader once.
pub(super) async fn turn(side: &mut Side, _settings: Settings) -> anyhow::Result<Turn> {
    ensure!(side.cluster.is_ours(), "only a store that is started here can be killed");
    let leader = leader(side).await?;
    let options = Options { call_timeout: ATTEMPT_TIMEOUT, ..Options::default() };
    let nodes = side.cluster.endpoints.len();
    let pool = Pool::open(&side.cluster.endpoints, nodes, &options).await?;
    let successes = Arc::new(Mutex::new(Vec::new()));
    let is_over = Arc::new(AtomicBool::new(false));
    let mut tries = tokio::task::JoinSet::new();
    for node in 0..nodes {
        let performer = Performer::new(pool.channel(node), side.session.check.clone());
        tries.spawn(put_on(performer, node, successes.clone(), is_over.clone()));
    }
    tokio::time::sleep(QUIET).await;
    side.cluster.kill(leader)?;
    let killed = Instant::now();
    let first_after = |successes: &[Instant]| successes.iter().find(|at| **at > killed).copied();
    let recovered = loop {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let successes = successes.lock().unwrap_or_else(PoisonError::into_inner);
        // A put acknowledged just before the kill may still be on its way; a later one counts.
        let later: Vec<Instant> =
            successes.iter().copied().filter(|at| *at > killed + ATTEMPT_TIMEOUT / 10).collect();
        if let Some(first) = first_after(&later) {
            let last_before = successes.iter().rfind(|at| **at < first).copied();
            break Some(first - last_before.unwrap_or(killed));
        }
        if killed.elapsed() > RECOVERY_MAX {
            break None;
        }
    };
    is_over.store(true, Ordering::Relaxed);
    while tries.join_next().await.is_some() {}
    side.cluster.restart(leader)?;
    connect::wait_ready(&side.cluster.endpoints, RETURN_MAX).await?;
    side.session.pids = side.cluster.pids();
    let mut turn = Turn { expects_failures: true, ..Turn::default() };
    let secs = recovered.context("no put succeeded after the leader was killed")?;
    turn.set("unavailable_secs", secs.as_secs_f64());
    Ok(turn)
}

async fn put_on(
    mut performer: Performer,
    node: usize,
    successes: Arc<Mutex<Vec<Instant>>>,
    is_over: Arc<AtomicBool>,
) {
    let key = bytes::Bytes::from(format!("/bench/leader-kill/{node}"));
    while !is_over.load(Ordering::Relaxed) {
        let op = Op::Put { key: key.clone(), value_bytes: 256, lease: 0 };
        match performer.perform(&op).await {
            Ok(_) => {
                successes.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
}

/// The number of the node that leads.
async fn leader(side: &Side) -> anyhow::Result<usize> {
    let request = pb::StatusRequest::default().encode_to_vec();
    for (n, endpoint) in side.cluster.endpoints.iter().enumerate() {
        let connection =
            crate::wire::Connection::open(&connect::address(endpoint)?, Options::default()).await?;
        let answer = connection.unary(Method::Status, &request).await?;
        let status = pb::StatusResponse::decode(answer)?;
        if status.header.map_or(0, |header| header.member_id) == status.leader {
            return Ok(n);
        }
    }
    anyhow::bail!("no node says it leads")
}
