//! Writes the keys a workload wants to find.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::bail;

use crate::check::Check;
use crate::connect::Pool;
use crate::operation::Op;
use crate::perform::Performer;
use crate::random::Random;
use crate::workload::Fill;

/// Requests under way while filling.
const OUTSTANDING: usize = 256;
/// Attempts to write one key.
const ATTEMPTS_MAX: u32 = 5;

/// Writes every key of `fill` once.
///
/// # Errors
/// A key cannot be written.
pub async fn fill(pool: &Pool, check: &Arc<Check>, fill: &Fill, seed: u64) -> anyhow::Result<()> {
    let next = Arc::new(AtomicU64::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for slot in 0..OUTSTANDING.min(fill.keyspace.count as usize) {
        let performer = Performer::new(pool.channel(slot), check.clone());
        let random = Random::new(seed, (1 << 40) + slot as u64);
        tasks.spawn(write_some(performer, fill.clone(), next.clone(), random));
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

async fn write_some(
    mut performer: Performer,
    fill: Fill,
    next: Arc<AtomicU64>,
    mut random: Random,
) -> anyhow::Result<()> {
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= fill.keyspace.count {
            return Ok(());
        }
        let value_bytes = fill.value.draw(&mut random);
        let op = Op::Put { key: fill.keyspace.key(number), value_bytes, lease: 0 };
        let mut attempts = 0;
        while let Err(status) = performer.perform(&op).await {
            attempts += 1;
            if attempts == ATTEMPTS_MAX {
                bail!("filling: {status}");
            }
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    }
}
