//! Leaders come and go under a simulated clock while clients grant, renew and ask. Checked: L1 no
//! lease ends before its last acknowledged renewal and its lifetime; L2 none lives much longer
//! once all is well; L3 no renewal is acknowledged for a lease that has ended; L4 the time left
//! grows only by a renewal or a new leader; L6 a deposed leader acknowledges and ends nothing.

use std::collections::{BTreeMap, VecDeque};

use super::*;

const SEEDS: u64 = 100;
const STEPS: usize = 600;
/// A record takes this long to be applied, unless the leader is cut off meanwhile.
const LOG_DELAY: Length = Length::from_ms(300);

#[test]
fn promises_hold_through_changes_of_leader() {
    let mut totals = Totals::default();
    for seed in 0..SEEDS {
        Run::new(seed, &mut totals).play();
    }
    let Totals { renewed, ended, changes, marked, cleared, lost, waited } = totals;
    for (count, least) in [
        (renewed, 50 * SEEDS),
        (ended, 10 * SEEDS),
        (changes, 5 * SEEDS),
        (marked, 10 * SEEDS),
        (cleared, 2 * SEEDS),
        (lost, SEEDS),
        (waited, SEEDS / 2),
    ] {
        assert!(count >= least, "{totals:?}");
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    renewed: u64,
    ended: u64,
    changes: u64,
    marked: u64,
    cleared: u64,
    lost: u64,
    waited: u64,
}

/// What the log says of a lease, and what its client may rely on.
#[derive(Clone, Copy, Debug)]
struct Known {
    ttl: i64,
    remaining: i64,
    /// It must not end before.
    promised: Time,
    /// The latest time left that was reported, and when; nothing after a renewal or a new leader.
    reported: Option<(i64, Time)>,
}

#[derive(Clone, Copy, Debug)]
enum Record {
    Grant { id: i64, ttl: i64 },
    End { id: i64, term: u64 },
    Mark { id: i64, remaining: i64 },
}

struct Run<'a> {
    seed: u64,
    chance: u64,
    now: Time,
    term: u64,
    /// The leader's book, and since when it is cut off.
    book: Book,
    cut_off: Option<Time>,
    deposed: Vec<Book>,
    log: VecDeque<(Time, Record)>,
    leases: BTreeMap<i64, Known>,
    granted: i64,
    /// Renewals that wait until a mark is forgotten.
    clearing: Vec<i64>,
    totals: &'a mut Totals,
}

impl<'a> Run<'a> {
    fn new(seed: u64, totals: &'a mut Totals) -> Self {
        let mut run = Self {
            seed,
            chance: seed,
            now: at(1_000),
            term: 1,
            book: Book::new(),
            cut_off: None,
            deposed: Vec::new(),
            log: VecDeque::new(),
            leases: BTreeMap::new(),
            granted: 0,
            clearing: Vec::new(),
            totals,
        };
        run.book.promote(run.now, ELECTION, []);
        run
    }

    /// SplitMix64.
    fn below(&mut self, bound: u64) -> u64 {
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.chance;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    fn play(mut self) {
        for _ in 0..STEPS {
            let pause = match self.below(10) {
                0 => Length::from_secs(self.below(200)),
                1..5 => Length::from_ms(self.below(3_000)),
                _ => Length::from_ms(self.below(30)),
            };
            self.pass(pause);
            match self.below(20) {
                0 | 1 => self.grant(),
                2..10 => self.renew(),
                10..17 => self.ask(),
                17 => self.cut_off = self.cut_off.or(Some(self.now)),
                _ => self.elect(),
            }
        }
        self.settle();
    }

    /// Time goes by in small pieces, in which the leader does what is due and the log is applied.
    fn pass(&mut self, length: Length) {
        let end = self.now + length;
        while self.now < end {
            // Long pauses without anything to do are skipped.
            let busy = self.log.front().map(|(applied, _)| *applied);
            let next = busy.into_iter().chain(self.book.next_deadline()).min();
            let soon = self.now + Length::from_ms(10);
            self.now = next.map_or(end, |next| next.max(soon)).min(end);
            self.work();
        }
    }

    fn work(&mut self) {
        let is_allowed = self.cut_off.is_none();
        while let Some((applied, _)) = self.log.front()
            && is_allowed
            && *applied <= self.now
        {
            let (_, record) = self.log.pop_front().expect("looked at");
            self.apply(record);
        }
        for id in self.book.due(self.now, is_allowed) {
            self.append(Record::End { id: id.0, term: self.term });
        }
        if is_allowed {
            for mark in self.book.marks(self.now) {
                self.append(Record::Mark { id: mark.id, remaining: mark.remaining_ttl });
            }
        }
        for book in &mut self.deposed {
            assert_eq!(book.due(self.now, true), [], "L6");
            assert_eq!(book.marks(self.now), [], "L6");
        }
    }

    fn append(&mut self, record: Record) {
        self.log.push_back((self.now + LOG_DELAY, record));
    }

    fn apply(&mut self, record: Record) {
        let context = format!("seed {} at {:?}: {record:?}", self.seed, self.now);
        match record {
            Record::Grant { id, ttl } => {
                let promised = self.now + Length::from_secs(ttl as u64);
                let known = Known { ttl, remaining: 0, promised, reported: None };
                self.leases.insert(id, known);
                self.book.grant(self.now, LeaseId(id), ttl);
            }
            Record::End { id, term } if term == self.term => {
                if let Some(known) = self.leases.remove(&id) {
                    assert!(known.promised <= self.now, "L1 {context}: {known:?}");
                    self.totals.ended += 1;
                    self.book.revoke(LeaseId(id));
                }
            }
            // An older leader's wish.
            Record::End { .. } => {}
            Record::Mark { id, remaining } => {
                let Some(known) = self.leases.get_mut(&id) else { return };
                known.remaining = remaining;
                self.book.mark(LeaseId(id), remaining);
                self.totals.marked += u64::from(remaining > 0);
                if remaining == 0 {
                    self.totals.cleared += 1;
                    if let Some(n) = self.clearing.iter().position(|waiting| *waiting == id) {
                        self.clearing.swap_remove(n);
                        self.try_renew(id);
                    }
                }
            }
        }
    }

    fn grant(&mut self) {
        if self.cut_off.is_none() {
            self.granted += 1;
            let ttl = [2, 5, 60, 301, 400, 1_500][self.below(6) as usize];
            self.append(Record::Grant { id: self.granted, ttl });
        }
    }

    fn renew(&mut self) {
        if self.granted > 0 {
            // Any lease there ever was, or one that is due soon.
            let id = match self.below(3) {
                0 => 1 + self.below(self.granted as u64) as i64,
                _ => self.book.by_deadline().first().map_or(1, |id| id.0),
            };
            self.try_renew(id);
        }
        for book in &mut self.deposed {
            assert_eq!(book.renew(self.now, LeaseId(1), true), Err(Absent::NotLeader), "L6");
        }
    }

    fn try_renew(&mut self, id: i64) {
        let is_confirmed = self.cut_off.is_none();
        let answer = self.book.renew(self.now, LeaseId(id), is_confirmed);
        let context = format!("seed {} at {:?}: lease {id} {answer:?}", self.seed, self.now);
        let known = self.leases.get_mut(&id);
        match answer {
            Ok(Renewal::Renewed { ttl }) => {
                let known = known.unwrap_or_else(|| panic!("L3 {context}"));
                assert_eq!(known.ttl, ttl, "{context}");
                assert_eq!(known.remaining, 0, "{context}");
                known.promised = self.now + Length::from_secs(ttl as u64);
                known.reported = None;
                self.totals.renewed += 1;
            }
            Ok(Renewal::ClearFirst) => {
                known.expect("it is in the book").reported = None;
                self.clearing.push(id);
                self.append(Record::Mark { id, remaining: 0 });
            }
            Ok(Renewal::Expired) => {
                let known = known.unwrap_or_else(|| panic!("L3 {context}"));
                assert!(known.promised <= self.now, "L1 {context}");
                self.totals.waited += 1;
            }
            Err(Absent::Unknown) => assert!(known.is_none(), "{context}"),
            Err(Absent::NotLeader) => assert!(!is_confirmed, "{context}"),
        }
    }

    fn ask(&mut self) {
        let count = self.leases.len() as u64;
        let nth = if count == 0 { return } else { self.below(count) as usize };
        let (&id, known) = self.leases.iter_mut().nth(nth).expect("below the count");
        let left = self.book.time_left(self.now, LeaseId(id)).expect("the book has all leases");
        assert_eq!(left.ttl, known.ttl);
        if let Some((secs, when)) = known.reported {
            let passed = self.now.since(when).as_secs() as i64;
            // Both were cut off, towards zero, which can hide a second each.
            assert!(left.secs <= secs - passed + 1, "L4 seed {}: {left:?} {known:?}", self.seed);
        }
        known.reported = Some((left.secs, self.now));
    }

    /// The leader that was cut off is replaced, once a quorum has missed it for long enough. What
    /// it logged last is lost, or not.
    fn elect(&mut self) {
        let Some(since) = self.cut_off else { return };
        if self.now.since(since) < ELECTION {
            return;
        }
        let kept = self.below(self.log.len() as u64 + 1) as usize;
        self.totals.lost += (self.log.len() - kept) as u64;
        self.log.truncate(kept);
        self.clearing.clear();
        self.book.demote();
        let deposed = std::mem::take(&mut self.book);
        self.deposed = vec![deposed];
        self.term += 1;
        self.totals.changes += 1;
        self.cut_off = None;
        // The new leader applies what it has of older terms before its own first entry.
        for (_, record) in std::mem::take(&mut self.log) {
            self.apply(record);
        }
        let leases = self.leases.iter().map(|(id, it)| (LeaseId(*id), it.ttl, it.remaining));
        self.book.promote(self.now, ELECTION, leases);
        for known in self.leases.values_mut() {
            known.reported = None;
        }
    }

    /// L2: with one leader and no renewals all leases end in time.
    fn settle(&mut self) {
        self.cut_off.get_or_insert(self.now);
        self.pass(ELECTION);
        self.elect();
        let longest = self.leases.values().map(|known| known.ttl).max().unwrap_or(0);
        let slack = Length::from_ms(1_000);
        self.pass(Length::from_secs(longest as u64));
        self.pass(ELECTION);
        self.pass(slack);
        assert!(self.leases.is_empty(), "L2 seed {}: {:?}", self.seed, self.leases);
        assert_eq!(self.book.by_deadline(), []);
        assert_eq!(self.book.next_deadline(), None);
    }
}
