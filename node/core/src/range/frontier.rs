//! How far a node may show its state: up to a revision, everything on this node is there. Ranges
//! apply in their own time; a reader or a watcher must not see a later write without an earlier
//! one (I10).

use std::collections::{BTreeMap, VecDeque};

use crate::GroupId;
use crate::command::RequestId;
use crate::mvcc::Head;

/// The frontier of a node that holds a replica of some ranges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frontier {
    head: Head,
    index: u64,
    /// Up to where each range with a replica here is applied.
    applied: BTreeMap<GroupId, Place>,
    /// Folded and not shown yet: in order of the spine's index.
    ahead: VecDeque<Step>,
}

/// A place in the log of a range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Sequence number of the last write.
    pub seq: u64,
    /// Index of the last entry.
    pub index: u64,
}

impl Place {
    /// Wherever the write of this sequence number is.
    pub fn of_write(seq: u64) -> Self {
        Self { seq, index: 0 }
    }

    fn reaches(self, other: Self) -> bool {
        self.seq >= other.seq && self.index >= other.index
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Step {
    index: u64,
    head: Head,
    /// What must be applied first.
    needs: Vec<(GroupId, Place)>,
    /// Changes of transactions that must be applied first.
    needs_txns: Vec<(GroupId, RequestId)>,
}

impl Frontier {
    /// A node whose store shows everything up to `head`, the state after the spine's `index`.
    pub fn new(index: u64, head: Head) -> Self {
        Self { head, index, applied: BTreeMap::new(), ahead: VecDeque::new() }
    }

    /// A replica of a range is here and stands at this place, or has come so far.
    pub fn set_applied(&mut self, range: GroupId, place: Place) {
        let applied = self.applied.entry(range).or_default();
        if place.reaches(*applied) {
            *applied = place;
        }
        self.advance();
    }

    /// A transaction's changes in a range are applied here.
    pub fn set_resolved(&mut self, range: GroupId, id: RequestId) {
        for step in &mut self.ahead {
            step.needs_txns.retain(|need| *need != (range, id));
        }
        self.advance();
    }

    /// The replica of a range has left the node; what is left of it is not waited for.
    pub fn remove(&mut self, range: GroupId) {
        self.applied.remove(&range);
        self.advance();
    }

    /// The spine was folded and applied up to an index, by which writes of ranges were numbered
    /// up to these places, and these transactions committed whose changes in a range are
    /// not here yet (`Stored::tells_of`).
    pub fn fold(
        &mut self,
        index: u64,
        head: Head,
        assigned: Vec<(GroupId, Place)>,
        txns: Vec<(GroupId, RequestId)>,
    ) {
        let last = self.ahead.back().map_or(self.index, |step| step.index);
        assert!(index > last, "the spine is folded in order: {index} after {last}");
        self.ahead.push_back(Step { index, head, needs: assigned, needs_txns: txns });
        self.advance();
    }

    /// What may be shown.
    pub fn head(&self) -> Head {
        self.head
    }

    /// The spine's index that it stands at.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// What the next step waits for.
    pub fn wants(&self) -> String {
        let Some(step) = self.ahead.front() else { return "nothing".to_owned() };
        format!("{:?} and {:?} for {}", step.needs, step.needs_txns, step.index)
    }

    fn advance(&mut self) {
        while let Some(step) = self.ahead.front() {
            let is_there = step.needs.iter().all(|(range, place)| {
                // A range without a replica here is read elsewhere.
                self.applied.get(range).is_none_or(|applied| applied.reaches(*place))
            });
            let is_whole =
                step.needs_txns.iter().all(|(range, _)| !self.applied.contains_key(range));
            if !is_there || !is_whole {
                return;
            }
            let step = self.ahead.pop_front().expect("there is a front");
            (self.index, self.head) = (step.index, step.head);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(revision: i64) -> Head {
        Head { revision, compact_revision: -1 }
    }

    #[test]
    fn nothing_is_shown_before_all_that_comes_before_it() {
        let mut frontier = Frontier::new(1, head(1));
        let (one, two) = (GroupId(1), GroupId(2));
        frontier.set_applied(one, Place::of_write(0));
        frontier.set_applied(two, Place::of_write(0));
        frontier.fold(2, head(3), vec![(one, Place::of_write(2))], Vec::new());
        frontier.fold(
            3,
            head(4),
            vec![(two, Place::of_write(1)), (GroupId(9), Place::of_write(50))],
            Vec::new(),
        );
        frontier.fold(4, head(4), Vec::new(), Vec::new());
        assert_eq!((frontier.index(), frontier.head()), (1, head(1)));
        frontier.set_applied(two, Place::of_write(1));
        assert_eq!(frontier.index(), 1, "range 1 comes first");
        frontier.set_applied(one, Place::of_write(1));
        assert_eq!(frontier.index(), 1, "half of an entry");
        frontier.set_applied(one, Place::of_write(2));
        assert_eq!((frontier.index(), frontier.head()), (4, head(4)));
        frontier.fold(5, head(5), vec![(one, Place::of_write(3))], Vec::new());
        assert_eq!(frontier.index(), 4);
        frontier.remove(one);
        assert_eq!(frontier.index(), 5);

        let txn = |n| RequestId { origin: 1, n };
        frontier.fold(6, head(6), Vec::new(), vec![(two, txn(1)), (GroupId(9), txn(1))]);
        frontier.set_resolved(two, txn(2));
        assert_eq!(frontier.index(), 5, "another");
        frontier.set_resolved(two, txn(1));
        assert_eq!(frontier.index(), 6);
    }
}
