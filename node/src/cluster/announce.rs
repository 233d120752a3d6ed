//! Announcing oneself: the member's name and client URLs go through the log once it can reach a
//! leader, and from then on it is started.

use std::time::Duration;

use flotilla_core::NodeId;
use flotilla_core::auth::Pass;
use flotilla_core::command::Command;
use flotilla_core::proto::internal::MemberAttributes;

use crate::config::Config;
use crate::router::Router;

/// Pause between attempts.
const RETRY: Duration = Duration::from_millis(500);

/// Returns when this node serves linearizable reads: a member that was announced by an earlier start
/// may have no leader yet.
pub async fn until_serving(router: &Router) {
    while let Err(error) = router.ticket().await {
        tracing::warn!(%error, "this member does not serve yet");
        tokio::time::sleep(RETRY).await;
    }
}

/// Returns when the cluster knows this member's name and client URLs.
pub async fn announce(router: &Router, node: NodeId, config: &Config) {
    let client_urls: Vec<String> =
        config.advertise_client_urls.iter().map(|url| url.as_str().to_owned()).collect();
    loop {
        let is_known = router.board().notice().members.iter().any(|member| {
            member.id == node.0 && member.name == config.name && member.client_urls == client_urls
        });
        if is_known {
            return;
        }
        let attributes = MemberAttributes {
            id: node.0,
            name: config.name.clone(),
            client_urls: client_urls.clone(),
        };
        match router.submit(Pass::NODE, Command::MemberAttributes(attributes)).await {
            Ok(_) => return,
            Err(error) => tracing::warn!(%error, "this member could not be announced yet"),
        }
        tokio::time::sleep(RETRY).await;
    }
}
