//! The apply stage of a node: folded entries of the spine and joined entries of ranges, in the
//! order in which they come, become one batch of the store, the answers that wait for it, and the
//! events that may be shown by then.
//!
//! Ranges apply in their own time, so the store may hold changes whose predecessors in another
//! range are missing. They are shown, to readers and to watchers, only once everything before them
//! is there (I10).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, ControlFlow};

use crate::command::{Outcome, RequestId};
use crate::mvcc::layout::Revision;
use crate::mvcc::{self, Event, Head};
use crate::range::frontier::{Frontier, Place};
use crate::range::stored::{self, Stored};
use crate::spine::apply::{Applied as Writes, Requester};
use crate::spine::state::{Position, State};
use crate::spine::{self, Shown};
use crate::view::{Batch, Column, View, ViewError};
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
    /// All events after this revision and up to what is shown, in order. If it is after what was
    /// shown before, those in between have to be read from the history.
    pub events: Vec<Event>,
    /// See `events`.
    pub events_after: i64,
}

/// The stage over one store.
#[derive(Debug)]
pub struct Stage {
    frontier: Frontier,
    /// The spine's position in the store.
    position: Position,
    /// Applied, and not shown yet.
    ahead: BTreeMap<i64, Vec<Event>>,
    /// Up to this revision some events were applied before this stage began.
    incomplete: i64,
}

impl Stage {
    /// Over a store that was just opened.
    ///
    /// # Errors
    /// The store cannot be read, or holds no state.
    pub fn open(view: &dyn View) -> Result<Self, ViewError> {
        // Nothing is shown before every range here has what was numbered when the node went down.
        let mut stage = Self::joining();
        stage.take_over(view)?;
        Ok(stage)
    }

    /// Over the store of a node that joins and has no state yet.
    pub fn joining() -> Self {
        let frontier = Frontier::new(0, mvcc::NO_HEAD);
        Self { frontier, position: Position::default(), ahead: BTreeMap::new(), incomplete: 0 }
    }

    /// The spine's part of the store was replaced by a newer one. What is shown stays until
    /// everything up to there is here.
    ///
    /// # Errors
    /// The store cannot be read, or holds no state.
    pub fn take_over(&mut self, view: &dyn View) -> Result<(), ViewError> {
        let state = State::load(view)?.ok_or_else(|| ViewError("the store is empty".into()))?;
        let shown = self.shown();
        self.position = state.position();
        self.frontier = Frontier::new(shown.index, shown.head);
        let mut txns = Vec::new();
        let mut assigned = Vec::new();
        for (range, known) in state.ranges().iter() {
            assigned.push((range, Place { seq: known.assigned, index: known.resolved_at }));
            let Some(stored) = Stored::load(view, range)? else { continue };
            self.frontier.set_applied(range, place_of(stored.position));
            for (id, share) in state.txns().open(range) {
                if !stored.tells_of(id, share.prepared_at) {
                    txns.push((range, id));
                }
            }
        }
        if self.position.index > shown.index {
            self.frontier.fold(self.position.index, head_of(self.position), assigned, txns);
        }
        self.ahead.clear();
        self.incomplete = newest_revision(view, self.position.revision)?;
        Ok(())
    }

    /// What may be shown.
    pub fn shown(&self) -> Shown {
        Shown { index: self.frontier.index(), head: self.frontier.head() }
    }

    /// Where the spine's state stands.
    pub fn position(&self) -> Position {
        self.position
    }

    /// What keeps it from showing more.
    pub fn wants(&self) -> String {
        self.frontier.wants()
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
                    let needs = task.assigned.into_iter();
                    let needs = needs.map(|(range, seq)| (range, Place::of_write(seq))).collect();
                    self.frontier.fold(task.position.index, head, needs, txns);
                }
                Work::Range(task) => {
                    for step in task.steps {
                        writes.carry_out(step, &mut applier)?;
                    }
                    writes.batch.writes.extend(task.rows.writes);
                    applied.ranges.insert(task.range, task.position);
                    self.frontier.set_applied(task.range, place_of(task.position));
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
        let (from, to) = (before.head.revision, shown.head.revision);
        applied.events_after = from.max(self.incomplete.min(to));
        applied.events = self.show(writes.events, to);
        let complete = applied.events_after;
        applied.events.retain(|event| event.revision > complete);
        applied.batch = writes.batch;
        applied.replies = writes.replies;
        Ok(applied)
    }

    /// A replica of a range is on this node from now on, or no more.
    pub fn set_here(&mut self, range: GroupId, position: Option<stored::Position>) {
        match position {
            Some(position) => self.frontier.set_applied(range, place_of(position)),
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

/// A range may have applied writes whose numbering this node's spine has not folded.
fn newest_revision(view: &dyn View, from: i64) -> Result<i64, ViewError> {
    let mut newest = from;
    let first = Revision { main: from + 1, sub: 0 }.encode();
    let mut damage = None;
    view.scan(Column::Revision, Bound::Included(&first), Bound::Unbounded, &mut |key, _| {
        match Revision::decode(key) {
            Ok(revision) => {
                newest = revision.main;
                ControlFlow::Continue(())
            }
            Err(error) => {
                damage = Some(error);
                ControlFlow::Break(())
            }
        }
    })?;
    damage.map_or(Ok(newest), Err)
}

fn place_of(position: stored::Position) -> Place {
    Place { seq: position.seq, index: position.index }
}

fn head_of(position: Position) -> Head {
    Head { revision: position.revision, compact_revision: position.compact_revision }
}
