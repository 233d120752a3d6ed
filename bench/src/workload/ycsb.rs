//! The core workloads A to F of the Yahoo! Cloud Serving Benchmark.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::bail;

use super::{Fill, Parameters, Plan, Source};
use crate::keys::{Keyspace, ValueLength, scatter};
use crate::operation::{Op, Span, end_of};
use crate::random::Random;
use crate::zipf::Zipf;

/// YCSB's zipfian exponent.
const EXPONENT: f64 = 0.99;
/// Keys a scan returns at most; YCSB draws uniformly up to this.
const SCAN_KEYS_MAX: u64 = 100;

/// Percent of each operation.
#[derive(Clone, Copy)]
struct Mix {
    reads: u64,
    updates: u64,
    scans: u64,
    modifies: u64,
    reads_latest: bool,
}

struct Ycsb {
    keyspace: Keyspace,
    value: ValueLength,
    zipf: Zipf,
    mix: Mix,
    /// Keys there are; inserts of all slots add to it.
    inserted: Arc<AtomicU64>,
}

impl Ycsb {
    fn number(&self, random: &mut Random) -> u64 {
        let rank = self.zipf.draw(random);
        if self.mix.reads_latest {
            return (self.inserted.load(Ordering::Relaxed) - 1).saturating_sub(rank);
        }
        scatter(rank) % self.keyspace.count
    }
}

impl Source for Ycsb {
    fn next(&mut self, random: &mut Random) -> Op {
        let draw = random.below(100);
        let key = self.keyspace.key(self.number(random));
        let Mix { reads, updates, scans, modifies, .. } = self.mix;
        if draw < reads {
            return Op::Get { key, is_serializable: false };
        }
        let value_bytes = self.value.draw(random);
        if draw < reads + updates {
            return Op::Put { key, value_bytes, lease: 0 };
        }
        if draw < reads + updates + scans {
            let limit = 1 + random.below(SCAN_KEYS_MAX) as i64;
            return Op::List(Span {
                key,
                end: end_of(&self.keyspace.prefix),
                limit,
                ..Span::default()
            });
        }
        if draw < reads + updates + scans + modifies {
            return Op::Update { key, value_bytes };
        }
        let number = self.inserted.fetch_add(1, Ordering::Relaxed);
        Op::Put { key: self.keyspace.key(number), value_bytes, lease: 0 }
    }
}

/// The workload of this letter.
///
/// # Errors
/// No such letter.
pub(super) fn plan(letter: &str, parameters: &Parameters) -> anyhow::Result<Plan> {
    let none = Mix { reads: 0, updates: 0, scans: 0, modifies: 0, reads_latest: false };
    let mix = match letter {
        "a" => Mix { reads: 50, updates: 50, ..none },
        "b" => Mix { reads: 95, updates: 5, ..none },
        "c" => Mix { reads: 100, ..none },
        "d" => Mix { reads: 95, reads_latest: true, ..none },
        "e" => Mix { scans: 95, ..none },
        "f" => Mix { reads: 50, modifies: 50, ..none },
        _ => bail!("YCSB has the workloads a to f"),
    };
    let mut keyspace = parameters.keyspace()?;
    keyspace.prefix.push_str("ycsb/");
    let value = parameters.value;
    let fill = vec![Fill { keyspace: keyspace.clone(), value }];
    let inserted = Arc::new(AtomicU64::new(keyspace.count));
    let zipf = Zipf::new(keyspace.count, EXPONENT);
    Ok(Plan::new(&format!("ycsb-{letter}"), fill, move |_| Ycsb {
        keyspace: keyspace.clone(),
        value,
        zipf: zipf.clone(),
        mix,
        inserted: inserted.clone(),
    }))
}
