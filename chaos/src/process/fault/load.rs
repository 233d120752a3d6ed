//! Many more clients, none of which pauses. Effect: while it lasts, calls are made at twice the
//! rate of the peace before the first fault.

use std::sync::Arc;

use tokio::time::Instant;

use crate::history::ClientId;
use crate::process::clock::{duration, stamps};
use crate::process::fault::{Effect, Ground, Planned, Whom};
use crate::process::traffic::{Home, client};
use crate::sim::chance::Chance;

/// Clients more.
const CLIENTS: u32 = 48;
/// They are numbered from here.
const FIRST_CLIENT: u32 = 5_000;
/// Mean pause of all clients meanwhile, as a part of the usual one.
const HURRY: u32 = 25;

pub(super) async fn carry_out(
    ground: &Ground,
    planned: &Planned,
    who: &mut Whom,
    chance: &mut Chance,
) -> anyhow::Result<Effect> {
    who.is(format!("{CLIENTS} clients more"));
    let run = &ground.run;
    let clock = run.recorder.clock;
    let rate = |from: u64, to: u64| {
        let notes = run.recorder.notes();
        let made = notes.operations.iter().filter(|it| (from..to).contains(&it.invoked)).count();
        made as f64 / duration(to - from).as_secs_f64().max(0.001)
    };
    let since = clock.now();
    let usual = rate(since.saturating_sub(stamps(planned.lasts)), since);
    run.traffic.set_think_mean(run.traffic.think / HURRY);
    let until = Instant::now() + planned.lasts;
    let tasks: Vec<_> = (0..CLIENTS)
        .map(|n| {
            let id = ClientId(FIRST_CLIENT + n);
            tokio::spawn(client(Arc::clone(run), id, Home::Anywhere, chance.fork(n.into()), until))
        })
        .collect();
    for task in tasks {
        task.await?;
    }
    run.traffic.set_think_mean(run.traffic.think);
    let hurried = rate(since, since + stamps(planned.lasts));
    let what = format!("{hurried:.0} calls a second, {usual:.0} before");
    Ok(if hurried >= 2.0 * usual { Ok(what) } else { Err(what) })
}
