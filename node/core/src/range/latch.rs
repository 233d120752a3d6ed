//! Latches: a leader's in-memory locks on keys, spans and leases, granted strictly in the order
//! asked for. A request gets all of its latches together or waits for all of them, and nothing is
//! ever asked for while something is held, so there is no deadlock.

use std::collections::{BTreeMap, HashMap, VecDeque};

use bytes::Bytes;

use crate::mutant::{self, Mutant};
use crate::mvcc;
use crate::proto::Span;

/// What a request does at a place. `Blind` writes do not read and may share a place with each
/// other, reads may share with reads; everything else excludes everything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// Writes without reading.
    Blind,
    /// Reads.
    Read,
    /// Reads and writes.
    Write,
}

impl Mode {
    const fn is_shared_with(self, other: Self) -> bool {
        matches!((self, other), (Self::Blind, Self::Blind) | (Self::Read, Self::Read))
    }

    const fn joined_with(self, other: Self) -> Self {
        if self.is_shared_with(other) { self } else { Self::Write }
    }
}

/// A place that is latched by itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Point {
    /// Revisions of the past: reading them reads it, compacting writes it.
    Past,
    /// A lease: attaching a key reads it, revoking writes it.
    Lease(i64),
    /// The membership, and with it which keys the range has: a merge writes it, the end of a lease
    /// reads it.
    Members,
    /// A user key.
    Key(Bytes),
}

/// All places a request needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Single places; a place may be named more than once.
    pub points: Vec<(Point, Mode)>,
    /// Spans of keys.
    pub spans: Vec<(Span, Mode)>,
}

impl Footprint {
    /// Joins the modes of places named more than once.
    fn normalise(&mut self) {
        if self.points.len() < 2 {
            return;
        }
        self.points.sort();
        self.points.dedup_by(|later, earlier| {
            let is_same = later.0 == earlier.0;
            if is_same {
                earlier.1 = earlier.1.joined_with(later.1);
            }
            is_same
        });
    }
}

impl From<mvcc::Footprint> for Footprint {
    fn from(footprint: mvcc::Footprint) -> Self {
        let to_mode = |mode: mvcc::Mode| match mode {
            mvcc::Mode::Read => Mode::Read,
            mvcc::Mode::Blind => Mode::Blind,
            mvcc::Mode::Write => Mode::Write,
        };
        let keys = footprint.keys.into_iter().map(|(key, mode)| (Point::Key(key), to_mode(mode)));
        let leases = footprint.leases.into_iter().map(|id| (Point::Lease(id.0), Mode::Read));
        let past = footprint.reads_at.is_some().then_some((Point::Past, Mode::Read));
        Self {
            points: keys.chain(leases).chain(past).collect(),
            spans: footprint.spans.into_iter().map(|(span, mode)| (span, to_mode(mode))).collect(),
        }
    }
}

/// Names one request among those that hold or wait for latches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Guard(u64);

/// Requests at one point that may hold it together.
#[derive(Debug)]
struct Crowd {
    mode: Mode,
    members: Vec<u64>,
}

#[derive(Debug)]
struct Slot {
    footprint: Footprint,
    /// Earlier conflicting requests that are not released yet, with multiplicity.
    blockers_count: usize,
    /// Later requests that wait for this one, with multiplicity.
    dependents: Vec<u64>,
}

/// All latches of one range.
#[derive(Debug, Default)]
pub struct Latches {
    next: u64,
    slots: HashMap<u64, Slot>,
    points: BTreeMap<Point, VecDeque<Crowd>>,
    spans: Vec<(u64, Span, Mode)>,
}

impl Latches {
    /// Asks for latches. True when they are granted at once; otherwise a later `release` returns
    /// the guard.
    pub fn acquire(&mut self, mut footprint: Footprint) -> (Guard, bool) {
        footprint.normalise();
        self.next += 1;
        let me = self.next;
        let mut blockers = Vec::new();

        for (span_owner, span, span_mode) in &self.spans {
            let is_blocked = footprint.points.iter().any(|(point, mode)| match point {
                Point::Key(key) => !span_mode.is_shared_with(*mode) && span.contains(key),
                Point::Past | Point::Lease(_) | Point::Members => false,
            }) || footprint
                .spans
                .iter()
                .any(|(own, mode)| !span_mode.is_shared_with(*mode) && span.overlaps(own));
            if is_blocked {
                blockers.push(*span_owner);
            }
        }
        for (span, mode) in &footprint.spans {
            self.blockers_inside(span, *mode, &mut blockers);
        }
        for (point, mode) in &footprint.points {
            let queue = self.points.entry(point.clone()).or_default();
            let joins = queue.back().is_some_and(|last| last.mode.is_shared_with(*mode));
            if !joins {
                queue.push_back(Crowd { mode: *mode, members: Vec::new() });
            }
            let last = queue.len() - 1;
            if last > 0 {
                blockers.extend_from_slice(&queue[last - 1].members);
            }
            queue[last].members.push(me);
        }
        self.spans.extend(footprint.spans.iter().map(|(span, mode)| (me, span.clone(), *mode)));

        if mutant::is(Mutant::NoLatch) {
            blockers.clear();
        }
        for blocker in &blockers {
            self.slots.get_mut(blocker).expect("a blocker is held or waits").dependents.push(me);
        }
        let is_granted = blockers.is_empty();
        let slot = Slot { footprint, blockers_count: blockers.len(), dependents: Vec::new() };
        self.slots.insert(me, slot);
        (Guard(me), is_granted)
    }

    /// Gives held latches back and appends the guards that are granted by it, oldest first. A
    /// request that no longer wants its latches waits for its turn and then gives them back: those
    /// behind it wait for it alone.
    ///
    /// # Panics
    /// When the guard was released before or is not granted yet.
    pub fn release(&mut self, guard: Guard, granted: &mut Vec<Guard>) {
        let slot = self.slots.remove(&guard.0).expect("a guard is released once");
        assert!(slot.blockers_count == 0, "only granted latches are released");
        for (point, _) in &slot.footprint.points {
            let queue = self.points.get_mut(point).expect("a latched point has a queue");
            for crowd in queue.iter_mut() {
                crowd.members.retain(|member| *member != guard.0);
            }
            queue.retain(|crowd| !crowd.members.is_empty());
            if queue.is_empty() {
                self.points.remove(point);
            }
        }
        if !slot.footprint.spans.is_empty() {
            self.spans.retain(|(owner, _, _)| *owner != guard.0);
        }
        let first = granted.len();
        for dependent in slot.dependents {
            let waiting = self.slots.get_mut(&dependent).expect("a dependent waits");
            waiting.blockers_count -= 1;
            if waiting.blockers_count == 0 {
                granted.push(Guard(dependent));
            }
        }
        granted[first..].sort();
    }

    /// The single places a guard holds or waits for.
    pub fn points_of(&self, guard: Guard) -> Vec<(Point, Mode)> {
        self.slots.get(&guard.0).map(|slot| slot.footprint.points.clone()).unwrap_or_default()
    }

    /// Forgets everything: the leader stepped down.
    pub fn clear(&mut self) {
        self.slots.clear();
        self.points.clear();
        self.spans.clear();
    }

    /// Requests that hold or wait.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// No request holds or waits.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    fn blockers_inside(&self, span: &Span, mode: Mode, blockers: &mut Vec<u64>) {
        if span.is_empty() {
            return;
        }
        for (point, queue) in self.points.range(Point::Key(span.start.clone())..) {
            let Point::Key(key) = point else { continue };
            if !span.contains(key) {
                break;
            }
            for crowd in queue {
                if !crowd.mode.is_shared_with(mode) {
                    blockers.extend_from_slice(&crowd.members);
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "latch_tests.rs"]
mod tests;
