//! SIGTERM and a new start, node after node, as an operator would. Effect: every node left by
//! itself when asked, and has come back.

use crate::process::fault::{Class, Effect, Ground, Whom};

pub(super) async fn carry_out(ground: &Ground, who: &mut Whom) -> anyhow::Result<Effect> {
    let _hold = ground.hold_all().await;
    who.is("all, one after the other".to_owned());
    let mut stubborn = Vec::new();
    for node in ground.run.members() {
        ground.note_death(node, Class::Rolling);
        let run = std::sync::Arc::clone(&ground.run);
        // Waiting for the process to leave blocks.
        let status = tokio::task::spawn_blocking(move || {
            tokio::runtime::Handle::current().block_on(async { run.node(node).await.stop() })
        })
        .await?;
        if status.is_none() {
            stubborn.push(node);
        }
        ground.revive(node).await?;
    }
    Ok(if stubborn.is_empty() {
        Ok("every node left when asked, and came back".to_owned())
    } else {
        Err(format!("nodes {stubborn:?} did not leave when asked"))
    })
}
