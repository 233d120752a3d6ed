//! Promise: all replicas hold the same bytes. Two hashes of the same revision at the same compact
//! revision are equal, whoever computed them and whenever.

use std::collections::BTreeMap;

use crate::check::violation::Violation;
use crate::history::ReplicaHash;

/// Compares each hash with the first one of its revision and compact revision.
pub fn check(hashes: &[ReplicaHash]) -> Result<(), Violation> {
    let mut first_of: BTreeMap<(i64, i64), &ReplicaHash> = BTreeMap::new();
    for second in hashes {
        let name = (second.revision, second.compact_revision);
        let first = *first_of.entry(name).or_insert(second);
        if first.hash != second.hash {
            return Err(Violation::ReplicasDiffer {
                revision: second.revision,
                compact_revision: second.compact_revision,
                first: first.replica.clone(),
                first_hash: first.hash,
                second: second.replica.clone(),
                second_hash: second.hash,
            });
        }
    }
    Ok(())
}
