//! A noisy neighbour: full lists in a loop, while another client's puts are measured.

use super::{PROBE_OUTSTANDING, PROBE_RATE, Settings, Side, Turn, plan_of, probe};
use crate::connect::Pool;
use crate::load::{self, Scene, Shape};
use crate::progress::Progress;
use crate::wire::Options;

/// Lists the neighbour has under way.
const LISTS_OUTSTANDING: usize = 4;

/// Puts alone, then beside the neighbour.
pub(super) async fn turn(id: &str, side: &mut Side, settings: Settings) -> anyhow::Result<Turn> {
    let mut turn = Turn::default();
    let puts = plan_of("P1", "put", PROBE_OUTSTANDING, settings.scale)?;
    let lists = plan_of(id, "list-all", LISTS_OUTSTANDING, settings.scale)?;
    side.session.prepare(&puts.fill).await?;
    side.session.prepare(&lists.fill).await?;
    let shape = probe(PROBE_RATE, settings.timing.length);
    let alone = side.session.load(&puts, &shape, settings.timing).await?;
    let alone = turn.keep(&puts, &shape, &alone);

    // The neighbour is another client: it has connections of its own.
    let pool = Pool::open(&side.cluster.endpoints, LISTS_OUTSTANDING, &Options::default()).await?;
    let quiet = Progress::new("neighbour", true);
    let scene = Scene {
        pool: &pool,
        check: &side.session.check,
        pids: &[],
        seed: side.session.seed,
        progress: &quiet,
        trace: None,
    };
    let listing = Shape::Closed { outstanding: LISTS_OUTSTANDING };
    let whole = settings.timing.warmup_max + settings.timing.length;
    let (beside, lists_done) = tokio::join!(
        side.session.load(&puts, &shape, settings.timing),
        load::run(&scene, &lists, &listing, std::time::Duration::ZERO, whole),
    );
    let beside = turn.keep(&puts, &shape, &beside?);
    turn.set("put_p99_ms_alone", alone.latency.p99_ms);
    turn.set("put_p99_ms_beside", beside.latency.p99_ms);
    turn.set("put_p99_over_alone", beside.latency.p99_ms / alone.latency.p99_ms);
    turn.set("neighbour_lists_per_sec", lists_done?.recorded.rate());
    Ok(turn)
}
