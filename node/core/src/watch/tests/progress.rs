//! Progress on request and by interval.

use crate::proto::etcdserverpb as pb;
use crate::time::{Length, Time};
use crate::watch::{Effect, Hub, Input, PROGRESS_INTERVAL_MIN, StreamId};

use super::stage::{Stage, config, on_key, put, request};

const INTERVAL: Length = Length::from_secs(600);

fn notified(key: &str) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest { progress_notify: true, ..on_key(key) }
}

#[test]
fn a_stream_without_watchers_is_told_nothing() {
    let mut stage = Stage::new();
    stage.open(1);
    stage.ask_progress(1);
    stage.expect("");
    stage.create(1, on_key("a"));
    stage.ask_progress(1);
    stage.cancel(1, 0);
    stage.ask_progress(1);
    stage.expect(
        "1: #0 @1 created
        1: #-1 @1
        1: #0 @1 canceled",
    );
}

#[test]
fn one_watcher_that_is_behind_holds_back_the_stream_but_not_others() {
    let mut stage = Stage::new();
    stage.commit(&[put("a", "2")]);
    stage.open(1);
    stage.open(2);
    stage.create(1, on_key("a"));
    stage.create(2, on_key("a"));
    stage.create(1, pb::WatchCreateRequest { start_revision: 2, ..on_key("a") });
    stage.take_log();
    stage.ask_progress(1);
    stage.ask_progress(2);
    stage.expect("2: #-1 @2");
    stage.catch_up();
    stage.ask_progress(1);
    stage.expect(
        "1: #1 @2 2+a=2
        1: #-1 @2",
    );
}

#[test]
fn progress_follows_the_events_of_its_revision() {
    let mut stage = Stage::new();
    stage.open(1);
    stage.create(1, on_key("a"));
    stage.commit(&[put("a", "2")]);
    stage.commit(&[put("b", "3")]);
    stage.ask_progress(1);
    stage.expect(
        "1: #0 @1 created
        1: #0 @2 2+a=2
        1: #-1 @3",
    );
}

#[test]
fn only_quiet_watchers_are_told_at_the_end_of_an_interval() {
    let mut stage = Stage::new();
    stage.open(1);
    assert_eq!(stage.hub.next_deadline(), None);
    stage.create(1, notified("a"));
    stage.create(1, notified("b"));
    stage.create(1, on_key("b"));
    stage.commit(&[put("a", "2")]);
    stage.take_log();

    let end = Time(0) + INTERVAL;
    assert_eq!(stage.hub.next_deadline(), Some(end));
    stage.tick(Time(end.0 - 1));
    stage.expect("");
    stage.tick(end);
    stage.expect("1: #1 @2");
    assert_eq!(stage.hub.next_deadline(), Some(end + INTERVAL));
    stage.tick(end + INTERVAL);
    stage.expect(
        "1: #0 @2
        1: #1 @2",
    );
    stage.cancel(1, 0);
    stage.take_log();
    stage.tick(end + INTERVAL + INTERVAL);
    stage.expect("1: #1 @2");
    // Nobody is left who wants it; the next one begins a new interval.
    stage.cancel(1, 1);
    stage.take_log();
    stage.tick(end + INTERVAL + INTERVAL + INTERVAL);
    stage.expect("");
    assert_eq!(stage.hub.next_deadline(), None);
    stage.create(1, notified("a"));
    assert_eq!(stage.hub.next_deadline(), Some(stage.now + INTERVAL));
}

#[test]
fn a_watcher_that_is_behind_is_not_told() {
    let mut stage = Stage::new();
    stage.commit(&[put("a", "2")]);
    stage.open(1);
    stage.create(1, pb::WatchCreateRequest { start_revision: 2, ..notified("a") });
    stage.take_log();
    stage.tick(Time(0) + INTERVAL);
    stage.expect("");
    stage.catch_up();
    stage.take_log();
    // It was sent an event in this interval, and none in the next.
    stage.tick(Time(0) + INTERVAL + INTERVAL);
    stage.expect("");
    stage.tick(Time(0) + INTERVAL + INTERVAL + INTERVAL);
    stage.expect("1: #0 @2");
}

#[test]
fn intervals_differ_by_a_tenth_at_most() {
    let end = |chance: u64, interval: Length| {
        let config = crate::watch::Config {
            progress_interval: interval,
            ..config(crate::watch::Limits::default())
        };
        let mut hub = Hub::new(config, 1, -1);
        let stream = StreamId(1);
        hub.step(Time(0), Input::Open { stream, needs_leader: false, chance });
        let create = pb::watch_request::RequestUnion::CreateRequest(notified("a"));
        let effects =
            hub.step(Time(0), Input::Request { stream, request: request(create), revision: 1 });
        assert!(matches!(effects[..], [Effect::Send { .. }]));
        hub.next_deadline()
    };
    assert_eq!(end(0, INTERVAL), Some(Time(600_000_000)));
    assert_eq!(end(1 << 63, INTERVAL), Some(Time(630_000_000)));
    assert_eq!(end(u64::MAX, INTERVAL), Some(Time(659_999_999)));
    assert_eq!(end(0, Length(1)), Some(Time(0) + PROGRESS_INTERVAL_MIN));
}
