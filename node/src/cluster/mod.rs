//! Becoming and staying a member: the first start, joining, beginning with a backup, and announcing
//! oneself.

pub mod announce;
pub mod auto_compact;
pub mod bootstrap;
pub mod discovery;
mod restore;

pub use bootstrap::{Bootstrapped, bootstrap, identity, refuse_lost_log};
pub use restore::{Restored, restore};
