//! The leader's book of leases. Volatile: it is written anew by each new leader from the leases the
//! spine's state holds, and torn up when the leader steps down. It never ends a lease itself: it
//! says which are due, and the caller logs that. A lease past its deadline stays so until the log
//! has ended it or the leader changes; a renewal that comes too late has to wait for either.

use std::collections::{BTreeMap, BTreeSet};

use crate::LeaseId;
use crate::mutant::{self, Mutant};
use crate::proto::internal::LeaseRemaining;
use crate::time::{Length, Time};

/// Leases handed out by one call of `due`.
pub const DUE_MAX: usize = 500;
/// The least time between two such calls that hand out any.
pub const DUE_INTERVAL: Length = Length::from_ms(500);
/// After this time a lease that was handed out and still exists is handed out again: the record
/// that was to end it may have been lost.
pub const REVOKE_RETRY: Length = Length::from_secs(3);
/// With this many leases a new leader spreads the deadlines.
pub const SPREAD_LEASES_MIN: usize = 1_000;
/// Deadlines within any one second after they were spread: three quarters of what is handed out,
/// which leaves room for leases granted later.
pub const SPREAD_PER_SECOND: usize = 750;
/// Leases with more than this left are marked, again and again after this time, so that a change
/// of leader does not give them their full lifetime anew.
pub const MARK_INTERVAL: Length = Length::from_secs(300);
/// Marks handed out by one call of `marks`, to be logged as one record.
pub const MARKS_MAX: usize = 1_000;
/// The least time between two such calls that hand out any. Room for three million leases.
pub const MARK_PASS_INTERVAL: Length = Length::from_ms(100);

/// What becomes of a request to renew a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// It lives for another `ttl` seconds from now.
    Renewed {
        /// Granted seconds.
        ttl: i64,
    },
    /// First log a record that forgets its mark (`remaining_ttl` 0), then ask again; otherwise
    /// the next leader would give it only what was left when it was marked.
    ClearFirst,
    /// Its deadline has passed. Wait until it is revoked, which means "no such lease", or until
    /// the leader changes.
    Expired,
}

/// Why a lease has no entry in the book.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Absent {
    /// This node is not the leader, or cannot confirm that it is.
    #[error("not a primary lessor")]
    NotLeader,
    /// There is no such lease.
    #[error("requested lease not found")]
    Unknown,
}

/// How long a lease still lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeLeft {
    /// Whole seconds, cut off towards zero; zero or negative when the lease is overdue.
    pub secs: i64,
    /// Seconds as granted.
    pub ttl: i64,
}

/// Deadlines of all leases on the leader; nothing on other nodes.
#[derive(Debug, Default)]
pub struct Book {
    pages: Option<Pages>,
}

#[derive(Debug, Default)]
struct Pages {
    leases: BTreeMap<i64, Lease>,
    /// Deadlines of the leases that were not handed out.
    running: BTreeSet<(Time, i64)>,
    /// When the leases that were handed out are so again.
    expiring: BTreeSet<(Time, i64)>,
    /// When leases are to be marked.
    marks: BTreeSet<(Time, i64)>,
    next_due: Time,
    next_mark: Time,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    /// Granted seconds.
    ttl: i64,
    deadline: Time,
    /// Set once it was handed out: when it is so again.
    retry: Option<Time>,
    mark: Option<Time>,
    /// The log holds a mark, or a record that makes one is on its way there.
    is_marked: bool,
}

impl Book {
    /// An empty book, as on a node that is not the leader.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether this node writes deadlines.
    pub fn is_leader(&self) -> bool {
        self.pages.is_some()
    }

    /// Begins a leadership, after the first entry of its term was applied. Each lease, given as
    /// id, granted seconds and seconds left at its mark (0: none), lives as long as that and one
    /// election timeout more, as the last leader may have renewed it up to its end.
    pub fn promote(
        &mut self,
        now: Time,
        election_timeout: Length,
        leases: impl IntoIterator<Item = (LeaseId, i64, i64)>,
    ) {
        let mut sorted: Vec<(Time, i64, Lease)> = leases
            .into_iter()
            .map(|(id, ttl, remaining)| {
                let secs = if remaining > 0 { remaining } else { ttl };
                let secs = if mutant::is(Mutant::LeaseNotExtended) { remaining } else { secs };
                let deadline = now + seconds(secs) + election_timeout;
                let lease =
                    Lease { ttl, deadline, retry: None, mark: None, is_marked: remaining > 0 };
                (deadline, id.0, lease)
            })
            .collect();
        sorted.sort_unstable_by_key(|(deadline, id, _)| (*deadline, *id));
        if sorted.len() >= SPREAD_LEASES_MIN {
            spread(&mut sorted);
        }

        let running = sorted.iter().map(|(deadline, id, _)| (*deadline, *id)).collect();
        let mut pages = Pages { running, ..Pages::default() };
        for (deadline, id, lease) in &mut sorted {
            if deadline.since(now) > MARK_INTERVAL {
                lease.mark = Some(now + MARK_INTERVAL);
                pages.marks.insert((now + MARK_INTERVAL, *id));
            }
        }
        pages.leases = sorted.into_iter().map(|(_, id, lease)| (id, lease)).collect();
        self.pages = Some(pages);
    }

    /// Ends a leadership: no deadline holds any more.
    pub fn demote(&mut self) {
        self.pages = None;
    }

    /// A lease was granted, as applied. Nothing to do on other nodes.
    pub fn grant(&mut self, now: Time, id: LeaseId, ttl: i64) {
        let Some(pages) = &mut self.pages else { return };
        let deadline = now + seconds(ttl);
        let lease = Lease { ttl, deadline, retry: None, mark: None, is_marked: false };
        let earlier = pages.leases.insert(id.0, lease);
        assert!(earlier.is_none(), "the spine grants an id once");
        pages.running.insert((deadline, id.0));
        pages.schedule_mark(now, id.0);
    }

    /// A lease was revoked, as applied: whoever waits for that can be answered.
    pub fn revoke(&mut self, id: LeaseId) {
        let Some(pages) = &mut self.pages else { return };
        let Some(lease) = pages.leases.remove(&id.0) else { return };
        pages.unlist(id.0, lease);
        if let Some(mark) = lease.mark {
            pages.marks.remove(&(mark, id.0));
        }
    }

    /// The mark of a lease was changed, as applied; 0 forgets it.
    pub fn mark(&mut self, id: LeaseId, remaining_ttl: i64) {
        if let Some(lease) = self.pages.as_mut().and_then(|pages| pages.leases.get_mut(&id.0)) {
            lease.is_marked = remaining_ttl > 0;
        }
    }

    /// A client wants a lease renewed. `is_confirmed`: a quorum has confirmed this leader since
    /// the request came, or so recently that no other can have been elected. Without that a new
    /// leader may already count the lease's last seconds.
    ///
    /// # Errors
    /// There is nothing to renew, or it is not for this node to say.
    pub fn renew(&mut self, now: Time, id: LeaseId, is_confirmed: bool) -> Result<Renewal, Absent> {
        let pages = self.pages.as_mut().filter(|_| is_confirmed).ok_or(Absent::NotLeader)?;
        let lease = pages.leases.get_mut(&id.0).ok_or(Absent::Unknown)?;
        if lease.deadline <= now {
            return Ok(Renewal::Expired);
        }
        let (earlier, is_marked, ttl) = (*lease, lease.is_marked, lease.ttl);
        // The client was in time, even if forgetting the mark takes longer than was left.
        lease.deadline = now + seconds(ttl);
        pages.unlist(id.0, earlier);
        pages.running.insert((now + seconds(ttl), id.0));
        pages.schedule_mark(now, id.0);
        Ok(if is_marked { Renewal::ClearFirst } else { Renewal::Renewed { ttl } })
    }

    /// How long a lease still lives.
    ///
    /// # Errors
    /// There is no such lease, or this node is not the leader.
    pub fn time_left(&self, now: Time, id: LeaseId) -> Result<TimeLeft, Absent> {
        let pages = self.pages.as_ref().ok_or(Absent::NotLeader)?;
        let lease = pages.leases.get(&id.0).ok_or(Absent::Unknown)?;
        let left = i128::from(lease.deadline.0) - i128::from(now.0);
        let secs = left / i128::from(Length::from_secs(1).0);
        let secs = i64::try_from(secs).expect("64 bits of microseconds are fewer seconds");
        Ok(TimeLeft { secs, ttl: lease.ttl })
    }

    /// All leases, the one that ends first in front; empty on other nodes.
    pub fn by_deadline(&self) -> Vec<LeaseId> {
        let Some(pages) = &self.pages else { return Vec::new() };
        let deadline = |id: i64| (pages.leases[&id].deadline, id);
        let mut expiring: Vec<(Time, i64)> =
            pages.expiring.iter().map(|(_, id)| deadline(*id)).collect();
        expiring.sort_unstable();
        expiring.iter().chain(&pages.running).map(|(_, id)| LeaseId(*id)).collect()
    }

    /// The leases that end first, and how long each still lives: at most `count_max`. Empty on other
    /// nodes.
    pub fn ending_first(&self, now: Time, count_max: usize) -> Vec<(LeaseId, TimeLeft)> {
        let Some(pages) = &self.pages else { return Vec::new() };
        let listed = pages.expiring.iter().chain(&pages.running).take(count_max);
        let told = listed.map(|(_, id)| (LeaseId(*id), self.time_left(now, LeaseId(*id))));
        told.filter_map(|(id, left)| Some((id, left.ok()?))).collect()
    }

    /// Leases past their deadline, at most `DUE_MAX` each `DUE_INTERVAL`, to be revoked through the
    /// log under the present term. `is_allowed`: a quorum has confirmed this leader recently, and
    /// its own disk is not stalled. A leader that is cut off must not queue revocations that come
    /// true later, after its clients have long renewed elsewhere.
    pub fn due(&mut self, now: Time, is_allowed: bool) -> Vec<LeaseId> {
        let Some(pages) = self.pages.as_mut().filter(|_| is_allowed) else { return Vec::new() };
        if now < pages.next_due {
            return Vec::new();
        }
        let is_due = |(time, _): &&(Time, i64)| *time <= now;
        let again = pages.expiring.iter().take_while(is_due);
        let first = pages.running.iter().take_while(is_due);
        let due: Vec<i64> = again.chain(first).take(DUE_MAX).map(|(_, id)| *id).collect();
        let retry = now + REVOKE_RETRY;
        for &id in &due {
            let lease = pages.leases.get_mut(&id).expect("a listed lease is in the book");
            let earlier = *lease;
            lease.retry = Some(retry);
            pages.unlist(id, earlier);
            pages.expiring.insert((retry, id));
        }
        if !due.is_empty() {
            pages.next_due = now + DUE_INTERVAL;
        }
        due.into_iter().map(LeaseId).collect()
    }

    /// Marks to be logged as one record, at most `MARKS_MAX` each `MARK_PASS_INTERVAL`.
    pub fn marks(&mut self, now: Time) -> Vec<LeaseRemaining> {
        let Some(pages) = self.pages.as_mut().filter(|pages| pages.next_mark <= now) else {
            return Vec::new();
        };
        let mut marks = Vec::new();
        while marks.len() < MARKS_MAX
            && let Some(&(time, id)) = pages.marks.first()
            && time <= now
        {
            pages.schedule_mark(now, id);
            let lease = pages.leases.get_mut(&id).expect("a listed lease is in the book");
            let left = lease.deadline.since(now);
            if left > Length(0) {
                lease.is_marked = true;
                let remaining_ttl = left.0.div_ceil(Length::from_secs(1).0).cast_signed();
                marks.push(LeaseRemaining { id, remaining_ttl });
            }
        }
        if !marks.is_empty() {
            pages.next_mark = now + MARK_PASS_INTERVAL;
        }
        marks
    }

    /// When `due` or `marks` may have something; may be in the past.
    pub fn next_deadline(&self) -> Option<Time> {
        let pages = self.pages.as_ref()?;
        let first = |set: &BTreeSet<(Time, i64)>| set.first().map(|(time, _)| *time);
        let due = first(&pages.running).into_iter().chain(first(&pages.expiring)).min();
        let due = due.map(|due| due.max(pages.next_due));
        let mark = first(&pages.marks).map(|mark| mark.max(pages.next_mark));
        due.into_iter().chain(mark).min()
    }
}

impl Pages {
    /// Takes a lease, as it was, off the list it is on.
    fn unlist(&mut self, id: i64, lease: Lease) {
        let was_listed = match lease.retry {
            None => self.running.remove(&(lease.deadline, id)),
            Some(retry) => self.expiring.remove(&(retry, id)),
        };
        assert!(was_listed, "a lease is on one list");
    }

    /// The next mark is due one interval from now, if the lease lives so long.
    fn schedule_mark(&mut self, now: Time, id: i64) {
        let lease = self.leases.get_mut(&id).expect("the lease is in the book");
        let wanted = (lease.deadline.since(now) > MARK_INTERVAL).then_some(now + MARK_INTERVAL);
        let earlier = std::mem::replace(&mut lease.mark, wanted);
        if let Some(earlier) = earlier {
            self.marks.remove(&(earlier, id));
        }
        if let Some(mark) = wanted {
            self.marks.insert((mark, id));
        }
    }
}

/// Moves deadlines back so that no second has more of them than are wanted. `sorted` is in the
/// order of deadlines and stays so.
fn spread(sorted: &mut [(Time, i64, Lease)]) {
    for n in SPREAD_PER_SECOND..sorted.len() {
        let earliest = sorted[n - SPREAD_PER_SECOND].0 + Length::from_secs(1);
        let (deadline, _, lease) = &mut sorted[n];
        *deadline = earliest.max(*deadline);
        lease.deadline = *deadline;
    }
}

/// A lifetime as a length; one that was never granted counts as none.
fn seconds(secs: i64) -> Length {
    Length::from_secs(u64::try_from(secs).unwrap_or(0))
}
