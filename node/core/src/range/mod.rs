//! One range on its leader: which requests may be evaluated at the same time.
//!
//! A request is evaluated only under latches on everything it reads and writes, and keeps them
//! until its write is numbered and applied (I5), so it always sees complete state.

pub mod frontier;
pub mod latch;
pub mod numbering;
pub mod replica;
pub mod run;
pub mod stored;

pub use replica::Replica;

pub use latch::{Footprint, Latches, Mode, Point};
