//! The history checker. It needs no search: an etcd answer names the revision it belongs to, so
//! the order of everything is observed. Each promise is one file; [`judge`] runs them all.
//!
//! An operation that made revision R sits at (R, 0), one that changed nothing at (R, 1). Each
//! revision is given to one operation, replayed on the model, and the order is compared with
//! real time once. It passes what is proven by evidence and guesses nothing.

pub mod answers;
pub mod attribution;
pub mod case;
pub mod compaction;
mod judge;
pub mod lease;
pub mod reads;
pub mod real_time;
pub mod refusals;
pub mod replicas;
pub mod revisions;
pub mod rules;
pub mod sight;
mod unknown_writes;
mod violation;
pub mod watch;
pub mod well_formed;

pub use case::{Case, Place};
pub use judge::{Invalid, Summary, Verdict, judge};
pub use rules::{LeaseTime, Rules};
pub use violation::{Subject, Violation};

#[cfg(test)]
mod tests;
