//! One small history for each way in which operations can be wrong, and for each way in which
//! they only look wrong.

use bytes::Bytes;
use flotilla_proto::etcdserverpb::LeaseGrantRequest;
use flotilla_proto::mvccpb::KeyValue;

use super::scene::{
    Scene, answer, compact, delete, edit_evidence, put, read, read_all, read_at, read_old,
    set_revision, span_delete, swap,
};
use super::{assert_fails, assert_passes};
use crate::check::{Invalid, Rules, Verdict, Violation, judge};
use crate::history::{Answer, Code, Event, Outcome, Refused, ReplicaHash, Request};
use crate::model::Refusal;

#[test]
fn sources_that_contradict_each_other() {
    let mut scene = Scene::new();
    scene.run(put("a", "1"));
    let (mut history, rules) = scene.finish();
    let other = vec![Event::Delete { key: Bytes::from("a"), revision: 2 }];
    history.evidence.tell("node 2", 2, other);
    assert_fails(&history, &rules, |it| {
        matches!(it, Violation::EvidenceConflict { revision: 2, .. })
    });
}

#[test]
fn a_revision_that_is_missing() {
    let mut scene = Scene::new();
    scene.run_all([put("a", "1"), put("a", "2"), put("a", "3")]);
    let (mut history, rules) = scene.finish();
    history.evidence.forget(3);
    assert_fails(
        &history,
        &rules,
        |it| matches!(it, Violation::LostRevision { revision: 3, writer: Some(it) } if it.operation == 1),
    );
}

#[test]
fn an_acknowledged_write_above_the_head() {
    let mut scene = Scene::new();
    scene.run_all([put("a", "1"), put("a", "2")]);
    let (mut history, rules) = scene.finish();
    history.evidence.forget(3);
    history.evidence.close(2);
    assert_fails(&history, &rules, |it| matches!(it, Violation::LostRevision { revision: 3, .. }));
}

#[test]
fn a_read_above_the_head() {
    let mut scene = Scene::new();
    scene.run(put("a", "1"));
    let index = scene.run(read("a"));
    let (mut history, rules) = scene.finish();
    set_revision(answer(&mut history, index), 9);
    assert_fails(&history, &rules, |it| {
        matches!(it, Violation::RevisionBeyondHead { head: 2, .. })
    });
}

#[test]
fn a_revision_without_content_or_with_the_content_of_another() {
    let mut scene = Scene::new();
    scene.run_all([put("a", "1"), put("a", "2")]);
    let (history, rules) = scene.finish();
    let mut empty = history.clone();
    edit_evidence(&mut empty, |revision, events| {
        Some(if revision == 3 { Vec::new() } else { events })
    });
    assert_fails(&empty, &rules, |it| {
        matches!(it, Violation::ImpossibleRevision { revision: 3, .. })
    });
    let mut shifted = history;
    edit_evidence(&mut shifted, |revision, events| {
        let wrong = vec![Event::Delete { key: Bytes::from("a"), revision: 2 }];
        Some(if revision == 3 { wrong } else { events })
    });
    assert_fails(&shifted, &rules, |it| {
        matches!(it, Violation::ImpossibleRevision { revision: 3, .. })
    });
}

#[test]
fn two_writes_at_one_revision() {
    let mut scene = Scene::new();
    scene.run(put("a", "1"));
    let twin = scene.run(put("a", "1"));
    let (mut history, rules) = scene.finish();
    set_revision(answer(&mut history, twin), 2);
    assert_fails(&history, &rules, |it| {
        matches!(it, Violation::DuplicateRevision { revision: 2, .. })
    });
}

#[test]
fn an_unknown_write_that_happened_once_twice_and_never() {
    for times in 0..3 {
        let mut scene = Scene::new();
        scene.run(put("a", "0"));
        if times == 0 {
            scene.lose(put("a", "1"));
        } else {
            scene.run_unseen(put("a", "1"));
        }
        scene.run(put("a", "2"));
        if times == 2 {
            scene.model.apply(&put("a", "1")).expect("a put is possible");
            let events = scene.model.timeline().events_at(5).to_vec();
            scene.history.evidence.tell("node 1", 5, events);
            let mut history = scene.history;
            for revision in 2..5 {
                let events = scene.model.timeline().events_at(revision).to_vec();
                history.evidence.tell("node 1", revision, events);
            }
            history.evidence.close(5);
            assert_fails(&history, &scene.rules, |it| {
                matches!(it, Violation::AppliedTwice { first: 3, second: 5, .. })
            });
        } else {
            let (history, rules) = scene.finish();
            let Verdict::Pass(summary) = judge(&history, &rules) else { panic!("was right") };
            assert_eq!((summary.unknown, summary.unknown_applied), (1, times));
        }
    }
}

#[test]
fn an_acknowledged_write_that_happened_once_more() {
    let mut scene = Scene::new();
    scene.run_all([put("a", "1"), put("a", "2")]);
    scene.run_unseen(put("a", "1"));
    let (mut history, rules) = scene.finish();
    history.operations.pop();
    assert_fails(
        &history,
        &rules,
        |it| matches!(it, Violation::AppliedTwice { operation, first: 2, second: 4 } if operation.operation == 0),
    );
}

#[test]
fn a_write_that_nobody_asked_for() {
    let mut scene = Scene::new();
    scene.run(put("a", "1"));
    scene.run_unseen(put("b", "ghost"));
    let (mut history, rules) = scene.finish();
    history.operations.pop();
    assert_fails(&history, &rules, |it| matches!(it, Violation::Phantom { revision: 3, .. }));
}

#[test]
fn a_refused_write_that_happened() {
    let mut scene = Scene::new();
    let index = scene.run(put("a", "1"));
    let (mut history, rules) = scene.finish();
    let text = "etcdserver: too many requests".to_owned();
    history.operations[index].outcome = Outcome::Refused(Refused { code: Code(2), text });
    assert_fails(&history, &rules, |it| {
        matches!(it, Violation::RefusedButApplied { revision: 2, .. })
    });
}

#[test]
fn an_unknown_write_seen_before_it_was_asked_for() {
    let mut scene = Scene::new();
    let index = scene.run_unseen(put("a", "1"));
    scene.run(read("a"));
    let (mut history, rules) = scene.finish();
    history.operations[index].invoked = 1_000;
    assert_fails(&history, &rules, |it| {
        matches!(it, Violation::SeenBeforeInvoked { revision: 2, .. })
    });
}

#[test]
fn unknown_deletes_are_told_apart_by_what_they_delete() {
    // The single delete must explain the first hole, so that the wide one is free for the second.
    let mut scene = Scene::new();
    scene.run(put("k", "1"));
    scene.run_unseen(delete("k"));
    scene.run_all([put("k", "2"), put("l", "3")]);
    scene.run_unseen(span_delete("k", "m"));
    let (mut history, rules) = scene.finish();
    // Whichever comes first in the history must not decide.
    history.operations.swap(1, 4);
    history.operations[1].invoked = 0;
    history.operations[4].invoked = 0;
    assert_passes(&history, &rules);
    // With the wide delete alone one hole stays open.
    history.operations.remove(4);
    assert_fails(&history, &rules, |it| {
        matches!(it, Violation::AppliedTwice { .. } | Violation::Phantom { .. })
    });
}

#[test]
fn unknown_deletes_bounded_by_time() {
    let mut scene = Scene::new();
    scene.run(put("k", "1"));
    scene.run_unseen(delete("k"));
    scene.run(read("k"));
    scene.run(put("k", "2"));
    scene.run_unseen(delete("k"));
    let (mut history, rules) = scene.finish();
    assert_passes(&history, &rules);
    // Both invoked after the read saw the first: that one has no maker.
    history.operations[1].invoked = 1_000;
    assert_fails(&history, &rules, |it| {
        matches!(it, Violation::SeenBeforeInvoked { revision: 3, .. })
    });
}

#[test]
fn a_torn_transaction() {
    let mut scene = Scene::new();
    scene.run(put("a", "1"));
    scene.run(swap("a", "1", "2", "b"));
    let (mut history, rules) = scene.finish();
    edit_evidence(&mut history, |revision, mut events| {
        if revision == 3 {
            events.pop();
        }
        Some(events)
    });
    assert_fails(&history, &rules, |it| matches!(it, Violation::EffectDiffers { .. }));
}

#[test]
fn a_write_with_wrong_counters() {
    let mut scene = Scene::new();
    scene.run_all([put("a", "1"), put("a", "2")]);
    let (mut history, rules) = scene.finish();
    edit_evidence(&mut history, |revision, mut events| {
        if let (3, Some(Event::Put(pair))) = (revision, events.first_mut()) {
            pair.version = 1;
        }
        Some(events)
    });
    assert_fails(&history, &rules, |it| matches!(it, Violation::EffectDiffers { .. }));
}

#[test]
fn a_comparison_on_an_old_state() {
    let mut scene = Scene::new();
    scene.run_all([put("a", "1"), put("a", "2")]);
    let index = scene.run(swap("a", "2", "3", "b"));
    let (mut history, rules) = scene.finish();
    // The transaction claims to have seen that the value differed, as it did one write before.
    let Answer::Txn(txn) = answer(&mut history, index) else { panic!("a transaction") };
    txn.succeeded = false;
    assert_fails(
        &history,
        &rules,
        |it| matches!(it, Violation::AnswerDiffers { difference, .. } if difference.field == "succeeded"),
    );
}

#[test]
fn a_wrong_previous_pair() {
    let mut scene = Scene::new();
    scene.run(put("a", "1"));
    let index = scene.run(put("a", "2"));
    let (mut history, rules) = scene.finish();
    let Answer::Put(put) = answer(&mut history, index) else { panic!("a put") };
    put.prev_kv = None;
    assert_fails(
        &history,
        &rules,
        |it| matches!(it, Violation::AnswerDiffers { difference, .. } if difference.field == "prev_kv"),
    );
}

#[test]
fn a_failed_transaction_that_should_have_succeeded() {
    let mut scene = Scene::new();
    scene.run(put("a", "1"));
    let index = scene.run(swap("a", "0", "2", "b"));
    let (mut history, rules) = scene.finish();
    let Request::Txn(txn) = &mut history.operations[index].request else { panic!("a txn") };
    txn.compare.clear();
    assert_fails(
        &history,
        &rules,
        |it| matches!(it, Violation::AnswerDiffers { operation, .. } if operation.operation == index),
    );
}

#[test]
fn reads_of_another_state() {
    let mut scene = Scene::new();
    scene.run_all([put("a", "1"), put("b", "1")]);
    let all = scene.run(read_all());
    let past = scene.run(read_at("a", 2));
    let old = scene.run(read_old("a"));
    let (history, rules) = scene.finish();
    for index in [all, past, old] {
        let mut history = history.clone();
        let Answer::Read(answer) = answer(&mut history, index) else { panic!("a read") };
        answer.kvs[0] = KeyValue { version: 7, ..answer.kvs[0].clone() };
        assert_fails(
            &history,
            &rules,
            |it| matches!(it, Violation::AnswerDiffers { operation, .. } if operation.operation == index),
        );
    }
}

#[test]
fn an_old_answer_is_stale_only_if_it_must_not_be_old() {
    let mut scene = Scene::new();
    scene.run(put("a", "1"));
    let fresh = scene.run(read("a"));
    let old = scene.run(read_old("a"));
    scene.run(put("a", "2"));
    let (mut history, rules) = scene.finish();
    history.operations[old].invoked = 1_000;
    history.operations[old].returned = Some(1_005);
    assert_passes(&history, &rules);
    history.operations[fresh].invoked = 1_000;
    history.operations[fresh].returned = Some(1_005);
    assert_fails(&history, &rules, |it| matches!(it, Violation::StaleRead { seen: 3, .. }));
}

#[test]
fn stamps_that_are_equal_are_concurrent() {
    let mut scene = Scene::new();
    scene.run(put("a", "1"));
    let index = scene.run(read("a"));
    scene.run(put("a", "2"));
    let (mut history, rules) = scene.finish();
    let returned = history.operations[2].returned.expect("the put returned");
    history.operations[index].invoked = returned;
    history.operations[index].returned = Some(returned);
    assert_passes(&history, &rules);
    history.operations[index].invoked += 1;
    history.operations[index].returned = Some(returned + 1);
    assert_fails(&history, &rules, |it| matches!(it, Violation::StaleRead { .. }));
}

#[test]
fn a_write_ordered_into_the_past() {
    let mut scene = Scene::new();
    let early = scene.run(put("a", "1"));
    scene.run(put("b", "1"));
    let (mut history, rules) = scene.finish();
    history.operations[early].invoked = 1_000;
    history.operations[early].returned = Some(1_005);
    assert_fails(&history, &rules, |it| matches!(it, Violation::WrittenInPast { seen: 3, .. }));
}

#[test]
fn an_answer_without_header() {
    let mut scene = Scene::new();
    scene.run(put("a", "1"));
    let index = scene.run(read("a"));
    let (mut history, rules) = scene.finish();
    let Answer::Read(read) = answer(&mut history, index) else { panic!("a read") };
    read.header = None;
    assert_fails(&history, &rules, |it| matches!(it, Violation::HeaderMissing { .. }));
}

#[test]
fn a_wrong_request_that_was_answered() {
    let mut scene = Scene::new();
    let index = scene.run(read("a"));
    let (mut history, rules) = scene.finish();
    let Request::Read(read) = &mut history.operations[index].request else { panic!("a read") };
    read.key = Bytes::new();
    assert_fails(&history, &rules, |it| {
        matches!(it, Violation::RefusalMissing { refusal: Refusal::EmptyKey, .. })
    });
}

#[test]
fn a_read_of_the_future_that_was_answered() {
    let mut scene = Scene::new();
    let index = scene.run(read("a"));
    let (mut history, rules) = scene.finish();
    let Request::Read(read) = &mut history.operations[index].request else { panic!("a read") };
    read.revision = 5;
    assert_fails(&history, &rules, |it| {
        matches!(it, Violation::RefusalMissing { refusal: Refusal::FutureRevision, .. })
    });
}

#[test]
fn refusals_without_a_reason() {
    let kept = |key: &'static str| {
        Request::Put(flotilla_proto::etcdserverpb::PutRequest {
            key: Bytes::from(key),
            ignore_value: true,
            ..Default::default()
        })
    };
    let cases = [
        (put("a", "2"), Refusal::EmptyKey),
        (put("a", "2"), Refusal::DuplicateKey),
        (kept("a"), Refusal::KeyNotFound),
        (read_at("a", 2), Refusal::FutureRevision),
        (read_at("a", 2), Refusal::Compacted),
        (compact(2), Refusal::FutureRevision),
        (compact(2), Refusal::Compacted),
        (put("a", "2"), Refusal::LeaseNotFound),
        (Request::LeaseGrant(LeaseGrantRequest { ttl: 10, id: 7 }), Refusal::LeaseExists),
    ];
    for (request, refusal) in cases {
        let mut scene = Scene::new();
        scene.run(put("a", "1"));
        let index = scene.lose(request);
        let (mut history, rules) = scene.finish();
        let operation = &mut history.operations[index];
        operation.returned = Some(operation.invoked + 5);
        operation.outcome = Outcome::Refused(refusal.received());
        assert_fails(
            &history,
            &rules,
            |it| matches!(it, Violation::RefusalUnjustified { operation, .. } if operation.operation == index),
        );
    }
}

#[test]
fn a_refusal_whose_reason_held_for_a_part_of_the_time() {
    let mut scene = Scene::new();
    let index = scene.run(read_at("a", 2));
    scene.run_all([put("a", "1"), put("a", "2")]);
    let (mut history, rules) = scene.finish();
    history.operations[index].returned = Some(1_000);
    assert_passes(&history, &rules);
    history.operations[index].invoked = 20;
    assert_fails(&history, &rules, |it| matches!(it, Violation::RefusalUnjustified { .. }));
}

#[test]
fn a_refusal_with_the_wrong_code() {
    let mut scene = Scene::new();
    scene.run(put("a", "1"));
    let index = scene.run(read_at("a", 9));
    let (mut history, rules) = scene.finish();
    let text = Refusal::FutureRevision.to_string();
    history.operations[index].outcome = Outcome::Refused(Refused { code: Code(2), text });
    assert_fails(&history, &rules, |it| {
        matches!(it, Violation::RefusalCodeDiffers { expected: 11, .. })
    });
}

#[test]
fn history_read_after_it_was_compacted() {
    let mut scene = Scene::new();
    scene.run_all([put("a", "1"), put("a", "2"), put("a", "3")]);
    let index = scene.run(read_at("a", 2));
    scene.run(compact(3));
    let (mut history, rules) = scene.finish();
    history.operations[index].returned = Some(1_000);
    assert_passes(&history, &rules);
    history.operations[index].invoked = 900;
    assert_fails(&history, &rules, |it| matches!(it, Violation::ReadBelowCompaction { .. }));
    // Reading at the compact revision stays possible.
    let Request::Read(read) = &mut history.operations[index].request else { panic!("a read") };
    read.revision = 3;
    let Answer::Read(read) = answer(&mut history, index) else { panic!("a read") };
    read.kvs[0] =
        KeyValue { value: Bytes::from("2"), mod_revision: 3, version: 2, ..read.kvs[0].clone() };
    assert_passes(&history, &rules);
}

#[test]
fn compactions_that_cannot_both_succeed() {
    let mut scene = Scene::new();
    scene.run_all([put("a", "1"), put("a", "2"), put("a", "3")]);
    scene.run(compact(2));
    let later = scene.run(compact(4));
    let (history, rules) = scene.finish();
    for revision in [1, 2] {
        let mut history = history.clone();
        let Request::Compact(compact) = &mut history.operations[later].request else {
            panic!("a compaction")
        };
        compact.revision = revision;
        assert_fails(&history, &rules, |it| matches!(it, Violation::CompactedAgain { .. }));
        // One of two concurrent ones of the same revision must be refused, too.
        history.operations[later].invoked = 0;
        let fails = matches!(judge(&history, &rules), Verdict::Fail(_));
        assert_eq!(fails, revision == 2);
    }
    let mut future = history;
    let Request::Compact(compact) = &mut future.operations[later].request else {
        panic!("a compaction")
    };
    compact.revision = 5;
    assert_fails(&future, &rules, |it| matches!(it, Violation::CompactedFuture { .. }));
}

#[test]
fn replicas_that_differ() {
    let mut scene = Scene::new();
    scene.run(put("a", "1"));
    let (mut history, rules) = scene.finish();
    let hash = |replica: &str, compact_revision, hash| ReplicaHash {
        replica: replica.to_owned(),
        revision: 2,
        compact_revision,
        hash,
    };
    history.hashes = vec![hash("node 1", -1, 5), hash("node 2", 2, 6), hash("node 3", -1, 5)];
    assert_passes(&history, &rules);
    history.hashes.push(hash("node 2", -1, 6));
    assert_fails(&history, &rules, |it| {
        matches!(it, Violation::ReplicasDiffer { revision: 2, compact_revision: -1, .. })
    });
}

#[test]
fn histories_that_prove_nothing() {
    let mut scene = Scene::new();
    let index = scene.run(put("a", "1"));
    let (history, rules) = scene.finish();
    let invalid = |history: &_, rules: &_| match judge(history, rules) {
        Verdict::Invalid(invalid) => invalid,
        verdict => panic!("{verdict}"),
    };

    let strict = Rules { operations_min: 2, ..rules.clone() };
    assert_eq!(
        invalid(&history, &strict),
        Invalid::TooFew { what: "answered operations", found: 1, wanted: 2 }
    );
    let strict = Rules { reads_min: 1, ..rules.clone() };
    assert!(matches!(invalid(&history, &strict), Invalid::TooFew { found: 0, .. }));
    let strict = Rules { revisions_min: 2, ..rules.clone() };
    assert!(matches!(invalid(&history, &strict), Invalid::TooFew { found: 1, .. }));
    let strict = Rules { watch_events_min: 1, ..rules.clone() };
    assert!(matches!(invalid(&history, &strict), Invalid::TooFew { found: 0, .. }));

    let mut open = history.clone();
    open.evidence = Default::default();
    assert_eq!(invalid(&open, &rules), Invalid::OpenEvidence);
    let mut short = history.clone();
    short.evidence.close(1);
    assert_eq!(invalid(&short, &rules), Invalid::EvidenceBeyondHead { head: 1, highest: 2 });
    let mut endless = history.clone();
    endless.operations[index].returned = None;
    assert_eq!(invalid(&endless, &rules), Invalid::NoReturn { operation: index });
    let mut backward = history.clone();
    backward.operations[index].invoked = 1_000;
    assert_eq!(invalid(&backward, &rules), Invalid::ReturnedBeforeInvoked { operation: index });
    let mut mixed = history;
    mixed.operations[index].request = read("a");
    assert_eq!(invalid(&mixed, &rules), Invalid::WrongAnswer { operation: index });
}

#[test]
fn a_short_history_with_a_violation_fails() {
    let mut scene = Scene::new();
    let index = scene.run(read("a"));
    scene.run(put("a", "1"));
    let (mut history, rules) = scene.finish();
    history.operations[index].invoked = 1_000;
    history.operations[index].returned = Some(1_000);
    let strict = Rules { operations_min: 100, ..rules };
    assert_fails(&history, &strict, |it| matches!(it, Violation::StaleRead { .. }));
}

#[test]
fn a_verdict_reads_as_lines() {
    let mut scene = Scene::new();
    let index = scene.run(read("a"));
    scene.run(put("a", "1"));
    let (mut history, rules) = scene.finish();
    history.operations[index].invoked = 1_000;
    history.operations[index].returned = Some(1_001);
    assert_eq!(
        judge(&history, &rules).to_string(),
        "FAIL: 1 violations\n  operation 0 (client 1 from 1000 to 1001: read a, answered at 1) \
         is stale: revision 2 was seen at 15 by operation 1 (client 1 from 10 to 15: put a=1, \
         answered at 2)"
    );
}
