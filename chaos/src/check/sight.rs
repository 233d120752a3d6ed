//! What was known of the store at which moment: the highest revision seen before a stamp, the
//! first stamp at which a revision was seen, and the highest revision that can have existed.
//! Equal stamps count as concurrent throughout.

use crate::history::{History, Stamp};

/// The highest revision that anyone had seen, over time.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Ascending in both stamp and revision.
    steps: Vec<Sighting>,
}

/// Someone saw that a revision exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// When it had been seen.
    pub at: Stamp,
    /// The revision.
    pub revision: i64,
    /// Who saw it.
    pub witness: Witness,
}

/// Who saw a revision, by place in the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Witness {
    /// An operation that returned.
    Operation(usize),
    /// A watcher that received a response.
    Watcher(usize),
}

impl Seen {
    /// Gathers every header and every event of a run. A revision in an answer of any kind
    /// exists from then on, even if the answer says nothing of its own place.
    pub fn new(history: &History) -> Seen {
        let mut sightings = Vec::new();
        for (index, operation) in history.operations.iter().enumerate() {
            if let (Some(at), Some(answer)) = (operation.returned, operation.answer()) {
                let witness = Witness::Operation(index);
                sightings.push(Sighting { at, revision: answer.revision(), witness });
            }
        }
        for (index, watch) in history.watches.iter().enumerate() {
            for received in &watch.received {
                let response = &received.response;
                let header = response.header.as_ref().map_or(0, |header| header.revision);
                let events = response.events.iter().filter_map(|event| event.kv.as_ref());
                let revision = events.map(|pair| pair.mod_revision).fold(header, i64::max);
                let witness = Witness::Watcher(index);
                sightings.push(Sighting { at: received.at, revision, witness });
            }
        }
        sightings.sort_by_key(|sighting| (sighting.at, std::cmp::Reverse(sighting.revision)));
        let mut steps: Vec<Sighting> = Vec::new();
        for sighting in sightings {
            if steps.last().is_none_or(|last| sighting.revision > last.revision) {
                steps.push(sighting);
            }
        }
        Seen { steps }
    }

    /// The highest revision seen before a moment.
    pub fn before(&self, stamp: Stamp) -> Option<Sighting> {
        let after = self.steps.partition_point(|step| step.at < stamp);
        self.steps[..after].last().copied()
    }

    /// The same as a number; zero if nothing was seen.
    pub fn revision_before(&self, stamp: Stamp) -> i64 {
        self.before(stamp).map_or(0, |sighting| sighting.revision)
    }

    /// The first moment at which the revision, or a later one, had been seen.
    pub fn first(&self, revision: i64) -> Option<Sighting> {
        let from = self.steps.partition_point(|step| step.revision < revision);
        self.steps.get(from).copied()
    }
}

/// How far the store can have been at a moment.
#[derive(Clone, Debug, Default)]
pub struct Frontier {
    /// For each revision above the empty store, in order: the earliest moment at which it can
    /// have existed, since it and all before it had to be asked for.
    earliest: Vec<(i64, Stamp)>,
}

impl Frontier {
    /// Takes each revision with the moment its writer was invoked, ascending by revision; zero
    /// where nobody had to ask.
    pub fn new(invoked: impl Iterator<Item = (i64, Stamp)>) -> Frontier {
        let mut latest = 0;
        let earliest = invoked
            .map(|(revision, stamp)| {
                latest = latest.max(stamp);
                (revision, latest)
            })
            .collect();
        Frontier { earliest }
    }

    /// The highest revision that can have existed by then.
    pub fn by(&self, stamp: Stamp) -> i64 {
        let after = self.earliest.partition_point(|(_, earliest)| *earliest <= stamp);
        match self.earliest[..after].last() {
            Some((revision, _)) => *revision,
            None => crate::history::EMPTY_STORE_REVISION,
        }
    }
}
