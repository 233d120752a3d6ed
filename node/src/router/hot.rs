//! Which keys and prefixes the clients of this node ask for most, and which clients ask most: bounded
//! counts of a sample of the requests, for operators.
//!
//! Each is a space-saving sketch (Metwally, Agrawal and El Abbadi, "Efficient computation of frequent
//! and top-k elements in data streams", 2005): when there is no room for a new name it takes the place
//! and the count of the one with the smallest, and remembers how much of the count is not its own.
//! What has more than a share of 1 in `NAMES_MAX` is never missing.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use flotilla_core::proto::internal::{HotItem, HotResponse};

/// Requests that share one look.
pub const REQUESTS_PER_LOOK: u32 = 16;
/// Names that a sketch counts.
const NAMES_MAX: usize = 256;
/// Bytes of a name that are kept: longer ones that begin alike count as one.
const NAME_BYTES_MAX: usize = 256;
/// Keys of one request that are looked at.
const KEYS_PER_REQUEST_MAX: usize = 16;
/// Prefixes of a key that are counted, the shortest ones.
const PREFIXES_PER_KEY_MAX: usize = 4;
/// All counts are halved so often: what was asked for before fades.
const HALVED_AFTER: Duration = Duration::from_secs(30);
/// Names that are told of each kind.
const TOLD_MAX: usize = 20;

/// What is asked for most, for every thread.
#[derive(Debug)]
pub struct Hot(Mutex<Counts>);

#[derive(Debug)]
struct Counts {
    keys: Sketch,
    prefixes: Sketch,
    clients: Sketch,
    /// The seconds that the counts stand for, without those since they were halved last.
    seconds: f64,
    halved: Instant,
}

impl Default for Hot {
    fn default() -> Self {
        Self(Mutex::new(Counts {
            keys: Sketch::default(),
            prefixes: Sketch::default(),
            clients: Sketch::default(),
            seconds: 0.0,
            halved: Instant::now(),
        }))
    }
}

impl Hot {
    /// One of the requests that are looked at: of these keys, by this client. While another worker
    /// is counting, it is not counted.
    pub fn see<'k>(&self, client: &str, keys: impl Iterator<Item = &'k [u8]>) {
        let Ok(mut counts) = self.0.try_lock() else { return };
        counts.fade(Instant::now());
        counts.clients.count(client.as_bytes());
        for key in keys.take(KEYS_PER_REQUEST_MAX) {
            counts.keys.count(key);
            for prefix in prefixes(key) {
                counts.prefixes.count(prefix);
            }
        }
    }

    /// What is asked for most.
    pub fn told(&self) -> HotResponse {
        // What is behind the lock is whole after each count.
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.told(Instant::now())
    }
}

impl Counts {
    fn fade(&mut self, now: Instant) {
        while now.saturating_duration_since(self.halved) >= HALVED_AFTER {
            self.halved += HALVED_AFTER;
            self.seconds = (self.seconds + HALVED_AFTER.as_secs_f64()) / 2.0;
            for sketch in [&mut self.keys, &mut self.prefixes, &mut self.clients] {
                sketch.halve();
            }
            if self.keys.names.is_empty() && self.clients.names.is_empty() {
                // Nothing was asked for a long time.
                (self.seconds, self.halved) = (HALVED_AFTER.as_secs_f64(), now);
            }
        }
    }

    fn told(&mut self, now: Instant) -> HotResponse {
        self.fade(now);
        let seconds = self.seconds + now.saturating_duration_since(self.halved).as_secs_f64();
        let per_count = f64::from(REQUESTS_PER_LOOK) / seconds.max(1.0);
        let [keys, prefixes, clients] =
            [&self.keys, &self.prefixes, &self.clients].map(|sketch| sketch.top(per_count));
        HotResponse { keys, prefixes, clients }
    }
}

/// What several members told of one kind, added up, those with most first.
pub fn added_up<'i>(items: impl Iterator<Item = &'i HotItem>) -> Vec<HotItem> {
    let mut sums: BTreeMap<&Bytes, HotItem> = BTreeMap::new();
    for item in items {
        let sum = sums.entry(&item.name).or_default();
        sum.per_second += item.per_second;
        sum.uncertain_per_second += item.uncertain_per_second;
    }
    let mut sums: Vec<HotItem> =
        sums.into_iter().map(|(name, sum)| HotItem { name: name.clone(), ..sum }).collect();
    sums.sort_by(|a, b| b.per_second.total_cmp(&a.per_second));
    sums
}

/// Names and how often each was seen.
#[derive(Debug, Default)]
struct Sketch {
    names: HashMap<Bytes, Count>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    seen: u64,
    /// So many of them may have been other names.
    uncertain: u64,
}

impl Sketch {
    fn count(&mut self, name: &[u8]) {
        let name = &name[..name.len().min(NAME_BYTES_MAX)];
        if let Some(count) = self.names.get_mut(name) {
            count.seen += 1;
            return;
        }
        let mut count = Count { seen: 1, uncertain: 0 };
        if self.names.len() >= NAMES_MAX
            && let Some(least) = self.names.iter().min_by_key(|(_, count)| count.seen)
        {
            let (least, seen) = (least.0.clone(), least.1.seen);
            self.names.remove(&least);
            count = Count { seen: seen + 1, uncertain: seen };
        }
        self.names.insert(Bytes::copy_from_slice(name), count);
    }

    fn halve(&mut self) {
        self.names.retain(|_, count| {
            count.seen /= 2;
            count.uncertain /= 2;
            count.seen > 0
        });
    }

    fn top(&self, per_count: f64) -> Vec<HotItem> {
        let mut all: Vec<(&Bytes, &Count)> = self.names.iter().collect();
        // Counts that are sure come before those that are not; then by name, so that the order rests.
        all.sort_by_key(|(name, count)| (std::cmp::Reverse(count.seen), count.uncertain, *name));
        all.truncate(TOLD_MAX);
        let told = all.into_iter().map(|(name, count)| HotItem {
            name: name.clone(),
            per_second: count.seen as f64 * per_count,
            uncertain_per_second: count.uncertain as f64 * per_count,
        });
        told.collect()
    }
}

/// What comes before each of a key's slashes, with the slash.
fn prefixes(key: &[u8]) -> impl Iterator<Item = &[u8]> {
    let slashes = key.iter().enumerate().filter(|(at, byte)| **byte == b'/' && *at > 0);
    slashes.map(|(at, _)| &key[..=at]).take(PREFIXES_PER_KEY_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(items: &[HotItem]) -> Vec<&[u8]> {
        items.iter().map(|item| &item.name[..]).collect()
    }

    #[test]
    fn what_is_asked_for_most_comes_first() {
        let hot = Hot::default();
        for n in 0..50 {
            hot.see("10.0.0.1", [&b"/a/b/hot"[..]].into_iter());
            let cold = format!("/a/c/{n}");
            hot.see("10.0.0.2", [cold.as_bytes()].into_iter());
            hot.see("10.0.0.1", std::iter::empty());
        }
        let told = hot.told();
        assert_eq!(names(&told.keys)[0], b"/a/b/hot");
        assert_eq!(told.keys.len(), TOLD_MAX);
        assert_eq!(names(&told.prefixes), [&b"/a/"[..], b"/a/b/", b"/a/c/"]);
        assert_eq!(names(&told.clients), [&b"10.0.0.1"[..], b"10.0.0.2"]);
        assert_eq!(told.clients[0].per_second, 2.0 * told.clients[1].per_second);
    }

    #[test]
    fn memory_is_bounded_and_the_frequent_are_never_missing() {
        let hot = Hot::default();
        let long = vec![b'x'; 2 * NAME_BYTES_MAX];
        for n in 0..20_000_u32 {
            // One in fifty is of the same key; the others are each asked for once.
            let key = format!("{:0500}", if n % 50 == 0 { u32::MAX } else { n });
            hot.see("c", [&key.as_bytes()[400..], &long].into_iter());
        }
        let mut counts = hot.0.lock().expect("nobody panicked");
        assert_eq!(counts.keys.names.len(), NAMES_MAX);
        assert!(counts.keys.names.keys().all(|name| name.len() <= NAME_BYTES_MAX));
        let told = counts.told(Instant::now());
        assert!(told.keys[1].name.ends_with(u32::MAX.to_string().as_bytes()));
        let sure = told.keys[1].per_second - told.keys[1].uncertain_per_second;
        assert!(sure > 0.0 && sure <= told.keys[1].per_second, "{told:?}");
    }

    #[test]
    fn a_key_has_no_more_prefixes_than_are_counted() {
        let of = |key: &'static str| prefixes(key.as_bytes()).collect::<Vec<_>>();
        assert_eq!(of("/a/b"), [b"/a/"]);
        assert_eq!(of("a/"), [b"a/"]);
        assert!(of("a").is_empty() && of("/").is_empty() && of("").is_empty());
        assert_eq!(of("/1/2/3/4/5/6").len(), PREFIXES_PER_KEY_MAX);
    }

    #[test]
    fn what_is_not_asked_for_any_more_fades() {
        let hot = Hot::default();
        for _ in 0..64 {
            hot.see("c", [&b"a"[..]].into_iter());
        }
        let mut counts = hot.0.lock().expect("nobody panicked");
        let began = counts.halved;
        let after = |halves: u32| began + HALVED_AFTER * halves;
        let rate = |told: HotResponse| told.keys.first().map(|item| item.per_second);
        let first = rate(counts.told(after(1))).expect("it is known");
        // 32 of 15 seconds are what 64 of 30 were.
        assert_eq!(first, 32.0 * f64::from(REQUESTS_PER_LOOK) / 15.0);
        let second = rate(counts.told(after(2))).expect("it is known");
        assert!(second < first / 2.0 + 1.0, "{first} and {second}");
        assert_eq!(rate(counts.told(after(7))), None);
        assert_eq!(rate(counts.told(after(1_000_000))), None, "and it does not take long");
    }
}
