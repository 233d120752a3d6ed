//! Requests on their way: submitted here, forwarded to the leader of the range that owns their keys,
//! parked while there is none, and answered with a time-out when nothing else answers them.

use crate::auth::Pass;
use crate::command::{Answer, Command, RequestId};
use crate::proto::internal::{Forward, ForwardAnswer, record::Body};
use crate::spine::apply::{Content, Requester};
use crate::spine::replica::{Effect, Parcel, Replica};
use crate::spine::state;
use crate::time::Time;
use crate::view::{View, ViewError};
use crate::{Error, GroupId, NodeId, mvcc, range, txn};

/// A request of this node that has no answer yet.
#[derive(Clone, Debug)]
pub(super) struct Open {
    pub(super) started: Time,
    pub(super) pass: Pass,
    /// If it was sent to another node.
    forwarded: Option<Forwarded>,
    /// What becomes of it is known: its answer waits for the store.
    pub(super) is_decided: bool,
}

/// A request that another node is asked to carry out. It is kept whole, as it may be handed back, or
/// never have left.
#[derive(Clone, Debug)]
struct Forwarded {
    leader: NodeId,
    /// As it was seen here.
    range: GroupId,
    command: Command,
}

/// Where a command is carried out.
enum Place {
    /// By the leader of one range; what does not concern keys, by the spine's.
    Range(GroupId),
    /// By a transaction over several.
    Many,
}

impl Replica {
    pub(super) fn on_submit(
        &mut self,
        n: u64,
        pass: Pass,
        command: Command,
        view: &dyn View,
    ) -> Result<(), ViewError> {
        if self.open.len() >= self.config.limits.open_requests_max {
            self.out.push(Effect::Reply(n, Err(Error::TooManyRequests)));
            return Ok(());
        }
        let was_open = self
            .open
            .insert(n, Open { started: self.now, pass, forwarded: None, is_decided: false });
        assert!(was_open.is_none(), "a request number is used once");
        let to = self.requester(n);
        self.deadlines.push_back((self.now + self.config.request_timeout, n));
        self.route(to, command, view)
    }

    /// Sends a request where it can be carried out, or parks it.
    pub(super) fn route(
        &mut self,
        to: Requester,
        command: Command,
        view: &dyn View,
    ) -> Result<(), ViewError> {
        match self.place(&command) {
            Place::Range(GroupId::SPINE) => self.route_to_spine(to, command, view),
            // Whoever sent it here knew an older table.
            _ if to.node != self.node() => {
                self.refuse_unproposed(to, command);
                Ok(())
            }
            place => {
                self.route_elsewhere(to, place, command);
                Ok(())
            }
        }
    }

    fn route_elsewhere(&mut self, to: Requester, place: Place, command: Command) {
        // Other ranges do not know of alarms, and this node may not have heard that one has ended.
        if self.alarm(&command).is_some() {
            self.tickets.want_alarm(to, command, self.now);
            return;
        }
        match place {
            Place::Range(range) => self.route_to_range(to, range, command),
            Place::Many => {
                if let Some(open) = self.open.get_mut(&to.id.n) {
                    open.forwarded = None;
                    self.begin_txn(Some(to), txn::Job::Change(command));
                }
            }
        }
    }

    pub(super) fn is_of_range_0(&self, command: &Command) -> bool {
        matches!(self.place(command), Place::Range(GroupId::SPINE))
    }

    /// Who owns what a command concerns.
    fn place(&self, command: &Command) -> Place {
        let ranges = self.state.ranges();
        let is_of_keys =
            matches!(command, Command::Put(_) | Command::DeleteRange(_) | Command::Txn(_));
        if ranges.is_empty() || !is_of_keys {
            return Place::Range(GroupId::SPINE);
        }
        match txn::owners(ranges, command)[..] {
            [] => Place::Range(GroupId::SPINE),
            [range] => Place::Range(range),
            _ => Place::Many,
        }
    }

    fn route_to_range(&mut self, to: Requester, range: GroupId, command: Command) {
        match self.range_leader(range) {
            Some(leader) if leader == self.node() => {
                self.tell(range, range::replica::Input::Submit(to, command));
            }
            Some(leader) => self.forward(leader, to, range, command),
            None => self.parked.push_back((to, command)),
        }
    }

    fn forward(&mut self, leader: NodeId, to: Requester, range: GroupId, command: Command) {
        let Some(open) = self.open.get_mut(&to.id.n) else { return };
        let RequestId { origin, n } = to.id;
        let (kind, body) = (command.kind(), command.encode());
        let pass = to.pass.number();
        let forward = Forward { origin, n, kind, body, range: range.0, pass };
        open.forwarded = Some(Forwarded { leader, range, command });
        self.out.push(Effect::Send(leader, Parcel::Forward(forward)));
    }

    fn route_to_spine(
        &mut self,
        to: Requester,
        command: Command,
        view: &dyn View,
    ) -> Result<(), ViewError> {
        if self.status.is_leader {
            if self.is_serving() && self.group.transferee().is_none() {
                return self.carry_out(to, command, view);
            }
            self.parked.push_back((to, command));
            return Ok(());
        }
        if to.node != self.node() {
            self.refuse_unproposed(to, command);
            return Ok(());
        }
        if matches!(command, Command::MoveLeader(_)) {
            self.reply(to, Err(Error::NotLeader));
            return Ok(());
        }
        match self.leader_within_reach() {
            Some(leader) => self.forward(leader, to, GroupId::SPINE, command),
            None => self.parked.push_back((to, command)),
        }
        Ok(())
    }

    /// The leader begins to carry out a request.
    fn carry_out(
        &mut self,
        to: Requester,
        command: Command,
        view: &dyn View,
    ) -> Result<(), ViewError> {
        if let Err(error) = self.admit(&command) {
            self.reply(to, Err(error));
            return Ok(());
        }
        match command {
            Command::Put(_) | Command::DeleteRange(_) | Command::Txn(_) => {
                self.begin_write(to, command, view)
            }
            Command::Compact(request) => self.begin_compact(to, request, view),
            Command::LeaseGrant(request) => self.begin_grant(to, request, view),
            Command::LeaseRevoke(request) => self.begin_revoke(Some(to), request.id, view),
            Command::LeaseKeepAlive(_) | Command::LeaseTimeToLive(_) => {
                self.tickets.want_command(to, command, self.now);
                Ok(())
            }
            Command::MemberAdd(member) => self.begin_add(to, member, view),
            Command::MemberRemove(request) => self.begin_remove(to, NodeId(request.id), view),
            Command::SpineVote(request) => self.begin_vote(to, request, view),
            Command::MemberUpdate(request) => self.begin_update(to, request, view),
            Command::MemberPromote(request) => self.begin_promote(to, NodeId(request.id), view),
            Command::MemberAttributes(attributes) => self.begin_attributes(to, attributes, view),
            Command::MemberDrain(request) => self.begin_drain(to, request, view),
            Command::Decide(decision) => self.begin_decide(to, decision, view),
            Command::Conclude(outcome) => self.begin_conclude(to, outcome, view),
            Command::Alarm(request) => self.begin_alarm(to, request, view),
            Command::MoveLeader(request) => {
                self.begin_transfer(to, NodeId(request.target_id), view)
            }
            Command::Split(request) => {
                self.begin_split(to, request.key);
                Ok(())
            }
            Command::Merge(request) => {
                self.begin_merge(to, request);
                Ok(())
            }
            Command::Replicas(request) => self.begin_replicas(to, request, view),
            Command::ReplicasWanted(wanted) => self.begin_replicas_wanted(to, wanted, view),
            Command::AuthChange(change) => {
                let content = Content::Done(Answer::AuthChange(Default::default()));
                self.propose(Some(to), None, Body::AuthChange(change), Some(content), view)
            }
            Command::AuthToken(token) => {
                let content = Content::Done(Answer::AuthToken(Default::default()));
                self.propose(Some(to), None, Body::AuthToken(token), Some(content), view)
            }
        }
    }

    /// Why an active alarm refuses a command.
    fn alarm(&self, command: &Command) -> Option<Error> {
        if is_write(command) && self.state.has_alarm(state::ALARM_CORRUPT) {
            return Some(Error::Corrupt);
        }
        let is_full = self.state.has_alarm(state::ALARM_NOSPACE) && mvcc::quota_cost(command) > 0;
        is_full.then_some(Error::NoSpace)
    }

    /// Everything up to a ticket is folded here: an alarm that is still active counts.
    pub(super) fn refuse_or_route(
        &mut self,
        to: Requester,
        command: Command,
        view: &dyn View,
    ) -> Result<(), ViewError> {
        match self.alarm(&command) {
            Some(error) => {
                self.reply(to, Err(error));
                Ok(())
            }
            None => self.route(to, command, view),
        }
    }

    /// Refusals that need no look at the request's keys.
    fn admit(&self, command: &Command) -> Result<(), Error> {
        if let Some(error) = self.alarm(command) {
            return Err(error);
        }
        let unapplied_entries = self.position().index.saturating_sub(self.applied.index);
        if is_write(command)
            && (unapplied_entries > self.config.limits.unapplied_entries_max
                || self.proposed.len() + self.waiting.len()
                    >= 4 * self.config.limits.open_requests_max)
        {
            return Err(Error::TooManyRequests);
        }
        Ok(())
    }

    pub(super) fn on_forward(
        &mut self,
        from: NodeId,
        forward: Forward,
        view: &dyn View,
    ) -> Result<(), ViewError> {
        let id = RequestId { origin: forward.origin, n: forward.n };
        let to = Requester { id, node: from, pass: Pass::from_number(forward.pass) };
        let Some(command) = Command::decode(forward.kind, forward.body) else {
            self.reply(to, Err(Error::UnknownMethod));
            return Ok(());
        };
        let range = GroupId(forward.range);
        if range != GroupId::SPINE {
            // One that was merged away has nobody here who would hand it back.
            if self.ranges.is_running(range) {
                self.tell(range, range::replica::Input::Submit(to, command));
            } else {
                self.hand_back(range, to, command);
            }
            return Ok(());
        }
        // A duplicated message; the fold would void it too (I13).
        if self.proposed.contains_key(&to.id) {
            return Ok(());
        }
        self.route(to, command, view)
    }

    pub(super) fn on_forward_answer(&mut self, from: NodeId, answer: ForwardAnswer) {
        if answer.origin != self.config.origin {
            return;
        }
        let to = self.requester(answer.n);
        let Some(open) = self.open.get_mut(&answer.n) else { return };
        if open.forwarded.as_ref().is_none_or(|it| it.leader != from) {
            return;
        }
        if answer.is_unproposed {
            let Forwarded { range, command, .. } = open.forwarded.take().expect("checked above");
            self.take_hint(range, from, NodeId(answer.leader));
            self.parked.push_back((to, command));
            return;
        }
        let outcome = if answer.kind == 0 {
            let known = Error::ALL.iter().copied().find(|error| error.text() == answer.error_text);
            Err(known.unwrap_or(Error::UnknownMethod))
        } else {
            Answer::decode(answer.kind, answer.body).ok_or(Error::UnknownMethod)
        };
        if !open.is_decided {
            self.answer_when_shown(answer.n, answer.index, outcome);
        }
    }

    /// Forwards that were handed out but never left the node may safely be sent again.
    pub(super) fn on_unsent(&mut self, forwards: Vec<Forward>) {
        for forward in forwards {
            let to = self.requester(forward.n);
            if forward.origin != to.id.origin {
                continue;
            }
            let open = self.open.get_mut(&forward.n);
            if let Some(Forwarded { command, .. }) = open.and_then(|open| open.forwarded.take()) {
                self.parked.push_back((to, command));
            }
        }
    }

    /// Requests that were sent to a peer whose connection broke have an unknown outcome.
    pub(super) fn on_disconnected(&mut self, peer: NodeId) {
        self.connected.remove(&peer);
        let lost: Vec<u64> = self
            .open
            .iter()
            .filter(|(_, open)| open.forwarded.as_ref().is_some_and(|it| it.leader == peer))
            .map(|(n, _)| *n)
            .collect();
        for n in lost {
            let to = self.requester(n);
            self.reply(to, Err(Error::TimeoutDueToConnectionLost));
        }
        self.drive(crate::group::Input::Unreachable(peer));
        self.tell_all(|| range::replica::Input::Unreachable(peer));
        self.look_for_peers();
    }

    /// Tries everything again that waits for a leader.
    pub(super) fn unpark(&mut self, view: &dyn View) -> Result<(), ViewError> {
        for _ in 0..self.parked.len() {
            let Some((to, command)) = self.parked.pop_front() else { break };
            // Its client may have been told of a time-out already.
            if to.node != self.node() || self.open.contains_key(&to.id.n) {
                self.route(to, command, view)?;
            }
        }
        Ok(())
    }

    pub(super) fn expire_requests(&mut self) {
        let open_count = self.open.len();
        while let Some((deadline, n)) = self.deadlines.front().copied() {
            if deadline > self.now {
                break;
            }
            self.deadlines.pop_front();
            if let Some(open) = self.open.get(&n) {
                let error = self.timeout_error(open.started);
                self.answer_now(n, Err(error));
            }
        }
        if self.open.len() < open_count {
            self.forget_held();
        }
        let (me, open) = (self.config.node, &self.open);
        self.parked.retain(|(to, _)| to.node != me || open.contains_key(&to.id.n));
        let horizon = self.now - self.config.request_timeout;
        let is_leader = self.status.is_leader;
        // A leader keeps what it proposed until it is folded: latches hang on it.
        self.proposed.retain(|_, proposed| is_leader || proposed.started >= horizon);
    }

    fn timeout_error(&self, started: Time) -> Error {
        let two_elections = crate::time::Length(2 * self.config.election_timeout.0);
        let Some(leader) = self.status.leader else { return Error::Timeout };
        if started + two_elections >= self.leader_since && started <= self.leader_since {
            return Error::TimeoutDueToLeaderFail;
        }
        if leader != self.node() && !self.connected.contains_key(&leader) {
            return Error::TimeoutDueToConnectionLost;
        }
        Error::Timeout
    }
}

fn is_write(command: &Command) -> bool {
    matches!(
        command,
        Command::Put(_)
            | Command::DeleteRange(_)
            | Command::Txn(_)
            | Command::Compact(_)
            | Command::LeaseGrant(_)
            | Command::LeaseRevoke(_)
    )
}
