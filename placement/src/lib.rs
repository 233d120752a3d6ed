//! Which node should lead and hold what: pure decisions over a survey of the cluster, one rule per
//! file. Nothing here does IO, reads a clock or draws a number.

pub mod rules;

pub use rules::hand_over::{Successor, successor};
