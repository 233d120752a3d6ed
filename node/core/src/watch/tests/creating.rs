//! Ids, the created reply, refusals, and cancelling.

use crate::proto::etcdserverpb as pb;

use super::stage::{Stage, on_key, on_prefix, put};

const EMPTY: &str = "mvcc: watcher range is empty";
const DUPLICATE: &str = "mvcc: duplicate watch ID provided on the WatchStream";
const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";

#[test]
fn ids_are_counted_from_zero_and_skip_those_in_use() {
    let mut stage = Stage::new();
    stage.open(1);
    stage.open(2);
    let with_id = |watch_id| pb::WatchCreateRequest { watch_id, ..on_key("a") };
    for (stream, create) in [
        (1, with_id(0)),
        (1, with_id(1)),
        (1, with_id(-7)),
        (1, with_id(0)),
        (1, with_id(0)),
        (2, with_id(0)),
    ] {
        stage.create(stream, create);
    }
    stage.expect(
        "1: #0 @1 created
        1: #1 @1 created
        1: #-7 @1 created
        1: #2 @1 created
        1: #3 @1 created
        2: #0 @1 created",
    );
    // An id that was given out once does not come again by itself, but can be asked for.
    stage.cancel(1, 2);
    stage.create(1, with_id(0));
    stage.create(1, with_id(2));
    stage.expect(
        "1: #2 @1 canceled
        1: #4 @1 created
        1: #2 @1 created",
    );
}

#[test]
fn refused_creates_leave_the_stream_as_it_was() {
    let mut stage = Stage::new();
    stage.commit(&[put("a", "1")]);
    stage.open(1);
    let span = |key: &'static str, range_end: &'static str| pb::WatchCreateRequest {
        key: key.into(),
        range_end: range_end.into(),
        ..Default::default()
    };
    stage.create(1, pb::WatchCreateRequest { start_revision: -1, ..span("b", "a") });
    stage.create(1, span("b", "a"));
    stage.create(1, span("b", "b"));
    stage.create(1, pb::WatchCreateRequest { watch_id: 7, ..on_key("a") });
    stage.create(1, pb::WatchCreateRequest { watch_id: 7, ..on_key("b") });
    stage.create(1, pb::WatchCreateRequest { watch_id: 7, ..span("b", "a") });
    stage.create(1, on_key("a"));
    stage.expect(&format!(
        "1: #-1 @2 created canceled ({COMPACTED})
        1: #-1 @2 created canceled ({EMPTY})
        1: #-1 @2 created canceled ({EMPTY})
        1: #7 @2 created
        1: #-1 @2 created canceled ({DUPLICATE})
        1: #-1 @2 created canceled ({EMPTY})
        1: #0 @2 created"
    ));
    assert_eq!(stage.hub.counts().watchers, 2);
    stage.commit(&[put("a", "2"), put("b", "2")]);
    stage.expect(
        "1: #7 @3 3+a=2
        1: #0 @3 3+a=2",
    );
}

#[test]
fn keys_are_read_as_etcd_reads_them() {
    let mut stage = Stage::new();
    stage.open(1);
    let span = |key: &'static str, range_end: &'static str| pb::WatchCreateRequest {
        key: key.into(),
        range_end: range_end.into(),
        ..Default::default()
    };
    // The zero key alone; everything; from "m" on; one key written as a span; a prefix.
    for create in [span("", ""), span("", "\0"), span("m", "\0"), span("a", "a\0"), on_prefix("a")]
    {
        stage.create(1, create);
    }
    stage.take_log();
    stage.commit(&[put("\0", "1")]);
    stage.commit(&[put("a", "2")]);
    stage.commit(&[put("ab", "3")]);
    stage.commit(&[put("z", "4")]);
    stage.expect(
        "1: #0 @2 2+\0=1
        1: #1 @2 2+\0=1
        1: #3 @3 3+a=2
        1: #1 @3 3+a=2
        1: #4 @3 3+a=2
        1: #1 @4 4+ab=3
        1: #4 @4 4+ab=3
        1: #1 @5 5+z=4
        1: #2 @5 5+z=4",
    );
}

#[test]
fn a_request_without_content_is_ignored() {
    let mut stage = Stage::new();
    stage.open(1);
    let request = pb::WatchRequest { request_union: None };
    let stream = crate::watch::StreamId(1);
    stage.step(crate::watch::Input::Request { stream, request, revision: 1 });
    stage.expect("");
}

#[test]
fn a_cancel_is_answered_once_and_ends_the_events() {
    let mut stage = Stage::new();
    stage.open(1);
    stage.create(1, on_key("a"));
    stage.commit(&[put("a", "1")]);
    stage.cancel(1, 0);
    stage.cancel(1, 0);
    stage.cancel(1, 99);
    stage.commit(&[put("a", "2")]);
    stage.expect(
        "1: #0 @1 created
        1: #0 @2 2+a=1
        1: #0 @2 canceled",
    );
    assert_eq!(stage.hub.counts().watchers, 0);
}

#[test]
fn a_start_in_the_present_sees_only_what_follows() {
    let mut stage = Stage::new();
    stage.open(1);
    // The store is at 3, but the batch of revision 3 has not reached the hub.
    stage.commit(&[put("a", "2")]);
    let late = stage.store.commit(&[put("a", "3")]);
    stage.create(1, on_key("a"));
    stage.create(1, pb::WatchCreateRequest { start_revision: 3, ..on_key("a") });
    stage.expect(
        "1: #0 @3 created
        1: #1 @3 created",
    );
    // Progress at 2 would be older than what the clients were told.
    stage.ask_progress(1);
    stage.expect("");
    stage.publish(2, late);
    stage.ask_progress(1);
    stage.commit(&[put("a", "4")]);
    stage.expect(
        "1: #1 @3 3+a=3
        1: #-1 @3
        1: #0 @4 4+a=4
        1: #1 @4 4+a=4",
    );
}

#[test]
fn a_future_start_sees_nothing_below_it() {
    let mut stage = Stage::new();
    stage.open(1);
    stage.create(
        1,
        pb::WatchCreateRequest { start_revision: 4, progress_notify: true, ..on_key("a") },
    );
    stage.commit(&[put("a", "2")]);
    stage.commit(&[put("a", "3")]);
    stage.ask_progress(1);
    stage.tick(crate::Time(10_000_000_000));
    stage.expect("1: #0 @1 created");
    stage.commit(&[put("b", "4")]);
    stage.ask_progress(1);
    stage.tick(crate::Time(20_000_000_000));
    stage.commit(&[put("a", "5")]);
    stage.expect(
        "1: #-1 @4
        1: #0 @4
        1: #0 @5 5+a=5",
    );
}

#[test]
fn a_closed_stream_is_forgotten() {
    let mut stage = Stage::new();
    stage.open(1);
    stage.create(1, on_key("a"));
    stage.create(1, pb::WatchCreateRequest { start_revision: 9, ..on_prefix("a") });
    stage.close(1);
    stage.take_log();
    stage.commit(&[put("a", "1")]);
    stage.cancel(1, 0);
    stage.ask_progress(1);
    stage.close(1);
    stage.expect("");
    assert_eq!(stage.hub.counts(), crate::watch::Counts::default());
}
