//! Events as they are published.

use bytes::Bytes;

use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::watch_create_request::FilterType;
use crate::watch::Limits;

use super::stage::{Stage, delete, on_key, on_prefix, put};

#[test]
fn a_revision_is_one_response_in_the_order_of_its_changes() {
    let mut stage = Stage::new();
    stage.open(1);
    stage.create(1, on_prefix("a"));
    stage.create(1, on_key("a2"));
    stage.take_log();
    stage.commit(&[put("a3", "x"), put("b", "x"), put("a1", "x"), put("a2", "x")]);
    stage.commit(&[delete("a1"), delete("a3")]);
    stage.expect(
        "1: #0 @2 2+a3=x 2+a1=x 2+a2=x
        1: #1 @2 2+a2=x
        1: #0 @3 3-a1 3-a3",
    );
}

#[test]
fn one_batch_of_many_revisions_is_packed() {
    let limits = Limits { response_revisions_max: 2, ..Limits::default() };
    let mut stage = Stage::with_limits(limits);
    stage.open(1);
    stage.create(1, on_prefix("a"));
    stage.take_log();
    let mut events = Vec::new();
    for value in ["2", "3", "4", "5", "6"] {
        events.extend(stage.store.commit(&[put("a", value)]));
    }
    events.extend(stage.store.commit(&[put("b", "7")]));
    stage.publish(1, events);
    stage.ask_progress(1);
    stage.expect(
        "1: #0 @3 2+a=2 3+a=3
        1: #0 @5 4+a=4 5+a=5
        1: #0 @6 6+a=6
        1: #-1 @7",
    );
}

#[test]
fn a_large_revision_is_sent_whole_and_alone() {
    let limits = Limits { response_bytes_max: 100, ..Limits::default() };
    let mut stage = Stage::with_limits(limits);
    stage.open(1);
    stage.create(1, on_prefix("a"));
    stage.take_log();
    let long = "x".repeat(150);
    let mut events = stage.store.commit(&[put("a", "2")]);
    events.extend(stage.store.commit(&[put("a1", &long), put("a2", &long)]));
    events.extend(stage.store.commit(&[put("a", "4")]));
    events.extend(stage.store.commit(&[put("a", "5")]));
    stage.publish(1, events);
    stage.expect(&format!(
        "1: #0 @2 2+a=2
        1: #0 @3 3+a1={long} 3+a2={long}
        1: #0 @5 4+a=4 5+a=5"
    ));
}

#[test]
fn filters_drop_events_and_empty_responses() {
    let mut stage = Stage::new();
    stage.open(1);
    let (no_put, no_delete) = (FilterType::Noput as i32, FilterType::Nodelete as i32);
    for filters in [vec![no_put], vec![no_delete], vec![no_put, no_delete], vec![17]] {
        stage.create(1, pb::WatchCreateRequest { filters, ..on_prefix("a") });
    }
    stage.take_log();
    stage.commit(&[put("a1", "1")]);
    stage.commit(&[delete("a1"), put("a2", "2")]);
    stage.expect(
        "1: #1 @2 2+a1=1
        1: #3 @2 2+a1=1
        1: #0 @3 3-a1
        1: #3 @3 3-a1 3+a2=2
        1: #1 @3 3+a2=2",
    );
}

#[test]
fn the_previous_value_comes_with_changes_but_not_with_creations() {
    let mut stage = Stage::new();
    stage.open(1);
    stage.create(1, pb::WatchCreateRequest { prev_kv: true, ..on_key("a") });
    stage.create(1, on_key("a"));
    stage.take_log();
    for change in [put("a", "1"), put("a", "2"), delete("a"), put("a", "4")] {
        stage.commit(&[change]);
    }
    stage.expect(
        "1: #0 @2 2+a=1
        1: #1 @2 2+a=1
        1: #0 @3 3+a=2[1]
        1: #1 @3 3+a=2
        1: #0 @4 4-a[2]
        1: #1 @4 4-a
        1: #0 @5 5+a=4
        1: #1 @5 5+a=4",
    );
}

#[test]
fn a_repeated_batch_is_sent_once() {
    let mut stage = Stage::new();
    stage.open(1);
    stage.create(1, on_key("a"));
    stage.take_log();
    let mut events = stage.store.commit(&[put("a", "2")]);
    stage.publish(1, events.clone());
    events.extend(stage.store.commit(&[put("a", "3")]));
    stage.publish(1, events.clone());
    stage.publish(1, events);
    stage.expect(
        "1: #0 @2 2+a=2
        1: #0 @3 3+a=3",
    );
    assert!(!stage.hub.is_behind());
}

/// Revision 2 is too large for one message; the client allows it to be split.
#[test]
fn fragments_stay_below_the_limit_or_hold_one_event() {
    let limits = Limits { fragment_bytes: 180, ..Limits::default() };
    let mut stage = Stage::with_limits(limits);
    stage.open(1);
    stage.create(1, pb::WatchCreateRequest { fragment: true, ..on_prefix("a") });
    stage.create(1, on_prefix("a"));
    stage.take_log();
    let (short, long) = ("s".repeat(20), "l".repeat(300));
    stage.commit(&[
        put("a1", &short),
        put("a2", &short),
        put("a3", &short),
        put("a4", &short),
        put("a5", &short),
        put("a6", &long),
        put("a7", &short),
    ]);
    stage.expect(&format!(
        "1: #0 @2 fragment 2+a1={short} 2+a2={short} 2+a3={short} 2+a4={short}
        1: #0 @2 fragment 2+a5={short}
        1: #0 @2 fragment 2+a6={long}
        1: #0 @2 2+a7={short}
        1: #1 @2 2+a1={short} 2+a2={short} 2+a3={short} 2+a4={short} 2+a5={short} \
            2+a6={long} 2+a7={short}"
    ));
    // A single event is never split, however large.
    stage.commit(&[put("a6", &long)]);
    stage.expect(&format!(
        "1: #0 @3 3+a6={long}
        1: #1 @3 3+a6={long}"
    ));
}

/// The response is split from exactly the limit on, and parts keep below it.
#[test]
fn the_fragment_limit_is_exact() {
    let sizes = |fragment_bytes| {
        let mut stage = Stage::with_limits(Limits { fragment_bytes, ..Limits::default() });
        stage.open(1);
        stage.create(1, pb::WatchCreateRequest { fragment: true, ..on_prefix("a") });
        stage.take_log();
        stage.stall(1);
        stage.commit(&[put("a1", "x"), put("a2", "x"), put("a3", "x")]);
        stage.take_log().lines().count()
    };
    // What the three events take in one response, with and without the mark of a fragment.
    let event = 2 + 2 + (2 + 2) + 2 + 2 + 2 + (2 + 1);
    let header = 2 + 3 + 2 + 2 + 2;
    let whole = header + 3 * event;
    assert_eq!(sizes(whole + 1), 1);
    assert_eq!(sizes(whole), 2);
    assert_eq!(sizes(header + 2 + 2 * event + 1), 2);
    assert_eq!(sizes(header + 2 + 2 * event), 3);
    assert_eq!(sizes(1), 3);
}

/// Both watchers of a worker, and both workers, send the same bytes.
#[test]
fn an_event_is_encoded_once() {
    let mut store = super::stage::Store::new();
    let event = crate::watch::Event::from(store.commit(&[put("a", "1")]).remove(0));
    let (one, other): (Bytes, Bytes) = (event.field(false), event.field(true));
    assert_eq!(one.as_ptr(), other.as_ptr(), "a creation has no previous value to add");

    let event = crate::watch::Event::from(store.commit(&[put("a", "2")]).remove(0));
    assert_eq!(event.field(true).as_ptr(), event.field(true).as_ptr());
    assert_eq!(event.field(false).as_ptr(), event.field(false).as_ptr());
    assert_ne!(event.field(true), event.field(false));
}
