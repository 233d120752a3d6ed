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
    pub(super) fn into_pieces(self, limits: &Limits) -> Vec<Piece> {
        match self.events {
            Gathered::None => Vec::new(),
            Gathered::One((revision, event)) => {
                vec![Piece { first: revision, last: revision, events: Events::One(event) }]
            }
            Gathered::Many(events) => pieces(events, limits),
        }
    }
}

fn pieces(events: Vec<(i64, Bytes)>, limits: &Limits) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut piece: Vec<Bytes> = Vec::new();
    let (mut first, mut last) = (events[0].0, events[0].0);
    let (mut bytes, mut revisions) = (0, 0);
    for group in events.chunk_by(|one, next| one.0 == next.0) {
        let revision = group[0].0;
        let group_bytes: usize = group.iter().map(|(_, event)| event.len()).sum();
        let is_full = revisions >= limits.response_revisions_max
            || (revisions > 0 && bytes + group_bytes > limits.response_bytes_max);
        if is_full {
            pieces.push(Piece { first, last, events: std::mem::take(&mut piece).into() });
            (first, bytes, revisions) = (revision, 0, 0);
        }
        piece.extend(group.iter().map(|(_, event)| event.clone()));
        (last, bytes, revisions) = (revision, bytes + group_bytes, revisions + 1);
    }
    pieces.push(Piece { first, last, events: piece.into() });
    pieces
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
