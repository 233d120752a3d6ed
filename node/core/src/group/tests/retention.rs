//! How much of the log stays when the state before it is durable.

use super::*;
use crate::group::retention::{Flushed, Retention};

/// How far the first member may cut its log once everything that it has applied is durable.
fn cut(network: &Network, retention: &Retention) -> u64 {
    let group = network.group(1);
    let applied = group.applied().index;
    Flushed::new(0).advance(applied, applied, group, retention)
}

#[test]
fn the_log_is_kept_for_who_is_there_within_its_bytes_and_for_others_within_their_entries() {
    let few = Retention { catch_up_entries: 2, ..Retention::default() };
    let mut network = Network::new(1, 3, 3);
    network.elect(1);
    network.settle();
    let followed = network.group(1).applied().index;
    network.isolate(3);
    for _ in 0..10 {
        network.propose(1, &["entry"]);
        network.settle();
    }
    let applied = network.group(1).applied().index;
    assert!(applied >= followed + 10);
    // The leader heard of it a moment ago: it may come back and go on from there.
    let kept = cut(&network, &few);
    assert!((followed - 1..=followed).contains(&kept), "{kept} is about {followed}");
    let no_room = Retention { catch_up_bytes: 10, ..few };
    assert_eq!(cut(&network, &no_room), applied, "there is no room");
    // It is gone for good, as far as the leader knows.
    for _ in 0..40 {
        network.tick(1);
        network.tick(2);
        network.settle();
    }
    assert_eq!(network.leader(), Some(1));
    let applied = network.group(1).applied().index;
    assert_eq!(cut(&network, &few), applied - 2, "what is kept for those that are not there");
    // Who does not lead keeps what everybody keeps.
    let group = network.group(2);
    let applied = group.applied().index;
    assert_eq!(Flushed::new(0).advance(applied, applied, group, &few), applied - 2);
}
