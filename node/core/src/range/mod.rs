//! A range beside range 0 on one of its nodes: `replica` is its machine, `numbering` how its writes
//! were numbered, `stored` what the store keeps of it, `frontier` how far a node that holds ranges
//! may show its state. `latch` is range 0's as well: a request is evaluated only under latches on
//! everything it reads and writes, and keeps them until its write is numbered and applied (I5).

pub mod frontier;
pub mod latch;
pub mod lock;
pub mod numbering;
pub mod replica;
pub mod run;
pub mod stored;
pub mod tell;

pub use replica::Replica;
pub use tell::Tell;

pub use latch::{Footprint, Latches, Mode, Point};
