//! Bytes from a disk, a peer or a client, damaged on purpose: what reads them answers with a value or
//! an error. One file for each decoder; docs/fuzzing.md has the table.

mod commands;
mod image;
mod increment;
mod messages;
mod rows;
mod snapshots;
mod state;

use flotilla_fuzz::Messages;

/// The messages of all .proto files.
pub(crate) fn messages() -> Messages {
    Messages::new(crate::proto::DESCRIPTOR_SET)
}
