//! A store with many keys: how much memory it holds, and how long it takes to be ready again.

use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::{Settings, Side, Turn};
use crate::connect;
use crate::process;
use crate::rows::parameters;
use crate::workload::Fill;

/// How long a restart may take.
const READY_MAX: Duration = Duration::from_secs(300);

async fn fill(id: &str, side: &mut Side, settings: Settings) -> anyhow::Result<()> {
    let parameters = parameters(id, 1, settings.scale);
    let fill = Fill { keyspace: parameters.keyspace()?, value: parameters.value };
    side.session.prepare(&[fill]).await
}

/// Memory with the keys loaded.
pub(super) async fn resident(
    id: &str,
    side: &mut Side,
    settings: Settings,
) -> anyhow::Result<Turn> {
    fill(id, side, settings).await?;
    let mut turn = Turn::default();
    let memory = process::total_memory(&side.session.pids)?;
    let memory = memory.context("memory is seen only of a store that is started here")?;
    turn.set("resident_mib", memory.resident_bytes as f64 / f64::from(1 << 20));
    turn.set("anonymous_mib", memory.anonymous_bytes as f64 / f64::from(1 << 20));
    Ok(turn)
}

/// Stops all nodes, starts them, and waits for the first linearizable read.
pub(super) async fn turn(id: &str, side: &mut Side, settings: Settings) -> anyhow::Result<Turn> {
    fill(id, side, settings).await?;
    let mut turn = Turn::default();
    side.cluster.stop()?;
    let began = Instant::now();
    for n in 0..side.cluster.endpoints.len() {
        side.cluster.restart(n)?;
    }
    connect::wait_ready(&side.cluster.endpoints, READY_MAX).await?;
    turn.set("ready_secs", began.elapsed().as_secs_f64());
    side.session.pids = side.cluster.pids();
    Ok(turn)
}
