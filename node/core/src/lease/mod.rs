//! The leader's book of leases: when each ends, and what is due.
//!
//! Which leases exist is the spine's state; the book is volatile and kept by the leader alone.

mod book;

pub use book::{Book, Renewal, effective_ttl};
