//! Changes of the members, and of who leads them: one at a time, checked before they are proposed.

use std::collections::BTreeSet;

use prost::Message;

use crate::command::{Answer, Command};
use crate::group::{self, ChangeStep, Refusal};
use crate::membership::check::{self, HEALTHY_FOR_MS, Reach};
use crate::proto::etcdserverpb as pb;
use crate::proto::internal::{self, MemberChange, member_change::Kind, record::Body};
use crate::spine::apply::{Content, Requester};
use crate::spine::decisions::DECISION_BYTES_MAX;
use crate::spine::replica::{Effect, Parcel, Proposed, Replica};
use crate::spine::state::Member;
use crate::time::{Length, Time};
use crate::view::{View, ViewError};
use crate::{Error, GroupId, NodeId, range};

/// A membership change that was proposed and is not applied yet.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    to: Requester,
}

/// A leadership on its way to another node.
#[derive(Clone, Debug)]
pub(super) struct Transfer {
    to: Option<Requester>,
    target: NodeId,
    since: Time,
}

impl Replica {
    pub(super) fn begin_add(
        &mut self,
        to: Requester,
        member: Member,
        view: &dyn View,
    ) -> Result<(), ViewError> {
        if let Err(error) =
            check::check_add(&self.state, self.config.policy, &self.reach(), &member)
        {
            self.reply(to, Err(error));
            return Ok(());
        }
        let id = NodeId(member.id);
        let step =
            if member.is_learner { ChangeStep::AddLearner(id) } else { ChangeStep::AddVoter(id) };
        self.propose_change(to, Kind::Add, step, member, view)
    }

    pub(super) fn begin_remove(
        &mut self,
        to: Requester,
        id: NodeId,
        view: &dyn View,
    ) -> Result<(), ViewError> {
        let is_of_replicas = |proposed: &Proposed| {
            matches!(proposed.content, Some(Content::Done(Answer::Replicas(_))))
        };
        if self.proposed.values().any(is_of_replicas) {
            let request = pb::MemberRemoveRequest { id: id.0 };
            self.parked.push_back((to, Command::MemberRemove(request)));
            return Ok(());
        }
        let checked = check::check_remove(&self.state, self.config.policy, &self.reach(), id);
        if let Err(error) = checked {
            self.reply(to, Err(error));
            return Ok(());
        }
        if let Some(successor) = self.only_other_voter().filter(|_| id == self.node()) {
            let request = pb::MemberRemoveRequest { id: id.0 };
            self.parked.push_back((to, Command::MemberRemove(request)));
            return self.transfer(None, successor, view);
        }
        let member = self.state.members()[&id.0].clone();
        self.propose_change(to, Kind::Remove, ChangeStep::Remove(id), member, view)
    }

    /// Who votes beside this node, if it is one. It leads before this node is removed: were it to follow,
    /// it might hear of the removal but not that it is committed, and could elect nobody without the one
    /// that is gone. Of more than two, the others have a majority without it.
    fn only_other_voter(&self) -> Option<NodeId> {
        let voters = self.group.conf().voters;
        let mut others = voters.iter().filter(|voter| **voter != self.node().0);
        others.next().filter(|_| others.next().is_none()).copied().map(NodeId)
    }

    pub(super) fn begin_promote(
        &mut self,
        to: Requester,
        id: NodeId,
        view: &dyn View,
    ) -> Result<(), ViewError> {
        let matched = self.matched(id).unwrap_or(0);
        let last = self.group.last_index();
        let checked = check::check_promote(&self.state, self.config.policy, id, matched, last);
        if let Err(error) = checked {
            self.reply(to, Err(error));
            return Ok(());
        }
        let member = self.state.members()[&id.0].clone();
        self.propose_change(to, Kind::Promote, ChangeStep::AddVoter(id), member, view)
    }

    /// Who leads keeps its vote: it hands over first.
    pub(super) fn begin_vote(
        &mut self,
        to: Requester,
        request: internal::SpineVote,
        view: &dyn View,
    ) -> Result<(), ViewError> {
        let id = NodeId(request.node);
        let checked = if request.votes {
            let matched = self.matched(id).unwrap_or(0);
            check::check_vote(&self.state, id, matched, self.group.last_index())
        } else if id == self.node() {
            Err(Error::BadLeaderTransferee)
        } else {
            check::check_no_vote(&self.state, &self.reach(), id)
        };
        if let Err(error) = checked {
            self.reply(to, Err(error));
            return Ok(());
        }
        let member = self.state.members()[&id.0].clone();
        if self.state.has_vote(id) == request.votes {
            self.reply(to, Ok(Answer::SpineVote(internal::SpineVoteAnswer {})));
            return Ok(());
        }
        let (kind, step) = match request.votes {
            true => (Kind::Vote, ChangeStep::AddVoter(id)),
            false => (Kind::NoVote, ChangeStep::AddLearner(id)),
        };
        self.propose_change(to, kind, step, member, view)
    }

    fn propose_change(
        &mut self,
        to: Requester,
        kind: Kind,
        step: ChangeStep,
        member: Member,
        view: &dyn View,
    ) -> Result<(), ViewError> {
        if self.change.is_some() {
            // As etcd, which lets a second change wait; the first takes one round.
            self.parked.push_back((to, command_of(kind, member)));
            return Ok(());
        }
        // Gathered records come first: order of arrival is order in the log.
        self.propose_records(view)?;
        let context = MemberChange {
            origin: to.id.origin,
            n: to.id.n,
            kind: kind.into(),
            member: Some(member),
        };
        self.refusal = None;
        let change = group::Change::one(step);
        let context = context.encode_to_vec().into();
        self.drive(group::Input::ProposeChange { change, context });
        match self.refusal.take() {
            None => self.change = Some(Pending { to }),
            Some(Refusal::ChangeInvalid) => self.reply(to, Err(Error::MemberNotEnoughStarted)),
            Some(Refusal::Full | Refusal::ChangePending) => {
                self.reply(to, Err(Error::TooManyRequests));
            }
            Some(
                Refusal::NotLeader
                | Refusal::Transferring
                | Refusal::Empty
                | Refusal::NotVoter
                | Refusal::CannotCampaign,
            ) => self.reply(to, Err(Error::LeaderChanged)),
        }
        Ok(())
    }

    /// A change was folded: the answer for whoever waits for it on this node, who proposed it or
    /// had it forwarded. The leader's answer may never come: it may just have removed itself.
    pub(super) fn finish_change(
        &mut self,
        change: &MemberChange,
        is_valid: bool,
    ) -> Option<(Requester, Content)> {
        let is_mine = |to: Requester| to.id.origin == change.origin && to.id.n == change.n;
        let proposed = self.change.take_if(|pending| is_mine(pending.to)).map(|it| it.to);
        let to = proposed.or_else(|| Some(self.requester(change.n)).filter(|to| is_mine(*to)))?;
        self.is_unpark_due = true;
        if !is_valid {
            return Some((to, Content::Refused(Error::MemberNotFound)));
        }
        let members = self.member_list();
        let answer = match change.kind() {
            Kind::None => return Some((to, Content::Refused(Error::MemberNotFound))),
            Kind::Add => Answer::MemberAdd(pb::MemberAddResponse {
                header: None,
                member: change.member.as_ref().map(to_etcd),
                members,
            }),
            Kind::Remove => {
                Answer::MemberRemove(pb::MemberRemoveResponse { header: None, members })
            }
            Kind::Promote => {
                Answer::MemberPromote(pb::MemberPromoteResponse { header: None, members })
            }
            Kind::Vote | Kind::NoVote => Answer::SpineVote(internal::SpineVoteAnswer {}),
        };
        Some((to, Content::Done(answer)))
    }

    pub(super) fn begin_update(
        &mut self,
        to: Requester,
        request: pb::MemberUpdateRequest,
        view: &dyn View,
    ) -> Result<(), ViewError> {
        let checked = check::check_update(&self.state, NodeId(request.id), &request.peer_ur_ls);
        if let Err(error) = checked {
            self.reply(to, Err(error));
            return Ok(());
        }
        let peer_urls = request.peer_ur_ls;
        let mut members = self.member_list();
        for member in members.iter_mut().filter(|member| member.id == request.id) {
            member.peer_ur_ls.clone_from(&peer_urls);
        }
        let answer = Answer::MemberUpdate(pb::MemberUpdateResponse { header: None, members });
        let body = Body::MemberUrls(internal::MemberUrls { id: request.id, peer_urls });
        self.propose(Some(to), None, body, Some(Content::Done(answer)), view)
    }

    pub(super) fn begin_attributes(
        &mut self,
        to: Requester,
        attributes: internal::MemberAttributes,
        view: &dyn View,
    ) -> Result<(), ViewError> {
        let answer = Answer::MemberAttributes(pb::MemberUpdateResponse::default());
        let content = Some(Content::Done(answer));
        self.propose(Some(to), None, Body::MemberAttributes(attributes), content, view)
    }

    pub(super) fn begin_drain(
        &mut self,
        to: Requester,
        drain: internal::MemberDrain,
        view: &dyn View,
    ) -> Result<(), ViewError> {
        let Some(member) = self.state.members().get(&drain.id) else {
            self.reply(to, Err(Error::MemberNotFound));
            return Ok(());
        };
        let answer = Answer::MemberDrain(internal::MemberDrainAnswer {});
        if member.is_draining == drain.is_draining {
            self.reply(to, Ok(answer));
            return Ok(());
        }
        self.propose(Some(to), None, Body::MemberDrain(drain), Some(Content::Done(answer)), view)
    }

    pub(super) fn begin_decide(
        &mut self,
        to: Requester,
        decision: internal::Decision,
        view: &dyn View,
    ) -> Result<(), ViewError> {
        if decision.encoded_len() > DECISION_BYTES_MAX {
            self.reply(to, Err(Error::RequestTooLarge));
            return Ok(());
        }
        let answer = Answer::Decide(internal::DecisionAnswer {});
        self.propose(Some(to), None, Body::Decision(decision), Some(Content::Done(answer)), view)
    }

    pub(super) fn begin_conclude(
        &mut self,
        to: Requester,
        outcome: internal::DecisionOutcome,
        view: &dyn View,
    ) -> Result<(), ViewError> {
        if outcome.encoded_len() > DECISION_BYTES_MAX {
            self.reply(to, Err(Error::RequestTooLarge));
            return Ok(());
        }
        let content = Some(Content::Done(Answer::Conclude(internal::DecisionOutcomeAnswer {})));
        self.propose(Some(to), None, Body::DecisionOutcome(outcome), content, view)
    }

    pub(super) fn begin_alarm(
        &mut self,
        to: Requester,
        request: pb::AlarmRequest,
        view: &dyn View,
    ) -> Result<(), ViewError> {
        let is_active = request.action == pb::alarm_request::AlarmAction::Activate as i32;
        let (kind, member) = (request.alarm, request.member_id);
        let is_change = if is_active {
            kind != pb::AlarmType::None as i32
        } else {
            self.state.alarms().contains(&(kind, member))
        };
        let alarm = pb::AlarmMember { member_id: member, alarm: kind };
        let alarms = if is_change { vec![alarm] } else { Vec::new() };
        let answer = Answer::Alarm(pb::AlarmResponse { header: None, alarms });
        if !is_change {
            self.reply(to, Ok(answer));
            return Ok(());
        }
        let body = Body::Alarm(internal::Alarm { kind, member, is_active });
        self.propose(Some(to), None, body, Some(Content::Done(answer)), view)
    }

    pub(super) fn begin_transfer(
        &mut self,
        to: Requester,
        target: NodeId,
        view: &dyn View,
    ) -> Result<(), ViewError> {
        if !self.state.has_vote(target) {
            self.reply(to, Err(Error::BadLeaderTransferee));
            return Ok(());
        }
        if target == self.node() {
            self.reply(to, Ok(Answer::MoveLeader(pb::MoveLeaderResponse::default())));
            return Ok(());
        }
        self.transfer(Some(to), target, view)
    }

    fn transfer(
        &mut self,
        to: Option<Requester>,
        target: NodeId,
        view: &dyn View,
    ) -> Result<(), ViewError> {
        self.propose_records(view)?;
        self.refusal = None;
        let earlier = self.transfer.replace(Transfer { to, target, since: self.now });
        if let Some(Transfer { to: Some(to), .. }) = earlier {
            self.reply(to, Err(Error::TimeoutLeaderTransfer));
        }
        self.drive(group::Input::Transfer(target));
        if self.refusal.take().is_some()
            && let Some(Transfer { to: Some(to), .. }) = self.transfer.take()
        {
            self.reply(to, Err(Error::BadLeaderTransferee));
        }
        Ok(())
    }

    /// The leader of a range, which may be another node, is to hand over. Nobody is answered: who
    /// asked sees who leads.
    pub(super) fn transfer_range(
        &mut self,
        range: GroupId,
        target: NodeId,
        view: &dyn View,
    ) -> Result<(), ViewError> {
        let leader = match range {
            GroupId::SPINE => self.status.leader,
            range => self.range_leader(range),
        };
        match leader {
            Some(leader) if leader == self.node() => self.hand_over_range(range, target, view),
            Some(leader) => {
                let transfer = internal::TransferRange { range: range.0, to: target.0 };
                self.out.push(Effect::Send(leader, Parcel::Transfer(transfer)));
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// This node may be the leader that was meant.
    pub(super) fn hand_over_range(
        &mut self,
        range: GroupId,
        target: NodeId,
        view: &dyn View,
    ) -> Result<(), ViewError> {
        let is_known = self.state.members().contains_key(&target.0) && target != self.node();
        if range != GroupId::SPINE {
            let is_led = self.ranges.leader(range) == Some(self.node());
            if is_led && is_known {
                self.tell(range, range::replica::Input::Transfer(target));
            }
            return Ok(());
        }
        // One at a time: whoever waits for the answer of the first keeps waiting for it.
        if self.status.is_leader && is_known && self.transfer.is_none() {
            return self.transfer(None, target, view);
        }
        Ok(())
    }

    /// Another leader is known: a transfer has ended, well or not.
    pub(super) fn on_leader_for_transfer(&mut self) {
        let Some(leader) = self.status.leader else { return };
        let Some(transfer) = self.transfer.take_if(|_| leader != self.config.node) else { return };
        if let Some(to) = transfer.to {
            let is_moved = leader == transfer.target;
            let answer = Answer::MoveLeader(pb::MoveLeaderResponse::default());
            self.reply(to, if is_moved { Ok(answer) } else { Err(Error::TimeoutLeaderTransfer) });
        }
    }

    /// The node is stopping, or its log has stalled: the member that has most of the log takes over, so
    /// that writes do not wait for an election.
    pub(super) fn on_hand_over(&mut self, view: &dyn View) -> Result<(), ViewError> {
        if !self.status.is_leader {
            return Ok(());
        }
        let candidates = self
            .state
            .members()
            .values()
            .filter(|member| {
                let node = NodeId(member.id);
                self.state.has_vote(node) && self.connected.contains_key(&node)
            })
            .filter_map(|member| {
                let matched = self.matched(NodeId(member.id))?;
                Some(flotilla_placement::Successor { node: member.id, matched })
            })
            .collect::<Vec<_>>();
        match flotilla_placement::successor(self.node().0, &candidates) {
            Some(target) => self.transfer(None, NodeId(target), view),
            None => Ok(()),
        }
    }

    pub(super) fn tick_members(&mut self) {
        let is_late =
            |transfer: &mut Transfer| transfer.since + self.config.request_timeout <= self.now;
        if let Some(Transfer { to: Some(to), .. }) = self.transfer.take_if(is_late) {
            self.reply(to, Err(Error::TimeoutLeaderTransfer));
        }
    }

    /// The leadership ended; what was proposed may still be folded, but nobody here will know.
    pub(super) fn stop_changes(&mut self) {
        if let Some(pending) = self.change.take() {
            self.reply(pending.to, Err(Error::TimeoutDueToLeaderFail));
        }
    }

    /// The members in etcd's form.
    pub fn member_list(&self) -> Vec<pb::Member> {
        self.state.members().values().map(to_etcd).collect()
    }

    fn matched(&self, id: NodeId) -> Option<u64> {
        let progress = self.group.progress();
        progress.iter().find(|progress| progress.node == id).map(|progress| progress.matched)
    }

    fn reach(&self) -> Reach {
        let healthy_for = Length::from_ms(HEALTHY_FOR_MS);
        let mut connected: BTreeSet<NodeId> = self
            .connected
            .iter()
            .filter(|(_, since)| self.now.since(**since) >= healthy_for)
            .map(|(node, _)| *node)
            .collect();
        connected.insert(self.node());
        Reach { connected }
    }
}

fn command_of(kind: Kind, member: Member) -> crate::command::Command {
    use crate::command::Command;
    match kind {
        Kind::None | Kind::Add => Command::MemberAdd(member),
        Kind::Remove => Command::MemberRemove(pb::MemberRemoveRequest { id: member.id }),
        Kind::Promote => Command::MemberPromote(pb::MemberPromoteRequest { id: member.id }),
        Kind::Vote | Kind::NoVote => {
            Command::SpineVote(internal::SpineVote { node: member.id, votes: kind == Kind::Vote })
        }
    }
}

/// A member in etcd's form.
fn to_etcd(member: &Member) -> pb::Member {
    pb::Member {
        id: member.id,
        name: member.name.clone(),
        peer_ur_ls: member.peer_urls.clone(),
        client_ur_ls: member.client_urls.clone(),
        is_learner: member.is_learner,
    }
}
