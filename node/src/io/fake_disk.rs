//! A disk in memory that can lose its power, tear writes by the sector, fail an operation, and
//! show after a failed flush what never reached it. Owns the difference between what a process
//! sees and what survives. For tests only.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::Rng;

use super::disk::{Disk, File};

const SECTOR_BYTES: usize = 512;

/// Clones are the same disk.
#[derive(Clone, Default)]
pub(crate) struct FakeDisk {
    state: Arc<Mutex<State>>,
}

/// What happens at an operation that changes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It may be done in part, and nothing works from then on.
    PowerLoss,
    /// It fails, as do all later ones, but the process and the machine live. A failed flush
    /// forgets what it should have flushed, and reads show it nevertheless.
    Failure,
}

#[derive(Default)]
struct State {
    files: Vec<Content>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    /// Since the directory was last flushed.
    name_changes: Vec<NameChange>,
    locks: BTreeSet<PathBuf>,
    operations: u64,
    flushes: u64,
    fault: Option<(u64, Fault)>,
    is_broken: bool,
    /// When set, writes are cut short at lengths that follow from it.
    short_writes: Option<usize>,
}

#[derive(Clone, Default)]
struct Content {
    /// What reads show.
    memory: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

#[derive(Clone)]
enum NameChange {
    Create(PathBuf, usize),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

/// How much of what was not flushed survives a loss of power.
#[derive(Clone, Copy)]
enum Survival {
    Nothing,
    Everything,
    /// Each sector by itself, in percent.
    Sectors(u32),
    /// All but one sector of the last write.
    AllButOneSector,
}

impl FakeDisk {
    pub(crate) fn new() -> FakeDisk {
        FakeDisk::default()
    }

    /// Lets the operation after the next `after` ones meet this fault.
    pub(crate) fn set_fault(&self, after: u64, fault: Fault) {
        let mut state = self.state();
        state.fault = Some((state.operations + after, fault));
    }

    /// From now on operations work, whatever happened before.
    pub(crate) fn clear_fault(&self) {
        let mut state = self.state();
        state.fault = None;
        state.is_broken = false;
    }

    /// No write takes more than about `bytes` at once.
    pub(crate) fn set_short_writes(&self, bytes: usize) {
        self.state().short_writes = Some(bytes);
    }

    /// Operations so far that change something.
    pub(crate) fn operations(&self) -> u64 {
        self.state().operations
    }

    /// File flushes so far.
    pub(crate) fn flushes(&self) -> u64 {
        self.state().flushes
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.state().is_broken
    }

    pub(crate) fn file_names(&self) -> Vec<PathBuf> {
        self.state().names.keys().cloned().collect()
    }

    pub(crate) fn read(&self, path: &Path) -> Vec<u8> {
        let state = self.state();
        state.files[state.names[path]].memory.clone()
    }

    /// Replaces a file's content behind the back of whoever uses it, durably.
    pub(crate) fn tamper(&self, path: &Path, bytes: Vec<u8>) {
        let mut state = self.state();
        let file = state.names[path];
        state.files[file] = Content { memory: bytes.clone(), durable: bytes, pending: Vec::new() };
    }

    /// Deletes a file behind the back of whoever uses it, durably.
    pub(crate) fn tamper_remove(&self, path: &Path) {
        let mut state = self.state();
        state.names.remove(path);
        state.durable_names.remove(path);
    }

    /// An independent disk with the same content, all of it durable, and no locks or faults.
    pub(crate) fn copy(&self) -> FakeDisk {
        let state = self.state();
        let files = state.files.iter().map(|content| Content {
            memory: content.memory.clone(),
            durable: content.memory.clone(),
            pending: Vec::new(),
        });
        FakeDisk::with(files.collect(), state.names.clone())
    }

    /// What the next process finds when this one was killed: all it wrote, durable or not.
    pub(crate) fn after_kill(&self) -> FakeDisk {
        let state = self.state();
        let next = State {
            files: state.files.clone(),
            names: state.names.clone(),
            durable_names: state.durable_names.clone(),
            name_changes: state.name_changes.clone(),
            ..State::default()
        };
        FakeDisk { state: Arc::new(Mutex::new(next)) }
    }

    /// What is found when the power comes back: everything flushed, and any part of the rest.
    pub(crate) fn after_power_loss(&self, rng: &mut impl Rng) -> FakeDisk {
        let survival = match rng.random_range(0..6) {
            0 => Survival::Nothing,
            1 => Survival::Everything,
            2 => Survival::AllButOneSector,
            _ => Survival::Sectors(rng.random_range(1..100)),
        };
        self.survivors(survival, rng, 0.5)
    }

    /// Everything flushed, and nothing else.
    pub(crate) fn after_worst_power_loss(&self) -> FakeDisk {
        self.survivors(Survival::Nothing, &mut rand::rng(), 0.0)
    }

    fn survivors(&self, survival: Survival, rng: &mut impl Rng, name_survives: f64) -> FakeDisk {
        let state = self.state();
        let files = state.files.iter().map(|content| {
            let durable = content.survivors(survival, rng);
            Content { memory: durable.clone(), durable, pending: Vec::new() }
        });
        let files = files.collect();
        let mut names = state.durable_names.clone();
        for change in &state.name_changes {
            if rng.random_bool(name_survives) {
                change.apply(&mut names);
            }
        }
        FakeDisk::with(files, names)
    }

    fn with(files: Vec<Content>, names: BTreeMap<PathBuf, usize>) -> FakeDisk {
        let state = State { files, durable_names: names.clone(), names, ..State::default() };
        FakeDisk { state: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Counts an operation. `Ok(Some)` if it meets its fault just now.
    fn operate(&mut self) -> io::Result<Option<Fault>> {
        if self.is_broken {
            return Err(broken());
        }
        self.operations += 1;
        match self.fault {
            Some((at, fault)) if self.operations > at => {
                self.is_broken = true;
                Ok(Some(fault))
            }
            _ => Ok(None),
        }
    }

    fn change_name(&mut self, change: NameChange) -> io::Result<()> {
        match self.operate()? {
            None => {
                change.apply(&mut self.names);
                self.name_changes.push(change);
                Ok(())
            }
            Some(Fault::PowerLoss) => {
                self.name_changes.push(change);
                Err(broken())
            }
            Some(Fault::Failure) => Err(broken()),
        }
    }

    fn file_of(&self, path: &Path) -> io::Result<usize> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Content {
    fn survivors(&self, survival: Survival, rng: &mut impl Rng) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        for (position, change) in self.pending.iter().enumerate() {
            let is_last = position + 1 == self.pending.len();
            match change {
                Change::Length(length) => {
                    if rng.random_bool(0.5) && *length > bytes.len() {
                        bytes.resize(*length, 0);
                    }
                }
                Change::Write { offset, bytes: written } => {
                    write_survivors(&mut bytes, *offset, written, is_last, survival, rng);
                }
            }
        }
        bytes
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            NameChange::Create(path, file) => {
                names.insert(path.clone(), *file);
            }
            NameChange::Rename(from, to) => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
            NameChange::Remove(path) => {
                names.remove(path);
            }
        }
    }
}

impl Disk for FakeDisk {
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        let inside = state.names.keys().filter_map(|path| path.strip_prefix(dir).ok());
        Ok(inside.filter_map(|name| name.to_str().map(str::to_owned)).collect())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let mut state = self.state();
        let file = state.files.len();
        state.files.push(Content::default());
        state.change_name(NameChange::Create(path.to_owned(), file))?;
        Ok(Box::new(FakeFile { disk: self.clone(), file }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let file = self.state().file_of(path)?;
        Ok(Box::new(FakeFile { disk: self.clone(), file }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.file_of(from)?;
        state.change_name(NameChange::Rename(from.to_owned(), to.to_owned()))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.file_of(path)?;
        state.change_name(NameChange::Remove(path.to_owned()))
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        let mut state = self.state();
        match state.operate()? {
            None => {
                state.durable_names = state.names.clone();
                state.name_changes.clear();
                Ok(())
            }
            Some(_) => Err(broken()),
        }
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send>>> {
        let is_free = self.state().locks.insert(path.to_owned());
        let lock = FakeLock { disk: self.clone(), path: path.to_owned() };
        if is_free {
            Ok(Some(Box::new(lock)))
        } else {
            std::mem::forget(lock);
            Ok(None)
        }
    }
}

struct FakeLock {
    disk: FakeDisk,
    path: PathBuf,
}

impl Drop for FakeLock {
    fn drop(&mut self) {
        self.disk.state().locks.remove(&self.path);
    }
}

struct FakeFile {
    disk: FakeDisk,
    file: usize,
}

impl FakeFile {
    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        let fault = state.operate()?;
        state.flushes += 1;
        let content = &mut state.files[self.file];
        match fault {
            None => {
                // Not all of `memory`: after a failed flush it holds what is never flushed again.
                for change in content.pending.drain(..) {
                    match change {
                        Change::Write { offset, bytes } => {
                            write(&mut content.durable, offset, &bytes);
                        }
                        Change::Length(length) => {
                            let length = length.max(content.durable.len());
                            content.durable.resize(length, 0);
                        }
                    }
                }
                Ok(())
            }
            Some(Fault::PowerLoss) => Err(broken()),
            Some(Fault::Failure) => {
                content.pending.clear();
                Err(io::Error::other("the flush failed"))
            }
        }
    }
}

impl File for FakeFile {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.disk.state().files[self.file].memory.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.disk.state();
        let memory = &state.files[self.file].memory;
        let rest = memory.get(offset as usize..).unwrap_or_default();
        let read = rest.len().min(buffer.len());
        buffer[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.state();
        let fault = state.operate()?;
        let operations = state.operations as usize;
        let limit = state.short_writes.map_or(bytes.len(), |limit| 1 + operations * 31 % limit);
        let written = match fault {
            None | Some(Fault::PowerLoss) => bytes.len().min(limit),
            Some(Fault::Failure) => bytes.len() / 2,
        };
        let (offset, bytes) = (offset as usize, bytes[..written].to_vec());
        let content = &mut state.files[self.file];
        write(&mut content.memory, offset, &bytes);
        content.pending.push(Change::Write { offset, bytes });
        if fault.is_some() { Err(broken()) } else { Ok(written) }
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        if state.operate()?.is_some() {
            return Err(broken());
        }
        let content = &mut state.files[self.file];
        let length = content.memory.len().max(bytes as usize);
        content.memory.resize(length, 0);
        content.pending.push(Change::Length(length));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync()
    }

    fn forget_cache(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        let Content { memory, durable, pending } = &mut state.files[self.file];
        if pending.is_empty() {
            memory.clone_from(durable);
        }
        Ok(())
    }
}

fn write(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(bytes);
}

fn write_survivors(
    content: &mut Vec<u8>,
    offset: usize,
    bytes: &[u8],
    is_last: bool,
    survival: Survival,
    rng: &mut impl Rng,
) {
    // Sectors are those of the disk, so a write that starts inside one is cut there.
    let mut sectors = Vec::new();
    let mut start = 0;
    while start < bytes.len() {
        let end = ((offset + start) / SECTOR_BYTES + 1) * SECTOR_BYTES - offset;
        let end = end.min(bytes.len());
        sectors.push(start..end);
        start = end;
    }
    let unlucky = rng.random_range(0..sectors.len().max(1));
    for (position, sector) in sectors.into_iter().enumerate() {
        let is_kept = match survival {
            Survival::Nothing => false,
            Survival::Everything => true,
            Survival::Sectors(percent) => rng.random_range(0..100) < percent,
            Survival::AllButOneSector => !is_last || position != unlucky,
        };
        if is_kept {
            write(content, offset + sector.start, &bytes[sector]);
        }
    }
}

fn broken() -> io::Error {
    io::Error::other("the disk is gone")
}
