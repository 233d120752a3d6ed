//! When a replica needs no ticks: its group sleeps, and nothing that is its own waits for time.

use crate::group::Part;
use crate::range::replica::Replica;
use crate::range::replica::member::CatchUp;

impl Replica {
    /// Whether time matters here. A replica that needs no ticks may be given some. To be asked after
    /// every step.
    pub fn needs_ticks(&self) -> bool {
        !(self.group.is_asleep() && self.is_idle())
    }

    /// Nothing is under way, and nothing is to be told or asked again.
    pub(super) fn is_idle(&self) -> bool {
        let is_joined = self.staged.is_empty()
            && self.applied.index == self.joined.index
            && self.installing.is_none()
            && self.catch_up == CatchUp::Done;
        is_joined && (self.role.part != Part::Leader || self.has_led_all())
    }

    /// A leader has done all that falls to it.
    fn has_led_all(&self) -> bool {
        // What an earlier leadership has proposed is only remembered.
        let is_proposing = self.proposed.values().any(|proposed| proposed.guard.is_some());
        let is_written = self.writes.is_empty()
            && self.prepares.is_empty()
            && self.resolves.is_empty()
            && self.parked.is_empty()
            && self.waiting.is_empty()
            && !is_proposing
            && self.unapplied.is_empty()
            && self.tickets.is_empty();
        let is_resolved = self.wanted.is_empty()
            && self.preparing.is_empty()
            && self.prepared.is_empty()
            && self.resolved.is_empty();
        let is_settled = self.holders.is_settled && self.is_settled_known();
        let is_told = self.report_due.is_none() && self.note_due.is_none();
        is_written && is_resolved && is_told && is_settled && self.has_wanted_members()
    }
}
