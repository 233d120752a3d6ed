//! A disk that knows what was synced. Each file has its content as processes see it and as it
//! would be found after a loss of power, and the changes in between; so do the names. Nothing
//! here knows of FUSE, threads or clocks, but the stamps that files carry.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::SystemTime;

use fuser::Errno;

use super::pages::{PAGE, Pages};

/// Number of the root.
pub const ROOT: u64 = 1;

/// A disk.
#[derive(Clone, Debug)]
pub struct Volume {
    pub(super) inodes: BTreeMap<u64, Inode>,
    /// Changes of names that were not synced, in order.
    pub(super) names: Vec<NameChange>,
    next_inode: u64,
    next_change: u64,
    used_pages: u64,
    capacity_pages: u64,
    refused_count: u64,
    /// A name is durable only once its directory was synced. Otherwise names are kept in one
    /// journal, which is committed by whatever sync changes more than data in place, as on ext4.
    pub(super) has_strict_names: bool,
    /// The power is off: everything fails.
    pub(super) is_off: bool,
}

/// A file, a directory or a link.
#[derive(Clone, Debug)]
pub struct Inode {
    /// Permissions.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// When its content last changed.
    pub modified: SystemTime,
    /// Names it has.
    pub links: u32,
    /// What it is.
    pub body: Body,
    /// Where it was last named, for rules.
    pub path: String,
    /// Handles that are open.
    opens: u32,
    /// No sync has made it durable yet.
    is_new: bool,
}

/// What an inode holds.
#[derive(Clone, Debug)]
pub enum Body {
    /// Bytes.
    File(Content),
    /// Names.
    Directory {
        /// As processes see them.
        live: Names,
        /// As they are after a loss of power.
        durable: Names,
    },
    /// The path of something else.
    Link(PathBuf),
}

/// Names and what they stand for.
pub(super) type Names = BTreeMap<OsString, u64>;

/// The bytes of a file.
#[derive(Clone, Debug, Default)]
pub struct Content {
    /// As processes see them.
    pub live: Pages,
    /// As they are after a loss of power.
    pub durable: Pages,
    /// What leads from the one to the other, unless a sync has failed.
    pub changes: Vec<Change>,
    /// A sync has failed since the file was last opened anew: what processes see is not on the disk.
    pub has_lost: bool,
}

/// A change of a file that was not synced.
#[derive(Clone, Debug)]
pub struct Change {
    /// Its place among all changes of the disk.
    pub order: u64,
    /// What it does.
    pub what: What,
}

/// What a change does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Bytes at an offset.
    Write(u64, Vec<u8>),
    /// Another size.
    Resize(u64),
    /// At least this size.
    Grow(u64),
    /// A part becomes zero.
    Zero(u64, u64),
}

/// A change of names that was not synced. Its parts happen together or not at all.
#[derive(Clone, Debug)]
pub(super) struct NameChange {
    /// Its place among all changes of the disk.
    pub order: u64,
    /// Directory, name, and what the name stands for from then on.
    pub sets: Vec<(u64, OsString, Option<u64>)>,
}

type Outcome<T> = Result<T, Errno>;

impl Volume {
    /// An empty disk of so many bytes.
    pub fn new(capacity_bytes: u64, has_strict_names: bool) -> Self {
        let mut volume = Self {
            inodes: BTreeMap::new(),
            names: Vec::new(),
            next_inode: ROOT,
            next_change: 0,
            used_pages: 0,
            capacity_pages: capacity_bytes / PAGE,
            refused_count: 0,
            has_strict_names,
            is_off: false,
        };
        let body = Body::Directory { live: Names::new(), durable: Names::new() };
        volume.add(Inode::new(0o755, (0, 0), body, String::new()));
        volume
    }

    /// An inode.
    pub fn get(&self, inode: u64) -> Outcome<&Inode> {
        self.check_power()?;
        self.inodes.get(&inode).ok_or(Errno::ENOENT)
    }

    /// An inode, to be changed.
    pub fn get_mut(&mut self, inode: u64) -> Outcome<&mut Inode> {
        self.check_power()?;
        self.inodes.get_mut(&inode).ok_or(Errno::ENOENT)
    }

    /// What a name in a directory stands for.
    pub fn find(&self, directory: u64, name: &OsStr) -> Outcome<u64> {
        self.names_of(directory)?.get(name).copied().ok_or(Errno::ENOENT)
    }

    /// The names of a directory.
    pub fn names_of(&self, directory: u64) -> Outcome<&Names> {
        match &self.get(directory)?.body {
            Body::Directory { live, .. } => Ok(live),
            Body::File(_) | Body::Link(_) => Err(Errno::ENOTDIR),
        }
    }

    /// Makes a file, a directory or a link.
    pub fn make(
        &mut self,
        directory: u64,
        name: &OsStr,
        (mode, owner): (u32, (u32, u32)),
        body: Body,
    ) -> Outcome<u64> {
        if self.names_of(directory)?.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        let path = self.path_below(directory, name);
        let inode = self.add(Inode::new(mode, owner, body, path));
        self.set_names(vec![(directory, name.to_owned(), Some(inode))])?;
        Ok(inode)
    }

    /// Gives an inode one more name.
    pub fn link(&mut self, inode: u64, directory: u64, name: &OsStr) -> Outcome<()> {
        if matches!(self.get(inode)?.body, Body::Directory { .. }) {
            return Err(Errno::EPERM);
        }
        if self.names_of(directory)?.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        self.set_names(vec![(directory, name.to_owned(), Some(inode))])
    }

    /// Takes a name away.
    pub fn remove(&mut self, directory: u64, name: &OsStr, wants_directory: bool) -> Outcome<()> {
        let inode = self.find(directory, name)?;
        match (&self.get(inode)?.body, wants_directory) {
            (Body::Directory { live, .. }, true) if !live.is_empty() => {
                return Err(Errno::ENOTEMPTY);
            }
            (Body::Directory { .. }, false) => return Err(Errno::EISDIR),
            (Body::File(_) | Body::Link(_), true) => return Err(Errno::ENOTDIR),
            _ => {}
        }
        self.set_names(vec![(directory, name.to_owned(), None)])?;
        self.sweep();
        Ok(())
    }

    /// Moves a name, replacing what is there.
    pub fn rename(&mut self, from: (u64, &OsStr), to: (u64, &OsStr)) -> Outcome<()> {
        let inode = self.find(from.0, from.1)?;
        if let Ok(target) = self.find(to.0, to.1) {
            if target == inode {
                return Ok(());
            }
            let is_directory = |inode: &Inode| matches!(inode.body, Body::Directory { .. });
            match (is_directory(self.get(inode)?), &self.get(target)?.body) {
                (true, Body::Directory { live, .. }) if !live.is_empty() => {
                    return Err(Errno::ENOTEMPTY);
                }
                (true, Body::File(_) | Body::Link(_)) => return Err(Errno::ENOTDIR),
                (false, Body::Directory { .. }) => return Err(Errno::EISDIR),
                _ => {}
            }
        }
        let path = self.path_below(to.0, to.1);
        self.get_mut(inode)?.path = path;
        self.set_names(vec![
            (from.0, from.1.to_owned(), None),
            (to.0, to.1.to_owned(), Some(inode)),
        ])?;
        self.sweep();
        Ok(())
    }

    /// Bytes of a file, as processes see them.
    pub fn read(&self, inode: u64, offset: u64, length: usize) -> Outcome<Vec<u8>> {
        Ok(self.content(inode)?.live.read(offset, length))
    }

    /// Writes to a file.
    pub fn write(&mut self, inode: u64, offset: u64, data: &[u8]) -> Outcome<()> {
        let missing = self.content(inode)?.live.missing(offset, data.len() as u64);
        self.check_room(missing)?;
        self.change(inode, What::Write(offset, data.to_vec()))
    }

    /// Changes the size of a file. Growing takes no room, as holes do not.
    pub fn resize(&mut self, inode: u64, size: u64) -> Outcome<()> {
        self.change(inode, What::Resize(size))
    }

    /// Reserves room: the file grows to it if `grows`. The room itself is taken by writes.
    pub fn reserve(&mut self, inode: u64, end: u64, grows: bool) -> Outcome<()> {
        let size = self.content(inode)?.live.size();
        let more = end.saturating_sub(size) / PAGE;
        self.check_room(more)?;
        if grows && end > size { self.change(inode, What::Resize(end)) } else { Ok(()) }
    }

    /// Makes a part of a file zero.
    pub fn zero(&mut self, inode: u64, offset: u64, length: u64) -> Outcome<()> {
        self.change(inode, What::Zero(offset, length))
    }

    /// Makes the content of a file durable.
    pub fn sync_file(&mut self, inode: u64, only_data: bool) -> Outcome<()> {
        let has_strict_names = self.has_strict_names;
        let found = self.get_mut(inode)?;
        let was_new = std::mem::replace(&mut found.is_new, false);
        let Body::File(content) = &mut found.body else { return Err(Errno::EISDIR) };
        let size = content.durable.size();
        for change in std::mem::take(&mut content.changes) {
            change.what.apply(&mut content.durable);
            if let What::Write(offset, data) = &change.what {
                content.durable.share(&content.live, *offset, data.len() as u64);
            }
        }
        let is_metadata = was_new || !only_data || content.durable.size() != size;
        if is_metadata && !has_strict_names {
            self.commit_names(|_| true);
        }
        Ok(())
    }

    /// A sync that fails: what it should have made durable is forgotten, and nobody will be told
    /// again, as Linux file systems do. Whoever has the file open still sees it.
    pub fn fail_sync(&mut self, inode: u64) -> Outcome<u64> {
        let found = self.get_mut(inode)?;
        let Body::File(content) = &mut found.body else { return Err(Errno::EISDIR) };
        content.has_lost |= !content.changes.is_empty();
        Ok(std::mem::take(&mut content.changes).len() as u64)
    }

    /// True if a sync of the file would make something durable.
    pub fn has_changes(&self, inode: u64) -> bool {
        let body = self.inodes.get(&inode).map(|inode| &inode.body);
        matches!(body, Some(Body::File(content)) if !content.changes.is_empty())
    }

    /// Makes the names of a directory durable.
    pub fn sync_directory(&mut self, directory: u64) -> Outcome<()> {
        self.names_of(directory)?;
        let is_strict = self.has_strict_names;
        self.commit_names(|change| {
            !is_strict || change.sets.iter().any(|(parent, ..)| *parent == directory)
        });
        Ok(())
    }

    /// A handle was opened. If it is the only one, what a failed sync has lost is seen to be lost: the
    /// cache has let its pages go, as they counted as clean. A process can ask for that
    /// (`posix_fadvise`), but no file system in user space is told so.
    pub fn open(&mut self, inode: u64) -> Outcome<()> {
        let found = self.get_mut(inode)?;
        found.opens += 1;
        let is_only = found.opens == 1;
        let Body::File(content) = &mut found.body else { return Ok(()) };
        if !is_only || !std::mem::take(&mut content.has_lost) {
            return Ok(());
        }
        let before = content.live.count();
        content.live = content.durable.clone();
        for change in &content.changes {
            change.what.apply(&mut content.live);
        }
        let after = content.live.count();
        self.used_pages = self.used_pages + after - before;
        Ok(())
    }

    /// A handle was closed. Handles from before a loss of power mean nothing.
    pub fn close(&mut self, inode: u64) {
        if let Some(found) = self.inodes.get_mut(&inode) {
            found.opens = found.opens.saturating_sub(1);
            if found.links == 0 {
                self.sweep();
            }
        }
    }

    /// Bytes that are taken.
    pub fn used_bytes(&self) -> u64 {
        self.used_pages * PAGE
    }

    /// Bytes there are.
    pub fn capacity_bytes(&self) -> u64 {
        self.capacity_pages * PAGE
    }

    /// Changes how much room there is.
    pub fn set_capacity_bytes(&mut self, bytes: u64) {
        self.capacity_pages = bytes / PAGE;
        self.refused_count = 0;
    }

    /// Writes that found no room since that was last changed.
    pub fn refused_count(&self) -> u64 {
        self.refused_count
    }

    fn check_room(&mut self, pages: u64) -> Outcome<()> {
        if self.used_pages + pages > self.capacity_pages {
            self.refused_count += 1;
            return Err(Errno::ENOSPC);
        }
        Ok(())
    }

    /// Brings the power back.
    pub fn power_on(&mut self) {
        self.is_off = false;
    }

    /// Names, links and sizes as they follow from what is live; after that nothing is pending.
    pub(super) fn restart(&mut self) {
        self.names.clear();
        for inode in self.inodes.values_mut() {
            inode.opens = 0;
            inode.links = 0;
            inode.is_new = false;
            match &mut inode.body {
                Body::File(content) => {
                    content.changes.clear();
                    content.live = content.durable.clone();
                }
                Body::Directory { live, durable } => live.clone_from(durable),
                Body::Link(_) => {}
            }
        }
        self.sweep_unreachable();
        self.renumber();
        self.used_pages = self.inodes.values().map(Inode::pages).sum();
    }

    /// Forgets what no durable name leads to, and counts the names of the rest.
    fn sweep_unreachable(&mut self) {
        let mut reached = BTreeSet::from([ROOT]);
        let mut ways = vec![ROOT];
        let mut links: BTreeMap<u64, u32> = BTreeMap::new();
        while let Some(inode) = ways.pop() {
            let Some(Body::Directory { live, .. }) = self.inodes.get(&inode).map(|it| &it.body)
            else {
                continue;
            };
            for target in live.values() {
                *links.entry(*target).or_default() += 1;
                if reached.insert(*target) {
                    ways.push(*target);
                }
            }
        }
        self.inodes.retain(|inode, _| reached.contains(inode));
        for (inode, links) in links {
            if let Some(found) = self.inodes.get_mut(&inode) {
                found.links = links;
            }
        }
    }

    /// Gives everything but the root another number, so that nothing a kernel remembers of
    /// before the loss of power can be taken for what is there now.
    fn renumber(&mut self) {
        let old = std::mem::take(&mut self.inodes);
        let mut numbers = BTreeMap::from([(ROOT, ROOT)]);
        for inode in old.keys().filter(|inode| **inode != ROOT) {
            numbers.insert(*inode, self.next_inode);
            self.next_inode += 1;
        }
        for (inode, mut found) in old {
            if let Body::Directory { live, durable } = &mut found.body {
                live.values_mut().for_each(|target| *target = numbers[target]);
                durable.clone_from(live);
            }
            self.inodes.insert(numbers[&inode], found);
        }
    }

    fn check_power(&self) -> Outcome<()> {
        if self.is_off { Err(Errno::EIO) } else { Ok(()) }
    }

    fn add(&mut self, inode: Inode) -> u64 {
        let number = self.next_inode;
        self.next_inode += 1;
        self.inodes.insert(number, inode);
        number
    }

    fn content(&self, inode: u64) -> Outcome<&Content> {
        match &self.get(inode)?.body {
            Body::File(content) => Ok(content),
            Body::Directory { .. } => Err(Errno::EISDIR),
            Body::Link(_) => Err(Errno::EINVAL),
        }
    }

    fn change(&mut self, inode: u64, what: What) -> Outcome<()> {
        let order = self.next_change;
        let found = self.get_mut(inode)?;
        let Body::File(content) = &mut found.body else { return Err(Errno::EISDIR) };
        found.modified = SystemTime::now();
        let before = content.live.count();
        what.apply(&mut content.live);
        let after = content.live.count();
        content.changes.push(Change { order, what });
        self.next_change += 1;
        self.used_pages = self.used_pages + after - before;
        Ok(())
    }

    fn set_names(&mut self, sets: Vec<(u64, OsString, Option<u64>)>) -> Outcome<()> {
        for (directory, ..) in &sets {
            self.names_of(*directory)?;
        }
        for (directory, name, inode) in &sets {
            let parent = self.get_mut(*directory)?;
            parent.modified = SystemTime::now();
            let Body::Directory { live, .. } = &mut parent.body else { continue };
            let replaced = match inode {
                Some(inode) => live.insert(name.clone(), *inode),
                None => live.remove(name),
            };
            for (inode, more) in [(replaced, false), (*inode, true)] {
                if let Some(found) = inode.and_then(|inode| self.inodes.get_mut(&inode)) {
                    found.links = if more { found.links + 1 } else { found.links - 1 };
                }
            }
        }
        self.names.push(NameChange { order: self.next_change, sets });
        self.next_change += 1;
        Ok(())
    }

    fn commit_names(&mut self, is_due: impl Fn(&NameChange) -> bool) {
        let (due, rest) = std::mem::take(&mut self.names).into_iter().partition(is_due);
        self.names = rest;
        for change in due {
            self.commit(&change);
        }
        self.sweep();
    }

    pub(super) fn commit(&mut self, change: &NameChange) {
        for (directory, name, inode) in &change.sets {
            let Some(parent) = self.inodes.get_mut(directory) else { continue };
            let Body::Directory { durable, .. } = &mut parent.body else { continue };
            match inode {
                Some(inode) => durable.insert(name.clone(), *inode),
                None => durable.remove(name),
            };
        }
    }

    /// Forgets inodes without a name, that nobody has open and that no loss of power could bring
    /// back.
    fn sweep(&mut self) {
        let is_gone = |inode: &Inode| inode.links == 0 && inode.opens == 0;
        if !self.inodes.iter().any(|(number, inode)| *number != ROOT && is_gone(inode)) {
            return;
        }
        let mut kept: BTreeSet<u64> = BTreeSet::from([ROOT]);
        for inode in self.inodes.values() {
            if let Body::Directory { durable, .. } = &inode.body {
                kept.extend(durable.values());
            }
        }
        let pending = self.names.iter().flat_map(|change| &change.sets);
        kept.extend(pending.flat_map(|(directory, _, inode)| [Some(*directory), *inode]).flatten());
        let mut freed = 0;
        self.inodes.retain(|number, inode| {
            let stays = kept.contains(number) || !is_gone(inode);
            freed += if stays { 0 } else { inode.pages() };
            stays
        });
        self.used_pages -= freed;
    }

    fn path_below(&self, directory: u64, name: &OsStr) -> String {
        let parent = self.inodes.get(&directory).map_or("", |inode| inode.path.as_str());
        format!("{parent}/{}", name.to_string_lossy())
    }
}

impl Inode {
    fn new(mode: u32, (uid, gid): (u32, u32), body: Body, path: String) -> Self {
        let modified = SystemTime::now();
        Self { mode, uid, gid, modified, links: 0, body, path, opens: 0, is_new: true }
    }

    /// Size in bytes, as processes see it.
    pub fn size(&self) -> u64 {
        match &self.body {
            Body::File(content) => content.live.size(),
            Body::Directory { .. } => PAGE,
            Body::Link(target) => target.as_os_str().len() as u64,
        }
    }

    /// Pages it takes.
    pub fn pages(&self) -> u64 {
        match &self.body {
            Body::File(content) => content.live.count(),
            Body::Directory { .. } | Body::Link(_) => 0,
        }
    }
}

impl What {
    /// Makes the change.
    pub fn apply(&self, pages: &mut Pages) {
        match self {
            What::Write(offset, data) => pages.write(*offset, data),
            What::Resize(size) => pages.resize(*size),
            What::Grow(size) => pages.resize(pages.size().max(*size)),
            What::Zero(offset, length) => pages.zero(*offset, *length),
        }
    }
}
