//! Snapshots on their way from store to store, chunk by chunk, each through its encoding. They
//! break midway, and either end may fail to hear of the end.

use flotilla_core::memory::MemoryView;
use flotilla_core::proto::internal::{RaftMessage, SnapshotAck, SnapshotChunk, SnapshotHeader};
use flotilla_core::snapshot::{self, Receiver, Scope, Sender};
use flotilla_core::view::Batch;
use flotilla_core::{GroupId, NodeId, range};
use prost::Message;

use super::event::{NodeEvent, Report};
use super::node::Transfer;
use super::reduction::Part;
use super::world::World;

impl World {
    pub(super) fn send_snapshot(&mut self, id: u64, to: u64, message: RaftMessage) {
        self.see("snapshot begun");
        let view = self.nodes[&id].store.view.clone();
        let group = GroupId(message.group);
        let Ok(Some((mark, scope))) = snapshot::to_send(&view, group) else {
            // It is to take over another and has not come there yet.
            self.see("snapshot put off");
            self.snapshot_sent(id, group, to, false);
            return;
        };
        if group != GroupId::SPINE {
            self.see("snapshot of a range begun");
        }
        self.say(|| format!("node {id} sends {to} a snapshot of group {group} at {}", mark.index));
        let to_life = self.nodes.get(&to).map_or(0, |node| node.life);
        let limits = self.plan.snapshot_limits;
        let running = self.up(id);
        running.snapshots_count += 1;
        let number = running.snapshots_count;
        let transfer = Transfer {
            to,
            to_life,
            message,
            mark,
            view,
            sender: Sender::new(number, scope, limits),
            receiver: None,
            rows: MemoryView::new(),
        };
        running.snapshots.insert(number, transfer);
        self.plan_snapshot(id, number);
    }

    fn plan_snapshot(&mut self, id: u64, number: u64) {
        let wait = 1 + self.chance.wait(self.plan.network.delay_mean * 2);
        self.on_node(id, wait, NodeEvent::Snapshot(number));
    }

    pub(super) fn on_snapshot(&mut self, id: u64, number: u64) {
        let Some(mut transfer) = self.up(id).snapshots.remove(&number) else { return };
        let to = transfer.to;
        let fails_one_in = self.plan.snapshot_fails_one_in;
        let is_lost = self.phase == super::world::Phase::Trouble
            && self.chance.one_in(fails_one_in)
            && self.reduction.has(Part::FailedSnapshots);
        let is_there = self
            .nodes
            .get(&to)
            .is_some_and(|peer| peer.running.is_some() && peer.life == transfer.to_life);
        if is_lost || !is_there || self.is_cut(id, to) || self.is_cut(to, id) {
            self.say(|| format!("the snapshot from {id} to {to} fails"));
            self.see("snapshot failed");
            self.snapshot_sent(id, transfer.group(), to, false);
            return;
        }
        match self.carry_chunk(number, &mut transfer) {
            Ok(false) => {
                self.up(id).snapshots.insert(number, transfer);
                self.plan_snapshot(id, number);
            }
            Ok(true) => self.end_snapshot(id, transfer),
            Err(error) => {
                // The receiver knows of a cut that the sender did not know of.
                self.say(|| format!("a snapshot from {id} to {to}: {error}"));
                self.see("snapshot refused by its receiver");
                self.snapshot_sent(id, transfer.group(), to, false);
            }
        }
    }

    /// One chunk goes over and its acknowledgement comes back. True after the last.
    fn carry_chunk(&mut self, number: u64, transfer: &mut Transfer) -> Result<bool, String> {
        let limits = self.plan.snapshot_limits;
        let to = &self.nodes[&transfer.to];
        let Some(receiver) = transfer.receiver.as_mut() else {
            let header = SnapshotHeader {
                id: number,
                message: Some(transfer.message.clone()),
                mark: Some(transfer.mark.clone()),
            };
            let header = SnapshotHeader::decode(header.encode_to_vec().as_slice())
                .map_err(|error| error.to_string())?;
            let running = to.running.as_ref().ok_or("it is down")?;
            let runs = |range| running.ranges.contains_key(&range);
            let scope = Scope::to_receive(&to.store.view, transfer.group(), runs);
            let scope = scope.map_err(|error| error.to_string())?.ok_or("an unknown range")?;
            let receiver =
                Receiver::new(&header, scope, limits).map_err(|error| error.to_string())?;
            transfer.receiver = Some(receiver);
            return Ok(false);
        };
        let chunk = transfer.sender.next(&transfer.view).map_err(|error| error.to_string())?;
        let Some(chunk) = chunk else { return Ok(transfer.sender.is_finished()) };
        let chunk = SnapshotChunk::decode(chunk.encode_to_vec().as_slice())
            .map_err(|error| error.to_string())?;
        let received = receiver.on_chunk(chunk).map_err(|error| error.to_string())?;
        let mut batch = Batch::default();
        for row in received.rows {
            batch.put(row.column, row.key, row.value);
        }
        transfer.rows.apply(&batch);
        let ack = SnapshotAck::decode(received.ack.encode_to_vec().as_slice())
            .map_err(|error| error.to_string())?;
        transfer.sender.on_ack(&ack).map_err(|error| error.to_string())?;
        Ok(transfer.sender.is_finished())
    }

    fn end_snapshot(&mut self, id: u64, transfer: Transfer) {
        let group = transfer.group();
        let Transfer { to, message, mark, rows, .. } = transfer;
        let is_known = !self.chance.one_in(20);
        self.snapshot_sent(id, group, to, is_known);
        self.up(to).staged.insert(group, rows);
        match group {
            GroupId::SPINE => self.report(to, Report::SnapshotReceived(message, mark)),
            range => {
                self.mail(to, range, range::replica::Input::SnapshotReceived(message, mark));
            }
        }
    }

    fn snapshot_sent(&mut self, id: u64, group: GroupId, to: u64, is_ok: bool) {
        match group {
            GroupId::SPINE => self.report(id, Report::SnapshotSent(to, is_ok)),
            range => {
                let to = NodeId(to);
                self.mail(id, range, range::replica::Input::SnapshotSent(to, is_ok));
            }
        }
    }
}

impl Transfer {
    fn group(&self) -> GroupId {
        GroupId(self.message.group)
    }
}
