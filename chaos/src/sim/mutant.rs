//! Bugs that are planted in the driver on purpose. For those in the machines see
//! `flotilla_core::mutant`.

use std::str::FromStr;

flotilla_core::mutants! {
    /// The leader takes an entry for stored by a follower as soon as it is sent.
    AckWithoutQuorum = "ack-without-quorum";
    /// Term and vote are not kept over a restart.
    VoteForgotten = "vote-forgotten";
    /// The log is said to be durable before it is flushed.
    AckBeforeFlush = "ack-before-flush";
    /// Where the store stands is made durable apart from its data.
    AppliedApart = "applied-apart";
    /// Linearizable reads are answered from the local state at once.
    ReadWithoutIndex = "read-without-index";
    /// The branch of a transaction is chosen before it is ordered.
    TxnDecidedEarly = "txn-decided-early";
    /// A request whose outcome is unknown is sent again under a new number.
    UnknownRetried = "unknown-retried";
    /// The log is not reset after a snapshot.
    SuffixKept = "suffix-kept";
    /// A restarted watcher misses the revision it asked for.
    WatchSkips = "watch-skips";
    /// Progress overtakes events in the queue to a client.
    ProgressOvertakes = "progress-overtakes";
    /// The events of one revision are sent in two responses.
    WatchSplits = "watch-splits";
    /// The clock that times leases runs four times too fast.
    ClockFast = "clock-fast";
    /// Recovery gives up flushed records at the end of the log.
    FlushForgotten = "flush-forgotten";
    /// One node applies something else than the others.
    ApplyDiverges = "apply-diverges";
    /// What was let in by a node is not looked at again where it takes its place in the order.
    PassForgotten = "pass-forgotten";
}

impl FromStr for Mutant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::find(text).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|mutant| mutant.name()).collect();
            format!("unknown mutant {text}; there are {}", names.join(", "))
        })
    }
}
