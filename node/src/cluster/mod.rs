//! Becoming and staying a member: the first start, joining, and announcing oneself.

pub mod announce;
pub mod auto_compact;
pub mod bootstrap;

pub use bootstrap::{Bootstrapped, bootstrap, identity, refuse_lost_log};
