//! Disks that are slow, stuck, full, or whose sync fails. Effect: operations of the node were
//! hit. After a failed sync the node must leave: what it should have kept is gone, and the next
//! sync would lie. A node that leaves because its disk fails is started again once that is over.

use std::time::Duration;

use anyhow::Context as _;
use tokio::time::{Instant, sleep};

use crate::process::disk::{Action, Operation, Rule};
use crate::process::fault::{Class, Effect, Ground, Planned, Whom};
use crate::sim::chance::Chance;

/// How long each operation of a slow disk takes.
const SLOW: Duration = Duration::from_millis(80);
/// What is left of a full disk.
const LEFT_BYTES: u64 = 64 << 10;
/// How long a node may run on after a failed sync.
const LEAVES_WITHIN: Duration = Duration::from_secs(10);
const POLL_EVERY: Duration = Duration::from_millis(50);

pub(super) async fn carry_out(
    ground: &Ground,
    planned: &Planned,
    who: &mut Whom,
    chance: &mut Chance,
) -> anyhow::Result<Effect> {
    let hold = ground.hold_someone(chance).await;
    who.is(format!("n{}", hold.node));
    let rule = match planned.class {
        Class::SlowDisk => rule(vec![Operation::Write, Operation::Sync], Action::Delay(SLOW)),
        Class::StuckDisk => rule(vec![Operation::Write, Operation::Sync], Action::Hang),
        Class::SyncFails => Rule { times: 1, ..rule(vec![Operation::Sync], Action::Fail) },
        _ => Rule { times: 0, ..rule(Vec::new(), Action::Full) },
    };
    let number = {
        let mut held = ground.run.node(hold.node).await;
        held.may_leave = true;
        let mounted = held.disk.mounted().context("it has an ordinary disk")?;
        if planned.class == Class::DiskFull {
            let mut volume = mounted.volume();
            let used = volume.used_bytes();
            volume.set_capacity_bytes(used + LEFT_BYTES);
        }
        mounted.rules().add(rule)
    };
    sleep(planned.lasts).await;
    let left = match planned.class {
        Class::SyncFails => wait_left(ground, hold.node).await,
        _ => has_left(ground, hold.node).await,
    };
    let hits = {
        let held = ground.run.node(hold.node).await;
        let mounted = held.disk.mounted().context("it has an ordinary disk")?;
        let refused = mounted.volume().refused_count();
        let hits = mounted.rules().remove(number) + refused;
        held.disk.heal();
        hits
    };
    ground.revive(hold.node).await?;
    ground.run.node(hold.node).await.may_leave = false;
    let leaves = if left { "; it left" } else { "" };
    let what = format!("{hits} operations were hit{leaves}");
    if planned.class == Class::SyncFails && hits > 0 && !left {
        let text =
            format!("n{} runs on {LEAVES_WITHIN:?} after a sync of its files failed", hold.node);
        // Others never promised to stop; what they lose by it shows in the history.
        if ground.run.target.is_flotilla {
            ground.run.find(text);
        } else {
            ground.run.remark(text);
        }
    }
    Ok(if hits > 0 { Ok(what) } else { Err(what) })
}

/// Of all files, and until it is taken back.
pub(super) fn rule(operations: Vec<Operation>, action: Action) -> Rule {
    Rule { path: String::new(), operations, from: 1, times: u64::MAX, action }
}

async fn has_left(ground: &Ground, node: usize) -> bool {
    let mut held = ground.run.node(node).await;
    if let Some(status) = held.take_exit() {
        held.left = Some(status);
    }
    held.left.is_some()
}

async fn wait_left(ground: &Ground, node: usize) -> bool {
    let deadline = Instant::now() + LEAVES_WITHIN;
    while Instant::now() < deadline {
        if has_left(ground, node).await {
            return true;
        }
        sleep(POLL_EVERY).await;
    }
    false
}
