//! What can go wrong with the store, and which file it went wrong with.
//!
//! None of these is answered by trying again: the process that meets one stops, and its state is
//! recovered from the log or from the other nodes.

use std::path::{Path, PathBuf};

use flotilla_core::view::ViewError;

/// Why the store could not do as told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Two users of one directory would destroy each other's data.
    #[error("the store in {dir} is already open, in this or another process")]
    InUse {
        /// The store's directory.
        dir: PathBuf,
    },
    /// Written by a later version of this program.
    #[error("{file} says store format {found}, and this program knows no format after {known}")]
    NewerFormat {
        /// The file that says so.
        file: PathBuf,
        /// The format it names.
        found: u32,
        /// The newest format that can be read.
        known: u32,
    },
    /// A file is missing, cut short or changed.
    #[error("the store is damaged at {file}: {detail}")]
    Damaged {
        /// The file, or the directory when RocksDB does not say which file.
        file: PathBuf,
        /// What was found.
        detail: String,
    },
    /// The operating system refused.
    #[error("{path}: {source}")]
    Io {
        /// What was being opened, written or synced.
        path: PathBuf,
        /// Its answer.
        source: std::io::Error,
    },
    /// RocksDB refused for a reason other than damage, such as a full disk.
    #[error("RocksDB in {dir}: {detail}")]
    RocksDb {
        /// RocksDB's directory.
        dir: PathBuf,
        /// Its words.
        detail: String,
    },
    /// An earlier write or flush failed. What is on disk is whole but will not move on.
    #[error("the store stopped taking writes after an error: {0}")]
    Stopped(String),
    /// Rows that this program wrote say something that cannot be.
    #[error("the store holds rows that make no sense: {0}")]
    Row(String),
    /// A received row belongs to no column this program knows.
    #[error("a row of a snapshot names column {0}, which does not exist")]
    UnknownColumn(u32),
}

impl Error {
    pub(super) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.to_path_buf(), source }
    }

    pub(super) fn damaged(file: &Path, detail: impl Into<String>) -> Self {
        Self::Damaged { file: file.to_path_buf(), detail: detail.into() }
    }

    /// From an error met while RocksDB in `dir` was in use.
    pub(super) fn rocks(dir: &Path, error: rocksdb::Error) -> Self {
        let is_damage = error.kind() == rocksdb::ErrorKind::Corruption;
        let detail = error.into_string();
        if is_damage {
            let file = named_file(dir, &detail).unwrap_or_else(|| dir.to_path_buf());
            Self::Damaged { file, detail }
        } else {
            Self::RocksDb { dir: dir.to_path_buf(), detail }
        }
    }

    /// From an error met while opening RocksDB in `dir`, where it must exist and be whole. Apart
    /// from what the operating system refuses, every complaint is then about what the files hold.
    pub(super) fn rocks_open(dir: &Path, error: rocksdb::Error) -> Self {
        let is_missing_file = error.as_ref().contains("No such file or directory");
        let is_refusal = error.kind() == rocksdb::ErrorKind::IOError && !is_missing_file;
        let detail = error.into_string();
        if is_refusal {
            return Self::RocksDb { dir: dir.to_path_buf(), detail };
        }
        let file = named_file(dir, &detail).unwrap_or_else(|| dir.to_path_buf());
        Self::Damaged { file, detail }
    }
}

impl From<ViewError> for Error {
    fn from(error: ViewError) -> Self {
        Self::Row(error.0)
    }
}

impl From<Error> for ViewError {
    fn from(error: Error) -> Self {
        Self(error.to_string())
    }
}

/// The file of `dir` that a message of RocksDB mentions, if it mentions one.
fn named_file(dir: &Path, message: &str) -> Option<PathBuf> {
    let start = message.find(dir.to_str()?)?;
    let rest = &message[start..];
    let after_dir = dir.to_str()?.len();
    let end = rest[after_dir..]
        .find(|c: char| c.is_whitespace() || matches!(c, ':' | ',' | ';' | '\'' | '"' | ')'))
        .map_or(rest.len(), |end| after_dir + end);
    Some(PathBuf::from(&rest[..end]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_damaged_file_is_found_in_the_message() {
        let dir = Path::new("/data/a b/generation-1");
        let message = "Corruption: block checksum mismatch in /data/a b/generation-1/000012.sst \
                       offset 7 size 9";
        let file = named_file(dir, message);
        assert_eq!(file, Some(PathBuf::from("/data/a b/generation-1/000012.sst")));
        let message = "IO error: /data/a b/generation-1/CURRENT: no";
        let file = named_file(dir, message);
        assert_eq!(file, Some(PathBuf::from("/data/a b/generation-1/CURRENT")));
        assert_eq!(named_file(dir, "Corruption: bad record"), None);
    }
}
