//! A group's membership as it is stored and sent: conversion, and every rule whose violation
//! raft-rs would answer with a panic.

use raft::eraftpb;

use crate::NodeId;
use crate::proto::internal;

/// Members that one group may have, in all parts together.
pub const MEMBERS_MAX: usize = 4096;

/// Checks that a membership can have come about by changes of membership.
///
/// # Errors
/// What is wrong with it.
pub fn check(conf: &internal::ConfState) -> Result<(), &'static str> {
    let internal::ConfState { voters, learners, voters_outgoing, learners_next, auto_leave } = conf;
    let all = [voters, learners, voters_outgoing, learners_next];
    if all.iter().map(|ids| ids.len()).sum::<usize>() > MEMBERS_MAX {
        return Err("too many members");
    }
    if all.iter().any(|ids| ids.contains(&0)) {
        return Err("a member has no id");
    }
    if all.iter().any(|ids| has_repeats(ids)) {
        return Err("a member is listed twice");
    }
    if voters.is_empty() {
        return Err("there are no voters");
    }
    if learners.iter().any(|id| voters.contains(id) || voters_outgoing.contains(id)) {
        return Err("a learner is a voter as well");
    }
    if learners_next.iter().any(|id| !voters_outgoing.contains(id) || voters.contains(id)) {
        return Err("a learner to be is not an outgoing voter");
    }
    if voters_outgoing.is_empty() && *auto_leave {
        return Err("a membership that is not joint is to be left");
    }
    Ok(())
}

/// Whether the node takes part: only then does it hold a place in the log's history.
pub fn has_member(conf: &internal::ConfState, node: NodeId) -> bool {
    [&conf.voters, &conf.learners, &conf.voters_outgoing].iter().any(|ids| ids.contains(&node.0))
}

/// As raft-rs wants it.
pub(super) fn to_raft(conf: &internal::ConfState) -> eraftpb::ConfState {
    let mut raft_conf = eraftpb::ConfState::default();
    raft_conf.set_voters(conf.voters.clone());
    raft_conf.set_learners(conf.learners.clone());
    raft_conf.set_voters_outgoing(conf.voters_outgoing.clone());
    raft_conf.set_learners_next(conf.learners_next.clone());
    raft_conf.auto_leave = conf.auto_leave;
    raft_conf
}

/// As it is stored and sent: sorted, so that all nodes store the same bytes.
pub(super) fn from_raft(raft_conf: &eraftpb::ConfState) -> internal::ConfState {
    internal::ConfState {
        voters: sorted(raft_conf.get_voters()),
        learners: sorted(raft_conf.get_learners()),
        voters_outgoing: sorted(raft_conf.get_voters_outgoing()),
        learners_next: sorted(raft_conf.get_learners_next()),
        auto_leave: raft_conf.auto_leave,
    }
}

fn sorted(ids: &[u64]) -> Vec<u64> {
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    ids
}

fn has_repeats(ids: &[u64]) -> bool {
    sorted(ids).windows(2).any(|pair| pair[0] == pair[1])
}
