//! Finding watchers by key, and what idle ones cost.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::proto::Span;
use crate::proto::etcdserverpb as pb;
use crate::time::Time;
use crate::watch::index::Index;
use crate::watch::response::Response;
use crate::watch::slab::Slot;
use crate::watch::watcher::Watcher;
use crate::watch::{Hub, Input, Limits, OVERHEAD_BYTES, StreamId};

use super::random::Chance;
use super::stage::{config, request};

/// Random spans come and go, become live or not; each key finds what a walk over all finds.
#[test]
fn the_index_finds_what_a_walk_over_all_spans_finds() {
    for seed in 0..200 {
        let mut chance = Chance::new(seed);
        let mut index = Index::new();
        let mut places = BTreeMap::new();
        let mut model: BTreeMap<Slot, (Span, bool)> = BTreeMap::new();
        for step in 0..300 {
            let slot = chance.below(60) as Slot;
            let mut moved = Vec::new();
            match model.get_mut(&slot) {
                None => {
                    let span = random_span(&mut chance);
                    places.insert(slot, index.insert(&span, slot));
                    model.insert(slot, (span, false));
                }
                Some((_, is_live)) if *is_live || chance.below(2) == 0 => {
                    *is_live = !*is_live;
                    index.set_live(places[&slot], *is_live, |slot, place| {
                        moved.push((slot, place));
                    });
                }
                Some(_) => {
                    index.remove(places[&slot], |slot, place| moved.push((slot, place)));
                    places.remove(&slot);
                    model.remove(&slot);
                }
            }
            places.extend(moved);

            let key = random_key(&mut chance);
            let mut buckets = Vec::new();
            index.find(&key, &mut buckets);
            let mut found: Vec<Slot> =
                buckets.iter().flat_map(|bucket| index.bucket(*bucket).live()).copied().collect();
            found.sort_unstable();
            let expected: Vec<Slot> = model
                .iter()
                .filter(|(_, (span, is_live))| *is_live && span.contains(&key))
                .map(|(slot, _)| *slot)
                .collect();
            assert_eq!(found, expected, "seed {seed} step {step} key {key:?}");
        }
        for (slot, (_, is_live)) in model {
            let place = places[&slot];
            let is_listed_live = index.bucket(place.bucket).live().contains(&slot);
            assert_eq!(is_live, is_listed_live);
        }
    }
}

fn random_key(chance: &mut Chance) -> Bytes {
    let length = chance.below(4);
    (0..length).map(|_| b"\0ab\xff"[chance.below(4) as usize]).collect()
}

/// Never empty, as no watcher's span is.
fn random_span(chance: &mut Chance) -> Span {
    loop {
        let start = random_key(chance);
        let span = match chance.below(4) {
            0 => Span::key(start),
            1 => Span { start, end: None },
            2 => Span::prefix(start),
            _ => Span { start, end: Some(random_key(chance)) },
        };
        if !span.is_empty() {
            return span;
        }
    }
}

/// Spans that all hold the key, or none of them, among a hundred thousand: what is looked at must
/// not grow with them. Counted in visits, as time is not to be had here.
#[test]
fn spans_that_do_not_hold_a_key_are_not_walked() {
    let mut index = Index::new();
    let count = 100_000;
    for n in 0..count {
        let key = Bytes::from(format!("key/{n:06}/"));
        index.insert(&Span::prefix(key), n);
    }
    let mut found = Vec::new();
    let visited = index.count_visits(b"key/050000/x", &mut found);
    assert_eq!(found.len(), 1);
    assert!(visited < 200, "{visited} of {count} spans visited");
    let visited = index.count_visits(b"other", &mut found);
    assert_eq!(found.len(), 1);
    assert!(visited < 200, "{visited} of {count} spans visited");
}

/// Ten thousand watchers on as many keys of 40 bytes, a hundred on each stream.
#[test]
fn an_idle_watcher_takes_little_memory() {
    const WATCHERS: usize = 10_000;
    const BYTES_MAX: usize = 350;
    assert!(size_of::<Option<Watcher>>() <= 48);
    assert!(size_of::<Response>() <= OVERHEAD_BYTES);

    for is_prefix in [false, true] {
        let mut hub = Hub::new(config(Limits::default()), 1, -1);
        let empty = hub.heap_bytes();
        for n in 0..WATCHERS {
            let stream = StreamId(n as u64 / 100);
            if n % 100 == 0 {
                hub.step(Time(0), Input::Open { stream, needs_leader: false, chance: 0 });
            }
            let key = Bytes::from(format!("/registry/pods/default/some-name-{n:07}"));
            assert_eq!(key.len(), 40);
            let range_end = if is_prefix { Span::prefix(key.clone()).end } else { None };
            let create = pb::watch_request::RequestUnion::CreateRequest(pb::WatchCreateRequest {
                key,
                range_end: range_end.unwrap_or_default(),
                ..Default::default()
            });
            hub.step(Time(0), Input::Request { stream, request: request(create), revision: 1 });
        }
        let each = (hub.heap_bytes() - empty) / WATCHERS;
        assert!(each < BYTES_MAX, "{each} bytes for each watcher");
        assert!(each > 150, "{each} bytes for each watcher cannot be true");

        for n in 0..WATCHERS as u64 / 100 {
            hub.step(Time(0), Input::Close { stream: StreamId(n) });
        }
        assert_eq!(hub.counts(), crate::watch::Counts::default());
    }
}
