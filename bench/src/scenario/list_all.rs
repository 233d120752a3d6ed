//! Full lists, in one answer and as a stream: CPU, and how far memory grows meanwhile.

use super::{Settings, Side, Turn, plan_of};
use crate::load::Shape;

/// Lists under way.
const OUTSTANDING: usize = 4;

/// Lists in one answer, then streams. A store older than 3.7 has no streams; their figures are
/// then missing.
pub(super) async fn turn(side: &mut Side, settings: Settings) -> anyhow::Result<Turn> {
    let mut turn = Turn { expects_failures: true, ..Turn::default() };
    for (workload, name) in [("list-all", "unary"), ("list-stream", "stream")] {
        let plan = plan_of("P8", workload, OUTSTANDING, settings.scale)?;
        side.session.prepare(&plan.fill).await?;
        let shape = Shape::Closed { outstanding: OUTSTANDING };
        let outcome = side.session.load(&plan, &shape, settings.timing).await?;
        let load = turn.keep(&plan, &shape, &outcome);
        if load.answered == 0 {
            continue;
        }
        turn.set(&format!("{name}_throughput"), load.rate);
        let cpu = load.servers_cpu_us_per_op.unwrap_or(f64::NAN);
        turn.set(&format!("{name}_cpu_us_per_op"), cpu);
        if let (Some(before), Some(most)) =
            (load.usage.memory_before, load.usage.resident_bytes_max)
        {
            let growth = most.saturating_sub(before.resident_bytes) as f64 / f64::from(1 << 20);
            // No growth at all would make ratios meaningless.
            turn.set(&format!("{name}_memory_growth_mib"), growth.max(0.1));
        }
    }
    Ok(turn)
}
