//! The file operations the write-ahead log needs, and the one real implementation of them. Each
//! call is one system call in spirit: it never retries a failed write or flush.

use std::fs::{self, DirBuilder, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{Advice, FallocateFlags, fadvise, fallocate};
use rustix::io::Errno;

/// Only the node's own user may read what clients stored.
const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// Directories and names. A change to a directory is durable only after [`Disk::sync_dir`].
pub trait Disk: Send + Sync {
    /// Creates `dir` and its parents if they are missing, durably.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;

    /// The names of the files in `dir`, in no particular order. Names that are not UTF-8 are left
    /// out.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// A new empty file for reading and writing; an existing one of that name is emptied.
    fn create(&self, path: &Path) -> io::Result<Box<dyn File>>;

    /// An existing file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Box<dyn File>>;

    /// Gives a file another name, replacing what had it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes earlier `create`, `rename` and `remove` calls in `dir` durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Locks `path`, created if missing, until the answer is dropped or the process ends. `None`
    /// when somebody else holds it.
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send>>>;
}

/// One open file. What is written is durable only after [`File::sync_data`] or
/// [`File::sync_all`]; when one of them fails, nothing is known about what was written before.
pub trait File: Send {
    /// Length in bytes.
    fn bytes(&self) -> io::Result<u64>;

    /// As `pread`: may read less than asked, and 0 at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// As `pwrite`: may write less than asked.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// Reserves space so that the file is `bytes` long and reads as zeros where nothing was
    /// written.
    fn allocate(&self, bytes: u64) -> io::Result<()>;

    /// Makes the content durable, and of the metadata what is needed to read it back.
    fn sync_data(&self) -> io::Result<()>;

    /// Makes content and metadata durable.
    fn sync_all(&self) -> io::Result<()>;

    /// Lets go of what memory holds of the file, so that the next read asks the disk. A hint:
    /// bytes not yet flushed stay in memory.
    fn forget_cache(&self) -> io::Result<()>;

    /// Writes all of `bytes`.
    fn write_all_at(&self, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.write_at(bytes, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    bytes = &bytes[written..];
                    offset += written as u64;
                }
                // Interrupted means that nothing was written.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Fills `buffer` unless the file ends first; answers how much was read.
    fn read_full_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

/// The file system of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        if dir.is_dir() {
            return Ok(());
        }
        let parent = match dir.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        self.create_dir(parent)?;
        match DirBuilder::new().mode(DIR_MODE).create(dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        self.sync_dir(parent)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(FILE_MODE);
        Ok(Box::new(options.open(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        Ok(Box::new(OpenOptions::new().read(true).write(true).open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        fs::File::open(dir)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send>>> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(FILE_MODE);
        let file = options.open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

impl File for fs::File {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        FileExt::write_at(self, bytes, offset)
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        match fallocate(self, FallocateFlags::empty(), 0, bytes) {
            // A file system that cannot reserve space can still make the file long.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.set_len(bytes),
            answer => answer.map_err(io::Error::from),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        fs::File::sync_data(self)
    }

    fn sync_all(&self) -> io::Result<()> {
        fs::File::sync_all(self)
    }

    fn forget_cache(&self) -> io::Result<()> {
        // All of the file: memory is kept in pieces larger than a frame, and only whole pieces go.
        fadvise(self, 0, None, Advice::DontNeed).map_err(io::Error::from)
    }
}
