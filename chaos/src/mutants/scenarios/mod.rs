//! Interleavings that random seeds meet too seldom, constructed on the real machines. Each is an
//! ordinary story that ends well; with its bug planted it must not.

mod aborted_commit;
mod cut_under_writes;
mod range_machine;
mod read_after_cut;

use std::panic::{AssertUnwindSafe, catch_unwind};

use flotilla_core::mutant::{self, Mutant};

pub use aborted_commit::aborted_commit;
pub use cut_under_writes::cut_under_writes;
pub use read_after_cut::read_after_cut;

use super::Scenario;
use crate::sim::{Finding, text_of};

/// What a scenario's own check is called.
pub const CHECK: &str = "scenario";

/// Plays a scenario with a bug planted, or without one.
///
/// # Errors
/// What was found.
pub fn play(mutant: Option<Mutant>, scenario: Scenario) -> Result<(), Finding> {
    let _planted = mutant::plant(mutant);
    catch_unwind(AssertUnwindSafe(scenario))
        .unwrap_or_else(|panic| Err(Finding { check: "assertion", text: text_of(panic.as_ref()) }))
}

/// Something is not as it must be.
fn found(text: impl Into<String>) -> Result<(), Finding> {
    Err(Finding { check: CHECK, text: text.into() })
}
