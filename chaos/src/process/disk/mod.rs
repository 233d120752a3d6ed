//! What the data of a node lies on: a directory of this machine, or a disk of the harness that
//! remembers what was synced, loses the rest when its power fails, and fails by rules.

mod cut;
mod mount;
mod pages;
mod rules;
mod volume;

#[cfg(test)]
mod tests;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

pub use cut::{Loss, Policy};
pub use mount::Mounted;
pub use rules::{Action, Operation, Rule, Rules};
pub use volume::{ROOT, Volume};

/// Bytes of a disk of the harness, which lies in memory.
const CAPACITY_BYTES: u64 = 8 << 30;

/// The disk of a node.
#[derive(Debug)]
pub enum Disk {
    /// A directory of this machine.
    Plain(PathBuf),
    /// A disk of the harness.
    Faulty {
        /// The disk.
        mounted: Mounted,
        /// Where it is mounted.
        on: PathBuf,
    },
}

impl Disk {
    /// A disk of the harness, mounted below a node's folder.
    ///
    /// # Errors
    /// It cannot be mounted.
    pub fn faulty(home: &Path, has_strict_names: bool, seed: u64) -> anyhow::Result<Disk> {
        let on = home.join("disk");
        std::fs::create_dir_all(&on)?;
        let volume = Volume::new(CAPACITY_BYTES, has_strict_names);
        Ok(Disk::Faulty { mounted: Mounted::new(volume, &on, seed)?, on })
    }

    /// The disk of the harness, if it is one.
    pub fn mounted(&self) -> Option<&Mounted> {
        match self {
            Disk::Plain(_) => None,
            Disk::Faulty { mounted, .. } => Some(mounted),
        }
    }

    /// True if it can forget and fail.
    pub fn is_faulty(&self) -> bool {
        self.mounted().is_some()
    }

    /// Where the node keeps its data.
    pub fn data_dir(&self) -> PathBuf {
        match self {
            Disk::Plain(folder) => folder.clone(),
            Disk::Faulty { on, .. } => on.join("data"),
        }
    }

    /// Takes everything away, as a new disk would.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn wipe(&self) -> std::io::Result<()> {
        match std::fs::remove_dir_all(self.data_dir()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Ends whatever disturbs it.
    pub fn heal(&self) {
        if let Some(mounted) = self.mounted() {
            mounted.rules().clear();
            let mut volume = mounted.volume();
            volume.power_on();
            volume.set_capacity_bytes(CAPACITY_BYTES);
        }
    }

    /// Keeps a copy of what is there, if it would be lost with the harness.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn keep(&self, home: &Path) -> std::io::Result<()> {
        match self.mounted() {
            Some(mounted) => mounted.export(&home.join(OsStr::new("disk-at-the-end"))),
            None => Ok(()),
        }
    }
}
