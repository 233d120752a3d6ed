//! A volume as a file system of this machine, through FUSE. Names and attributes are not cached
//! by the kernel; pages are, from one open to the next, so that files can be mapped for reading.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request,
    TimeOrNow, WriteFlags,
};

use super::cut::{Loss, Policy};
use super::pages::PAGE;
use super::rules::{Action, Operation, Rules};
use super::volume::{Body, Content, Inode, Names, Volume};
use crate::sim::chance::Chance;

/// Nothing is remembered of names and attributes.
const FORGET_AT_ONCE: Duration = Duration::ZERO;
/// Most draws of what a loss of power leaves.
const SPRINGS_MAX: usize = 20;
/// Longest name, in bytes.
const NAME_MAX: u32 = 255;
/// `FALLOC_FL_KEEP_SIZE`: room is reserved behind the end.
const KEEP_SIZE: i32 = 1;
/// `FALLOC_FL_PUNCH_HOLE` and `FALLOC_FL_ZERO_RANGE`: a part becomes zero.
const ZEROES: i32 = 2 | 16;

/// A mounted volume. Unmounted when dropped.
#[derive(Debug)]
pub struct Mounted {
    shared: Arc<Shared>,
    session: Option<BackgroundSession>,
}

#[derive(Debug)]
struct Shared {
    volume: Mutex<Volume>,
    rules: Rules,
    chance: Mutex<Chance>,
    trap: Mutex<Trap>,
}

/// A loss of power that waits for its moment.
#[derive(Debug, Default)]
struct Trap {
    armed: Option<Policy>,
    sprung: Option<Loss>,
}

impl Shared {
    fn volume(&self) -> MutexGuard<'_, Volume> {
        self.volume.lock().expect("nobody panics with the volume")
    }

    fn trap(&self) -> MutexGuard<'_, Trap> {
        self.trap.lock().expect("nobody panics with a trap")
    }

    fn cut(&self, policy: Policy) -> Loss {
        let mut chance = self.chance.lock().expect("nobody panics while drawing");
        let loss = self.volume().cut(policy, &mut chance);
        self.rules.clear();
        loss
    }

    /// The power fails now, if it was to fail when something that matters is synced. Of what
    /// chance may leave, something is taken that lacks a change.
    fn spring(&self, inode: u64) {
        let mut trap = self.trap();
        let Some(policy) = trap.armed.filter(|_| self.volume().has_changes(inode)) else { return };
        trap.armed = None;
        let before = self.volume().clone();
        for _ in 0..SPRINGS_MAX {
            let loss = self.cut(policy);
            trap.sprung = Some(loss);
            if loss.lost > 0 {
                return;
            }
            *self.volume() = before.clone();
        }
        trap.sprung = Some(self.cut(policy));
    }
}

impl Mounted {
    /// Mounts a volume on a directory.
    ///
    /// # Errors
    /// FUSE is not allowed here.
    pub fn new(volume: Volume, on: &Path, seed: u64) -> anyhow::Result<Self> {
        let shared = Arc::new(Shared {
            volume: Mutex::new(volume),
            rules: Rules::default(),
            chance: Mutex::new(Chance::new(seed)),
            trap: Mutex::default(),
        });
        let adapter = Adapter { shared: Arc::clone(&shared), listings: Mutex::default() };
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("chaosfs".to_owned())];
        let session = fuser::spawn_mount(adapter, on, &config)
            .with_context(|| format!("mount a FUSE file system on {}", on.display()))?;
        Ok(Self { shared, session: Some(session) })
    }

    /// The rules by which it fails.
    pub fn rules(&self) -> &Rules {
        &self.shared.rules
    }

    /// The volume, for one look.
    pub fn volume(&self) -> MutexGuard<'_, Volume> {
        self.shared.volume()
    }

    /// The power fails; whoever waits for the disk is told of an error. If a trap has sprung
    /// before, the power is off already, and what that has lost is returned.
    pub fn cut(&self, policy: Policy) -> Loss {
        let mut trap = self.shared.trap();
        trap.armed = None;
        trap.sprung.take().unwrap_or_else(|| self.shared.cut(policy))
    }

    /// The power is to fail at the next sync of a file that has something to lose, right before
    /// it would be durable.
    pub fn arm(&self, policy: Policy) {
        *self.shared.trap() = Trap { armed: Some(policy), sprung: None };
    }

    /// True if the power has failed since.
    pub fn has_sprung(&self) -> bool {
        self.shared.trap().sprung.is_some()
    }

    /// Writes what is there into ordinary files below a directory.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn export(&self, to: &Path) -> std::io::Result<()> {
        let volume = self.volume();
        let mut ways = vec![(super::volume::ROOT, to.to_owned())];
        while let Some((number, path)) = ways.pop() {
            match volume.inodes.get(&number).map(|inode| &inode.body) {
                Some(Body::Directory { live, .. }) => {
                    std::fs::create_dir_all(&path)?;
                    ways.extend(live.iter().map(|(name, inode)| (*inode, path.join(name))));
                }
                Some(Body::File(content)) => {
                    let size = usize::try_from(content.live.size()).unwrap_or(usize::MAX);
                    std::fs::write(&path, content.live.read(0, size))?;
                }
                Some(Body::Link(target)) => std::os::unix::fs::symlink(target, &path)?,
                None => {}
            }
        }
        Ok(())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        self.shared.rules.clear();
        // Unmounts; its thread ends with the mount.
        drop(self.session.take());
    }
}

/// What FUSE calls.
struct Adapter {
    shared: Arc<Shared>,
    listings: Mutex<Listings>,
}

/// Directories that are being listed: what was in them when they were opened.
#[derive(Debug, Default)]
struct Listings {
    next: u64,
    open: BTreeMap<u64, Vec<(OsString, u64, FileType)>>,
}

impl Adapter {
    fn volume(&self) -> MutexGuard<'_, Volume> {
        self.shared.volume()
    }

    fn listings(&self) -> MutexGuard<'_, Listings> {
        self.listings.lock().expect("nobody panics while listing")
    }

    /// Does something now, or later on a thread of its own, or answers with an error instead,
    /// as the rules say. `job` is told what else is to go wrong.
    fn under_rules(
        &self,
        operation: Operation,
        inode: INodeNo,
        job: impl FnOnce(&Shared, Option<Action>) + Send + 'static,
    ) {
        let path = match self.volume().get(inode.0) {
            Ok(found) => found.path.clone(),
            Err(_) => String::new(),
        };
        let shared = Arc::clone(&self.shared);
        match self.shared.rules.consult(operation, &path) {
            Some((_, Action::Delay(delay))) => {
                std::thread::spawn(move || {
                    std::thread::sleep(delay);
                    job(&shared, None);
                });
            }
            Some((rule, Action::Hang)) => {
                std::thread::spawn(move || {
                    shared.rules.wait_for_end(rule);
                    job(&shared, None);
                });
            }
            other => job(&shared, other.map(|(_, action)| action)),
        }
    }

    fn enter(&self, made: Result<u64, Errno>, reply: ReplyEntry) {
        let volume = self.volume();
        match made.and_then(|inode| Ok((inode, volume.get(inode)?))) {
            Ok((number, inode)) => {
                reply.entry(&FORGET_AT_ONCE, &attributes(number, inode), Generation(0));
            }
            Err(error) => reply.error(error),
        }
    }
}

fn attributes(number: u64, inode: &Inode) -> FileAttr {
    let kind = kind(inode);
    FileAttr {
        ino: INodeNo(number),
        size: inode.size(),
        blocks: inode.pages() * PAGE / 512,
        atime: inode.modified,
        mtime: inode.modified,
        ctime: inode.modified,
        crtime: inode.modified,
        kind,
        perm: u16::try_from(inode.mode & 0o7777).expect("twelve bits"),
        nlink: if kind == FileType::Directory { 2 } else { inode.links },
        uid: inode.uid,
        gid: inode.gid,
        rdev: 0,
        blksize: u32::try_from(PAGE).expect("a page is small"),
        flags: 0,
    }
}

fn kind(inode: &Inode) -> FileType {
    match inode.body {
        Body::File(_) => FileType::RegularFile,
        Body::Directory { .. } => FileType::Directory,
        Body::Link(_) => FileType::Symlink,
    }
}

fn answer(reply: ReplyEmpty, outcome: Result<(), Errno>) {
    match outcome {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

impl Filesystem for Adapter {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.volume().find(parent.0, name);
        self.enter(found, reply);
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.volume().get(inode.0) {
            Ok(found) => reply.attr(&FORGET_AT_ONCE, &attributes(inode.0, found)),
            Err(error) => reply.error(error),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        inode: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        modified: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut volume = self.volume();
        let resized = size.map_or(Ok(()), |size| volume.resize(inode.0, size));
        let found = resized.and_then(|()| volume.get_mut(inode.0));
        match found {
            Ok(found) => {
                found.mode = mode.unwrap_or(found.mode);
                found.uid = uid.unwrap_or(found.uid);
                found.gid = gid.unwrap_or(found.gid);
                match modified {
                    Some(TimeOrNow::SpecificTime(time)) => found.modified = time,
                    Some(TimeOrNow::Now) => found.modified = SystemTime::now(),
                    None => {}
                }
                reply.attr(&FORGET_AT_ONCE, &attributes(inode.0, found));
            }
            Err(error) => reply.error(error),
        }
    }

    fn readlink(&self, _: &Request, inode: INodeNo, reply: ReplyData) {
        match self.volume().get(inode.0).map(|inode| &inode.body) {
            Ok(Body::Link(target)) => reply.data(target.as_os_str().as_encoded_bytes()),
            Ok(Body::File(_) | Body::Directory { .. }) => reply.error(Errno::EINVAL),
            Err(error) => reply.error(error),
        }
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let body = Body::Directory { live: Names::new(), durable: Names::new() };
        let rights = (mode & !umask, (request.uid(), request.gid()));
        let made = self.volume().make(parent.0, name, rights, body);
        self.enter(made, reply);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(reply, self.volume().remove(parent.0, name, false));
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(reply, self.volume().remove(parent.0, name, true));
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let rights = (0o777, (request.uid(), request.gid()));
        let made = self.volume().make(parent.0, name, rights, Body::Link(target.to_owned()));
        self.enter(made, reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        to: INodeNo,
        to_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let mut volume = self.volume();
        let is_there = volume.find(to.0, to_name).is_ok();
        let outcome = if flags.contains(RenameFlags::RENAME_NOREPLACE) && is_there {
            Err(Errno::EEXIST)
        } else if flags.intersects(!RenameFlags::RENAME_NOREPLACE) {
            Err(Errno::EINVAL)
        } else {
            volume.rename((parent.0, name), (to.0, to_name))
        };
        answer(reply, outcome);
    }

    fn link(&self, _: &Request, inode: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let linked = self.volume().link(inode.0, parent.0, name);
        self.enter(linked.map(|()| inode.0), reply);
    }

    fn open(&self, _: &Request, inode: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.volume().open(inode.0) {
            Ok(()) => reply.opened(FileHandle(0), FopenFlags::empty()),
            Err(error) => reply.error(error),
        }
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        let mut volume = self.volume();
        let rights = (mode & !umask, (request.uid(), request.gid()));
        let made = volume.make(parent.0, name, rights, Body::File(Content::default()));
        let opened = made.and_then(|number| {
            volume.open(number)?;
            Ok((number, volume.get(number)?))
        });
        match opened {
            Ok((number, inode)) => reply.created(
                &FORGET_AT_ONCE,
                &attributes(number, inode),
                Generation(0),
                FileHandle(0),
                FopenFlags::empty(),
            ),
            Err(error) => reply.error(error),
        }
    }

    fn read(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.under_rules(Operation::Read, inode, move |shared, action| {
            if action == Some(Action::Fail) {
                return reply.error(Errno::EIO);
            }
            let volume = shared.volume();
            match volume.read(inode.0, offset, size as usize) {
                Ok(mut bytes) => {
                    if let (Some(Action::FlipBit), Some(byte)) = (action, bytes.first_mut()) {
                        *byte ^= 1;
                    }
                    reply.data(&bytes);
                }
                Err(error) => reply.error(error),
            }
        });
    }

    fn write(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let data = data.to_vec();
        self.under_rules(Operation::Write, inode, move |shared, action| {
            let length = match action {
                Some(Action::Fail) => return reply.error(Errno::EIO),
                Some(Action::Full) => return reply.error(Errno::ENOSPC),
                Some(Action::Short) => data.len().div_ceil(2),
                _ => data.len(),
            };
            let mut volume = shared.volume();
            match volume.write(inode.0, offset, &data[..length]) {
                Ok(()) => reply.written(u32::try_from(length).expect("a request is small")),
                Err(error) => reply.error(error),
            }
        });
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // Closing a file makes nothing durable.
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.volume().close(inode.0);
        reply.ok();
    }

    fn fsync(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        only_data: bool,
        reply: ReplyEmpty,
    ) {
        self.under_rules(Operation::Sync, inode, move |shared, action| {
            shared.spring(inode.0);
            let mut volume = shared.volume();
            let outcome = match action {
                Some(Action::Fail) => volume.fail_sync(inode.0).and(Err(Errno::EIO)),
                _ => volume.sync_file(inode.0, only_data),
            };
            answer(reply, outcome);
        });
    }

    fn opendir(&self, _: &Request, inode: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let volume = self.volume();
        let names = match volume.names_of(inode.0) {
            Ok(names) => names,
            Err(error) => return reply.error(error),
        };
        let mut listing: Vec<(OsString, u64, FileType)> =
            [".", ".."].map(|name| (OsString::from(name), inode.0, FileType::Directory)).to_vec();
        listing.extend(names.iter().filter_map(|(name, number)| {
            Some((name.clone(), *number, kind(volume.inodes.get(number)?)))
        }));
        let mut listings = self.listings();
        listings.next += 1;
        let handle = listings.next;
        listings.open.insert(handle, listing);
        reply.opened(FileHandle(handle), FopenFlags::empty());
    }

    fn readdir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let listings = self.listings();
        let Some(listing) = listings.open.get(&handle.0) else {
            return reply.error(Errno::ENOENT);
        };
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        for (place, (name, number, kind)) in listing.iter().enumerate().skip(from) {
            if reply.add(INodeNo(*number), place as u64 + 1, *kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.listings().open.remove(&handle.0);
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, inode: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.under_rules(Operation::Sync, inode, move |shared, action| {
            let mut volume = shared.volume();
            let outcome = match action {
                Some(Action::Fail) => Err(Errno::EIO),
                _ => volume.sync_directory(inode.0),
            };
            answer(reply, outcome);
        });
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let volume = self.volume();
        let blocks = volume.capacity_bytes() / PAGE;
        let free = blocks.saturating_sub(volume.used_bytes() / PAGE);
        let files = volume.inodes.len() as u64;
        let size = u32::try_from(PAGE).expect("a page is small");
        reply.statfs(blocks, free, free, files, 1 << 20, size, NAME_MAX, size);
    }

    fn fallocate(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let mut volume = self.volume();
        let outcome = if mode & ZEROES != 0 {
            let grown = volume.reserve(inode.0, offset + length, mode & KEEP_SIZE == 0);
            grown.and_then(|()| volume.zero(inode.0, offset, length))
        } else {
            volume.reserve(inode.0, offset + length, mode & KEEP_SIZE == 0)
        };
        answer(reply, outcome);
    }
}
