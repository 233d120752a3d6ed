//! Finding out whether a cluster keeps its promises: histories, the model they are compared with,
//! the checks that judge them, a deterministic simulator that produces them, and a harness that
//! takes them from real processes.

pub mod check;
pub mod history;
pub mod model;
#[cfg(feature = "mutants")]
pub mod mutants;
pub mod process;
pub mod sim;
pub mod traffic;
