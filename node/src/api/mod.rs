//! etcd's gRPC API and the pages beside it, for the connections of one worker: check a request,
//! hand it to the router or read the store, fill in the header.
//!
//! Nothing is decided here that another node would have to agree with.

mod admin;
mod auth;
mod authority;
mod outgoing;
mod serve;
mod service;

mod budget;
mod guard;
mod method;
mod phases;
mod policy;

mod cluster;
mod health;
mod history;
mod kv;
mod lease;
mod maintenance;
mod others;
mod range_stream;
mod read;
mod snapshot;
mod watch;

mod election;
mod lock;
mod log_level;
mod queue;

mod exposition;
mod gateway;
mod http;

mod call;
mod codec;
mod context;
mod header;
mod inside;
mod once;
mod origin;
mod quota;
mod status;

#[cfg(test)]
mod tests;

pub use budget::Budget;
pub use context::Context;
pub use exposition::text as metrics_text;
pub use guard::Guard;
pub use http::without_port;
pub use maintenance::alarm_name;
pub use method::{Method, Streaming};
pub use origin::{Door, Origin};
pub use serve::serve;
