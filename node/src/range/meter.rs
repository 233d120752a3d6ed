//! What is asked of the ranges that this node leads, and how far their followers are: counted by
//! their actors, read by placement. An entry is there as long as the leadership is.

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::Bytes;
use dashmap::DashMap;
use flotilla_core::group::{Group, Part};
use flotilla_core::load::Meter;
use flotilla_core::proto::internal::ReplicaProgress;
use flotilla_core::spine::apply::Step;
use flotilla_core::time::Time;
use flotilla_core::{GroupId, NodeId};

use super::OperatingSystem;

/// Meters of the ranges led here, for every thread.
#[derive(Debug)]
pub struct Meters {
    started: Instant,
    led: DashMap<GroupId, Led>,
}

/// What is known of a range that is led here.
#[derive(Clone, Debug)]
pub struct Led {
    /// What is asked of it.
    pub meter: Meter,
    /// How far its replicas are, this node's among them.
    pub replicas: Vec<ReplicaProgress>,
    learners_since: BTreeMap<NodeId, Time>,
}

impl Meters {
    /// No range is led yet. `started` is when the machines' time began.
    pub fn new(started: Instant) -> Self {
        Self { started, led: DashMap::new() }
    }

    /// The machines' time.
    pub fn now(&self) -> Time {
        Time(u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// Writes that the leader of a range hands to the store.
    pub fn count(&self, range: GroupId, steps: &[Step]) {
        let mut led = self.led.entry(range).or_insert_with(|| Led::new(self.now()));
        led.meter.count(steps, &mut OperatingSystem);
    }

    /// Reads of clients of this node, of which these keys are a sample.
    pub fn count_reads(&self, range: GroupId, reads: u64, keys: &[Bytes]) {
        if let Some(mut led) = self.led.get_mut(&range) {
            led.meter.count_reads(reads, keys, &mut OperatingSystem);
        }
    }

    /// How a group stands that may be led here: from time to time.
    pub fn look(&self, range: GroupId, group: &Group) {
        if group.role().part != Part::Leader {
            self.forget(range);
            return;
        }
        let now = self.now();
        let mut led = self.led.entry(range).or_insert_with(|| Led::new(now));
        let last = group.last_index();
        let progress = group.progress();
        led.learners_since.retain(|node, _| progress.iter().any(|it| it.node == *node));
        led.replicas.clear();
        for replica in &progress {
            let learner_ms = if replica.is_learner {
                let since = *led.learners_since.entry(replica.node).or_insert(now);
                now.since(since).0 / 1_000
            } else {
                led.learners_since.remove(&replica.node);
                0
            };
            led.replicas.push(ReplicaProgress {
                node: replica.node.0,
                is_learner: replica.is_learner,
                lag_entries: last.saturating_sub(replica.matched),
                learner_ms,
            });
        }
    }

    /// How far the replicas of a range are; nothing unless it is led here.
    pub fn replicas(&self, range: GroupId) -> Vec<ReplicaProgress> {
        self.led.get(&range).map(|led| led.replicas.clone()).unwrap_or_default()
    }

    /// A range is not led here any more.
    pub fn forget(&self, range: GroupId) {
        self.led.remove(&range);
    }

    /// Does something with each range that is led here.
    pub fn for_each(&self, mut visit: impl FnMut(GroupId, &mut Led)) {
        for mut led in self.led.iter_mut() {
            let range = *led.key();
            visit(range, led.value_mut());
        }
    }
}

impl Led {
    fn new(now: Time) -> Self {
        Self { meter: Meter::new(now), replicas: Vec::new(), learners_since: BTreeMap::new() }
    }
}
