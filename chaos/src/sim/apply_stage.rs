//! The apply stage of a node: folded entries become batches of the store, then events for
//! watchers, then answers; between batches it removes what a compaction made useless.

use flotilla_core::memory::MemoryView;
use flotilla_core::mvcc;
use flotilla_core::spine::State;
use flotilla_core::spine::apply::{self, Applied, Task};
use flotilla_core::view::{Batch, Column, Write};
use flotilla_core::watch::{self, Published};

use super::event::{NodeEvent, Report};
use super::mutant::Mutant;
use super::node::Work;
use super::world::World;

/// Batches end at multiples of this index, so that replicas can be compared there.
pub(super) const COMPARE_EVERY: u64 = 32;
/// Mean pause between two steps of compaction, in microseconds.
const COMPACTION_PAUSE: u64 = 5_000;

impl World {
    pub(super) fn work(&mut self, id: u64, work: Work) {
        self.up(id).work.push_back(work);
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
        let mut tasks: Vec<Task> = Vec::new();
        let mut install = None;
        while (tasks.len() as u64) < batch_max {
            match running.work.pop_front() {
                Some(Work::Task(task)) => {
                    let is_end = task.position.index % COMPARE_EVERY == 0;
                    tasks.push(task);
                    if is_end {
                        break;
                    }
                }
                Some(Work::Install(view)) if tasks.is_empty() => {
                    install = Some(view);
                    break;
                }
                Some(work) => {
                    running.work.push_front(work);
                    break;
                }
                None => break,
            }
        }
        match install {
            Some(view) => self.install(id, view),
            None if !tasks.is_empty() => self.apply(id, tasks),
            None => {}
        }
        self.plan_apply(id);
        self.plan_compaction(id);
    }

    fn apply(&mut self, id: u64, mut tasks: Vec<Task>) {
        if self.is_mutant(Mutant::ApplyDiverges) && id == 2 && self.chance.one_in(50) {
            let effects = tasks.iter_mut().flat_map(|task| &mut task.steps);
            if let Some(effect) = effects.flat_map(|step| &mut step.effects).next() {
                effect.value = bytes::Bytes::from_static(b"diverged");
            }
        }
        let node = self.nodes.get_mut(&id).expect("a node applies");
        let running = node.running.as_mut().expect("it is up");
        let after = running.position.revision;
        let Applied { position, batch, events, replies } = match apply::run(&node.store.view, tasks)
        {
            Ok(applied) => applied,
            Err(error) => {
                self.invariants.break_with(format!("node {id}: {error}"));
                return;
            }
        };
        let has_compacted = position.compact_revision != running.position.compact_revision;
        running.position = position;
        running.is_compacting |= has_compacted;
        if self.mutant == Some(Mutant::AppliedApart) {
            let mut apart = Batch::default();
            position.write(&mut apart);
            node.store.apply_durably(&apart);
        }
        node.store.apply(batch);
        self.tell_evidence(id, &events);
        self.check_applied(id, position);
        let published = Published {
            after,
            revision: position.revision,
            compact_revision: position.compact_revision,
            events: events.into_iter().map(watch::Event::from).collect(),
        };
        self.hub_step(id, watch::Input::Published(published));
        let mut remote = Vec::new();
        for (to, outcome) in replies {
            if to.node.0 == id {
                if to.id.origin != self.up(id).origin {
                    self.invariants.break_with(format!(
                        "node {id} answers {to:?}, which no client of this life asked for"
                    ));
                    return;
                }
                self.reply_applied(id, to.id.n, outcome);
            } else {
                remote.push((to, outcome));
            }
        }
        self.report(id, Report::Applied(position, remote));
        if self.chance.one_in(self.plan.store_flush_one_in) {
            self.flush_some(id);
        }
    }

    fn install(&mut self, id: u64, view: MemoryView) {
        let state = match State::load(&view) {
            Ok(Some(state)) => state,
            Ok(None) | Err(_) => {
                self.invariants.break_with(format!("node {id} installs a store without state"));
                return;
            }
        };
        self.see("snapshot installed");
        let node = self.nodes.get_mut(&id).expect("a node installs");
        node.store.replace(view);
        let running = node.running.as_mut().expect("it is up");
        let after = running.position.revision;
        let position = state.position();
        running.position = position;
        running.is_compacting = position.compact_revision >= 0;
        let published = Published {
            after: after.max(position.revision),
            revision: position.revision,
            compact_revision: position.compact_revision,
            events: std::sync::Arc::new([]),
        };
        self.check_applied(id, position);
        self.hub_step(id, watch::Input::Published(published));
        self.report(id, Report::SnapshotInstalled);
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
        let rows_max = self.plan.compaction_rows_max;
        let node = self.nodes.get_mut(&id).expect("a node compacts");
        let running = node.running.as_mut().expect("it is up");
        running.is_compaction_planned = false;
        let compact_revision = running.position.compact_revision;
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

    /// The machine wants the store durable; it is told the index where it stood at the start.
    pub(super) fn flush_store(&mut self, id: u64) {
        let node = &self.nodes[&id];
        let running = node.running.as_ref().expect("it is up");
        let index = Some(running.replica.applied().index);
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

    pub(super) fn on_store_flushed(&mut self, id: u64, batches: usize, index: Option<u64>) {
        let node = self.nodes.get_mut(&id).expect("a node flushes");
        node.store.flush(batches);
        node.running.as_mut().expect("it is up").is_store_flushing = false;
        if let Some(index) = index {
            self.report(id, Report::Flushed(index));
        }
    }
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
