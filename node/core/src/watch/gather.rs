//! Events on their way from a batch to responses: gathered per watcher first, then cut into
//! responses of whole revisions. Owns where a response ends; never looks at streams.

use bytes::Bytes;

use super::Event;
use super::limits::Limits;
use super::response::{Events, Response};
use super::slab::{NONE, Slot};
use super::watcher::Watcher;

/// What each watcher gets of one batch.
#[derive(Debug, Default)]
pub(super) struct Gather {
    entries: Vec<Entry>,
    count: usize,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) watcher: Slot,
    /// The revision of the first event it wants.
    pub(super) first: i64,
    /// Nothing is gathered because its stream takes nothing at present.
    pub(super) is_blocked: bool,
    events: Gathered,
}

/// Events with their revisions, ascending. Mostly there is one.
#[derive(Debug)]
enum Gathered {
    None,
    One((i64, Bytes)),
    Many(Vec<(i64, Bytes)>),
}

impl Gather {
    /// Adds an event that the watcher wants.
    pub(super) fn add(
        &mut self,
        slot: Slot,
        watcher: &mut Watcher,
        event: &Event,
        is_blocked: bool,
    ) {
        let revision = event.change().revision;
        if watcher.gathered == NONE {
            watcher.gathered = self.entries.len() as u32;
            let events = Gathered::None;
            self.entries.push(Entry { watcher: slot, first: revision, is_blocked, events });
        }
        let entry = &mut self.entries[watcher.gathered as usize];
        if !entry.is_blocked {
            entry.events.push((revision, event.field(watcher.options.wants_prev)));
            self.count += 1;
        }
    }

    /// Events gathered for all watchers together.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Hands out the entries in the order of their first event. Each watcher's mention of its
    /// entry is then out of date.
    pub(super) fn take(&mut self) -> Vec<Entry> {
        self.count = 0;
        std::mem::take(&mut self.entries)
    }
}

impl Gathered {
    fn push(&mut self, event: (i64, Bytes)) {
        *self = match std::mem::replace(self, Self::None) {
            Self::None => Self::One(event),
            Self::One(first) => Self::Many(vec![first, event]),
            Self::Many(mut events) => {
                events.push(event);
                Self::Many(events)
            }
        };
    }
}

/// Whole revisions that fit into one response.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) first: i64,
    pub(super) last: i64,
    pub(super) events: Events,
}

impl Entry {
    /// The events as responses carry them, in order.
    pub(super) fn into_pieces(self, limits: &Limits) -> Pieces {
        let (one, many) = match self.events {
            Gathered::None => (None, Vec::new()),
            Gathered::One(event) => (Some(event), Vec::new()),
            Gathered::Many(events) => (None, events),
        };
        Pieces {
            one,
            many: many.into_iter(),
            revisions_max: limits.response_revisions_max,
            bytes_max: limits.response_bytes_max,
        }
    }
}

/// Cuts off one piece at a time.
pub(super) struct Pieces {
    one: Option<(i64, Bytes)>,
    many: std::vec::IntoIter<(i64, Bytes)>,
    revisions_max: usize,
    bytes_max: usize,
}

impl Iterator for Pieces {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        if let Some((revision, event)) = self.one.take() {
            return Some(Piece { first: revision, last: revision, events: Events::One(event) });
        }
        let first = self.many.as_slice().first()?.0;
        let (mut last, mut count, mut bytes) = (first, 0, 0);
        let revisions = self.many.as_slice().chunk_by(|one, next| one.0 == next.0);
        for (n, revision) in revisions.enumerate() {
            let revision_bytes: usize = revision.iter().map(|(_, event)| event.len()).sum();
            let is_full = n >= self.revisions_max || bytes + revision_bytes > self.bytes_max;
            if n > 0 && is_full {
                break;
            }
            last = revision[0].0;
            count += revision.len();
            bytes += revision_bytes;
        }
        let events: Vec<Bytes> = self.many.by_ref().take(count).map(|(_, event)| event).collect();
        Some(Piece { first, last, events: events.into() })
    }
}

/// Splits a response of two or more events that reaches `bytes_max`. Every part but the last says
/// that more follows, stays below the limit if it has more than one event, and has at least one.
pub(super) fn fragments(response: Response, bytes_max: usize) -> Vec<Response> {
    if response.events_count() < 2 || response.encoded_len() < bytes_max {
        return vec![response];
    }
    let frame = Response { is_fragment: true, events: Events::None, ..response };
    let frame_bytes = frame.encoded_len();
    let mut fragments = Vec::new();
    let mut part: Vec<Bytes> = Vec::new();
    let mut part_bytes = frame_bytes;
    for event in response.events.as_slice() {
        if !part.is_empty() && part_bytes + event.len() >= bytes_max {
            let events = std::mem::take(&mut part).into();
            fragments.push(Response { events, ..frame.clone() });
            part_bytes = frame_bytes;
        }
        part_bytes += event.len();
        part.push(event.clone());
    }
    fragments.push(Response { is_fragment: false, events: part.into(), ..frame });
    fragments
}
