//! Where the time of a call went, in phases that sum to the whole. A call has one trace, which it
//! takes along to whoever carries it out; each notes when its phase ended, by a store to memory that
//! nobody waits for. What the phases are of each kind of request is in docs/operations.md.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use flotilla_core::proto::internal;
use flotilla_core::spine::apply::Way;
use flotilla_core::time::Time;

use super::REQUESTS_PER_LOOK;

/// A part of a call's time, in the order in which they come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Until the spine's actor takes it up.
    Queue,
    /// Until it is where it is carried out.
    Route,
    /// Until it is handed to the log: latches, evaluation, the batch.
    Propose,
    /// Until the leader's own log has it.
    Flush,
    /// Until a quorum has it.
    Replicate,
    /// Until its place in the order is known.
    Order,
    /// Until it is in the store, or read from there.
    Apply,
    /// Until its answer is encoded.
    Encode,
}

impl Phase {
    /// As logs, trailers and metrics call them.
    pub const NAMES: [&str; 8] =
        ["queue", "route", "propose", "flush", "replicate", "order", "apply", "encode"];
    const COUNT: usize = Self::NAMES.len();
}

/// Phases that are noted by others than the worker.
const NOTED: usize = Phase::Encode as usize;

/// Microseconds of each phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent([u64; Phase::COUNT]);

impl Spent {
    /// Of one phase.
    pub fn of(&self, phase: Phase) -> u64 {
        self.0[phase as usize]
    }

    /// Names and microseconds, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Phase::NAMES.into_iter().zip(self.0)
    }

    /// Of all phases.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Adds what lies between `from` and the ends of phases, and answers the last end. A phase
    /// without an end, zero, took no time: it belongs to the next one that has an end. An end that
    /// is earlier than the one before it is moved there.
    fn add(&mut self, from: u64, ends: &[u64; NOTED]) -> u64 {
        let mut last = from;
        for (spent, end) in self.0.iter_mut().zip(ends) {
            *spent += end.saturating_sub(last);
            last = last.max(*end);
        }
        last
    }
}

/// The moments of one call, in microseconds since it began.
#[derive(Debug)]
pub struct Trace {
    began: Instant,
    /// Ends of the phases of what is under way; 0 while it has not come so far.
    ends: [AtomicU64; NOTED],
    /// What came of that which is not under way any more. Only the worker looks at it.
    spent: [AtomicU64; Phase::COUNT],
    /// Up to when.
    settled: AtomicU64,
    is_looked_at: bool,
}

impl Trace {
    /// A call begins.
    pub fn begin() -> Self {
        Self::begun_at(Instant::now())
    }

    fn begun_at(began: Instant) -> Self {
        Self {
            began,
            ends: Default::default(),
            spent: Default::default(),
            settled: 0.into(),
            is_looked_at: rand::random_ratio(1, REQUESTS_PER_LOOK),
        }
    }

    /// Whether the call is one of the few that statistics are made of.
    pub fn is_looked_at(&self) -> bool {
        self.is_looked_at
    }

    /// How long ago it began.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// A phase of what is under way ends.
    pub fn reach(&self, phase: Phase, at: Instant) {
        self.ends[phase as usize].store(self.micros(at), Ordering::Relaxed);
    }

    /// The same, unless it has ended before.
    pub fn reach_first(&self, phase: Phase, at: Instant) {
        if !self.has_reached(phase) {
            self.reach(phase, at);
        }
    }

    /// Whether a phase of what is under way has ended.
    pub fn has_reached(&self, phase: Phase) -> bool {
        self.ends[phase as usize].load(Ordering::Relaxed) > 0
    }

    /// A write of this node's leader is in the store. `started` is when the machines' time began.
    pub fn follow(&self, way: &Way, started: Instant, applied: Instant) {
        self.follow_unapplied(way, started);
        self.reach(Phase::Apply, applied);
    }

    /// A write of this node's leader is on its way.
    pub fn follow_unapplied(&self, way: &Way, started: Instant) {
        let phases = [Phase::Route, Phase::Propose, Phase::Flush, Phase::Replicate, Phase::Order];
        for (phase, end) in phases.into_iter().zip(ends(way)) {
            if end > Time(0) {
                self.reach(phase, started + Duration::from_micros(end.0));
            }
        }
    }

    /// Another node has carried it out, and its answer has come.
    pub fn follow_remote(&self, phases: Option<internal::Phases>, answered: Instant) {
        let internal::Phases { propose, flush, replicate, order, apply } =
            phases.unwrap_or_default();
        let mut end = self.micros(answered);
        let noted = [Phase::Apply, Phase::Order, Phase::Replicate, Phase::Flush, Phase::Propose];
        for (phase, took) in noted.into_iter().zip([apply, order, replicate, flush, propose]) {
            self.ends[phase as usize].store(end, Ordering::Relaxed);
            end = end.saturating_sub(u64::from(took));
        }
        self.ends[Phase::Route as usize].store(end.max(1), Ordering::Relaxed);
    }

    /// The worker has its answer: what was under way is added up.
    pub fn settle(&self) {
        let ends = self.ends.each_ref().map(|end| end.swap(0, Ordering::Relaxed));
        let mut spent = self.spent();
        let settled = spent.add(self.settled.load(Ordering::Relaxed), &ends);
        self.store(&spent, settled);
    }

    /// All the time since the last moment that is known went into this phase; or into the first, if
    /// none is.
    pub fn spend(&self, phase: Phase) {
        let now = self.micros(Instant::now());
        let settled = self.settled.load(Ordering::Relaxed);
        let phase = if settled == 0 { Phase::Queue } else { phase };
        let mut spent = self.spent();
        spent.0[phase as usize] += now.saturating_sub(settled);
        self.store(&spent, settled.max(now));
    }

    /// What the phases took so far, which is all the time up to what was spent last.
    pub fn spent(&self) -> Spent {
        Spent(self.spent.each_ref().map(|spent| spent.load(Ordering::Relaxed)))
    }

    fn store(&self, spent: &Spent, settled: u64) {
        for (place, micros) in self.spent.iter().zip(spent.0) {
            place.store(micros, Ordering::Relaxed);
        }
        self.settled.store(settled, Ordering::Relaxed);
    }

    fn micros(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.began);
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }
}

/// Where the time of a write of another node's client went, here at its leader.
pub fn phases(way: &Way, applied: Time) -> Option<internal::Phases> {
    if way.begun == Time(0) {
        return None;
    }
    let [begun, propose, flush, replicate, order] = ends(way).map(|end| end.0);
    let mut spent = Spent::default();
    spent.add(begun, &[0, 0, propose, flush, replicate, order, applied.0]);
    let took = |phase| u32::try_from(spent.of(phase)).unwrap_or(u32::MAX);
    Some(internal::Phases {
        propose: took(Phase::Propose),
        flush: took(Phase::Flush),
        replicate: took(Phase::Replicate),
        order: took(Phase::Order),
        apply: took(Phase::Apply),
    })
}

/// Ends of the phases from `Route` to `Order`. A quorum may have an entry before this node's own disk
/// has: then nobody waits for the disk any more.
fn ends(way: &Way) -> [Time; 5] {
    let Way { begun, proposed, flushed, committed, ordered } = *way;
    let is_needed = committed == Time(0) || (flushed > Time(0) && flushed <= committed);
    let flushed = if is_needed { flushed } else { committed };
    [begun, proposed, flushed, committed, ordered]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(began: Instant, micros: u64) -> Instant {
        began + Duration::from_micros(micros)
    }

    fn traced(note: impl FnOnce(&Trace, Instant)) -> [u64; 8] {
        let began = Instant::now();
        let trace = Trace::begun_at(began);
        note(&trace, began);
        trace.settle();
        let settled = trace.settled.load(Ordering::Relaxed);
        let spent = trace.spent();
        assert_eq!(spent.total(), settled, "the phases are the whole");
        spent.0
    }

    fn way(times: [u64; 5]) -> Way {
        let [begun, proposed, flushed, committed, ordered] = times.map(Time);
        Way { begun, proposed, flushed, committed, ordered }
    }

    #[test]
    fn a_write_has_all_phases() {
        let spent = traced(|trace, began| {
            trace.reach(Phase::Queue, at(began, 5));
            trace.follow(&way([7, 20, 50, 90, 95]), began, at(began, 100));
        });
        assert_eq!(spent, [5, 2, 13, 30, 40, 5, 5, 0]);
    }

    #[test]
    fn a_phase_that_does_not_occur_takes_no_time() {
        // A read: taken up, and given its ticket.
        let spent = traced(|trace, began| {
            trace.reach(Phase::Queue, at(began, 5));
            trace.reach(Phase::Order, at(began, 30));
        });
        assert_eq!(spent, [5, 0, 0, 0, 0, 25, 0, 0]);
        assert_eq!(traced(|_, _| {}), [0; 8]);
        // The leadership changed, and when it was proposed is not known.
        let spent = traced(|trace, began| {
            trace.follow(&way([7, 0, 0, 90, 95]), began, at(began, 100));
        });
        assert_eq!(spent, [0, 7, 0, 83, 0, 5, 5, 0]);
    }

    #[test]
    fn a_disk_that_a_quorum_did_not_wait_for_takes_no_longer_than_the_quorum() {
        let spent = traced(|trace, began| {
            trace.follow(&way([7, 20, 80, 50, 50]), began, at(began, 100));
        });
        assert_eq!(spent, [0, 7, 13, 30, 0, 0, 50, 0]);
        // It is not done yet.
        let spent = traced(|trace, began| {
            trace.follow(&way([7, 20, 0, 50, 50]), began, at(began, 100));
        });
        assert_eq!(spent, [0, 7, 13, 30, 0, 0, 50, 0]);
    }

    #[test]
    fn clocks_that_disagree_lose_nothing() {
        let spent = traced(|trace, began| {
            trace.reach(Phase::Queue, at(began, 50));
            trace.follow(&way([40, 45, 60, 60, 55]), began, at(began, 58));
        });
        assert_eq!(spent, [50, 0, 0, 10, 0, 0, 0, 0]);
    }

    #[test]
    fn what_happened_at_another_node_is_told_by_it_and_the_rest_is_the_way_there() {
        let phases = phases(&way([107, 120, 150, 190, 195]), Time(200));
        let spent = traced(|trace, began| {
            trace.reach(Phase::Queue, at(began, 5));
            trace.follow_remote(phases, at(began, 1_000));
            // Shown here.
            trace.reach(Phase::Apply, at(began, 1_010));
        });
        assert_eq!(spent, [5, 902, 13, 30, 40, 5, 15, 0]);
        // It tells nothing; it tells of more than there was.
        let spent = traced(|trace, began| trace.follow_remote(None, at(began, 1_000)));
        assert_eq!(spent, [0, 1_000, 0, 0, 0, 0, 0, 0]);
        let spent = traced(|trace, began| trace.follow_remote(phases, at(began, 20)));
        assert_eq!(spent.iter().sum::<u64>(), 20);
        assert_eq!(super::phases(&Way::default(), Time(9)), None);
    }

    #[test]
    fn a_call_of_several_requests_adds_them_up() {
        let began = Instant::now();
        let trace = Trace::begun_at(began);
        for start in [100, 200] {
            trace.reach(Phase::Queue, at(began, start));
            trace.reach(Phase::Order, at(began, start + 30));
            trace.settle();
        }
        assert_eq!(trace.spent().0, [170, 0, 0, 0, 0, 60, 0, 0]);
        std::thread::sleep(Duration::from_millis(1));
        trace.spend(Phase::Apply);
        trace.spend(Phase::Encode);
        let spent = trace.spent();
        assert!(spent.of(Phase::Apply) >= 770, "{spent:?}");
        assert_eq!(spent.total(), trace.settled.load(Ordering::Relaxed));
    }
}
