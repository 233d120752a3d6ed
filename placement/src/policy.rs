//! Every number that placement goes by, each with its unit and a default that fits most clusters.

use std::collections::BTreeSet;

/// What an operator wants of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Voters that every range should have.
    pub replicas_count: usize,
    /// Voters that the spine should have at most; made odd when there are more nodes than this.
    pub spine_voters_max: usize,

    /// A node silent for this long, in milliseconds, is taken for dead.
    pub silent_ms_max: u64,
    /// A node silent for this long, in milliseconds, is given nothing new.
    pub silent_ms_doubt: u64,
    /// Per cent of its capacity that a node may use and still receive replicas.
    pub node_used_percent_max: u64,

    /// Replicas are made, moved and taken away. Without it every node is left what it has, and only
    /// leaders move.
    pub is_moving_replicas: bool,
    /// Votes of the spine are given and taken.
    pub is_moving_votes: bool,
    /// Replicas that may catch up at once in the cluster.
    pub moves_max: usize,
    /// Replicas that one node may send and receive at once.
    pub moves_per_node_max: usize,
    /// Learners that one range may have, so that a replica that cannot catch up does not keep a
    /// range from trying another node.
    pub learners_per_range_max: usize,
    /// Entries that a replica may be behind and still become a voter or lead.
    pub lag_entries_max: u64,
    /// Milliseconds after which a learner that still lags is no longer waited for.
    pub learner_patience_ms: u64,
    /// Leaders moved by one plan.
    pub transfers_max: usize,
    /// Steps of one plan.
    pub steps_max: usize,
    /// Complaints of one plan; the rest is counted.
    pub complaints_max: usize,

    /// Split what is too large or too hot. Without it only an operator splits.
    pub is_auto_split: bool,
    /// Bytes above which a range is split.
    pub split_bytes: u64,
    /// Keys above which a range is split.
    pub split_keys: u64,
    /// Writes in a second above which a range is split.
    pub split_writes_per_second: u64,
    /// Written bytes in a second above which a range is split.
    pub split_write_bytes_per_second: u64,
    /// Reads in a second above which a range is split.
    pub split_reads_per_second: u64,
    /// Milliseconds that a new range is left alone before its load is believed.
    pub split_hot_age_ms: u64,
    /// Splits and merges under way at once in the cluster.
    pub splits_max: usize,
    /// Ranges that the cluster may have.
    pub ranges_max: usize,

    /// Merge small neighbours. Without it only an operator merges.
    pub is_auto_merge: bool,
    /// Bytes that two ranges may have together and still be merged. This and the other limits of
    /// merging lie far below half of those of splitting, so that the two never alternate.
    pub merge_bytes: u64,
    /// Keys, likewise.
    pub merge_keys: u64,
    /// Writes in a second, likewise.
    pub merge_writes_per_second: u64,
    /// Written bytes in a second, likewise.
    pub merge_write_bytes_per_second: u64,
    /// Reads in a second, likewise.
    pub merge_reads_per_second: u64,
    /// Milliseconds that both must have been quiet.
    pub merge_quiet_ms: u64,
    /// Milliseconds that both must have existed.
    pub merge_age_ms: u64,
    /// Borders that were asked for and are never merged away: first keys of ranges.
    pub borders_fixed: BTreeSet<Vec<u8>>,

    /// Bytes that an empty replica counts for, beside its own, when nodes are compared.
    pub replica_base_bytes: u64,
    /// Per cent of the mean by which nodes may differ before a replica is moved.
    pub balance_replicas_percent: u64,
    /// Requests in a second that leading an idle range counts for when leaders are compared.
    pub leader_base_requests_per_second: u64,
    /// Per cent of the mean by which nodes may differ before a leader is moved.
    pub balance_leaders_percent: u64,
    /// Per cent by which another node must lead more writes before the spine's leader moves there.
    pub follow_load_percent: u64,
    /// Writes in a second by which it must lead more as well.
    pub follow_load_writes_per_second: u64,
}

const MIB: u64 = 1 << 20;
const MINUTE_MS: u64 = 60_000;

impl Default for Policy {
    fn default() -> Self {
        Self {
            replicas_count: 3,
            spine_voters_max: 5,
            silent_ms_max: 30_000,
            silent_ms_doubt: 10_000,
            node_used_percent_max: 85,
            is_moving_replicas: true,
            is_moving_votes: true,
            moves_max: 8,
            moves_per_node_max: 2,
            learners_per_range_max: 2,
            lag_entries_max: 1_000,
            learner_patience_ms: 30 * MINUTE_MS,
            transfers_max: 16,
            steps_max: 64,
            complaints_max: 100,
            is_auto_split: true,
            split_bytes: 256 * MIB,
            split_keys: 1_000_000,
            split_writes_per_second: 20_000,
            split_write_bytes_per_second: 64 * MIB,
            split_reads_per_second: 100_000,
            split_hot_age_ms: MINUTE_MS,
            splits_max: 4,
            ranges_max: 20_000,
            is_auto_merge: true,
            merge_bytes: 32 * MIB,
            merge_keys: 125_000,
            merge_writes_per_second: 500,
            merge_write_bytes_per_second: MIB,
            merge_reads_per_second: 2_500,
            merge_quiet_ms: 10 * MINUTE_MS,
            merge_age_ms: 60 * MINUTE_MS,
            borders_fixed: BTreeSet::new(),
            replica_base_bytes: 16 * MIB,
            balance_replicas_percent: 10,
            leader_base_requests_per_second: 100,
            balance_leaders_percent: 10,
            follow_load_percent: 50,
            follow_load_writes_per_second: 1_000,
        }
    }
}

impl Policy {
    /// Voters that the spine should have when this many nodes can vote: all of them up to the
    /// limit, beyond it an odd number, which survives as many failures as the even one above it.
    pub fn spine_voters_count(&self, nodes_count: usize) -> usize {
        let voters_max = self.spine_voters_max.max(1);
        if nodes_count <= voters_max { nodes_count } else { voters_max - (voters_max + 1) % 2 }
    }

    /// What is wrong with it, for whoever reads it from a configuration. A plan can be made by any
    /// policy; a wrong one only makes a poor plan.
    ///
    /// # Errors
    /// A number is out of its bounds.
    pub fn validate(&self) -> Result<(), &'static str> {
        let limits = [
            self.replicas_count,
            self.spine_voters_max,
            self.moves_max,
            self.moves_per_node_max,
            self.learners_per_range_max,
            self.transfers_max,
            self.steps_max,
            self.splits_max,
            self.ranges_max,
        ];
        if limits.contains(&0) {
            return Err("a count must be at least 1");
        }
        if self.silent_ms_doubt > self.silent_ms_max {
            return Err("silent_ms_doubt must not be above silent_ms_max");
        }
        let pairs = [
            (self.merge_bytes, self.split_bytes),
            (self.merge_keys, self.split_keys),
            (self.merge_writes_per_second, self.split_writes_per_second),
            (self.merge_write_bytes_per_second, self.split_write_bytes_per_second),
            (self.merge_reads_per_second, self.split_reads_per_second),
        ];
        if pairs.iter().any(|(merge, split)| *merge > split / 2) {
            return Err("a limit of merging must not be above half of that of splitting");
        }
        if self.node_used_percent_max > 100 {
            return Err("node_used_percent_max must not be above 100");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid_and_split_and_merge_are_kept_apart() {
        let policy = Policy::default();
        assert_eq!(policy.validate(), Ok(()));
        let close = Policy { merge_bytes: policy.split_bytes / 2 + 1, ..policy.clone() };
        assert!(close.validate().is_err());
        let none = Policy { moves_max: 0, ..policy };
        assert!(none.validate().is_err());
    }

    #[test]
    fn small_clusters_all_vote_and_large_ones_vote_in_odd_numbers() {
        let policy = Policy::default();
        let counts: Vec<usize> = (0..8).map(|nodes| policy.spine_voters_count(nodes)).collect();
        assert_eq!(counts, [0, 1, 2, 3, 4, 5, 5, 5]);
        let even = Policy { spine_voters_max: 4, ..policy };
        assert_eq!((even.spine_voters_count(4), even.spine_voters_count(5)), (4, 3));
    }
}
