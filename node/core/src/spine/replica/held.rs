//! Answers that wait until this node shows what they tell of: who was answered finds what he did in
//! whatever this node shows, as with an etcd, where a member answers what it has applied itself. They
//! come from other nodes, which may be further, or from the apply stage, when an earlier revision is
//! missing in another range.

use std::collections::BTreeMap;

use crate::command::{Answer, Outcome};
use crate::mutant::{self, Mutant};
use crate::spine::replica::{Effect, Replica};

/// Answers to requests of this node's clients, by what must be shown before. All of these are open, so
/// there are no more than `open_requests_max`.
#[derive(Debug, Default)]
pub(super) struct Held {
    by_revision: BTreeMap<i64, Vec<(u64, Outcome)>>,
    by_index: BTreeMap<u64, Vec<(u64, Outcome)>>,
}

impl Replica {
    /// Answers a client of this node, once everything up to its revision, and up to this index of the
    /// spine, is shown. A time-out may come first.
    pub(super) fn answer_when_shown(&mut self, n: u64, index: u64, outcome: Outcome) {
        let Some(open) = self.open.get_mut(&n) else { return };
        // Whoever waits for the store is not told something else meanwhile.
        open.is_decided = true;
        let revision = outcome.as_ref().map_or(0, Answer::revision);
        let shown = self.reach.shown;
        if mutant::is(Mutant::AnsweredEarly) {
            self.answer_now(n, outcome);
        } else if index > shown.index {
            self.held.by_index.entry(index).or_default().push((n, outcome));
        } else if revision > shown.head.revision {
            self.held.by_revision.entry(revision).or_default().push((n, outcome));
        } else {
            self.answer_now(n, outcome);
        }
    }

    /// Answers a client of this node that was not answered yet.
    pub(super) fn answer_now(&mut self, n: u64, outcome: Outcome) {
        if self.open.remove(&n).is_some() {
            self.out.push(Effect::Reply(n, outcome));
        }
    }

    /// Some were told of a time-out instead.
    pub(super) fn forget_held(&mut self) {
        let open = &self.open;
        let is_open = |answers: &mut Vec<(u64, Outcome)>| {
            answers.retain(|(n, _)| open.contains_key(n));
            !answers.is_empty()
        };
        self.held.by_revision.retain(|_, answers| is_open(answers));
        self.held.by_index.retain(|_, answers| is_open(answers));
    }

    /// More is shown than before.
    pub(super) fn answer_held(&mut self) {
        let shown = self.reach.shown;
        while let Some(entry) =
            self.held.by_index.first_entry().filter(|it| *it.key() <= shown.index)
        {
            for (n, outcome) in entry.remove() {
                self.answer_when_shown(n, 0, outcome);
            }
        }
        let revision = shown.head.revision;
        while let Some(entry) =
            self.held.by_revision.first_entry().filter(|it| *it.key() <= revision)
        {
            for (n, outcome) in entry.remove() {
                self.answer_now(n, outcome);
            }
        }
    }
}
