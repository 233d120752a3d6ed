//! Makes the data directory of a member of a new cluster.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use anyhow::{Context, bail};
use flotilla_core::image::chain::{Chain, Wanted};
use flotilla_core::image::{Source, schema};
use sha2::{Digest, Sha256};

use super::arguments::Request;
use super::file::{self, Hash};
use crate::cluster;
use crate::config::{self, Config, Outcome};

pub(super) fn restore(path: &Path, request: &Request) -> anyhow::Result<String> {
    let hash = if request.skips_hash_check { Hash::Ignored } else { Hash::Required };
    let (reader, digest) = file::open(path, hash)?;
    if request.prefix.is_empty() {
        return make_member(path, (&reader, &digest), request.bump_revision, &request.server);
    }
    let revision = schema::revision(&reader).with_context(|| path.display().to_string())?;
    let wanted = Wanted { revision, prefix: request.prefix.clone() };
    let digest = Sha256::new().chain_update(digest).chain_update(&request.prefix).finalize();
    // No increments, so no cluster that they would have to be of.
    let chain = Chain::open(reader, (revision, 0), Vec::new(), wanted)
        .with_context(|| path.display().to_string())?;
    make_member(path, (&chain, &digest), request.bump_revision, &request.server)
}

/// Makes the data directory of what is read at a path, with a digest of all of it.
pub(super) fn make_member(
    path: &Path,
    (source, digest): (&impl Source, &[u8]),
    bump_revision: u64,
    server: &[OsString],
) -> anyhow::Result<String> {
    let config = server_config(server)?;
    let bump = i64::try_from(bump_revision).context("--bump-revision is too high")?;
    let restored = cluster::restore(&config, source, digest, bump)
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
fn server_config(server: &[OsString]) -> anyhow::Result<Config> {
    let read_file = |_: &Path| Err(std::io::ErrorKind::Unsupported.into());
    match config::parse(server.to_vec(), &BTreeMap::new(), &read_file) {
        Ok(Outcome::Run(config, _)) => Ok(*config),
        Ok(_) => bail!("only flags of a new member are wanted"),
        Err(error) => bail!("{}", error.report().trim_end()),
    }
}
