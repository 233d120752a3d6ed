//! Compaction of much history at half load, and what puts feel of it.

use std::time::Duration;

use flotilla_proto::etcdserverpb as pb;
use prost::Message as _;

use super::{PROBE_OUTSTANDING, Settings, Side, Turn, plan_of, probe};
use crate::load::Shape;
use crate::wire::Method;
use crate::workload::Fill;

/// Revisions to compact.
const REVISIONS: u64 = 1_000_000;
/// Requests under way to find the full load.
const FULL_OUTSTANDING: usize = 256;

/// Full load for a moment, half of it quietly, half of it with a compaction.
pub(super) async fn turn(side: &mut Side, settings: Settings) -> anyhow::Result<Turn> {
    let mut turn = Turn::default();
    let plan = plan_of("P1", "put", FULL_OUTSTANDING, settings.scale)?;
    side.session.prepare(&plan.fill).await?;
    let full = Shape::Closed { outstanding: FULL_OUTSTANDING };
    let outcome = side.session.load(&plan, &full, settings.timing).await?;
    let rate = turn.keep(&plan, &full, &outcome).rate;
    // History over few keys, so that nearly all of it can go.
    write_history(side, settings.scale.of(REVISIONS), &plan.fill).await?;

    let probes = plan_of("P1", "put", PROBE_OUTSTANDING, settings.scale)?;
    let shape = probe(rate / 2.0, settings.timing.length);
    let quiet = side.session.load(&probes, &shape, settings.timing).await?;
    let quiet = turn.keep(&probes, &shape, &quiet);
    let channel = side.session.pool.channel(0);
    let newest = side.session.pool.status().await?.header.map_or(0, |header| header.revision);
    let request = pb::CompactionRequest { revision: newest, physical: false }.encode_to_vec();
    // The load measures at once, without a warm-up, so that the compaction falls into it.
    let timing = crate::session::Timing { warmup_max: Duration::ZERO, ..settings.timing };
    let (busy, compacted) = tokio::join!(
        side.session.load(&probes, &shape, timing),
        channel.unary(Method::Compact, &request)
    );
    compacted?;
    let busy = turn.keep(&probes, &shape, &busy?);
    turn.set("half_rate", rate / 2.0);
    turn.set("put_p999_ms_quiet", quiet.latency.p999_ms);
    turn.set("put_p999_ms_compacting", busy.latency.p999_ms);
    turn.set("put_p999_over_quiet", busy.latency.p999_ms / quiet.latency.p999_ms);
    Ok(turn)
}

async fn write_history(side: &Side, revisions: u64, fills: &[Fill]) -> anyhow::Result<()> {
    let Some(fill) = fills.first() else { return Ok(()) };
    let rounds = revisions.div_ceil(fill.keyspace.count);
    for round in 0..rounds {
        let seed = side.session.seed + round;
        crate::fill::fill(&side.session.pool, &side.session.check, fill, seed).await?;
    }
    Ok(())
}
