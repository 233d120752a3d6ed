//! Tests of the book: rule by rule, and all of them together under a simulated clock.

use std::collections::BTreeSet;

use super::*;
use crate::time::{Length, Time};
use crate::{Error, LeaseId};

mod simulated;

const ELECTION: Length = Length::from_secs(1);

fn at(secs: u64) -> Time {
    Time(0) + Length::from_secs(secs)
}

fn leader(now: Time, leases: &[(i64, i64, i64)]) -> Book {
    let mut book = Book::new();
    let leases = leases.iter().map(|&(id, ttl, left)| (LeaseId(id), ttl, left));
    book.promote(now, ELECTION, leases);
    book
}

fn left(secs: i64, ttl: i64) -> Result<TimeLeft, Absent> {
    Ok(TimeLeft { secs, ttl })
}

#[test]
fn the_shortest_lifetime_is_one_and_a_half_election_timeouts() {
    let min =
        |heartbeat, election| ttl_secs_min(Length::from_ms(heartbeat), Length::from_ms(election));
    for (heartbeat, election, secs) in [
        (100, 1_000, 2),
        (100, 2_000, 3),
        (500, 5_000, 8),
        (1_000, 5_000, 7),
        (100, 50_000, 75),
        (10, 100, 1),
    ] {
        assert_eq!(min(heartbeat, election), secs, "{heartbeat} {election}");
    }
    for (wanted, granted) in [
        (i64::MIN, Ok(2)),
        (-1, Ok(2)),
        (0, Ok(2)),
        (2, Ok(2)),
        (3, Ok(3)),
        (9_000_000_000, Ok(9_000_000_000)),
        (9_000_000_001, Err(Error::LeaseTtlTooLarge)),
        (i64::MAX, Err(Error::LeaseTtlTooLarge)),
    ] {
        assert_eq!(ttl_effective(wanted, 2), granted, "{wanted}");
    }
}

#[test]
fn time_left_is_cut_off_and_becomes_negative() {
    let mut book = leader(at(0), &[]);
    book.grant(at(10), LeaseId(7), 100);
    for (micros, secs) in [
        (10_000_000, 100),
        (10_000_001, 99),
        (109_000_000, 1),
        (109_000_001, 0),
        (110_999_999, 0),
        (111_000_000, -1),
        (115_500_000, -5),
    ] {
        assert_eq!(book.time_left(Time(micros), LeaseId(7)), left(secs, 100), "{micros}");
    }
    assert_eq!(book.time_left(at(10), LeaseId(8)), Err(Absent::Unknown));
    book.demote();
    assert_eq!(book.time_left(at(10), LeaseId(7)), Err(Absent::NotLeader));
}

#[test]
fn the_longest_lifetime_fits() {
    let mut book = leader(at(1_000), &[(1, TTL_SECS_MAX, 0)]);
    book.grant(at(1_000), LeaseId(2), TTL_SECS_MAX);
    assert_eq!(book.time_left(at(1_000), LeaseId(1)), left(TTL_SECS_MAX + 1, TTL_SECS_MAX));
    assert_eq!(book.time_left(at(1_000), LeaseId(2)), left(TTL_SECS_MAX, TTL_SECS_MAX));
}

#[test]
fn a_renewal_starts_the_lifetime_anew() {
    let mut book = leader(at(0), &[]);
    book.grant(at(0), LeaseId(-3), 10);
    assert_eq!(book.renew(at(9), LeaseId(-3), true), Ok(Renewal::Renewed { ttl: 10 }));
    assert_eq!(book.due(at(18), true), []);
    assert_eq!(book.time_left(at(18), LeaseId(-3)), left(1, 10));
    assert_eq!(book.due(at(19), true), [LeaseId(-3)]);
}

#[test]
fn a_lease_ends_at_its_deadline_and_is_not_renewed_after() {
    let mut book = leader(at(0), &[]);
    book.grant(at(0), LeaseId(1), 10);
    assert_eq!(book.due(Time(at(10).0 - 1), true), []);
    // Nobody has asked which are due, yet the deadline has passed.
    assert_eq!(book.renew(at(10), LeaseId(1), true), Ok(Renewal::Expired));
    assert_eq!(book.due(at(10), true), [LeaseId(1)]);
    assert_eq!(book.renew(at(11), LeaseId(1), true), Ok(Renewal::Expired));
    assert_eq!(book.time_left(at(12), LeaseId(1)), left(-2, 10));
    book.revoke(LeaseId(1));
    assert_eq!(book.renew(at(12), LeaseId(1), true), Err(Absent::Unknown));
    assert_eq!(book.next_deadline(), None);
}

#[test]
fn a_revocation_that_was_lost_is_repeated() {
    let mut book = leader(at(0), &[(1, 5, 0)]);
    assert_eq!(book.due(at(6), true), [LeaseId(1)]);
    assert_eq!(book.next_deadline(), Some(at(9)));
    assert_eq!(book.due(Time(at(9).0 - 1), true), []);
    assert_eq!(book.due(at(9), true), [LeaseId(1)]);
    assert_eq!(book.next_deadline(), Some(at(12)));
}

/// L6, and the promise that a leader without quorum or disk revokes nothing.
#[test]
fn a_leader_that_is_cut_off_neither_revokes_nor_renews() {
    let mut book = leader(at(0), &[(1, 5, 0), (2, 50, 0)]);
    assert_eq!(book.due(at(20), false), []);
    assert_eq!(book.renew(at(20), LeaseId(2), false), Err(Absent::NotLeader));
    assert_eq!(book.time_left(at(20), LeaseId(2)), left(31, 50));
    assert_eq!(book.due(at(20), true), [LeaseId(1)]);
    book.demote();
    assert!(!book.is_leader());
    assert_eq!(book.due(at(99), true), []);
    assert_eq!(book.marks(at(9_999)), []);
    assert_eq!(book.renew(at(20), LeaseId(2), true), Err(Absent::NotLeader));
    assert_eq!(book.by_deadline(), []);
    assert_eq!(book.next_deadline(), None);
}

#[test]
fn other_nodes_keep_no_deadlines() {
    let mut book = Book::new();
    book.grant(at(0), LeaseId(1), 10);
    book.mark(LeaseId(1), 5);
    book.revoke(LeaseId(1));
    book.grant(at(0), LeaseId(1), 10);
    assert_eq!(book.due(at(99), true), []);
    assert_eq!(book.next_deadline(), None);
}

#[test]
fn a_new_leader_gives_what_is_left_and_an_election_timeout() {
    let book = leader(at(100), &[(1, 10, 0), (2, 1_000, 400), (3, 1_000, 0)]);
    assert_eq!(book.time_left(at(100), LeaseId(1)), left(11, 10));
    assert_eq!(book.time_left(at(100), LeaseId(2)), left(401, 1_000));
    assert_eq!(book.time_left(at(100), LeaseId(3)), left(1_001, 1_000));
    assert_eq!(book.by_deadline(), [1, 2, 3].map(LeaseId));
}

#[test]
fn leases_are_listed_by_deadline_also_when_handed_out() {
    let mut book = leader(at(0), &[(1, 5, 0), (2, 4, 0), (3, 30, 0), (4, 20, 0)]);
    assert_eq!(book.due(at(6), true), [2, 1].map(LeaseId));
    assert_eq!(book.by_deadline(), [2, 1, 4, 3].map(LeaseId));
}

/// 1,200 leases end at once: 500 in each half second, and after three seconds all over again.
#[test]
fn expiry_is_paced() {
    let mut book = leader(at(0), &[]);
    for id in 0..1_200 {
        book.grant(at(0), LeaseId(id), 10);
    }
    let mut seen = BTreeSet::new();
    let mut passes = Vec::new();
    for tenths in 100..150 {
        let due = book.due(Time(tenths * 100_000), true);
        if !due.is_empty() {
            passes.push((tenths, due.len()));
        }
        seen.extend(due);
    }
    assert_eq!(passes, [(100, 500), (105, 500), (110, 200), (130, 500), (135, 500), (140, 200)]);
    assert_eq!(seen.len(), 1_200);
}

#[test]
fn a_new_leader_spreads_many_deadlines() {
    let promote = |count: i64, ttl: fn(i64) -> i64| {
        let leases: Vec<(i64, i64, i64)> = (0..count).map(|id| (id, ttl(id), 0)).collect();
        (leader(at(0), &leases), leases)
    };
    // Too few to be a danger.
    let (book, _) = promote(999, |_| 10);
    assert_eq!(book.time_left(at(0), LeaseId(998)), left(11, 10));

    // A crowd at 10 s, one at 12 s that the first crowd runs into, and a few much later.
    let (book, leases) = promote(5_000, |id| match id {
        0..3_000 => 10,
        3_000..4_990 => 12,
        _ => 1_000,
    });
    let mut deadlines = Vec::new();
    for &(id, ttl, _) in &leases {
        let secs = book.time_left(at(0), LeaseId(id)).unwrap().secs;
        assert!(secs > ttl, "no lease loses time: {id}");
        deadlines.push(secs);
    }
    assert_eq!(deadlines[4_995], 1_001, "where there is no crowd nothing moves");
    deadlines.sort_unstable();
    for (n, deadline) in deadlines.iter().enumerate().skip(SPREAD_PER_SECOND) {
        assert!(*deadline > deadlines[n - SPREAD_PER_SECOND], "{n}");
    }
    assert_eq!(deadlines[4_989], 11 + 4_989 / 750, "as early as the rate allows");
}

#[test]
fn long_leases_are_marked_every_five_minutes() {
    let mut book = leader(at(0), &[(1, 1_000, 0)]);
    book.grant(at(0), LeaseId(2), 300);
    book.grant(at(0), LeaseId(3), 301);
    let marks = |book: &mut Book, now| -> Vec<(i64, i64)> {
        book.marks(now).iter().map(|mark| (mark.id, mark.remaining_ttl)).collect()
    };
    assert_eq!(book.next_deadline(), Some(at(300)));
    assert_eq!(marks(&mut book, Time(at(300).0 - 1)), []);
    assert_eq!(marks(&mut book, Time(at(300).0 + 1)), [(1, 701), (3, 1)]);
    // What has no five minutes left is not marked again.
    assert_eq!(marks(&mut book, at(601)), [(1, 400)]);
    assert_eq!(marks(&mut book, at(901)), [(1, 100)]);
    assert_eq!(marks(&mut book, at(5_000)), []);
}

#[test]
fn marks_come_in_batches() {
    let mut book = leader(at(0), &[]);
    for id in 0..2_500 {
        book.grant(at(0), LeaseId(id), 1_000);
    }
    let batches: Vec<usize> =
        (0..5).map(|tenths| book.marks(at(300) + Length::from_ms(100 * tenths)).len()).collect();
    assert_eq!(batches, [1_000, 1_000, 500, 0, 0]);
    assert_eq!(book.marks(at(300) + Length::from_ms(410)), []);
}

#[test]
fn batches_of_marks_are_paced() {
    let mut book = leader(at(0), &[]);
    for id in 0..1_001 {
        book.grant(at(0), LeaseId(id), 1_000);
    }
    assert_eq!(book.marks(at(300)).len(), 1_000);
    assert_eq!(book.next_deadline(), Some(at(300) + MARK_PASS_INTERVAL));
    assert_eq!(book.marks(at(300) + Length(MARK_PASS_INTERVAL.0 - 1)), []);
    assert_eq!(book.marks(at(300) + MARK_PASS_INTERVAL).len(), 1);
}

#[test]
fn a_revoked_lease_is_not_marked() {
    let mut book = leader(at(0), &[(1, 1_000, 0), (2, 1_000, 0)]);
    book.revoke(LeaseId(1));
    assert_eq!(book.marks(at(300)).iter().map(|mark| mark.id).collect::<Vec<_>>(), [2]);
}

#[test]
fn a_renewal_first_forgets_the_mark() {
    let mut book = leader(at(0), &[(1, 1_000, 0)]);
    assert_eq!(book.marks(at(300)).len(), 1);
    // The mark is on its way: the record that forgets it must come after it in the log.
    assert_eq!(book.renew(at(310), LeaseId(1), true), Ok(Renewal::ClearFirst));
    book.mark(LeaseId(1), 701);
    assert_eq!(book.renew(at(311), LeaseId(1), true), Ok(Renewal::ClearFirst));
    book.mark(LeaseId(1), 0);
    assert_eq!(book.renew(at(312), LeaseId(1), true), Ok(Renewal::Renewed { ttl: 1_000 }));
    assert_eq!(book.time_left(at(312), LeaseId(1)), left(1_000, 1_000));
    assert_eq!(book.marks(at(611)), [], "five minutes after the renewal");
    assert_eq!(book.marks(at(612)).len(), 1);
}

/// A renewal in time counts even if the record that forgets the mark is slow.
#[test]
fn a_lease_does_not_expire_while_its_mark_is_forgotten() {
    let mut book = leader(at(0), &[(1, 1_000, 5)]);
    assert_eq!(book.renew(at(5), LeaseId(1), true), Ok(Renewal::ClearFirst));
    assert_eq!(book.due(at(10), true), []);
    book.mark(LeaseId(1), 0);
    assert_eq!(book.renew(at(10), LeaseId(1), true), Ok(Renewal::Renewed { ttl: 1_000 }));
}

/// Neither a renewal nor what is due costs a walk over all of a million.
#[test]
fn a_million_leases() {
    let mut book = leader(at(0), &[]);
    for id in 0..1_000_000 {
        book.grant(at(0), LeaseId(id), 3_600);
    }
    for id in 0..100_000 {
        assert_eq!(book.renew(at(60), LeaseId(id), true), Ok(Renewal::Renewed { ttl: 3_600 }));
    }
    assert_eq!(book.due(at(3_599), true), []);
    let due = book.due(at(3_600), true);
    assert_eq!((due.len(), due[0]), (DUE_MAX, LeaseId(100_000)));
}
