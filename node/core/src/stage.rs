//! The apply stage of a node: folded entries of the spine and joined entries of ranges, in the
//! order in which they come, become one batch of the store, the answers that wait for it, and the
//! events that may be shown by then.
//!
//! Ranges apply in their own time, so the store may hold changes whose predecessors in another
//! range are missing. They are shown, to readers and to watchers, only once everything before them
//! is there (I10).

use std::collections::{BTreeMap, BTreeSet};

use crate::command::{Outcome, RequestId};
use crate::mvcc::{self, Event, Head};
use crate::range::frontier::Frontier;
use crate::range::stored::{self, Stored};
use crate::spine::apply::{Applied as Writes, Requester};
use crate::spine::state::{Position, State};
use crate::spine::{self, Shown};
use crate::view::{Batch, View, ViewError};
use crate::{GroupId, range};

/// Work for the stage, done strictly in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Work {
    /// A folded entry of the spine.
    Spine(spine::Task),
    /// A joined entry of a range.
    Range(range::replica::Task),
}

/// What some work comes to.
#[derive(Debug, Default)]
pub struct Applied {
    /// The change of the store, to be made at once.
    pub batch: Batch,
    /// Where the spine's state stands in it, if it has moved.
    pub spine: Option<Position>,
    /// Where ranges stand in it.
    pub ranges: BTreeMap<GroupId, stored::Position>,
    /// Answers to give once the batch is in the store.
    pub replies: Vec<(Requester, Outcome)>,
    /// What is shown once the batch is in the store, if that is more than before.
    pub shown: Option<Shown>,
    /// The events up to there, in order.
    pub events: Vec<Event>,
}

/// The stage over one store.
#[derive(Debug)]
pub struct Stage {
    frontier: Frontier,
    /// The spine's position in the store.
    position: Position,
    /// Applied, and not shown yet.
    ahead: BTreeMap<i64, Vec<Event>>,
}

impl Stage {
    /// Over a store that was just opened or replaced.
    ///
    /// # Errors
    /// The store cannot be read, or holds no state.
    pub fn open(view: &dyn View) -> Result<Self, ViewError> {
        let state = State::load(view)?.ok_or_else(|| ViewError("the store is empty".into()))?;
        let position = state.position();
        let head = head_of(position);
        if state.ranges().is_empty() {
            let frontier = Frontier::new(position.index, head);
            return Ok(Self { frontier, position, ahead: BTreeMap::new() });
        }
        // Nothing is shown before every range here has what was numbered when the node went down.
        let mut frontier = Frontier::new(0, Head { revision: 0, compact_revision: -1 });
        let mut txns = Vec::new();
        let mut assigned = Vec::new();
        for (range, known) in state.ranges().iter() {
            assigned.push((range, known.assigned));
            let Some(stored) = Stored::load(view, range)? else { continue };
            frontier.set_applied(range, stored.position.seq);
            for (id, share) in state.txns().open(range) {
                if !stored.tells_of(id, share.prepared_at) {
                    txns.push((range, id));
                }
            }
        }
        frontier.fold(position.index, head, assigned, txns);
        Ok(Self { frontier, position, ahead: BTreeMap::new() })
    }

    /// What may be shown.
    pub fn shown(&self) -> Shown {
        Shown { index: self.frontier.index(), head: self.frontier.head() }
    }

    /// Works out consecutive work as one batch. The view stands where the first begins.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn run(&mut self, view: &dyn View, works: Vec<Work>) -> Result<Applied, ViewError> {
        let before = self.shown();
        let mut applied = Applied::default();
        let mut writes = Writes::default();
        let mut applier = mvcc::Applier::new(view);
        // Of this batch: the store does not tell of them yet.
        let mut resolved: BTreeSet<(GroupId, RequestId)> = BTreeSet::new();
        for work in works {
            match work {
                Work::Spine(task) => {
                    assert!(
                        task.position.index > self.position.index,
                        "tasks are applied in order: {:?} after {:?}",
                        task.position,
                        self.position
                    );
                    for step in task.steps {
                        writes.carry_out(step, &mut applier)?;
                    }
                    writes.batch.writes.extend(task.rows.writes);
                    self.position = task.position;
                    applied.spine = Some(task.position);
                    let mut txns = Vec::new();
                    for (range, id, prepared_at) in task.committed {
                        let is_told = resolved.contains(&(range, id))
                            || Stored::load(view, range)?
                                .is_some_and(|stored| stored.tells_of(id, prepared_at));
                        if !is_told {
                            txns.push((range, id));
                        }
                    }
                    let head = head_of(task.position);
                    self.frontier.fold(task.position.index, head, task.assigned, txns);
                }
                Work::Range(task) => {
                    for step in task.steps {
                        writes.carry_out(step, &mut applier)?;
                    }
                    writes.batch.writes.extend(task.rows.writes);
                    applied.ranges.insert(task.range, task.position);
                    self.frontier.set_applied(task.range, task.position.seq);
                    for id in task.resolved {
                        self.frontier.set_resolved(task.range, id);
                        resolved.insert((task.range, id));
                    }
                }
            }
        }
        if let Some(position) = applied.spine {
            position.write(&mut writes.batch);
        }
        let shown = self.shown();
        applied.shown = (shown != before).then_some(shown);
        applied.events = self.show(writes.events, shown.head.revision);
        applied.batch = writes.batch;
        applied.replies = writes.replies;
        Ok(applied)
    }

    /// A replica of a range is on this node from now on, or no more.
    pub fn set_here(&mut self, range: GroupId, seq: Option<u64>) {
        match seq {
            Some(seq) => self.frontier.set_applied(range, seq),
            None => self.frontier.remove(range),
        }
    }

    /// Of these and those held back: what is up to the revision, in order.
    fn show(&mut self, events: Vec<Event>, revision: i64) -> Vec<Event> {
        let is_in_order = self.ahead.is_empty()
            && events.last().is_none_or(|last| last.revision <= revision)
            && events.is_sorted_by_key(|event| (event.revision, event.sub));
        if is_in_order {
            return events;
        }
        for event in events {
            self.ahead.entry(event.revision).or_default().push(event);
        }
        let later = self.ahead.split_off(&(revision + 1));
        let mut shown = Vec::new();
        for (_, mut events) in std::mem::replace(&mut self.ahead, later) {
            // The shares of a transaction may come in any order.
            events.sort_by_key(|event| event.sub);
            shown.extend(events);
        }
        shown
    }
}

fn head_of(position: Position) -> Head {
    Head { revision: position.revision, compact_revision: position.compact_revision }
}
