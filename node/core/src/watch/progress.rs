//! Telling clients how far they are when nothing happens, and that there is no leader. A progress
//! response says that nothing up to its revision is missing, so it is made only where that holds:
//! it follows every event of its stream in the queue, and its revision is the frontier.

use super::hub::Hub;
use super::response::{NO_WATCHER, Response};
use super::slab::Slot;
use super::watcher::Phase;
use crate::Error;
use crate::mutant::{self, Mutant};
use crate::time::{Length, Time};

/// Election timeouts without a leader after which streams that need one are closed.
pub const LEADERLESS_TIMEOUTS: u64 = 3;

impl Hub {
    /// When the next `Input::Tick` is wanted. May be in the past.
    pub fn next_deadline(&self) -> Option<Time> {
        let progress = self.progress_ends.first().map(|(end, _)| *end);
        let leader = (!self.needing_leader.is_empty()).then(|| self.leaderless_end()).flatten();
        progress.into_iter().chain(leader).min()
    }

    /// One answer for the whole stream, or none: a client asks again.
    pub(super) fn on_progress_request(&mut self, slot: Slot) {
        if mutant::is(Mutant::ProgressAhead) {
            let header = self.header(self.frontier.seen());
            return self.send(slot, Response::new(header, NO_WATCHER));
        }
        if self.streams[slot].is_synced() && !self.frontier.has_gap() {
            let header = self.header(self.frontier.delivered());
            self.send(slot, Response::new(header, NO_WATCHER));
        }
    }

    /// Does what is due, up to a limit; what is left is due at once.
    pub(super) fn on_tick(&mut self, now: Time) {
        for _ in 0..self.config.limits.tick_streams_max {
            match self.progress_ends.first() {
                Some(&(end, slot)) if end <= now => self.end_interval(now, end, slot),
                _ => break,
            }
        }
        if self.leaderless_end().is_some_and(|end| end <= now) {
            for _ in 0..self.config.limits.tick_streams_max {
                let Some(&slot) = self.needing_leader.first() else { break };
                self.close_stream(slot, Error::NoLeader);
            }
        }
    }

    /// Notes that a watcher wants progress by interval.
    pub(super) fn begin_progress(&mut self, now: Time, slot: Slot, id: i64) {
        let stream = &mut self.streams[slot];
        stream.notified.insert(id);
        if stream.progress_at.is_none() {
            let end = now + stream.progress_interval;
            stream.progress_at = Some(end);
            self.progress_ends.insert((end, slot));
        }
    }

    /// Tells progress to the watchers that were sent no event in the interval that ends.
    fn end_interval(&mut self, now: Time, end: Time, slot: Slot) {
        self.progress_ends.remove(&(end, slot));
        let stream = &mut self.streams[slot];
        if stream.notified.is_empty() {
            stream.progress_at = None;
            return;
        }
        let next = now + stream.progress_interval;
        stream.progress_at = Some(next);
        self.progress_ends.insert((next, slot));

        let notified: Vec<i64> = stream.notified.iter().copied().collect();
        for id in notified {
            let stream = &self.streams[slot];
            if stream.is_blocked {
                break;
            }
            let watcher = &mut self.watchers[stream.watchers[&id]];
            let was_quiet = std::mem::replace(&mut watcher.is_quiet, true);
            let is_synced = watcher.phase == Phase::Live && !watcher.is_waiting;
            if was_quiet && is_synced && !self.frontier.has_gap() {
                let header = self.header(self.frontier.delivered());
                self.send(slot, Response::new(header, id));
            }
        }
    }

    fn leaderless_end(&self) -> Option<Time> {
        let patience = Length(self.config.election_timeout.0 * LEADERLESS_TIMEOUTS);
        self.leaderless_since.map(|since| since + patience)
    }
}
