//! Trouble: what is done to nodes, disks and wires while a run is in its first phase, and the
//! changes of leaders and members that belong to every day.

use std::collections::BTreeSet;

use flotilla_core::command::Command;
use flotilla_core::proto::etcdserverpb::{
    MemberPromoteRequest, MemberRemoveRequest, MoveLeaderRequest,
};
use flotilla_core::proto::internal::{
    Decision, DecisionOutcome, Member, MemberDrain, MergeRequest, ReplicasRequest, SpineVote,
    SplitRequest,
};
use flotilla_core::spine::Input;
use flotilla_core::spine::ranges::Range;
use flotilla_core::{GroupId, NodeId};

use super::event::Event;
use super::node::OwnCommand;
use super::plan::{Fault, MS, SECOND};
use super::world::{Phase, World, member};

/// Directed pairs that hear nothing of each other.
#[derive(Clone, Debug, Default)]
pub(super) struct Cut {
    pairs: BTreeSet<(u64, u64)>,
}

impl Cut {
    pub(super) fn is_between(&self, from: u64, to: u64) -> bool {
        self.pairs.contains(&(from, to))
    }
}

impl World {
    pub(super) fn plan_trouble(&mut self) {
        if self.plan.scale.is_some() {
            return self.plan_scale();
        }
        self.queue.push(self.plan.trouble_for, Event::Rest);
        self.plan_drawn(2 * self.plan.election(), Event::Trouble);
        if self.plan.faults.contains(&Fault::Members) {
            self.plan_drawn(2 * SECOND, Event::Members);
        }
        self.plan_replay();
    }

    pub(super) fn draw_fault(&mut self) -> Fault {
        *self.chance.pick(&self.plan.faults)
    }

    pub(super) fn make_trouble(&mut self, fault: Fault) {
        self.trace.number(fault as u64);
        match fault {
            Fault::Crash => self.crash_one(),
            Fault::CrashAll => self.crash_all(),
            Fault::Rolling => self.roll(),
            Fault::Partition => self.part(),
            Fault::Bridge => self.cut_all_but_one(),
            Fault::OneWay => self.cut_one_way(),
            Fault::Break => self.break_one(),
            Fault::Pause => self.pause_one(),
            Fault::SlowDisk => self.slow_disk(),
            Fault::StuckDisk => self.stick_disk(),
            Fault::MoveLeader => self.move_leader(),
            Fault::Members => {}
            Fault::Split => self.split(),
            Fault::MoveRange => self.move_range(),
            Fault::Merge => self.merge(),
            Fault::MoveReplica => self.move_replica(),
            Fault::Users => self.change_users(),
            Fault::Votes => self.move_vote(),
            Fault::Rebuild => self.rebuild(),
        }
        let wait = 1 + self.chance.wait(self.plan.fault_every);
        self.plan_drawn(wait, Event::Trouble);
    }

    /// A node that is up, the leader more often than others.
    fn victim(&mut self) -> Option<u64> {
        let up = self.up_ids();
        if up.is_empty() {
            return None;
        }
        let leader = self.leader();
        match leader {
            Some(leader) if self.chance.one_in(3) => Some(leader),
            _ => Some(*self.chance.pick(&up)),
        }
    }

    fn crash_and_restart(&mut self, id: u64) {
        self.crash(id);
        let mean = if self.chance.one_in(3) { 4 * self.plan.election() } else { 100 * MS };
        let wait = 1 + self.chance.wait(mean);
        self.after(wait, Event::Start(id));
    }

    fn crash_one(&mut self) {
        if let Some(id) = self.victim() {
            self.crash_and_restart(id);
        }
    }

    /// As a node whose data were found to be wrong.
    fn rebuild(&mut self) {
        let Some(id) = self.victim() else { return };
        if self.nodes[&id].paused_until <= self.now {
            self.see("snapshots asked for");
            self.say(|| format!("node {id} asks for snapshots of all that it holds"));
            self.step(id, Input::RequestSnapshots);
        }
    }

    /// The worst moment to forget a vote is right after it was given.
    pub(super) fn crash_after_vote(&mut self, id: u64) {
        let is_wanted = self.phase == Phase::Trouble && self.plan.faults.contains(&Fault::Crash);
        if !is_wanted || !self.chance.one_in(8) {
            return;
        }
        let life = self.nodes[&id].life;
        let wait = MS + self.chance.wait(2 * self.plan.network.delay_mean);
        let start_wait = wait + MS + self.chance.wait(5 * MS);
        let start_at = self.now + start_wait;
        self.plan_drawn(wait, Event::AfterVote { node: id, life, start_at });
        self.plan_drawn(start_wait, Event::Start(id));
    }

    fn crash_all(&mut self) {
        self.see("all crashed");
        for id in self.up_ids() {
            self.crash_and_restart(id);
        }
    }

    /// A node hands over and stops; the next one follows with the next trouble.
    fn roll(&mut self) {
        let Some(id) = self.victim() else { return };
        self.see("handed over");
        if self.nodes[&id].paused_until <= self.now {
            self.step(id, Input::HandOver);
        }
        let life = self.nodes[&id].life;
        let wait = self.chance.wait(20 * MS);
        let event = super::event::NodeEvent::Broken(0, 0);
        self.after(wait, Event::Node(id, life, event));
        let wait = wait + 1 + self.chance.wait(100 * MS);
        self.after(wait, Event::Start(id));
    }

    fn add_cut(&mut self, pairs: BTreeSet<(u64, u64)>) {
        self.see("cut");
        self.say(|| format!("cut {pairs:?}"));
        self.cuts_count += 1;
        let number = self.cuts_count;
        self.cuts.insert(number, Cut { pairs });
        let mean = *self.chance.pick(&[self.plan.election() / 2, self.plan.election() * 3]);
        let wait = 1 + self.chance.wait(mean);
        self.after(wait, Event::Heal(number));
    }

    pub(super) fn heal_cut(&mut self, number: u64) {
        if self.cuts.remove(&number).is_some() {
            self.say(|| "a cut heals".to_owned());
        }
    }

    fn part(&mut self) {
        let ids: Vec<u64> = self.nodes.keys().copied().collect();
        let victim = self.victim();
        let is_single = self.chance.one_in(2);
        let side: BTreeSet<u64> = match victim {
            Some(victim) if is_single => BTreeSet::from([victim]),
            _ => ids.iter().copied().filter(|_| self.chance.one_in(2)).collect(),
        };
        let mut pairs = BTreeSet::new();
        for from in &ids {
            for to in &ids {
                if side.contains(from) != side.contains(to) {
                    pairs.insert((*from, *to));
                }
            }
        }
        self.add_cut(pairs);
    }

    fn cut_all_but_one(&mut self) {
        let ids: Vec<u64> = self.nodes.keys().copied().collect();
        let bridge = *self.chance.pick(&ids);
        let others = || ids.iter().copied().filter(|id| *id != bridge);
        let pairs = others().flat_map(|from| others().map(move |to| (from, to)));
        self.add_cut(pairs.filter(|(from, to)| from != to).collect());
    }

    fn cut_one_way(&mut self) {
        let ids: Vec<u64> = self.nodes.keys().copied().collect();
        let Some(from) = self.victim() else { return };
        let is_to_all = self.chance.one_in(2);
        let to = *self.chance.pick(&ids);
        let is_reversed = self.chance.one_in(2);
        let targets = ids.into_iter().filter(|other| is_to_all || *other == to);
        let pairs = targets.map(|to| if is_reversed { (to, from) } else { (from, to) }).collect();
        self.add_cut(pairs);
    }

    fn break_one(&mut self) {
        let Some(id) = self.victim() else { return };
        let links: Vec<(u64, u64)> =
            self.up(id).links.iter().map(|(to, link)| (*to, link.connection)).collect();
        if links.is_empty() {
            return;
        }
        let (to, connection) = *self.chance.pick(&links);
        self.break_link(id, to, connection);
    }

    fn pause_one(&mut self) {
        let Some(id) = self.victim() else { return };
        self.see("paused");
        let mean = *self.chance.pick(&[50 * MS, self.plan.election(), 4 * self.plan.election()]);
        let until = self.now + self.chance.wait(mean);
        self.say(|| format!("node {id} does nothing until {until}"));
        let node = self.nodes.get_mut(&id).expect("it is up");
        node.paused_until = node.paused_until.max(until);
    }

    fn slow_disk(&mut self) {
        let Some(id) = self.victim() else { return };
        self.nodes.get_mut(&id).expect("it is up").slowness = 50;
        let wait = self.chance.wait(2 * self.plan.election());
        self.after(wait, Event::DiskHeals(id));
    }

    fn stick_disk(&mut self) {
        let Some(id) = self.victim() else { return };
        self.see("disk stuck");
        let until = self.now + self.chance.wait(2 * self.plan.election());
        self.nodes.get_mut(&id).expect("it is up").stuck_until = until;
    }

    fn move_leader(&mut self) {
        let Some(leader) = self.leader() else { return };
        if self.nodes[&leader].paused_until > self.now {
            return;
        }
        let ids = self.member_ids();
        let target_id = *self.chance.pick(&ids);
        let command = Command::MoveLeader(MoveLeaderRequest { target_id });
        self.ask(leader, command, OwnCommand::MoveLeader);
    }

    /// Somebody asks some node to cut a range at one of the keys in use.
    fn split(&mut self) {
        let up = self.up_ids();
        let Some(id) = (!up.is_empty()).then(|| *self.chance.pick(&up)) else { return };
        if self.nodes[&id].paused_until > self.now || self.up(id).stage.reach().shown.index == 0 {
            return;
        }
        let key = format!("k{}", self.chance.below(self.plan.traffic.keys_count)).into();
        self.ask(id, Command::Split(SplitRequest { key }), OwnCommand::Split);
        self.aim();
    }

    /// What was just asked for will be disturbed, before it begins, in its middle, or soon after.
    fn aim(&mut self) {
        if self.plan.is_aimed && !self.chance.one_in(3) {
            let step = 2 * self.plan.network.delay_mean + self.plan.flush_mean;
            let steps = *self.chance.pick(&[2, 6, 20]);
            let wait = 1 + self.chance.wait(steps * step);
            self.plan_drawn(wait, Event::Strike);
        }
    }

    /// Trouble for one node.
    pub(super) fn strike(&mut self) {
        self.see("struck in the middle");
        match self.chance.below(6) {
            0 | 1 => self.crash_one(),
            2 => self.cut_off_for_long(),
            3 => self.pause_one(),
            4 => self.stick_disk(),
            _ => self.move_range(),
        }
    }

    /// One node hears nobody for so long that the others cut their logs.
    fn cut_off_for_long(&mut self) {
        let Some(victim) = self.victim() else { return };
        let others: Vec<u64> = self.nodes.keys().copied().filter(|id| *id != victim).collect();
        let pairs = others.into_iter().flat_map(|other| [(victim, other), (other, victim)]);
        self.add_cut(pairs.collect());
    }

    /// Somebody has a range held by other nodes than before.
    fn move_replica(&mut self) {
        let up = self.up_ids();
        let Some(id) = (!up.is_empty()).then(|| *self.chance.pick(&up)) else { return };
        if self.nodes[&id].paused_until > self.now {
            return;
        }
        let state = self.up(id).replica.state();
        let held = |(id, range): (GroupId, &Range)| {
            let coming = range.replicas.iter().copied().find(|node| range.is_new(*node));
            (id, range.replicas.clone(), coming)
        };
        let ranges: Vec<(GroupId, Vec<NodeId>, Option<NodeId>)> =
            state.ranges().iter().map(held).collect();
        let members = state.members().values().filter(|member| !member.is_learner);
        let voters: Vec<u64> = members.map(|member| member.id).collect();
        if ranges.is_empty() {
            return;
        }
        let (range, replicas, coming) = self.chance.pick(&ranges).clone();
        if let Some(node) = coming.filter(|_| replicas.len() > 1)
            && self.chance.one_in(2)
        {
            self.see("replica asked to come no more");
            self.say(|| format!("node {id} has range {range} not held by {node} after all"));
            let request = ReplicasRequest { range: range.0, add: 0, remove: node.0 };
            self.ask(id, Command::Replicas(request), OwnCommand::MoveReplica);
            return;
        }
        let others: Vec<u64> =
            voters.into_iter().filter(|node| !replicas.contains(&NodeId(*node))).collect();
        let wants_more = replicas.len() < 2 || self.chance.one_in(4);
        let is_move = !wants_more && self.chance.one_in(2);
        let add = match &others[..] {
            [] => 0,
            others if wants_more || is_move => *self.chance.pick(others),
            _ => 0,
        };
        let remove = if wants_more { 0 } else { self.chance.pick(&replicas).0 };
        if add == 0 && (remove == 0 || replicas.len() < 2) {
            return;
        }
        self.see("replica asked to move");
        self.say(|| format!("node {id} has range {range} held by {add} and not by {remove}"));
        let request = ReplicasRequest { range: range.0, add, remove };
        self.ask(id, Command::Replicas(request), OwnCommand::MoveReplica);
    }

    /// Some member gets or loses its vote in the spine, as placement has it where there are many.
    fn move_vote(&mut self) {
        let up = self.up_ids();
        let Some(id) = (!up.is_empty()).then(|| *self.chance.pick(&up)) else { return };
        if self.nodes[&id].paused_until > self.now {
            return;
        }
        let state = self.up(id).replica.state();
        let members = state.members().values().filter(|member| !member.is_learner);
        let members: Vec<u64> = members.map(|member| member.id).collect();
        let voters = state.conf().voters.clone();
        let without = members.iter().copied().filter(|id| !voters.contains(id));
        let without: Vec<u64> = without.collect();
        let votes = !without.is_empty() && (voters.len() < 3 || self.chance.one_in(2));
        let node = match votes {
            true => *self.chance.pick(&without),
            false if voters.len() > 2 => *self.chance.pick(&voters),
            false => return,
        };
        self.say(|| format!("node {id} has node {node} vote in the spine: {votes}"));
        let request = SpineVote { node, votes };
        self.ask(id, Command::SpineVote(request), OwnCommand::SpineVote);
    }

    /// Some node has the leader of some range hand over, as placement and operators do, and keeps a
    /// record of that. It may tell of a member that is to be emptied, or no longer, which only
    /// placement minds.
    fn move_range(&mut self) {
        let up = self.up_ids();
        let Some(id) = (!up.is_empty()).then(|| *self.chance.pick(&up)) else { return };
        if self.nodes[&id].paused_until > self.now {
            return;
        }
        let ids = self.member_ids();
        let to = *self.chance.pick(&ids);
        let state = self.up(id).replica.state();
        let mut ranges: Vec<GroupId> = state.ranges().iter().map(|(range, _)| range).collect();
        ranges.push(GroupId::SPINE);
        let range = *self.chance.pick(&ranges);
        self.see("leader of a range asked to hand over");
        self.say(|| format!("node {id} is asked to have {to} lead range {range}"));
        let decision = Decision { id: range.0, time_ms: self.now, ..Decision::default() };
        self.ask(id, Command::Decide(decision), OwnCommand::Decide);
        if self.nodes[&id].running.is_some() {
            self.step(id, Input::TransferRange(range, NodeId(to)));
        }
        if self.chance.one_in(2) && self.nodes[&id].running.is_some() {
            let outcome = DecisionOutcome { id: range.0, outcome: "done".to_owned() };
            self.ask(id, Command::Conclude(outcome), OwnCommand::Conclude);
        }
        if self.chance.one_in(4) && self.nodes[&id].running.is_some() {
            let drain = MemberDrain { id: to, is_draining: self.chance.one_in(2) };
            self.ask(id, Command::MemberDrain(drain), OwnCommand::Drain);
        }
    }

    /// Somebody asks some node to merge a range with the next one, as that node knows them.
    fn merge(&mut self) {
        let up = self.up_ids();
        let Some(id) = (!up.is_empty()).then(|| *self.chance.pick(&up)) else { return };
        if self.nodes[&id].paused_until > self.now || self.up(id).stage.reach().shown.index == 0 {
            return;
        }
        let known = self.up(id).replica.state().ranges().clone();
        let next = |left: &Range| {
            let end = left.span.end.as_ref()?;
            known.iter().find(|(_, right)| right.span.start == *end)
        };
        let pairs = known.iter().filter_map(|(left, range)| Some((left, next(range)?.0)));
        let pairs: Vec<(GroupId, GroupId)> = pairs.collect();
        if pairs.is_empty() {
            return;
        }
        let (mut left, mut right) = *self.chance.pick(&pairs);
        if self.chance.one_in(10) {
            std::mem::swap(&mut left, &mut right);
        }
        if self.is_in_use(right) {
            self.see("merge with a lock in the way");
        }
        let request = MergeRequest { left: left.0, right: right.0 };
        self.ask(id, Command::Merge(request), OwnCommand::Merge);
        self.aim();
    }

    /// Whether the leader of a range has locks or writes of it under way.
    fn is_in_use(&self, range: GroupId) -> bool {
        let running = self.nodes.values().filter_map(|node| node.running.as_ref());
        let mut replicas = running.filter_map(|running| running.ranges.get(&range));
        replicas.any(|it| it.is_serving() && (it.load().locks > 0 || it.load().latched > 0))
    }

    /// A spare node is added as a learner, started, promoted, and removed again later; or, once,
    /// a founding member is removed while the spare is there.
    pub(super) fn change_members(&mut self) {
        let wait = self.chance.between(SECOND / 2, 2 * SECOND);
        self.plan_drawn(wait, Event::Members);
        let up = self.up_ids();
        let Some(leader) = self.leader().filter(|id| self.nodes[id].paused_until <= self.now)
        else {
            return;
        };
        let asked = if self.chance.one_in(2) { leader } else { *self.chance.pick(&up) };
        if self.nodes[&asked].paused_until > self.now {
            return;
        }
        let replica = &self.up(leader).replica;
        let members = replica.state().members().clone();
        let Some(spare) = self.spare else {
            let id = self.plan.nodes_count + 1 + self.members_step;
            self.members_step += 1;
            self.spare = Some(id);
            let added = Member { is_learner: true, ..member(id) };
            self.ask(asked, Command::MemberAdd(added), OwnCommand::AddMember(id));
            return;
        };
        match members.get(&spare) {
            None if self.nodes.get(&spare).is_some_and(|node| node.is_out) => self.spare = None,
            None if self.nodes.contains_key(&spare) => {
                // Seen as a member before, and the leader has removed it.
                let is_removed =
                    self.up(leader).replica.state().is_removed(flotilla_core::NodeId(spare));
                if is_removed {
                    self.nodes.get_mut(&spare).expect("looked up above").is_out = true;
                    self.crash(spare);
                    self.spare = None;
                }
            }
            None => {
                // The request to add it may have been lost, or may still come.
                let added = Member { is_learner: true, ..member(spare) };
                self.ask(asked, Command::MemberAdd(added), OwnCommand::AddMember(spare));
            }
            Some(known) if !self.nodes.contains_key(&spare) => {
                let mut node = self.new_node();
                node.first_peers = members.keys().copied().filter(|id| *id != spare).collect();
                self.say(|| format!("node {spare} joins, learner: {}", known.is_learner));
                self.nodes.insert(spare, node);
                self.after(0, Event::Start(spare));
            }
            Some(known) if known.is_learner => {
                let request = MemberPromoteRequest { id: spare };
                let command = Command::MemberPromote(request);
                self.ask(asked, command, OwnCommand::PromoteMember(spare));
            }
            Some(_) if self.chance.one_in(3) => {
                let request = MemberRemoveRequest { id: spare };
                self.ask(asked, Command::MemberRemove(request), OwnCommand::RemoveMember(spare));
            }
            Some(_) => {}
        }
    }
}
