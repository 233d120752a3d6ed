//! Power cuts: at one moment the disk keeps what was synced, and of the rest what the policy
//! says; the process is killed right after. Most of them come at the worst moment, right before a
//! sync would have made something durable; the others at any. Effect: a process was there, and
//! changes that were not synced were lost or torn.

use std::time::Duration;

use anyhow::Context as _;
use tokio::time::{Instant, sleep};

use crate::process::disk::{Loss, Policy};
use crate::process::fault::{Class, Effect, Ground, Planned, Whom};
use crate::sim::chance::Chance;

/// How long the worst moment is waited for.
const MOMENT_WITHIN: Duration = Duration::from_secs(2);
const POLL_EVERY: Duration = Duration::from_millis(1);

/// Cuts the power of one node.
pub(super) async fn one(
    ground: &Ground,
    planned: &Planned,
    who: &mut Whom,
    chance: &mut Chance,
) -> anyhow::Result<Effect> {
    let hold = ground.hold_someone(chance).await;
    let policy = Policy::draw(chance);
    let was_leader = ground.note_death(hold.node, Class::PowerCut);
    let leads = if was_leader { ", the leader" } else { "" };
    who.is(format!("n{}{leads}, {policy}", hold.node));
    who.add(wait_for_moment(ground, hold.node, policy, chance).await?);
    let (was_running, loss) = cut(ground, hold.node, policy).await?;
    sleep(planned.lasts / 2).await;
    revive(ground, hold.node).await?;
    Ok(judge(was_running, loss))
}

/// Cuts the power of all nodes.
pub(super) async fn all(
    ground: &Ground,
    planned: &Planned,
    who: &mut Whom,
    chance: &mut Chance,
) -> anyhow::Result<Effect> {
    let _hold = ground.hold_all().await;
    let policy = Policy::draw(chance);
    who.is(format!("all, {policy}"));
    let members = ground.run.members();
    who.add(wait_for_moment(ground, *chance.pick(&members), policy, chance).await?);
    let mut sum = Loss::default();
    let mut were_running = true;
    for node in &members {
        let (was_running, loss) = cut(ground, *node, policy).await?;
        were_running &= was_running;
        sum.changes += loss.changes;
        sum.lost += loss.lost;
        sum.bytes += loss.bytes;
    }
    sleep(planned.lasts / 4).await;
    for node in &members {
        let mut held = ground.run.node(*node).await;
        held.disk.heal();
        held.start(&ground.run.target)?;
        held.may_leave = false;
    }
    for node in &members {
        ground.revive(*node).await?;
    }
    Ok(judge(were_running, sum))
}

/// Waits, most of the time, until the power of a node has failed in the middle of a sync.
async fn wait_for_moment(
    ground: &Ground,
    node: usize,
    policy: Policy,
    chance: &mut Chance,
) -> anyhow::Result<&'static str> {
    if chance.one_in(6) {
        return Ok(", at any moment");
    }
    {
        let mut held = ground.run.node(node).await;
        held.may_leave = true;
        held.disk.mounted().context("it has an ordinary disk")?.arm(policy);
    }
    let deadline = Instant::now() + MOMENT_WITHIN;
    while Instant::now() < deadline {
        let held = ground.run.node(node).await;
        if held.disk.mounted().is_none_or(|mounted| mounted.has_sprung()) {
            return Ok(", in the middle of a sync");
        }
        drop(held);
        sleep(POLL_EVERY).await;
    }
    Ok(", after waiting for a sync")
}

async fn cut(ground: &Ground, node: usize, policy: Policy) -> anyhow::Result<(bool, Loss)> {
    let mut held = ground.run.node(node).await;
    let was_running = held.is_started() || held.left.is_some();
    // Between the cut and the kill it sees nothing but errors.
    held.may_leave = true;
    let loss = held.disk.mounted().context("it has an ordinary disk")?.cut(policy);
    held.kill();
    Ok((was_running, loss))
}

async fn revive(ground: &Ground, node: usize) -> anyhow::Result<()> {
    let held = ground.run.node(node).await;
    held.disk.heal();
    drop(held);
    ground.revive(node).await?;
    ground.run.node(node).await.may_leave = false;
    Ok(())
}

fn judge(was_running: bool, loss: Loss) -> Effect {
    let what = format!("{} of {} changes lost, {} bytes", loss.lost, loss.changes, loss.bytes);
    if !was_running {
        Err("it did not run".to_owned())
    } else if loss.lost == 0 {
        Err(format!("everything was synced: {what}"))
    } else {
        Ok(what)
    }
}
