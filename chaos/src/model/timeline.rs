//! Every revision of every key, from the empty store on. Owns lookup at any revision; forgets
//! nothing, not even when the store it describes is compacted.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use bytes::Bytes;
use flotilla_proto::Span;
use flotilla_proto::mvccpb::KeyValue;

use crate::history::{EMPTY_STORE_REVISION, Event};

/// The content of a store at each of its revisions.
#[derive(Clone, Debug)]
pub struct Timeline {
    revision: i64,
    keys: BTreeMap<Bytes, Vec<Version>>,
    events: BTreeMap<i64, Vec<Event>>,
    /// Keys that were ever put with a lease, by lease.
    leased: BTreeMap<i64, BTreeSet<Bytes>>,
}

/// A key from `revision` on; `None` if it was deleted.
#[derive(Clone, Debug)]
struct Version {
    revision: i64,
    pair: Option<KeyValue>,
}

impl Default for Timeline {
    fn default() -> Timeline {
        Timeline {
            revision: EMPTY_STORE_REVISION,
            keys: BTreeMap::new(),
            events: BTreeMap::new(),
            leased: BTreeMap::new(),
        }
    }
}

impl Timeline {
    /// Adds the events of a revision above all others, in order. The revision of the events
    /// themselves is not looked at.
    pub fn append(&mut self, revision: i64, events: Vec<Event>) {
        assert!(revision > self.revision, "revisions are appended in order");
        self.revision = revision;
        for event in &events {
            let pair = match event {
                Event::Put(pair) => {
                    if pair.lease != 0 {
                        self.leased.entry(pair.lease).or_default().insert(pair.key.clone());
                    }
                    Some(pair.clone())
                }
                Event::Delete { .. } => None,
            };
            let versions = self.keys.entry(event.key().clone()).or_default();
            versions.push(Version { revision, pair });
        }
        self.events.insert(revision, events);
    }

    /// The last revision.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// The events of one revision in order; none if nothing is known of it.
    pub fn events_at(&self, revision: i64) -> &[Event] {
        self.events.get(&revision).map_or(&[], Vec::as_slice)
    }

    /// The events of the revisions `first..=last`, ascending.
    pub fn events_between(&self, first: i64, last: i64) -> impl Iterator<Item = (i64, &[Event])> {
        let last = last.max(first.saturating_sub(1));
        self.events
            .range((Bound::Included(first), Bound::Excluded(last.saturating_add(1))))
            .map(|(&revision, events)| (revision, events.as_slice()))
    }

    /// The key as it was when `revision` was complete.
    pub fn get(&self, key: &[u8], revision: i64) -> Option<&KeyValue> {
        at(self.keys.get(key)?, revision)
    }

    /// All keys of a span as they were when `revision` was complete, ascending.
    pub fn span(&self, span: &Span, revision: i64) -> Vec<&KeyValue> {
        if span.is_empty() {
            return Vec::new();
        }
        let end = span.end.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        self.keys
            .range::<Bytes, _>((Bound::Included(&span.start), end))
            .filter_map(|(_, versions)| at(versions, revision))
            .collect()
    }

    /// The keys attached to a lease when `revision` was complete, ascending. A key is attached
    /// to the lease of its last put for as long as it lives.
    pub fn attached(&self, lease: i64, revision: i64) -> Vec<Bytes> {
        let Some(candidates) = self.leased.get(&lease) else { return Vec::new() };
        candidates
            .iter()
            .filter(|key| self.get(key, revision).is_some_and(|pair| pair.lease == lease))
            .cloned()
            .collect()
    }

    /// The revisions that changed a key which was ever attached to the lease.
    pub fn attachment_changes(&self, lease: i64) -> BTreeSet<i64> {
        let keys = self.leased.get(&lease).into_iter().flatten();
        keys.filter_map(|key| self.keys.get(key))
            .flat_map(|versions| versions.iter().map(|version| version.revision))
            .collect()
    }
}

fn at(versions: &[Version], revision: i64) -> Option<&KeyValue> {
    // A transaction may change a key twice; the last change is what remains.
    let after = versions.partition_point(|version| version.revision <= revision);
    versions[..after].last()?.pair.as_ref()
}
