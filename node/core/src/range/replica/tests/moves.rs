//! Replicas on the move: snapshots from store to store in small chunks, which break midway; stores
//! that crash with half of a snapshot in; members that are added, promoted and removed.

use std::collections::BTreeMap;

use super::world::{Node, World};
use crate::group::{self, Chance as _, Change, ChangeStep, HardState, Part, conf};
use crate::memory::MemoryView;
use crate::proto::internal::{RaftMessage, SnapshotHeader, SnapshotMark};
use crate::range::replica::{Input, Replica, Task};
use crate::range::stored::Stored;
use crate::snapshot::{Clear, Install, Limits, Receiver, Scope, Sender, to_send};
use crate::view::{Batch, Column, Write};
use crate::{GroupId, NodeId};

const RANGES: [GroupId; 2] = [GroupId(1), GroupId(2)];
/// A learner this close to the end of the log is promoted.
const PROMOTE_LAG_MAX: u64 = 20;

/// What the store of a node does, in order.
pub(super) enum Work {
    Task(Task),
    Install(GroupId, MemoryView),
    Clear(GroupId),
}

/// Work that takes many batches. A mark in the store says so, and is there after a crash.
#[derive(Clone)]
pub(super) enum Unfinished {
    Install(GroupId, MemoryView),
    Clear(GroupId),
}

/// How far it is.
pub(super) enum Progress {
    Install(Install),
    Clear(Clear),
}

/// A snapshot on its way.
pub(super) struct Transfer {
    from: u64,
    to: u64,
    range: GroupId,
    message: RaftMessage,
    mark: SnapshotMark,
    view: MemoryView,
    sender: Sender,
    receiver: Receiver,
    rows: MemoryView,
}

impl World {
    pub(super) fn send_snapshot(&mut self, from: u64, range: GroupId, message: RaftMessage) {
        let to = message.to;
        let view = self.nodes[&from].store.clone();
        let found = to_send(&view, range).expect("readable");
        let (mark, scope) = found.expect("a leader has a state");
        let number = self.snapshots_count;
        self.snapshots_count += 1;
        let header =
            SnapshotHeader { id: number, message: Some(message.clone()), mark: Some(mark.clone()) };
        let limits = Limits { chunk_bytes_max: 300, window_chunks_max: 2, ..Limits::default() };
        let receiver = Receiver::new(&header, scope.clone(), limits).expect("our own header");
        let sender = Sender::new(number, scope, limits);
        let rows = MemoryView::new();
        self.see("snapshot begun");
        self.transfers.push(Transfer {
            from,
            to,
            range,
            message,
            mark,
            view,
            sender,
            receiver,
            rows,
        });
    }

    /// A chunk of some snapshot goes over, or is lost with the snapshot.
    pub(super) fn carry_snapshot(&mut self) {
        if self.transfers.is_empty() {
            return;
        }
        let at = self.chance.below(self.transfers.len() as u64);
        let mut transfer = self.transfers.swap_remove(usize::try_from(at).expect("small"));
        let has_replica = |id: u64| self.nodes[&id].replicas.contains_key(&transfer.range);
        let is_there = has_replica(transfer.from) && has_replica(transfer.to);
        if !is_there || (!self.is_calm && self.chance.is_hit(3)) {
            self.see("snapshot failed");
            let (from, to, range) = (transfer.from, transfer.to, transfer.range);
            self.step(from, range, Input::SnapshotSent(NodeId(to), false));
            return;
        }
        let chunk = transfer.sender.next(&transfer.view).expect("memory can be read");
        let received = transfer.receiver.on_chunk(chunk.expect("acknowledged")).expect("our own");
        let mut batch = Batch::default();
        for row in received.rows {
            batch.put(row.column, row.key, row.value);
        }
        transfer.rows.apply(&batch);
        transfer.sender.on_ack(&received.ack).expect("our own");
        if !transfer.sender.is_finished() {
            self.transfers.push(transfer);
            return;
        }
        let Transfer { from, to, range, message, mark, mut rows, .. } = transfer;
        if self.mutant == "snapshot without locks" {
            let mut stored = Stored::load(&rows, range).expect("readable").expect("sent");
            stored.prepared.clear();
            let mut batch = Batch::default();
            stored.write(range, &mut batch);
            rows.apply(&batch);
        }
        let stored = Stored::load(&rows, range).expect("readable").expect("sent");
        if !stored.prepared.is_empty() {
            self.see("snapshot with locks");
        }
        let is_known = self.is_calm || !self.chance.is_hit(5);
        self.nodes.get_mut(&to).expect("it exists").staged.insert(range, rows);
        self.step(to, range, Input::SnapshotReceived(message, mark));
        self.step(from, range, Input::SnapshotSent(NodeId(to), is_known));
    }

    /// The store is to be replaced; meanwhile the range is not shown.
    pub(super) fn install(&mut self, id: u64, range: GroupId) {
        self.see("snapshot taken");
        self.join(id, range);
        let node = self.nodes.get_mut(&id).expect("it exists");
        let rows = node.staged.remove(&range).expect("it was received");
        node.work.push_back(Work::Install(range, rows));
    }

    /// A replica is here that may lack anything.
    pub(super) fn join(&mut self, id: u64, range: GroupId) {
        let node = self.nodes.get_mut(&id).expect("it exists");
        let open = node.state.txns().open(range).map(|(id, share)| (id, share.prepared_at));
        node.frontier.join(range, open.collect());
        if let Some(stored) = Stored::load(&node.store, range).expect("readable") {
            node.frontier.set_stored(range, &stored);
        }
        if self.mutant == "shown before it has everything" {
            node.frontier.set_caught_up(range);
        }
    }

    /// The next batch of the store.
    pub(super) fn work(&mut self, id: u64) {
        let node = self.nodes.get_mut(&id).expect("it exists");
        if !node.is_up {
            return;
        }
        if node.progress.is_some() {
            self.work_on(id);
            return;
        }
        match node.work.pop_front() {
            None => {}
            Some(Work::Task(task)) => self.apply(id, task),
            Some(Work::Install(range, rows)) => {
                let scope = Scope::load(&node.store, range).expect("readable").expect("it exists");
                let mut install = Install::new(scope);
                let batch = install.next(&node.store, &rows).expect("readable");
                if self.mutant != "cursor is not merged" {
                    node.store.apply(&batch);
                }
                if self.mutant != "half an install is kept" {
                    node.unfinished = Some(Unfinished::Install(range, rows.clone()));
                }
                node.installing = Some(rows);
                node.progress = Some(Progress::Install(install));
            }
            Some(Work::Clear(range)) => {
                let scope = Scope::load(&node.store, range).expect("readable").expect("it exists");
                node.unfinished = Some(Unfinished::Clear(range));
                node.progress = Some(Progress::Clear(Clear::new(scope)));
            }
        }
    }

    fn work_on(&mut self, id: u64) {
        let mutant = self.mutant;
        let node = self.nodes.get_mut(&id).expect("it exists");
        match node.progress.as_mut().expect("checked before") {
            Progress::Install(install) => {
                let rows = node.installing.as_ref().expect("with the progress");
                let batch = install.next(&node.store, rows).expect("readable");
                let is_delete = matches!(batch.writes.first(), Some(Write::Delete(..)));
                if !is_delete || mutant != "installed beside the old" {
                    node.store.apply(&batch);
                }
                if !install.is_finished() {
                    return;
                }
                let range = range_of(rows);
                node.progress = None;
                node.unfinished = None;
                node.installing = None;
                let stored = Stored::load(&node.store, range).expect("readable").expect("just put");
                node.frontier.set_stored(range, &stored);
                self.see("snapshot installed");
                self.step(id, range, Input::SnapshotInstalled);
            }
            Progress::Clear(clear) => match clear.next(&node.store).expect("readable") {
                Some(batch) => node.store.apply(&batch),
                None => {
                    let Some(Unfinished::Clear(range)) = node.unfinished.take() else {
                        unreachable!("a removal is marked")
                    };
                    node.progress = None;
                    drop_log(node, range);
                    self.see("replica cleared");
                }
            },
        }
    }

    /// What a crash has left unfinished comes first; a log without a state is nothing.
    pub(super) fn finish_work(&mut self, id: u64) {
        let node = self.nodes.get_mut(&id).expect("it exists");
        let unfinished = node.unfinished.take();
        match &unfinished {
            None => {}
            Some(Unfinished::Install(range, rows)) => {
                let scope = Scope::load(&node.store, *range).expect("readable");
                let mut install = Install::new(scope.expect("it exists"));
                while !install.is_finished() {
                    let batch = install.next(&node.store, rows).expect("readable");
                    node.store.apply(&batch);
                }
            }
            Some(Unfinished::Clear(range)) => {
                let scope = Scope::load(&node.store, *range).expect("readable");
                let mut clear = Clear::new(scope.expect("it exists"));
                while let Some(batch) = clear.next(&node.store).expect("readable") {
                    node.store.apply(&batch);
                }
            }
        }
        for range in RANGES {
            if Stored::load(&node.store, range).expect("readable").is_none() {
                drop_log(node, range);
            }
        }
        match unfinished {
            None => {}
            Some(Unfinished::Install(..)) => self.see("crash within an install"),
            Some(Unfinished::Clear(_)) => self.see("crash within a removal"),
        }
    }

    /// The machine says that the node has no part in the range any more.
    pub(super) fn remove_replica(&mut self, id: u64, range: GroupId) {
        self.see("replica removed");
        let node = self.nodes.get_mut(&id).expect("it exists");
        node.replicas.remove(&range);
        node.frontier.remove(range);
        node.tickets.retain(|(of, _, _)| *of != range);
        node.staged.remove(&range);
        node.work.push_back(Work::Clear(range));
    }

    fn leader(&self, range: GroupId) -> Option<u64> {
        let leads = |(id, node): (&u64, &Node)| {
            let role = node.replicas.get(&range)?.role();
            (role.part == Part::Leader).then_some((role.term, *id))
        };
        self.nodes.iter().filter_map(leads).max().map(|(_, id)| id)
    }

    /// Somebody decides that replicas are to be elsewhere.
    pub(super) fn move_replicas(&mut self) {
        let range = RANGES[usize::try_from(self.chance.below(2)).expect("small")];
        let Some(leader) = self.leader(range) else { return };
        let group = self.nodes[&leader].replicas[&range].group();
        let (conf, last) = (group.conf(), group.last_index());
        let progress = group.progress();
        let any = |chance: &mut super::world::Seeded, from: &[u64]| {
            NodeId(from[usize::try_from(chance.below(from.len() as u64)).expect("small")])
        };
        let others: Vec<u64> =
            self.nodes.keys().copied().filter(|id| !conf::has_member(&conf, NodeId(*id))).collect();
        let steps = if let Some(learner) = conf.learners.first().copied() {
            let known = progress.iter().find(|it| it.node.0 == learner);
            let is_close =
                known.is_some_and(|it| it.matched > 0 && it.matched + PROMOTE_LAG_MAX >= last);
            if is_close && self.chance.is_hit(30) {
                let old = any(&mut self.chance, &conf.voters);
                vec![ChangeStep::AddVoter(NodeId(learner)), ChangeStep::Remove(old)]
            } else if is_close {
                vec![ChangeStep::AddVoter(NodeId(learner))]
            } else if self.chance.is_hit(5) {
                vec![ChangeStep::Remove(NodeId(learner))]
            } else {
                return;
            }
        } else if conf.voters.len() > 3 {
            vec![ChangeStep::Remove(any(&mut self.chance, &conf.voters))]
        } else if others.is_empty() {
            return;
        } else {
            let new = any(&mut self.chance, &others);
            self.create(new.0, range);
            // What is left of an earlier replica goes first.
            let is_new = |it: &Replica| it.applied().index == 0;
            if !self.nodes[&new.0].replicas.get(&range).is_some_and(is_new) {
                return;
            }
            vec![ChangeStep::AddLearner(new)]
        };
        self.see(match steps[..] {
            [ChangeStep::AddVoter(_)] => "promotion",
            [ChangeStep::AddLearner(_)] => "learner added",
            [ChangeStep::Remove(node)] if node.0 == leader => "leader removed",
            [ChangeStep::Remove(_)] => "removal",
            _ => "joint change",
        });
        self.step(leader, range, Input::ChangeReplicas(Change { steps }));
    }

    /// Every member has a replica, and who is none hears of it.
    pub(super) fn tend(&mut self) {
        for range in RANGES {
            let Some(leader) = self.leader(range) else { continue };
            let conf = self.nodes[&leader].replicas[&range].group().conf();
            for id in self.nodes.keys().copied().collect::<Vec<_>>() {
                let is_member = conf::has_member(&conf, NodeId(id));
                if is_member {
                    self.create(id, range);
                }
                // Members are told as well, and old news: neither does harm.
                if is_member && (self.is_calm || !self.chance.is_hit(10)) {
                    continue;
                }
                let told: Vec<group::Position> =
                    self.nodes.values().filter_map(|node| who_left(node, range, id)).collect();
                if !told.is_empty() {
                    let at = self.chance.below(told.len() as u64);
                    let place = told[usize::try_from(at).expect("small")];
                    self.step(id, range, Input::RemovedAt(place));
                }
            }
        }
    }

    /// An empty replica, to be filled by a snapshot.
    fn create(&mut self, id: u64, range: GroupId) {
        let node = &self.nodes[&id];
        let is_busy = node.work.iter().any(|work| match work {
            Work::Task(task) => task.range == range,
            Work::Install(of, _) | Work::Clear(of) => *of == range,
        });
        let is_clearing = matches!(&node.progress, Some(Progress::Clear(_)));
        if !node.is_up || node.replicas.contains_key(&range) || is_busy || is_clearing {
            return;
        }
        self.see("replica created");
        self.join(id, range);
        self.start_replica(id, range, Stored::default());
    }
}

/// Where a replica is that knows that a node has no part in the range, and that whoever votes knows.
fn who_left(node: &Node, range: GroupId, id: u64) -> Option<group::Position> {
    let stored = Stored::load(&node.store, range).expect("readable")?;
    let is_known = node.is_up && stored.is_conf_settled && stored.position.index > 0;
    let is_gone = is_known && !conf::has_member(&stored.conf, NodeId(id));
    is_gone.then(|| stored.position.place())
}

/// The term and the vote outlive everything else.
fn drop_log(node: &mut Node, range: GroupId) {
    let log = node.logs.entry(range).or_default();
    let HardState { term, vote, .. } = log.hard_state;
    *log = Default::default();
    log.hard_state = HardState { term, vote, commit: 0 };
}

fn range_of(rows: &MemoryView) -> GroupId {
    let holds = |range: &GroupId| Stored::load(rows, *range).expect("readable").is_some();
    RANGES.into_iter().find(holds).expect("a snapshot holds its range")
}

/// Memberships of a range by the place in its log from which on they hold.
pub(super) type Confs = BTreeMap<group::Position, crate::proto::internal::ConfState>;

/// The rows of the columns keyed by user key that a node with these replicas should have.
pub(super) fn rows_of(view: &MemoryView, scopes: &[Scope]) -> Vec<Write> {
    let mut rows = Vec::new();
    for column in [Column::Key, Column::Revision, Column::History, Column::LeaseKey] {
        for (key, value) in view.rows(column) {
            if scopes.iter().any(|scope| scope.holds(column, key, value).expect("our own")) {
                rows.push(Write::Put(column, key.clone(), value.clone()));
            }
        }
    }
    rows
}
