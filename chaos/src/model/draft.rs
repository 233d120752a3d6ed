//! A revision while it is being made: what one request has changed so far, over the state it
//! started from. Operations inside a transaction see each other's changes through it.

use std::collections::BTreeMap;

use bytes::Bytes;
use flotilla_proto::Span;
use flotilla_proto::etcdserverpb::ResponseHeader;
use flotilla_proto::mvccpb::KeyValue;

use crate::history::{Answer, Event};
use crate::model::read::ReadOrder;
use crate::model::view::{Step, View};

pub(super) struct Draft<'a> {
    pub(super) view: &'a View<'a>,
    changed: BTreeMap<Bytes, Option<KeyValue>>,
    events: Vec<Event>,
    pub(super) orders: Vec<ReadOrder>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(view: &'a View<'a>) -> Draft<'a> {
        Draft { view, changed: BTreeMap::new(), events: Vec::new(), orders: Vec::new() }
    }

    /// The revision that an operation carried out now reports: the new one as soon as anything
    /// has changed.
    pub(super) fn revision(&self) -> i64 {
        if self.events.is_empty() { self.view.revision } else { self.next_revision() }
    }

    pub(super) fn header(&self) -> Option<ResponseHeader> {
        Some(ResponseHeader { revision: self.revision(), ..ResponseHeader::default() })
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<&KeyValue> {
        match self.changed.get(key) {
            Some(pair) => pair.as_ref(),
            None => self.view.timeline.get(key, self.view.revision),
        }
    }

    /// All keys of a span, ascending.
    pub(super) fn span(&self, span: &Span) -> Vec<KeyValue> {
        let mut pairs: BTreeMap<&Bytes, &KeyValue> = self
            .view
            .timeline
            .span(span, self.view.revision)
            .into_iter()
            .map(|pair| (&pair.key, pair))
            .collect();
        for (key, changed) in &self.changed {
            if span.contains(key) {
                match changed {
                    Some(pair) => pairs.insert(key, pair),
                    None => pairs.remove(key),
                };
            }
        }
        pairs.into_values().cloned().collect()
    }

    /// Puts a key; revisions and version of the pair are filled in here.
    pub(super) fn write(&mut self, key: &Bytes, value: Bytes, lease: i64) {
        let revision = self.next_revision();
        let (create_revision, version) = match self.get(key) {
            Some(previous) => (previous.create_revision, previous.version + 1),
            None => (revision, 1),
        };
        let pair = KeyValue {
            key: key.clone(),
            create_revision,
            mod_revision: revision,
            version,
            value,
            lease,
        };
        self.changed.insert(key.clone(), Some(pair.clone()));
        self.events.push(Event::Put(pair));
    }

    /// Deletes a key that is there.
    pub(super) fn remove(&mut self, key: &Bytes) {
        self.changed.insert(key.clone(), None);
        self.events.push(Event::Delete { key: key.clone(), revision: self.next_revision() });
    }

    pub(super) fn into_step(self, answer: Answer) -> Step {
        Step { answer, events: self.events, orders: self.orders }
    }

    fn next_revision(&self) -> i64 {
        self.view.revision + 1
    }
}
