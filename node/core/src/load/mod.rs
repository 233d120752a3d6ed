//! What is asked of a range, and what it holds, boiled down to the few numbers that placement goes
//! by. Pure and bounded; the node counts, scans and sends.

mod marks;
mod meter;
mod rate;
mod sample;

pub use marks::{MARKS_MAX, Marks};
pub use meter::Meter;
pub use rate::{Rate, SMOOTHED_OVER};
pub use sample::{KEYS_MAX, REMEMBERED_OVER, Reservoir, Sample};
