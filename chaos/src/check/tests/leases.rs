//! One small history for each promise about leases.

use super::scene::{
    SECOND, Scene, answer, delete, edit_evidence, grant, keep_alive, put, put_leased, read_all,
    revoke, set_revision, time_to_live,
};
use super::{assert_fails, assert_passes};
use crate::check::Violation;
use crate::history::{Answer, Outcome, Request};
use crate::model::Refusal;

const LEASE: i64 = 7;

/// Grants the lease and attaches two keys.
fn leased() -> Scene {
    let mut scene = Scene::new();
    scene.run_all([grant(LEASE, 10), put_leased("a", "1", LEASE), put_leased("b", "1", LEASE)]);
    scene
}

#[test]
fn a_lease_that_ends_on_time_early_and_never() {
    let mut on_time = leased();
    on_time.wait_seconds(10);
    on_time.model.expire(LEASE);
    on_time.run(read_all());
    on_time.finish();

    let mut early = leased();
    early.wait_seconds(12);
    early.model.expire(LEASE);
    let index = early.run(read_all());
    let (mut history, rules) = early.finish();
    history.operations[index].returned = Some(10 * SECOND - 1);
    history.operations[index].invoked = 10 * SECOND - 2;
    assert_fails(&history, &rules, |it| {
        matches!(
            it,
            Violation::LeaseExpiredEarly { lease: LEASE, revision: 4, deadline: 1_000, .. }
        )
    });

    let mut never = leased();
    never.wait_seconds(5);
    let index = never.run(read_all());
    let (mut history, rules) = never.finish();
    history.operations[index].invoked = 20 * SECOND;
    history.operations[index].returned = Some(20 * SECOND);
    assert_fails(&history, &rules, |it| {
        matches!(it, Violation::LeaseOutlived { lease: LEASE, .. })
    });
}

#[test]
fn a_renewal_moves_the_deadline() {
    let mut scene = leased();
    scene.wait_seconds(8);
    let renewal = scene.run(keep_alive(LEASE));
    scene.wait_seconds(11);
    scene.model.expire(LEASE);
    scene.run(read_all());
    let (mut history, rules) = scene.finish();
    history.operations[renewal + 1].invoked = 15 * SECOND;
    history.operations[renewal + 1].returned = Some(15 * SECOND);
    assert_fails(&history, &rules, |it| matches!(it, Violation::LeaseExpiredEarly { .. }));
    // Without the acknowledgement nobody knows that it was renewed.
    history.operations[renewal].outcome = Outcome::Unknown;
    history.operations[renewal].returned = None;
    assert_passes(&history, &rules);
}

#[test]
fn an_early_end_that_an_unknown_revocation_explains() {
    for request in [revoke(LEASE), super::scene::span_delete("a", "z")] {
        let mut scene = leased();
        scene.run_unseen(request);
        scene.run(read_all());
        scene.finish();
    }
}

#[test]
fn an_end_in_parts() {
    let mut scene = leased();
    scene.wait_seconds(12);
    scene.model.expire(LEASE);
    let (mut history, rules) = scene.finish();
    edit_evidence(&mut history, |revision, mut events| {
        if revision == 4 {
            events.pop();
        }
        Some(events)
    });
    assert_fails(&history, &rules, |it| {
        matches!(it, Violation::LeaseEndedInParts { lease: LEASE, revision: 4, .. })
    });
}

#[test]
fn a_revocation_that_leaves_keys() {
    let mut scene = leased();
    let index = scene.run(revoke(LEASE));
    let (mut history, rules) = scene.finish();
    history.evidence.forget(4);
    history.evidence.close(3);
    set_revision(answer(&mut history, index), 3);
    assert_fails(
        &history,
        &rules,
        |it| matches!(it, Violation::RevokeLeftKeys { keys, .. } if keys.len() == 2),
    );
}

#[test]
fn a_revocation_that_deletes_too_little() {
    let mut scene = leased();
    scene.run(revoke(LEASE));
    let (mut history, rules) = scene.finish();
    edit_evidence(&mut history, |revision, mut events| {
        if revision == 4 {
            events.pop();
        }
        Some(events)
    });
    assert_fails(&history, &rules, |it| matches!(it, Violation::LeaseEndedInParts { .. }));
}

#[test]
fn a_revocation_after_an_unknown_delete_of_its_keys() {
    let mut scene = leased();
    scene.run(delete("b"));
    scene.run_unseen(delete("a"));
    scene.run(read_all());
    scene.run(revoke(LEASE));
    scene.finish();
}

#[test]
fn a_key_on_a_lease_that_is_gone() {
    let mut scene = leased();
    scene.run(revoke(LEASE));
    let index = scene.run(put("c", "1"));
    let (mut history, rules) = scene.finish();
    let Request::Put(put) = &mut history.operations[index].request else { panic!("a put") };
    put.lease = LEASE;
    edit_evidence(&mut history, |revision, mut events| {
        if let (5, Some(crate::history::Event::Put(pair))) = (revision, events.first_mut()) {
            pair.lease = LEASE;
        }
        Some(events)
    });
    assert_fails(&history, &rules, |it| {
        matches!(it, Violation::AttachedToDeadLease { revision: 5, lease: LEASE, .. })
    });
    // A second grant of unknown outcome may have brought it back.
    let mut again = history.operations[0].clone();
    again.invoked = history.operations[index - 1].invoked + 6;
    again.returned = None;
    again.outcome = Outcome::Unknown;
    history.operations.push(again);
    assert_passes(&history, &rules);
}

#[test]
fn a_key_on_a_lease_that_never_was() {
    let mut scene = leased();
    scene.run(read_all());
    let (mut history, rules) = scene.finish();
    history.operations.remove(0);
    assert_fails(&history, &rules, |it| {
        matches!(it, Violation::AttachedToDeadLease { revision: 2, .. })
    });
}

#[test]
fn a_grant_of_a_lease_that_is_there() {
    let mut scene = Scene::new();
    scene.run(grant(LEASE, 10));
    let index = scene.run(grant(LEASE + 1, 10));
    let (mut history, rules) = scene.finish();
    let Request::LeaseGrant(request) = &mut history.operations[index].request else {
        panic!("a grant")
    };
    request.id = LEASE;
    let Answer::LeaseGrant(granted) = answer(&mut history, index) else { panic!("a grant") };
    granted.id = LEASE;
    assert_fails(
        &history,
        &rules,
        |it| matches!(it, Violation::LeaseGrantedTwice { earlier, .. } if earlier.operation == 0),
    );
    // Eleven seconds later the first may be gone.
    history.operations[index].invoked = 11 * SECOND;
    history.operations[index].returned = Some(11 * SECOND);
    assert_passes(&history, &rules);
}

#[test]
fn a_grant_with_another_ttl_or_id() {
    let mut scene = Scene::new();
    let index = scene.run(grant(LEASE, 1));
    let (history, rules) = scene.finish();
    let bends: [fn(&mut flotilla_proto::etcdserverpb::LeaseGrantResponse); 3] =
        [|it| it.ttl = 1, |it| it.id = 8, |it| it.error = "no".to_owned()];
    for bend in bends {
        let mut history = history.clone();
        let Answer::LeaseGrant(granted) = answer(&mut history, index) else { panic!("a grant") };
        bend(granted);
        assert_fails(&history, &rules, |it| matches!(it, Violation::AnswerDiffers { .. }));
    }
}

#[test]
fn a_renewal_of_a_lease_that_was_seen_to_end() {
    let mut scene = leased();
    let before = scene.run(keep_alive(LEASE));
    scene.run(revoke(LEASE));
    let after = scene.run(keep_alive(LEASE));
    let (mut history, rules) = scene.finish();
    let positive = history.operations[before].outcome.clone();
    history.operations[after].outcome = positive;
    assert_fails(
        &history,
        &rules,
        |it| matches!(it, Violation::LeaseNotGone { operation } if operation.operation == after),
    );
    // Asked before the revocation was acknowledged, it may have come first.
    history.operations[after].invoked = history.operations[after - 1].invoked;
    assert_passes(&history, &rules);
}

#[test]
fn a_lease_that_is_there_and_not_found() {
    let mut scene = leased();
    let renewal = scene.run(keep_alive(LEASE));
    let write = scene.lose(put_leased("c", "1", LEASE));
    let (history, rules) = scene.finish();

    let mut lost = history.clone();
    let Answer::LeaseKeepAlive(renewed) = answer(&mut lost, renewal) else { panic!("a renewal") };
    renewed.ttl = 0;
    assert_fails(&lost, &rules, |it| matches!(it, Violation::LeaseLost { .. }));

    let mut refused = history;
    refused.operations[write].returned = Some(refused.operations[write].invoked + 1);
    refused.operations[write].outcome = Outcome::Refused(Refusal::LeaseNotFound.received());
    assert_fails(&refused, &rules, |it| matches!(it, Violation::RefusalUnjustified { .. }));
    // After its time it may be gone, and with an unknown revocation at any time.
    let mut late = refused.clone();
    late.operations[write].invoked = 11 * SECOND;
    late.operations[write].returned = Some(11 * SECOND);
    assert_passes(&late, &rules);
    let mut revoked = refused.clone();
    let mut revocation = revoked.operations[write].clone();
    revocation.request = revoke(LEASE);
    revocation.invoked = 0;
    revocation.returned = None;
    revocation.outcome = Outcome::Unknown;
    revoked.operations.push(revocation);
    assert_passes(&revoked, &rules);
}

#[test]
fn a_second_revocation_that_succeeds() {
    let mut scene = leased();
    let first = scene.run(revoke(LEASE));
    let second = scene.run(revoke(LEASE));
    let (mut history, rules) = scene.finish();
    history.operations[second].outcome = history.operations[first].outcome.clone();
    assert_fails(
        &history,
        &rules,
        |it| matches!(it, Violation::LeaseNotGone { operation } if operation.operation == second),
    );
}

#[test]
fn a_renewal_with_another_ttl() {
    let mut scene = leased();
    let index = scene.run(keep_alive(LEASE));
    let (mut history, rules) = scene.finish();
    let Answer::LeaseKeepAlive(renewed) = answer(&mut history, index) else { panic!("a renewal") };
    renewed.ttl = 11;
    assert_fails(
        &history,
        &rules,
        |it| matches!(it, Violation::AnswerDiffers { difference, .. } if difference.field == "TTL"),
    );
}

#[test]
fn a_remaining_time_that_grows() {
    let mut scene = leased();
    scene.run(read_all());
    let first = scene.run(time_to_live(LEASE));
    let second = scene.run(time_to_live(LEASE));
    let (mut history, rules) = scene.finish();
    for operation in &mut history.operations {
        if let Outcome::Answered(answer) = &mut operation.outcome {
            set_term(answer, 3);
        }
    }
    let mut set_ttl = |index, ttl| {
        let Answer::LeaseTimeToLive(it) = answer(&mut history, index) else { panic!("a ttl") };
        it.ttl = ttl;
    };
    set_ttl(first, 5);
    set_ttl(second, 6);
    assert_fails(&history, &rules, |it| matches!(it, Violation::TtlGrew { .. }));
    // A new leader gives every lease its full time.
    let mut elected = history.clone();
    set_term(answer(&mut elected, second), 4);
    assert_passes(&elected, &rules);
    // So does a renewal, even one nobody heard of again.
    let mut renewed = history.clone();
    let mut renewal = renewed.operations[first].clone();
    renewal.request = keep_alive(LEASE);
    renewal.returned = None;
    renewal.outcome = Outcome::Unknown;
    renewed.operations.push(renewal);
    assert_passes(&renewed, &rules);
}

/// The new leader answers before it has told the node, which fills in the header, of its term.
#[test]
fn a_remaining_time_may_grow_with_a_leader_whose_term_shows_later() {
    let mut scene = leased();
    scene.run(read_all());
    let first = scene.run(time_to_live(LEASE));
    let second = scene.run(time_to_live(LEASE));
    let last = scene.run(read_all());
    let (mut history, rules) = scene.finish();
    for (index, operation) in history.operations.iter_mut().enumerate() {
        if let Outcome::Answered(answer) = &mut operation.outcome {
            set_term(answer, if index == last { 4 } else { 3 });
        }
    }
    for (index, ttl) in [(first, 5), (second, 6)] {
        let Answer::LeaseTimeToLive(it) = answer(&mut history, index) else { panic!("a ttl") };
        it.ttl = ttl;
    }
    assert_passes(&history, &rules);
}

fn set_term(answer: &mut Answer, raft_term: u64) {
    answer.header_mut().as_mut().expect("a scene sets every header").raft_term = raft_term;
}

#[test]
fn keys_a_lease_never_had_together() {
    let mut scene = leased();
    scene.run(delete("a"));
    let index = scene.run(time_to_live(LEASE));
    let (history, rules) = scene.finish();
    for (keys, is_right) in [
        (vec!["b"], true),
        (vec!["b", "a"], true),
        (vec!["a"], true),
        (vec![], true),
        (vec!["a", "c"], false),
        (vec!["b", "b"], false),
    ] {
        let mut history = history.clone();
        let Answer::LeaseTimeToLive(it) = answer(&mut history, index) else { panic!("a ttl") };
        it.keys = keys.into_iter().map(bytes::Bytes::from).collect();
        if is_right {
            assert_passes(&history, &rules);
        } else {
            assert_fails(&history, &rules, |it| matches!(it, Violation::LeaseKeysDiffer { .. }));
        }
    }
}

#[test]
fn a_granted_ttl_that_was_not_granted() {
    let mut scene = leased();
    let index = scene.run(time_to_live(LEASE));
    let none = scene.run(time_to_live(LEASE + 1));
    let (history, rules) = scene.finish();
    let mut other = history.clone();
    let Answer::LeaseTimeToLive(it) = answer(&mut other, index) else { panic!("a ttl") };
    it.granted_ttl = 12;
    assert_fails(
        &other,
        &rules,
        |it| matches!(it, Violation::AnswerDiffers { difference, .. } if difference.field == "grantedTTL"),
    );
    let mut zero = history;
    let Answer::LeaseTimeToLive(it) = answer(&mut zero, none) else { panic!("a ttl") };
    it.ttl = 0;
    assert_fails(
        &zero,
        &rules,
        |it| matches!(it, Violation::AnswerDiffers { difference, .. } if difference.field == "TTL"),
    );
}

#[test]
fn a_list_with_a_lease_that_never_was() {
    let mut scene = leased();
    let index = scene.run(Request::LeaseLeases(Default::default()));
    let (mut history, rules) = scene.finish();
    let Answer::LeaseLeases(list) = answer(&mut history, index) else { panic!("a list") };
    list.leases[0].id = 99;
    assert_fails(&history, &rules, |it| matches!(it, Violation::LeaseNotGone { .. }));
}
