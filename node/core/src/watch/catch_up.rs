//! History for the watchers that are behind, and for the hub itself when batches were left out.
//! Each call does a bounded piece of work. Calls take turns between the watchers that are nearly
//! up to date and a sweep over all of them, so that neither a long way nor many ways hold up a
//! short one.

use std::collections::BTreeMap;

use super::Event;
use super::hub::{Effect, Hub};
use super::slab::Slot;
use super::watcher::{Phase, Watcher};
use crate::Error;
use crate::mutant::{self, Mutant};
use crate::mvcc::{self, Failure, Head, Replay, ReplayLimits};
use crate::proto::Span;
use crate::view::{View, ViewError};

/// Whose turn it is.
#[derive(Debug, Default)]
pub(super) struct Turn {
    /// The last call served the watchers that are nearly up to date.
    was_near: bool,
    /// Where the sweep goes on.
    sweep: i64,
}

/// Consecutive revisions with all their events on a span.
struct Block {
    events: Vec<Event>,
    /// The last revision it covers.
    through: i64,
}

/// A watcher to be served, with the first revision it was not sent.
type Chosen = (i64, Slot);

impl Hub {
    /// Whether `catch_up` has work.
    pub fn is_behind(&self) -> bool {
        self.frontier.has_gap() || !self.ready.is_empty()
    }

    /// Reads one block of history for the hub's own gap, and one for watchers that are behind.
    /// To be called again, with other work of the thread in between, while `is_behind`. `head` is
    /// the newest one, taken before the call; with an older one the call may achieve nothing.
    ///
    /// # Errors
    /// The store cannot be read. The process must stop.
    pub fn catch_up(&mut self, view: &dyn View, head: Head) -> Result<Vec<Effect>, ViewError> {
        self.frontier.on_seen(head.revision);
        self.frontier.on_compacted(head.compact_revision);
        if self.frontier.has_gap() {
            self.fill_gap(view)?;
        }
        self.cancel_ready_compacted();
        if !self.ready.is_empty() {
            self.scan(view)?;
        }
        Ok(self.take_effects())
    }

    /// Brings the frontier closer to what is applied, for the live watchers.
    fn fill_gap(&mut self, view: &dyn View) -> Result<(), ViewError> {
        let from = self.frontier.delivered() + 1;
        let first = self.frontier.compact_revision();
        if first <= from {
            let to = self.frontier.published();
            if let Some(block) = self.read_block(view, &Span::all(), from, to, true)? {
                self.deliver(&block.events, block.through);
            }
            return Ok(());
        }
        // Nobody can tell what happened below the compacted revision: whoever wanted it is lost.
        let is_lost = |watcher: &Watcher| watcher.phase == Phase::Live && watcher.next < first;
        let lost: Vec<Slot> = self
            .watchers
            .iter()
            .filter_map(|(slot, watcher)| is_lost(watcher).then_some(slot))
            .collect();
        for slot in lost {
            self.cancel_compacted(slot);
        }
        self.settle_waiting(first - 1);
        self.frontier.advance(first - 1);
        Ok(())
    }

    /// Cancels watchers, as many as one call may serve, that compaction overtook.
    fn cancel_ready_compacted(&mut self) {
        for _ in 0..self.config.limits.block_watchers_max {
            let Some(&(next, slot)) = self.ready.first() else { return };
            if next >= self.frontier.compact_revision() {
                return;
            }
            let stream = self.watchers[slot].stream;
            self.cancel_compacted(slot);
            self.fill_ready(stream);
        }
    }

    fn scan(&mut self, view: &dyn View) -> Result<(), ViewError> {
        let (is_near, from) = self.next_turn();
        let watchers_max = self.config.limits.block_watchers_max;
        let chosen: Vec<Chosen> =
            self.ready.range((from, 0)..).take(watchers_max).copied().collect();
        let from = chosen[0].0;
        let wants_prev = chosen.iter().any(|(_, slot)| self.watchers[*slot].options.wants_prev);
        let span = self.span_over(&chosen);

        let to = self.frontier.delivered();
        let Some(block) = self.read_block(view, &span, from, to, wants_prev)? else {
            return Ok(());
        };
        let through = self.gather_block(&block, &chosen);
        self.scan.was_near = is_near;
        if !is_near {
            self.scan.sweep = through + 1;
        }
        self.send_block(&chosen, through);
        Ok(())
    }

    /// Which watchers are served, given as the lowest cursor among them.
    fn next_turn(&self) -> (bool, i64) {
        let first_from = |from: i64| self.ready.range((from, 0)..).next().map(|(next, _)| *next);
        // A block brings those up to date that have no more revisions to go than it has rows,
        // unless revisions have many events.
        let near_revisions = self.config.limits.block_rows_max as i64;
        let near = first_from(self.frontier.delivered() - near_revisions + 1);
        match near {
            Some(near) if !self.scan.was_near => (true, near),
            _ => (false, first_from(self.scan.sweep).unwrap_or(i64::MIN)),
        }
    }

    /// The smallest span that holds the spans of all chosen watchers.
    fn span_over(&self, chosen: &[Chosen]) -> Span {
        let spans = chosen.iter().map(|(_, slot)| {
            let bucket = self.watchers[*slot].place.bucket;
            self.index.bucket(bucket).span()
        });
        let over = spans.reduce(|one, other| Span {
            start: one.start.min(other.start),
            end: one.end.zip(other.end).map(|(one, other)| one.max(other)),
        });
        over.expect("a watcher is chosen")
    }

    /// Reads from `from` up to `to`, or up to a limit, but at least one whole revision. `None` when
    /// some of it is compacted, which the next head will tell.
    fn read_block(
        &self,
        view: &dyn View,
        span: &Span,
        from: i64,
        to: i64,
        wants_prev: bool,
    ) -> Result<Option<Block>, ViewError> {
        let limits = ReplayLimits {
            events_max: self.config.limits.block_events_max,
            bytes_max: self.config.limits.block_bytes_max,
            rows_max: self.config.limits.block_rows_max,
        };
        match mvcc::events_from(view, span, from, to, wants_prev, limits) {
            Ok(Replay { events, next }) => {
                let events = events.into_iter().map(Event::from).collect();
                Ok(Some(Block { events, through: next - 1 }))
            }
            Err(Failure::Overtaken | Failure::Client(Error::Compacted)) => Ok(None),
            Err(Failure::View(error)) => Err(error),
            Err(Failure::Client(error)) => Err(ViewError(format!("history refused: {error}"))),
        }
    }

    /// Gathers for the chosen watchers. Returns the revision up to which that is complete.
    fn gather_block(&mut self, block: &Block, chosen: &[Chosen]) -> i64 {
        let mut takers: BTreeMap<Slot, Vec<Slot>> = BTreeMap::new();
        for &(_, slot) in chosen {
            takers.entry(self.watchers[slot].place.bucket).or_default().push(slot);
        }
        let mut buckets = Vec::new();
        let mut last = None;
        for event in &block.events {
            let revision = event.change().revision;
            if let Some(last) = last
                && last < revision
                && self.gather.count() >= self.config.limits.gather_events_max
            {
                return last;
            }
            last = Some(revision);
            self.index.find(&event.change().key, &mut buckets);
            for bucket in buckets.drain(..) {
                for &slot in takers.get(&bucket).into_iter().flatten() {
                    let watcher = &mut self.watchers[slot];
                    if watcher.wants(event.change()) {
                        self.gather.add(slot, watcher, event, false);
                    }
                }
            }
        }
        block.through
    }

    /// Sends what was gathered, and moves on the chosen watchers that the revisions up to
    /// `through` concern.
    fn send_block(&mut self, chosen: &[Chosen], through: i64) {
        let revision = self.frontier.seen();
        for entry in self.gather.take() {
            let slot = entry.watcher;
            if let Some(next) = self.send_events(entry, Some(revision)) {
                self.set_phase(slot, Phase::Parked, next);
            }
        }
        for &(next, slot) in chosen {
            if next <= through && self.watchers[slot].phase == Phase::Ready {
                let is_synced = through == self.frontier.delivered();
                let phase = if is_synced { Phase::Live } else { Phase::Ready };
                let skipped = i64::from(is_synced && mutant::is(Mutant::HandOffSkips));
                self.set_phase(slot, phase, through + 1 + skipped);
            }
        }
        for &(_, slot) in chosen {
            self.fill_ready(self.watchers[slot].stream);
        }
    }
}
