//! History for the watchers that are behind, and for the hub itself when batches were left out. It
//! is asked for and taken block by block, one at a time, so that nothing moves between asking and
//! taking but what is published. Blocks take turns between the hub, the watchers that are nearly up
//! to date and a sweep over all of them, so that neither a long way nor many ways hold up a short one,
//! nor keys that cannot be read at present all others.

use std::collections::BTreeMap;

use super::Event;
use super::block::{Aim, Block, BlockRequest};
use super::hub::{Effect, Hub};
use super::index::join;
use super::slab::Slot;
use super::watcher::{Phase, Watcher};
use crate::mutant::{self, Mutant};
use crate::mvcc::{Head, ReplayLimits};
use crate::proto::Span;
use crate::view::{View, ViewError};

/// Whose turn it is.
#[derive(Debug, Default)]
pub(super) struct Turn {
    /// The last block was for the hub itself.
    was_gap: bool,
    /// The last one that was not served the watchers that are nearly up to date.
    was_near: bool,
    /// Where the sweep goes on.
    sweep: i64,
    /// Blocks that were asked for.
    count: u64,
    /// The one that is under way.
    asked: Option<Asked>,
}

/// A block that was asked for.
#[derive(Clone, Copy, Debug)]
struct Asked {
    number: u64,
    /// It is for the live watchers there were, up to this revision.
    gap_to: Option<i64>,
}

impl Turn {
    /// Up to here a watcher that becomes live would miss something of the block under way.
    pub(super) fn gap_to(&self) -> i64 {
        self.asked.and_then(|asked| asked.gap_to).unwrap_or(i64::MIN)
    }
}

/// A watcher to be served, with the first revision it was not sent.
type Chosen = (i64, Slot);

impl Hub {
    /// Whether any history is wanted.
    pub fn is_behind(&self) -> bool {
        self.frontier.has_gap() || !self.ready.is_empty()
    }

    /// Whether a block was asked for that was not taken.
    pub fn is_asking(&self) -> bool {
        self.scan.asked.is_some()
    }

    /// Reads one block of history for the hub's own gap, and one for watchers that are behind, from a
    /// store that shows all keys. To be called again, with other work of the thread in between, while
    /// `is_behind`. `head` is the newest one, taken before the call; with an older one the call may
    /// achieve nothing. `is_whole` tells, after something was read, whether the store has shown all
    /// keys meanwhile. A block that is under way is given up.
    ///
    /// # Errors
    /// The store cannot be read. The process must stop.
    pub fn catch_up(
        &mut self,
        view: &dyn View,
        head: Head,
        is_whole: impl Fn() -> bool,
    ) -> Result<Vec<Effect>, ViewError> {
        self.begin_turn(head);
        if let Some(request) = self.gap_request() {
            let block = request.read(view)?.filter(|_| is_whole());
            self.take(&request, block);
        }
        self.cancel_ready_compacted();
        if let Some(request) = self.history_request() {
            let block = request.read(view)?.filter(|_| is_whole());
            self.take(&request, block);
        }
        Ok(self.take_effects())
    }

    /// The next block that is wanted, for a driver that cannot read all keys in one place; `None` while
    /// one is under way. Every one must be handed to `take_block`. `head` as for `catch_up`.
    pub fn next_block(&mut self, head: Head, effects: &mut Vec<Effect>) -> Option<BlockRequest> {
        if self.is_asking() {
            return None;
        }
        self.begin_turn(head);
        let gap = self.gap_request();
        self.cancel_ready_compacted();
        let request = match gap {
            Some(gap) if self.scan.was_gap => self.history_request().or(Some(gap)),
            Some(gap) => Some(gap),
            None => self.history_request(),
        };
        if let Some(request) = &request {
            self.scan.was_gap = request.aim == Aim::Gap;
            let gap_to = self.scan.was_gap.then_some(request.to);
            self.scan.asked = Some(Asked { number: request.number, gap_to });
        }
        effects.extend(self.take_effects());
        request
    }

    /// Takes a block that was asked for, or `None` if it could not be read: whoever wanted it waits for
    /// the next turn. One that was given up changes nothing.
    pub fn take_block(&mut self, request: &BlockRequest, block: Option<Block>) -> Vec<Effect> {
        if self.scan.asked.take_if(|asked| asked.number == request.number).is_some() {
            self.take(request, block);
        }
        self.take_effects()
    }

    fn begin_turn(&mut self, head: Head) {
        self.scan.asked = None;
        self.frontier.on_seen(head.revision);
        self.frontier.on_compacted(head.compact_revision);
        self.begin_early();
    }

    /// Watchers that would have missed something of a block while it was under way, and that begin
    /// above the frontier, become live: no block is.
    fn begin_early(&mut self) {
        while let Some(&(next, slot)) = self.ready.last()
            && next > self.frontier.delivered()
        {
            let stream = self.watchers[slot].stream;
            self.begin_live(slot);
            self.fill_ready(stream);
        }
    }

    fn request(&mut self, aim: Aim, span: Span, from: i64, to: i64, prev: bool) -> BlockRequest {
        assert!(from <= to, "there is something to be read: {from}..={to} for {aim:?}");
        self.scan.count += 1;
        let limits = ReplayLimits {
            events_max: self.config.limits.block_events_max,
            bytes_max: self.config.limits.block_bytes_max,
            rows_max: self.config.limits.block_rows_max,
        };
        BlockRequest { number: self.scan.count, aim, span, from, to, wants_prev: prev, limits }
    }

    fn take(&mut self, request: &BlockRequest, block: Option<Block>) {
        if request.aim == Aim::Gap {
            if let Some(Block { events, through }) = block
                && through > self.frontier.delivered()
            {
                let events: Vec<Event> = events.into_iter().map(Event::from).collect();
                self.deliver(&events, through);
            }
            return;
        }
        let through = block.map_or(request.from, |block| self.take_history(request, block));
        self.scan.was_near = request.aim == Aim::Near;
        if request.aim == Aim::Sweep {
            self.scan.sweep = through + 1;
        }
    }

    /// What would bring the frontier closer to what is applied, for the live watchers.
    fn gap_request(&mut self) -> Option<BlockRequest> {
        if !self.frontier.has_gap() {
            return None;
        }
        let first = self.frontier.compact_revision();
        if first > self.frontier.delivered() + 1 {
            self.skip_compacted(first);
            return None;
        }
        let to = self.frontier.published();
        if self.live_count == 0 {
            // Nobody waits for it; whoever is behind reads the history in his own turn.
            self.frontier.advance(to);
            return None;
        }
        let from = self.frontier.delivered() + 1;
        let span = self.index.hull().expect("there is a watcher");
        Some(self.request(Aim::Gap, span, from, to, self.wanting_prev_count > 0))
    }

    /// Nobody can tell what happened below the compacted revision: whoever wanted it is lost.
    fn skip_compacted(&mut self, first: i64) {
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

    /// What brings watchers on whose turn it is.
    fn history_request(&mut self) -> Option<BlockRequest> {
        // Those that were cut off have made room for others.
        self.begin_early();
        if self.ready.is_empty() {
            return None;
        }
        let (is_near, from) = self.next_turn();
        let watchers_max = self.config.limits.block_watchers_max;
        let chosen: Vec<Chosen> =
            self.ready.range((from, 0)..).take(watchers_max).copied().collect();
        let from = chosen[0].0;
        let wants_prev = chosen.iter().any(|(_, slot)| self.watchers[*slot].options.wants_prev);
        let span = self.span_over(&chosen);
        let aim = if is_near { Aim::Near } else { Aim::Sweep };
        Some(self.request(aim, span, from, self.frontier.delivered(), wants_prev))
    }

    /// Serves the watchers that a block has all for. Returns the revision up to which it served them.
    fn take_history(&mut self, request: &BlockRequest, block: Block) -> i64 {
        // Chosen anew: watchers come and go while a block is under way.
        let watchers_max = self.config.limits.block_watchers_max;
        let is_served = |slot: Slot| {
            let watcher = &self.watchers[slot];
            self.index.bucket(watcher.place.bucket).is_within(&request.span)
                && (request.wants_prev || !watcher.options.wants_prev)
        };
        let from_here = self.ready.range((request.from, 0)..).take(watchers_max);
        let chosen: Vec<Chosen> = from_here.copied().filter(|(_, slot)| is_served(*slot)).collect();
        let through = self.gather_block(block, &chosen);
        self.send_block(&chosen, through);
        through
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
        spans.reduce(join).expect("a watcher is chosen")
    }

    /// Gathers for the chosen watchers. Returns the revision up to which that is complete.
    fn gather_block(&mut self, block: Block, chosen: &[Chosen]) -> i64 {
        let mut takers: BTreeMap<Slot, Vec<Slot>> = BTreeMap::new();
        for &(_, slot) in chosen {
            takers.entry(self.watchers[slot].place.bucket).or_default().push(slot);
        }
        let mut buckets = Vec::new();
        let mut last = None;
        for event in block.events.into_iter().map(Event::from) {
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
                        self.gather.add(slot, watcher, &event, false);
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
