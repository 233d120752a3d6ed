//! The state of a directory of backups at one revision, and the data directory that is made of it.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context, bail};
use bytes::Bytes;
use flotilla_core::image::catalog::Run;
use flotilla_core::image::chain::{Chain, Part, TTL_UNKNOWN_SECONDS, Wanted};
use flotilla_core::image::increment;
use sha2::{Digest, Sha256};

use super::super::file::Database;
use super::super::restore::make_member;
use super::directory::{Directory, Listing};
use super::show::moment;

/// Which state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    /// The newest that something has, be there a hole before it or not.
    Newest,
    /// Of this revision.
    Revision(i64),
    /// The last that was recorded by then: milliseconds since 1970.
    Time(u64),
}

/// What is wanted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) dir: PathBuf,
    pub(super) at: At,
    /// Empty: all keys.
    pub(super) prefix: Bytes,
    /// See `flotilla snapshot restore`.
    pub(super) bump_revision: u64,
    /// Flags of the server.
    pub(super) server: Vec<OsString>,
}

/// A state that was read and checked.
pub(super) struct State {
    pub(super) chain: Chain<Database>,
    /// Of all that it is made of, and of what was asked for.
    pub(super) digest: [u8; 32],
    /// For people.
    pub(super) notes: String,
}

pub(super) fn restore(request: &Request) -> anyhow::Result<String> {
    let directory = Directory::open(&request.dir)?;
    let state = read(&directory, request.at, request.prefix.clone())?;
    let source = (&state.chain, &state.digest[..]);
    let said = make_member(directory.path(), source, request.bump_revision, &request.server)?;
    Ok(state.notes + &said)
}

/// Reads the state of keys with a prefix. Every file that it needs is checked as a whole.
pub(super) fn read(directory: &Directory, at: At, prefix: Bytes) -> anyhow::Result<State> {
    let listing = directory.list()?;
    let (revision, mut notes) = revision_of(directory, &listing, at)?;
    let plan = listing.catalog().plan(revision).with_context(|| {
        format!("revision {revision} cannot be restored from {}", directory.path().display())
    })?;
    let base = listing.bases.iter().find(|base| base.revision == plan.base);
    let base = base.expect("a plan is made of what is listed");
    let (reader, base_digest) = directory.base(base)?;
    let mut digest = Sha256::new();
    digest.update(base_digest);
    digest.update(revision.to_be_bytes());
    digest.update(Sha256::digest(&prefix));
    let mut parts = Vec::new();
    for run in plan.increments {
        let path = directory.increment_path(run);
        let name = path.display().to_string();
        directory.summary(run)?;
        digest.update(directory.increment_digest(run)?);
        parts.push(Part { name, bytes: directory.increment(run)? });
    }
    notes += &format!(
        "revision {revision}: the base of revision {} and {} increments\n",
        plan.base,
        parts.len()
    );
    let identity = (base.revision, base.cluster_id);
    let chain = Chain::open(reader, identity, parts, Wanted { revision, prefix });
    let chain = chain.with_context(|| directory.base_path(plan.base).display().to_string())?;
    let unknown = chain.leases_unknown().len();
    if unknown > 0 {
        notes += &format!(
            "{unknown} leases had ended when they were asked for: their keys are to go after \
             {TTL_UNKNOWN_SECONDS} s\n"
        );
    }
    Ok(State { chain, digest: digest.finalize().into(), notes })
}

/// The revision that is meant, and what there is to say about it.
fn revision_of(directory: &Directory, listing: &Listing, at: At) -> anyhow::Result<(i64, String)> {
    let of_increments = listing.increments.iter().map(|run| run.last).max();
    let of_bases = listing.bases.iter().map(|base| base.revision).max();
    let newest = of_increments.max(of_bases);
    let newest = newest.with_context(|| format!("{} is empty", directory.path().display()))?;
    match at {
        At::Newest => Ok((newest, String::new())),
        At::Revision(revision) if revision > newest => {
            bail!("the newest revision in {} is {newest}", directory.path().display())
        }
        At::Revision(revision) => Ok((revision, String::new())),
        At::Time(time_ms) => at_time(directory, listing, time_ms),
    }
}

fn at_time(
    directory: &Directory,
    listing: &Listing,
    time_ms: u64,
) -> anyhow::Result<(i64, String)> {
    let bases = listing.bases.iter().filter(|base| base.time_ms <= time_ms);
    let mut found = bases.map(|base| base.revision).max();
    let mut is_newest = true;
    let mut runs: Vec<Run> = listing.increments.clone();
    runs.sort();
    for run in runs.into_iter().rev() {
        let summary = directory.summary(run)?;
        if summary.time_ms <= time_ms {
            found = found.max(Some(run.last));
            break;
        }
        is_newest = false;
        let within = increment::revision_at(&directory.increment(run)?, time_ms);
        let name = || directory.increment_path(run).display().to_string();
        if let Some(revision) = within.with_context(name)? {
            found = found.max(Some(revision));
            break;
        }
    }
    let found = found.with_context(|| format!("nothing was recorded by {}", moment(time_ms)))?;
    let mut notes =
        format!("revision {found} is the last that was recorded by {}\n", moment(time_ms));
    if is_newest && listing.bases.iter().all(|base| base.time_ms <= time_ms) {
        notes += "nothing later is there: what came after it is not known\n";
    }
    Ok((found, notes))
}
