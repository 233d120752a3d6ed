//! Closed loops: one workload, grants and keep-alives, few and many requests under way.

use super::{Settings, Side, Turn, plan_of};
use crate::load::Shape;
use crate::report::json::Load;

/// Requests under way for leases.
const LEASES_OUTSTANDING: usize = 512;
/// Client streams of the smaller and the larger load.
const STREAMS: [usize; 2] = [200, 4000];

async fn closed(
    turn: &mut Turn,
    id: &str,
    workload: &str,
    outstanding: usize,
    side: &mut Side,
    settings: Settings,
) -> anyhow::Result<Load> {
    let plan = plan_of(id, workload, outstanding, settings.scale)?;
    side.session.prepare(&plan.fill).await?;
    let shape = Shape::Closed { outstanding };
    let outcome = side.session.load(&plan, &shape, settings.timing).await?;
    Ok(turn.keep(&plan, &shape, &outcome))
}

/// One workload.
pub(super) async fn one(
    id: &str,
    workload: &str,
    outstanding: usize,
    side: &mut Side,
    settings: Settings,
) -> anyhow::Result<Turn> {
    let mut turn = Turn::default();
    let load = closed(&mut turn, id, workload, outstanding, side, settings).await?;
    turn.set("throughput", load.rate);
    turn.set("cpu_us_per_op", load.servers_cpu_us_per_op.unwrap_or(f64::NAN));
    turn.set("p50_ms", load.latency.p50_ms);
    turn.set("p99_ms", load.latency.p99_ms);
    turn.set("p999_ms", load.latency.p999_ms);
    Ok(turn)
}

/// Grants, then keep-alives.
pub(super) async fn leases(id: &str, side: &mut Side, settings: Settings) -> anyhow::Result<Turn> {
    let mut turn = Turn::default();
    for (workload, metric) in
        [("lease-grant", "grant_throughput"), ("lease-keepalive", "keepalive_throughput")]
    {
        let load = closed(&mut turn, id, workload, LEASES_OUTSTANDING, side, settings).await?;
        turn.set(metric, load.rate);
    }
    Ok(turn)
}

/// Few, then many requests under way.
pub(super) async fn streams(id: &str, side: &mut Side, settings: Settings) -> anyhow::Result<Turn> {
    let mut turn = Turn::default();
    let mut rates = [0.0; 2];
    for (rate, outstanding) in rates.iter_mut().zip(STREAMS) {
        *rate = closed(&mut turn, id, "put", outstanding, side, settings).await?.rate;
        turn.set(&format!("throughput_{outstanding}"), *rate);
    }
    turn.set("throughput_kept", rates[1] / rates[0]);
    Ok(turn)
}
