//! What placement decided of late, and what became of it. Records of the spine, so that a decision is
//! known on every node before it has an effect, and after its leader is gone. Nothing goes by them.

use std::collections::VecDeque;

use prost::Message;

use crate::proto::internal::{Decision, DecisionOutcome};

/// Decisions remembered; the oldest goes first.
pub const DECISIONS_MAX: usize = 256;
/// Bytes of one decision.
pub const DECISION_BYTES_MAX: usize = 4 << 10;

/// Decisions by rising number, without holes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decisions(VecDeque<(u64, Decision)>);

impl Decisions {
    /// Oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Decision> {
        self.0.iter().map(|(_, decision)| decision)
    }

    /// Remembers a decision. Answers its number and those of what is forgotten for it.
    pub(super) fn add(&mut self, decision: Decision) -> (u64, Vec<u64>) {
        let number = self.0.back().map_or(0, |(number, _)| number + 1);
        self.0.push_back((number, decision));
        let forgotten = self.0.len().saturating_sub(DECISIONS_MAX);
        (number, self.0.drain(..forgotten).map(|(number, _)| number).collect())
    }

    /// Takes the outcome of a decision that has none. Answers the decision and its number, if it is
    /// still remembered.
    pub(super) fn conclude(&mut self, outcome: &DecisionOutcome) -> Option<(u64, &Decision)> {
        let is_meant = |it: &&mut (u64, Decision)| it.1.id == outcome.id && it.1.outcome.is_empty();
        let (number, decision) = self.0.iter_mut().find(is_meant)?;
        decision.outcome.clone_from(&outcome.outcome);
        Some((*number, decision))
    }

    /// Takes a stored row; rows come by rising number. `None` when it is damaged.
    pub(super) fn decode(&mut self, number: u64, row: &[u8]) -> Option<()> {
        self.0.push_back((number, Decision::decode(row).ok()?));
        Some(())
    }
}
