//! Node to node: one stream to each peer carries the messages of all groups in frames, batched and
//! bounded; snapshots travel beside it on connections of their own.
//!
//! A connection begins as HTTP/1.1 on the peer URL, beside `/members` and `/version`, and is then
//! upgraded to frames. Loss of messages is allowed, wrong order and damage are not.

mod dial;
mod frame;
mod link;
mod listen;
mod members;
mod snapshot;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use flotilla_core::NodeId;
use flotilla_core::proto::internal::{Forward, Member, RaftMessage};
use flotilla_core::spine::Parcel;
use tokio::sync::mpsc;

pub use frame::FRAME_BYTES_MAX;
pub use listen::{Listener, serve};
pub use members::{RemoteMembers, fetch};

use crate::range::Completion;
use crate::router::Board;
use crate::store::Store;
use link::Link;

/// Version of the frames; peers of another one are refused.
pub const PROTOCOL: u32 = 1;
/// The name of the upgraded protocol.
pub const STREAM: &str = "flotilla-peer";
/// The name of the upgraded protocol for snapshots.
pub const SNAPSHOT: &str = "flotilla-snapshot";
/// Frames that may wait for one peer; what comes then is gathered into the next.
const QUEUE_FRAMES_MAX: usize = 256;

/// Who this node is to its peers.
#[derive(Debug)]
pub struct Identity {
    /// This node.
    pub node: NodeId,
    /// Its cluster; 0 while a joining node does not know.
    pub cluster_id: AtomicU64,
}

/// The connections to all peers. Lives on the thread of the spine's actor.
pub struct Peers {
    identity: Arc<Identity>,
    board: Arc<Board>,
    store: Store,
    completions: mpsc::Sender<Completion>,
    links: BTreeMap<NodeId, Link>,
    /// Forwards that could not be queued.
    unsent: Vec<Forward>,
    snapshots_count: u64,
}

impl Peers {
    /// No connections yet.
    pub fn new(
        identity: Arc<Identity>,
        board: Arc<Board>,
        store: Store,
        completions: mpsc::Sender<Completion>,
    ) -> Self {
        Self {
            identity,
            board,
            store,
            completions,
            links: BTreeMap::new(),
            unsent: Vec::new(),
            snapshots_count: 0,
        }
    }

    /// Connects to these members and lets go of all others. Must be called on the actor's thread.
    pub fn set_members(&mut self, members: &[Member]) {
        let me = self.identity.node;
        let wanted: BTreeMap<NodeId, &Member> = members
            .iter()
            .map(|member| (NodeId(member.id), member))
            .filter(|(node, _)| *node != me)
            .collect();
        self.links.retain(|node, link| {
            wanted.get(node).is_some_and(|member| link.urls() == member.peer_urls)
        });
        for (node, member) in wanted {
            self.links.entry(node).or_insert_with(|| {
                Link::open(
                    node,
                    member.peer_urls.clone(),
                    self.identity.clone(),
                    self.completions.clone(),
                )
            });
        }
    }

    /// Adds a message to the next frame for a peer.
    pub fn gather(&mut self, to: NodeId, parcel: Parcel) {
        let Some(link) = self.links.get_mut(&to) else {
            if let Parcel::Forward(forward) = parcel {
                self.unsent.push(forward);
            }
            return;
        };
        let frame = link.gathering();
        match parcel {
            Parcel::Raft(message) => frame.raft.push(message),
            Parcel::Forward(forward) => frame.forwards.push(forward),
            Parcel::Answer(answer) => frame.answers.push(answer),
        }
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

    /// Streams the store to a peer; the end is reported as a completion.
    pub fn send_snapshot(&mut self, to: NodeId, message: RaftMessage) {
        self.snapshots_count += 1;
        let id = self.snapshots_count;
        let urls = self.links.get(&to).map(|link| link.urls().to_vec()).unwrap_or_default();
        let (identity, store) = (self.identity.clone(), self.store.clone());
        let completions = self.completions.clone();
        tracing::info!(%to, "sending a snapshot");
        actix::spawn(async move {
            let result = snapshot::send(id, to, &urls, &identity, store, message).await;
            match &result {
                Ok(bytes) => tracing::info!(%to, bytes, "sent a snapshot"),
                Err(error) => tracing::warn!(%to, %error, "a snapshot was not sent"),
            }
            // The actor ends only with the process.
            let _ = completions.send(Completion::SnapshotSent(to, result.is_ok())).await;
        });
    }

    /// What this node publishes about itself.
    pub fn board(&self) -> &Arc<Board> {
        &self.board
    }
}
