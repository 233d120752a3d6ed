//! SIGSTOP and SIGCONT: a process that was away for a while and does not know it. Effect: the
//! kernel calls it stopped; a leader that was away for long has a successor.

use std::time::Duration;

use rustix::process::Signal;
use tokio::time::sleep;

use crate::process::fault::{Class, Effect, Ground, Planned, Whom};
use crate::sim::chance::Chance;

/// A signal takes effect when the process is next scheduled, or interrupted.
const STOPPED_WITHIN: Duration = Duration::from_millis(100);
/// A leader that is away for this long must have a successor.
const LONG: Duration = Duration::from_millis(3_000);

pub(super) async fn carry_out(
    ground: &Ground,
    planned: &Planned,
    who: &mut Whom,
    chance: &mut Chance,
) -> anyhow::Result<Effect> {
    let hold = ground.hold(planned.class == Class::PauseLeader, chance).await;
    let term = ground.run.monitor.term();
    let is_long = planned.lasts >= LONG && ground.run.members().len() > 1;
    let was_leader = is_long && ground.note_death(hold.node, planned.class);
    who.is(format!("n{}{}", hold.node, if was_leader { ", the leader" } else { "" }));
    let was_sent = ground.run.node(hold.node).await.signal(Signal::STOP);
    sleep(STOPPED_WITHIN).await;
    let was_stopped = ground.run.node(hold.node).await.is_paused();
    sleep(planned.lasts.saturating_sub(STOPPED_WITHIN)).await;
    let successor = if was_leader { Some(ground.wait_leader(term).await) } else { None };
    ground.run.node(hold.node).await.signal(Signal::CONT);
    Ok(match (was_sent && was_stopped, successor) {
        (false, _) => Err("it was not stopped".to_owned()),
        (true, Some(successor)) => successor,
        (true, None) => Ok(format!("away for {:?}", planned.lasts)),
    })
}
