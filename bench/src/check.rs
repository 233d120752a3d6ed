//! Whether answers are right: values echo, revisions rise, reads are not stale.
//!
//! It trusts only what this process wrote itself, so other clients do not upset it.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;

/// Bytes at the front of a value: a hash of its key and its writer's sequence number.
pub const MARK_BYTES: usize = 16;
/// Keys whose newest write is remembered.
const KEYS_MAX: usize = 1 << 20;
/// Wrong answers described in full.
const EXAMPLES_MAX: usize = 16;

/// What was wrong, with examples.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Violations {
    /// How many wrong answers.
    pub count: u64,
    /// The first of them.
    pub examples: Vec<String>,
}

/// The newest acknowledged write of a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Floor {
    /// Its mod revision.
    pub revision: i64,
    sequence: u64,
}

/// Keys are hashes already; hashing them again would only cost.
#[derive(Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        self.0 = hash(bytes);
    }
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// Remembers writes and judges reads. Shared by all slots.
#[derive(Default)]
pub struct Check {
    floors: Mutex<HashMap<u64, Option<Floor>, BuildHasherDefault<Identity>>>,
    violations: Mutex<Violations>,
    sequence: AtomicU64,
}

impl Check {
    /// A value of so many bytes for `key`, and its sequence number. Values shorter than the mark
    /// carry none and are not checked.
    pub fn value(&self, key: &[u8], bytes: usize) -> (Vec<u8>, u64) {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        let mut value = Vec::with_capacity(bytes.max(MARK_BYTES));
        value.extend_from_slice(&hash(key).to_le_bytes());
        value.extend_from_slice(&sequence.to_le_bytes());
        value.resize(bytes, b'v');
        (value, sequence)
    }

    /// What a linearizable read that starts now must at least see.
    pub fn floor(&self, key: &[u8]) -> Option<Floor> {
        lock(&self.floors).get(&hash(key)).copied().flatten()
    }

    /// From here on the key may vanish, so reads of it are not judged.
    pub fn forget(&self, key: &[u8]) {
        let mut floors = lock(&self.floors);
        if floors.len() < KEYS_MAX {
            floors.insert(hash(key), None);
        }
    }

    /// A write was acknowledged at `revision`.
    pub fn on_written(&self, key: &[u8], sequence: u64, revision: i64) {
        let mut floors = lock(&self.floors);
        let is_full = floors.len() >= KEYS_MAX;
        match floors.get_mut(&hash(key)) {
            Some(Some(floor)) if floor.revision < revision => *floor = Floor { revision, sequence },
            Some(_) => {}
            None if is_full => {}
            None => {
                floors.insert(hash(key), Some(Floor { revision, sequence }));
            }
        }
    }

    /// A read of one key was answered; `found` is its mod revision and value. `floor` is what
    /// `floor` said before the read, or nothing if the read may be stale.
    pub fn on_read(
        &self,
        key: &[u8],
        floor: Option<Floor>,
        found: Option<(i64, &[u8])>,
        revision: i64,
    ) {
        let Some((mod_revision, value)) = found else {
            if let Some(floor) = floor {
                self.wrong(|| {
                    format!("{} written at {} is gone at {revision}", show(key), floor.revision)
                });
            }
            return;
        };
        if mod_revision > revision {
            self.wrong(|| {
                format!("{} has revision {mod_revision} in an answer at {revision}", show(key))
            });
        }
        let marked = mark(value);
        if let Some(floor) = floor {
            if mod_revision < floor.revision {
                let newest = floor.revision;
                self.wrong(|| {
                    format!("stale read of {}: {mod_revision} after {newest}", show(key))
                });
            }
            if let Some((_, sequence)) = marked
                && mod_revision == floor.revision
                && sequence != floor.sequence
            {
                self.wrong(|| {
                    format!("{} at {mod_revision} has another value than written", show(key))
                });
            }
        }
        if let Some((of, _)) = marked
            && of != hash(key)
            && self.is_ours(key)
        {
            self.wrong(|| format!("{} has the value of another key", show(key)));
        }
    }

    fn is_ours(&self, key: &[u8]) -> bool {
        lock(&self.floors).contains_key(&hash(key))
    }

    /// Counts a wrong answer.
    pub fn wrong(&self, describe: impl FnOnce() -> String) {
        let mut violations = lock(&self.violations);
        violations.count += 1;
        if violations.examples.len() < EXAMPLES_MAX {
            violations.examples.push(describe());
        }
    }

    /// What was wrong so far.
    pub fn violations(&self) -> Violations {
        lock(&self.violations).clone()
    }
}

/// A key as text.
fn show(key: &[u8]) -> String {
    String::from_utf8_lossy(key).into_owned()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// FNV-1a.
fn hash(key: &[u8]) -> u64 {
    key.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn mark(value: &[u8]) -> Option<(u64, u64)> {
    let number = |bytes: &[u8]| Some(u64::from_le_bytes(bytes.try_into().ok()?));
    Some((number(value.get(..8)?)?, number(value.get(8..MARK_BYTES)?)?))
}

/// Events of one watch: revisions never fall and no version of a key is skipped.
#[derive(Clone, Debug, Default)]
pub struct WatchCheck {
    newest_revision: i64,
    versions: HashMap<Vec<u8>, i64>,
}

impl WatchCheck {
    /// Judges a put event: `version` counts the puts of `key`.
    pub fn on_put(&mut self, check: &Check, key: &[u8], mod_revision: i64, version: i64) {
        self.rise(check, mod_revision);
        match self.versions.get_mut(key) {
            Some(last) => {
                if version != *last + 1 {
                    let last = *last;
                    check.wrong(|| {
                        format!("watch of {}: version {version} after {last}", show(key))
                    });
                }
                *last = version;
            }
            None => {
                self.versions.insert(key.to_vec(), version);
            }
        }
    }

    /// Judges a delete event. The next put of `key` is its first.
    pub fn on_delete(&mut self, check: &Check, key: &[u8], mod_revision: i64) {
        self.rise(check, mod_revision);
        if let Some(last) = self.versions.get_mut(key) {
            *last = 0;
        }
    }

    fn rise(&mut self, check: &Check, mod_revision: i64) {
        if mod_revision < self.newest_revision {
            let newest = self.newest_revision;
            check.wrong(|| format!("watch went back from {newest} to {mod_revision}"));
        }
        self.newest_revision = mod_revision;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echoed_value_is_right_and_others_are_not() {
        let check = Check::default();
        let (value, sequence) = check.value(b"a", 256);
        assert_eq!(value.len(), 256);
        check.on_written(b"a", sequence, 10);
        check.on_read(b"a", check.floor(b"a"), Some((10, &value)), 12);
        assert_eq!(check.violations().count, 0);

        check.on_read(b"a", check.floor(b"a"), Some((9, &value)), 12);
        assert_eq!(check.violations().count, 1, "stale");
        check.on_read(b"a", check.floor(b"a"), None, 12);
        assert_eq!(check.violations().count, 2, "gone");
        let (other, _) = check.value(b"b", 256);
        check.on_read(b"a", None, Some((11, &other)), 12);
        assert_eq!(check.violations().count, 3, "value of another key");
        check.on_read(b"a", None, Some((13, &value)), 12);
        assert_eq!(check.violations().count, 4, "newer than its answer");
    }

    #[test]
    fn a_key_that_may_vanish_has_no_floor() {
        let check = Check::default();
        check.on_written(b"a", 1, 10);
        check.forget(b"a");
        check.on_written(b"a", 2, 11);
        assert_eq!(check.floor(b"a"), None);
    }

    #[test]
    fn a_gap_in_a_watch_is_found() {
        let check = Check::default();
        let mut watch = WatchCheck::default();
        watch.on_put(&check, b"a", 5, 3);
        watch.on_put(&check, b"b", 5, 1);
        watch.on_put(&check, b"a", 6, 4);
        assert_eq!(check.violations().count, 0);
        watch.on_put(&check, b"a", 8, 6);
        assert_eq!(check.violations().count, 1, "version 5 is missing");
        watch.on_put(&check, b"b", 7, 2);
        assert_eq!(check.violations().count, 2, "revision fell");
        watch.on_delete(&check, b"a", 9);
        watch.on_put(&check, b"a", 10, 1);
        assert_eq!(check.violations().count, 2, "a key begins again after its delete");
    }
}
