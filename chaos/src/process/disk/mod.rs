//! What the data of a node lies on.

use std::path::{Path, PathBuf};

/// The disk of a node.
#[derive(Debug)]
pub enum Disk {
    /// A directory of this machine.
    Plain(PathBuf),
}

impl Disk {
    /// A file system that forgets and fails, below a node's folder.
    ///
    /// # Errors
    /// It cannot be mounted.
    pub fn faulty(_home: &Path, _has_strict_names: bool, _seed: u64) -> anyhow::Result<Disk> {
        anyhow::bail!("later")
    }

    /// True if it can forget and fail.
    pub fn is_faulty(&self) -> bool {
        false
    }

    /// Where the node keeps its data.
    pub fn data_dir(&self) -> PathBuf {
        match self {
            Disk::Plain(folder) => folder.clone(),
        }
    }

    /// Takes everything away, as a new disk would.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn wipe(&self) -> std::io::Result<()> {
        let folder: &Path = match self {
            Disk::Plain(folder) => folder,
        };
        match std::fs::remove_dir_all(folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Ends whatever disturbs it.
    pub fn heal(&self) {}
}
