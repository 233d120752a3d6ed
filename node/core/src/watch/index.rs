//! Which watchers want a key. Watchers of the same span share one bucket; buckets of a single key
//! are found by hash, the others by the tree of spans. Within a bucket the live watchers come
//! first, so that an event costs nothing for those that read history. Never looks at revisions.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use super::slab::{Slab, Slot};
use super::span_tree::SpanTree;
use crate::proto::Span;

/// Where a watcher stands: its bucket, and its position there, which changes as others move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) bucket: Slot,
    pub(super) position: u32,
}

/// The watchers of one span.
#[derive(Debug)]
pub(super) struct Bucket {
    pub(super) start: Arc<[u8]>,
    pub(super) extent: Extent,
    /// Live ones first.
    watchers: Vec<Slot>,
    live_count: u32,
}

/// How far a bucket's span reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// The start alone.
    Key,
    /// Up to, not including, this key.
    Below(Box<[u8]>),
    /// To the end of all keys.
    Open,
}

impl Bucket {
    /// Watchers that are sent events as they are published.
    pub(super) fn live(&self) -> &[Slot] {
        &self.watchers[..self.live_count as usize]
    }

    pub(super) fn span(&self) -> Span {
        let start = Bytes::copy_from_slice(&self.start);
        match &self.extent {
            Extent::Key => Span::key(start),
            Extent::Below(end) => Span { start, end: Some(Bytes::copy_from_slice(end)) },
            Extent::Open => Span { start, end: None },
        }
    }

    /// Whether all of its keys are in another span.
    pub(super) fn is_within(&self, span: &Span) -> bool {
        let start_is_in = span.start[..] <= self.start[..];
        start_is_in
            && match (&self.extent, &span.end) {
                (_, None) => true,
                (Extent::Open, Some(_)) => false,
                (Extent::Key, Some(end)) => self.start[..] < end[..],
                (Extent::Below(own), Some(end)) => own[..] <= end[..],
            }
    }

    /// The first key above the span, or `None` if there is none.
    ///
    /// # Panics
    /// For the bucket of a single key, which is never asked.
    pub(super) fn end(&self) -> Option<&[u8]> {
        match &self.extent {
            Extent::Key => panic!("a single key has no place among spans"),
            Extent::Below(end) => Some(end),
            Extent::Open => None,
        }
    }
}

#[derive(Debug)]
pub(super) struct Index {
    buckets: Slab<Bucket>,
    /// Only ever looked up, never walked: its order differs between runs.
    keys: HashMap<Arc<[u8]>, Slot>,
    spans: SpanTree,
    /// Holds the spans of all buckets; the smallest such span when it was last worked out, and wider
    /// since by those that came.
    hull: Option<Span>,
    /// Buckets that went since.
    gone_count: usize,
}

/// The hull is worked out anew when so many times the buckets that went are more than those that are
/// left: what it costs is shared by them.
const HULL_GONE_TIMES: usize = 8;

impl Index {
    pub(super) fn new() -> Self {
        Self {
            buckets: Slab::new(),
            keys: HashMap::new(),
            spans: SpanTree::new(),
            hull: None,
            gone_count: 0,
        }
    }

    pub(super) fn bucket(&self, bucket: Slot) -> &Bucket {
        &self.buckets[bucket]
    }

    /// Adds a watcher that is not live.
    pub(super) fn insert(&mut self, span: &Span, watcher: Slot) -> Place {
        let bucket = self.bucket_of(span);
        let watchers = &mut self.buckets[bucket].watchers;
        // Most buckets hold one watcher for good; growth by default would reserve four.
        if watchers.is_empty() {
            watchers.reserve_exact(1);
        }
        watchers.push(watcher);
        Place { bucket, position: (watchers.len() - 1) as u32 }
    }

    /// Adds the buckets whose span holds `key`, each once, to `found`.
    pub(super) fn find(&self, key: &[u8], found: &mut Vec<Slot>) {
        if let Some(bucket) = self.keys.get(key) {
            found.push(*bucket);
        }
        self.spans.find(&self.buckets, key, found);
    }

    /// As `find`, and how many spans were looked at.
    #[cfg(test)]
    pub(super) fn count_visits(&self, key: &[u8], found: &mut Vec<Slot>) -> usize {
        let before = self.spans.visits.get();
        self.find(key, found);
        self.spans.visits.get() - before
    }

    /// A span that holds those of all watchers, and little more; `None` if there are none.
    pub(super) fn hull(&mut self) -> Option<Span> {
        if self.gone_count * HULL_GONE_TIMES > self.buckets.len() {
            self.gone_count = 0;
            let spans = self.buckets.iter().map(|(_, bucket)| bucket.span());
            self.hull = spans.reduce(join);
        }
        self.hull.clone()
    }

    /// Makes a watcher live or not. `moved` is told the new place of every watcher that changes
    /// its place, this one included.
    pub(super) fn set_live(
        &mut self,
        place: Place,
        is_live: bool,
        mut moved: impl FnMut(Slot, Place),
    ) {
        let bucket = &mut self.buckets[place.bucket];
        debug_assert_eq!(place.position < bucket.live_count, !is_live, "it was the other before");
        let border = if is_live {
            bucket.live_count += 1;
            bucket.live_count - 1
        } else {
            bucket.live_count -= 1;
            bucket.live_count
        };
        bucket.watchers.swap(place.position as usize, border as usize);
        for position in [place.position, border] {
            let watcher = bucket.watchers[position as usize];
            moved(watcher, Place { bucket: place.bucket, position });
        }
    }

    /// Removes a watcher that is not live; `moved` as in `set_live`, for the others.
    pub(super) fn remove(&mut self, place: Place, mut moved: impl FnMut(Slot, Place)) {
        let bucket = &mut self.buckets[place.bucket];
        debug_assert!(place.position >= bucket.live_count, "it is not live");
        bucket.watchers.swap_remove(place.position as usize);
        if let Some(watcher) = bucket.watchers.get(place.position as usize) {
            moved(*watcher, place);
        }
        if bucket.watchers.is_empty() {
            self.remove_bucket(place.bucket);
        } else if bucket.watchers.len() * 4 < bucket.watchers.capacity() {
            bucket.watchers.shrink_to(bucket.watchers.len() * 2);
        }
    }

    /// Bytes on the heap, without the bookkeeping of the allocator.
    pub(super) fn heap_bytes(&self) -> usize {
        /// Reference counts in front of a shared key.
        const COUNTS_BYTES: usize = 16;
        /// The hash table's own byte per entry.
        const CONTROL_BYTES: usize = 1;
        let owned = self.buckets.iter().map(|(_, bucket)| {
            let end = match &bucket.extent {
                Extent::Below(end) => end.len(),
                Extent::Key | Extent::Open => 0,
            };
            let watchers = bucket.watchers.capacity() * size_of::<Slot>();
            COUNTS_BYTES + bucket.start.len() + end + watchers
        });
        let entry = size_of::<(Arc<[u8]>, Slot)>() + CONTROL_BYTES;
        // The table keeps at least one slot in eight free.
        let keys = self.keys.capacity() * 8 / 7 * entry;
        owned.sum::<usize>() + self.buckets.heap_bytes() + keys + self.spans.heap_bytes()
    }

    /// The bucket of a span, made if there is none. Bounds are copied: a request's bytes are a
    /// part of the whole frame it came in and would keep that alive.
    fn bucket_of(&mut self, span: &Span) -> Slot {
        let new = |start: Arc<[u8]>, extent| Bucket {
            start,
            extent,
            watchers: Vec::new(),
            live_count: 0,
        };
        if let Some(key) = span.single_key() {
            if let Some(bucket) = self.keys.get(key) {
                return *bucket;
            }
            let key: Arc<[u8]> = key.into();
            self.widen(span);
            let bucket = self.buckets.insert(new(key.clone(), Extent::Key));
            self.keys.insert(key, bucket);
            return bucket;
        }
        if let Some(bucket) = self.spans.get(&self.buckets, &span.start, span.end.as_deref()) {
            return bucket;
        }
        self.widen(span);
        let extent = span.end.as_deref().map_or(Extent::Open, |end| Extent::Below(end.into()));
        let bucket = self.buckets.insert(new(span.start.as_ref().into(), extent));
        self.spans.insert(&self.buckets, bucket);
        bucket
    }

    fn widen(&mut self, span: &Span) {
        let is_held = self.hull.as_ref().is_some_and(|hull| {
            let ends_within = match (&span.end, &hull.end) {
                (_, None) => true,
                (None, Some(_)) => false,
                (Some(end), Some(last)) => end <= last,
            };
            hull.start <= span.start && ends_within
        });
        if !is_held {
            // As in the buckets, the bounds are copied.
            let span = Span {
                start: Bytes::copy_from_slice(&span.start),
                end: span.end.as_deref().map(Bytes::copy_from_slice),
            };
            self.hull = Some(match self.hull.take() {
                Some(hull) => join(hull, span),
                None => span,
            });
        }
    }

    fn remove_bucket(&mut self, slot: Slot) {
        self.gone_count += 1;
        match self.buckets[slot].extent {
            Extent::Key => {
                self.keys.remove(&self.buckets[slot].start);
            }
            Extent::Below(_) | Extent::Open => self.spans.remove(&self.buckets, slot),
        }
        self.buckets.remove(slot);
        if self.keys.len() * 4 < self.keys.capacity() {
            self.keys.shrink_to(self.keys.len() * 2);
        }
    }
}

/// The smallest span that holds both.
pub(super) fn join(one: Span, other: Span) -> Span {
    Span {
        start: one.start.min(other.start),
        end: one.end.zip(other.end).map(|(one, other)| one.max(other)),
    }
}
