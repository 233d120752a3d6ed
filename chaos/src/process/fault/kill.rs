//! SIGKILL. Effect: the process was there and is gone; a leader has a successor in a later term.

use tokio::time::sleep;

use crate::process::fault::{Class, Effect, Ground, Planned, Whom};
use crate::sim::chance::Chance;

/// Kills one node and starts it again after a while.
pub(super) async fn one(
    ground: &Ground,
    planned: &Planned,
    who: &mut Whom,
    chance: &mut Chance,
) -> anyhow::Result<Effect> {
    let hold = ground.hold(planned.class == Class::KillLeader, chance).await;
    let term = ground.run.monitor.term();
    let was_leader = ground.note_death(hold.node, planned.class);
    who.is(format!("n{}{}", hold.node, if was_leader { ", the leader" } else { "" }));
    let was_running = ground.run.node(hold.node).await.kill();
    sleep(planned.lasts).await;
    ground.revive(hold.node).await?;
    if !was_running {
        return Ok(Err("it did not run".to_owned()));
    }
    Ok(if was_leader { ground.wait_leader(term).await } else { Ok("killed".to_owned()) })
}

/// Kills all nodes at once and starts them again.
pub(super) async fn all(
    ground: &Ground,
    planned: &Planned,
    who: &mut Whom,
) -> anyhow::Result<Effect> {
    let _hold = ground.hold_all().await;
    who.is("all".to_owned());
    let members = ground.run.members();
    let mut killed = 0;
    for node in &members {
        killed += usize::from(ground.run.node(*node).await.kill());
    }
    sleep(planned.lasts / 4).await;
    for node in &members {
        ground.run.node(*node).await.start(&ground.run.target)?;
    }
    for node in &members {
        ground.revive(*node).await?;
    }
    Ok(if killed == members.len() {
        Ok(format!("{killed} killed"))
    } else {
        Err(format!("{killed} of {} ran", members.len()))
    })
}
