//! When the entries of one group that this node leads came to the stations of their way: by batch, in a
//! short list beside the actor, so that a request pays for none of it.

use std::collections::VecDeque;

use flotilla_core::group::Append;
use flotilla_core::spine::apply::{Step, Way};
use flotilla_core::time::Time;

/// Batches that are remembered. Of older ones nothing is known when they are applied.
const BATCHES_MAX: usize = 4_096;

/// The batches that are not applied yet, in the order of the log.
#[derive(Debug, Default)]
pub(super) struct Moments {
    batches: VecDeque<Batch>,
    committed: Time,
}

/// Entries that were handed to the log together.
#[derive(Clone, Copy, Debug)]
struct Batch {
    token: u64,
    first: u64,
    last: u64,
    proposed: Time,
    /// Zero until then, as the next.
    flushed: Time,
    committed: Time,
}

impl Moments {
    /// The leader hands entries to the log.
    pub(super) fn proposed(&mut self, append: &Append, now: Time) {
        let (Some(first), Some(last)) = (append.entries.first(), append.entries.last()) else {
            return;
        };
        let (first, last) = (first.index, last.index);
        // Of an earlier leadership, and written over.
        while self.batches.back().is_some_and(|batch| batch.last >= first) {
            self.batches.pop_back();
        }
        if self.batches.len() >= BATCHES_MAX {
            self.batches.pop_front();
        }
        let (flushed, committed) = (Time(0), Time(0));
        let batch = Batch { token: append.token, first, last, proposed: now, flushed, committed };
        self.batches.push_back(batch);
    }

    /// The log has everything up to a token.
    pub(super) fn flushed(&mut self, token: u64, now: Time) {
        let done = self.batches.partition_point(|batch| batch.flushed > Time(0));
        let rest = self.batches.iter_mut().skip(done);
        rest.take_while(|batch| batch.token <= token).for_each(|batch| batch.flushed = now);
    }

    /// Everything up to an index is committed.
    pub(super) fn committed(&mut self, index: u64, now: Time) {
        self.committed = now;
        let done = self.batches.partition_point(|batch| batch.committed > Time(0));
        let rest = self.batches.iter_mut().skip(done);
        rest.take_while(|batch| batch.last <= index).for_each(|batch| batch.committed = now);
    }

    /// As `ordered`, where an entry has its place in the order when it is committed.
    pub(super) fn folded(&mut self, index: u64, steps: &mut [Step]) {
        self.ordered(index, steps, self.committed);
    }

    /// An entry is handed to the store: its answers are told how it came there. What comes before it
    /// is forgotten.
    pub(super) fn ordered(&mut self, index: u64, steps: &mut [Step], now: Time) {
        while self.batches.front().is_some_and(|batch| batch.last < index) {
            self.batches.pop_front();
        }
        let front = self.batches.front().filter(|batch| batch.first <= index);
        for way in steps.iter_mut().filter_map(|step| Some(&mut step.reply.as_mut()?.way)) {
            way.ordered = now;
            if let Some(batch) = front {
                way.proposed = batch.proposed;
                way.flushed = batch.flushed;
                // A part of a batch may be committed before the rest.
                way.committed = if batch.committed > Time(0) { batch.committed } else { now };
            }
        }
    }

    /// How far what was proposed after a moment has come, of that which is furthest: it has kept
    /// whoever came then. `None` if nothing waits.
    pub(super) fn stuck(&self, since: Time) -> Option<Way> {
        let is_stuck = |batch: &&Batch| batch.committed == Time(0) && batch.proposed >= since;
        let Batch { proposed, flushed, .. } = *self.batches.iter().find(is_stuck)?;
        Some(Way { proposed, flushed, ..Way::default() })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use flotilla_core::auth::Pass;
    use flotilla_core::command::RequestId;
    use flotilla_core::group::{Entry, EntryKind};
    use flotilla_core::spine::apply::{Content, Reply, Requester};
    use flotilla_core::{Error, NodeId};

    use super::*;

    fn append(token: u64, indexes: std::ops::RangeInclusive<u64>) -> Append {
        let (data, context) = (Bytes::new(), Bytes::new());
        let entry = |index| Entry {
            index,
            term: 1,
            kind: EntryKind::Normal,
            data: data.clone(),
            context: context.clone(),
        };
        let entries = indexes.map(entry).collect();
        Append { token, reset: None, hard_state: Default::default(), entries }
    }

    fn ordered(moments: &mut Moments, index: u64, now: u64) -> Way {
        let id = RequestId { origin: 1, n: 1 };
        let to = Requester { id, node: NodeId(1), pass: Pass::NOBODY };
        let content = Content::Refused(Error::Stopped);
        let way = Way { begun: Time(1), ..Way::default() };
        let reply = Some(Reply { to, content, revision: 0, way });
        let mut steps = [Step::default(), Step { reply, ..Step::default() }];
        moments.ordered(index, &mut steps, Time(now));
        steps[1].reply.as_ref().expect("it was put there").way
    }

    #[test]
    fn entries_share_the_moments_of_their_batch() {
        let mut moments = Moments::default();
        moments.proposed(&append(7, 3..=4), Time(10));
        moments.proposed(&append(8, 5..=5), Time(11));
        // A vote, without entries.
        let vote = Append { entries: Vec::new(), ..append(9, 6..=6) };
        moments.proposed(&vote, Time(12));
        moments.flushed(7, Time(20));
        moments.committed(4, Time(30));
        let way = |proposed, flushed, committed, ordered| Way {
            begun: Time(1),
            proposed: Time(proposed),
            flushed: Time(flushed),
            committed: Time(committed),
            ordered: Time(ordered),
        };
        assert_eq!(ordered(&mut moments, 3, 40), way(10, 20, 30, 40));
        assert_eq!(ordered(&mut moments, 4, 41), way(10, 20, 30, 41));
        // The others have it, and this node's disk is behind.
        moments.committed(5, Time(50));
        assert_eq!(ordered(&mut moments, 5, 51), way(11, 0, 50, 51));
        assert_eq!(ordered(&mut moments, 6, 60), way(0, 0, 0, 60), "it led later");
    }

    #[test]
    fn what_was_written_over_is_forgotten_and_there_is_a_limit() {
        let mut moments = Moments::default();
        moments.proposed(&append(1, 3..=9), Time(10));
        moments.proposed(&append(2, 5..=5), Time(11));
        assert_eq!(moments.batches.len(), 1);
        for index in 6..6 + BATCHES_MAX as u64 {
            moments.proposed(&append(index, index..=index), Time(index));
        }
        assert_eq!(moments.batches.len(), BATCHES_MAX);
        assert_eq!(moments.batches[0].first, 6);
    }

    #[test]
    fn what_keeps_a_request_is_what_was_proposed_after_it() {
        let mut moments = Moments::default();
        assert_eq!(moments.stuck(Time(0)), None);
        moments.proposed(&append(1, 3..=3), Time(10));
        moments.proposed(&append(2, 4..=4), Time(20));
        moments.flushed(2, Time(30));
        let stuck = Way { proposed: Time(20), flushed: Time(30), ..Way::default() };
        assert_eq!(moments.stuck(Time(11)), Some(stuck));
        moments.committed(4, Time(40));
        assert_eq!(moments.stuck(Time(11)), None);
    }
}
