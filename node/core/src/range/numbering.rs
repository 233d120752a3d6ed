//! How the writes of one range were numbered, as far as this replica knows: from the spine, and
//! from the notes in the range's own log. Both say the same (I3).

use std::collections::VecDeque;

use crate::Error;
use crate::proto::internal::{Run, void::Reason};
use crate::range::run;

/// Writes ahead of what is applied whose numbers are remembered; further ones are asked for again
/// when their turn has come.
const AHEAD_MAX: u64 = 1 << 16;

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It has this revision.
    Numbered(i64),
    /// It changes nothing.
    Void(Reason),
}

impl Verdict {
    /// What its client is told, if it is void.
    pub fn error(self) -> Option<Error> {
        match self {
            Self::Numbered(_) => None,
            Self::Void(reason) => Some(error_of(reason)),
        }
    }
}

/// What a client is told of a write that is void.
pub fn error_of(reason: Reason) -> Error {
    match reason {
        Reason::Compacted => Error::Compacted,
        Reason::NoUser => Error::UserEmpty,
        Reason::AuthChanged => Error::AuthOldRevision,
        // Nobody waits for one that was lost.
        Reason::LeaseNotFound | Reason::Lost | Reason::None => Error::LeaseNotFound,
    }
}

/// Verdicts by local sequence number, from the first that is still of use.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Numbering {
    /// Sequence number before the first of `verdicts`.
    base: u64,
    verdicts: VecDeque<Option<Verdict>>,
    /// The range's log tells how everything up to here was numbered.
    noted: u64,
    applied: u64,
}

impl Numbering {
    /// Of a replica that has applied and noted so much.
    pub fn new(applied: u64, noted: u64) -> Self {
        Self { base: applied.min(noted), verdicts: VecDeque::new(), noted, applied }
    }

    /// The range's log tells how everything up to here was numbered.
    pub fn noted(&self) -> u64 {
        self.noted
    }

    /// Learns of a run.
    ///
    /// # Panics
    /// It contradicts what is known already.
    pub fn learn(&mut self, run: &Run) {
        let mut voids = run.voids.iter().peekable();
        let mut revision = run.revision;
        for seq in run.first..run.first + run.count {
            let verdict = match voids.next_if(|void| void.seq == seq) {
                Some(void) => Verdict::Void(void.reason()),
                None => {
                    revision += 1;
                    Verdict::Numbered(revision - 1)
                }
            };
            if seq <= self.base || seq > self.applied.max(self.noted) + AHEAD_MAX {
                continue;
            }
            let at = usize::try_from(seq - self.base - 1).expect("within the window");
            if self.verdicts.len() <= at {
                self.verdicts.resize(at + 1, None);
            }
            let known = &mut self.verdicts[at];
            assert!(
                known.is_none_or(|known| known == verdict),
                "write {seq} is numbered twice (I3): {known:?} and {verdict:?}"
            );
            *known = Some(verdict);
        }
    }

    /// What became of a write, if it is known.
    pub fn verdict(&self, seq: u64) -> Option<Verdict> {
        let at = seq.checked_sub(self.base + 1)?;
        self.verdicts.get(usize::try_from(at).ok()?).copied().flatten()
    }

    /// Up to where every verdict is known.
    #[cfg(test)]
    fn known(&self) -> u64 {
        let from = usize::try_from(self.applied - self.base).expect("within the window");
        let gap = self.verdicts.iter().skip(from).take_while(|verdict| verdict.is_some()).count();
        self.applied + gap as u64
    }

    /// Everything up to here is applied.
    pub fn set_applied(&mut self, seq: u64) {
        self.applied = self.applied.max(seq);
        self.trim();
    }

    /// The range's log tells how everything up to here was numbered.
    pub fn set_noted(&mut self, seq: u64) {
        self.noted = self.noted.max(seq);
        self.trim();
    }

    /// How the applied writes after this one were numbered, as far as it is known without a gap.
    pub fn runs_after(&self, noted: u64) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for seq in noted.max(self.base) + 1..=self.applied {
            let Some(verdict) = self.verdict(seq) else { break };
            run::add(&mut runs, seq, verdict);
        }
        runs
    }

    fn trim(&mut self) {
        let base = self.applied.min(self.noted);
        while self.base < base {
            self.base += 1;
            self.verdicts.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::internal::Void;

    fn run(first: u64, count: u64, revision: i64, voids: &[u64]) -> Run {
        let void = |seq: &u64| Void { seq: *seq, reason: Reason::LeaseNotFound.into() };
        Run { first, count, revision, voids: voids.iter().map(void).collect() }
    }

    #[test]
    fn verdicts_come_from_runs_in_any_order_and_more_than_once() {
        let mut numbering = Numbering::new(2, 2);
        numbering.learn(&run(6, 2, 30, &[]));
        assert_eq!((numbering.known(), numbering.verdict(6)), (2, Some(Verdict::Numbered(30))));
        numbering.learn(&run(1, 5, 10, &[2, 4]));
        assert_eq!(numbering.known(), 7);
        let verdicts: Vec<_> = (3..=8).map(|seq| numbering.verdict(seq)).collect();
        let numbered = |revision| Some(Verdict::Numbered(revision));
        let void = Some(Verdict::Void(Reason::LeaseNotFound));
        let expected = [numbered(11), void, numbered(12), numbered(30), numbered(31), None];
        assert_eq!(verdicts, expected);
        // The same verdicts, cut otherwise.
        numbering.learn(&run(3, 3, 11, &[4]));
        assert_eq!(numbering.known(), 7);
        assert_eq!(numbering.verdict(2), None, "applied and noted before");
    }

    #[test]
    #[should_panic(expected = "numbered twice (I3)")]
    fn two_numbers_for_one_write_stop_the_process() {
        let mut numbering = Numbering::new(0, 0);
        numbering.learn(&run(1, 2, 5, &[]));
        numbering.learn(&run(2, 1, 7, &[]));
    }

    #[test]
    fn what_is_applied_and_noted_is_forgotten_and_the_rest_can_be_noted() {
        let mut numbering = Numbering::new(0, 0);
        for run in [run(1, 3, 5, &[2]), run(4, 2, 7, &[]), run(6, 1, 20, &[])] {
            numbering.learn(&run);
        }
        assert_eq!(numbering.runs_after(0), [], "nothing is applied");
        numbering.set_applied(6);
        let notes = numbering.runs_after(0);
        assert_eq!(notes, [run(1, 5, 5, &[2]), run(6, 1, 20, &[])]);
        assert_eq!(numbering.runs_after(3), [run(4, 2, 7, &[]), run(6, 1, 20, &[])]);
        let mut other = Numbering::new(0, 0);
        notes.iter().for_each(|run| other.learn(run));
        assert_eq!(other.known(), 6);
        numbering.set_noted(5);
        assert_eq!(
            (numbering.verdict(5), numbering.verdict(6)),
            (None, Some(Verdict::Numbered(20)))
        );
        assert_eq!(numbering.runs_after(5), [run(6, 1, 20, &[])]);
    }
}
