//! The first members of a cluster whose list nobody wrote: found by records of the DNS, or at a
//! running cluster where they meet. Asked only while this node belongs to no cluster yet.

mod service;
mod srv;

#[cfg(test)]
mod tests;

use std::borrow::Cow;

use crate::config::{Config, Discovery, Url};

/// Why the first members are not known.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The DNS does not name them.
    #[error("error setting up initial cluster: {0}")]
    Srv(#[from] srv::Error),
    /// The meeting place does not.
    #[error("failed to join discovery cluster ({0})")]
    Service(#[from] service::Error),
}

/// The configuration with the members that this node founds a cluster with, or joins.
///
/// # Errors
/// They are looked for and not found.
pub async fn with_members(config: &Config) -> Result<Cow<'_, Config>, Error> {
    let Some(discovery) = &config.discovery else { return Ok(Cow::Borrowed(config)) };
    let mut config = config.clone();
    match discovery {
        Discovery::Srv { domain, service_suffix } => {
            let own = &config.initial_advertise_peer_urls;
            let found = srv::find(domain, service_suffix, &config.name, own).await?;
            set_members(&mut config, found);
        }
        Discovery::Service(service) => {
            let found = service::meet(service, &config).await?;
            config.initial_cluster_token.clone_from(&service.token);
            set_members(&mut config, found);
        }
    }
    config.discovery = None;
    Ok(Cow::Owned(config))
}

/// The same for a node that joins a running cluster, which has not met at a meeting place.
///
/// # Errors
/// As `with_members`.
pub async fn with_running_members(config: &Config) -> Result<Cow<'_, Config>, Error> {
    match config.discovery {
        Some(Discovery::Service(_)) => Ok(Cow::Borrowed(config)),
        Some(Discovery::Srv { .. }) | None => with_members(config).await,
    }
}

/// Who is found under another spelling of this node's own addresses is this node: the members are
/// named as the others see them.
fn set_members(config: &mut Config, mut members: Vec<(String, Url)>) {
    members.sort();
    let own = members.iter().filter(|(name, _)| *name == config.name);
    let own: Vec<Url> = own.map(|(_, url)| url.clone()).collect();
    if !own.is_empty() {
        config.initial_advertise_peer_urls = own;
    }
    let list: Vec<String> = members.iter().map(|(name, url)| format!("{name}={url}")).collect();
    tracing::info!(members = list.join(","), "the first members were discovered");
    config.initial_cluster = members;
}
