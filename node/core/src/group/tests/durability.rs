//! What waits for the disk, and what does not (M1, M2, M3).

use super::*;
use crate::proto::internal::LogEntry;

#[test]
fn the_only_voter_commits_what_is_on_its_disk() {
    let mut group = start(1, Recovered::first(voters([1])));
    let out = step(&mut group, Input::Campaign);
    assert!(group.is_leader() && !group.is_established());
    assert_eq!(committed(&out), [0_u64; 0]);
    let token = appends(&out).last().unwrap().token;
    assert_eq!(committed(&step(&mut group, Input::Persisted { token })), [2]);
    assert!(group.is_established());

    let out = step(&mut group, Input::Propose(vec![command("a"), command("b")]));
    let first = Position { index: 3, term: 2 };
    assert!(out.contains(&Effect::Proposed { first, count: 2 }));
    assert_eq!(committed(&out), [0_u64; 0]);
    let first = appends(&out).last().unwrap().token;
    let out = step(&mut group, Input::Propose(vec![command("c")]));
    let second = appends(&out).last().unwrap().token;
    assert!(first < second);
    assert_eq!(committed(&step(&mut group, Input::Persisted { token: first })), [3, 4]);
    // Reported again, or late: nothing new.
    assert_eq!(step(&mut group, Input::Persisted { token: first }), []);
    assert_eq!(committed(&step(&mut group, Input::Persisted { token: second })), [5]);
}

#[test]
#[should_panic(expected = "unknown token")]
fn a_token_that_was_never_given_is_a_bug() {
    let mut group = start(1, Recovered::first(voters([1])));
    step(&mut group, Input::Persisted { token: 7 });
}

/// raft-rs lets a leader's messages out at once, on the ground that its vote was flushed before
/// the election. The only voter needs no election: it could lead the same term twice.
#[test]
fn the_only_voter_says_nothing_before_its_term_is_on_disk() {
    let conf = ConfState { learners: vec![2], ..voters([1]) };
    let mut group = start(1, Recovered::first(conf));
    let out = step(&mut group, Input::Campaign);
    assert!(group.is_leader());
    assert_eq!(sent(&out), []);
    let tokens: Vec<_> = appends(&out).iter().map(|append| append.token).collect();
    let more = step(&mut group, Input::Propose(vec![command("a")]));
    assert_eq!(sent(&more), []);
    for token in tokens {
        let is_term = token > 0;
        let out = step(&mut group, Input::Persisted { token });
        assert_eq!(sent(&out).contains(&(Kind::Append, 2)), is_term);
    }
}

#[test]
fn a_leader_sends_while_it_flushes() {
    let mut network = Network::new(1, 3, 3);
    network.elect(1);
    let out = network.propose(1, &["a"]);
    assert_eq!(sent(&out).iter().filter(|(kind, _)| *kind == Kind::Append).count(), 2);
    assert_eq!(appends(&out).len(), 1);
    // Two followers are a majority: committed before the leader's own flush ends. The leader
    // itself applies only what its own log is sure of.
    let index = network.group(1).last_index();
    for id in [2, 3] {
        network.deliver(0);
        network.persist(id, usize::MAX);
    }
    network.deliver(0);
    network.deliver(0);
    assert_eq!(network.group(1).commit(), index);
    assert_eq!(network.unapplied(1), 0);
    network.persist(1, usize::MAX);
    assert_eq!(network.unapplied(1), 1);
}

#[test]
fn an_answer_to_entries_waits_for_the_flush() {
    let mut group = start(2, Recovered::first(voters([1, 2, 3])));
    let mut append = message(Kind::Append, 1, 2, 2);
    (append.index, append.log_term, append.commit) = (1, 1, 1);
    append.entries = vec![LogEntry { index: 2, term: 2, ..LogEntry::default() }];
    let out = step(&mut group, Input::Message(append.clone()));
    assert_eq!(sent(&out), []);
    let first = appends(&out).last().unwrap().clone();
    assert_eq!(first.hard_state.term, 2);
    // A second append rides on a second flush; a heartbeat changes nothing on disk, but the answer
    // to it speaks for a term that is not there yet.
    append.index = 2;
    append.log_term = 2;
    append.entries[0].index = 3;
    let second = appends(&step(&mut group, Input::Message(append)));
    let out = step(&mut group, Input::Message(message(Kind::Heartbeat, 1, 2, 2)));
    assert_eq!((sent(&out), appends(&out)), (vec![], vec![]));
    let out = step(&mut group, Input::Persisted { token: first.token });
    assert_eq!(sent(&out), [(Kind::AppendAnswer, 1)]);
    assert_eq!(messages(&out)[0].index, 2);
    // Now the term is on disk: such an answer need not wait for the second flush.
    let out = step(&mut group, Input::Message(message(Kind::Heartbeat, 1, 2, 2)));
    assert_eq!(sent(&out), [(Kind::HeartbeatAnswer, 1)]);
    let out = step(&mut group, Input::Persisted { token: second[0].token });
    assert_eq!(sent(&out), [(Kind::AppendAnswer, 1), (Kind::HeartbeatAnswer, 1)]);
}

#[test]
fn votes_wait_for_the_flush() {
    let mut group = start(2, Recovered::first(voters([1, 2, 3])));
    let mut vote = message(Kind::Vote, 3, 2, 4);
    (vote.index, vote.log_term) = (9, 3);
    let out = step(&mut group, Input::Message(vote));
    assert_eq!(sent(&out), []);
    let append = appends(&out).last().unwrap().clone();
    assert_eq!((append.hard_state.term, append.hard_state.vote), (4, 3));
    let out = step(&mut group, Input::Persisted { token: append.token });
    assert_eq!(sent(&out), [(Kind::VoteAnswer, 3)]);
    assert!(!messages(&out)[0].reject);
}

#[test]
fn a_candidate_asks_for_votes_once_its_own_is_on_disk() {
    let mut group = start(2, Recovered::first(voters([1, 2, 3])));
    let out = step(&mut group, Input::Campaign);
    step(&mut group, Input::Persisted { token: 0 });
    assert_eq!(appends(&out).len(), 1, "before a vote nothing changes but the log's repair");
    let mut yes = message(Kind::PreVoteAnswer, 3, 2, 2);
    let out = step(&mut group, Input::Message(yes.clone()));
    assert_eq!(sent(&out), []);
    let append = appends(&out)[0].clone();
    assert_eq!((append.hard_state.term, append.hard_state.vote), (2, 2));
    let out = step(&mut group, Input::Persisted { token: append.token });
    assert_eq!(sent(&out), [(Kind::Vote, 1), (Kind::Vote, 3)]);
    yes.kind = Kind::VoteAnswer as u32;
    step(&mut group, Input::Message(yes));
    assert!(group.is_leader());
}

/// An answer to an earlier campaign must not elect a node whose log is still on its way to disk.
#[test]
fn a_late_vote_does_not_elect_a_node_with_unflushed_entries() {
    let mut group = start(2, Recovered::first(voters([1, 2, 3])));
    step(&mut group, Input::Campaign);
    step(&mut group, Input::Persisted { token: 0 });
    let mut append = message(Kind::Append, 1, 2, 1);
    (append.index, append.log_term) = (1, 1);
    append.entries = vec![LogEntry { index: 2, term: 1, ..LogEntry::default() }];
    let token = appends(&step(&mut group, Input::Message(append)))[0].token;
    assert_eq!(refusals(&step(&mut group, Input::Campaign)), [Refusal::CannotCampaign]);
    for _ in 0..50 {
        step(&mut group, Input::Tick);
    }
    assert_eq!(group.role().part, Part::Follower, "it waits for its disk");
    let yes = message(Kind::PreVoteAnswer, 3, 2, 2);
    assert_eq!(ignored(&step(&mut group, Input::Message(yes))), [Ignored::Stale]);
    step(&mut group, Input::Persisted { token });
    for _ in 0..12 {
        step(&mut group, Input::Tick);
    }
    assert_eq!(group.role().part, Part::Candidate);
}

/// A commit alone is not written. It is written with the next entries, so that a node whose log
/// holds one membership change knows on restart that the change before it was committed.
#[test]
fn the_commit_index_reaches_the_disk_with_the_entries() {
    let mut network = Network::new(1, 3, 3);
    network.elect(1);
    network.propose(1, &["a"]);
    network.settle();
    let commit = network.group(1).commit();
    assert!(network.nodes[&1].disk.hard_state.commit < commit);
    network.propose(1, &["b"]);
    network.settle();
    for id in 1..=3 {
        assert_eq!(network.nodes[&id].disk.hard_state.commit, commit);
    }
}

#[test]
fn an_idle_group_asks_for_nothing() {
    let mut network = Network::new(1, 1, 1);
    network.elect(1);
    network.settle();
    for _ in 0..100 {
        assert_eq!(network.input(1, Input::Tick), []);
    }
}
