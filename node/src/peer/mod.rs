//! Node to node: one stream to each peer carries the messages of all groups in frames, batched and
//! bounded; snapshots travel beside it on connections of their own.
//!
//! A connection begins as HTTP/1.1 on the peer URL, beside `/members`, `/members/hashkv`,
//! `/members/view` and `/version`, and is then upgraded to frames. Loss of messages is allowed, wrong
//! order and damage are not.

mod dial;
mod frame;
#[cfg(test)]
mod fuzz;
mod hash;
mod link;
mod listen;
mod members;
mod snapshot;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flotilla_core::proto::internal::{
    Forward, Member, PeerFrame, PeerHello, RaftMessage, SnapshotMark,
};
use flotilla_core::spine::Parcel;
use flotilla_core::{GroupId, NodeId};
use tokio::sync::mpsc;

pub use frame::FRAME_BYTES_MAX;
pub use hash::{checksum, fetch_checksum};
pub use listen::{Listener, Runs, Socket, serve, turn_away};
pub use members::{RemoteMembers, fetch};
pub use view::{Tell, fetch_view};

use crate::metrics::peers::{SnapshotMeter, SnapshotWay};
use crate::router::Board;
use crate::store::{Sealed, Store};
use crate::tls::Connector;
use link::Link;

/// Version of the frames; peers of another one are refused.
pub const PROTOCOL: u32 = 1;
/// The name of the upgraded protocol.
pub const STREAM: &str = "flotilla-peer";
/// The name of the upgraded protocol for snapshots.
pub const SNAPSHOT: &str = "flotilla-snapshot";
/// Frames that may wait for one peer; what comes then is gathered into the next.
const QUEUE_FRAMES_MAX: usize = 256;

/// Peers that are no members as far as this node knows, yet are answered.
const GUESTS_MAX: usize = 16;
/// Events that may wait for the actor; beyond it connections are not read.
pub const EVENTS_MAX: usize = 4_096;

/// What peers and the connections to them tell the actor.
pub enum Event {
    /// From a peer.
    Frame(NodeId, PeerFrame),
    /// There is a live connection to this peer.
    Connected(NodeId),
    /// It is gone, and these forwards were not sent.
    Disconnected(NodeId, Vec<Forward>),
    /// A peer has connected to this node, and says where it is reached.
    Greeted(NodeId, Vec<String>),
    /// A member says that this node was removed from the cluster.
    Removed,
    /// A snapshot has arrived.
    SnapshotReceived(RaftMessage, SnapshotMark, Sealed),
    /// A peer has taken a snapshot, or not.
    SnapshotSent(GroupId, NodeId, bool),
}

/// How this node introduces itself.
fn hello(board: &Board, to: NodeId) -> PeerHello {
    let me = board.member_id();
    let member = board.notice().members.into_iter().find(|member| member.id == me);
    PeerHello {
        protocol: PROTOCOL,
        cluster_id: board.cluster_id(),
        from: me,
        to: to.0,
        peer_urls: member.map(|member| member.peer_urls).unwrap_or_default(),
        is_removed: false,
    }
}

/// The connections to all peers. Lives on the thread of the spine's actor.
pub struct Peers {
    tls: Connector,
    board: Arc<Board>,
    store: Store,
    events: mpsc::Sender<Event>,
    links: BTreeMap<NodeId, Link>,
    /// Those of the links that lead to no known member.
    guests: BTreeSet<NodeId>,
    /// Forwards that could not be queued.
    unsent: Vec<Forward>,
    /// Peers whose connection was given up here.
    dropped: Vec<NodeId>,
    snapshots_count: u64,
}

impl Peers {
    /// No connections yet.
    pub fn new(
        tls: Connector,
        board: Arc<Board>,
        store: Store,
        events: mpsc::Sender<Event>,
    ) -> Self {
        Self {
            tls,
            board,
            store,
            events,
            links: BTreeMap::new(),
            guests: BTreeSet::new(),
            unsent: Vec::new(),
            dropped: Vec::new(),
            snapshots_count: 0,
        }
    }

    /// Connects to these members, and lets go of those that were removed and of members that have
    /// moved. Must be called on the actor's thread.
    pub fn set_members(&mut self, members: &[Member], removed: &BTreeSet<u64>) {
        let me = NodeId(self.board.member_id());
        let wanted: BTreeMap<NodeId, &Member> = members
            .iter()
            .map(|member| (NodeId(member.id), member))
            .filter(|(node, _)| *node != me)
            .collect();
        self.guests.retain(|node| !removed.contains(&node.0) && !wanted.contains_key(node));
        let guests = &self.guests;
        let dropped = &mut self.dropped;
        self.links.retain(|node, link| {
            let is_kept = match wanted.get(node) {
                Some(member) => link.urls() == member.peer_urls,
                None => guests.contains(node),
            };
            if !is_kept {
                dropped.push(*node);
            }
            is_kept
        });
        for (node, member) in wanted {
            self.open(node, &member.peer_urls);
        }
    }

    /// Someone of this cluster who is no member as far as this node knows: it may have missed the
    /// change that added the present leader, and can catch up only by answering it.
    pub fn greeted(&mut self, node: NodeId, urls: Vec<String>) {
        let is_known = self.links.contains_key(&node) || node.0 == self.board.member_id();
        if is_known || urls.is_empty() {
            return;
        }
        if self.guests.len() >= GUESTS_MAX {
            tracing::warn!(%node, limit = GUESTS_MAX, "too many peers that are no members: one is not answered");
            return;
        }
        self.guests.insert(node);
        self.open(node, &urls);
    }

    fn open(&mut self, node: NodeId, urls: &[String]) {
        self.links.entry(node).or_insert_with(|| {
            let (board, events) = (self.board.clone(), self.events.clone());
            Link::open(node, urls.to_vec(), self.tls.clone(), board, events)
        });
    }

    /// Adds a message to the next frame for a peer.
    pub fn gather(&mut self, to: NodeId, parcel: Parcel) {
        let Some(link) = self.links.get_mut(&to) else {
            if let Parcel::Forward(forward) = parcel {
                self.unsent.push(forward);
            }
            return;
        };
        parcel.gather(link.gathering());
    }

    /// Sends one message at once.
    pub fn send_one(&mut self, to: NodeId, parcel: Parcel) {
        self.gather(to, parcel);
        self.flush();
    }

    /// Sends what was gathered.
    pub fn flush(&mut self) {
        for link in self.links.values_mut() {
            self.unsent.extend(link.flush());
        }
    }

    /// Forwards that never left this node, since the last call.
    pub fn take_unsent(&mut self) -> Vec<Forward> {
        std::mem::take(&mut self.unsent)
    }

    /// Peers whose connection was given up here since the last call: what was sent to them may have
    /// arrived, and no answer will come.
    pub fn take_dropped(&mut self) -> Vec<NodeId> {
        std::mem::take(&mut self.dropped)
    }

    /// Streams what the store has of the message's group to a peer; the end is reported as a completion.
    pub fn send_snapshot(&mut self, to: NodeId, message: RaftMessage) {
        self.snapshots_count += 1;
        let id = self.snapshots_count;
        let urls = self.links.get(&to).map(|link| link.urls().to_vec()).unwrap_or_default();
        let (board, store) = (self.board.clone(), self.store.clone());
        let (tls, events) = (self.tls.clone(), self.events.clone());
        tracing::info!(%to, "sending a snapshot");
        let group = GroupId(message.group);
        actix::spawn(async move {
            let meter = SnapshotMeter::begin(SnapshotWay::To(to.0));
            let result = snapshot::send(id, to, &tls, &urls, &board, store, message).await;
            match &result {
                Ok(bytes) => {
                    meter.arrived();
                    tracing::info!(%to, bytes, "sent a snapshot");
                }
                Err(error) => tracing::warn!(%to, %error, "a snapshot was not sent"),
            }
            // The actor ends only with the process.
            let _ = events.send(Event::SnapshotSent(group, to, result.is_ok())).await;
        });
    }
}
