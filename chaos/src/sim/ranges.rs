//! The replicas of ranges beside range 0 on a node: their start, and driving their machines.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use flotilla_core::group::{self, Kind, Recovered};
use flotilla_core::proto::Span;
use flotilla_core::proto::internal::ConfState;
use flotilla_core::range::Tell;
use flotilla_core::range::replica::{Config, Effect, Input, Limits, Replica};
use flotilla_core::range::stored::{self, Stored};
use flotilla_core::snapshot::{Clear, Scope};
use flotilla_core::spine::{Parcel, State};
use flotilla_core::stage::Work;
use flotilla_core::time::Length;
use flotilla_core::view::Batch;
use flotilla_core::{GroupId, NodeId};

use super::event::{NodeEvent, Report};
use super::log_disk::{Log, Record};
use super::node::Job;
use super::world::World;

/// How often a node tries to lead a range that was split off one that it leads.
const CAMPAIGNS_MAX: u32 = 50;
/// Mean pause between two steps of the removal of keys, in microseconds.
const CLEAR_PAUSE: u64 = 3_000;
/// Mean time a message takes from one machine of a node to another, in microseconds.
const MAIL_MEAN: u64 = 30;

impl World {
    /// The machines of all replicas that are on the disk of a node.
    pub(super) fn start_ranges(&mut self, id: u64, state: &State) -> Result<(), String> {
        let node = self.nodes.get_mut(&id).expect("a node starts");
        let here = stored::ids(&node.store.view).map_err(|it| it.to_string())?;
        let ended = stored::ended_ids(&node.store.view).map_err(|it| it.to_string())?;
        let mut batch = Batch::default();
        for range in &ended {
            if !node.log.durable.contains_key(range) && state.has_ceased(*range) {
                stored::forget_ended(*range, &mut batch);
            }
        }
        if !batch.writes.is_empty() {
            node.store.apply(batch);
        }
        let is_of_use = |range: &GroupId, log: &Log| {
            here.contains(range)
                || !state.has_ceased(*range)
                || log.truncated.index <= Recovered::FIRST.index && !log.entries.is_empty()
        };
        let logs = node.log.durable.iter();
        let useless = logs.filter(|(range, log)| ended.contains(range) || !is_of_use(range, log));
        let useless: Vec<GroupId> = useless.map(|(range, _)| *range).collect();
        for range in &useless {
            node.log.write(*range, Record::Remove)?;
        }
        let without_row = node.log.durable.keys().filter(|range| !here.contains(range));
        let without_row: BTreeSet<GroupId> = without_row
            .copied()
            .filter(|range| *range != GroupId::SPINE && !useless.contains(range))
            .collect();
        self.up(id).replica.set_logs(without_row);
        if !useless.is_empty() {
            self.see("log of a merged range left by a crash");
        }
        let is_new =
            |range: &GroupId| state.ranges().get(*range).is_none() && !state.has_ceased(*range);
        if here.iter().any(is_new) {
            self.see("range started before the spine knows it");
        }
        let left = stored::left(&self.nodes[&id].store.view).map_err(|it| it.to_string())?;
        if !left.is_empty() {
            self.see("keys of a range left found at the start");
        }
        self.begin_clear_left(id, left);
        here.into_iter().try_for_each(|range| self.start_range(id, range))
    }

    /// Replicas have ended: another range has their keys.
    pub(super) fn end_ranges(&mut self, id: u64, ended: Vec<GroupId>) {
        for range in ended {
            self.see("range taken over");
            if self.up(id).hub.counts().watchers > 0 {
                self.see("merge under a live watch");
            }
            if !self.up(id).replica.state().has_ceased(range) {
                self.see("replica ahead of the spine over a merge");
            }
            self.say(|| format!("node {id} has range {range} no more"));
            if self.up(id).ranges.contains_key(&range) {
                self.mail(id, range, Input::Retire);
            } else {
                self.plan_end_log(id, range, false);
            }
        }
    }

    /// A machine is dropped; its log goes once the store is sure not to come back to it.
    pub(super) fn end_range(&mut self, id: u64, range: GroupId, keeps_votes: bool) {
        self.up(id).campaigns.remove(&range);
        if self.up(id).ranges.remove(&range).is_none() {
            return;
        }
        self.see(if keeps_votes { "replica moved away retired" } else { "merged range retired" });
        self.plan_end_log(id, range, keeps_votes);
    }

    pub(super) fn plan_end_log(&mut self, id: u64, range: GroupId, keeps_votes: bool) {
        let batches = self.nodes[&id].store.unflushed_count();
        let wait = self.chance.wait(self.plan.flush_mean * 10);
        self.on_node(id, wait, NodeEvent::EndFlushed { batches, range, keeps_votes });
    }

    pub(super) fn end_log(&mut self, id: u64, batches: usize, range: GroupId, keeps_votes: bool) {
        self.nodes.get_mut(&id).expect("it is up").store.flush(batches);
        if !keeps_votes {
            return self.write_log(id, range, Record::Remove);
        }
        // It may have a replica again by now, which has begun its log anew.
        if self.up(id).ranges.contains_key(&range) {
            return;
        }
        if let Some(last) = self.nodes[&id].log.written.get(&range).map(Log::last_place) {
            self.write_log(id, range, Record::Truncate(last));
        }
    }

    /// Some of the keys that a node holds no more are removed, or all.
    pub(super) fn clear_left(&mut self, id: u64, is_all: bool) {
        loop {
            let node = self.nodes.get_mut(&id).expect("it is up");
            let running = node.running.as_mut().expect("it is up");
            let Some((range, clear)) = running.left.front_mut() else { return };
            let range = *range;
            match clear.next(&node.store.view) {
                Ok(Some(batch)) => node.store.apply(batch),
                Ok(None) => {
                    running.left.pop_front();
                    let mut batch = Batch::default();
                    stored::forget_left(range, &mut batch);
                    node.store.apply(batch);
                    self.see("keys of a range left removed");
                }
                Err(error) => return self.invariants.break_with(format!("node {id}: {error}")),
            }
            if !is_all {
                return self.plan_clear_left(id);
            }
        }
    }

    pub(super) fn begin_clear_left(&mut self, id: u64, left: Vec<(GroupId, Span)>) {
        if left.is_empty() {
            return;
        }
        let clears =
            left.into_iter().map(|(range, span)| (range, Clear::keys(Scope::of_left(range, span))));
        self.up(id).left.extend(clears);
        self.plan_clear_left(id);
    }

    fn plan_clear_left(&mut self, id: u64) {
        // The machine knows by then that these keys do not count any more.
        let known = self.up(id).last_report.saturating_sub(self.now);
        let wait = 1 + known + self.chance.wait(CLEAR_PAUSE);
        self.on_node(id, wait, NodeEvent::ClearLeft);
    }

    /// What is left of ranges that were merged away, if anything is.
    pub(super) fn left_of_ceased(&self, id: u64) -> Option<String> {
        let node = &self.nodes[&id];
        let running = node.running.as_ref()?;
        let rows = stored::ids(&node.store.view).unwrap_or_default();
        // Of one that was left before it ceased, where it ended is kept until the next start.
        let logs = node.log.written.iter().filter(|(_, log)| !log.entries.is_empty());
        let logs = logs.map(|(range, _)| range);
        let machines = running.ranges.keys().map(|range| (range, "replica"));
        let rows = rows.iter().map(|range| (range, "row"));
        let mut here = machines.chain(rows).chain(logs.map(|range| (range, "log")));
        let ceased = here.find(|(range, _)| running.replica.state().has_ceased(**range));
        ceased.map(|(range, what)| format!("range {range} has not ended: its {what} is there"))
    }

    /// The machine of a replica, if it is on the disk of a node.
    fn start_range(&mut self, id: u64, range: GroupId) -> Result<(), String> {
        let node = &self.nodes[&id];
        let stored = Stored::load(&node.store.view, range).map_err(|it| it.to_string())?;
        let recovered = node.log.recovered(range);
        match stored {
            Some(stored) => {
                self.say(|| {
                    format!(
                        "node {id} has range {range} at {:?}, held by {:?}, {}",
                        stored.position,
                        stored.conf.voters,
                        log_text(&recovered)
                    )
                });
                self.start_replica(id, range, Some(stored), recovered)
            }
            None => Ok(()),
        }
    }

    /// A replica that has nothing, of which somebody else will send a snapshot.
    pub(super) fn begin_empty(&mut self, id: u64, range: GroupId, since: u64) {
        let mut batch = Batch::default();
        stored::set_since(range, since, &mut batch);
        self.nodes.get_mut(&id).expect("it is up").store.apply(batch);
        self.see("empty replica begun");
        let log = self.nodes[&id].log.recovered(range);
        self.say(|| {
            let text = log_text(&log);
            format!("node {id} begins range {range} without a state since {since}, {text}")
        });
        if let Err(error) = self.start_replica(id, range, None, log) {
            self.invariants.break_with(format!("node {id}, range {range}: {error}"));
        }
    }

    fn start_replica(
        &mut self,
        id: u64,
        range: GroupId,
        stored: Option<Stored>,
        recovered: Recovered,
    ) -> Result<(), String> {
        let plan = &self.plan;
        let group = group::Config {
            election_ticks: usize::try_from(plan.election_ticks).expect("few ticks"),
            sleep_after_ticks: usize::try_from(plan.sleep_after_ticks).expect("few ticks"),
            message_bytes_max: plan.message_bytes_max,
            inflight_messages_max: plan.inflight_messages_max,
            ..group::Config::new(NodeId(id), range)
        };
        let retention = plan.limits.retention;
        let since = stored::since(&self.nodes[&id].store.view, range);
        let config = Config {
            since: since.map_err(|error| error.to_string())?,
            node: NodeId(id),
            range,
            group,
            report_again_after: Length(plan.tick * 5),
            abort_after: Length(plan.request_timeout * 2),
            note_after: Length(plan.tick * 10),
            limits: Limits {
                entry_bytes_max: plan.limits.entry_bytes_max,
                entry_writes_max: plan.limits.entry_records_max,
                retention,
                ..Limits::default()
            },
        };
        let (time, chance) = (self.clock_of(id), self.chance.fork(range.0));
        let chance = Box::new(chance);
        let replica = match stored {
            Some(stored) => {
                let (applied, conf) = (stored.position.place(), stored.conf.clone());
                let recovered = Recovered { applied, conf, ..recovered };
                Replica::new(config, time, stored, recovered, chance)
            }
            None => Replica::empty(config, time, recovered, chance),
        };
        let replica = replica.map_err(|error| format!("range {range}: {error}"))?;
        self.up(id).ranges.insert(range, replica);
        Ok(())
    }

    /// A range was split off, and its replica begins here. Where its parent is led, it is led at
    /// once.
    pub(super) fn begin_range(&mut self, id: u64, range: GroupId) {
        if self.up(id).ranges.contains_key(&range) {
            self.invariants.break_with(format!("node {id} begins range {range} twice"));
            return;
        }
        self.see("range begun");
        self.say(|| format!("node {id} begins range {range}"));
        if let Err(error) = self.start_range(id, range) {
            self.invariants.break_with(format!("node {id}, range {range}: {error}"));
            return;
        }
        let running = self.up(id);
        if running.replica.leads_parent_of(range) {
            running.campaigns.insert(range, CAMPAIGNS_MAX);
        }
    }

    pub(super) fn campaign_for_children(&mut self, id: u64) {
        let due: Vec<GroupId> = self.up(id).campaigns.keys().copied().collect();
        for range in due {
            let running = self.up(id);
            let left = running.campaigns[&range];
            let has_leader = running.ranges.get(&range).is_none_or(|it| it.role().leader.is_some());
            if has_leader || left == 0 {
                running.campaigns.remove(&range);
            } else {
                running.campaigns.insert(range, left - 1);
                self.step_range(id, range, Input::Campaign);
            }
        }
    }

    /// Something for the machine of a range, after what was sent to it before.
    pub(super) fn mail(&mut self, id: u64, range: GroupId, input: Input) {
        self.after_mail(id, range, NodeEvent::Mail(range, input));
    }

    pub(super) fn after_mail(&mut self, id: u64, range: GroupId, event: NodeEvent) {
        let wait = self.chance.wait(MAIL_MEAN);
        let now = self.now;
        let last = self.up(id).last_mail.entry(range).or_default();
        *last = (*last).max(now + wait);
        let wait = *last - now;
        self.on_node(id, wait, event);
    }

    pub(super) fn step_range(&mut self, id: u64, range: GroupId, input: Input) {
        let now = self.clock_of(id);
        let node = self.nodes.get_mut(&id).expect("a step is made by a node");
        let Some(running) = node.running.as_mut() else { return };
        let Some(replica) = running.ranges.get_mut(&range) else {
            if matches!(input, Input::Submit(..)) {
                let what =
                    format!("node {id} gives a request to range {range}, which is not there");
                self.invariants.break_inside(what);
            }
            return;
        };
        let was_asleep = replica.group().is_asleep();
        let waker = waker(&input, replica.group().is_leader());
        let is_learner = replica.group().is_learner();
        let mut effects = Vec::new();
        if let Err(error) = replica.step(now, &node.store.view, input, &mut effects) {
            self.invariants.break_with(format!("node {id}, range {range}: {error}"));
            return;
        }
        match (was_asleep, replica.group().is_asleep(), replica.group().is_leader()) {
            (false, true, true) => self.see("leader of a range fell asleep"),
            (false, true, false) if is_learner => self.see("learner of a range fell asleep"),
            (false, true, false) => self.see("follower of a range fell asleep"),
            (true, false, _) => {
                self.see(waker);
                if is_learner {
                    self.see("learner of a range woken");
                }
                self.say(|| format!("node {id}, range {range}: {waker}"));
            }
            _ => {}
        }
        for effect in effects {
            self.carry_out_range(id, range, effect);
        }
        self.flush_links(id);
    }

    /// How every replica of every range stands.
    pub(super) fn ranges_text(&self) -> String {
        let mut text = String::new();
        for (id, node) in &self.nodes {
            let Some(running) = &node.running else { continue };
            let (stage, group) = (&running.stage, running.replica.group());
            let _ = write!(
                text,
                "node {id} shows {:?}, wants {}, log to {}, committed to {}, {:?}, {}",
                stage.reach(),
                stage.wants(),
                group.last_index(),
                group.commit(),
                group.progress(),
                running.replica.load_text()
            );
            for (range, replica) in &running.ranges {
                let (role, applied) = (replica.role(), replica.applied());
                let known = running.replica.state().ranges().get(*range);
                let assigned = known.map(|it| it.assigned);
                let conf = replica.group().conf();
                let holders = (conf.voters, conf.learners, known.map(|it| &it.replicas));
                let _ = write!(
                    text,
                    ", range {range} {role:?}: {:?} committed, {assigned:?} numbered, {applied:?}, \
                     {:?}, serving {}, asleep {}, needs ticks {}, undecided {:?}, held {holders:?}",
                    (replica.committed(), replica.group().commit(), replica.group().last_index()),
                    replica.load(),
                    replica.is_serving(),
                    replica.group().is_asleep(),
                    replica.needs_ticks(),
                    replica.undecided()
                );
            }
            text.push_str("; ");
        }
        text
    }

    fn carry_out_range(&mut self, id: u64, range: GroupId, effect: Effect) {
        let replica = &self.up(id).ranges[&range];
        let effect = match Tell::from_effect(effect, replica) {
            Ok(tell) => {
                if let Tell::Role(role) = &tell
                    && role.part == group::Part::Leader
                {
                    self.see("leader of a range elected");
                    self.invariants.leads_range(range, id, role.term);
                }
                self.report(id, Report::Tell(range, tell));
                return;
            }
            Err(effect) => effect,
        };
        match effect {
            Effect::Append(append) => self.write_log(id, range, Record::Append(append)),
            Effect::Truncate(place) => {
                self.see("log of a range truncated");
                self.write_log(id, range, Record::Truncate(place));
            }
            Effect::Send(message) => self.gather(id, message.to, Parcel::Raft(message)),
            Effect::Apply(task) => self.work(id, Job::Apply(Work::Range(task))),
            Effect::FlushStore => self.flush_store(id, range),
            Effect::Ignored(from, kind, reason) => {
                self.say(|| format!("node {id}, range {range} ignores {kind} of {from}: {reason}"));
            }
            Effect::CatchingUp => self.work(id, Job::Apply(Work::CatchingUp(range))),
            Effect::CaughtUp => self.work(id, Job::Apply(Work::CaughtUp(range))),
            Effect::SendSnapshot(to, message) => self.send_snapshot(id, to.0, message),
            Effect::Install(mark) => {
                self.see("snapshot of a range installed");
                self.say(|| format!("node {id} installs range {range} at {}", mark.index));
                self.install_staged(id, range);
            }
            Effect::SnapshotRefused(_) => {
                self.see("snapshot refused");
                self.up(id).staged.remove(&range);
            }
            Effect::Replicas(place, conf) => {
                self.see("members of a range changed");
                let ConfState { voters, learners, .. } = conf;
                self.say(|| {
                    format!(
                        "node {id}: range {range} is held by {voters:?}, {learners:?} at {place:?}"
                    )
                });
            }
            Effect::ReplicasRefused(_) => {}
            other => unreachable!("the spine's machine takes {other:?}"),
        }
    }
}

/// What wakes a member of a group that sleeps.
fn waker(input: &Input, is_leader: bool) -> &'static str {
    match input {
        Input::Message(message) if message.kind == Kind::Wake as u32 => {
            "leader of a range woken by a follower"
        }
        Input::Message(_) => "range woken by a message",
        Input::Alive(_) if is_leader => "leader of a range woken by a node that came or went",
        Input::Alive(_) => "range woken by the silence of its leader's node",
        Input::Tick | Input::CatchUp => "range woken by its own need",
        _ => "range woken by a request",
    }
}

/// Keys at which the keyspace of a run may be cut, in order.
pub(super) const CUTS: [&[u8]; 6] = [b"e", b"k1", b"k3", b"k5", b"k6", b"l"];

/// What a log has, for a person.
fn log_text(log: &Recovered) -> String {
    let last = log.entries.last().map_or(log.truncated.index, |entry| entry.index);
    format!("log {}..{last}, {:?}", log.truncated.index, log.hard_state)
}
