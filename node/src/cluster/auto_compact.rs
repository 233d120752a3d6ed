//! Compaction by itself: history older than a period, or beyond a number of revisions, is given up.
//! Every member keeps the books, so that a new leader can go on; only the leader compacts.

use std::collections::VecDeque;
use std::time::Duration;

use flotilla_core::auth::Pass;
use flotilla_core::command::Command;
use flotilla_core::proto::etcdserverpb::CompactionRequest;

use crate::config::AutoCompaction;
use crate::router::Router;

/// Longest time between two compactions by period.
const PERIOD_STEP_MAX: Duration = Duration::from_secs(3_600);
/// Samples of the revision in that time.
const SAMPLES_PER_STEP: u32 = 10;
/// Time between two compactions by revision.
const REVISION_STEP: Duration = Duration::from_secs(300);

/// Compacts for as long as the node runs.
pub async fn run(router: Router, policy: AutoCompaction) {
    match policy {
        AutoCompaction::Periodic(period) => by_period(&router, period).await,
        AutoCompaction::Revisions(kept) => by_revision(&router, kept).await,
    }
}

async fn by_period(router: &Router, period: Duration) {
    let step = period.min(PERIOD_STEP_MAX);
    let sample_every = step / SAMPLES_PER_STEP;
    let kept = usize::try_from(period.as_nanos().div_ceil(sample_every.as_nanos().max(1)))
        .unwrap_or(usize::MAX);
    let mut samples: VecDeque<i64> = VecDeque::new();
    let mut since_last = 0;
    loop {
        samples.push_back(router.board().head().revision);
        tokio::time::sleep(sample_every).await;
        since_last += 1;
        if samples.len() < kept {
            continue;
        }
        while samples.len() > kept {
            samples.pop_front();
        }
        if since_last >= SAMPLES_PER_STEP {
            since_last = 0;
            compact(router, samples[0]).await;
        }
    }
}

async fn by_revision(router: &Router, kept: u64) {
    let kept = i64::try_from(kept).unwrap_or(i64::MAX);
    loop {
        tokio::time::sleep(REVISION_STEP).await;
        compact(router, router.board().head().revision - kept).await;
    }
}

async fn compact(router: &Router, revision: i64) {
    let board = router.board();
    let is_leader = board.leader() == board.member_id();
    if !is_leader || revision <= board.head().compact_revision.max(0) {
        return;
    }
    let request = CompactionRequest { revision, physical: false };
    match router.submit(Pass::NODE, Command::Compact(request)).await {
        Ok(_) => tracing::info!(revision, "compacted automatically"),
        Err(error) => tracing::warn!(revision, %error, "could not compact automatically"),
    }
}
