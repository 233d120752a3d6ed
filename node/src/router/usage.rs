//! What the clients of this node ask for: counted on the workers, read by placement.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use flotilla_core::group::Chance;
use flotilla_core::load::Reservoir;

use super::Hot;

/// Keys of reads kept between two looks, about a second.
const READ_KEYS_MAX: usize = 256;

/// Counts since the start, and a sample of the keys that were read since the last look.
#[derive(Debug, Default)]
pub struct Usage {
    requests: AtomicU64,
    reads: AtomicU64,
    keys: Mutex<Reservoir>,
    hot: Hot,
}

impl Usage {
    /// A command of a client.
    pub fn count_command(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// A read of a client, of this key or of a span that begins there. While another worker is
    /// adding a key, this one is only counted.
    pub fn count_read(&self, key: &[u8]) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.reads.fetch_add(1, Ordering::Relaxed);
        if let Ok(mut keys) = self.keys.try_lock() {
            keys.offer(key, READ_KEYS_MAX, &mut Random);
        }
    }

    /// What is asked for most.
    pub fn hot(&self) -> &Hot {
        &self.hot
    }

    /// Commands and reads since the start.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Reads since the last call, and a sample of their keys.
    pub fn take_reads(&self) -> (u64, Vec<Bytes>) {
        let reads = self.reads.swap(0, Ordering::Relaxed);
        // What is behind the lock is replaced whole.
        let mut keys = self.keys.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        (reads, keys.take().0)
    }
}

struct Random;

impl Chance for Random {
    fn below(&mut self, bound: u64) -> u64 {
        rand::random_range(0..bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_are_all_counted_and_some_keys_kept() {
        let usage = Usage::default();
        for n in 0..1_000_u32 {
            usage.count_read(&n.to_be_bytes());
        }
        usage.count_command();
        assert_eq!(usage.requests(), 1_001);
        let (reads, keys) = usage.take_reads();
        assert_eq!((reads, keys.len()), (1_000, READ_KEYS_MAX));
        assert_eq!(usage.take_reads(), (0, Vec::new()));
    }
}
