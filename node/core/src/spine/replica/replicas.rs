//! Who holds which range. The table says who is to; the range's leader gets there by itself; whoever
//! has no part any more hears of it from the leader or asks, and leaves.

use crate::command::{Answer, Command};
use crate::group;
use crate::mutant::{self, Mutant};
use crate::proto::internal::{
    AskedMembers, ConfState, RangeLeft, Replicas, ReplicasAnswer, ReplicasRequest, ReplicasWanted,
    ReplicasWantedAnswer, SnapshotMark, ask::What, record::Body,
};
use crate::range::replica::{Input, Members};
use crate::spine::apply::{Content, Requester};
use crate::spine::replica::ask::Asker;
use crate::spine::replica::{Effect, Parcel, Question, Replica};
use crate::spine::state::REPLICAS_WANTED_MAX;
use crate::view::{View, ViewError};
use crate::{Error, GroupId, NodeId};

impl Replica {
    /// Has other nodes hold a range.
    pub(super) fn begin_replicas(
        &mut self,
        to: Requester,
        request: ReplicasRequest,
        view: &dyn View,
    ) -> Result<(), ViewError> {
        if self.change.is_some() {
            // One after the other: a member that is about to go may be needed for what is added.
            self.parked.push_back((to, Command::Replicas(request)));
            return Ok(());
        }
        match self.check_replicas(&request) {
            Ok(replicas) => {
                let answer = ReplicasAnswer { nodes: replicas.nodes.clone() };
                let content = Content::Done(Answer::Replicas(answer));
                self.propose(Some(to), None, Body::Replicas(replicas), Some(content), view)
            }
            Err(error) => {
                self.reply(to, Err(error));
                Ok(())
            }
        }
    }

    fn check_replicas(&self, request: &ReplicasRequest) -> Result<Replicas, Error> {
        let known = self.state.ranges().get(GroupId(request.range)).ok_or(Error::RangeNotFound)?;
        let (add, remove) = (NodeId(request.add), NodeId(request.remove));
        let mut nodes = known.replicas.clone();
        if remove != NodeId(0) {
            let before = nodes.len();
            nodes.retain(|node| *node != remove);
            if nodes.len() == before {
                return Err(Error::MemberNotFound);
            }
        }
        if add != NodeId(0) {
            let member = self.state.members().get(&add.0).ok_or(Error::MemberNotFound)?;
            if nodes.contains(&add) || member.is_learner {
                return Err(Error::ReplicaNotPossible);
            }
            nodes.push(add);
        }
        if !known.may_change_to(&nodes) {
            return Err(Error::ReplicasChanging);
        }
        let members = self.state.members();
        let votes = |node: &NodeId| members.get(&node.0).is_some_and(|it| !it.is_learner);
        if !nodes.iter().any(votes) {
            return Err(Error::ReplicaNotPossible);
        }
        let nodes = nodes.into_iter().map(|node| node.0).collect();
        Ok(Replicas { range: request.range, changes: known.changes, nodes })
    }

    /// How many nodes are to hold each range from now on.
    pub(super) fn begin_replicas_wanted(
        &mut self,
        to: Requester,
        wanted: ReplicasWanted,
        view: &dyn View,
    ) -> Result<(), ViewError> {
        if wanted.count == 0 || wanted.count > REPLICAS_WANTED_MAX {
            self.reply(to, Err(Error::ReplicaNotPossible));
            return Ok(());
        }
        let content = Content::Done(Answer::ReplicasWanted(ReplicasWantedAnswer {}));
        self.propose(Some(to), None, Body::ReplicasWanted(wanted), Some(content), view)
    }

    /// Who is to hold a range: those that are learners of the cluster are learners of the range, the
    /// others vote. Not in the middle of a joint change.
    fn members_of(&self, range: GroupId) -> Option<Members> {
        let known = self.state.ranges().get(range)?;
        let here = |are_learners: bool| -> Vec<u64> {
            let members = self.state.members().values();
            let members = members.filter(|member| member.is_learner == are_learners);
            let ids = members.map(|member| member.id);
            ids.filter(|id| known.replicas.contains(&NodeId(*id))).collect()
        };
        let (voters, mut learners) = (here(false), here(true));
        if mutant::is(Mutant::LearnersForgotten) {
            learners.clear();
        }
        if !self.state.conf().voters_outgoing.is_empty() || voters.is_empty() {
            return None;
        }
        let conf = ConfState { voters, learners, ..ConfState::default() };
        let (removed, since) = (self.state.removed().clone(), known.since.clone());
        let (changes, settled) = (known.changes, known.settled);
        Some(Members { conf, removed, changes, settled, since })
    }

    pub(super) fn tell_members_of(&mut self, range: GroupId) {
        if let Some(members) = self.members_of(range) {
            self.tell(range, Input::Members(members));
        }
    }

    /// Tells every replica here.
    pub(super) fn tell_members(&mut self) {
        for range in self.ranges_here() {
            self.tell_members_of(range);
        }
    }

    /// A change of members took effect that left nodes without a part in a range.
    pub(super) fn tell_gone(&mut self, range: GroupId, place: group::Position, nodes: Vec<NodeId>) {
        let me = self.node();
        for node in nodes.into_iter().filter(|node| *node != me) {
            let left = RangeLeft { range: range.0, index: place.index, term: place.term };
            self.out.push(Effect::Send(node, Parcel::Left(left)));
        }
    }

    /// Its leader says that this node has no part in a range any more.
    pub(super) fn on_left(&mut self, left: &RangeLeft) {
        let place = group::Position { index: left.index, term: left.term };
        self.tell_removed(GroupId(left.range), place);
    }

    /// What is said of one replica may come when it has left and the node has another, as it is to hold
    /// the range again. If that one has no part either, the table will come to say so, and it asks.
    fn tell_removed(&mut self, range: GroupId, place: group::Position) {
        if !self.is_here(range) || self.ranges.is_outside(range) {
            self.tell(range, Input::RemovedAt(place));
        }
    }

    /// What a leader said may have been lost: those that this node is not to hold are asked for.
    pub(super) fn ask_whether_left(&mut self) {
        let is_unwanted = |range: &GroupId| {
            let known = self.state.ranges().get(*range);
            known.is_some_and(|it| !it.replicas.contains(&self.node()))
                || known.is_some() && self.ranges.is_outside(*range)
        };
        let unwanted: Vec<GroupId> =
            self.ranges.found().iter().copied().filter(is_unwanted).collect();
        for range in unwanted {
            let question =
                Question { range, shown: self.reach.shown, what: What::Members(AskedMembers {}) };
            self.ask_for(Asker::Leaving(range), question);
        }
    }

    /// Keys may be removed once this node's state of the spine has come to where they were given to
    /// others: before, it could take them for those of a range that is here.
    pub(super) fn leave_ranges(&mut self) {
        let (node, table) = (self.node(), self.state.ranges());
        for (range, leaving) in self.ranges.leaving().iter_mut().filter(|(_, it)| !it.is_told) {
            let is_left = match table.get(*range) {
                Some(known) => {
                    let since = known.since.get(&node).copied().unwrap_or(0);
                    !known.replicas.contains(&node) || since > leaving.since
                }
                None => self.state.has_ceased(*range),
            };
            if is_left {
                leaving.is_told = true;
                self.out.push(Effect::Leave(*range));
            }
        }
    }

    /// Who holds a range, as one of them says.
    pub(super) fn on_members_told(&mut self, range: GroupId, mark: Option<SnapshotMark>) {
        let Some(SnapshotMark { index, term, conf }) = mark else { return };
        let conf = conf.unwrap_or_default();
        if index > 0 && !group::conf::has_member(&conf, self.node()) {
            let place = group::Position { index, term };
            self.tell_removed(range, place);
        } else {
            self.ranges.is_inside(range);
        }
    }
}
