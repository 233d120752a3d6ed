//! A sweep over all kinds of runs: each seed is run in one of them, and together they must reach
//! every corner there is. A sweep that does not go where the bugs are proves nothing.

use super::plan::{Focus, Options};

/// Seeds of a sweep that is expected to reach every corner.
pub const SEEDS_MIN: u64 = 5_000;

/// One kind of runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Usual,
    Restless,
    AimedAtHistory,
    AimedAtLeases,
    Users,
    Five,
}

/// How the seeds are shared out: the kind of a seed is the one at its remainder.
const KINDS: [Kind; 20] = [
    Kind::Usual,
    Kind::Restless,
    Kind::AimedAtHistory,
    Kind::Usual,
    Kind::AimedAtLeases,
    Kind::Usual,
    Kind::Restless,
    Kind::AimedAtHistory,
    Kind::Usual,
    Kind::Users,
    Kind::Usual,
    Kind::Restless,
    Kind::AimedAtHistory,
    Kind::Usual,
    Kind::AimedAtLeases,
    Kind::Usual,
    Kind::Five,
    Kind::Usual,
    Kind::Usual,
    Kind::Usual,
];

/// In which kind of run a seed is run, and the flags of `sim run` that repeat it.
pub fn kind_of(seed: u64, options: &Options) -> (Options, &'static str) {
    let at = usize::try_from(seed % KINDS.len() as u64).expect("a remainder is small");
    let mut options = options.clone();
    let flags = match KINDS[at] {
        Kind::Usual => "",
        Kind::Restless => {
            options.is_restless = true;
            "--restless"
        }
        Kind::AimedAtHistory => {
            (options.is_restless, options.is_aimed) = (true, true);
            options.focus = Some(Focus::History);
            "--aimed --focus history"
        }
        Kind::AimedAtLeases => {
            (options.is_restless, options.is_aimed) = (true, true);
            options.focus = Some(Focus::Leases);
            "--aimed --focus leases"
        }
        Kind::Users => {
            options.has_users = true;
            "--users"
        }
        Kind::Five => {
            options.nodes_count = 5;
            "--nodes 5"
        }
    };
    (options, flags)
}

/// What must have happened in a sweep over all kinds; each is counted where it happens.
pub const CORNERS: &[&str] = &[
    "all crashed",
    "answered when more was shown",
    "bit flipped",
    "call given up",
    "compaction finished",
    "connection broken",
    "crash",
    "crash after a vote",
    "crash in the middle of a merge",
    "crash lost log records",
    "crash lost store batches",
    "cut",
    "decision concluded",
    "decision kept",
    "disk stuck",
    "disks of a crashed node checked",
    "empty replica begun",
    "follower of a range fell asleep",
    "forwards given back",
    "frame lost",
    "handed over",
    "keys of a lease read",
    "keys of a range left found at the start",
    "keys of a range left removed",
    "leader elected",
    "leader moved",
    "leader of a range asked to hand over",
    "leader of a range elected",
    "leader of a range fell asleep",
    "leader of a range woken by a follower",
    "leader of a range woken by a node that came or went",
    "learner of a range fell asleep",
    "learner of a range woken",
    "log of a merged range forgotten",
    "log of a merged range left by a crash",
    "log of a range truncated",
    "log truncated",
    "member added",
    "member drained or no longer",
    "member promoted",
    "member removed",
    "members of a range changed",
    "merge given up",
    "merge of others than neighbours refused",
    "merge under a live watch",
    "merge with a lock in the way",
    "merged range left behind",
    "merged range replaced by a snapshot",
    "merged range retired",
    "node cut off from the spine only",
    "node whose log has stalled",
    "node lost for good",
    "paused",
    "permission denied",
    "question refused",
    "range begun",
    "range cut",
    "range left",
    "range moved between asking and taking",
    "range started before the spine knows it",
    "range taken over",
    "range was here between asking and taking",
    "range woken by a message",
    "range woken by a request",
    "range woken by its own need",
    "range woken by the silence of its leader's node",
    "ranges merged",
    "read denied",
    "read done again because users changed",
    "read elsewhere",
    "read overtaken by compaction",
    "refused by the order because users changed",
    "removed member told so",
    "replica ahead of the spine over a merge",
    "replica asked to come no more",
    "replica asked to move",
    "replica moved",
    "replica moved away retired",
    "snapshot begun",
    "snapshot failed",
    "snapshot installed",
    "snapshot of a range begun",
    "snapshot of a range installed",
    "snapshots asked for",
    "snapshot put off",
    "snapshot refused",
    "snapshot refused by its receiver",
    "stranger answered",
    "stream closed",
    "stream was full",
    "struck in the middle",
    "unknown outcome",
    "users changed",
    "vote in the spine given or taken",
    "watch block from elsewhere",
    "watch block given up",
    "watch block given up for the own store",
    "watch block in pieces",
    "watch block overtaken by compaction",
    "watch block put together",
    "watch block refused",
    "watch cancelled",
    "watcher went away",
    "watchers caught up from history",
];
