//! The worker's end of watching: a hub takes the applied batches and the messages of its streams,
//! and queues what each client is sent. Which event goes to whom is decided in the core.

mod block;
mod hub;
mod inbox;

pub use hub::{Hub, Opened};
pub use inbox::{HubHandle, HubReceiver};
