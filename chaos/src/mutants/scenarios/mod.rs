//! Interleavings that random seeds meet too seldom, constructed on the real machines. Each is an
//! ordinary story that ends well; with its bug planted it must not.

mod aborted_commit;
mod cut_under_writes;
mod lease_again;
mod left_of_a_merge;
mod merge_beside_a_laggard;
mod merge_without_notes;
mod past_compacted;
mod range_machine;
mod read_after_cut;
mod unheard_of_learner;

use std::panic::{AssertUnwindSafe, catch_unwind};

use flotilla_core::mutant::{self, Mutant};

pub use aborted_commit::aborted_commit;
pub use cut_under_writes::cut_under_writes;
pub use lease_again::lease_again;
pub use left_of_a_merge::left_of_a_merge;
pub use merge_beside_a_laggard::merge_beside_a_laggard;
pub use merge_without_notes::merge_without_notes;
pub use past_compacted::past_compacted;
pub use read_after_cut::read_after_cut;
pub use unheard_of_learner::unheard_of_learner;

use super::Scenario;
use crate::sim::{Class, Finding, text_of};

/// What a scenario's own check is called.
pub const CHECK: &str = "scenario";

/// Plays a scenario with a bug planted, or without one.
///
/// # Errors
/// What was found.
pub fn play(mutant: Option<Mutant>, scenario: Scenario) -> Result<(), Finding> {
    let _planted = mutant::plant(mutant);
    catch_unwind(AssertUnwindSafe(scenario)).unwrap_or_else(|panic| {
        Err(Finding { class: Class::Assertion(None), text: text_of(panic.as_ref()) })
    })
}

/// Something is not as it must be.
fn found(text: impl Into<String>) -> Result<(), Finding> {
    Err(Finding { class: Class::Promise(CHECK), text: text.into() })
}
