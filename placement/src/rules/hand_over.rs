//! Hand over: who leads next when a leader stops on purpose.

/// A voter that could take over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Successor {
    /// Its node id.
    pub node: u64,
    /// How far its log agrees with the leader's.
    pub matched: u64,
}

/// The voter with most of the log, so that the hand-over takes one round; among equals the lowest
/// id. `None` when nobody else can lead.
pub fn successor(leader: u64, candidates: &[Successor]) -> Option<u64> {
    candidates
        .iter()
        .filter(|candidate| candidate.node != leader)
        .max_by_key(|candidate| (candidate.matched, std::cmp::Reverse(candidate.node)))
        .map(|candidate| candidate.node)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_of_the_log_wins_then_the_lowest_id() {
        let voter = |node, matched| Successor { node, matched };
        assert_eq!(successor(1, &[voter(1, 9), voter(2, 7), voter(3, 8)]), Some(3));
        assert_eq!(successor(1, &[voter(4, 8), voter(3, 8), voter(2, 7)]), Some(3));
        assert_eq!(successor(1, &[voter(1, 9)]), None);
    }
}
