//! Finding out whether a cluster keeps its promises: histories, the model they are compared with,
//! the checks that judge them, and a deterministic simulator that produces them.

pub mod check;
pub mod history;
pub mod model;
#[cfg(feature = "mutants")]
pub mod mutants;
pub mod sim;
