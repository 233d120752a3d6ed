//! What was seen of a run: the operations of the clients, the content of every revision, what
//! watchers were sent, the hashes of the replicas. Owns the shape of these records; judges
//! nothing.

mod event;
mod evidence;
mod operation;
mod print;
mod replica;
mod watch;

pub use event::{Event, MalformedEvent, print_pair};
pub use evidence::{Conflict, Evidence};
pub use operation::{Answer, ClientId, Code, Operation, Outcome, Refused, Request, Stamp};
pub use replica::ReplicaHash;
pub use watch::{Received, WatchRecord};

/// The revision of a store that was never written. Every history starts there.
pub const EMPTY_STORE_REVISION: i64 = 1;

/// Everything that is known of one run on a store that was empty at its start.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// In any order. An operation is named by its place in this list.
    pub operations: Vec<Operation>,
    /// The content of every revision.
    pub evidence: Evidence,
    /// In any order. A watcher is named by its place in this list.
    pub watches: Vec<WatchRecord>,
    /// In any order.
    pub hashes: Vec<ReplicaHash>,
}
