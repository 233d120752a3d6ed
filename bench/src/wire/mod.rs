//! A lean gRPC client: HTTP/2 frames, HPACK and calls, and no more than etcd's API needs.
//!
//! It exists so that the generator costs little beside the server it loads. It speaks cleartext
//! HTTP/2 only, keeps no more than one message of a call in memory, and never retries.

pub mod channel;
pub mod connection;
mod driver;
mod frame;
mod hpack;
mod huffman;
mod method;
mod status;

pub use channel::Channel;
pub use connection::{Connection, Options, Stream};
pub use method::Method;
pub use status::{Code, Status};
