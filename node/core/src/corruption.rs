//! Which member holds something else than the others, by checksums of the same state.

use std::collections::BTreeMap;

use crate::NodeId;
use crate::mvcc::Checksum;

/// What comes of a comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All that answered hold the same.
    Same,
    /// More than half of all members hold the same, and these something else.
    Wrong(Vec<NodeId>),
    /// Members differ, and no more than half of them agree: these differ from whoever compares.
    Undecided(Vec<NodeId>),
}

/// Compares what members hold of one state. `by` is who compares, and among them; `members_count` counts
/// those that did not answer as well.
///
/// # Panics
/// Who compares has no checksum.
pub fn compare(
    by: NodeId,
    checksums: &BTreeMap<NodeId, Checksum>,
    members_count: usize,
) -> Verdict {
    let own = checksums[&by];
    let differ_from = |sum: Checksum| -> Vec<NodeId> {
        checksums.iter().filter(|(_, other)| **other != sum).map(|(node, _)| *node).collect()
    };
    if differ_from(own).is_empty() {
        return Verdict::Same;
    }
    let count = |sum: &Checksum| checksums.values().filter(|other| *other == sum).count();
    match checksums.values().find(|sum| 2 * count(sum) > members_count) {
        Some(sum) => Verdict::Wrong(differ_from(*sum)),
        None => Verdict::Undecided(differ_from(own)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(sums: &[u32], members_count: usize) -> Verdict {
        let sum = |live: u32| Checksum { history: 7, live };
        let sums = (1..).map(NodeId).zip(sums.iter().copied().map(sum)).collect();
        compare(NodeId(1), &sums, members_count)
    }

    #[test]
    fn a_majority_of_all_members_decides() {
        let nodes = |ids: &[u64]| ids.iter().copied().map(NodeId).collect::<Vec<_>>();
        assert_eq!(verdict(&[5], 3), Verdict::Same);
        assert_eq!(verdict(&[5, 5, 5], 3), Verdict::Same);
        assert_eq!(verdict(&[5, 5, 6], 3), Verdict::Wrong(nodes(&[3])));
        assert_eq!(verdict(&[6, 5, 5], 3), Verdict::Wrong(nodes(&[1])), "who compares is wrong");
        assert_eq!(verdict(&[5, 5, 5, 6, 7], 5), Verdict::Wrong(nodes(&[4, 5])));
        // Who does not answer may hold anything.
        assert_eq!(verdict(&[5, 6], 3), Verdict::Undecided(nodes(&[2])));
        assert_eq!(verdict(&[5, 5, 6], 5), Verdict::Undecided(nodes(&[3])));
        assert_eq!(verdict(&[5, 6], 2), Verdict::Undecided(nodes(&[2])));
        assert_eq!(verdict(&[5, 6, 7], 3), Verdict::Undecided(nodes(&[2, 3])));
    }

    #[test]
    fn the_history_counts_as_what_is_read() {
        let sums = [(1, 1), (1, 1), (2, 1)].map(|(history, live)| Checksum { history, live });
        let sums = (1..).map(NodeId).zip(sums).collect();
        assert_eq!(compare(NodeId(1), &sums, 3), Verdict::Wrong(vec![NodeId(3)]));
    }
}
