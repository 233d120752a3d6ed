//! SIGTERM and a new start, node after node, as an operator would; of the same program, or of another
//! one for an upgrade. Effect: every node left by itself when asked, and has come back; in an upgrade,
//! as a process of the other program.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::time::sleep;

use crate::process::fault::{Class, Effect, Ground, Planned, Whom};

/// Restarts all nodes.
pub(super) async fn restart(ground: &Ground, who: &mut Whom) -> anyhow::Result<Effect> {
    let _hold = ground.hold_all().await;
    who.is("all, one after the other".to_owned());
    let mut stubborn = Vec::new();
    for node in ground.run.members() {
        if !stop(ground, node, Class::Rolling).await? {
            stubborn.push(node);
        }
        ground.revive(node).await?;
    }
    Ok(judge(&stubborn, "every node left when asked, and came back".to_owned()))
}

/// Restarts all nodes as another program. Between two nodes both programs serve for a while, and others
/// may be hit meanwhile.
pub(super) async fn upgrade(
    ground: &Ground,
    planned: &Planned,
    who: &mut Whom,
) -> anyhow::Result<Effect> {
    let next = ground.upgrade_to.clone().context("there is no other program")?;
    who.is(format!("all, one after the other, to {}", next.words.join(" ")));
    let (mut stubborn, mut upgraded) = (Vec::new(), Vec::new());
    for node in ground.run.members() {
        let hold = ground.hold_all().await;
        if ground.run.node(node).await.replaced_by.is_some() {
            continue;
        }
        if !stop(ground, node, Class::Upgrade).await? {
            stubborn.push(node);
        }
        ground.run.node(node).await.replaced_by = Some(next.clone());
        ground.revive(node).await?;
        let runs = ground.run.node(node).await.pid().map(|pid| format!("/proc/{pid}/exe"));
        let runs = runs.and_then(|link| std::fs::read_link(link).ok());
        if runs.is_some() && runs == Path::new(&next.words[0]).canonicalize().ok() {
            upgraded.push(node);
        }
        drop(hold);
        sleep(planned.lasts / 2).await;
    }
    Ok(match upgraded.as_slice() {
        [] => {
            Err("no node was upgraded: all of them run it already, or it did not start".to_owned())
        }
        nodes => judge(&stubborn, format!("nodes {nodes:?} run {}", next.words[0])),
    })
}

/// True if it left when asked.
async fn stop(ground: &Ground, node: usize, class: Class) -> anyhow::Result<bool> {
    ground.note_death(node, class);
    let run = Arc::clone(&ground.run);
    // Waiting for the process to leave blocks.
    let status = tokio::task::spawn_blocking(move || {
        tokio::runtime::Handle::current().block_on(async { run.node(node).await.stop() })
    })
    .await?;
    Ok(status.is_some())
}

fn judge(stubborn: &[usize], text: String) -> Effect {
    if stubborn.is_empty() {
        Ok(text)
    } else {
        Err(format!("nodes {stubborn:?} did not leave when asked"))
    }
}
