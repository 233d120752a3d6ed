//! How far a node may show its state: up to a revision, everything on this node is there. Ranges
//! apply in their own time; a reader or a watcher must not see a later write without an earlier
//! one (I10).
//!
//! A replica that was just started, or filled by a snapshot, is behind what the node shows already,
//! and the node does not wait for it. Until it has everything, the keys of its range are not shown
//! here. From then on the node goes on only together with it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::GroupId;
use crate::command::RequestId;
use crate::mutant::{self, Mutant};
use crate::mvcc::Head;
use crate::range::stored::Stored;

/// A transaction's changes in one range: its name, and the index at which its keys are locked.
pub type ShareOf = (RequestId, u64);

/// The frontier of a node that holds a replica of some ranges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frontier {
    head: Head,
    index: u64,
    /// The ranges with a replica here.
    replicas: BTreeMap<GroupId, Standing>,
    /// Those of them that are not shown. A node may hold very many that are.
    lacking: BTreeSet<GroupId>,
    /// Folded and not shown yet: in order of the spine's index.
    ahead: VecDeque<Step>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Standing {
    /// Sequence number up to which the range is applied.
    applied: u64,
    /// What must be there before the range is shown; `None` when it is.
    lacks: Option<Lacks>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Lacks {
    is_caught_up: bool,
    seq: u64,
    txns: Vec<ShareOf>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Step {
    index: u64,
    head: Head,
    /// What must be applied first.
    needs: Vec<(GroupId, u64)>,
    /// Changes of transactions that must be applied first.
    needs_txns: Vec<(GroupId, ShareOf)>,
}

impl Frontier {
    /// A node whose store shows everything up to `head`, the state after the spine's `index`. No
    /// range is shown yet.
    pub fn new(index: u64, head: Head) -> Self {
        let (replicas, lacking) = (BTreeMap::new(), BTreeSet::new());
        Self { head, index, replicas, lacking, ahead: VecDeque::new() }
    }

    /// A replica of a range is here that may lack anything: it was started, or is about to be
    /// replaced by a snapshot. `open` are the committed transactions of which the spine's state,
    /// as it is folded here, does not know that the range's log tells of them, and of which the
    /// replica's state does not tell either. Call this before the replica is told to
    /// start, or of `SnapshotInstalled`: it finds out by itself when it has what came before.
    pub fn join(&mut self, range: GroupId, open: Vec<ShareOf>) {
        let standing = self.replicas.entry(range).or_default();
        standing.lacks = Some(Lacks { is_caught_up: false, seq: 0, txns: open });
        self.lacking.insert(range);
        self.advance();
    }

    /// A replica of a range that begins with the spine's next entry is here, or will be: what it
    /// has to have by then, others have applied here.
    pub fn begin(&mut self, range: GroupId) {
        self.replicas.entry(range).or_default();
    }

    /// Whether there is a replica of the range here, or will be.
    pub fn knows(&self, range: GroupId) -> bool {
        self.replicas.contains_key(&range)
    }

    /// The ranges with a replica here.
    pub fn ranges(&self) -> impl Iterator<Item = GroupId> {
        self.replicas.keys().copied()
    }

    /// The replica of a range finds out anew whether it has everything.
    pub fn rejoin(&mut self, range: GroupId) {
        let standing = self.replicas.entry(range).or_default();
        standing.lacks.get_or_insert_default().is_caught_up = false;
        self.lacking.insert(range);
    }

    /// The replica of a range has everything that was numbered or decided when it joined
    /// (`Effect::CaughtUp`).
    pub fn set_caught_up(&mut self, range: GroupId) {
        if let Some(lacks) = self.replicas.get_mut(&range).and_then(|it| it.lacks.as_mut()) {
            lacks.is_caught_up = true;
        }
        self.advance_with(range);
    }

    /// The replica of a range was replaced by a snapshot, or is as it was stored.
    pub fn set_stored(&mut self, range: GroupId, stored: &Stored) {
        for step in &mut self.ahead {
            step.needs_txns.retain(|(of, (id, at))| *of != range || !stored.tells_of(*id, *at));
        }
        if let Some(lacks) = self.replicas.get_mut(&range).and_then(|it| it.lacks.as_mut()) {
            lacks.txns.retain(|(id, at)| !stored.tells_of(*id, *at));
        }
        self.set_applied(range, stored.position.seq);
    }

    /// The replica of a range has come so far. Nothing is known of a range that has no replica here,
    /// such as one that has left while its last writes were applied.
    pub fn set_applied(&mut self, range: GroupId, seq: u64) {
        if let Some(standing) = self.replicas.get_mut(&range) {
            standing.applied = seq.max(standing.applied);
        }
        self.advance_with(range);
    }

    /// A transaction's changes in a range are applied here.
    pub fn set_resolved(&mut self, range: GroupId, id: RequestId) {
        for step in &mut self.ahead {
            step.needs_txns.retain(|(of, (other, _))| (*of, *other) != (range, id));
        }
        if let Some(lacks) = self.replicas.get_mut(&range).and_then(|it| it.lacks.as_mut()) {
            lacks.txns.retain(|(other, _)| *other != id);
        }
        self.advance_with(range);
    }

    /// The replica of a range has left the node; what is left of it is not waited for.
    pub fn remove(&mut self, range: GroupId) {
        self.replicas.remove(&range);
        self.lacking.remove(&range);
        self.advance();
    }

    /// The spine was folded and applied up to an index, by which writes of ranges were numbered
    /// up to these sequence numbers, and these transactions committed whose changes in a range are
    /// not here yet (`Stored::tells_of`). Of all ranges, be there a replica here or not.
    pub fn fold(
        &mut self,
        index: u64,
        head: Head,
        assigned: Vec<(GroupId, u64)>,
        txns: Vec<(GroupId, ShareOf)>,
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

    /// Ranges with a replica here that are not shown.
    pub fn lacking(&self) -> impl Iterator<Item = GroupId> {
        self.lacking.iter().copied()
    }

    /// What is waited for.
    pub fn wants(&self) -> String {
        let lacking: Vec<_> =
            self.lacking.iter().map(|range| (range, self.replicas.get(range))).collect();
        let next = self.ahead.front().map(|step| (step.index, &step.needs, &step.needs_txns));
        format!("at {}, next {next:?}, lacking {lacking:?}", self.index)
    }

    /// Whether the keys of a range may be read here, at `head` and before.
    pub fn shows(&self, range: GroupId) -> bool {
        range == GroupId::SPINE || self.replicas.get(&range).is_some_and(|it| it.lacks.is_none())
    }

    fn advance(&mut self) {
        while self.ahead.front().is_some_and(|step| self.is_there(step)) {
            let step = self.ahead.pop_front().expect("there is a front");
            (self.index, self.head) = (step.index, step.head);
            // Who is not waited for must have it before its range is shown.
            for (range, seq) in step.needs {
                if let Some(lacks) = self.lacks(range) {
                    lacks.seq = lacks.seq.max(seq);
                }
            }
            for (range, txn) in step.needs_txns {
                if let Some(lacks) = self.lacks(range) {
                    lacks.txns.push(txn);
                }
            }
        }
    }

    /// As `advance`, after a range has come further: it may have everything now.
    fn advance_with(&mut self, range: GroupId) {
        self.advance();
        let Some(standing) = self.replicas.get_mut(&range) else { return };
        let is_whole = |lacks: &mut Lacks| {
            mutant::is(Mutant::LackingShown)
                || lacks.is_caught_up && lacks.txns.is_empty() && standing.applied >= lacks.seq
        };
        if standing.lacks.take_if(is_whole).is_some() {
            self.lacking.remove(&range);
        }
    }

    fn is_there(&self, step: &Step) -> bool {
        // A range that is not shown here is read elsewhere.
        let shown = |range| self.replicas.get(range).filter(|it| it.lacks.is_none());
        let has_all = step
            .needs
            .iter()
            .all(|(range, seq)| shown(range).is_none_or(|standing| standing.applied >= *seq));
        let has_shares = step.needs_txns.iter().all(|(range, _)| shown(range).is_none());
        (has_all || mutant::is(Mutant::ShownEarly))
            && (has_shares || mutant::is(Mutant::ShareNotAwaited))
    }

    fn lacks(&mut self, range: GroupId) -> Option<&mut Lacks> {
        self.replicas.get_mut(&range)?.lacks.as_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::internal::{Prepare, PreparedTxn};
    use crate::range::stored::Position;
    use crate::spine::txns;

    const ONE: GroupId = GroupId(1);
    const TWO: GroupId = GroupId(2);
    /// Without a replica here.
    const NINE: GroupId = GroupId(9);

    fn head(revision: i64) -> Head {
        Head { revision, compact_revision: -1 }
    }

    fn txn(n: u64) -> RequestId {
        RequestId { origin: 1, n }
    }

    fn frontier() -> Frontier {
        let mut frontier = Frontier::new(1, head(1));
        for range in [ONE, TWO] {
            frontier.join(range, Vec::new());
            frontier.set_caught_up(range);
            assert!(frontier.shows(range));
        }
        frontier
    }

    #[test]
    fn nothing_is_shown_before_all_that_comes_before_it() {
        let mut frontier = frontier();
        frontier.fold(2, head(3), vec![(ONE, 2)], Vec::new());
        frontier.fold(3, head(4), vec![(TWO, 1), (NINE, 50)], Vec::new());
        frontier.fold(4, head(4), Vec::new(), Vec::new());
        assert_eq!((frontier.index(), frontier.head()), (1, head(1)));
        frontier.set_applied(TWO, 1);
        assert_eq!(frontier.index(), 1, "range 1 comes first");
        frontier.set_applied(ONE, 1);
        assert_eq!(frontier.index(), 1, "half of an entry");
        frontier.set_applied(ONE, 2);
        assert_eq!((frontier.index(), frontier.head()), (4, head(4)));
        frontier.fold(5, head(5), vec![(ONE, 3)], Vec::new());
        assert_eq!(frontier.index(), 4);
        frontier.remove(ONE);
        assert_eq!(frontier.index(), 5);

        frontier.fold(6, head(6), Vec::new(), vec![(TWO, (txn(1), 7)), (NINE, (txn(1), 3))]);
        frontier.set_resolved(TWO, txn(2));
        assert_eq!(frontier.index(), 5, "another");
        frontier.set_resolved(TWO, txn(1));
        assert_eq!(frontier.index(), 6);
    }

    #[test]
    fn a_replica_that_has_left_holds_nobody_up() {
        let mut frontier = frontier();
        frontier.remove(ONE);
        assert!(!frontier.shows(ONE));
        // Its last writes are applied late.
        frontier.set_applied(ONE, 3);
        frontier.fold(2, head(2), vec![(ONE, 4)], vec![(ONE, (txn(1), 9))]);
        assert_eq!(frontier.index(), 2);
        assert!(!frontier.shows(ONE) && frontier.shows(TWO));
    }

    #[test]
    fn a_range_is_shown_once_its_new_replica_has_all_that_the_node_shows() {
        let mut frontier = frontier();
        frontier.fold(2, head(2), vec![(NINE, 1)], Vec::new());
        // Committed before it joined: one that the range's log does not tell of yet.
        frontier.join(NINE, vec![(txn(1), 4)]);
        frontier.fold(3, head(5), vec![(NINE, 3)], Vec::new());
        frontier.fold(4, head(6), Vec::new(), vec![(NINE, (txn(2), 6))]);
        assert_eq!(frontier.index(), 4, "nobody waits for it");
        frontier.set_applied(NINE, 3);
        frontier.set_resolved(NINE, txn(1));
        frontier.set_resolved(NINE, txn(2));
        assert!(!frontier.shows(NINE), "what came before is not known to be there");
        frontier.set_caught_up(NINE);
        assert!(frontier.shows(NINE));
        // From now on it is waited for.
        frontier.fold(5, head(7), vec![(NINE, 4)], Vec::new());
        assert_eq!(frontier.index(), 4);

        // A snapshot replaces it.
        frontier.join(NINE, Vec::new());
        assert_eq!(frontier.index(), 5);
        assert!(!frontier.shows(NINE));
        frontier.set_caught_up(NINE);
        assert!(!frontier.shows(NINE), "write 4 is shown and not there");
        frontier.set_applied(NINE, 4);
        assert!(frontier.shows(NINE));
    }

    #[test]
    fn what_a_snapshot_tells_of_is_there() {
        let prepare = Prepare { id: Some(txns::to_proto(txn(2))), locks: Vec::new() };
        let stored = Stored {
            position: Position { index: 8, term: 1, seq: 5 },
            prepared: vec![PreparedTxn { index: 5, prepare: Some(prepare) }],
            ..Stored::default()
        };
        let mut frontier = frontier();
        // Told of; locked; locked later.
        frontier.join(NINE, vec![(txn(1), 4), (txn(2), 5), (txn(3), 9)]);
        frontier.set_caught_up(NINE);
        frontier.fold(2, head(2), vec![(ONE, 1)], vec![(NINE, (txn(4), 6)), (NINE, (txn(5), 10))]);
        frontier.set_stored(NINE, &stored);
        for n in [2, 3, 5] {
            assert!(!frontier.shows(NINE), "{n} is missing");
            frontier.set_applied(ONE, 1);
            frontier.set_resolved(NINE, txn(n));
        }
        assert!(frontier.shows(NINE));
    }
}
