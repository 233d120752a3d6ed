//! A node is stopped at a moment of its own that has a name. It is started anew with the point, and left to
//! come to it under load. Effect: it left by SIGABRT, and its log has the point's name. The
//! target must be built with them.

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::process::fault::{Effect, Ground, Planned, Whom};
use crate::sim::chance::Chance;

/// The variable by which the target is told.
const VARIABLE: &str = "FAILPOINTS";
/// How often the point is passed first, at most.
const PASSES_MAX: u64 = 200;
/// How long a node may take to come to a point. Not every point is on the way of every load.
const REACHED_WITHIN: Duration = Duration::from_secs(10);
const POLL_EVERY: Duration = Duration::from_millis(20);
const SIGABRT: i32 = 6;

pub(super) async fn carry_out(
    ground: &Ground,
    planned: &Planned,
    who: &mut Whom,
    chance: &mut Chance,
) -> anyhow::Result<Effect> {
    let hold = ground.hold_someone(chance).await;
    let name = chance.pick(&ground.failpoints).clone();
    // Points of a start are passed once, those of a write often.
    let passes = if chance.one_in(2) { 0 } else { chance.below(PASSES_MAX) };
    who.is(format!("n{} at {name} after {passes} passes", hold.node));
    {
        let mut held = ground.run.node(hold.node).await;
        held.may_leave = true;
        held.kill();
        let passes = if passes == 0 { String::new() } else { format!("{passes}*off->") };
        held.variables = vec![(VARIABLE.to_owned(), format!("{name}={passes}return"))];
        held.start(&ground.run.target)?;
        held.variables.clear();
    }
    let left = wait_left(ground, hold.node).await;
    sleep(planned.lasts / 4).await;
    let effect = {
        let mut held = ground.run.node(hold.node).await;
        let words = held.last_words(20);
        // It must not stay with the point in it.
        held.kill();
        match left {
            Some(status) if has_stopped_at(&name, status, &words) => {
                Ok(format!("stopped at {name}"))
            }
            Some(status) => {
                let name = &held.name;
                ground.run.find(format!("{name} left by itself, {status}; it wrote:\n{words}"));
                Err(format!("it left by itself, {status}"))
            }
            None => Err(format!("it did not come to {name} within {REACHED_WITHIN:?}")),
        }
    };
    ground.revive(hold.node).await?;
    ground.run.node(hold.node).await.may_leave = false;
    Ok(effect)
}

async fn wait_left(ground: &Ground, node: usize) -> Option<ExitStatus> {
    let deadline = Instant::now() + REACHED_WITHIN;
    while Instant::now() < deadline {
        let mut held = ground.run.node(node).await;
        if let Some(status) = held.take_exit() {
            held.left = Some(status);
        }
        if held.left.is_some() {
            return held.left;
        }
        drop(held);
        sleep(POLL_EVERY).await;
    }
    None
}

fn has_stopped_at(name: &str, status: ExitStatus, words: &str) -> bool {
    let last = words.lines().rev().find(|line| line.contains("stopped at failpoint"));
    status.signal() == Some(SIGABRT) && last.is_some_and(|line| line.ends_with(name))
}
