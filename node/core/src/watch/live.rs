//! Events as they are published, to the watchers that are up to date. A watcher whose stream has
//! no room turns to the history at the first revision it could not be sent; the others do not
//! notice.

use super::Event;
use super::hub::{Hub, Published};
use super::watcher::Phase;
use crate::mutant::{self, Mutant};

impl Hub {
    pub(super) fn on_published(&mut self, published: Published) {
        self.frontier.on_published(published.revision, published.compact_revision);
        let delivered = self.frontier.delivered();
        // After a gap, what is published is read from the history with the rest.
        let is_next = published.after <= delivered || mutant::is(Mutant::GapIgnored);
        if is_next && delivered < published.revision {
            self.deliver(&published.events, published.revision);
        }
    }

    /// Sends events to live watchers and moves the frontier on to `through`. Events up to the
    /// frontier are left out: they were sent before.
    pub(super) fn deliver(&mut self, events: &[Event], through: i64) {
        let mut buckets = Vec::new();
        for revision in events.chunk_by(|one, next| one.change().revision == next.change().revision)
        {
            let at = revision[0].change().revision;
            if at <= self.frontier.delivered() {
                continue;
            }
            assert!(at <= through, "a batch holds the revisions it says");
            if self.gather.count() >= self.config.limits.gather_events_max {
                self.flush(at - 1);
            }
            for event in revision {
                self.index.find(&event.change().key, &mut buckets);
                for bucket in buckets.drain(..) {
                    for &slot in self.index.bucket(bucket).live() {
                        let watcher = &mut self.watchers[slot];
                        if watcher.wants(event.change()) {
                            let is_blocked = self.streams[watcher.stream].is_blocked;
                            self.gather.add(slot, watcher, event, is_blocked);
                        }
                    }
                }
            }
        }
        self.flush(through);
    }

    /// Sends what was gathered of the revisions up to `through`, which are complete.
    fn flush(&mut self, through: i64) {
        self.settle_waiting(through);
        for entry in self.gather.take() {
            let slot = entry.watcher;
            if let Some(next) = self.send_events(entry, None) {
                self.set_phase(slot, Phase::Parked, next);
            }
        }
        self.frontier.advance(through);
    }
}
