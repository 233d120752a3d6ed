//! Every decision of a node, with no IO.
//!
//! Machines take inputs, the time and, where needed, a read window on the applied state, and
//! return effects. Nothing here opens a file, reads a clock, draws a random number or starts a
//! thread; the manifest and `.clippy.toml` prove it. The process drives the machines in
//! production, the simulator drives the same machines under test.

pub mod memory;
pub mod time;
pub mod view;

pub mod command;
pub mod error;
pub mod mutant;

pub mod auth;
pub mod corruption;
pub mod group;
pub mod image;
pub mod lease;
pub mod load;
pub mod membership;
pub mod mvcc;
pub mod range;
pub mod recover;
pub mod remote;
pub mod snapshot;
pub mod spine;
pub mod stage;
pub mod txn;
pub mod verify;
pub mod watch;

#[cfg(test)]
mod fuzz;

pub use error::Error;
pub use flotilla_proto as proto;
pub use flotilla_proto::ids::{GroupId, LeaseId, NodeId};
pub use time::Time;
