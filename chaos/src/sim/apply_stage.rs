//! The apply stage of a node: folded entries become batches of the store, then events for
//! watchers, then answers; between batches it removes what a compaction made useless.

use flotilla_core::memory::MemoryView;
use flotilla_core::snapshot::{self, Scope};
use flotilla_core::spine::apply::Answered;
use flotilla_core::stage::{Applied, Work};
use flotilla_core::view::{Batch, Column, ViewError, Write};
use flotilla_core::watch::{self, Published};
use flotilla_core::{GroupId, mvcc, range};

use super::event::{NodeEvent, Report};
use super::mutant::Mutant;
use super::node::Job;
use super::world::{Phase, World};

/// Batches end at multiples of this index, so that replicas can be compared there.
pub(super) const COMPARE_EVERY: u64 = 32;
/// Mean pause between two steps of compaction, in microseconds.
const COMPACTION_PAUSE: u64 = 5_000;
/// Rows of a step of compaction, at least, once everything is healed.
const COMPACTION_ROWS_AT_REST: usize = 100;

impl World {
    pub(super) fn work(&mut self, id: u64, job: Job) {
        self.up(id).work.push_back(job);
        self.plan_apply(id);
    }

    fn plan_apply(&mut self, id: u64) {
        let running = self.up(id);
        if running.is_applying || running.work.is_empty() {
            return;
        }
        running.is_applying = true;
        let wait = self.chance.wait(self.plan.apply_mean);
        self.on_node(id, wait, NodeEvent::Apply);
    }

    pub(super) fn on_apply(&mut self, id: u64) {
        let batch_max = self.chance.between(1, self.plan.batch_tasks_max);
        let running = self.up(id);
        running.is_applying = false;
        let mut works: Vec<Work> = Vec::new();
        let mut install = None;
        while (works.len() as u64) < batch_max {
            match running.work.pop_front() {
                Some(Job::Apply(work)) => {
                    let is_end = matches!(
                        &work,
                        Work::Spine(task) if task.position.index % COMPARE_EVERY == 0
                    );
                    works.push(work);
                    if is_end {
                        break;
                    }
                }
                Some(Job::Install(group, rows)) if works.is_empty() => {
                    install = Some((group, rows));
                    break;
                }
                Some(job) => {
                    running.work.push_front(job);
                    break;
                }
                None => break,
            }
        }
        match install {
            Some((group, rows)) => self.install(id, group, &rows),
            None if !works.is_empty() => self.apply(id, works),
            None => {}
        }
        self.plan_apply(id);
        self.plan_compaction(id);
    }

    fn apply(&mut self, id: u64, mut works: Vec<Work>) {
        if self.is_mutant(Mutant::ApplyDiverges) && id == 2 && self.chance.one_in(50) {
            let steps = works.iter_mut().flat_map(|work| match work {
                Work::Spine(task) => task.steps.iter_mut(),
                Work::Range(task) => task.steps.iter_mut(),
                Work::CatchingUp(_) | Work::CaughtUp(_) | Work::Drop(_) | Work::Leave(_) => {
                    [].iter_mut()
                }
            });
            if let Some(effect) = steps.flat_map(|step| &mut step.effects).next() {
                effect.value = bytes::Bytes::from_static(b"diverged");
            }
        }
        let node = self.nodes.get_mut(&id).expect("a node applies");
        let running = node.running.as_mut().expect("it is up");
        let before = running.stage.reach().shown.head;
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
            ..
        } = match running.stage.run(&node.store.view, works) {
            Ok(applied) => applied,
            Err(error) => {
                self.invariants.break_with(format!("node {id}: {error}"));
                return;
            }
        };
        running.position = spine.unwrap_or(running.position);
        let after = running.stage.reach().shown.head;
        running.is_compacting |= after.compact_revision != before.compact_revision;
        if self.mutant == Some(Mutant::AppliedApart) {
            let mut apart = Batch::default();
            running.position.write(&mut apart);
            node.store.apply_durably(&apart);
        }
        node.store.apply(batch.clone());
        self.tell_applied(id, &batch);
        if let Some(position) = spine {
            self.check_applied(id, position);
        }
        self.check_shown(id, reach.as_ref().map(|reach| reach.shown));
        if let Some(head) = published {
            let published = Published {
                after: events_after,
                revision: head.revision,
                compact_revision: head.compact_revision,
                events: events.into_iter().map(watch::Event::from).collect(),
            };
            self.hub_step(id, watch::Input::Published(published));
        }
        let (mut remote, mut answered, mut early) = (Vec::new(), Vec::new(), Vec::new());
        for Answered { to, outcome, .. } in replies {
            if to.node.0 != id {
                remote.push((to, outcome));
            } else if to.id.origin == self.up(id).origin {
                if self.up(id).stage.shows(&outcome) {
                    answered.push(to.id.n);
                    self.reply_applied(id, to.id.n, outcome);
                } else {
                    early.push((to.id.n, outcome));
                }
            } else if ranges.is_empty() {
                self.invariants.break_with(format!(
                    "node {id} answers {to:?}, which no client of this life asked for"
                ));
                return;
            }
        }
        for (range, position) in ranges {
            self.mail(id, range, range::replica::Input::Applied(position));
        }
        self.report(id, Report::Applied { spine, reach, remote, answered, early, begun, ended });
        self.begin_clear_left(id, left);
        if self.chance.one_in(self.plan.store_flush_one_in) {
            self.flush_some(id);
        }
    }

    fn install(&mut self, id: u64, group: GroupId, rows: &MemoryView) {
        if self.up(id).stage.has_ended(group) {
            return;
        }
        // What comes must not be removed with what was here before.
        self.clear_left(id, true);
        let node = self.nodes.get_mut(&id).expect("a node installs");
        let mut view = node.store.view.clone();
        if let Err(error) = put_in_place(&mut view, group, rows) {
            self.invariants.break_with(format!("node {id}, a snapshot of group {group}: {error}"));
            return;
        }
        node.store.replace(view);
        let running = node.running.as_mut().expect("it is up");
        let view = &node.store.view;
        let taken = match group {
            GroupId::SPINE => running.stage.take_over(view).map(|()| Vec::new()),
            range => running.stage.replaced(view, range),
        };
        let ended = match taken {
            Ok(ended) => ended,
            Err(error) => {
                self.invariants.break_with(format!("node {id}: {error}"));
                return;
            }
        };
        let head = running.head();
        running.position = running.stage.position();
        running.is_compacting = running.stage.reach().shown.head.compact_revision >= 0;
        let position = running.position;
        let published = Published {
            after: head.revision,
            revision: head.revision,
            compact_revision: head.compact_revision,
            events: std::sync::Arc::new([]),
        };
        if group == GroupId::SPINE {
            self.see("snapshot installed");
            self.check_applied(id, position);
        }
        self.hub_step(id, watch::Input::Published(published));
        match group {
            GroupId::SPINE => self.report(id, Report::SnapshotInstalled),
            range => self.mail(id, range, range::replica::Input::SnapshotInstalled),
        }
        if !ended.is_empty() {
            self.see("merged range replaced by a snapshot");
        }
        self.check_to_begin(id);
        let (remote, answered, early) = (Vec::new(), Vec::new(), Vec::new());
        let reach = Some(self.up(id).stage.reach().clone());
        let (spine, begun) = (None, Vec::new());
        self.report(id, Report::Applied { spine, reach, remote, answered, early, begun, ended });
    }

    pub(super) fn plan_compaction(&mut self, id: u64) {
        let running = self.up(id);
        if !running.is_compacting || running.is_compaction_planned {
            return;
        }
        running.is_compaction_planned = true;
        let wait = self.chance.wait(COMPACTION_PAUSE);
        self.on_node(id, wait, NodeEvent::Compact);
    }

    pub(super) fn on_compact(&mut self, id: u64) {
        // Row by row a store of many revisions takes longer than anybody waits for rest.
        let rows_min = if self.phase == Phase::Trouble { 1 } else { COMPACTION_ROWS_AT_REST };
        let rows_max = self.plan.compaction_rows_max.max(rows_min);
        let node = self.nodes.get_mut(&id).expect("a node compacts");
        let running = node.running.as_mut().expect("it is up");
        running.is_compaction_planned = false;
        let compact_revision = running.stage.reach().shown.head.compact_revision;
        match mvcc::compact_slice(&node.store.view, compact_revision, rows_max) {
            Ok(slice) => {
                running.is_compacting = !slice.is_finished;
                if !slice.batch.writes.is_empty() {
                    node.store.apply(slice.batch);
                }
                if slice.is_finished {
                    self.see("compaction finished");
                }
            }
            Err(error) => self.invariants.break_with(format!("node {id}: {error}")),
        }
        self.plan_compaction(id);
    }

    /// A machine wants the store durable; it is told the index where its state stood at the start.
    pub(super) fn flush_store(&mut self, id: u64, group: GroupId) {
        let node = &self.nodes[&id];
        let running = node.running.as_ref().expect("it is up");
        let index = match running.ranges.get(&group) {
            Some(range) => range.applied().index,
            None => running.replica.applied().index,
        };
        let index = Some((group, index));
        let batches = node.store.unflushed_count();
        let wait = self.chance.wait(self.plan.flush_mean * 10);
        self.up(id).is_store_flushing = true;
        self.on_node(id, wait, NodeEvent::StoreFlushed { batches, index });
    }

    /// The store flushes a part of what it holds by itself.
    fn flush_some(&mut self, id: u64) {
        if self.up(id).is_store_flushing {
            return;
        }
        let batches = self.nodes[&id].store.unflushed_count() as u64;
        let batches = usize::try_from(self.chance.between(0, batches)).expect("fits");
        self.nodes.get_mut(&id).expect("it is up").store.flush(batches);
    }

    pub(super) fn on_store_flushed(
        &mut self,
        id: u64,
        batches: usize,
        index: Option<(GroupId, u64)>,
    ) {
        let node = self.nodes.get_mut(&id).expect("a node flushes");
        node.store.flush(batches);
        node.running.as_mut().expect("it is up").is_store_flushing = false;
        match index {
            Some((GroupId::SPINE, index)) => self.report(id, Report::Flushed(index)),
            Some((range, index)) => self.mail(id, range, range::replica::Input::Flushed(index)),
            None => {}
        }
    }
}

/// Replaces what a group has in a store by the rows of its snapshot.
fn put_in_place(view: &mut MemoryView, group: GroupId, rows: &MemoryView) -> Result<(), ViewError> {
    let scope = Scope::of_install(view, rows, group)?;
    let scope = scope.ok_or_else(|| ViewError("it is not known here".to_owned()))?;
    let mut install = snapshot::Install::new(scope);
    while !install.is_finished() {
        let batch = install.next(view, rows)?;
        view.apply(&batch);
    }
    Ok(())
}

/// The rows that every replica has alike after the same entry. What a compaction has removed so
/// far differs, so history is compared by its hash and not here.
pub(super) fn common_rows(view: &MemoryView) -> Vec<Write> {
    let meta = view.rows(Column::Meta).filter(|(key, _)| key[..] != *mvcc::layout::COMPACTION_ROW);
    let meta = meta.map(|(key, value)| Write::Put(Column::Meta, key.clone(), value.clone()));
    let attached = view.rows(Column::LeaseKey);
    let attached =
        attached.map(|(key, value)| Write::Put(Column::LeaseKey, key.clone(), value.clone()));
    meta.chain(attached).collect()
}
