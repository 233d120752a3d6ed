//! History: starts in the past, slow clients, missed batches, compaction.

use crate::proto::etcdserverpb as pb;
use crate::time::Time;
use crate::watch::Limits;

use super::stage::{Stage, delete, on_key, on_prefix, put};

fn since(start_revision: i64, create: pb::WatchCreateRequest) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest { start_revision, ..create }
}

#[test]
fn a_start_in_the_past_is_replayed_and_then_goes_on() {
    let mut stage = Stage::new();
    for value in ["2", "3", "4"] {
        stage.commit(&[put("a", value), put("b", value)]);
    }
    stage.open(1);
    stage.create(1, pb::WatchCreateRequest { prev_kv: true, ..since(3, on_key("a")) });
    stage.expect("1: #0 @4 created");
    stage.commit(&[put("b", "5")]);
    stage.catch_up();
    stage.commit(&[delete("a")]);
    stage.expect(
        "1: #0 @5 3+a=3[2] 4+a=4[3]
        1: #0 @6 6-a[4]",
    );
}

#[test]
fn a_watcher_that_reads_history_misses_nothing_published_meanwhile() {
    let limits = Limits { block_rows_max: 1, ..Limits::default() };
    let mut stage = Stage::with_limits(limits);
    for value in ["2", "3", "4"] {
        stage.commit(&[put("a", value)]);
    }
    stage.open(1);
    stage.create(1, since(2, on_key("a")));
    stage.catch_up_once();
    stage.commit(&[put("a", "5")]);
    stage.catch_up_once();
    stage.expect(
        "1: #0 @4 created
        1: #0 @4 2+a=2
        1: #0 @5 3+a=3",
    );
    stage.ask_progress(1);
    stage.expect("");
    stage.catch_up();
    stage.ask_progress(1);
    stage.commit(&[put("a", "6")]);
    stage.expect(
        "1: #0 @5 4+a=4
        1: #0 @5 5+a=5
        1: #-1 @5
        1: #0 @6 6+a=6",
    );
}

#[test]
fn a_thousand_revisions_are_one_response() {
    let mut stage = Stage::new();
    for n in 0..2_001 {
        stage.commit(&[put("a", &n.to_string()), put("b", "")]);
    }
    stage.open(1);
    stage.create(1, since(1, on_prefix("a")));
    stage.catch_up();
    let log = stage.take_log();
    let counts: Vec<usize> =
        log.lines().map(|line| line.split(' ').filter(|word| word.contains('+')).count()).collect();
    assert_eq!(counts, [0, 1_000, 1_000, 1]);
}

#[test]
fn a_start_below_the_compact_revision_is_created_and_then_canceled() {
    let mut stage = Stage::new();
    for value in ["2", "3", "4", "5"] {
        stage.commit(&[put("a", value)]);
    }
    stage.compact(4);
    stage.open(1);
    stage.create(1, since(3, on_key("a")));
    stage.create(1, since(4, on_key("a")));
    stage.catch_up();
    stage.expect(
        "1: #0 @5 created
        1: #0 @0 canceled compacted=4
        1: #1 @5 created
        1: #1 @5 4+a=4 5+a=5",
    );
    // The id stays taken, and progress blocked, until the client cancels it.
    stage.ask_progress(1);
    stage.create(1, pb::WatchCreateRequest { watch_id: 1, ..on_key("b") });
    stage.commit(&[put("a", "6")]);
    stage.cancel(1, 0);
    stage.cancel(1, 0);
    stage.ask_progress(1);
    stage.expect(
        "1: #-1 @5 created canceled (mvcc: duplicate watch ID provided on the WatchStream)
        1: #1 @6 6+a=6
        1: #0 @6 canceled
        1: #-1 @6",
    );
}

#[test]
fn compaction_at_a_delete_keeps_the_delete() {
    let mut stage = Stage::new();
    stage.commit(&[put("a", "2")]);
    stage.commit(&[put("b", "3")]);
    stage.commit(&[delete("a")]);
    stage.compact(4);
    stage.open(1);
    stage.create(1, pb::WatchCreateRequest { prev_kv: true, ..since(4, on_key("a")) });
    stage.catch_up();
    // What was there before is compacted.
    stage.expect(
        "1: #0 @4 created
        1: #0 @4 4-a",
    );
}

#[test]
fn compaction_overtakes_only_watchers_that_are_behind() {
    let limits = Limits { block_rows_max: 1, ..Limits::default() };
    let mut stage = Stage::with_limits(limits);
    stage.open(1);
    stage.create(1, on_key("a"));
    for value in ["2", "3", "4", "5"] {
        stage.commit(&[put("a", value)]);
    }
    stage.create(1, since(2, on_key("a")));
    stage.create(1, since(5, on_key("a")));
    stage.take_log();
    stage.catch_up_once();
    stage.compact(5);
    stage.catch_up();
    stage.ask_progress(1);
    stage.cancel(1, 1);
    stage.ask_progress(1);
    stage.expect(
        "1: #2 @5 5+a=5
        1: #1 @0 canceled compacted=5
        1: #1 @5 canceled
        1: #-1 @5",
    );
}

/// The rows are gone before the hub is told of the compaction.
#[test]
fn a_block_with_holes_is_not_sent() {
    let mut stage = Stage::new();
    for value in ["2", "3", "4"] {
        stage.commit(&[put("a", value)]);
    }
    stage.open(1);
    stage.create(1, since(2, on_key("a")));
    stage.take_log();
    let old = stage.store.head;
    stage.store.compact(4);
    let new = std::mem::replace(&mut stage.store.head, old);
    stage.catch_up_once();
    stage.expect("");
    stage.store.head = new;
    stage.catch_up();
    stage.expect("1: #0 @0 canceled compacted=4");
}

fn small_queue() -> Stage {
    Stage::with_limits(Limits { queue_bytes_max: 600, ..Limits::default() })
}

#[test]
fn a_slow_client_loses_nothing_and_holds_up_nobody() {
    let mut stage = small_queue();
    stage.open(1);
    stage.open(2);
    stage.create(1, on_key("a"));
    stage.create(2, on_key("a"));
    stage.take_log();
    stage.stall(1);
    for n in 2..=20 {
        stage.commit(&[put("a", &n.to_string())]);
    }
    let log = stage.take_log();
    let sent = |stream: &str| log.lines().filter(|line| line.starts_with(stream)).count();
    assert_eq!(sent("2: #0"), 19);
    assert_eq!(sent("1: #0"), 4, "{log}");
    assert!(log.contains("1: reading false"));
    assert!(stage.queued(1) >= 600 && stage.queued(1) < 800);
    // Nothing is read for a client that takes nothing.
    assert!(!stage.hub.is_behind());
    assert_eq!(stage.hub.counts().slow_watchers, 1);

    stage.take(1, 2);
    assert!(!stage.hub.is_behind(), "more than half of the budget is still used");
    stage.take(1, 1);
    assert!(stage.hub.is_behind());
    stage.catch_up();
    stage.commit(&[put("a", "21")]);
    let all: String = (6..=20).map(|n| format!(" {n}+a={n}")).collect();
    stage.expect(&format!(
        "1: reading true
        1: #0 @20{all}
        1: reading false
        2: #0 @21 21+a=21"
    ));
    stage.unstall(1);
    stage.catch_up();
    stage.expect(
        "1: reading true
        1: #0 @21 21+a=21",
    );
    assert_eq!(stage.hub.counts().slow_watchers, 0);
}

#[test]
fn a_slow_client_is_not_told_progress_it_has_not_made() {
    let mut stage = small_queue();
    stage.open(1);
    stage.create(1, on_key("a"));
    stage.stall(1);
    for n in 2..=20 {
        stage.commit(&[put("a", &n.to_string())]);
    }
    stage.take_log();
    stage.ask_progress(1);
    stage.expect("");
    stage.unstall(1);
    stage.ask_progress(1);
    stage.expect("1: reading true");
    stage.catch_up();
    stage.ask_progress(1);
    assert!(stage.take_log().ends_with("1: #-1 @20\n"));
}

#[test]
fn a_slow_client_can_be_overtaken_by_compaction() {
    let mut stage = small_queue();
    stage.open(1);
    stage.create(1, on_key("a"));
    stage.create(1, on_key("b"));
    stage.take_log();
    stage.stall(1);
    for n in 2..=20 {
        stage.commit(&[put("a", &n.to_string())]);
    }
    stage.compact(20);
    stage.catch_up();
    stage.take_log();
    stage.unstall(1);
    stage.catch_up();
    stage.commit(&[put("a", "21"), put("b", "21")]);
    // The watcher of "b" had nothing to miss.
    stage.expect(
        "1: reading true
        1: #0 @0 canceled compacted=20
        1: #1 @21 21+b=21",
    );
}

#[test]
fn a_missed_batch_is_read_from_the_history() {
    let mut stage = Stage::new();
    stage.open(1);
    stage.create(1, on_key("a"));
    stage.create(1, since(4, on_key("a")));
    stage.open(2);
    stage.create(2, pb::WatchCreateRequest { progress_notify: true, ..on_key("c") });
    stage.take_log();
    stage.store.commit(&[put("a", "2")]);
    stage.store.commit(&[put("a", "3"), put("b", "3")]);
    let late = stage.store.commit(&[put("a", "4")]);
    stage.publish(3, late);
    stage.ask_progress(2);
    stage.tick(Time(600_000_000));
    stage.commit(&[put("a", "5")]);
    stage.expect("");
    stage.catch_up();
    stage.ask_progress(1);
    stage.commit(&[put("a", "6")]);
    stage.expect(
        "1: #0 @5 2+a=2 3+a=3 4+a=4 5+a=5
        1: #1 @5 4+a=4 5+a=5
        1: #-1 @5
        1: #0 @6 6+a=6
        1: #1 @6 6+a=6",
    );
}

/// A snapshot of a compacted store replaced the state of a node that was cut off.
#[test]
fn a_jump_past_the_compact_revision_cancels_who_missed_something() {
    let mut stage = Stage::new();
    stage.open(1);
    stage.create(1, on_key("a"));
    stage.create(1, since(5, on_key("a")));
    stage.create(1, since(6, on_key("a")));
    stage.take_log();
    for value in ["2", "3", "4", "5", "6"] {
        stage.store.commit(&[put("a", value)]);
    }
    stage.store.compact(5);
    stage.publish(6, Vec::new());
    stage.catch_up();
    stage.expect(
        "1: #0 @0 canceled compacted=5
        1: #1 @6 5+a=5 6+a=6
        1: #2 @6 6+a=6",
    );
}

/// Many watchers far behind and one near the end: the one does not wait for the many.
#[test]
fn a_short_way_does_not_wait_for_a_long_one() {
    let limits = Limits {
        block_rows_max: 10,
        block_watchers_max: 4,
        stream_ready_max: 4,
        ..Limits::default()
    };
    let mut stage = Stage::with_limits(limits);
    for n in 2..=1_000 {
        stage.commit(&[put("a", &n.to_string())]);
    }
    stage.open(1);
    stage.open(2);
    for _ in 0..50 {
        stage.create(1, since(2, on_key("a")));
    }
    stage.catch_up_once();
    stage.create(2, since(998, on_key("a")));
    stage.take_log();
    stage.catch_up_once();
    stage.catch_up_once();
    let log = stage.take_log();
    assert!(log.contains("2: #0 @1000 998+a=998 999+a=999 1000+a=1000"), "{log}");
    // And the long way comes to its end although short ones keep coming.
    let mut finished = 0;
    for n in 0..10_000 {
        stage.create(2, since(999, on_key("b")));
        stage.catch_up_once();
        finished += stage.take_log().matches(" 1000+a=1000").count();
        if finished == 50 {
            return;
        }
        assert!(n < 9_999, "{finished} of 50 have come to the end");
    }
}
