//! Named sets of options, so that a run is named by one word and a seed.

use std::time::Duration;

use anyhow::Context as _;

use crate::process::fault::Class;
use crate::process::options::{Mix, Options};

/// A named set of options.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it is for.
    pub about: &'static str,
    classes: &'static [Class],
    lanes: usize,
    seconds: u64,
    mix: Mix,
}

/// Where the keyspace is cut from the beginning if ranges are merged.
const RANGES: &str = "k2,k4,k6,k8";

/// Keys beside those that clients share, of a cluster that grows.
const FILL_KEYS: u64 = 2_000_000;

/// All scenarios.
pub const SCENARIOS: [Scenario; 13] = [
    Scenario {
        name: "calm",
        about: "no fault at all: whatever is found here is found by the checks alone",
        classes: &[],
        lanes: 1,
        seconds: 20,
        mix: Mix::Usual,
    },
    Scenario {
        name: "crash",
        about: "kills of one node, the leader, all nodes; pauses; a rolling restart",
        classes: &[
            Class::Kill,
            Class::KillLeader,
            Class::KillAll,
            Class::Pause,
            Class::PauseLeader,
            Class::Rolling,
        ],
        lanes: 2,
        seconds: 60,
        mix: Mix::Usual,
    },
    Scenario {
        name: "network",
        about: "every way in which a network fails",
        classes: &[
            Class::IsolateLeader,
            Class::Isolate,
            Class::Halves,
            Class::OneWay,
            Class::Loss,
            Class::Delay,
        ],
        lanes: 2,
        seconds: 60,
        mix: Mix::Usual,
    },
    Scenario {
        name: "power",
        about: "power cuts of one node and of all, with what was not synced lost or torn",
        classes: &[Class::PowerCut, Class::PowerCutAll],
        lanes: 1,
        seconds: 60,
        mix: Mix::Usual,
    },
    Scenario {
        name: "disk",
        about: "disks that are slow, stuck, full, or whose sync fails",
        classes: &[Class::SlowDisk, Class::StuckDisk, Class::SyncFails, Class::DiskFull],
        lanes: 1,
        seconds: 60,
        mix: Mix::Usual,
    },
    Scenario {
        name: "members",
        about: "a wiped disk and a new member in its place; growth to two more and back; kills",
        classes: &[Class::Replace, Class::Grow, Class::Kill],
        lanes: 1,
        seconds: 90,
        mix: Mix::Usual,
    },
    Scenario {
        name: "load",
        about: "many clients, little processor, little memory, pauses",
        classes: &[Class::Overload, Class::CpuSqueeze, Class::MemorySqueeze, Class::Pause],
        lanes: 2,
        seconds: 60,
        mix: Mix::Usual,
    },
    Scenario {
        name: "leases",
        about: "leases under kills, pauses and partitions of the leader",
        classes: &[Class::KillLeader, Class::PauseLeader, Class::IsolateLeader],
        lanes: 1,
        seconds: 60,
        mix: Mix::Leases,
    },
    Scenario {
        name: "churn",
        about: "puts and deletes of few keys with compaction all the time, under kills and pauses",
        classes: &[Class::Kill, Class::Pause, Class::Isolate],
        lanes: 2,
        seconds: 60,
        mix: Mix::Churn,
    },
    Scenario {
        name: "ranges",
        about: "ranges are cut, merged and handed over under kills, pauses and partitions",
        classes: &[
            Class::Split,
            Class::Merge,
            Class::Transfer,
            Class::Kill,
            Class::Pause,
            Class::IsolateLeader,
        ],
        lanes: 2,
        seconds: 60,
        mix: Mix::Usual,
    },
    Scenario {
        name: "life",
        about: "2 million keys, ranges cut by size, a node dead for good, one that joins, one drained",
        classes: &[Class::Life],
        lanes: 1,
        seconds: 1_800,
        mix: Mix::Usual,
    },
    Scenario {
        name: "everything",
        about: "three faults at once, of all classes but those that change the membership",
        classes: &[
            Class::Kill,
            Class::KillLeader,
            Class::KillAll,
            Class::Pause,
            Class::PauseLeader,
            Class::PowerCut,
            Class::IsolateLeader,
            Class::OneWay,
            Class::Loss,
            Class::Delay,
            Class::SlowDisk,
            Class::StuckDisk,
            Class::Overload,
        ],
        lanes: 3,
        seconds: 90,
        mix: Mix::Usual,
    },
    Scenario {
        name: "hour",
        about: "an hour of all that while ranges are cut, merged, handed over and, of five nodes, moved",
        classes: &[
            Class::Split,
            Class::Merge,
            Class::Transfer,
            Class::Move,
            Class::Kill,
            Class::KillLeader,
            Class::KillAll,
            Class::Pause,
            Class::PauseLeader,
            Class::Rolling,
            Class::PowerCut,
            Class::PowerCutAll,
            Class::IsolateLeader,
            Class::Isolate,
            Class::Halves,
            Class::OneWay,
            Class::Loss,
            Class::Delay,
            Class::SlowDisk,
            Class::StuckDisk,
            Class::StuckLeader,
            Class::SyncFails,
            Class::Overload,
        ],
        lanes: 3,
        seconds: 3_600,
        mix: Mix::Usual,
    },
];

/// Finds a scenario by its name.
///
/// # Errors
/// There is none.
pub fn find(name: &str) -> anyhow::Result<Scenario> {
    let found = SCENARIOS.iter().find(|scenario| scenario.name == name).copied();
    found.with_context(|| format!("there is no scenario {name:?}"))
}

impl Scenario {
    /// Sets what the scenario says; flags behind it may change that again.
    pub fn set(&self, options: &mut Options) {
        options.classes = self.classes.to_vec();
        options.lanes = self.lanes;
        options.length = Duration::from_secs(self.seconds);
        options.mix = self.mix;
        if self.classes.contains(&Class::Merge) || self.classes.contains(&Class::Life) {
            RANGES.clone_into(&mut options.split_keys);
        }
        if self.classes.contains(&Class::Life) {
            options.fill_keys = FILL_KEYS;
        }
    }
}
