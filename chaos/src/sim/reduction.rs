//! What is left out of a run: troubles of its tape, clients, watchers, ranges, nodes, and what goes
//! wrong all the time. Everything is drawn as in the whole run, and then not carried out.

use std::collections::BTreeSet;

use super::Size;
use super::plan::{MS, Plan};
use super::tape::Trouble;
use super::world::World;

/// Mean time of a flush of a quick log, in microseconds.
const QUICK_FLUSH_MEAN: u64 = 200;

/// What is left out of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reduction {
    /// Only these troubles of the tape come; all if it is not said.
    pub keep: Option<BTreeSet<usize>>,
    /// Parts that are left out as a whole.
    pub without: BTreeSet<Part>,
    /// So many clients at most.
    pub clients_max: Option<u32>,
    /// So many watchers at most, beside the one of each founding member that is evidence.
    pub watchers_max: Option<usize>,
    /// So many ranges at most when the cluster is founded.
    pub ranges_max: Option<usize>,
    /// So many founding members at most.
    pub founders_max: Option<u64>,
    /// Trouble ends after so many milliseconds at most.
    pub until_ms: Option<u64>,
}

/// A part of a run that can be left out as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Frames are lost.
    Loss,
    /// Frames arrive twice.
    Repeat,
    /// Frames do not wait for the ones before.
    Overtake,
    /// Frames with a flipped bit.
    Flip,
    /// Clocks drift.
    Drift,
    /// Logs that take their time to flush.
    SlowLogs,
    /// Snapshots fail.
    FailedSnapshots,
    /// Reads are evaluated elsewhere though they could be here.
    ReadsElsewhere,
    /// Watchers get history from elsewhere though it is here.
    BlocksElsewhere,
    /// At the end a node is lost for good.
    LostNode,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Loss,
        Self::Repeat,
        Self::Overtake,
        Self::Flip,
        Self::Drift,
        Self::SlowLogs,
        Self::FailedSnapshots,
        Self::ReadsElsewhere,
        Self::BlocksElsewhere,
        Self::LostNode,
    ];

    /// As on a command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Loss => "loss",
            Self::Repeat => "repeat",
            Self::Overtake => "overtake",
            Self::Flip => "flip",
            Self::Drift => "drift",
            Self::SlowLogs => "slow-logs",
            Self::FailedSnapshots => "failed-snapshots",
            Self::ReadsElsewhere => "reads-elsewhere",
            Self::BlocksElsewhere => "blocks-elsewhere",
            Self::LostNode => "lost-node",
        }
    }
}

impl std::str::FromStr for Part {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|part| part.name() == text).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|part| part.name()).collect();
            format!("there is no part {text}; there are {}", names.join(", "))
        })
    }
}

impl Reduction {
    /// True if nothing is left out.
    pub fn is_whole(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a trouble of the tape comes.
    pub fn keeps(&self, trouble: &Trouble) -> bool {
        self.keep.as_ref().is_none_or(|keep| keep.contains(&trouble.number))
            && self.until_ms.is_none_or(|until| trouble.at < until * MS)
    }

    /// Whether a part is left in.
    pub(super) fn has(&self, part: Part) -> bool {
        !self.without.contains(&part)
    }

    /// Takes out of a plan what can be known before the run.
    pub(super) fn reduce(&self, plan: &mut Plan) {
        plan.nodes_count = plan.nodes_count.min(self.founders_max.unwrap_or(u64::MAX));
        // Without a cut there is one range.
        plan.cuts.truncate(self.ranges_max.map_or(usize::MAX, |max| max.saturating_sub(1)));
        let until = self.until_ms.map_or(u64::MAX, |until| until * MS);
        plan.trouble_for = plan.trouble_for.min(until);
        if !self.has(Part::Drift) {
            plan.drift_ppm = 0;
        }
        if !self.has(Part::SlowLogs) {
            plan.flush_mean = plan.flush_mean.min(QUICK_FLUSH_MEAN);
        }
        plan.loses_one &= self.has(Part::LostNode);
    }
}

impl World {
    /// How large it is when it begins.
    pub(super) fn size(&self) -> Size {
        let (traffic, reduction) = (&self.plan.traffic, &self.reduction);
        Size {
            founders: self.plan.nodes_count,
            ranges: self.plan.cuts.len() + 1,
            clients: traffic.clients_count.min(reduction.clients_max.unwrap_or(u32::MAX)),
            watchers: traffic.watchers_count.min(reduction.watchers_max.unwrap_or(usize::MAX)),
        }
    }
}
