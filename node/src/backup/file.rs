//! A backup as a file: the database, and behind it the SHA-256 of all before.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, bail};
use flotilla_core::image::{self, bolt};
use sha2::{Digest, Sha256};

/// Bytes of the hash.
const HASH_BYTES: u64 = 32;
/// A database is a whole number of these.
const ALIGNMENT_BYTES: u64 = 512;
/// Bytes that are read at once.
const READ_BYTES: usize = 1 << 20;

/// The bytes of a file that are its content: of a snapshot, those before its hash.
#[derive(Debug)]
pub(super) struct Database {
    file: File,
    bytes: u64,
}

impl Database {
    /// All bytes of a file.
    pub(super) fn whole(path: &Path) -> anyhow::Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let bytes = file.metadata()?.len();
        Ok(Self { file, bytes })
    }
}

impl bolt::Bytes for Database {
    fn len(&self) -> u64 {
        self.bytes
    }

    fn read(&self, at: u64, into: &mut [u8]) -> Result<(), image::Error> {
        self.file.read_exact_at(into, at).map_err(|error| image::Error::Io(error.to_string()))
    }
}

/// How a file's hash is dealt with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hash {
    /// It must be there and right.
    Required,
    /// It may be missing, and must be right.
    IfPresent,
    /// It is not looked at.
    Ignored,
}

/// Opens a backup. Also gives the SHA-256 of its database.
///
/// # Errors
/// It cannot be read, is cut short, was changed, or is no database.
pub(super) fn open(path: &Path, hash: Hash) -> anyhow::Result<(bolt::Reader<Database>, [u8; 32])> {
    let name = path.display();
    let file = File::open(path).with_context(|| format!("cannot open {name}"))?;
    let metadata = file.metadata().with_context(|| format!("cannot read {name}"))?;
    if !metadata.is_file() {
        bail!("{name} is not a file");
    }
    let (has_hash, bytes) = match metadata.len() % ALIGNMENT_BYTES {
        HASH_BYTES => (true, metadata.len() - HASH_BYTES),
        0 => (false, metadata.len()),
        _ => bail!("{name} is no snapshot, or was cut: {} bytes", metadata.len()),
    };
    let (found, stored) = digest(&file, bytes).with_context(|| format!("cannot read {name}"))?;
    match hash {
        Hash::Required if !has_hash => {
            bail!(
                "{name} has no hash: it was cut, or is a file out of a data directory, for which \
                 there is --skip-hash-check"
            );
        }
        Hash::Required | Hash::IfPresent if has_hash && found[..] != stored[..] => {
            bail!("{name} was changed: its SHA-256 is not the one that it says");
        }
        _ => {}
    }
    let reader = bolt::Reader::open(Database { file, bytes });
    Ok((reader.with_context(|| name.to_string())?, found))
}

/// The SHA-256 of the first bytes, and what follows on them.
fn digest(mut file: &File, bytes: u64) -> std::io::Result<([u8; 32], Vec<u8>)> {
    let mut hash = Sha256::new();
    let mut chunk = vec![0; READ_BYTES];
    let mut left = bytes;
    while left > 0 {
        let len = usize::try_from(left).unwrap_or(READ_BYTES).min(READ_BYTES);
        file.read_exact(&mut chunk[..len])?;
        hash.update(&chunk[..len]);
        left -= len as u64;
    }
    let mut rest = Vec::new();
    file.take(HASH_BYTES).read_to_end(&mut rest)?;
    Ok((hash.finalize().into(), rest))
}
