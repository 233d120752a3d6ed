//! The end of a run: everything heals, every node must serve, everything must come to rest, and
//! what was recorded is judged.

use std::collections::{BTreeMap, BTreeSet};

use flotilla_core::{GroupId, NodeId, mvcc};

use super::client::{Must, ROUNDS};
use super::event::{Event, NodeEvent};
use super::finding::Stall;
use super::plan::{MS, SECOND};
use super::world::{Phase, World};
use crate::check::{LeaseTime, Rules};
use crate::history::{History, ReplicaHash};
use crate::model::Limits;

/// How often it is looked whether a phase is over.
const LOOK_EVERY: u64 = 50 * MS;
/// Election timeouts that a healed cluster has to serve and to come to rest.
const ELECTIONS_MAX: u64 = 60;
/// A stream that is younger than this may still have everything to come, in microseconds.
const WATCHED_FOR_MIN: u64 = 500 * MS;
/// Election timeouts after which a node is lost in a healed cluster, if one is to be.
const LOST_AFTER_ELECTIONS: u64 = 8;
/// Election timeouts after which a healed cluster is taken to be calm.
const CALM_AFTER_ELECTIONS: u64 = 20;

impl World {
    pub(super) fn look_for_rest(&mut self) {
        match self.phase {
            Phase::Trouble => self.heal_all(),
            Phase::Healed => {
                if self.now >= self.deadline {
                    self.begin_serving();
                }
            }
            Phase::Serving => self.look_for_service(),
            Phase::Resting => self.look_for_equality(),
        }
        if self.phase > Phase::Trouble {
            self.start_all();
        }
        self.after(LOOK_EVERY, Event::Rest);
    }

    /// Trouble that began late may still take a node down.
    fn start_all(&mut self) {
        let ids: Vec<u64> = self.nodes.keys().copied().collect();
        for id in ids {
            if self.nodes[&id].running.is_none() && !self.nodes[&id].is_out {
                self.after(0, Event::Start(id));
            }
        }
    }

    fn heal_all(&mut self) {
        self.say(|| "everything heals".to_owned());
        self.phase = Phase::Healed;
        self.cuts.clear();
        let ids: Vec<u64> = self.nodes.keys().copied().collect();
        for id in ids {
            let node = self.nodes.get_mut(&id).expect("listed above");
            node.paused_until = 0;
            node.slowness = 1;
            node.stuck_until = 0;
            // Nobody else may have anything for one that was removed.
            if !node.held.is_empty() {
                self.on_node(id, 0, NodeEvent::Resume);
            }
        }
        self.deadline = self.now + CALM_AFTER_ELECTIONS * self.plan.election();
        if self.plan.loses_one {
            self.after(LOST_AFTER_ELECTIONS * self.plan.election(), Event::Lose);
        }
    }

    /// One of the members does not come back. All ranges sleep by now, and those it led must find out.
    pub(super) fn lose_one(&mut self) {
        let Some(leader) = self.leader() else { return };
        let conf = self.up(leader).replica.state().conf().clone();
        let is_whole = conf.voters.len() % 2 == 1
            && conf.voters_outgoing.is_empty()
            && conf.voters.iter().all(|id| self.nodes[id].running.is_some());
        // A range follows the members of the cluster, but not while a merge locks its own.
        let running = self.nodes.values().filter_map(|node| node.running.as_ref());
        let mut ranges = running.flat_map(|running| running.ranges.values());
        let are_whole = ranges.all(|range| {
            let own = range.group().conf();
            own.voters_outgoing.is_empty() && own.voters.iter().all(|id| conf.voters.contains(id))
        });
        if !is_whole || !are_whole {
            return;
        }
        let candidates: Vec<u64> =
            conf.voters.iter().copied().filter(|id| self.can_be_lost(leader, *id)).collect();
        if candidates.is_empty() {
            return;
        }
        let id = *self.chance.pick(&candidates);
        self.see("node lost for good");
        self.say(|| format!("node {id} is lost"));
        self.crash(id);
        self.nodes.get_mut(&id).expect("it was up").is_out = true;
    }

    /// Whether every range has a majority without this node, by its log and by the leader's table.
    fn can_be_lost(&self, leader: u64, id: u64) -> bool {
        let has_majority =
            |voters: &BTreeSet<u64>| !voters.contains(&id) || 2 * (voters.len() - 1) > voters.len();
        let running = self.nodes.values().filter_map(|node| node.running.as_ref());
        let mut ranges = running.flat_map(|running| running.ranges.values());
        let by_logs =
            ranges.all(|range| has_majority(&range.group().conf().voters.into_iter().collect()));
        let state = self.nodes[&leader].running.as_ref().map(|running| running.replica.state());
        let votes = |node: NodeId| {
            state.and_then(|it| it.members().get(&node.0)).is_some_and(|it| !it.is_learner)
        };
        let by_table = state
            .into_iter()
            .flat_map(|state| state.ranges().iter())
            .all(|(_, range)| range.can_do_without(NodeId(id), votes));
        by_logs && by_table
    }

    fn begin_serving(&mut self) {
        self.say(|| "every node must serve".to_owned());
        self.phase = Phase::Serving;
        self.healed_at = self.now;
        self.deadline = self.now + ELECTIONS_MAX * self.plan.election();
        self.check_removed();
        let ids = self.member_ids();
        while self.clients.len() < ids.len() {
            self.clients.push(super::client::Client::default());
        }
        for (client, id) in ids.into_iter().enumerate() {
            self.clients[client].must = Some((id, Must::Write(ROUNDS - 1)));
            self.after(1, Event::Call(client));
        }
    }

    /// A node that was removed has stopped by now: whom it asks tells it so.
    fn check_removed(&mut self) {
        let Some(leader) = self.leader() else { return };
        let state = self.up(leader).replica.state();
        let members: Vec<u64> = state.members().keys().copied().collect();
        for id in self.member_ids() {
            if !members.contains(&id) {
                let what = format!("node {id} was removed and does not know it");
                self.invariants.stall(Stall::RemovedUntold, what);
            }
        }
    }

    fn look_for_service(&mut self) {
        let unserved = self.clients.iter().find_map(|client| {
            client.must.filter(|(id, must)| *must != Must::Nothing && !self.nodes[id].is_out)
        });
        match unserved {
            None => {
                self.phase = Phase::Resting;
                self.deadline = self.now + ELECTIONS_MAX * self.plan.election() + 10 * SECOND;
            }
            Some((id, must)) if self.now >= self.deadline => {
                let leader = self.leader();
                let ranges = self.ranges_text();
                let is_write = matches!(must, Must::Write(_));
                let what = format!(
                    "node {id} does not serve a {must:?} after everything healed; the leader is \
                     {leader:?}; {ranges}"
                );
                self.invariants.stall(if is_write { Stall::Write } else { Stall::Read }, what);
            }
            Some(_) => {}
        }
    }

    fn look_for_equality(&mut self) {
        let missing = self.missing_for_rest();
        match missing {
            None => self.is_over = true,
            Some((stall, missing)) if self.now >= self.deadline => {
                self.invariants.stall(stall, format_args!("no rest is found: {missing}"));
            }
            Some(_) => {}
        }
    }

    /// What keeps the run from its end.
    fn missing_for_rest(&self) -> Option<(Stall, String)> {
        let mut positions = Vec::new();
        for id in self.member_ids() {
            let Some(running) = &self.nodes[&id].running else {
                return Some((Stall::NodeDown, format!("node {id} is down")));
            };
            let (works, is_compacting) = (running.work.len(), running.is_compacting);
            let is_behind = running.hub.is_behind();
            if works > 0 || is_compacting || is_behind {
                let what = match (is_compacting, is_behind) {
                    (true, _) => "it compacts",
                    (_, true) => "watchers are behind",
                    _ => "",
                };
                let what = format!("node {id} has work to do: {works} in the queue {what}");
                return Some((Stall::Work, what));
            }
            if let Some(left) = self.left_of_ceased(id) {
                let what = format!("node {id}: {left}; {}", self.ranges_text());
                return Some((Stall::Remains, what));
            }
            if running.replica.applied() != running.position {
                let what = format!("node {id} has not reported what it applied");
                return Some((Stall::Unreported, what));
            }
            positions.push((running.replica.state().position(), id));
            if let Some(wrong) = self.wrong_holder(id) {
                return Some((Stall::Holders, format!("{wrong}; {}", self.ranges_text())));
            }
            if running.stage.reach().shown.index != running.position.index {
                let what = format!("node {id} does not show everything; {}", self.ranges_text());
                return Some((Stall::Hidden, what));
            }
        }
        if let Some(missing) = self.missing_for_sleep() {
            return Some(missing);
        }
        let (first, _) = positions[0];
        if let Some((position, id)) = positions.iter().find(|(position, _)| *position != first) {
            let what = format!("node {id} stands at {position:?}, another at {first:?}");
            return Some((Stall::Positions, what));
        }
        let behind = self.watching.iter().position(|watching| {
            let is_wanted =
                !watching.is_refused && watching.home.is_none_or(|home| !self.nodes[&home].is_out);
            let is_whole = watching.home.is_some();
            let since = watching.records.last().map_or(self.now, |record| record.invoked);
            let is_fresh = self.now < since + WATCHED_FOR_MIN;
            let is_behind = is_whole && watching.next <= first.revision;
            is_wanted && (!watching.is_open || is_fresh || is_behind)
        });
        if let Some(watcher) = behind {
            return Some((Stall::WatcherBehind, format!("watcher {watcher} is behind")));
        }
        let running = self.nodes.values().filter_map(|node| node.running.as_ref());
        let mut streams = running.flat_map(|running| &running.streams);
        let is_sending = |(_, stream): &(&u64, &super::node::Stream)| {
            !stream.queue.is_empty() || stream.last_arrival >= self.now
        };
        let (name, _) = streams.find(is_sending)?;
        Some((Stall::Stream, format!("stream {name} is not at its end")))
    }

    /// Whoever is to hold a range no more stays until all others are there, and who is new votes when it
    /// has most of the log: for a node that was lost, which nobody has removed from the cluster, that is
    /// for good.
    fn waits_for_the_lost(&self, range: GroupId) -> bool {
        self.nodes.values().filter_map(|node| node.running.as_ref()).any(|running| {
            let Some(known) = running.replica.state().ranges().get(range) else { return false };
            let replica = running.ranges.get(&range);
            let Some(leader) = replica.filter(|it| it.group().is_leader()) else { return false };
            let conf = leader.group().conf();
            let count = conf.voters.len() + conf.learners.len();
            // Who was added and never started is lost as well.
            let is_lost = |node: &NodeId| self.nodes.get(&node.0).is_none_or(|it| it.is_out);
            let does_not_vote = |node: &NodeId| is_lost(node) && !conf.voters.contains(&node.0);
            count > known.replicas.len() && known.replicas.iter().any(is_lost)
                || known.replicas.iter().any(does_not_vote)
        })
    }

    /// A node holds and shows what it is to hold, and nothing else.
    fn wrong_holder(&self, id: u64) -> Option<String> {
        let running = self.nodes[&id].running.as_ref()?;
        if !running.left.is_empty() {
            return Some(format!("node {id} still has keys of a range that it does not hold"));
        }
        for (range, known) in running.replica.state().ranges().iter() {
            if self.waits_for_the_lost(range) {
                continue;
            }
            let is_wanted = known.replicas.contains(&NodeId(id));
            let is_here = running.ranges.contains_key(&range);
            let is_shown = running.stage.reach().has(range);
            if is_wanted != is_here || is_wanted != is_shown {
                return Some(format!(
                    "node {id} and range {range}: wanted {is_wanted}, held {is_here}, shown \
                     {is_shown}"
                ));
            }
            let replica = running.ranges.get(&range);
            let Some(leader) = replica.filter(|it| it.group().is_leader()) else { continue };
            let conf = leader.group().conf();
            let mut members = [&conf.voters[..], &conf.learners[..]].concat();
            members.sort_unstable();
            let mut wanted: Vec<u64> = known.replicas.iter().map(|node| node.0).collect();
            wanted.sort_unstable();
            if members != wanted {
                return Some(format!("range {range} is held by {members:?}, not by {wanted:?}"));
            }
        }
        None
    }

    /// A range that nobody uses sleeps, behind a leader that all of its replicas agree on.
    fn missing_for_sleep(&self) -> Option<(Stall, String)> {
        let mut leaders = BTreeMap::new();
        for id in self.member_ids() {
            let running = self.nodes[&id].running.as_ref()?;
            for (range, replica) in running.ranges.iter().filter(|(_, it)| !it.is_removed()) {
                if replica.needs_ticks() && !self.waits_for_the_lost(*range) {
                    let text = self.ranges_text();
                    let what = format!("range {range} of node {id} does not sleep; {text}");
                    return Some((Stall::Awake, what));
                }
                let role = replica.role();
                if role.leader.is_none_or(|leader| self.nodes[&leader.0].is_out) {
                    let what = format!("range {range} of node {id} follows nobody: {role:?}");
                    return Some((Stall::Leaderless, what));
                }
                let first = *leaders.entry(*range).or_insert((role.term, role.leader));
                if first != (role.term, role.leader) {
                    let what = format!("range {range} of node {id} has {role:?}, not {first:?}");
                    return Some((Stall::Disagreement, what));
                }
            }
        }
        None
    }

    /// Everything that was recorded, and how it is to be judged.
    pub(super) fn take_history(&mut self) -> (History, Rules) {
        let mut history = History {
            operations: std::mem::take(&mut self.operations),
            evidence: std::mem::take(&mut self.applied_events).into_evidence(),
            watches: self.watching.iter().flat_map(|it| it.records.clone()).collect(),
            hashes: Vec::new(),
        };
        let mut head = history.evidence.highest();
        for id in self.member_ids() {
            let node = &self.nodes[&id];
            let Some(running) = &node.running else { continue };
            if !running.stage.is_whole() {
                continue;
            }
            let at = running.stage.shown().head;
            head = head.max(at.revision);
            match mvcc::hash_kv(&node.store.view, at, 0) {
                Ok(hash) => history.hashes.push(ReplicaHash {
                    replica: format!("node {id}"),
                    revision: at.revision,
                    compact_revision: at.compact_revision,
                    hash,
                }),
                Err(error) => self.invariants.break_with(format!("node {id}: {error}")),
            }
        }
        history.evidence.close(head);
        let election = self.plan.election();
        let ttl_min = (election * 3 / 2).div_ceil(SECOND);
        let rules = Rules {
            // With trouble aimed at what they wait for, little is answered.
            operations_min: if self.plan.is_aimed { 10 } else { 20 },
            revisions_min: 5,
            reads_min: 3,
            watch_events_min: 5,
            limits: Limits {
                lease_ttl_min_seconds: i64::try_from(ttl_min).expect("an election is short"),
                ..Limits::default()
            },
            compacts_itself: false,
            watchers_catch_up: self.is_over,
            lease_keys_are_placed: true,
            lease_time: Some(LeaseTime {
                stamps_per_second: SECOND,
                drift_ppm: self.plan.drift_ppm,
                healthy_from: self.is_over.then_some(self.healed_at),
                grace: 2 * election + 2 * SECOND,
            }),
        };
        (history, rules)
    }
}
