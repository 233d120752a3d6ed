//! The outside world as traits, so that tests can stand in for it. Owns the only calls that touch
//! files on behalf of the log; never decides what an error means.

mod disk;
#[cfg(test)]
pub(crate) mod fake_disk;
mod read_only;

pub use disk::{Disk, File, RealDisk};
pub use read_only::ReadOnlyDisk;
