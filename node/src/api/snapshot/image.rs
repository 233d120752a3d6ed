//! The file in which a snapshot is made, and the thread that writes it and reads one moment of the
//! store for it.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;

use flotilla_core::image::bolt::{HEAD_BYTES, Writer};
use flotilla_core::image::{Change, Facts, Origin, schema};
use flotilla_core::mvcc::layout::{Record, Revision};
use flotilla_core::mvcc::{self, Below, Failure, KeptPage, ReplayLimits};
use flotilla_core::proto::Span;
use flotilla_core::view::View;
use tokio::sync::{mpsc, oneshot};

use super::super::history;
use super::Refusal;
use crate::store::Store;

/// Left free on the disk: a full one ends the node.
const RESERVE_BYTES: u64 = 256 << 20;
/// Bytes that are written at once.
const WRITE_BYTES: usize = 1 << 20;
/// How often it is looked whether there is room.
const LOOK_EVERY_BYTES: u64 = 16 << 20;
/// Tasks that may wait for the thread.
const TASKS_MAX: usize = 4;

/// An image that is complete.
pub(super) struct Image {
    pub(super) file: File,
    pub(super) bytes: u64,
}

/// For the thread.
enum Task {
    Read {
        from: Revision,
        to: i64,
        compacted: (i64, Below),
        limits: ReplayLimits,
        reply: oneshot::Sender<Result<KeptPage, Failure>>,
    },
    Write(Vec<Record>),
    Finish(Box<Facts>, oneshot::Sender<Result<Image, Refusal>>),
}

/// The way to the thread, which ends when this is dropped.
pub(super) struct Maker {
    tasks: mpsc::Sender<Task>,
}

impl Maker {
    /// Begins an image. What is read of these keys is the store as it is when this returns.
    pub(super) async fn begin(
        store: Store,
        here: Vec<Span>,
        facts: &Facts,
        origin: Origin,
    ) -> Result<Self, Refusal> {
        let (tasks, queue) = mpsc::channel(TASKS_MAX);
        let (ready, is_ready) = oneshot::channel();
        let mut draft = Draft::new(store.dir(), facts, origin)?;
        tokio::task::spawn_blocking(move || {
            store.with_snapshot(|view| {
                // Nobody waits for it if the client has gone.
                let _ = ready.send(());
                draft.carry_out(queue, view, &here);
            });
        });
        is_ready.await.map_err(|_| flotilla_core::Error::Stopped)?;
        Ok(Self { tasks })
    }

    /// Reads what is here.
    pub(super) async fn read(
        &self,
        from: Revision,
        to: i64,
        compacted: (i64, Below),
        limits: ReplayLimits,
    ) -> Result<KeptPage, Failure> {
        let (reply, answer) = oneshot::channel();
        self.send(Task::Read { from, to, compacted, limits, reply }).await?;
        answer.await.unwrap_or(Err(flotilla_core::Error::Stopped.into()))
    }

    /// Adds changes.
    pub(super) async fn write(&self, records: Vec<Record>) -> Result<(), flotilla_core::Error> {
        self.send(Task::Write(records)).await
    }

    /// Adds the rest.
    pub(super) async fn finish(self, facts: Facts) -> Result<Image, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.send(Task::Finish(Box::new(facts), reply)).await?;
        answer.await.unwrap_or(Err(flotilla_core::Error::Stopped.into()))
    }

    async fn send(&self, task: Task) -> Result<(), flotilla_core::Error> {
        self.tasks.send(task).await.map_err(|_| flotilla_core::Error::Stopped)
    }
}

/// An image that is being written. The first error ends it, and is told at the end.
struct Draft {
    origin: Origin,
    writer: Writer,
    file: File,
    bytes: u64,
    looked_at: u64,
    result: Result<(), Refusal>,
}

impl Draft {
    fn new(dir: &Path, facts: &Facts, origin: Origin) -> Result<Self, Refusal> {
        // Without a name: whatever happens, nothing is left.
        let mut file = tempfile::tempfile_in(dir)?;
        file.write_all(&[0; HEAD_BYTES])?;
        let mut writer = Writer::default();
        schema::write_before(facts, &origin, &mut writer);
        let bytes = HEAD_BYTES as u64;
        let draft = Self { origin, writer, file, bytes, looked_at: 0, result: Ok(()) };
        draft.ensure_room()?;
        Ok(draft)
    }

    fn carry_out(&mut self, mut queue: mpsc::Receiver<Task>, view: &dyn View, here: &[Span]) {
        let is_all = here == [Span::all()];
        let is_here = |key: &[u8]| is_all || history::contains(here, key);
        while let Some(task) = queue.blocking_recv() {
            match task {
                Task::Read { from, to, compacted, limits, reply } => {
                    let page = mvcc::kept_page(view, &is_here, from, to, compacted, limits);
                    // Whoever asked may have gone.
                    let _ = reply.send(page);
                }
                Task::Write(records) => {
                    for Record { head, kv } in records {
                        let (revision, is_delete) = (head.revision, head.is_tombstone);
                        let change = Change { revision, is_delete, kv: &kv };
                        schema::write_change(&change, &mut self.writer);
                    }
                    if self.result.is_ok() && self.writer.ready_bytes() >= WRITE_BYTES {
                        self.result = self.save();
                    }
                    if self.result.is_err() {
                        self.writer.take();
                    }
                }
                Task::Finish(facts, reply) => {
                    let image = self.finish(&facts);
                    // Whoever asked may have gone.
                    let _ = reply.send(image);
                    return;
                }
            }
        }
    }

    fn finish(&mut self, facts: &Facts) -> Result<Image, Refusal> {
        std::mem::replace(&mut self.result, Ok(()))?;
        schema::write_after(facts, &self.origin, &mut self.writer);
        self.save()?;
        let finished = std::mem::take(&mut self.writer).finish();
        self.append(&finished.tail)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(&finished.head)?;
        Ok(Image { file: self.file.try_clone()?, bytes: self.bytes })
    }

    fn save(&mut self) -> Result<(), Refusal> {
        let ready = self.writer.take();
        self.append(&ready)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        self.file.write_all(bytes)?;
        self.bytes += bytes.len() as u64;
        if self.bytes >= self.looked_at + LOOK_EVERY_BYTES {
            self.looked_at = self.bytes;
            self.ensure_room()?;
        }
        Ok(())
    }

    fn ensure_room(&self) -> Result<(), Refusal> {
        let found = rustix::fs::fstatvfs(&self.file).map_err(io::Error::from)?;
        let free_bytes = found.f_bavail.saturating_mul(found.f_frsize);
        if free_bytes < RESERVE_BYTES + LOOK_EVERY_BYTES {
            return Err(Refusal::Full { free_bytes, reserve_bytes: RESERVE_BYTES });
        }
        Ok(())
    }
}
