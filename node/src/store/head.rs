//! The file HEAD: which format and which generation of the store is the current one, and up to
//! where that generation is known to be on disk. It is small text, replaced whole by a rename.
//!
//! The first line, the line `format` and the checksum line at the end keep their shape in every
//! format, so that an old program can tell a newer store from a damaged one.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;

use super::Error;
use crate::failpoint::Failpoint;

/// The newest format this program reads, and the one it writes.
pub const FORMAT: u32 = 1;

pub(super) const FILE: &str = "HEAD";
const NEXT_FILE: &str = "HEAD.next";
const TITLE: &str = "flotilla store";

/// What the file says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    /// The generation in use; 0 while a new store is being made.
    pub(super) generation: u64,
    /// RocksDB's sequence number up to which that generation was flushed. A RocksDB that opens with
    /// less has lost the end of its MANIFEST, which it would not notice by itself.
    pub(super) flushed: u64,
}

impl Head {
    /// Reads it; `None` when there is no such file.
    pub(super) fn read(dir: &Path) -> Result<Option<Self>, Error> {
        let path = dir.join(FILE);
        match fs::read(&path) {
            Ok(bytes) => Self::parse(&path, &bytes).map(Some),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(&path)(error)),
        }
    }

    /// Makes it the current one. After a crash either the old file or this one is there.
    pub(super) fn write(&self, dir: &Path) -> Result<(), Error> {
        let (path, next) = (dir.join(FILE), dir.join(NEXT_FILE));
        let mut file = File::create(&next).map_err(Error::io(&next))?;
        file.write_all(self.to_text().as_bytes()).map_err(Error::io(&next))?;
        file.sync_all().map_err(Error::io(&next))?;
        Failpoint::StoreHeadWritten.reached();
        fs::rename(&next, &path).map_err(Error::io(&path))?;
        Failpoint::StoreHeadRenamed.reached();
        sync_dir(dir)
    }

    pub(super) fn to_text(self) -> String {
        let Self { generation, flushed } = self;
        let body = format!(
            "{TITLE}\nformat {FORMAT}\ngeneration {generation:020}\nflushed {flushed:020}\n"
        );
        format!("{body}checksum {:08x}\n", crc32c::crc32c(body.as_bytes()))
    }

    pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Self, Error> {
        let damaged = |detail: &str| Error::damaged(path, detail);
        let text = std::str::from_utf8(bytes).map_err(|_| damaged("it is not text"))?;
        if !text.starts_with(TITLE) {
            return Err(damaged("it does not begin as the HEAD of a store"));
        }
        let start = text.rfind("checksum ").ok_or_else(|| damaged("it has no checksum"))?;
        let (body, checksum) = text.split_at(start);
        if checksum != format!("checksum {:08x}\n", crc32c::crc32c(body.as_bytes())) {
            return Err(damaged("its checksum does not match"));
        }
        let format = field(body, "format ").and_then(|format| format.try_into().ok());
        match format.ok_or_else(|| damaged("it names no format"))? {
            FORMAT => {}
            found if found > FORMAT => {
                return Err(Error::NewerFormat { file: path.to_path_buf(), found, known: FORMAT });
            }
            _ => return Err(damaged("it names a format that never was")),
        }
        Ok(Self {
            generation: field(body, "generation ")
                .ok_or_else(|| damaged("it names no generation"))?,
            flushed: field(body, "flushed ").ok_or_else(|| damaged("it lacks a line"))?,
        })
    }
}

/// Makes the names in a directory durable.
pub(super) fn sync_dir(dir: &Path) -> Result<(), Error> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(Error::io(dir))
}

fn field(body: &str, name: &str) -> Option<u64> {
    body.lines().find_map(|line| line.strip_prefix(name))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(bytes: &[u8]) -> Result<Head, Error> {
        Head::parse(Path::new("HEAD"), bytes)
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Head::read(dir.path()).unwrap(), None);
        let mut head = Head { generation: 7, flushed: u64::MAX };
        head.write(dir.path()).unwrap();
        assert_eq!(Head::read(dir.path()).unwrap(), Some(head));
        head.generation = u64::MAX;
        head.write(dir.path()).unwrap();
        assert_eq!(Head::read(dir.path()).unwrap(), Some(head));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_damage() {
        let text = Head { generation: 3, flushed: 1234 }.to_text().into_bytes();
        for at in 0..text.len() {
            assert!(matches!(parse(&text[..at]), Err(Error::Damaged { .. })), "cut at {at}");
            for bit in 0..8 {
                let mut changed = text.clone();
                changed[at] ^= 1 << bit;
                assert!(matches!(parse(&changed), Err(Error::Damaged { .. })), "bit {bit} of {at}");
            }
        }
    }

    #[test]
    fn a_later_format_is_told_from_damage() {
        let body = "flotilla store\nformat 2\nunheard of\n";
        let text = format!("{body}checksum {:08x}\n", crc32c::crc32c(body.as_bytes()));
        let found = parse(text.as_bytes());
        assert!(matches!(found, Err(Error::NewerFormat { found: 2, known: 1, .. })), "{found:?}");
    }
}
