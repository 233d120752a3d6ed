//! The node: actors that drive the machines of `flotilla_core`, and the outside world around them.
//!
//! Read `start` for the wiring, then follow a request down: `api` → `router` → `range` → `wal`,
//! `store`, `watch`, `peer`.

pub mod config;
pub mod io;
pub mod router;
pub mod store;
pub mod wal;
