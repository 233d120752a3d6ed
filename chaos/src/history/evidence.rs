//! The content of every revision, gathered from several independent sources: watchers of the
//! whole keyspace, the applied logs of the replicas. Keeps what the sources say and where two of
//! them disagree; it never fills a hole by guessing.

use std::collections::BTreeMap;

use crate::history::{EMPTY_STORE_REVISION, Event};

/// The content of every revision of a run, and how far it is known to be whole.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    revisions: BTreeMap<i64, Told>,
    conflicts: Vec<Conflict>,
    whole_through: Option<i64>,
}

/// Two sources tell different things of one revision.
#[derive(Clone, Debug, PartialEq)]
pub struct Conflict {
    /// The revision they disagree about.
    pub revision: i64,
    /// The source that was heard first, and what it says.
    pub first: (String, Vec<Event>),
    /// The source that disagrees, and what it says.
    pub second: (String, Vec<Event>),
}

#[derive(Clone, Debug)]
struct Told {
    source: String,
    events: Vec<Event>,
}

impl Evidence {
    /// Adds all events of one revision, in order, as `source` tells them. A second source may
    /// repeat what is known; if it says something else, both are kept as a conflict.
    pub fn tell(&mut self, source: &str, revision: i64, events: Vec<Event>) {
        match self.revisions.get(&revision) {
            None => {
                self.revisions.insert(revision, Told { source: source.to_owned(), events });
            }
            Some(told) if told.events == events => {}
            Some(told) => self.conflicts.push(Conflict {
                revision,
                first: (told.source.clone(), told.events.clone()),
                second: (source.to_owned(), events),
            }),
        }
    }

    /// States that the sources together saw every revision up to `head`, and that `head` was the
    /// revision of the store when the run was over. Without this statement no run is judged: a
    /// missing revision would be a hole of the evidence, not a loss of the store.
    pub fn close(&mut self, head: i64) {
        self.whole_through = Some(head);
    }

    /// The last revision of the run, if the evidence is whole.
    pub fn head(&self) -> Option<i64> {
        self.whole_through
    }

    /// The events of one revision, if any source told them.
    pub fn events_at(&self, revision: i64) -> Option<&[Event]> {
        self.revisions.get(&revision).map(|told| told.events.as_slice())
    }

    /// All revisions that were told, ascending.
    pub fn revisions(&self) -> impl Iterator<Item = (i64, &[Event])> {
        self.revisions.iter().map(|(&revision, told)| (revision, told.events.as_slice()))
    }

    /// Where sources disagree.
    pub fn conflicts(&self) -> &[Conflict] {
        &self.conflicts
    }

    /// Takes the events of a revision out, as a source that missed it would. For tests that plant
    /// a fault.
    pub fn forget(&mut self, revision: i64) -> Option<Vec<Event>> {
        self.revisions.remove(&revision).map(|told| told.events)
    }

    /// The highest revision told, or that of the empty store.
    pub fn highest(&self) -> i64 {
        self.revisions.keys().next_back().copied().unwrap_or(EMPTY_STORE_REVISION)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn delete(key: &'static str, revision: i64) -> Event {
        Event::Delete { key: Bytes::from(key), revision }
    }

    #[test]
    fn sources_that_agree_are_one_and_those_that_differ_are_kept() {
        let mut evidence = Evidence::default();
        evidence.tell("node 1", 2, vec![delete("a", 2)]);
        evidence.tell("node 2", 2, vec![delete("a", 2)]);
        assert!(evidence.conflicts().is_empty());
        evidence.tell("node 3", 2, vec![delete("a", 2), delete("b", 2)]);
        assert_eq!(evidence.conflicts().len(), 1);
        assert_eq!(evidence.conflicts()[0].first.0, "node 1");
        assert_eq!(evidence.conflicts()[0].second.0, "node 3");
        assert_eq!(evidence.events_at(2), Some(&[delete("a", 2)][..]));
    }

    #[test]
    fn evidence_is_whole_only_when_closed() {
        let mut evidence = Evidence::default();
        assert_eq!((evidence.head(), evidence.highest()), (None, EMPTY_STORE_REVISION));
        evidence.tell("node 1", 2, vec![delete("a", 2)]);
        evidence.close(2);
        assert_eq!((evidence.head(), evidence.highest()), (Some(2), 2));
    }
}
