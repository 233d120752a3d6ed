//! Feeds decoders with input that nobody would send in good faith. `edit` damages valid bytes,
//! `message` makes valid messages of any shape, `Target` runs a property over many inputs and holds
//! each of them to a limit of memory and of time. For tests alone; docs/fuzzing.md has the table of
//! targets and how to run one for long.

mod edit;
mod message;
mod target;

pub use edit::{Edit, apply, bytes, damaged, edits, number, signed};
pub use message::Messages;
pub use target::Target;
