//! What the leader tells others of the range's writes: the spine, that they are committed (I2);
//! and, in notes in the range's own log, how they were numbered.

use prost::Message;

use crate::group::{self, Part};
use crate::mutant::{self, Mutant};
use crate::mvcc;
use crate::proto::internal::{Predicate, RangeEntry, RangeWrite, Ref, Run};
use crate::range::replica::{Effect, Replica};
use crate::range::run;
use crate::spine::txns;

/// What a leader has reported last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reported {
    upto: u64,
    noted: u64,
    resolved_count: usize,
    settled: u64,
}

impl Replica {
    fn what_to_report(&self) -> Reported {
        Reported {
            upto: self.committed,
            noted: self.numbering.noted(),
            resolved_count: self.resolved.len(),
            settled: self.settled_changes(),
        }
    }

    /// Reports what is committed and not known to be numbered. Only what consensus has handed out
    /// as committed is ever named (I2).
    pub(super) fn report(&mut self) {
        if self.role.part != Part::Leader {
            return;
        }
        let what = self.what_to_report();
        if what.settled == 0 {
            self.reported.settled = 0;
        }
        if what == self.reported {
            return;
        }
        self.send_report();
    }

    fn send_report(&mut self) {
        self.reported = self.what_to_report();
        self.report_due = Some(self.now + self.config.report_again_after);
        let mut predicates = Vec::new();
        let mut writes = self.staged.iter().flat_map(|staged| &staged.writes);
        // As good as any: most are the same.
        let pass = writes.next().map_or(0, |write| write.pass);
        for staged in &self.staged {
            for (seq, write) in staged.seqs().zip(&staged.writes) {
                predicates.extend(predicate(seq, write, pass));
            }
        }
        let Reported { mut upto, noted, settled, .. } = self.reported;
        if mutant::is(Mutant::AssignBeforeCommit) {
            let tail = self.group.uncommitted().into_iter();
            for write in tail.flat_map(|data| RangeEntry::decode(data).unwrap_or_default().writes) {
                upto += 1;
                predicates.extend(predicate(upto, &write, pass));
            }
        }
        let resolved = self.resolved.iter().map(|id| txns::to_proto(*id)).collect();
        let range = self.config.range.0;
        let stated = Ref { range, upto, predicates, noted, resolved, settled, pass };
        self.out.push(Effect::Report(stated));
    }

    pub(super) fn tick_reports(&mut self) {
        self.forget_proposed();
        self.leave_if_replaced();
        let is_due = self.report_due.is_some_and(|due| due <= self.now);
        if is_due {
            let is_numbered = self.staged.is_empty() && self.resolved.is_empty();
            let is_settled = self.is_settled_known();
            self.report_due = None;
            if !(is_numbered && is_settled) && self.role.part == Part::Leader {
                self.send_report();
            }
        }
        let is_waiting = self.tick_txns();
        if (is_waiting || self.lacks_numbers())
            && self.numbers_due.is_none_or(|due| due <= self.now)
        {
            self.numbers_due = Some(self.now + self.config.report_again_after);
            self.out.push(Effect::WantNumbers);
            // Without a leader nobody else does, and if a change of the membership waits behind a
            // write that has no number, nobody can be elected. What is committed is a fact, whoever
            // tells it (I3).
            if self.role.part != Part::Leader && self.lacks_numbers() {
                self.learn_from_tail();
                self.send_report();
            }
        }
    }

    /// The spine forgets numbers once it has heard that a note of them is committed, which a replica
    /// that has the note need not know, and cannot find out while nobody can be elected. A note tells
    /// what the spine has said of committed writes: it is true before it is committed itself. It must be
    /// durable, as what it leads to will be.
    fn learn_from_tail(&mut self) {
        for data in self.group.uncommitted_durable() {
            // What is not committed may not be looked at by anyone, so it is no reason to end.
            for run in RangeEntry::decode(data).unwrap_or_default().notes {
                self.numbering.learn(&run);
            }
        }
    }

    /// Notes go with the next write, or alone when none comes for a while.
    pub(super) fn propose_notes(&mut self) {
        let is_ready = self.is_serving() && self.group.transferee().is_none();
        // Notes that were inherited may have been committed since.
        self.noting = self.noting.max(self.numbering.noted());
        if !is_ready || self.noting >= self.joined.seq {
            self.note_due = None;
            return;
        }
        let due = *self.note_due.get_or_insert(self.now + self.config.note_after);
        if due > self.now {
            return;
        }
        let notes = self.take_notes();
        if notes.is_empty() {
            // It was not this replica that joined them, or not in this life: only the spine knows.
            self.note_due = Some(self.now + self.config.note_after);
            self.out.push(Effect::WantNumbers);
            return;
        }
        self.refusal = None;
        let entry = RangeEntry { notes, ..RangeEntry::default() };
        self.drive(group::Input::Propose(vec![entry.encode_to_vec().into()]));
        if self.refusal.take().is_some() {
            self.untake_notes();
        }
    }

    /// How everything that is joined and not noted was numbered.
    pub(super) fn take_notes(&mut self) -> Vec<Run> {
        let mut notes = self.numbering.runs_after(self.noting);
        notes.truncate(self.config.limits.notes_max);
        if let Some(last) = notes.last() {
            self.noting = run::last(last);
            self.note_due = None;
        }
        notes
    }

    /// The proposal they were in was refused.
    pub(super) fn untake_notes(&mut self) {
        self.noting = self.numbering.noted();
    }
}

/// What must hold for a write when it is numbered, if it is more than what is said of all.
fn predicate(seq: u64, write: &RangeWrite, pass_of_all: u64) -> Option<Predicate> {
    let leases = mvcc::attached_leases(&write.effects);
    let (reads_at, pass) = (write.reads_at, write.pass);
    let is_needed = !leases.is_empty() || reads_at != 0 || pass != pass_of_all;
    is_needed.then_some(Predicate { seq, leases, reads_at, pass })
}
