//! Which watcher is sent which event, and when (etcd-compatible Watch).
//!
//! Each worker has one `Hub` for the streams that live on it. The applied batches reach every hub
//! in revision order; what a hub cannot take as it is published, it reads from the history later:
//! a watcher that starts in the past, a stream whose client is slow, a hub that missed a batch, or
//! that was told of one without its events because the node does not show all keys.
//! A cursor is a revision, so nothing is sent twice and nothing is left out. Who may watch which
//! keys is decided before a request comes here.

mod hub;
mod limits;
mod live;

mod block;
mod catch_up;
mod progress;

mod event;
mod frontier;
mod gather;
mod index;
mod response;
mod slab;
mod span_tree;
mod stream;
mod watcher;

pub use block::{Block, BlockRequest};
pub use event::Event;
pub use hub::{
    Config, Counts, Effect, Hub, Input, PROGRESS_INTERVAL, PROGRESS_INTERVAL_MIN, Published,
    StreamId,
};
pub use limits::{Limits, MESSAGE_SLACK_BYTES};
pub use progress::LEADERLESS_TIMEOUTS;
pub use response::{NO_WATCHER, OVERHEAD_BYTES, Response};

#[cfg(test)]
mod tests;
