//! Whether a membership change may be proposed: etcd's strict reconfiguration checks, and the
//! checks of ids, URLs and learners. Judged on the leader, against the members it has applied.

use std::collections::BTreeSet;

use crate::Error;
use crate::proto::NodeId;
use crate::spine::{Member, State};

/// Limits of membership changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Learners the cluster may have.
    pub learners_max: usize,
    /// Refuse changes that could cost the quorum.
    pub is_strict: bool,
}

/// Who the leader can talk to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Members connected without a break for `HEALTHY_FOR`, the leader itself included.
    pub connected: BTreeSet<NodeId>,
}

/// How long a member must have been connected to count, in milliseconds.
pub const HEALTHY_FOR_MS: u64 = 5_000;

/// Per cent of the leader's log that a learner must hold before it may vote.
const LEARNER_READY_PERCENT: u64 = 90;

fn quorum(voters_count: usize) -> usize {
    voters_count / 2 + 1
}

/// Members that vote in the spine. Others that are no learners either vote in their ranges only.
fn voters(state: &State) -> impl Iterator<Item = &Member> {
    let votes = |member: &&Member| !member.is_learner && state.has_vote(NodeId(member.id));
    state.members().values().filter(votes)
}

fn learners(state: &State) -> impl Iterator<Item = &Member> {
    state.members().values().filter(|member| member.is_learner)
}

/// A member is started once it has announced its name.
fn is_started(member: &Member) -> bool {
    !member.name.is_empty()
}

/// May this member be added?
///
/// # Errors
/// Too few started or connected members, a taken id or URL, too many learners.
pub fn check_add(
    state: &State,
    policy: Policy,
    reach: &Reach,
    added: &Member,
) -> Result<(), Error> {
    let voters_count = voters(state).count();
    if policy.is_strict {
        let started_count = voters(state).filter(|member| is_started(member)).count();
        let is_first_growth = started_count == 1 && voters_count == 1;
        if !added.is_learner && !is_first_growth && started_count < quorum(voters_count + 1) {
            return Err(Error::MemberNotEnoughStarted);
        }
        let connected_count =
            voters(state).filter(|member| reach.connected.contains(&NodeId(member.id))).count();
        if voters_count > 1 && connected_count < quorum(voters_count + 1) {
            return Err(Error::Unhealthy);
        }
    }
    if state.is_removed(NodeId(added.id)) {
        return Err(Error::MemberNotFound);
    }
    if state.members().contains_key(&added.id) {
        return Err(Error::MemberExist);
    }
    let is_taken = state
        .members()
        .values()
        .any(|member| member.peer_urls.iter().any(|url| added.peer_urls.contains(url)));
    if is_taken {
        return Err(Error::PeerUrlExist);
    }
    let learners_count = learners(state).count();
    if added.is_learner && learners_count + 1 > policy.learners_max {
        return Err(Error::TooManyLearners);
    }
    Ok(())
}

/// May this member be removed?
///
/// # Errors
/// It is unknown, or too few started or active voters would be left.
pub fn check_remove(
    state: &State,
    policy: Policy,
    reach: &Reach,
    removed: NodeId,
) -> Result<(), Error> {
    let member = state.members().get(&removed.0).ok_or(Error::MemberNotFound)?;
    if member.is_learner {
        return Ok(());
    }
    // Those who stay drop it from its ranges, which must not take its own vote: it stops.
    let votes = |node: NodeId| state.members().get(&node.0).is_some_and(|it| !it.is_learner);
    let is_needed = state.ranges().iter().any(|(_, range)| !range.can_do_without(removed, votes));
    if is_needed {
        return Err(Error::RangesNeedMember);
    }
    if !policy.is_strict || !state.has_vote(removed) {
        return Ok(());
    }
    let voters_count = voters(state).count();
    let started_left =
        voters(state).filter(|other| is_started(other) && other.id != removed.0).count();
    if started_left < quorum(voters_count - 1) {
        return Err(Error::MemberNotEnoughStarted);
    }
    let is_active = |id: u64| reach.connected.contains(&NodeId(id));
    // A member that is down may always go: it adds nothing to the quorum.
    if !is_active(removed.0) {
        return Ok(());
    }
    let active_count = voters(state).filter(|other| is_active(other.id)).count();
    if active_count - 1 < quorum(voters_count - 1) {
        return Err(Error::Unhealthy);
    }
    Ok(())
}

/// May this learner become a voter? `matched` is how far its log agrees with the leader's, `last`
/// the leader's own last index.
///
/// # Errors
/// It is unknown, votes already, lags behind, or too few voters would be started.
pub fn check_promote(
    state: &State,
    policy: Policy,
    promoted: NodeId,
    matched: u64,
    last: u64,
) -> Result<(), Error> {
    let member = state.members().get(&promoted.0).ok_or(Error::MemberNotFound)?;
    if !member.is_learner {
        return Err(Error::MemberNotLearner);
    }
    if !is_ready(matched, last) {
        return Err(Error::LearnerNotReady);
    }
    if policy.is_strict {
        let voters_count = voters(state).count();
        let started_count = voters(state).filter(|other| is_started(other)).count()
            + usize::from(is_started(member));
        if started_count < quorum(voters_count + 1) {
            return Err(Error::MemberNotEnoughStarted);
        }
    }
    Ok(())
}

/// May this member get a vote in the spine? `matched` and `last` are as in `check_promote`.
///
/// # Errors
/// It is unknown, a learner of the cluster, or lags behind.
pub fn check_vote(state: &State, node: NodeId, matched: u64, last: u64) -> Result<(), Error> {
    let member = state.members().get(&node.0).ok_or(Error::MemberNotFound)?;
    if member.is_learner {
        return Err(Error::ReplicaNotPossible);
    }
    if is_ready(matched, last) { Ok(()) } else { Err(Error::LearnerNotReady) }
}

/// May this member lose its vote in the spine?
///
/// # Errors
/// It is unknown, or too few connected voters would be left.
pub fn check_no_vote(state: &State, reach: &Reach, node: NodeId) -> Result<(), Error> {
    if !state.members().contains_key(&node.0) {
        return Err(Error::MemberNotFound);
    }
    let left = || voters(state).filter(|other| other.id != node.0);
    let active_count = left().filter(|it| reach.connected.contains(&NodeId(it.id))).count();
    let is_enough = active_count > 0 && active_count >= quorum(left().count());
    if is_enough { Ok(()) } else { Err(Error::Unhealthy) }
}

fn is_ready(matched: u64, last: u64) -> bool {
    u128::from(matched) * 100 >= u128::from(last) * u128::from(LEARNER_READY_PERCENT)
}

/// May this member's peer URLs be changed to these?
///
/// # Errors
/// It is unknown, or another member has one of them.
pub fn check_update(state: &State, updated: NodeId, peer_urls: &[String]) -> Result<(), Error> {
    if !state.members().contains_key(&updated.0) {
        return Err(Error::MemberNotFound);
    }
    let is_taken = state.members().values().any(|other| {
        other.id != updated.0 && other.peer_urls.iter().any(|url| peer_urls.contains(url))
    });
    if is_taken { Err(Error::PeerUrlExist) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy { learners_max: 1, is_strict: true };

    fn member(id: u64, is_learner: bool) -> Member {
        Member {
            id,
            name: format!("m{id}"),
            peer_urls: vec![format!("http://127.0.0.1:{id}")],
            client_urls: Vec::new(),
            is_learner,
            is_draining: false,
        }
    }

    fn cluster(voters: u64, learners: u64) -> State {
        let members = (1..=voters + learners).map(|id| member(id, id > voters)).collect();
        State::bootstrap(1, members)
    }

    fn reach(ids: &[u64]) -> Reach {
        Reach { connected: ids.iter().copied().map(NodeId).collect() }
    }

    #[test]
    fn a_voter_needs_a_connected_quorum_of_the_new_size() {
        let state = cluster(3, 0);
        let added = member(9, false);
        assert_eq!(check_add(&state, POLICY, &reach(&[1, 2, 3]), &added), Ok(()));
        assert_eq!(check_add(&state, POLICY, &reach(&[1, 2]), &added), Err(Error::Unhealthy));
        let lax = Policy { is_strict: false, ..POLICY };
        assert_eq!(check_add(&state, lax, &reach(&[1, 2]), &added), Ok(()));
    }

    #[test]
    fn an_unstarted_voter_blocks_the_next_one_but_one_may_grow_to_two() {
        let mut members: Vec<Member> = (1..=2).map(|id| member(id, false)).collect();
        let one = State::bootstrap(1, members[..1].to_vec());
        assert_eq!(check_add(&one, POLICY, &reach(&[1]), &member(9, false)), Ok(()));
        members[1].name.clear();
        let two = State::bootstrap(1, members);
        let answer = check_add(&two, POLICY, &reach(&[1, 2]), &member(9, false));
        assert_eq!(answer, Err(Error::MemberNotEnoughStarted));
    }

    #[test]
    fn ids_urls_and_learners_are_checked() {
        let state = cluster(3, 1);
        let all = reach(&[1, 2, 3]);
        assert_eq!(check_add(&state, POLICY, &all, &member(2, false)), Err(Error::MemberExist));
        let twin = Member { id: 77, ..member(2, false) };
        assert_eq!(check_add(&state, POLICY, &all, &twin), Err(Error::PeerUrlExist));
        assert_eq!(check_add(&state, POLICY, &all, &member(9, true)), Err(Error::TooManyLearners));
    }

    #[test]
    fn removal_never_costs_the_quorum_of_active_members() {
        let one = cluster(1, 0);
        let answer = check_remove(&one, POLICY, &reach(&[1]), NodeId(1));
        assert_eq!(answer, Err(Error::MemberNotEnoughStarted));
        let three = cluster(3, 0);
        assert_eq!(check_remove(&three, POLICY, &reach(&[1, 2, 3]), NodeId(3)), Ok(()));
        assert_eq!(check_remove(&three, POLICY, &reach(&[1, 2]), NodeId(3)), Ok(()), "it is down");
        let answer = check_remove(&three, POLICY, &reach(&[1, 2]), NodeId(2));
        assert_eq!(answer, Err(Error::Unhealthy), "one of two active");
        let answer = check_remove(&three, POLICY, &reach(&[1]), NodeId(9));
        assert_eq!(answer, Err(Error::MemberNotFound));
        let learner = cluster(1, 1);
        assert_eq!(check_remove(&learner, POLICY, &reach(&[1]), NodeId(2)), Ok(()));
    }

    #[test]
    fn a_learner_that_is_behind_is_not_promoted() {
        let state = cluster(3, 1);
        let promote = |matched| check_promote(&state, POLICY, NodeId(4), matched, 1000);
        assert_eq!(promote(899), Err(Error::LearnerNotReady));
        assert_eq!(promote(900), Ok(()));
        let answer = check_promote(&state, POLICY, NodeId(1), 1000, 1000);
        assert_eq!(answer, Err(Error::MemberNotLearner));
    }
}
