//! Changes of the cluster's members, and the rules that keep its quorum.

pub mod check;
pub mod identity;
pub mod url;

pub use check::{Policy, Reach};
