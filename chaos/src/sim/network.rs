//! The wires: for each direction of each pair of nodes a connection with a queue in front of it.
//! Every message goes through its encoding. Frames take time, get lost, are repeated, overtake
//! each other or are damaged as the plan wants; a cut keeps them until it heals or the connection
//! is given up.

use std::collections::BTreeSet;
use std::mem;

use bytes::{BufMut, Bytes, BytesMut};
use flotilla_core::NodeId;
use flotilla_core::proto::internal::{Forward, PeerFrame};
use flotilla_core::spine::{Input, Parcel};
use prost::Message;

use super::event::{Event, NodeEvent, Report};
use super::node::Link;
use super::plan::MS;
use super::reduction::Part;
use super::world::World;

/// Frames that may wait for a connection.
const QUEUE_FRAMES_MAX: usize = 64;
/// Frames that a network keeps which does not get through.
const HELD_FRAMES_MAX: usize = 4;
/// Pause before another attempt to connect, in microseconds.
const DIAL_MEAN: u64 = 50 * MS;

/// A frame with its checksum.
pub(super) fn seal(content: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(content.len() + 4);
    bytes.put_u32_le(crc32c::crc32c(content));
    bytes.put_slice(content);
    bytes.freeze()
}

/// The content of a frame, unless it is damaged.
fn open(bytes: &Bytes) -> Option<Bytes> {
    let (head, content) = bytes.split_first_chunk::<4>()?;
    (crc32c::crc32c(content) == u32::from_le_bytes(*head)).then(|| bytes.slice(4..))
}

impl World {
    /// Connects a node to these, and lets go of those that were removed. Who has greeted it without
    /// being known as a member is answered.
    pub(super) fn set_members(&mut self, id: u64, members: &[u64], removed: &BTreeSet<u64>) {
        // A node that knows of nobody yet keeps the peers it was told of.
        if members.is_empty() {
            return;
        }
        let running = self.up(id);
        running.guests.retain(|peer| !removed.contains(peer) && !members.contains(peer));
        let guests = &running.guests;
        let dropped = &mut running.dropped;
        running.links.retain(|peer, _| {
            let is_kept = members.contains(peer) || guests.contains(peer);
            if !is_kept {
                dropped.push(*peer);
            }
            is_kept
        });
        for peer in members {
            self.link(id, *peer);
        }
        self.hang_up_on(id, removed);
    }

    /// Who was removed connects again, and hears why that is refused. On a machine the next probe of a
    /// connection does it, whether there is something to say or not.
    fn hang_up_on(&mut self, id: u64, removed: &BTreeSet<u64>) {
        for peer in removed {
            let node = self.nodes.get(peer).and_then(|node| node.running.as_ref());
            let link = node.and_then(|running| running.links.get(&id));
            if let Some(Link { is_up: true, connection, .. }) = link {
                self.break_link(*peer, id, *connection);
            }
        }
    }

    pub(super) fn link(&mut self, id: u64, peer: u64) {
        if peer != id && !self.up(id).links.contains_key(&peer) {
            self.up(id).links.insert(peer, Link::default());
            self.on_node(id, 0, NodeEvent::Dial(peer));
        }
    }

    pub(super) fn gather(&mut self, id: u64, to: u64, parcel: Parcel) {
        let Some(link) = self.up(id).links.get_mut(&to) else {
            if let Parcel::Forward(forward) = parcel {
                self.up(id).unsent.push(forward);
            }
            return;
        };
        parcel.gather(&mut link.gathering);
    }

    /// Queues what was gathered for every peer.
    pub(super) fn flush_links(&mut self, id: u64) {
        let Some(running) = self.running(id) else { return };
        let mut ready = Vec::new();
        let nothing = PeerFrame::default();
        for (to, link) in &mut running.links {
            if link.gathering == nothing {
                continue;
            }
            let frame = mem::take(&mut link.gathering);
            if !link.is_up || link.queue.len() >= QUEUE_FRAMES_MAX {
                running.unsent.extend(frame.forwards);
                continue;
            }
            link.queue.push_back(frame);
            if !mem::replace(&mut link.is_write_planned, true) {
                ready.push(*to);
            }
        }
        for to in ready {
            let wait = self.chance.below(100);
            self.on_node(id, wait, NodeEvent::Write(to));
        }
    }

    pub(super) fn is_cut(&self, from: u64, to: u64) -> bool {
        self.cuts.values().any(|cut| cut.is_between(from, to))
    }

    pub(super) fn on_dial(&mut self, id: u64, to: u64) {
        if self.up(id).links.get(&to).is_none_or(|link| link.is_up) {
            return;
        }
        let peer = self.nodes.get(&to).filter(|peer| peer.running.is_some());
        let peer_life = peer.filter(|peer| peer.paused_until <= self.now).map(|peer| peer.life);
        let is_reachable = !self.is_cut(id, to) && !self.is_cut(to, id);
        let Some(life) = peer_life.filter(|_| is_reachable) else {
            let wait = MS + self.chance.wait(DIAL_MEAN);
            self.on_node(id, wait, NodeEvent::Dial(to));
            return;
        };
        if self.up(to).replica.state().is_removed(NodeId(id)) {
            self.see("removed member told so");
            self.on_removed(id);
            return;
        }
        if !self.up(to).links.contains_key(&id) {
            self.see("stranger answered");
            self.up(to).guests.insert(id);
            self.link(to, id);
        }
        let now = self.now;
        let link = self.up(id).links.get_mut(&to).expect("looked up above");
        let connection = link.connection + 1;
        *link = Link {
            is_up: true,
            connection,
            peer_life: life,
            last_arrival: now,
            gathering: mem::take(&mut link.gathering),
            ..Link::default()
        };
        self.report(id, Report::Connected(to));
    }

    pub(super) fn on_write(&mut self, id: u64, to: u64) {
        let is_cut = self.is_cut(id, to);
        let Some(link) = self.up(id).links.get_mut(&to) else { return };
        link.is_write_planned = false;
        if !link.is_up {
            return;
        }
        if is_cut {
            self.write_into_cut(id, to);
            return;
        }
        let held = mem::take(&mut link.held);
        link.is_break_planned = false;
        let frames = mem::take(&mut link.queue);
        for bytes in held {
            self.send_bytes(id, to, bytes, false);
        }
        for frame in frames {
            // Consensus bears repetition and any order; requests rely on a stream that has neither.
            let is_robust = frame.forwards.is_empty() && frame.answers.is_empty();
            self.send_bytes(id, to, seal(&frame.encode_to_vec()), is_robust);
        }
    }

    /// The network takes a few frames and keeps them; the rest stays in the node.
    fn write_into_cut(&mut self, id: u64, to: u64) {
        let link = self.up(id).links.get_mut(&to).expect("looked up before");
        while link.held.len() < HELD_FRAMES_MAX
            && let Some(frame) = link.queue.pop_front()
        {
            link.held.push_back(seal(&frame.encode_to_vec()));
        }
        let connection = link.connection;
        link.is_write_planned = true;
        let is_new = !mem::replace(&mut link.is_break_planned, true);
        self.on_node(id, 20 * MS, NodeEvent::Write(to));
        if is_new {
            let wait = self.chance.wait(self.plan.election());
            self.on_node(id, wait, NodeEvent::Broken(to, connection));
        }
    }

    fn send_bytes(&mut self, id: u64, to: u64, bytes: Bytes, is_robust: bool) {
        let network = self.plan.network.clone();
        let is_calm = self.phase > super::world::Phase::Trouble;
        let mut is_so = |share: u64, part: Part| {
            !is_calm && share > 0 && self.chance.happens(share) && self.reduction.has(part)
        };
        if is_so(network.loss, Part::Loss) {
            self.see("frame lost");
            return;
        }
        let is_repeated = is_robust && is_so(network.repeat, Part::Repeat);
        let is_overtaking = is_robust && is_so(network.overtake, Part::Overtake);
        let bytes = if is_so(network.flip, Part::Flip) { self.flip_bit(&bytes) } else { bytes };
        for _ in 0..=u32::from(is_repeated) {
            let wait = 1 + self.chance.wait(network.delay_mean);
            let (now, life) = (self.now, self.nodes[&id].life);
            let link = self.up(id).links.get_mut(&to).expect("frames are sent on a link");
            let mut at = now + wait;
            if !is_overtaking {
                at = at.max(link.last_arrival);
                link.last_arrival = at;
            }
            let (connection, peer_life) = (link.connection, link.peer_life);
            let event = NodeEvent::Frame { from: id, life, connection, bytes: bytes.clone() };
            self.queue.push(at, Event::Node(to, peer_life, event));
        }
    }

    fn flip_bit(&mut self, bytes: &Bytes) -> Bytes {
        self.see("bit flipped");
        let mut bytes = bytes.to_vec();
        let bit = self.chance.below(bytes.len() as u64 * 8);
        let at = usize::try_from(bit / 8).expect("within the frame");
        bytes[at] ^= 1 << (bit % 8);
        bytes.into()
    }

    pub(super) fn on_frame(
        &mut self,
        id: u64,
        from: u64,
        life: u32,
        connection: u64,
        bytes: &Bytes,
    ) {
        let name = (from, life, connection);
        if self.up(id).dead_connections.contains(&name) {
            return;
        }
        let is_current = connection == u64::MAX
            || self.nodes.get(&from).is_some_and(|node| {
                let link = node.running.as_ref().and_then(|running| running.links.get(&id));
                node.life == life && link.is_some_and(|link| link.connection == connection)
            });
        // What was under way when a connection broke may still arrive, up to some point.
        if !is_current && self.chance.one_in(2) {
            self.up(id).dead_connections.insert(name);
            return;
        }
        if self.up(id).replica.state().is_removed(NodeId(from)) {
            // It hears the reason when it connects again.
            self.up(id).dead_connections.insert(name);
            self.break_link(from, id, connection);
            return;
        }
        let frame = open(bytes).and_then(|content| PeerFrame::decode(content).ok());
        let Some(frame) = frame else {
            self.up(id).dead_connections.insert(name);
            self.break_link(from, id, connection);
            return;
        };
        self.trace.bytes(&bytes[..4]);
        self.step(id, Input::Frame(NodeId(from), frame));
    }

    /// The connection breaks, and its owner finds out soon.
    pub(super) fn break_link(&mut self, from: u64, to: u64, connection: u64) {
        if self.nodes.get(&from).is_some_and(|node| node.running.is_some()) {
            let wait = self.chance.wait(MS);
            self.on_node(from, wait, NodeEvent::Broken(to, connection));
        }
    }

    pub(super) fn on_broken(&mut self, id: u64, to: u64, connection: u64) {
        if to == 0 {
            // A node that was removed stops.
            self.crash(id);
            return;
        }
        let Some(link) = self.up(id).links.get_mut(&to) else { return };
        // A cut that healed in time leaves the connection alone.
        let is_stale = !link.is_up || link.connection != connection;
        if is_stale {
            return;
        }
        link.is_up = false;
        link.held.clear();
        let unsent: Vec<Forward> =
            mem::take(&mut link.queue).into_iter().flat_map(|frame| frame.forwards).collect();
        self.see("connection broken");
        self.report(id, Report::Disconnected(to, unsent));
        let wait = MS + self.chance.wait(DIAL_MEAN);
        self.on_node(id, wait, NodeEvent::Dial(to));
    }
}
