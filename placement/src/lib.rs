//! Which node should hold and lead what, which range to split or merge: pure decisions over a
//! survey of the cluster, one rule per file. Nothing here does IO, reads a clock or draws a number:
//! equal surveys give equal plans.
//!
//! `plan` is called again and again on the spine's leader and remembers nothing: a move of several
//! steps is continued from what the next survey shows (`rules::finish_moves` lists the states in
//! between), so a new leader goes on where the old one stopped. Every step is checked before it is
//! planned; whoever carries it out runs `check` once more, against what it knows by then.

pub mod check;
pub mod plan;
pub mod policy;
pub mod rehearse;
pub mod rules;
pub mod script;
pub mod survey;
pub mod units;

mod count;
mod foresee;
mod keep;
mod solve;
mod weigh;

pub use check::{Refusal, check};
pub use plan::{About, Complaint, Decision, Plan, Rule, Step};
pub use policy::Policy;
pub use rules::hand_over::{Successor, successor};
pub use solve::plan;
pub use survey::{Load, Node, ROOT, Range, Replica, Spine, Survey};
