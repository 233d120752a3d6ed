//! The apply thread: folded entries of the spine and joined entries of ranges become one batch of
//! the store, then events, then answers. It also installs snapshots and removes what a compaction made useless, in small steps between the
//! batches.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use flotilla_core::mvcc::{self, Head};
use flotilla_core::proto::Span;
use flotilla_core::range::replica::Input;
use flotilla_core::range::stored;
use flotilla_core::snapshot::{Clear, Scope};
use flotilla_core::spine::Shown;
use flotilla_core::spine::apply::Answered;
use flotilla_core::stage::{Applied, Reach, Stage, Work};
use flotilla_core::time::Time;
use flotilla_core::view::{Batch, Column, Write};
use flotilla_core::watch::{Event, Published};
use flotilla_core::{GroupId, NodeId};
use tokio::sync::{mpsc, oneshot};

use super::{Completion, Mail, Ranges, deliver};
use crate::failpoint::Failpoint;
use crate::metrics::upstream;
use crate::router::{self, Board, Pending, Trace};
use crate::store::{Sealed, Store};
use crate::supervise::fatal;

/// Messages that may wait for the thread.
const QUEUE_MESSAGES_MAX: usize = 1_024;
/// Tasks put into one batch.
const BATCH_TASKS_MAX: usize = 64;

/// Work for the thread, done strictly in order.
pub enum ApplyMessage {
    /// Apply a folded entry of the spine, or a joined one of a range.
    Work(Work),
    /// Put the received snapshot of a group in the place of what the store has of it.
    Install(GroupId, Sealed),
}

/// What the thread works with.
pub struct Applier {
    /// The applied state.
    pub store: Store,
    /// This node: its clients are answered from here.
    pub node: NodeId,
    /// What is applied and what is shown of it.
    pub stage: Stage,
    /// The actors of other ranges.
    pub ranges: Arc<Ranges>,
    /// What everyone may read.
    pub board: Arc<Board>,
    /// Clients that wait.
    pub pending: Arc<Pending>,
    /// When the machines' time began.
    pub started: Instant,
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
    /// When the compaction under way took its first step. None at first.
    pub compacting_since: Option<Instant>,
    /// Ranges that this node holds no more, and whose keys are on their way out. Empty at first.
    pub left: VecDeque<(GroupId, Clear)>,
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
        if !self.stage.is_whole() {
            tracing::info!(wants = self.stage.wants(), "waiting for ranges to catch up");
        }
        self.report_reach(self.stage.reach().clone());
        let left = stored::left(&self.store).unwrap_or_else(|error| fatal(&error.to_string()));
        self.clear_later(left);
        let mut is_compacting = self.stage.shown().head.compact_revision >= 0;
        let mut next_step = Instant::now();
        let mut held = None;
        loop {
            let message = match held.take() {
                Some(message) => message,
                None if is_compacting || !self.left.is_empty() => {
                    match messages.recv_deadline(next_step) {
                        Ok(message) => message,
                        Err(RecvTimeoutError::Timeout) => {
                            is_compacting = is_compacting && self.compact();
                            self.clear();
                            next_step = Instant::now() + self.compaction_pause;
                            continue;
                        }
                        Err(RecvTimeoutError::Disconnected) => return,
                    }
                }
                None => match messages.recv() {
                    Ok(message) => message,
                    Err(_) => return,
                },
            };
            match message {
                ApplyMessage::Install(group, sealed) => {
                    self.install(group, sealed);
                    // What came was perhaps not compacted where it comes from.
                    is_compacting = self.stage.shown().head.compact_revision >= 0;
                }
                ApplyMessage::Work(first) => {
                    let mut works = vec![first];
                    while works.len() < BATCH_TASKS_MAX {
                        match messages.try_recv() {
                            Ok(ApplyMessage::Work(work)) => works.push(work),
                            Ok(other) => {
                                held = Some(other);
                                break;
                            }
                            Err(_) => break,
                        }
                    }
                    let compact_before = self.stage.shown().head.compact_revision;
                    self.apply(works);
                    let compact_revision = self.stage.shown().head.compact_revision;
                    is_compacting |= compact_revision != compact_before;
                }
            }
            // A stream of writes must not keep compaction from its turn.
            if (is_compacting || !self.left.is_empty()) && Instant::now() >= next_step {
                is_compacting = is_compacting && self.compact();
                self.clear();
                next_step = Instant::now() + self.compaction_pause;
            }
        }
    }

    fn apply(&mut self, works: Vec<Work>) {
        let began = Instant::now();
        let was_whole = self.stage.is_whole();
        let Applied {
            batch,
            spine,
            begun,
            ended,
            left,
            ranges,
            replies,
            reach,
            published,
            events,
            events_after,
            puts_count,
            deletes_count,
            put_bytes,
            txns_count,
        } = self.stage.run(&self.store, works).unwrap_or_else(|error| fatal(&error.to_string()));
        let evaluated = Instant::now();
        Failpoint::ApplyBeforeBatch.reached();
        if let Err(error) = self.store.apply(&batch) {
            fatal(&format!("the store cannot be written: {error}"));
        }
        Failpoint::ApplyAfterBatch.reached();
        if !begun.is_empty() {
            Failpoint::SplitWritten.reached();
        }
        if !ended.is_empty() {
            Failpoint::MergeWritten.reached();
        }
        upstream::committed(evaluated.elapsed(), put_bytes, txns_count);
        self.announce();
        if self.stage.is_whole() && !was_whole {
            tracing::info!("ranges have caught up");
        }
        if let Some(head) = published {
            self.publish(head, events_after, events);
        }
        let has_left = !left.is_empty();
        if has_left {
            self.board.begin_removal();
        }
        self.clear_later(left);
        let (mut remote, mut answered, mut early) = (Vec::new(), Vec::new(), Vec::new());
        let (now, started) = (Instant::now(), self.started);
        let since = now.saturating_duration_since(started).as_micros();
        let applied = Time(u64::try_from(since).unwrap_or(u64::MAX));
        for Answered { to, outcome, way } in replies {
            let n = to.id.n;
            if to.node != self.node {
                remote.push((to, outcome, router::phases(&way, applied)));
            } else if self.stage.shows(&outcome) {
                answered.push(n);
                let note = |trace: &Trace| trace.follow(&way, started, now);
                self.pending.answer_noting(n, outcome, note);
            } else {
                self.pending.note(n, |trace| trace.follow(&way, started, now));
                early.push((n, outcome));
            }
        }
        Failpoint::ApplyAfterAnswers.reached();
        for (range, position) in &ranges {
            if let Some(actor) = self.ranges.get(*range) {
                deliver(&actor, Mail(Input::Applied(*position)));
            }
        }
        self.report(Completion::Applied { spine, reach, remote, answered, early, begun, ended });
        if has_left {
            self.wait_until_known();
        }
        let took = began.elapsed();
        crate::metrics::applied(took, puts_count, deletes_count);
        if took > self.warn_after {
            ::metrics::counter!(upstream::SLOW_APPLIES).increment(1);
            tracing::warn!(took_ms = took.as_millis(), "applying took long");
        }
    }

    fn install(&mut self, group: GroupId, sealed: Sealed) {
        if self.stage.has_ended(group) {
            tracing::info!(range = %group, "a received snapshot is of a range that has ended");
            return;
        }
        // What comes must not be removed with what was here before.
        while self.clear() {}
        self.board.begin_replacement();
        let mut reach = self.stage.reach().clone();
        reach.lacking.extend(reach.owners.ranges());
        self.report_reach(reach);
        self.wait_until_known();
        Failpoint::InstallBegun.reached();
        let began = Instant::now();
        let installing = ::metrics::gauge!(upstream::SNAPSHOT_INSTALLING);
        installing.set(1.0);
        if let Err(error) = self.store.install(group, sealed) {
            fatal(&format!("the received snapshot cannot be installed: {error}"));
        }
        Failpoint::InstallDone.reached();
        installing.set(0.0);
        let taken = match group {
            GroupId::SPINE => self.stage.take_over(&self.store).map(|()| Vec::new()),
            range => self.stage.replaced(&self.store, range),
        };
        let ended = taken.unwrap_or_else(|error| fatal(&error.to_string()));
        self.announce();
        tracing::info!(range = %group, took_ms = began.elapsed().as_millis(), "installed a snapshot");
        let reach = self.stage.reach();
        // Watchers read what they missed from the history.
        if reach.shown.index > 0 {
            self.publish(reach.shown.head, reach.shown.head.revision, Vec::new());
        }
        match (group, self.ranges.get(group)) {
            (GroupId::SPINE, _) => self.report(Completion::SnapshotInstalled),
            (_, Some(actor)) => deliver(&actor, Mail(Input::SnapshotInstalled)),
            (_, None) => {}
        }
        self.report(Completion::Applied {
            spine: None,
            reach: Some(self.stage.reach().clone()),
            remote: Vec::new(),
            answered: Vec::new(),
            early: Vec::new(),
            begun: Vec::new(),
            ended,
        });
    }

    /// Hands watchers all events after a revision.
    fn publish(&self, head: Head, after: i64, events: Vec<mvcc::Event>) {
        (self.publish)(&Published {
            after,
            revision: head.revision,
            compact_revision: head.compact_revision,
            events: events.into_iter().map(Event::from).collect(),
        });
    }

    /// One step; whether more are left.
    fn compact(&mut self) -> bool {
        let began = Instant::now();
        let compacting_since = *self.compacting_since.get_or_insert(began);
        let compact_revision = self.stage.shown().head.compact_revision;
        let slice = mvcc::compact_slice(&self.store, compact_revision, self.compaction_rows_max)
            .unwrap_or_else(|error| fatal(&error.to_string()));
        if !slice.batch.writes.is_empty()
            && let Err(error) = self.store.apply(&slice.batch)
        {
            fatal(&format!("the store cannot be written: {error}"));
        }
        if slice.is_finished {
            Failpoint::CompactionEnd.reached();
        } else {
            Failpoint::CompactionSlice.reached();
        }
        let is_removal = |write: &&Write| matches!(write, Write::Delete(Column::Revision, ..));
        let removed_count = slice.batch.writes.iter().filter(is_removal).count();
        upstream::compaction_step(began.elapsed(), removed_count);
        if slice.is_finished {
            self.compacting_since = None;
            upstream::compacted(compacting_since.elapsed());
            self.board.set_compacted(compact_revision);
        }
        !slice.is_finished
    }

    fn clear_later(&mut self, left: Vec<(GroupId, Span)>) {
        let clears =
            left.into_iter().map(|(range, span)| (range, Clear::keys(Scope::of_left(range, span))));
        self.left.extend(clears);
    }

    /// Removes some of the keys that this node holds no more; whether there may be more.
    fn clear(&mut self) -> bool {
        let Some((range, clear)) = self.left.front_mut() else { return false };
        let range = *range;
        let next = clear.next(&self.store).unwrap_or_else(|error| fatal(&error.to_string()));
        let batch = next.unwrap_or_else(|| {
            let mut batch = Batch::default();
            stored::forget_left(range, &mut batch);
            self.left.pop_front();
            batch
        });
        if let Err(error) = self.store.apply(&batch) {
            fatal(&format!("the store cannot be written: {error}"));
        }
        Failpoint::LeaveSlice.reached();
        true
    }

    fn announce(&self) {
        let Shown { index, head } = self.stage.shown();
        if index > 0 {
            self.board.set_head(head, index);
        }
        self.board.set_reach(self.stage.reach());
    }

    fn report_reach(&self, reach: Reach) {
        self.report(Completion::Applied {
            spine: None,
            reach: Some(reach),
            remote: Vec::new(),
            answered: Vec::new(),
            early: Vec::new(),
            begun: Vec::new(),
            ended: Vec::new(),
        });
    }

    /// The spine's machine decides transactions on rows of this store that it takes for those of a
    /// range. They go only when it knows that they do not count any more.
    fn wait_until_known(&self) {
        let (known, waiting) = oneshot::channel();
        self.report(Completion::Known(known));
        // The actor ends only with the process.
        let _ = waiting.blocking_recv();
    }

    fn report(&self, completion: Completion) {
        // The actor ends only with the process.
        let _ = self.completions.blocking_send(completion);
    }
}
