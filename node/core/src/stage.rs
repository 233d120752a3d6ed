//! The apply stage of a node: folded entries of the spine and joined entries of ranges, in the
//! order in which they come, become one batch of the store, the answers that wait for it, and the
//! events that may be shown by then.
//!
//! Ranges apply in their own time, so the store may hold changes whose predecessors in another
//! range are missing. They are shown, to readers and to watchers, only once everything before them
//! is there (I10). A node that was just started shows nothing before every replica on it knows that
//! it has everything.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use bytes::Bytes;

use crate::command::{Answer, Outcome, RequestId};
use crate::mutant::{self, Mutant};
use crate::mvcc::layout::Revision;
use crate::mvcc::{self, Event, Head};
use crate::proto::Span;
use crate::range::frontier::Frontier;
use crate::range::stored::{self, Stored};
use crate::remote::Owners;
use crate::spine::apply::{Answered, Applied as Writes, Cut};
use crate::spine::ranges::Range;
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
    /// The replica of a range finds out whether it has everything that came before.
    CatchingUp(GroupId),
    /// It has.
    CaughtUp(GroupId),
    /// The replica of a range that was merged away is of no use. What it has of the keys counts for
    /// nothing: whoever has them now is to come from elsewhere.
    Drop(GroupId),
    /// The node is to hold the range no more, and its replica has no part in it.
    Leave(GroupId),
}

/// What some work comes to.
#[derive(Debug, Default)]
pub struct Applied {
    /// The change of the store, to be made at once.
    pub batch: Batch,
    /// Where the spine's state stands in it, if it has moved.
    pub spine: Option<Position>,
    /// Ranges whose replica here begins with it.
    pub begun: Vec<GroupId>,
    /// Ranges whose replica here ends with it: another has their keys.
    pub ended: Vec<GroupId>,
    /// Keys that are to be removed from the store: the node holds them no more.
    pub left: Vec<(GroupId, Span)>,
    /// Where ranges stand in it.
    pub ranges: BTreeMap<GroupId, stored::Position>,
    /// Answers to give once the batch is in the store.
    pub replies: Vec<Answered>,
    /// What may be read once the batch is in the store, if that has changed.
    pub reach: Option<Reach>,
    /// What watchers are told once the batch is in the store, if that has changed: where the node's
    /// reach stands.
    pub published: Option<Head>,
    /// All events after a revision and up to what watchers are told, in order. Those between what
    /// they were told before and that revision have to be read from the history. While a range is
    /// lacking there are none.
    pub events: Vec<Event>,
    /// See `events`.
    pub events_after: i64,
    /// Keys that are put and deleted in the batch, be it shown or not.
    pub puts_count: usize,
    /// See `puts_count`.
    pub deletes_count: usize,
    /// Bytes of what is put, as it is stored.
    pub put_bytes: usize,
    /// Writes in the batch that change more than one key.
    pub txns_count: usize,
}

/// What of a node's state may be read here, range by range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    /// Everything up to here is in the store, but for the keys of the ranges that are lacking.
    pub shown: Shown,
    /// Who owns which keys then.
    pub owners: Arc<Owners>,
    /// Ranges whose keys are not to be read here.
    pub lacking: BTreeSet<GroupId>,
}

impl Reach {
    /// Nothing may be read.
    pub fn none(shown: Shown) -> Self {
        Self { shown, owners: Arc::default(), lacking: BTreeSet::from([GroupId::SPINE]) }
    }

    /// Whether the keys of a range may be read.
    pub fn has(&self, range: GroupId) -> bool {
        !self.lacking.contains(&range)
    }

    /// Whether all keys of a span may be read.
    pub fn has_all(&self, span: &Span) -> bool {
        let mut rest = span.clone();
        loop {
            let (range, piece) = self.owners.first_piece(&rest);
            if !self.has(range) {
                return false;
            }
            match piece.end.filter(|end| rest.contains(end)) {
                Some(end) => rest.start = end,
                None => return true,
            }
        }
    }
}

/// Keys get another owner.
#[derive(Debug)]
enum Transfer {
    Cut(Cut),
    Join { left: GroupId, right: GroupId },
}

/// The stage over one store.
#[derive(Debug)]
pub struct Stage {
    frontier: Frontier,
    reach: Reach,
    /// As watchers know it.
    published: Head,
    /// Keys that change their owner after what is shown: the spine's index, and what happens.
    transfers: VecDeque<(u64, Transfer)>,
    /// Ranges whose replica here has ended before it was shown, and that own keys in what is shown.
    gone: BTreeSet<GroupId>,
    /// Keys that were removed from the store, as the node holds them no more. What is shown may be of a
    /// time at which they belonged to a range that is here.
    vanished: Vec<Span>,
    /// The spine's position in the store.
    position: Position,
    /// Applied, and not shown yet.
    ahead: BTreeMap<i64, Vec<Event>>,
    /// Ranges that there are and of which no replica is here yet. A node without a replica of a
    /// range could show nothing of its keys.
    absent: BTreeSet<GroupId>,
    /// Replicas whose state is from after a cut that the spine's state here does not know of, and
    /// where they end now: the keys behind are owned by nobody here.
    ahead_of_spine: BTreeMap<GroupId, Bytes>,
    /// Ranges that have ceased and have a replica here: their keys are not taken over yet.
    ceased: BTreeSet<GroupId>,
    /// Ranges whose replica here has ended, and may have handed something in before it heard so. The
    /// spine's state may come to their beginning only now.
    ended: BTreeSet<GroupId>,
    /// Ranges that this node holds no more, likewise; until it is given a replica again.
    left: BTreeSet<GroupId>,
    /// Replicas that have not heard yet that the spine's state was replaced.
    unaware: BTreeSet<GroupId>,
    /// Some of the history before this is gone.
    floor: i64,
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
        stage.ended = stored::ended_ids(view)?.into_iter().collect();
        stage.take_over(view)?;
        stage.unaware.clear();
        stage.advance();
        stage.published = stage.reach.shown.head;
        Ok(stage)
    }

    /// Over the store of a node that joins and has no state yet.
    pub fn joining() -> Self {
        let shown = Shown { index: 0, head: mvcc::NO_HEAD };
        let frontier = Frontier::new(shown.index, shown.head);
        let (reach, transfers) = (Reach::none(shown), VecDeque::new());
        let (position, ahead) = (Position::default(), BTreeMap::new());
        Self {
            frontier,
            reach,
            published: shown.head,
            transfers,
            gone: BTreeSet::new(),
            vanished: Vec::new(),
            position,
            ahead,
            absent: BTreeSet::new(),
            ahead_of_spine: BTreeMap::new(),
            ceased: BTreeSet::new(),
            ended: BTreeSet::new(),
            left: BTreeSet::new(),
            unaware: BTreeSet::new(),
            floor: -1,
            incomplete: 0,
        }
    }

    /// The spine's part of the store was replaced by a newer one. What is shown stays until
    /// everything up to there is here.
    ///
    /// # Errors
    /// The store cannot be read, or holds no state.
    pub fn take_over(&mut self, view: &dyn View) -> Result<(), ViewError> {
        let state = State::load(view)?.ok_or_else(|| ViewError("the store is empty".into()))?;
        self.position = state.position();
        self.frontier = Frontier::new(self.position.index, head_of(self.position));
        self.reach.owners = Arc::new(Owners::new(state.ranges()));
        self.transfers.clear();
        self.absent.clear();
        self.ahead_of_spine.clear();
        self.gone.clear();
        self.ceased.clear();
        for range in stored::ids(view)? {
            if state.has_ceased(range) {
                self.ceased.insert(range);
            } else if let Some(stored) = Stored::load(view, range)?
                && state.ranges().get(range).is_none()
            {
                // It began before the spine's state here came so far.
                self.frontier.join(range, Vec::new());
                self.frontier.set_stored(range, &stored);
            }
        }
        for (range, known) in state.ranges().iter() {
            let Some(stored) = Stored::load(view, range)? else {
                self.absent.insert(range);
                continue;
            };
            let open = state.txns().open(range).map(|(id, share)| (id, share.prepared_at));
            self.frontier.join(range, open.collect());
            self.frontier.set_stored(range, &stored);
            self.look_at_end(range, known, &stored);
            self.unaware.insert(range);
        }
        self.floor = mvcc::compaction_floor(view)?;
        self.advance();
        // Watchers read what they missed from the history.
        self.ahead.clear();
        self.published = self.reach.shown.head;
        self.incomplete = newest_revision(view, self.position.revision)?;
        Ok(())
    }

    /// The part of the store that belongs to a range was replaced by a newer one. Nothing more is
    /// shown until its replica knows that it has everything. Gives back the ranges whose replica here
    /// has ended with it: what is new has their keys.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn replaced(&mut self, view: &dyn View, range: GroupId) -> Result<Vec<GroupId>, ViewError> {
        let state = State::load(view)?.ok_or_else(|| ViewError("the store is empty".into()))?;
        let stored = Stored::load(view, range)?;
        let stored = stored.ok_or_else(|| ViewError(format!("range {range} is not there")))?;
        let open = state.txns().open(range).map(|(id, share)| (id, share.prepared_at));
        self.frontier.join(range, open.collect());
        self.frontier.set_stored(range, &stored);
        self.absent.remove(&range);
        self.left.remove(&range);
        let vanished = std::mem::take(&mut self.vanished);
        self.vanished = vanished.iter().flat_map(|span| span.without(&stored.span)).collect();
        if let Some(known) = state.ranges().get(range) {
            self.look_at_end(range, known, &stored);
        }
        self.forget_to_begin(view, &state, range)?;
        // Where it comes from, more may have been compacted than is shown here.
        self.floor = mvcc::compaction_floor(view)?;
        // Its events are not among those that are held back.
        self.incomplete = newest_revision(view, self.position.revision)?.max(self.incomplete);
        let ended = self.end_replaced(view, &state, range, &stored)?;
        self.advance();
        self.published = self.reach.shown.head;
        Ok(ended)
    }

    /// Ranges whose rows went when those of another were replaced. The state of the spine here may
    /// not know yet that they have ceased.
    fn end_replaced(
        &mut self,
        view: &dyn View,
        state: &State,
        by: GroupId,
        stored: &Stored,
    ) -> Result<Vec<GroupId>, ViewError> {
        let is_newer =
            state.ranges().get(by).is_none_or(|known| stored.generation > known.generation);
        let has_gone = |range: GroupId| match state.ranges().get(range) {
            // One that is to be cut off the new rows is still to come.
            Some(known) => is_newer && stored.span.contains(&known.span.start),
            None => true,
        };
        let known: BTreeSet<GroupId> =
            self.frontier.ranges().chain(self.ceased.iter().copied()).collect();
        let mut ended = Vec::new();
        for range in known.into_iter().filter(|range| has_gone(*range)) {
            if Stored::load(view, range)?.is_none() {
                let pieces = self.reach.owners.pieces().into_iter();
                let mut own = pieces.filter(|(owner, _)| *owner == range).map(|(_, span)| span);
                let has_all =
                    own.all(|span| span.without(&stored.span).into_iter().next().is_none());
                self.end(range);
                if !has_all {
                    // Some of it was cut off what took it over.
                    self.gone.insert(range);
                }
                ended.push(range);
            }
        }
        Ok(ended)
    }

    /// A replica that ends before the range does is ahead, or has not taken over another yet.
    fn look_at_end(&mut self, range: GroupId, known: &Range, stored: &Stored) {
        let is_newer = stored.generation > known.generation;
        match &stored.span.end {
            Some(end) if is_newer && known.span.contains(end) => {
                self.ahead_of_spine.insert(range, end.clone());
            }
            _ => {
                self.ahead_of_spine.remove(&range);
            }
        }
    }

    /// Ranges that are shown and have no rows of their own yet were to begin with what the replica of
    /// another had, and that one was replaced. What is new may end before them, so that they come from
    /// elsewhere; or it has not come to the cut yet, and may lack what was shown of their keys.
    fn forget_to_begin(
        &mut self,
        view: &dyn View,
        state: &State,
        replaced: GroupId,
    ) -> Result<(), ViewError> {
        let here = stored::spans(view)?;
        // What took over from one that has ceased may have come here without it.
        let is_from_here = |start: &Bytes| {
            here.iter().any(|(range, span)| {
                *range != replaced && !state.has_ceased(*range) && span.contains(start)
            })
        };
        let known = state.ranges().iter().map(|(range, known)| (range, &known.span.start));
        // One that has ceased since may be shown still.
        let cut_off = self.transfers.iter().filter_map(|(_, transfer)| match transfer {
            Transfer::Cut(cut) => Some((cut.child, &cut.key)),
            Transfer::Join { .. } => None,
        });
        let is_to_begin = |(range, start): &(GroupId, &Bytes)| {
            !here.contains_key(range) && self.frontier.shows(*range) && !is_from_here(start)
        };
        let to_begin: BTreeSet<GroupId> =
            known.chain(cut_off).filter(is_to_begin).map(|(range, _)| range).collect();
        for range in to_begin {
            let open = state.txns().open(range).map(|(id, share)| (id, share.prepared_at));
            self.frontier.join(range, open.collect());
        }
        Ok(())
    }

    /// A range leaves the node before its replica here has come to cuts that the node knows of. What was
    /// cut off was to begin with that replica, and is not waited for any more.
    fn forget_to_come(
        &mut self,
        view: &dyn View,
        batch: &Batch,
        left: GroupId,
        span: &Span,
    ) -> Result<(), ViewError> {
        let mut cut_off = BTreeSet::from_iter(self.reach.owners.of(span));
        cut_off.extend(self.transfers.iter().filter_map(|(_, transfer)| match transfer {
            Transfer::Cut(cut) if span.contains(&cut.key) => Some(cut.child),
            _ => None,
        }));
        for range in cut_off {
            let is_shown =
                range != left && self.frontier.knows(range) && self.frontier.shows(range);
            if is_shown && Stored::load_latest(view, batch, range)?.is_none() {
                self.frontier.rejoin(range);
            }
        }
        Ok(())
    }

    /// What may be shown.
    pub fn shown(&self) -> Shown {
        self.reach.shown
    }

    /// Whether the store has everything that is shown, of all ranges.
    pub fn is_whole(&self) -> bool {
        self.reach.lacking.is_empty()
    }

    /// Whether a replica of the range is here, or will be, and has everything that is shown. Its keys may
    /// be lacking all the same, where another range has some of them by now that is not here.
    pub fn follows(&self, range: GroupId) -> bool {
        self.frontier.shows(range)
    }

    /// What may be read.
    pub fn reach(&self) -> &Reach {
        &self.reach
    }

    fn advance(&mut self) {
        let mut lacking: BTreeSet<GroupId> = self.frontier.lacking().collect();
        lacking.extend(&self.unaware);
        lacking.extend(&self.absent);
        lacking.extend(self.ahead_of_spine.keys());
        let shown = Shown { index: self.frontier.index(), head: self.frontier.head() };
        // Tables that are kept beside the state are as old as this.
        let behind = if mutant::is(Mutant::StaleRouting) { 16 } else { 0 };
        while let Some((_, transfer)) =
            self.transfers.pop_front_if(|(index, _)| *index + behind <= shown.index)
        {
            let owners = Arc::make_mut(&mut self.reach.owners);
            match transfer {
                Transfer::Cut(cut) => owners.split(cut.key, cut.child),
                Transfer::Join { left, right } => owners.merge(left, right),
            }
        }
        if !self.gone.is_empty() {
            let mut owners: BTreeSet<GroupId> = self.reach.owners.ranges().collect();
            // One that came and went since what is shown is still to own its keys.
            owners.extend(self.transfers.iter().filter_map(|(_, transfer)| match transfer {
                Transfer::Cut(cut) => Some(cut.child),
                Transfer::Join { .. } => None,
            }));
            self.gone.retain(|range| owners.contains(range));
            lacking.extend(&self.gone);
        }
        for span in &self.vanished {
            lacking.extend(self.reach.owners.of(span));
        }
        // A part of the parent, as it is shown. A replica of what was cut off may itself be cut later.
        for (index, transfer) in self.transfers.iter().rev() {
            if let Transfer::Cut(cut) = transfer
                && *index > shown.index
                && lacking.contains(&cut.child)
            {
                lacking.insert(cut.parent);
            }
        }
        // Something was compacted further than is shown: who reads could miss what is gone, in ranges
        // whose replica here has ended since, too.
        if shown.head.compact_revision < self.floor {
            lacking.insert(GroupId::SPINE);
            lacking.extend(self.frontier.ranges());
            lacking.extend(self.reach.owners.ranges());
        }
        self.reach.shown = shown;
        self.reach.lacking = lacking;
    }

    /// Where the spine's state stands.
    pub fn position(&self) -> Position {
        self.position
    }

    /// What keeps it from showing more.
    pub fn wants(&self) -> String {
        let Self { absent, unaware, ahead_of_spine, vanished, gone, .. } = self;
        format!(
            "{}, absent {absent:?}, unaware {unaware:?}, ahead {ahead_of_spine:?}, vanished \
             {vanished:?}, gone {gone:?}",
            self.frontier.wants()
        )
    }

    /// Works out consecutive work as one batch. The view stands where the first begins.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn run(&mut self, view: &dyn View, works: Vec<Work>) -> Result<Applied, ViewError> {
        let reach_before = self.reach.clone();
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
                    for cut in task.cuts {
                        let transfer = Transfer::Cut(cut.clone());
                        self.transfers.push_back((task.position.index, transfer));
                        let is_elsewhere = task.elsewhere.contains(&cut.child);
                        if is_elsewhere && !self.frontier.knows(cut.child) {
                            self.absent.insert(cut.child);
                        } else {
                            self.expect(view, cut)?;
                        }
                    }
                    for join in task.merged {
                        let transfer = Transfer::Join { left: join.left, right: join.right };
                        self.transfers.push_back((task.position.index, transfer));
                        // What is shown may still be of a time at which it owned its keys.
                        if self.absent.remove(&join.right) {
                            self.gone.insert(join.right);
                        }
                        // Other replicas here may have been quicker than the spine's.
                        let left = Stored::load(view, join.left)?;
                        let is_done = self.ended.contains(&join.right)
                            || resolved.contains(&(join.left, join.id))
                            || left.is_some_and(|left| left.tells_of(join.id, join.left_at));
                        if is_done {
                            self.frontier.remove(join.right);
                        }
                    }
                    applied.begun.extend(task.begun);
                    let mut txns = Vec::new();
                    for (range, id, prepared_at) in task.committed {
                        let is_told = resolved.contains(&(range, id))
                            || Stored::load(view, range)?
                                .is_some_and(|stored| stored.tells_of(id, prepared_at));
                        if !is_told {
                            txns.push((range, (id, prepared_at)));
                        }
                    }
                    let head = head_of(task.position);
                    self.frontier.fold(task.position.index, head, task.assigned, txns);
                }
                Work::Range(task) if self.is_gone(task.range) => {}
                Work::Range(task) => {
                    for step in task.steps {
                        writes.carry_out(step, &mut applier)?;
                    }
                    writes.batch.writes.extend(task.rows.writes);
                    applied.ranges.insert(task.range, task.position);
                    for child in task.begun {
                        self.begin(view, child)?;
                        applied.begun.push(child);
                    }
                    for right in task.ended {
                        self.end(right);
                        applied.ended.push(right);
                    }
                    self.frontier.set_applied(task.range, task.position.seq);
                    for id in task.resolved {
                        self.frontier.set_resolved(task.range, id);
                        resolved.insert((task.range, id));
                    }
                }
                Work::CatchingUp(range) => {
                    // One that has ceased is not waited for.
                    if self.frontier.knows(range) {
                        self.frontier.rejoin(range);
                    }
                    self.unaware.remove(&range);
                }
                Work::CaughtUp(range) => self.frontier.set_caught_up(range),
                Work::Drop(range) | Work::Leave(range) if self.ended.contains(&range) => {}
                Work::Drop(range) => {
                    stored::end(range, &mut writes.batch);
                    self.end(range);
                    applied.ended.push(range);
                }
                Work::Leave(range) => {
                    if let Some(stored) = Stored::load_latest(view, &writes.batch, range)? {
                        stored::leave(range, &stored.span, &mut writes.batch);
                        self.forget_to_come(view, &writes.batch, range, &stored.span)?;
                        self.vanished.push(stored.span.clone());
                        applied.left.push((range, stored.span));
                    }
                    self.forget(range);
                    self.left.insert(range);
                    self.absent.insert(range);
                    applied.ended.push(range);
                }
            }
        }
        if let Some(position) = applied.spine {
            position.write(&mut writes.batch);
        }
        self.advance();
        applied.reach = (self.reach != reach_before).then(|| self.reach.clone());
        let (told, head) = (self.published, self.reach.shown.head);
        let (from, to) = (told.revision, head.revision);
        assert!(from <= to, "what may be read never goes back: {head:?} after {told:?}");
        applied.deletes_count = writes.events.iter().filter(|event| event.is_delete).count();
        applied.puts_count = writes.events.len() - applied.deletes_count;
        let puts = writes.events.iter().filter(|event| !event.is_delete);
        applied.put_bytes = puts.map(|event| event.kv.len()).sum();
        let is_second = |pair: &&[Event]| pair[0].revision == pair[1].revision;
        let seconds = writes.events.windows(2).filter(is_second);
        // Of a write with many changes the second alone counts.
        let revisions: BTreeSet<i64> = seconds.map(|pair| pair[1].revision).collect();
        applied.txns_count = revisions.len();
        applied.events_after = if self.is_whole() { from.max(self.incomplete.min(to)) } else { to };
        applied.events = self.show(writes.events, to);
        self.published = head;
        applied.published = (head != told).then_some(head);
        let complete = applied.events_after;
        applied.events.retain(|event| event.revision > complete);
        applied.batch = writes.batch;
        applied.replies = writes.replies;
        Ok(applied)
    }

    /// Whether a client of this node may hear this: what it tells of is shown.
    pub fn shows(&self, outcome: &Outcome) -> bool {
        let revision = outcome.as_ref().map_or(0, Answer::revision);
        revision <= self.reach.shown.head.revision || mutant::is(Mutant::AnsweredEarly)
    }

    /// The range has a replica here from now on. Its keys are shown if they were shown before, and come
    /// from the parent's replica.
    fn expect(&mut self, view: &dyn View, cut: Cut) -> Result<(), ViewError> {
        let has_passed = Stored::load(view, cut.parent)?
            .is_some_and(|parent| parent.generation >= cut.generation);
        let is_here = !has_passed && !self.ahead_of_spine.contains_key(&cut.parent);
        if self.frontier.knows(cut.child) || self.is_gone(cut.child) {
            // It began before the spine's state here came so far, and knows itself how it stands.
        } else if is_here && self.frontier.shows(cut.parent) || mutant::is(Mutant::CutShown) {
            self.frontier.begin(cut.child);
        } else {
            self.frontier.join(cut.child, Vec::new());
        }
        if self.ahead_of_spine.get(&cut.parent) == Some(&cut.key) {
            self.ahead_of_spine.remove(&cut.parent);
        }
        Ok(())
    }

    /// The replica of a range ends. All that it ever had is in the store, and is another's.
    fn end(&mut self, range: GroupId) {
        if !self.reach.has(range) {
            self.gone.insert(range);
        }
        self.forget(range);
        self.ended.insert(range);
    }

    fn forget(&mut self, range: GroupId) {
        self.frontier.remove(range);
        self.ceased.remove(&range);
        self.absent.remove(&range);
        self.ahead_of_spine.remove(&range);
        self.unaware.remove(&range);
    }

    /// Whether there is no replica of a range here any more: what it still wants done is not to be
    /// done.
    fn is_gone(&self, range: GroupId) -> bool {
        self.ended.contains(&range) || self.left.contains(&range)
    }

    /// Whether the replica of a range here has ended: what it still wants done is not to be done.
    pub fn has_ended(&self, range: GroupId) -> bool {
        self.ended.contains(&range)
    }

    /// The replica of a range begins. Unless the spine has just said so, it may lack anything.
    fn begin(&mut self, view: &dyn View, range: GroupId) -> Result<(), ViewError> {
        if !self.frontier.knows(range) {
            let state = State::load(view)?.ok_or_else(|| ViewError("the store is empty".into()))?;
            let open = state.txns().open(range).map(|(id, share)| (id, share.prepared_at));
            self.frontier.join(range, open.collect());
        }
        self.absent.remove(&range);
        Ok(())
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
            if !mutant::is(Mutant::SharesUnsorted) {
                events.sort_by_key(|event| event.sub);
            }
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

fn head_of(position: Position) -> Head {
    Head { revision: position.revision, compact_revision: position.compact_revision }
}
