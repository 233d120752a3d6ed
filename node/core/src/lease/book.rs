//! Deadlines of leases. Granted and renewed in memory, forgotten with the leadership.

use std::collections::{BTreeMap, BTreeSet};

use crate::Error;
use crate::time::{Length, Time};

/// Largest TTL in seconds.
pub(super) const TTL_SECS_MAX: i64 = 9_000_000_000;
/// Leases handed out as due at once.
pub(super) const DUE_MAX: usize = 500;
/// Time between two rounds of expiry.
pub(super) const DUE_EVERY: Length = Length::from_ms(500);
/// From this many leases on, a new leader spreads their ends.
pub(super) const SPREAD_LEASES_MIN: usize = 1_000;
/// So many leases a second end at most after a change of leader.
pub(super) const SPREAD_PER_SEC: u64 = 750;
/// Only leases with more time left than this are marked.
pub(super) const CHECKPOINT_ABOVE: Length = Length::from_secs(300);
/// Time between two marks of a lease.
pub(super) const CHECKPOINT_EVERY: Length = Length::from_secs(300);
/// Leases marked at once.
pub(super) const CHECKPOINT_MAX: usize = 1_000;

/// What a keep-alive does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// It lasts its whole TTL again.
    Renewed {
        /// Seconds.
        ttl: i64,
    },
    /// As `Renewed`, and the mark of its remaining time must be cleared through the log.
    RenewedWithMark {
        /// Seconds.
        ttl: i64,
    },
    /// There is no such lease.
    Unknown,
    /// It is past its end and will be revoked: wait for that.
    Overdue,
}

/// The TTL a lease is given: at least one and a half election timeouts, in whole seconds.
///
/// # Errors
/// It is above the maximum.
pub fn effective_ttl(ttl: i64, election_timeout: Length) -> Result<i64, Error> {
    if ttl > TTL_SECS_MAX {
        return Err(Error::LeaseTtlTooLarge);
    }
    let min = (election_timeout.0 * 3 / 2).div_ceil(1_000_000);
    Ok(ttl.max(i64::try_from(min).expect("an election timeout is short")))
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    ttl: i64,
    ends: Time,
    marks: Option<Time>,
    is_marked: bool,
}

/// When leases end.
#[derive(Debug)]
pub struct Book {
    election_timeout: Length,
    leases: BTreeMap<i64, Entry>,
    by_end: BTreeSet<(Time, i64)>,
    by_mark: BTreeSet<(Time, i64)>,
    next_round: Time,
}

impl Book {
    /// An empty book.
    pub fn new(election_timeout: Length) -> Self {
        Self {
            election_timeout,
            leases: BTreeMap::new(),
            by_end: BTreeSet::new(),
            by_mark: BTreeSet::new(),
            next_round: Time::default(),
        }
    }

    /// A new leader takes over: (id, TTL, remaining seconds or 0) of every lease. Each lasts what
    /// is left of it, as far as known, and an election timeout more.
    pub fn promote(&mut self, leases: impl Iterator<Item = (i64, i64, i64)>, now: Time) {
        self.demote();
        for (id, ttl, remaining) in leases {
            let left = if remaining > 0 { remaining } else { ttl };
            let ends = now + secs(left) + self.election_timeout;
            self.insert(id, Entry { ttl, ends, marks: None, is_marked: remaining > 0 }, now);
        }
        if self.leases.len() >= SPREAD_LEASES_MIN {
            self.spread();
        }
    }

    /// The leadership is over.
    pub fn demote(&mut self) {
        self.leases.clear();
        self.by_end.clear();
        self.by_mark.clear();
    }

    /// A lease was granted.
    pub fn grant(&mut self, id: i64, ttl: i64, now: Time) {
        let ends = now + secs(ttl);
        self.insert(id, Entry { ttl, ends, marks: None, is_marked: false }, now);
    }

    /// A lease is gone.
    pub fn revoke(&mut self, id: i64) {
        if let Some(entry) = self.leases.remove(&id) {
            self.by_end.remove(&(entry.ends, id));
            if let Some(at) = entry.marks {
                self.by_mark.remove(&(at, id));
            }
        }
    }

    /// A client keeps a lease alive.
    pub fn renew(&mut self, id: i64, now: Time) -> Renewal {
        let Some(entry) = self.leases.get(&id).copied() else { return Renewal::Unknown };
        if entry.ends <= now {
            return Renewal::Overdue;
        }
        self.revoke(id);
        let ttl = entry.ttl;
        self.insert(id, Entry { ends: now + secs(ttl), marks: None, is_marked: false, ttl }, now);
        if entry.is_marked { Renewal::RenewedWithMark { ttl } } else { Renewal::Renewed { ttl } }
    }

    /// Whole seconds left, truncated; 0 or less when it is overdue.
    pub fn remaining_secs(&self, id: i64, now: Time) -> Option<i64> {
        let entry = self.leases.get(&id)?;
        let signed = |time: Time| i64::try_from(time.0).unwrap_or(i64::MAX);
        Some((signed(entry.ends) - signed(now)) / 1_000_000)
    }

    /// Some lease is past its end.
    pub fn is_anything_due(&self, now: Time) -> bool {
        self.by_end.first().is_some_and(|(ends, _)| *ends <= now)
    }

    /// Leases to be revoked now: none while it is not allowed, and never too many at once. One
    /// that is not revoked comes again in the next round.
    pub fn due(&mut self, now: Time, is_allowed: bool) -> Vec<i64> {
        if !is_allowed || now < self.next_round {
            return Vec::new();
        }
        self.next_round = now + DUE_EVERY;
        self.by_end
            .iter()
            .take_while(|(ends, _)| *ends <= now)
            .take(DUE_MAX)
            .map(|(_, id)| *id)
            .collect()
    }

    /// (id, seconds left) of leases whose remaining time should be written down.
    pub fn checkpoints(&mut self, now: Time) -> Vec<(i64, i64)> {
        let due: Vec<(Time, i64)> = self
            .by_mark
            .iter()
            .take_while(|(at, _)| *at <= now)
            .take(CHECKPOINT_MAX)
            .copied()
            .collect();
        let mut marks = Vec::with_capacity(due.len());
        for (at, id) in due {
            self.by_mark.remove(&(at, id));
            let entry = self.leases.get_mut(&id).expect("a marked lease is in the book");
            entry.marks = None;
            let left = entry.ends.since(now);
            if left > Length(0) {
                entry.is_marked = true;
                marks.push((id, i64::try_from(left.as_secs().max(1)).unwrap_or(i64::MAX)));
            }
            self.schedule_mark(id, now);
        }
        marks
    }

    fn insert(&mut self, id: i64, entry: Entry, now: Time) {
        self.by_end.insert((entry.ends, id));
        self.leases.insert(id, entry);
        self.schedule_mark(id, now);
    }

    fn schedule_mark(&mut self, id: i64, now: Time) {
        let entry = self.leases.get_mut(&id).expect("a lease in the book");
        if entry.ends.since(now) > CHECKPOINT_ABOVE {
            let at = now + CHECKPOINT_EVERY;
            entry.marks = Some(at);
            self.by_mark.insert((at, id));
        }
    }

    /// No more than a bounded number of leases ends in any second: later ones wait.
    fn spread(&mut self) {
        let gap = Length(1_000_000 / SPREAD_PER_SEC);
        let ordered: Vec<(Time, i64)> = self.by_end.iter().copied().collect();
        let mut earliest = Time::default();
        for (ends, id) in ordered {
            let spread = ends.max(earliest);
            earliest = spread + gap;
            if spread != ends {
                self.by_end.remove(&(ends, id));
                self.by_end.insert((spread, id));
                self.leases.get_mut(&id).expect("a lease in the book").ends = spread;
            }
        }
    }
}

fn secs(secs: i64) -> Length {
    Length::from_secs(u64::try_from(secs).unwrap_or(0))
}
