//! What nodes have applied is evidence. A node applies the parts of a revision that are its own, in
//! its own time; together the nodes have applied all of it.

use std::collections::BTreeMap;

use flotilla_core::mvcc::layout::{Record, Revision, decode_key_value};
use flotilla_core::view::{Batch, Column, ViewError, Write};

use super::world::World;
use crate::history::{self, Evidence};

/// Every change of a key that was applied anywhere, and who applied it first.
#[derive(Debug, Default)]
pub(super) struct AppliedEvents {
    events: BTreeMap<(i64, i64), (u64, history::Event)>,
    /// Two nodes have applied different changes under one number.
    conflicts: Vec<(i64, [(u64, history::Event); 2])>,
}

impl AppliedEvents {
    fn add(&mut self, id: u64, revision: Revision, event: history::Event) {
        let place = (revision.main, revision.sub);
        let (first, known) = self.events.entry(place).or_insert_with(|| (id, event.clone()));
        if *known != event {
            let conflict = [(*first, known.clone()), (id, event)];
            self.conflicts.push((revision.main, conflict));
        }
    }

    /// As the checks want it: revision by revision.
    pub(super) fn into_evidence(self) -> Evidence {
        let mut evidence = Evidence::default();
        let mut revisions: BTreeMap<i64, Vec<history::Event>> = BTreeMap::new();
        for ((main, _), (_, event)) in self.events {
            revisions.entry(main).or_default().push(event);
        }
        for (revision, events) in revisions {
            evidence.tell("the nodes", revision, events);
        }
        for (revision, told) in self.conflicts {
            for (id, event) in told {
                evidence.tell(&format!("node {id}"), revision, vec![event]);
            }
        }
        evidence
    }
}

impl World {
    /// A batch is in the store of a node.
    pub(super) fn tell_applied(&mut self, id: u64, batch: &Batch) {
        for write in &batch.writes {
            let Write::Put(Column::Revision, key, value) = write else { continue };
            match event(key, value) {
                Ok((revision, event)) => self.applied_events.add(id, revision, event),
                Err(error) => {
                    return self.invariants.break_with(format!("node {id}: {error}"));
                }
            }
        }
    }
}

fn event(key: &[u8], value: &bytes::Bytes) -> Result<(Revision, history::Event), ViewError> {
    let revision = Revision::decode(key)?;
    let Record { head, kv } = Record::decode(value.clone())?;
    let pair = decode_key_value(kv)?;
    Ok((
        revision,
        if head.is_tombstone {
            history::Event::Delete { key: pair.key, revision: revision.main }
        } else {
            history::Event::Put(pair)
        },
    ))
}
