//! Blocks of history that are under way for a while: what is asked for, and what happens meanwhile.

use crate::proto::Span;
use crate::proto::etcdserverpb as pb;
use crate::watch::Limits;

use super::stage::{Stage, delete, on_key, on_prefix, put};

fn since(start_revision: i64, create: pb::WatchCreateRequest) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest { start_revision, ..create }
}

fn span(start: &'static str, end: &'static str) -> Span {
    Span { start: start.into(), end: Some(end.into()) }
}

#[test]
fn a_hub_without_watchers_asks_for_nothing() {
    let mut stage = Stage::new();
    stage.open(1);
    stage.commit_elsewhere(&[put("a", "2")]);
    assert!(stage.hub.is_behind());
    assert_eq!(stage.next_block(), None);
    assert!(!stage.hub.is_behind());
    stage.create(1, on_key("a"));
    stage.ask_progress(1);
    stage.expect(
        "1: #0 @2 created
        1: #-1 @2",
    );
}

#[test]
fn what_is_asked_for_is_the_smallest_span_of_all_watchers() {
    let mut stage = Stage::new();
    stage.open(1);
    stage.create(1, on_key("c"));
    stage.create(1, on_prefix("e"));
    stage.commit_elsewhere(&[put("c", "2"), put("e1", "2"), put("z", "2")]);
    let request = stage.next_block().expect("there is a gap");
    assert_eq!(request.span, span("c", "f"));
    assert_eq!((request.from, request.to, request.wants_prev), (2, 2, false));
    stage.take_block(&request);
    stage.create(1, pb::WatchCreateRequest { prev_kv: true, ..on_prefix("a") });
    stage.commit_elsewhere(&[delete("c")]);
    let request = stage.next_block().expect("there is a gap");
    assert_eq!((&request.span, request.wants_prev), (&span("a", "f"), true));
    stage.take_block(&request);
    for id in 1..=2 {
        stage.cancel(1, id);
    }
    stage.take_log();
    stage.commit_elsewhere(&[put("c", "4")]);
    let request = stage.next_block().expect("there is a gap");
    assert_eq!((&request.span, request.wants_prev), (&span("c", "c\0"), false));
    stage.take_block(&request);
    stage.expect("1: #0 @4 4+c=4");
}

#[test]
fn one_block_is_under_way_at_a_time() {
    let mut stage = Stage::new();
    stage.open(1);
    stage.create(1, on_key("a"));
    stage.commit_elsewhere(&[put("a", "2")]);
    stage.create(1, since(1, on_key("a")));
    stage.take_log();
    let gap = stage.next_block().expect("there is a gap");
    assert!(stage.hub.is_asking());
    assert_eq!(stage.next_block(), None);
    stage.commit_elsewhere(&[put("a", "3")]);
    stage.ask_progress(1);
    stage.expect("");
    stage.take_block(&gap);
    stage.expect("1: #0 @2 2+a=2");
    // The others have their turn before the hub has its next.
    let history = stage.next_block().expect("a watcher is behind");
    assert_eq!((history.from, history.to), (1, 2));
    stage.take_block(&history);
    let gap = stage.next_block().expect("there is a gap");
    assert_eq!((gap.from, gap.to), (3, 3));
    stage.take_block(&gap);
    stage.ask_progress(1);
    stage.expect(
        "1: #1 @3 2+a=2
        1: #0 @3 3+a=3
        1: #1 @3 3+a=3
        1: #-1 @3",
    );
}

/// Its keys are not in the block, and its start is.
#[test]
fn a_watcher_that_comes_while_a_block_is_under_way_misses_nothing() {
    let mut stage = Stage::new();
    stage.open(1);
    stage.create(1, on_key("c"));
    stage.commit_elsewhere(&[put("a", "2"), put("c", "2")]);
    stage.commit_elsewhere(&[put("a", "3")]);
    let gap = stage.next_block().expect("there is a gap");
    assert_eq!(gap.span, Span::key("c".into()));
    stage.create(1, since(2, on_key("a")));
    stage.create(1, since(3, pb::WatchCreateRequest { prev_kv: true, ..on_key("a") }));
    stage.create(1, on_key("a"));
    stage.commit_elsewhere(&[put("a", "4")]);
    stage.take_log();
    stage.take_block(&gap);
    stage.expect("1: #0 @2 2+c=2");
    stage.ask_progress(1);
    for _ in 0..2 {
        let request = stage.next_block().expect("there is more");
        stage.take_block(&request);
    }
    stage.ask_progress(1);
    stage.expect(
        "1: #1 @4 2+a=2 3+a=3
        1: #2 @4 3+a=3[2]
        1: #3 @4 4+a=4
        1: #1 @4 4+a=4
        1: #2 @4 4+a=4[3]
        1: #-1 @4",
    );
}

#[test]
fn a_block_that_was_given_up_changes_nothing() {
    let mut stage = Stage::new();
    stage.open(1);
    stage.create(1, on_key("a"));
    stage.commit_elsewhere(&[put("a", "2")]);
    stage.take_log();
    let late = stage.next_block().expect("there is a gap");
    // A watcher for whom it comes too late is served all the same.
    stage.create(1, since(2, on_key("a")));
    stage.catch_up();
    stage.commit(&[put("a", "3")]);
    stage.take_block(&late);
    stage.expect(
        "1: #1 @2 created
        1: #0 @2 2+a=2
        1: #1 @2 2+a=2
        1: #0 @3 3+a=3
        1: #1 @3 3+a=3",
    );
}

/// Keys that nobody can read at present hold up whoever watches them, and no others for ever.
#[test]
fn a_block_that_cannot_be_read_lets_others_have_their_turn() {
    let limits = Limits { block_watchers_max: 1, ..Limits::default() };
    let mut stage = Stage::with_limits(limits);
    for value in ["2", "3", "4"] {
        stage.commit(&[put("a", value), put("b", value)]);
    }
    stage.open(1);
    stage.create(1, since(2, on_key("a")));
    stage.create(1, since(3, on_key("b")));
    stage.take_log();
    for _ in 0..4 {
        let request = stage.next_block().expect("somebody is behind");
        match request.span.contains(b"a") {
            true => stage.refuse_block(&request),
            false => stage.take_block(&request),
        }
    }
    stage.expect("1: #1 @4 3+b=3 4+b=4");
    stage.catch_up();
    stage.expect("1: #0 @4 2+a=2 3+a=3 4+a=4");
}

#[test]
fn compaction_overtakes_a_block_under_way() {
    let mut stage = Stage::new();
    stage.open(1);
    stage.create(1, on_key("a"));
    for value in ["2", "3", "4"] {
        stage.commit_elsewhere(&[put("a", value)]);
    }
    stage.take_log();
    let gap = stage.next_block().expect("there is a gap");
    stage.compact(4);
    stage.refuse_block(&gap);
    // Nothing is left to be read for those who are lost.
    assert_eq!(stage.next_block(), None);
    stage.expect("1: #0 @0 canceled compacted=4");
}

/// A part of the store was being replaced by a snapshot when it was read.
#[test]
fn history_of_a_store_that_was_replaced_meanwhile_does_not_count() {
    let mut stage = Stage::new();
    stage.open(1);
    stage.create(1, on_key("a"));
    stage.commit_elsewhere(&[put("a", "2")]);
    stage.create(1, since(2, on_key("a")));
    stage.take_log();
    for _ in 0..3 {
        let effects = stage.hub.catch_up(stage.store.view(), stage.store.head, || false);
        assert_eq!(effects, Ok(Vec::new()));
    }
    stage.catch_up();
    stage.expect(
        "1: #0 @2 2+a=2
        1: #1 @2 2+a=2",
    );
}
