//! The apply thread: folded entries become one batch of the store, then events, then answers. It
//! also installs snapshots and removes what a compaction made useless, in small steps between the
//! batches.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use flotilla_core::mvcc::{self, Head};
use flotilla_core::spine::State;
use flotilla_core::spine::apply::{self, Applied, Task};
use flotilla_core::spine::state::Position;
use flotilla_core::watch::{Event, Published};
use flotilla_core::{GroupId, NodeId};
use tokio::sync::mpsc;

use super::Completion;
use crate::router::{Board, Pending};
use crate::store::{Sealed, Store};
use crate::supervise::fatal;

/// Messages that may wait for the thread.
const QUEUE_MESSAGES_MAX: usize = 1_024;
/// Tasks put into one batch.
const BATCH_TASKS_MAX: usize = 64;

/// Work for the thread, done strictly in order.
pub enum ApplyMessage {
    /// Apply a folded entry.
    Task(Task),
    /// Put a received snapshot in the place of the store.
    Install(Sealed),
}

/// What the thread works with.
pub struct Applier {
    /// The applied state.
    pub store: Store,
    /// This node: its clients are answered from here.
    pub node: NodeId,
    /// Where the store stands.
    pub position: Position,
    /// What everyone may read.
    pub board: Arc<Board>,
    /// Clients that wait.
    pub pending: Arc<Pending>,
    /// The spine's actor.
    pub completions: mpsc::Sender<Completion>,
    /// Hands a batch to the workers' watchers; it must not block.
    pub publish: Box<dyn Fn(&Published) + Send>,
    /// Rows a step of compaction looks at.
    pub compaction_rows_max: usize,
    /// Pause between two steps.
    pub compaction_pause: Duration,
    /// A slower batch is logged.
    pub warn_after: Duration,
}

impl Applier {
    /// Starts the thread. It ends when the sender is dropped.
    ///
    /// # Errors
    /// The operating system refuses a thread.
    pub fn start(self) -> std::io::Result<(Sender<ApplyMessage>, thread::JoinHandle<()>)> {
        let (sender, receiver) = bounded(QUEUE_MESSAGES_MAX);
        let thread =
            thread::Builder::new().name("apply".to_owned()).spawn(move || self.run(&receiver))?;
        Ok((sender, thread))
    }

    fn run(mut self, messages: &Receiver<ApplyMessage>) {
        self.announce();
        let mut is_compacting = self.position.compact_revision >= 0;
        let mut next_step = Instant::now();
        let mut held = None;
        loop {
            let message = match held.take() {
                Some(message) => message,
                None if is_compacting => match messages.recv_deadline(next_step) {
                    Ok(message) => message,
                    Err(RecvTimeoutError::Timeout) => {
                        is_compacting = self.compact();
                        next_step = Instant::now() + self.compaction_pause;
                        continue;
                    }
                    Err(RecvTimeoutError::Disconnected) => return,
                },
                None => match messages.recv() {
                    Ok(message) => message,
                    Err(_) => return,
                },
            };
            match message {
                ApplyMessage::Install(sealed) => self.install(sealed),
                ApplyMessage::Task(first) => {
                    let mut tasks = vec![first];
                    while tasks.len() < BATCH_TASKS_MAX {
                        match messages.try_recv() {
                            Ok(ApplyMessage::Task(task)) => tasks.push(task),
                            Ok(other) => {
                                held = Some(other);
                                break;
                            }
                            Err(_) => break,
                        }
                    }
                    let compact_before = self.position.compact_revision;
                    self.apply(tasks);
                    is_compacting |= self.position.compact_revision != compact_before;
                }
            }
            // A stream of writes must not keep compaction from its turn.
            if is_compacting && Instant::now() >= next_step {
                is_compacting = self.compact();
                next_step = Instant::now() + self.compaction_pause;
            }
        }
    }

    fn apply(&mut self, tasks: Vec<Task>) {
        let began = Instant::now();
        let after = self.position.revision;
        let Applied { position, batch, events, replies } =
            apply::run(&self.store, tasks).unwrap_or_else(|error| fatal(&error.to_string()));
        if let Err(error) = self.store.apply(&batch) {
            fatal(&format!("the store cannot be written: {error}"));
        }
        self.position = position;
        self.announce();
        let deletes_count = events.iter().filter(|event| event.is_delete).count();
        let puts_count = events.len() - deletes_count;
        (self.publish)(&Published {
            after,
            revision: position.revision,
            compact_revision: position.compact_revision,
            events: events.into_iter().map(Event::from).collect(),
        });
        let mut remote = Vec::new();
        for (to, outcome) in replies {
            if to.node == self.node {
                self.pending.answer(to.id.n, outcome);
            } else {
                remote.push((to, outcome));
            }
        }
        self.report(Completion::Applied(position, remote));
        let took = began.elapsed();
        crate::metrics::applied(took, puts_count, deletes_count);
        if took > self.warn_after {
            tracing::warn!(took_ms = took.as_millis(), "applying took long");
        }
    }

    fn install(&mut self, sealed: Sealed) {
        if let Err(error) = self.store.install(GroupId::SPINE, sealed) {
            fatal(&format!("the received snapshot cannot be installed: {error}"));
        }
        let state = State::load(&self.store)
            .unwrap_or_else(|error| fatal(&error.to_string()))
            .unwrap_or_else(|| fatal("the received snapshot holds no state"));
        let after = self.position.revision;
        self.position = state.position();
        self.announce();
        // Watchers read what they missed from the history.
        (self.publish)(&Published {
            after: after.max(self.position.revision),
            revision: self.position.revision,
            compact_revision: self.position.compact_revision,
            events: Arc::new([]),
        });
        self.report(Completion::SnapshotInstalled);
    }

    /// One step; whether more are left.
    fn compact(&mut self) -> bool {
        let slice = mvcc::compact_slice(
            &self.store,
            self.position.compact_revision,
            self.compaction_rows_max,
        )
        .unwrap_or_else(|error| fatal(&error.to_string()));
        if !slice.batch.writes.is_empty()
            && let Err(error) = self.store.apply(&slice.batch)
        {
            fatal(&format!("the store cannot be written: {error}"));
        }
        if slice.is_finished {
            self.board.set_compacted(self.position.compact_revision);
        }
        !slice.is_finished
    }

    fn announce(&self) {
        let Position { index, revision, compact_revision, .. } = self.position;
        self.board.set_head(Head { revision, compact_revision }, index);
    }

    fn report(&self, completion: Completion) {
        // The actor ends only with the process.
        let _ = self.completions.blocking_send(completion);
    }
}
