//! Streams that ask not to be served without a leader.

use crate::time::Time;
use crate::watch::{Input, StreamId};

use super::stage::{Stage, TERM, on_key, put};

fn seconds(seconds: u64) -> Time {
    Time(seconds * 1_000_000)
}

fn leader(stage: &mut Stage, now: Time, is_known: bool) {
    stage.now = now;
    stage.step(Input::Leader { term: TERM, is_known });
}

#[test]
fn they_end_after_three_election_timeouts() {
    let mut stage = Stage::new();
    stage.step(Input::Open { stream: StreamId(1), needs_leader: true, chance: 0 });
    stage.open(2);
    stage.create(1, on_key("a"));
    stage.create(2, on_key("a"));
    stage.take_log();
    assert_eq!(stage.hub.next_deadline(), None);

    leader(&mut stage, seconds(10), false);
    leader(&mut stage, seconds(12), false);
    assert_eq!(stage.hub.next_deadline(), Some(seconds(13)));
    stage.tick(Time(seconds(13).0 - 1));
    stage.commit(&[put("a", "2")]);
    stage.expect(
        "1: #0 @2 2+a=2
        2: #0 @2 2+a=2",
    );
    stage.tick(seconds(13));
    stage.expect("1: closed etcdserver: no leader");
    stage.commit(&[put("a", "3")]);
    stage.expect("2: #0 @3 3+a=3");
    assert_eq!(stage.hub.next_deadline(), None);
    assert_eq!(stage.hub.counts().streams, 1);
}

#[test]
fn a_leader_in_time_keeps_them() {
    let mut stage = Stage::new();
    stage.step(Input::Open { stream: StreamId(1), needs_leader: true, chance: 0 });
    leader(&mut stage, seconds(10), false);
    leader(&mut stage, seconds(12), true);
    assert_eq!(stage.hub.next_deadline(), None);
    stage.tick(seconds(20));
    stage.expect("");
    // The wait begins anew.
    leader(&mut stage, seconds(30), false);
    assert_eq!(stage.hub.next_deadline(), Some(seconds(33)));
}

#[test]
fn they_are_not_opened_without_a_leader() {
    let mut stage = Stage::new();
    leader(&mut stage, seconds(1), false);
    stage.step(Input::Open { stream: StreamId(1), needs_leader: true, chance: 0 });
    stage.open(2);
    stage.expect("1: closed etcdserver: no leader");
    assert_eq!(stage.hub.counts().streams, 1);
}
