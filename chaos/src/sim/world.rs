//! The world: nodes, network, clients, and the loop that lets one event happen after the other.
//! Single-threaded, and nothing in it depends on anything but the seed.

use std::collections::{BTreeMap, BTreeSet};

use flotilla_core::group::{self, Position as Place, Recovered};
use flotilla_core::membership::Policy;
use flotilla_core::proto::internal::{ConfState, Member};
use flotilla_core::range::stored::Stored;
use flotilla_core::spine::{self, Replica, State};
use flotilla_core::stage::Stage;
use flotilla_core::time::Length;
use flotilla_core::view::Batch;
use flotilla_core::watch::{self, Hub};
use flotilla_core::{GroupId, NodeId};

use super::applied::AppliedEvents;
use super::chance::Chance;
use super::client::Client;
use super::event::{Event, NodeEvent, Queue, Report};
use super::invariants::Invariants;
use super::mutant::Mutant;
use super::node::{Node, Running};
use super::plan::{MS, Options, Plan, SECOND};
use super::reduction::Reduction;
use super::tape::Tape;
use super::trace::Trace;
use super::trouble::Cut;
use super::users::Users;
use super::watcher::Watching;
use crate::history::Operation;

/// The id of the cluster, which no decision depends on.
pub(super) const CLUSTER_ID: u64 = 0xf107;
/// A run that is not over after so many events never will be.
const EVENTS_MAX: u64 = 20_000_000;
/// The same where it is looked how far a large cluster scales.
const SCALE_EVENTS_MAX: u64 = 1_000_000_000;

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Traffic and trouble.
    Trouble,
    /// Everything is healed; leases run down and clients finish.
    Healed,
    /// Each node must serve a write and a read.
    Serving,
    /// Nothing is asked any more.
    Resting,
}

/// Everything there is.
pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) mutant: Option<Mutant>,
    /// See `check_disks`.
    pub(super) are_disks_checked: bool,
    pub(super) chance: Chance,
    pub(super) now: u64,
    pub(super) queue: Queue,
    /// The number in the queue of what happens.
    pub(super) nth: u64,
    /// The troubles that came.
    pub(super) tape: Tape,
    /// Those of the whole run, in one of which a part is left out.
    pub(super) replayed: Option<Tape>,
    pub(super) reduction: Reduction,
    pub(super) trace: Trace,
    pub(super) phase: Phase,
    pub(super) nodes: BTreeMap<u64, Node>,
    pub(super) cuts: BTreeMap<u64, Cut>,
    pub(super) cuts_count: u64,
    pub(super) members_step: u64,
    pub(super) spare: Option<u64>,
    pub(super) clients: Vec<Client>,
    pub(super) operations: Vec<Operation>,
    /// Leases that were granted and not revoked as far as clients know.
    pub(super) leases: BTreeSet<i64>,
    /// Reads that were told to look anew.
    pub(super) reads_refused: BTreeSet<usize>,
    pub(super) leases_count: i64,
    pub(super) revision_seen: i64,
    pub(super) watching: Vec<Watching>,
    pub(super) applied_events: AppliedEvents,
    pub(super) invariants: Invariants,
    /// If there are any.
    pub(super) users: Option<Users>,
    pub(super) healed_at: u64,
    pub(super) deadline: u64,
    pub(super) is_over: bool,
    /// What happened how often, so that a run that proves nothing is noticed.
    pub(super) seen: BTreeMap<&'static str, u64>,
}

impl World {
    /// The world of a run, or of a reduced one, which needs the tape of the whole run.
    pub(super) fn new(seed: u64, options: &Options, replayed: Option<Tape>) -> Self {
        let mut chance = Chance::new(seed);
        let mut plan = Plan::draw(&mut chance.fork(1), options);
        options.reduction.reduce(&mut plan);
        let mut world = Self {
            mutant: options.mutant,
            are_disks_checked: options.mutant.is_none() && options.machine_mutant.is_none(),
            chance: chance.fork(2),
            now: 0,
            queue: Queue::default(),
            nth: 0,
            tape: Tape::default(),
            replayed,
            reduction: options.reduction.clone(),
            trace: Trace::new(options.lines_max),
            phase: Phase::Trouble,
            nodes: BTreeMap::new(),
            cuts: BTreeMap::new(),
            cuts_count: 0,
            members_step: 0,
            spare: None,
            clients: Vec::new(),
            operations: Vec::new(),
            leases: BTreeSet::new(),
            reads_refused: BTreeSet::new(),
            leases_count: 0,
            revision_seen: 1,
            watching: Vec::new(),
            applied_events: AppliedEvents::default(),
            invariants: Invariants::new(options.is_black_box),
            users: options.has_users().then(Users::default),
            healed_at: 0,
            deadline: 0,
            is_over: false,
            seen: BTreeMap::new(),
            plan,
        };
        world.found();
        world.begin_clients();
        world.begin_watching();
        world.plan_trouble();
        world
    }

    /// Lets events happen until the run is over or a check fails.
    pub(super) fn run(&mut self) {
        while !self.is_over && self.invariants.is_intact() {
            let Some((at, nth, event)) = self.queue.pop() else {
                self.invariants.break_with(format!("nothing is left to happen at {}", self.now));
                return;
            };
            let events_max = if self.plan.scale.is_some() { SCALE_EVENTS_MAX } else { EVENTS_MAX };
            if nth > events_max {
                self.invariants.break_with(format!("no end after {events_max} events"));
                return;
            }
            assert!(at >= self.now, "time does not go back");
            (self.now, self.nth) = (at, nth);
            self.trace.number(at);
            self.happen(event);
        }
    }

    pub(super) fn see(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    pub(super) fn say(&mut self, line: impl FnOnce() -> String) {
        self.trace.say(self.now, line);
    }

    pub(super) fn after(&mut self, wait: u64, event: Event) {
        self.queue.push(self.now + wait, event);
    }

    pub(super) fn on_node(&mut self, id: u64, wait: u64, event: NodeEvent) {
        let life = self.nodes[&id].life;
        self.after(wait, Event::Node(id, life, event));
    }

    pub(super) fn running(&mut self, id: u64) -> Option<&mut Running> {
        self.nodes.get_mut(&id).and_then(|node| node.running.as_mut())
    }

    /// As `running`, for a node that is known to be up.
    pub(super) fn up(&mut self, id: u64) -> &mut Running {
        self.running(id).expect("an event of a life happens while it lasts")
    }

    pub(super) fn is_mutant(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// Ids of the nodes that are up.
    pub(super) fn up_ids(&self) -> Vec<u64> {
        let up = self.nodes.iter().filter(|(_, node)| node.running.is_some());
        up.map(|(id, _)| *id).collect()
    }

    /// Ids of the nodes that belong to the cluster, up or not.
    pub(super) fn member_ids(&self) -> Vec<u64> {
        let members = self.nodes.iter().filter(|(_, node)| !node.is_out);
        members.map(|(id, _)| *id).collect()
    }

    /// The leader of the highest term, if some node takes itself for it.
    pub(super) fn leader(&self) -> Option<u64> {
        let leaders = self.nodes.iter().filter_map(|(id, node)| {
            let status = node.running.as_ref()?.replica.status();
            status.is_leader.then_some((status.term, *id))
        });
        leaders.max().map(|(_, id)| id)
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Node(id, life, event) => self.happen_on(id, life, event),
            Event::Start(id) => self.start(id),
            Event::Call(client) => self.call(client),
            Event::GiveUp(operation) => self.give_up(operation),
            Event::Return(operation, outcome) => self.return_outcome(operation, outcome),
            Event::WatchOpen(watcher) => self.open_watch(watcher),
            Event::WatchReceive(watcher, session, bytes) => {
                self.receive_watch(watcher, session, &bytes);
            }
            Event::WatchLost(watcher, session) => self.lose_watch(watcher, session),
            Event::WatchAct(watcher, session) => self.act_on_watch(watcher, session),
            Event::Trouble | Event::Members | Event::Strike | Event::AfterVote { .. } => {
                self.happen_drawn(&event);
            }
            Event::Replay(place) => self.replay(place),
            Event::Heal(cut) => self.heal_cut(cut),
            Event::DiskHeals(id) => {
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.slowness = 1;
                }
            }
            Event::Lose => self.lose_one(),
            Event::Spread => self.spread_leaders(),
            Event::Rest if self.plan.scale.is_some() => self.is_over = true,
            Event::Rest => self.look_for_rest(),
        }
    }

    pub(super) fn happen_on(&mut self, id: u64, life: u32, event: NodeEvent) {
        let Some(node) = self.nodes.get(&id) else { return };
        if node.life != life || node.running.is_none() {
            return;
        }
        if node.paused_until > self.now {
            self.hold_back(id, life, event);
            return;
        }
        self.let_go(id);
        let node = &self.nodes[&id];
        if matches!(event, NodeEvent::Resume) || node.life != life || node.running.is_none() {
            return;
        }
        if self.plan.scale.is_some() {
            let next = match event {
                NodeEvent::Free => self.on_free(id),
                event => self.on_processor(id, event),
            };
            if let Some(event) = next {
                self.carry_out_event(id, event);
            }
            return;
        }
        self.carry_out_event(id, event);
    }

    /// A node that does nothing for a while does later, in order, what it is to do meanwhile.
    fn hold_back(&mut self, id: u64, life: u32, event: NodeEvent) {
        let node = self.nodes.get_mut(&id).expect("it is paused");
        let until = node.paused_until;
        let is_resume = matches!(event, NodeEvent::Resume);
        let is_first = node.held.is_empty();
        if !is_resume {
            node.held.push_back((life, event));
        }
        if is_resume || is_first {
            self.queue.push(until, Event::Node(id, life, NodeEvent::Resume));
        }
    }

    /// What was held back comes before anything else, also where the pause ended early.
    fn let_go(&mut self, id: u64) {
        let held = std::mem::take(&mut self.nodes.get_mut(&id).expect("it is up").held);
        for (life, event) in held {
            let node = &self.nodes[&id];
            if node.life == life && node.running.is_some() {
                self.carry_out_event(id, event);
            }
        }
    }

    fn carry_out_event(&mut self, id: u64, event: NodeEvent) {
        match event {
            NodeEvent::Timer => self.on_timer(id),
            NodeEvent::Turn => self.on_turn(id),
            NodeEvent::LogFlushed => self.on_log_flushed(id),
            NodeEvent::Apply => self.on_apply(id),
            NodeEvent::Compact => self.on_compact(id),
            NodeEvent::Report(report) => self.on_report(id, report),
            NodeEvent::Mail(range, input) => self.step_range(id, range, input),
            NodeEvent::StoreFlushed { batches, index } => {
                self.on_store_flushed(id, batches, index);
            }
            NodeEvent::EndRange(range, keeps_votes) => self.end_range(id, range, keeps_votes),
            NodeEvent::ClearLeft => self.clear_left(id, false),
            NodeEvent::EndFlushed { batches, range, keeps_votes } => {
                self.end_log(id, batches, range, keeps_votes);
            }
            NodeEvent::Write(to) => self.on_write(id, to),
            NodeEvent::Dial(to) => self.on_dial(id, to),
            NodeEvent::Broken(to, connection) => self.on_broken(id, to, connection),
            NodeEvent::Frame { from, life, connection, bytes } => {
                self.on_frame(id, from, life, connection, &bytes);
            }
            NodeEvent::Request(operation) => self.on_request(id, operation),
            NodeEvent::Evaluate(operation) => self.evaluate_read(id, operation),
            NodeEvent::CatchUp => self.on_catch_up(id),
            NodeEvent::HubTimer => self.on_hub_timer(id),
            NodeEvent::StreamWrite(stream) => self.on_stream_write(id, stream),
            NodeEvent::StreamRequest(stream, bytes) => self.on_stream_request(id, stream, &bytes),
            NodeEvent::Snapshot(transfer) => self.on_snapshot(id, transfer),
            NodeEvent::Free | NodeEvent::Resume => {}
        }
    }
}

// Nodes come and go.
impl World {
    fn found(&mut self) {
        let members: Vec<Member> = (1..=self.plan.nodes_count).map(member).collect();
        let mut state = State::bootstrap(CLUSTER_ID, members);
        state.limit_votes(self.plan.spine_voters());
        let founders: Vec<NodeId> = (1..=self.plan.nodes_count).map(NodeId).collect();
        state.want_replicas(self.plan.replicas_wanted);
        state.pre_split(&self.plan.cuts, &founders);
        for id in 1..=self.plan.nodes_count {
            let mut node = self.new_node();
            let mut batch = Batch::default();
            state.write_all(&mut batch);
            for (range, known) in state.ranges().iter() {
                if known.replicas.contains(&NodeId(id)) {
                    let voters = known.replicas.iter().map(|node| node.0).collect();
                    let conf = ConfState { voters, ..ConfState::default() };
                    Stored::first(conf, known.span.clone()).write(range, &mut batch);
                }
            }
            node.store.apply_durably(&batch);
            self.nodes.insert(id, node);
            self.after(0, Event::Start(id));
        }
    }

    pub(super) fn new_node(&mut self) -> Node {
        let ppm = self.plan.drift_ppm;
        let drift = self.chance.between(0, 2 * ppm);
        Node::new(i64::try_from(drift).expect("small") - i64::try_from(ppm).expect("small"))
    }

    fn start(&mut self, id: u64) {
        // That it joined may have been left out of a reduced run.
        let Some(node) = self.nodes.get(&id).filter(|it| it.running.is_none() && !it.is_out) else {
            return;
        };
        let loaded = match State::load(&node.store.view) {
            Ok(loaded) => loaded,
            Err(error) => {
                self.invariants.break_with(format!("node {id} cannot read its state: {error}"));
                return;
            }
        };
        let mut recovered = node.log.recovered(GroupId::SPINE);
        if self.mutant == Some(Mutant::VoteForgotten) {
            let last = recovered.entries.last().map_or(recovered.truncated.term, |it| it.term);
            recovered.hard_state.term = last;
            recovered.hard_state.vote = 0;
        }
        let state = match loaded {
            Some(state) => {
                let position = state.position();
                recovered.applied = Place { index: position.index, term: position.term };
                recovered.conf = state.conf().clone();
                state
            }
            None => State::empty(CLUSTER_ID),
        };
        self.start_from(id, state, recovered);
    }

    fn start_from(&mut self, id: u64, state: State, recovered: Recovered) {
        let (now, position) = (self.now, state.position());
        self.trace.number(position.index);
        self.say(|| {
            format!(
                "node {id} starts: store at {}, log {}..{}, {:?}",
                position.index,
                recovered.truncated.index,
                recovered.entries.last().map_or(0, |entry| entry.index),
                recovered.hard_state
            )
        });
        let config = self.config_of(id);
        let origin = config.origin;
        let chance = self.chance.fork(id);
        let clock_base = self.chance.between(0, 3_600 * SECOND);
        let time = flotilla_core::Time(clock_base);
        let made = Replica::new(config, time, state.clone(), recovered, Box::new(chance));
        let replica = match made {
            Ok(replica) => replica,
            Err(error) => {
                self.invariants.break_with(format!("node {id} cannot start: {error}"));
                return;
            }
        };
        let hub_config = watch::Config {
            cluster_id: CLUSTER_ID,
            member_id: id,
            progress_interval: Length(self.plan.progress_every),
            election_timeout: self.plan.election_timeout(),
            limits: self.plan.watch_limits.clone(),
        };
        let node = self.nodes.get_mut(&id).expect("a node is made before it starts");
        let stage = match position.index {
            0 => Ok(Stage::joining()),
            _ => Stage::open(&node.store.view),
        };
        let stage = match stage {
            Ok(stage) => stage,
            Err(error) => {
                self.invariants.break_with(format!("node {id} cannot start: {error}"));
                return;
            }
        };
        let head = stage.reach().shown.head;
        let hub = Hub::new(hub_config, head.revision, head.compact_revision);
        node.life += 1;
        node.running = Some(Running {
            status: replica.status(),
            replica,
            origin,
            started: now,
            clock_base,
            ticked: now,
            is_turn_due: false,
            unflushed: Default::default(),
            last_report: now,
            position,
            stage,
            ranges: Default::default(),
            campaigns: Default::default(),
            blocks_forgotten: Default::default(),
            left: Default::default(),
            last_mail: Default::default(),
            work: Default::default(),
            is_applying: false,
            is_compacting: position.compact_revision >= 0,
            is_compaction_planned: false,
            is_store_flushing: false,
            links: Default::default(),
            guests: Default::default(),
            unsent: Vec::new(),
            dropped: Vec::new(),
            dead_connections: Default::default(),
            snapshots: Default::default(),
            snapshots_count: 0,
            staged: Default::default(),
            commands: Default::default(),
            tickets: Default::default(),
            without_keys: Default::default(),
            elsewhere: Default::default(),
            requests_count: 0,
            replied: Default::default(),
            applied: Default::default(),
            hub,
            is_catch_up_planned: false,
            fetching: None,
            hub_timer: None,
            streams: Default::default(),
        });
        let first_peers = node.first_peers.clone();
        if let Err(error) = self.start_ranges(id, &state) {
            self.invariants.break_with(format!("node {id} cannot start: {error}"));
            return;
        }
        let (cluster, status) = {
            let replica = &self.up(id).replica;
            (replica.cluster(), replica.status())
        };
        for peer in first_peers {
            self.link(id, peer);
        }
        let first = vec![spine::Effect::Cluster(cluster), spine::Effect::Status(status)];
        self.carry_out(id, first);
        if position.index != 0 {
            let (remote, answered, early) = (Vec::new(), Vec::new(), Vec::new());
            let reach = Some(self.up(id).stage.reach().clone());
            let (spine, begun, ended) = (None, Vec::new(), Vec::new());
            self.report(
                id,
                Report::Applied { spine, reach, remote, answered, early, begun, ended },
            );
        }
        self.on_node(id, 0, NodeEvent::Timer);
        self.plan_compaction(id);
    }

    fn config_of(&mut self, id: u64) -> spine::Config {
        let plan = &self.plan;
        let group = group::Config {
            election_ticks: usize::try_from(plan.election_ticks).expect("few ticks"),
            message_bytes_max: plan.message_bytes_max,
            inflight_messages_max: plan.inflight_messages_max,
            ..group::Config::new(NodeId(id), GroupId::SPINE)
        };
        spine::Config {
            node: NodeId(id),
            origin: self.chance.draw() | 1,
            tick: Length(plan.tick),
            group,
            election_timeout: plan.election_timeout(),
            request_timeout: Length(plan.request_timeout),
            policy: Policy { learners_max: 1, is_strict: false },
            limits: plan.limits.clone(),
            cluster_version: "3.6.0".to_owned(),
        }
    }

    /// The node loses power.
    pub(super) fn crash(&mut self, id: u64) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let Some(running) = node.running.take() else { return };
        let state = running.replica.state();
        let is_merging = running
            .ranges
            .iter()
            .any(|(range, replica)| replica.is_merging() || state.has_ceased(*range));
        let is_alone = |voters: &[u64]| voters == [id];
        let mut alone = Vec::new();
        if is_alone(&state.conf().voters) {
            alone.push(GroupId::SPINE);
        }
        for range in running.ranges.keys() {
            let stored = Stored::load(&node.store.view, *range).ok().flatten();
            if stored.is_some_and(|stored| is_alone(&stored.conf.voters)) {
                alone.push(*range);
            }
        }
        let lost_records = node.log.crash(&mut self.chance);
        let lost_batches = node.store.crash(&mut self.chance);
        if self.mutant == Some(Mutant::FlushForgotten) {
            for _ in 0..self.chance.below(3) {
                node.log.durable.entry(GroupId::SPINE).or_default().entries.pop_back();
            }
            node.log.written = node.log.durable.clone();
        }
        for group in alone {
            let log = node.log.durable.get(&group);
            self.invariants.forgets(group, id, log.map_or(0, |log| log.hard_state.term));
        }
        node.paused_until = 0;
        self.see("crash");
        if is_merging {
            self.see("crash in the middle of a merge");
        }
        if lost_records > 0 {
            self.see("crash lost log records");
        }
        if lost_batches > 0 {
            self.see("crash lost store batches");
        }
        self.say(|| {
            format!("node {id} crashes, losing {lost_records} records, {lost_batches} batches")
        });
        self.check_disks(id);
        self.lose_streams(id);
        self.notice_crash(id);
    }

    /// Peers of a crashed node find their connections broken, at once or when they give up.
    fn notice_crash(&mut self, id: u64) {
        for peer in self.up_ids() {
            let Some(link) = self.up(peer).links.get(&id) else { continue };
            if link.is_up {
                let connection = link.connection;
                let patience = self.plan.election() / 2;
                let wait = if self.chance.one_in(2) { MS } else { self.chance.wait(patience) };
                self.on_node(peer, wait, NodeEvent::Broken(id, connection));
            }
        }
    }
}

/// A founding member.
pub(super) fn member(id: u64) -> Member {
    Member {
        id,
        name: format!("n{id}"),
        peer_urls: vec![format!("http://n{id}:2380")],
        ..Member::default()
    }
}
