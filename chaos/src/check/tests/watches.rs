//! One small history for each promise to watchers, and for what watchers may be sent.

use bytes::Bytes;
use flotilla_proto::etcdserverpb::watch_create_request::FilterType;
use flotilla_proto::etcdserverpb::{WatchCreateRequest, WatchResponse};

use super::scene::{Scene, compact, delete, everything, put, response, span_delete, swap};
use super::{assert_fails, assert_passes};
use crate::check::watch::Fault;
use crate::check::{Rules, Violation};
use crate::history::{History, Received, WatchRecord};

/// Where the responses to a watcher of everything lie: the created reply, then one response for
/// each of the revisions 2 to 6. Revision 4 has two events, revision 5 deletes both keys.
const SECOND: usize = 1;
const THIRD: usize = 2;
const FOURTH: usize = 3;
const FIFTH: usize = 4;

fn watched(create: WatchCreateRequest) -> (History, Rules) {
    let mut scene = Scene::new();
    scene.run_all([put("a", "1"), put("a", "2"), swap("a", "2", "3", "b")]);
    scene.run_all([span_delete("a", "c"), put("b", "4")]);
    scene.watch(create);
    scene.finish()
}

fn record(history: &mut History) -> &mut WatchRecord {
    &mut history.watches[0]
}

fn sent(history: &mut History, position: usize) -> &mut WatchResponse {
    &mut record(history).received[position].response
}

fn header_of(history: &mut History, position: usize) -> &mut i64 {
    &mut sent(history, position).header.as_mut().expect("every response has one").revision
}

/// Puts a response in front of the one at `position`, with its stamp.
fn insert(history: &mut History, position: usize, response: WatchResponse) {
    let received = &mut record(history).received;
    let at = received.get(position).or(received.last()).expect("the created reply is there").at;
    received.insert(position, Received { at, response });
}

/// Bends what a watcher of everything from revision 2 was sent, and looks for the fault.
fn assert_fault(bend: impl FnOnce(&mut History), is_wanted: impl Fn(&Fault) -> bool) {
    assert_fault_of(everything(2), bend, is_wanted);
}

fn assert_fault_of(
    create: WatchCreateRequest,
    bend: impl FnOnce(&mut History),
    is_wanted: impl Fn(&Fault) -> bool,
) {
    let (mut history, rules) = watched(create);
    bend(&mut history);
    assert_fails(
        &history,
        &rules,
        |it| matches!(it, Violation::Watch { watcher: 0, fault, .. } if is_wanted(fault)),
    );
}

#[test]
fn an_event_outside_the_span_or_filtered_out() {
    assert_fault(
        |history| record(history).create.range_end = Bytes::new(),
        |it| matches!(it, Fault::NotAskedFor { .. }),
    );
    for filter in [FilterType::Noput, FilterType::Nodelete] {
        assert_fault(
            |history| record(history).create.filters = vec![filter.into()],
            |it| matches!(it, Fault::NotAskedFor { .. }),
        );
    }
}

#[test]
fn a_filtered_watcher_gets_the_rest() {
    let (mut history, rules) = watched(everything(2));
    record(&mut history).create.filters = vec![FilterType::Noput.into()];
    record(&mut history).received.drain(SECOND..FIFTH);
    record(&mut history).received.pop();
    assert_passes(&history, &rules);
}

#[test]
fn an_empty_key_stands_for_the_lowest() {
    let (mut history, rules) = watched(everything(2));
    record(&mut history).create.key = Bytes::new();
    assert_passes(&history, &rules);
}

#[test]
fn events_out_of_order() {
    assert_fault(
        |history| record(history).received.swap(SECOND, THIRD),
        |it| matches!(it, Fault::OutOfOrder { .. }),
    );
    assert_fault(
        |history| sent(history, FOURTH).events.swap(0, 1),
        |it| matches!(it, Fault::OutOfOrder { .. }),
    );
}

#[test]
fn an_event_sent_twice() {
    assert_fault(
        |history| {
            let again = sent(history, THIRD).clone();
            insert(history, THIRD, again);
        },
        |it| matches!(it, Fault::Duplicate { .. }),
    );
    assert_fault(
        |history| {
            let again = sent(history, THIRD).events[0].clone();
            sent(history, THIRD).events.push(again);
        },
        |it| matches!(it, Fault::Duplicate { .. }),
    );
}

#[test]
fn a_revision_split_over_two_responses() {
    let split = |history: &mut History| {
        let rest = sent(history, FOURTH).events.split_off(1);
        let second = WatchResponse { events: rest, ..response(4) };
        insert(history, FIFTH, second);
    };
    assert_fault(split, |it| matches!(it, Fault::Split { revision: 4 }));
    // As pieces of one response it is fine, if the watcher asked for pieces.
    let (mut history, rules) = watched(everything(2));
    split(&mut history);
    sent(&mut history, FOURTH).fragment = true;
    record(&mut history).create.fragment = true;
    assert_passes(&history, &rules);
    record(&mut history).create.fragment = false;
    assert_fails(
        &history,
        &rules,
        |it| matches!(it, Violation::Watch { fault, .. } if matches!(**fault, Fault::StrayFragment { .. })),
    );
}

#[test]
fn pieces_that_something_else_comes_between() {
    assert_fault(
        |history| {
            record(history).create.fragment = true;
            sent(history, FOURTH).fragment = true;
            insert(history, FIFTH, response(4));
        },
        |it| matches!(it, Fault::StrayFragment { .. }),
    );
}

#[test]
fn a_stream_that_breaks_inside_a_revision() {
    let (mut history, rules) = watched(everything(2));
    record(&mut history).received.truncate(FIFTH);
    record(&mut history).open_at_end = false;
    record(&mut history).create.fragment = true;
    sent(&mut history, FOURTH).fragment = true;
    sent(&mut history, FOURTH).events.pop();
    assert_passes(&history, &rules);
    // The watcher waits for the other half if its stream did not break.
    record(&mut history).open_at_end = true;
    assert_fails(
        &history,
        &rules,
        |it| matches!(it, Violation::Watch { fault, .. } if matches!(**fault, Fault::NotCaughtUp { .. })),
    );
}

#[test]
fn a_torn_revision() {
    assert_fault(
        |history| {
            sent(history, FOURTH).events.pop();
        },
        |it| matches!(it, Fault::Torn { revision: 4, .. }),
    );
}

#[test]
fn an_event_left_out() {
    assert_fault(
        |history| {
            record(history).received.remove(THIRD);
        },
        |it| matches!(it, Fault::Missed { .. }),
    );
}

#[test]
fn the_first_events_left_out() {
    assert_fault(
        |history| {
            record(history).received.remove(SECOND);
        },
        |it| matches!(it, Fault::StartedLate { .. }),
    );
}

#[test]
fn events_below_the_start() {
    assert_fault(
        |history| record(history).create.start_revision = 3,
        |it| matches!(it, Fault::StartedEarly { start: 3, .. }),
    );
    assert_fault(
        |history| record(history).create.start_revision = 0,
        |it| matches!(it, Fault::StartedEarly { start: 7, .. }),
    );
}

#[test]
fn a_start_in_the_future() {
    // Progress below the start is as wrong as an event.
    assert_fault_of(
        everything(9),
        |history| insert(history, SECOND, response(6)),
        |it| matches!(it, Fault::ProgressBeforeStart { progress: 6, start: 9 }),
    );
    let (mut history, rules) = watched(everything(0));
    insert(&mut history, SECOND, response(6));
    assert_passes(&history, &rules);
}

#[test]
fn progress_ahead_of_events() {
    assert_fault(
        |history| insert(history, THIRD, response(3)),
        |it| matches!(it, Fault::ProgressAhead { progress: 3, .. }),
    );
    let (mut history, rules) = watched(everything(2));
    insert(&mut history, THIRD, response(2));
    assert_passes(&history, &rules);
}

#[test]
fn progress_ahead_of_the_rest_of_a_revision() {
    assert_fault(
        |history| {
            let rest = sent(history, FOURTH).events.split_off(1);
            insert(history, FIFTH, response(4));
            let second = WatchResponse { events: rest, ..response(4) };
            insert(history, FIFTH + 1, second);
        },
        |it| matches!(it, Fault::Split { revision: 4 }),
    );
}

#[test]
fn progress_that_goes_back() {
    assert_fault(
        |history| {
            let end = record(history).received.len();
            insert(history, end, response(6));
            insert(history, end + 1, response(5));
        },
        |it| matches!(it, Fault::ProgressWentBack { earlier: 6, later: 5 }),
    );
}

#[test]
fn progress_to_the_middle_of_what_is_due() {
    // The watcher of one key is told of revision 6, and then of revision 4.
    let only_a =
        WatchCreateRequest { range_end: Bytes::new(), key: Bytes::from("a"), ..everything(7) };
    assert_fault_of(
        only_a,
        |history| {
            record(history).create.start_revision = 0;
            *header_of(history, 0) = 4;
            insert(history, SECOND, response(5));
        },
        |it| matches!(it, Fault::ProgressAhead { progress: 5, .. }),
    );
}

#[test]
fn a_header_below_its_events_or_above_the_head() {
    assert_fault(
        |history| *header_of(history, FOURTH) = 3,
        |it| matches!(it, Fault::HeaderBehind { header: 3, .. }),
    );
    assert_fault(
        |history| *header_of(history, FOURTH) = 7,
        |it| matches!(it, Fault::HeaderBeyondHead { header: 7, head: 6 }),
    );
    // A watcher that catches up is told how far the store is.
    let (mut history, rules) = watched(everything(2));
    *header_of(&mut history, SECOND) = 6;
    assert_passes(&history, &rules);
}

#[test]
fn a_response_without_header() {
    assert_fault(
        |history| sent(history, FOURTH).header = None,
        |it| matches!(it, Fault::NoHeader { position: FOURTH }),
    );
}

#[test]
fn previous_pairs() {
    let is_it = |it: &Fault| matches!(it, Fault::PrevKvDiffers { .. });
    let prev = |history: &mut History, position: usize| {
        sent(history, position).events[0].prev_kv.clone().expect("it is a change")
    };
    // Of another revision.
    assert_fault(
        |history| {
            let wrong = prev(history, THIRD);
            sent(history, FOURTH).events[0].prev_kv = Some(wrong);
        },
        is_it,
    );
    // Left out.
    assert_fault(|history| sent(history, FIFTH).events[0].prev_kv = None, is_it);
    // With a create.
    assert_fault(
        |history| {
            let wrong = prev(history, THIRD);
            sent(history, SECOND).events[0].prev_kv = Some(wrong);
        },
        is_it,
    );
    // Not asked for.
    assert_fault(|history| record(history).create.prev_kv = false, is_it);
}

#[test]
fn a_previous_pair_that_is_compacted() {
    let mut scene = Scene::new();
    scene.run_all([put("a", "1"), put("a", "2"), put("a", "3"), compact(3)]);
    scene.watch(everything(3));
    let (mut history, rules) = scene.finish();
    let mut leave_out = |position: usize| {
        sent(&mut history, position).events[0].prev_kv = None;
        history.clone()
    };
    // Revision 2 is gone, revision 3 is not.
    assert_passes(&leave_out(1), &rules);
    assert_fails(
        &leave_out(2),
        &rules,
        |it| matches!(it, Violation::Watch { fault, .. } if matches!(**fault, Fault::PrevKvDiffers { .. })),
    );
}

#[test]
fn an_event_with_other_content() {
    let bends: [fn(&mut flotilla_proto::mvccpb::KeyValue); 5] = [
        |it| it.version = 9,
        |it| it.create_revision = 3,
        |it| it.value = Bytes::from("x"),
        |it| it.lease = 1,
        |it| it.create_revision = it.mod_revision,
    ];
    for bend in bends {
        assert_fault(
            |history| bend(sent(history, THIRD).events[0].kv.as_mut().expect("a pair")),
            |it| matches!(it, Fault::ContentDiffers { .. }),
        );
    }
}

#[test]
fn a_delete_with_content() {
    assert_fault(
        |history| sent(history, FIFTH).events[0].kv.as_mut().expect("a pair").version = 1,
        |it| matches!(it, Fault::Malformed(_)),
    );
}

#[test]
fn an_event_that_did_not_happen() {
    assert_fault(
        |history| {
            let pair = sent(history, THIRD).events[0].kv.as_mut().expect("a pair");
            pair.key = Bytes::from("z");
        },
        |it| matches!(it, Fault::NotInEvidence { .. }),
    );
    // A put in place of a delete.
    assert_fault(
        |history| sent(history, FIFTH).events[0].r#type = 0,
        |it| matches!(it, Fault::NotInEvidence { .. }),
    );
}

#[test]
fn created_replies() {
    assert_fault(
        |history| {
            record(history).received.remove(0);
        },
        |it| matches!(it, Fault::NotCreated { position: 0 }),
    );
    assert_fault(
        |history| sent(history, FOURTH).created = true,
        |it| matches!(it, Fault::CreatedAgain { position: FOURTH }),
    );
    assert_fault(
        |history| {
            let event = sent(history, SECOND).events[0].clone();
            sent(history, 0).events.push(event);
        },
        |it| matches!(it, Fault::CreatedWithEvents),
    );
    assert_fault(
        |history| record(history).create.watch_id = 5,
        |it| matches!(it, Fault::RefusedWrongly { should: false, .. }),
    );
}

/// A watcher whose create request was refused with a reason.
fn refused(create: WatchCreateRequest, reason: &str) -> (History, Rules) {
    let (mut history, rules) = watched(create);
    record(&mut history).received.truncate(1);
    let created = sent(&mut history, 0);
    created.canceled = true;
    created.watch_id = -1;
    created.cancel_reason = reason.to_owned();
    (history, rules)
}

#[test]
fn create_requests_refused_and_not_refused() {
    let empty =
        WatchCreateRequest { key: Bytes::from("b"), range_end: Bytes::from("a"), ..everything(2) };
    let chosen = WatchCreateRequest { watch_id: 3, ..everything(2) };
    let compacted = "etcdserver: mvcc: required revision has been compacted";
    let denied = "rpc error: code = PermissionDenied desc = etcdserver: permission denied";
    let duplicate = "mvcc: duplicate watch ID provided on the WatchStream";
    let is_empty = "mvcc: watcher range is empty";
    let cases = [
        (everything(-1), compacted, true),
        (everything(2), compacted, false),
        (empty.clone(), is_empty, true),
        (everything(2), is_empty, false),
        (chosen, duplicate, true),
        (everything(2), duplicate, false),
        (everything(2), denied, true),
        (everything(2), "", false),
    ];
    for (create, reason, is_right) in cases {
        let (history, rules) = refused_or_empty(create, reason);
        if is_right {
            assert_passes(&history, &rules);
        } else {
            assert_fails(
                &history,
                &rules,
                |it| matches!(it, Violation::Watch { fault, .. } if matches!(**fault, Fault::RefusedWrongly { .. })),
            );
        }
    }
    for create in [everything(-1), empty] {
        let (mut history, rules) = refused_or_empty(create, "");
        let created = sent(&mut history, 0);
        created.canceled = false;
        assert_fails(
            &history,
            &rules,
            |it| matches!(it, Violation::Watch { fault, .. } if matches!(**fault, Fault::RefusedWrongly { should: true, .. })),
        );
    }
}

/// As [`refused`], for requests that no right server accepts.
fn refused_or_empty(create: WatchCreateRequest, reason: &str) -> (History, Rules) {
    let (mut history, rules) = refused(everything(2), reason);
    record(&mut history).create = create;
    (history, rules)
}

#[test]
fn nothing_comes_after_a_cancellation() {
    let cancelled = |history: &mut History| {
        record(history).cancel_sent = Some(0);
        insert(history, FIFTH, WatchResponse { canceled: true, ..response(6) });
    };
    assert_fault(cancelled, |it| matches!(it, Fault::SentAfterCancel { position: 5 }));
    let (mut history, rules) = watched(everything(2));
    cancelled(&mut history);
    record(&mut history).received.truncate(FIFTH + 1);
    // What is meant for other watchers of the stream, and the answer to a second cancel.
    let end = record(&mut history).received.len();
    insert(&mut history, end, WatchResponse { watch_id: -1, ..response(6) });
    insert(&mut history, end, WatchResponse { canceled: true, ..response(6) });
    assert_passes(&history, &rules);
}

#[test]
fn a_cancellation_nobody_asked_for() {
    assert_fault(
        |history| {
            let end = record(history).received.len();
            insert(history, end, WatchResponse { canceled: true, ..response(6) });
        },
        |it| matches!(it, Fault::CancelledWrongly { compact_revision: 0, .. }),
    );
}

#[test]
fn a_cancellation_by_compaction() {
    let mut scene = Scene::new();
    scene.run_all([put("a", "1"), put("a", "2"), put("a", "3"), compact(4)]);
    scene.watch(everything(2));
    let (mut history, rules) = scene.finish();
    let compacted = WatchResponse { canceled: true, compact_revision: 4, ..response(0) };
    record(&mut history).received.truncate(1);
    insert(&mut history, 1, compacted);
    assert_passes(&history, &rules);

    let is_wrong = |history: &History, is_wanted: fn(&Fault) -> bool| {
        assert_fails(
            history,
            &rules,
            |it| matches!(it, Violation::Watch { fault, .. } if is_wanted(fault)),
        );
    };
    let mut other = history.clone();
    sent(&mut other, 1).compact_revision = 3;
    is_wrong(&other, |it| matches!(it, Fault::CancelledWrongly { compact_revision: 3, .. }));
    let mut early = history.clone();
    early.operations[3].invoked = 1_000;
    early.operations[3].returned = Some(1_000);
    is_wrong(&early, |it| matches!(it, Fault::CancelledWrongly { .. }));
    let mut needless = history.clone();
    record(&mut needless).create.start_revision = 4;
    is_wrong(&needless, |it| matches!(it, Fault::CancelledWrongly { .. }));
    let mut with_header = history.clone();
    *header_of(&mut with_header, 1) = 4;
    is_wrong(&with_header, |it| matches!(it, Fault::CompactionMisreported { header: 4, .. }));
    let mut with_reason = history.clone();
    sent(&mut with_reason, 1).cancel_reason = "gone".to_owned();
    is_wrong(&with_reason, |it| matches!(it, Fault::CompactionMisreported { .. }));
}

#[test]
fn a_compaction_that_is_skipped_in_silence() {
    let mut scene = Scene::new();
    scene.run_all([put("a", "1"), put("a", "2"), put("a", "3"), compact(4)]);
    scene.watch(everything(2));
    let (mut history, rules) = scene.finish();
    record(&mut history).received.drain(1..3);
    assert_fails(
        &history,
        &rules,
        |it| matches!(it, Violation::Watch { fault, .. } if matches!(**fault, Fault::StartedLate { .. })),
    );
}

#[test]
fn a_watcher_that_never_catches_up() {
    let bend = |history: &mut History| {
        record(history).received.pop();
    };
    assert_fault(bend, |it| matches!(it, Fault::NotCaughtUp { .. }));
    let (mut history, mut rules) = watched(everything(2));
    bend(&mut history);
    record(&mut history).open_at_end = false;
    assert_passes(&history, &rules);
    record(&mut history).open_at_end = true;
    rules.watchers_catch_up = false;
    assert_passes(&history, &rules);
}

#[test]
fn an_event_seen_before_the_write_was_asked_for() {
    let mut scene = Scene::new();
    scene.run(put("a", "1"));
    scene.run(delete("a"));
    scene.watch(everything(2));
    let (mut history, rules) = scene.finish();
    for received in &mut record(&mut history).received {
        received.at = 9;
    }
    assert_fails(
        &history,
        &rules,
        |it| matches!(it, Violation::WrittenInPast { operation, .. } if operation.operation == 1),
    );
}
