//! How far a cluster scales: the same machines and the same network, every node with a capacity, and
//! virtual time, so that a cluster of any size can be looked at on any machine.
//!
//! A node does one thing at a time, and each takes so long as [`cost`] says; what comes meanwhile
//! waits its turn. There are no faults, and nothing is checked but that puts are answered. It shows
//! how throughput grows with nodes, not what a real node does in a second.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use flotilla_core::spine::Input;
use flotilla_core::{GroupId, NodeId};

use super::event::{Event, NodeEvent};
use super::node::Job;
use super::plan::{MS, Options, Plan, SECOND};
use super::world::World;
use crate::history::{Outcome, Request};

/// Keys of all ranges together.
const KEYS: u64 = 1_000;
/// Of a skewed load, every other put is of one of these keys, which are next to each other.
const HOT: (u64, u64) = (500, 510);
/// Members that vote in the spine.
const VOTERS: u64 = 5;
/// When leaders are spread, and again for those that did not take part.
const SPREAD_AT: [u64; 3] = [SECOND, 1_500 * MS, 2 * SECOND];
/// Answers count from here on.
const MEASURED_FROM: u64 = 2_500 * MS;
/// Everything ends here.
const MEASURED_TO: u64 = 4 * SECOND;

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    /// Nodes.
    pub nodes_count: u64,
    /// Ranges beside range 0, each on three nodes.
    pub ranges_count: u64,
    /// Puts under way, of all clients together.
    pub outstanding: u32,
    /// Every other put is of a few keys next to each other.
    pub is_skewed: bool,
    /// The spine's leader leads no range.
    pub is_spine_apart: bool,
}

/// What was seen.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// Puts answered in a second.
    pub puts_per_second: f64,
    /// Their median latency, in microseconds.
    pub p50_us: u64,
    /// And the 99th percentile.
    pub p99_us: u64,
    /// Share of the time that nodes were busy: of the spine's leader.
    pub spine_leader_busy: f64,
    /// Of the busiest node.
    pub busiest: f64,
    /// Of all nodes, on average.
    pub mean_busy: f64,
    /// Ranges that each node leads, most first.
    pub led: Vec<usize>,
}

/// A node's only processor.
#[derive(Default)]
pub(super) struct Processor {
    /// What waits for it.
    waiting: VecDeque<NodeEvent>,
    is_busy: bool,
    /// Since `MEASURED_FROM`.
    busy_us: u64,
}

/// Runs it.
///
/// # Errors
/// What broke, if anything did.
pub fn look(scale: Scale, seed: u64) -> Result<Seen, String> {
    let options = Options { is_black_box: true, scale: Some(scale), ..Options::default() };
    let mut world = World::new(seed, &options, None);
    world.run();
    match world.invariants.found() {
        Some(found) => Err(found.text.clone()),
        None => Ok(world.scale_seen()),
    }
}

impl Plan {
    /// No faults, a good network and good disks.
    pub(super) fn set_scale(&mut self, scale: Scale) {
        let mut keys: Vec<String> = (0..KEYS).map(|key| format!("k{key}")).collect();
        keys.sort_unstable();
        let every = keys.len() / usize::try_from(scale.ranges_count).expect("few ranges");
        let cuts =
            keys.iter().step_by(every).take(usize::try_from(scale.ranges_count).expect("few"));
        self.cuts = cuts.map(|key| Bytes::from(key.clone())).collect();
        self.nodes_count = scale.nodes_count;
        self.is_split = true;
        self.replicas_wanted = 3;
        self.faults = Vec::new();
        self.trouble_for = MEASURED_TO;
        self.tick = 100 * MS;
        self.election_ticks = 10;
        self.sleep_after_ticks = 0;
        self.request_timeout = 10 * SECOND;
        self.drift_ppm = 0;
        self.network.delay_mean = 100;
        (self.network.loss, self.network.repeat) = (0, 0);
        (self.network.overtake, self.network.flip) = (0, 0);
        self.flush_mean = 300;
        self.apply_mean = 20;
        self.batch_tasks_max = 64;
        self.store_flush_one_in = 1_000;
        self.message_bytes_max = 1 << 20;
        self.inflight_messages_max = 256;
        self.limits = flotilla_core::spine::Limits::default();
        self.watch_limits = flotilla_core::watch::Limits::default();
        let traffic = &mut self.traffic;
        traffic.clients_count = scale.outstanding;
        traffic.think_mean = 0;
        traffic.keys_count = KEYS;
        traffic.patience = 20 * SECOND;
        traffic.weights = crate::traffic::KINDS.iter().map(|_| 0).collect();
        traffic.weights[0] = 1;
        traffic.watchers_count = 0;
        traffic.attached_one_in = u64::MAX;
        // One that reads its key first waits for all before it, and keeps all behind it waiting.
        traffic.kept_one_in = u64::MAX;
        traffic.focus = None;
        traffic.hot = scale.is_skewed.then_some(HOT);
        self.scale = Some(scale);
    }

    /// Who votes in the spine of a cluster that is founded.
    pub(super) fn spine_voters(&self) -> u64 {
        if self.scale.is_some() { self.nodes_count.min(VOTERS) } else { self.nodes_count }
    }
}

impl World {
    pub(super) fn plan_scale(&mut self) {
        for at in SPREAD_AT {
            self.queue.push(at, Event::Spread);
        }
        self.queue.push(MEASURED_TO, Event::Rest);
    }

    /// A node has something to do: now, or when it has done what came before.
    pub(super) fn on_processor(&mut self, id: u64, event: NodeEvent) -> Option<NodeEvent> {
        let node = self.nodes.get_mut(&id).expect("it is up");
        if node.processor.is_busy {
            node.processor.waiting.push_back(event);
            return None;
        }
        self.occupy(id, &event);
        Some(event)
    }

    fn occupy(&mut self, id: u64, event: &NodeEvent) {
        let works = self.up(id).work.iter().take(64);
        let cost = cost(event, works);
        let is_measured = self.now >= MEASURED_FROM;
        let processor = &mut self.nodes.get_mut(&id).expect("it is up").processor;
        processor.is_busy = true;
        if is_measured {
            processor.busy_us += cost;
        }
        self.on_node(id, cost, NodeEvent::Free);
    }

    /// What took the processor is done; what waits is next.
    pub(super) fn on_free(&mut self, id: u64) -> Option<NodeEvent> {
        let processor = &mut self.nodes.get_mut(&id).expect("it is up").processor;
        processor.is_busy = false;
        let next = processor.waiting.pop_front()?;
        self.occupy(id, &next);
        Some(next)
    }

    /// As placement would have it: every node leads as many ranges as the others.
    pub(super) fn spread_leaders(&mut self) {
        let Some(leader) = self.leader() else { return };
        let ranges: Vec<(GroupId, Vec<NodeId>)> = {
            let state = self.up(leader).replica.state();
            state.ranges().iter().map(|(range, known)| (range, known.replicas.clone())).collect()
        };
        let is_apart = self.plan.scale.is_some_and(|scale| scale.is_spine_apart);
        let mut led = BTreeMap::<NodeId, usize>::new();
        if is_apart {
            led.insert(NodeId(leader), ranges.len());
        }
        for (range, replicas) in ranges {
            let to = replicas.into_iter().min_by_key(|node| led.get(node).copied().unwrap_or(0));
            let to = to.expect("a range has replicas");
            *led.entry(to).or_default() += 1;
            self.step(leader, Input::TransferRange(range, to));
        }
    }

    fn scale_seen(&self) -> Seen {
        let mut latencies: Vec<u64> = self
            .operations
            .iter()
            .filter(|it| matches!(it.request, Request::Put(_)))
            .filter(|it| matches!(it.outcome, Outcome::Answered(_)))
            .filter_map(|it| Some((it.returned?, it.invoked)))
            .filter(|(returned, _)| (MEASURED_FROM..MEASURED_TO).contains(returned))
            .map(|(returned, invoked)| returned - invoked)
            .collect();
        latencies.sort_unstable();
        let at = |share: f64| {
            let last = latencies.len().saturating_sub(1);
            latencies.get((last as f64 * share) as usize).copied().unwrap_or(0)
        };
        let length = (MEASURED_TO - MEASURED_FROM) as f64;
        let busy = |id: u64| self.nodes[&id].processor.busy_us as f64 / length;
        let all: Vec<f64> = self.nodes.keys().map(|id| busy(*id)).collect();
        let led = |id: &u64| {
            let running = self.nodes[id].running.as_ref();
            running.map_or(0, |it| it.ranges.values().filter(|range| range.is_serving()).count())
        };
        let mut led: Vec<usize> = self.nodes.keys().map(led).collect();
        led.sort_unstable_by(|one, other| other.cmp(one));
        Seen {
            puts_per_second: latencies.len() as f64 / (length / SECOND as f64),
            p50_us: at(0.5),
            p99_us: at(0.99),
            spine_leader_busy: self.leader().map_or(0.0, busy),
            busiest: all.iter().copied().fold(0.0, f64::max),
            mean_busy: all.iter().sum::<f64>() / all.len() as f64,
            led,
        }
    }
}

/// Microseconds of a node's processor. They are chosen, not measured: together they come to about what
/// a put was measured to take of three real nodes.
fn cost<'a>(event: &NodeEvent, works: impl Iterator<Item = &'a Job>) -> u64 {
    match event {
        NodeEvent::Request(_) => 12,
        NodeEvent::Frame { bytes, .. } => 3 + bytes.len() as u64 / 200,
        NodeEvent::Apply => 5 + 3 * works.count() as u64,
        NodeEvent::Turn | NodeEvent::LogFlushed | NodeEvent::Write(_) => 3,
        _ => 1,
    }
}
