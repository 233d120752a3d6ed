//! The classes of faults, what each needs, and how they are named on the command line.

use std::fmt;
use std::str::FromStr;

/// A class of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// SIGKILL to one node.
    Kill,
    /// SIGKILL to the leader.
    KillLeader,
    /// SIGKILL to all nodes at once.
    KillAll,
    /// SIGSTOP to one node, then SIGCONT.
    Pause,
    /// The same to the leader.
    PauseLeader,
    /// SIGTERM and a new start, node after node.
    Rolling,
    /// The same with another program.
    Upgrade,
    /// One node stops at a moment of its own that has a name.
    Failpoint,
    /// A member is removed, its disk wiped, and it joins as a new one.
    Replace,
    /// Two nodes join, and are removed again.
    Grow,
    /// Many keys, ranges cut by size, a node that dies for good, one that joins, one that is drained.
    Life,
    /// The power of one node fails: what was not synced is lost or torn.
    PowerCut,
    /// The power of all nodes fails.
    PowerCutAll,
    /// Every write and sync of one node takes long.
    SlowDisk,
    /// Writes and syncs of one node do not return.
    StuckDisk,
    /// Those of the leader do not, for longer than others may take to lead in its place.
    StuckLeader,
    /// A sync of one node fails once, dropping what it should have kept.
    SyncFails,
    /// The disk of one node is full.
    DiskFull,
    /// The leader reaches no other node, and is reached by none.
    IsolateLeader,
    /// One node reaches no other, and is reached by none.
    Isolate,
    /// The nodes fall into two halves.
    Halves,
    /// What one node sends to the others is lost; what they send arrives.
    OneWay,
    /// Between all nodes packets are lost, doubled and reordered.
    Loss,
    /// Between all nodes packets take long.
    Delay,
    /// One node gets little of a processor.
    CpuSqueeze,
    /// One node gets little memory beyond what it has.
    MemorySqueeze,
    /// Many more clients, each without a pause.
    Overload,
    /// A range is cut.
    Split,
    /// Two ranges become one.
    Merge,
    /// A range's leader hands over.
    Transfer,
    /// A replica of a range moves to a member that has none.
    Move,
}

/// What a class needs to be possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Only processes.
    Nothing,
    /// Three members at least.
    ThreeMembers,
    /// The packet switch, and two members at least.
    Switch,
    /// The file system that forgets and fails.
    FaultyDisk,
    /// Control groups.
    ControlGroups,
    /// Three members and addresses for more.
    SpareNodes,
    /// A target with ranges.
    Ranges,
    /// That, and more members than a range has replicas.
    RangesElsewhere,
    /// Names of failpoints.
    Failpoints,
    /// Another program.
    OtherProgram,
}

impl Class {
    /// All classes, with their names.
    pub const ALL: [(Class, &'static str); 31] = [
        (Class::Kill, "kill"),
        (Class::KillLeader, "kill-leader"),
        (Class::KillAll, "kill-all"),
        (Class::Pause, "pause"),
        (Class::PauseLeader, "pause-leader"),
        (Class::Rolling, "rolling-restart"),
        (Class::Upgrade, "rolling-upgrade"),
        (Class::Failpoint, "failpoint"),
        (Class::Replace, "replace-member"),
        (Class::Grow, "grow-and-shrink"),
        (Class::Life, "life"),
        (Class::PowerCut, "power-cut"),
        (Class::PowerCutAll, "power-cut-all"),
        (Class::SlowDisk, "slow-disk"),
        (Class::StuckDisk, "stuck-disk"),
        (Class::StuckLeader, "stuck-disk-leader"),
        (Class::SyncFails, "sync-fails"),
        (Class::DiskFull, "disk-full"),
        (Class::IsolateLeader, "isolate-leader"),
        (Class::Isolate, "isolate"),
        (Class::Halves, "halves"),
        (Class::OneWay, "one-way"),
        (Class::Loss, "loss"),
        (Class::Delay, "delay"),
        (Class::CpuSqueeze, "cpu-squeeze"),
        (Class::MemorySqueeze, "memory-squeeze"),
        (Class::Overload, "overload"),
        (Class::Split, "split"),
        (Class::Merge, "merge"),
        (Class::Transfer, "transfer-leader"),
        (Class::Move, "move-replica"),
    ];

    /// What it needs.
    pub fn needs(self) -> Needs {
        match self {
            Class::Kill
            | Class::KillLeader
            | Class::KillAll
            | Class::Pause
            | Class::PauseLeader
            | Class::Rolling
            | Class::Overload => Needs::Nothing,
            Class::Upgrade => Needs::OtherProgram,
            Class::Failpoint => Needs::Failpoints,
            Class::Replace => Needs::ThreeMembers,
            Class::Grow => Needs::SpareNodes,
            Class::PowerCut
            | Class::PowerCutAll
            | Class::SlowDisk
            | Class::StuckDisk
            | Class::StuckLeader
            | Class::SyncFails
            | Class::DiskFull => Needs::FaultyDisk,
            Class::IsolateLeader
            | Class::Isolate
            | Class::Halves
            | Class::OneWay
            | Class::Loss
            | Class::Delay => Needs::Switch,
            Class::CpuSqueeze | Class::MemorySqueeze => Needs::ControlGroups,
            Class::Life | Class::Split | Class::Merge | Class::Transfer => Needs::Ranges,
            Class::Move => Needs::RangesElsewhere,
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Class::ALL.iter().find(|(class, _)| class == self).map(|(_, name)| *name);
        f.write_str(name.expect("every class is listed"))
    }
}

impl FromStr for Class {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Class> {
        let found = Class::ALL.iter().find(|(_, name)| *name == text).map(|(class, _)| *class);
        found.ok_or_else(|| anyhow::anyhow!("there is no fault {text:?}"))
    }
}
