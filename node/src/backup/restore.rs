//! Makes the data directory of a member of a new cluster.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, bail};

use super::arguments::Request;
use super::file::{self, Hash};
use crate::cluster;
use crate::config::{self, Config, Outcome};

pub(super) fn restore(path: &Path, request: &Request) -> anyhow::Result<String> {
    let config = server_config(request)?;
    let hash = if request.skips_hash_check { Hash::Ignored } else { Hash::Required };
    let (reader, digest) = file::open(path, hash)?;
    let bump = i64::try_from(request.bump_revision).context("--bump-revision is too high")?;
    let restored = cluster::restore(&config, &reader, &digest, bump)
        .with_context(|| format!("cannot restore {}", path.display()))?;
    let mut text = format!(
        "restored {} at revision {}, compacted at {}, as member {} of cluster {:x} in {}\n",
        path.display(),
        restored.revision,
        restored.compact_revision,
        restored.node,
        restored.cluster_id,
        config.data_dir.display(),
    );
    for (kind, member) in restored.alarms {
        text += &format!("not restored: an alarm of kind {kind} of member {member:x}\n");
    }
    Ok(text)
}

/// Read as the server reads it, but for variables of the environment.
fn server_config(request: &Request) -> anyhow::Result<Config> {
    let read_file = |_: &Path| Err(std::io::ErrorKind::Unsupported.into());
    match config::parse(request.server.clone(), &BTreeMap::new(), &read_file) {
        Ok(Outcome::Run(config, _)) => Ok(*config),
        Ok(_) => bail!("only flags of a new member are wanted"),
        Err(error) => bail!("{}", error.report().trim_end()),
    }
}
