//! The files of a directory of backups: their names, how they come to be there whole or not at all, and how
//! they go. One program at a time writes there.
//!
//! | name | |
//! |---|---|
//! | `base-REVISION.db` | a snapshot, as `flotilla snapshot save` makes it |
//! | `base-REVISION.about` | says what it is; a base without it is not complete |
//! | `increment-FIRST-LAST.inc` | all changes of these revisions |
//! | `LOCK`, `.draft-…` | of whoever writes |

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use flotilla_core::image::catalog::{Catalog, Run};
use flotilla_core::image::{bolt, frames, increment};
use flotilla_proto::internal::BackupBase;
use flotilla_proto::internal::backup_frame::Content;
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use super::super::file::{self, Database, Hash};

const LOCK: &str = "LOCK";
const DRAFT: &str = ".draft-";
/// Digits of a revision in a name, so that names sort as revisions do.
const DIGITS: usize = 20;

/// A directory of backups.
#[derive(Clone, Debug)]
pub(super) struct Directory {
    path: PathBuf,
}

/// What is there.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// In the order of their revisions.
    pub(super) bases: Vec<BackupBase>,
    /// In the order of their names.
    pub(super) increments: Vec<Run>,
    /// Half a base, or of nobody here.
    pub(super) others: Vec<String>,
}

impl Listing {
    pub(super) fn catalog(&self) -> Catalog {
        let mut catalog = Catalog::default();
        self.bases.iter().for_each(|base| catalog.add_base(base.revision, base.compact_revision));
        self.increments.iter().for_each(|run| catalog.add_increment(*run));
        catalog
    }
}

impl Directory {
    /// One that is there.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        if !path.is_dir() {
            bail!("{} is no directory", path.display());
        }
        Ok(Self { path: path.to_owned() })
    }

    /// One that is made if it is not there.
    pub(super) fn create(path: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))?;
        Self::open(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Nobody else writes there as long as the answer is kept. What others left half done goes.
    pub(super) fn lock(&self) -> anyhow::Result<File> {
        let path = self.path.join(LOCK);
        let file = File::options().write(true).create(true).truncate(false).open(&path);
        let file = file.with_context(|| format!("cannot write {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                bail!("another backup is under way in {}", self.path.display())
            }
            Err(TryLockError::Error(error)) => return Err(error).context("cannot lock"),
        }
        for name in self.names()? {
            let is_half_a_base = name.strip_suffix(".db").is_some_and(|stem| {
                revision_in(stem, "base-").is_some()
                    && !self.path.join(format!("{stem}.about")).exists()
            });
            if name.starts_with(DRAFT) || is_half_a_base {
                fs::remove_file(self.path.join(&name))?;
            }
        }
        Ok(file)
    }

    /// What is there. Of an increment its name alone is looked at.
    pub(super) fn list(&self) -> anyhow::Result<Listing> {
        let mut listing = Listing::default();
        for name in self.names()? {
            if let Some(run) = run_in(&name) {
                listing.increments.push(run);
            } else if let Some(revision) = base_in(&name, ".about") {
                let base = self.about(revision)?;
                if self.base_path(revision).exists() {
                    listing.bases.push(base);
                } else {
                    listing.others.push(name);
                }
            } else if let Some(revision) = base_in(&name, ".db") {
                if !self.about_path(revision).exists() {
                    listing.others.push(name);
                }
            } else if name != LOCK && !name.starts_with(DRAFT) {
                listing.others.push(name);
            }
        }
        Ok(listing)
    }

    fn names(&self) -> anyhow::Result<Vec<String>> {
        let here = || format!("cannot read {}", self.path.display());
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path).with_context(here)? {
            names.push(entry.with_context(here)?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    fn about(&self, revision: i64) -> anyhow::Result<BackupBase> {
        let path = self.about_path(revision);
        let name = || path.display().to_string();
        let (content, _) = frames::ends(&Database::whole(&path)?).with_context(name)?;
        match content {
            Content::Base(base) if base.revision == revision => Ok(base),
            _ => bail!("{} does not say what the base is", name()),
        }
    }

    /// A base with its SHA-256, which is that of when it was taken.
    pub(super) fn base(
        &self,
        base: &BackupBase,
    ) -> anyhow::Result<(bolt::Reader<Database>, [u8; 32])> {
        let path = self.base_path(base.revision);
        let (reader, digest) = file::open(&path, Hash::Required)?;
        if digest[..] != base.sha256[..] {
            bail!("{} is not the snapshot that was taken", path.display());
        }
        Ok((reader, digest))
    }

    pub(super) fn increment(&self, run: Run) -> anyhow::Result<Database> {
        Database::whole(&self.increment_path(run))
    }

    /// Both ends of an increment, which are what its name says.
    pub(super) fn summary(&self, run: Run) -> anyhow::Result<increment::Summary> {
        let path = self.increment_path(run);
        let summary = increment::summary(&self.increment(run)?);
        let summary = summary.with_context(|| path.display().to_string())?;
        if (summary.first, summary.last) != (run.first, run.last) {
            let Run { first, last } = Run { first: summary.first, last: summary.last };
            bail!("{} has the revisions {first} to {last}", path.display());
        }
        Ok(summary)
    }

    pub(super) fn increment_digest(&self, run: Run) -> anyhow::Result<[u8; 32]> {
        let path = self.increment_path(run);
        let mut hash = Sha256::new();
        let mut file = File::open(&path).with_context(|| path.display().to_string())?;
        io::copy(&mut file, &mut hash).with_context(|| path.display().to_string())?;
        Ok(hash.finalize().into())
    }

    pub(super) fn base_path(&self, revision: i64) -> PathBuf {
        self.path.join(format!("base-{revision:0DIGITS$}.db"))
    }

    fn about_path(&self, revision: i64) -> PathBuf {
        self.path.join(format!("base-{revision:0DIGITS$}.about"))
    }

    pub(super) fn increment_path(&self, run: Run) -> PathBuf {
        let Run { first, last } = run;
        self.path.join(format!("increment-{first:0DIGITS$}-{last:0DIGITS$}.inc"))
    }

    /// A file that goes unless it is given a name.
    pub(super) fn draft(&self) -> anyhow::Result<NamedTempFile> {
        let made = tempfile::Builder::new().prefix(DRAFT).tempfile_in(&self.path);
        made.with_context(|| format!("cannot write in {}", self.path.display()))
    }

    pub(super) fn add_increment(&self, draft: NamedTempFile, run: Run) -> anyhow::Result<()> {
        self.give_name(draft, &self.increment_path(run))
    }

    /// Adds a snapshot, which is a base once it is said what it is.
    pub(super) fn add_base(&self, draft: NamedTempFile, base: BackupBase) -> anyhow::Result<()> {
        let revision = base.revision;
        let mut about = self.draft()?;
        about.write_all(&frames::file_head())?;
        about.write_all(&frames::last_frame(Content::Base(base)))?;
        // One of the same revision is no longer what is said of it.
        self.remove(&self.about_path(revision))?;
        self.give_name(draft, &self.base_path(revision))?;
        self.give_name(about, &self.about_path(revision))
    }

    pub(super) fn remove_base(&self, revision: i64) -> anyhow::Result<()> {
        self.remove(&self.about_path(revision))?;
        self.remove(&self.base_path(revision))
    }

    pub(super) fn remove_increment(&self, run: Run) -> anyhow::Result<()> {
        self.remove(&self.increment_path(run))
    }

    fn give_name(&self, draft: NamedTempFile, path: &Path) -> anyhow::Result<()> {
        let at = || format!("cannot write {}", path.display());
        draft.as_file().sync_all().with_context(at)?;
        draft.persist(path).map_err(|error| error.error).with_context(at)?;
        self.sync().with_context(at)
    }

    /// It may be gone already.
    fn remove(&self, path: &Path) -> anyhow::Result<()> {
        let at = || format!("cannot remove {}", path.display());
        match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            result => result.with_context(at)?,
        }
        self.sync().with_context(at)
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

fn revision_in(name: &str, prefix: &str) -> Option<i64> {
    let digits = name.strip_prefix(prefix)?;
    (digits.len() == DIGITS).then(|| digits.parse().ok())?
}

fn base_in(name: &str, suffix: &str) -> Option<i64> {
    revision_in(name.strip_suffix(suffix)?, "base-")
}

fn run_in(name: &str) -> Option<Run> {
    let (first, last) = name.strip_prefix("increment-")?.strip_suffix(".inc")?.split_once('-')?;
    let (first, last) = (revision_in(first, "")?, revision_in(last, "")?);
    (1 < first && first <= last).then_some(Run { first, last })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_revisions_and_sort_like_them() {
        let directory = Directory { path: PathBuf::from("d") };
        let runs = [Run { first: 2, last: 9 }, Run { first: 10, last: i64::MAX }];
        let names = runs.map(|run| directory.increment_path(run).display().to_string());
        assert!(names[0] < names[1]);
        for (name, run) in names.iter().zip(runs) {
            assert_eq!(run_in(name.strip_prefix("d/").expect("in it")), Some(run));
        }
        assert_eq!(base_in("base-00000000000000000007.db", ".db"), Some(7));
        for name in [
            "base-7.db",
            "increment-00000000000000000002.inc",
            "increment-00000000000000000003-00000000000000000002.inc",
            "increment-00000000000000000002-00000000000000000003.inc.old",
        ] {
            assert_eq!((base_in(name, ".db"), run_in(name)), (None, None), "{name}");
        }
    }
}
