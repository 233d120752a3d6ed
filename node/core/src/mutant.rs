//! Bugs that can be planted in the machines on purpose, to prove that the simulator and the checks
//! find what they are there for. Each is one condition at the place where the rule is kept.
//!
//! Nothing of it is in a build without the feature `mutants`: there `is` is a constant, and nobody
//! can plant anything. The server refuses to compile with the feature (`IS_COMPILED_IN`).

use std::str::FromStr;

/// Whether bugs can be planted in this build.
pub const IS_COMPILED_IN: bool = cfg!(feature = "mutants");

/// Makes an enum `Mutant` of bugs that can be planted, each with the name that it has on a command line.
/// What is wrong with it is its documentation.
#[macro_export]
macro_rules! mutants {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal;)*) => {
        /// A bug that can be planted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Mutant { $($(#[doc = $doc])+ $name,)* }

        impl Mutant {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// As on a command line.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }

            /// What is wrong with it, in a sentence.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),+)),* }
            }

            fn find(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|mutant| mutant.name() == name)
            }
        }

        impl std::fmt::Display for Mutant {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

mutants! {
    // The order of writes.
    /// A reference names writes that are proposed, not committed (I2).
    AssignBeforeCommit = "assign-before-commit";
    /// What an old report names is numbered again (I3).
    StaleReport = "stale-report";
    /// A void write takes a revision (I4).
    VoidsCounted = "voids-counted";
    /// The spine forgets how writes were numbered before the range's log tells (I6).
    NumbersForgotten = "numbers-forgotten";
    /// A request that is logged twice is folded twice (I13).
    FoldedTwice = "folded-twice";
    /// The log is cut up to what is applied, be it durable or not (I14).
    CutUnflushed = "cut-unflushed";

    // Evaluation.
    /// Nobody waits for latches (I5).
    NoLatch = "no-latch";
    /// A new leader evaluates before it has applied what it inherited (I5).
    NoDrain = "no-drain";
    /// A new leader does not take the locks again that are in its log (I5).
    LocksNotRetaken = "locks-not-retaken";
    /// A range serves keys that it has given away (I9).
    SpanUnchecked = "span-unchecked";
    /// A command without effect is answered from the leader's state at once (I7).
    StaleFail = "stale-fail";

    // Reads.
    /// A leader issues tickets without asking its quorum (I7).
    StaleTicket = "stale-ticket";
    /// A lost request for a ticket is repeated under its old name (I7).
    TicketReused = "ticket-reused";
    /// A ticket is served before the node shows its index (I7).
    ReadNoWait = "read-no-wait";
    /// Reads go by the owners of keys as they were some entries ago (I9).
    StaleRouting = "stale-routing";
    /// Each page of a read shows the newest state of its range (I7).
    PagesAtNewest = "pages-at-newest";
    /// A node answers another's question before it shows the state asked for (I10).
    AskNotAwaited = "ask-not-awaited";

    // What a node shows.
    /// A node shows an entry before its ranges have the writes numbered by it (I10).
    ShownEarly = "shown-early";
    /// A node shows a transaction before its ranges have their shares of it (I10).
    ShareNotAwaited = "share-not-awaited";
    /// A lease that expired is ended though a client has ended it, and granted another with its id.
    LeaseMistaken = "lease-mistaken";
    /// A client is answered by a node that does not show yet what it did.
    AnsweredEarly = "answered-early";
    /// A range is shown before its replica knows that it has everything (I10).
    LackingShown = "lacking-shown";
    /// A range that is cut off one that is not shown is shown at once (I10).
    CutShown = "cut-shown";
    /// The shares of a transaction are told in the order in which they were applied.
    SharesUnsorted = "shares-unsorted";

    // Transactions over several ranges.
    /// The decision is kept for all ranges of a transaction but the last (I8).
    CommitInParts = "commit-in-parts";
    /// A transaction that has ended can still be committed (I8, I13).
    NoAbortCheck = "no-abort-check";
    /// A decision counts though the leader that held the locks of range 0 is gone (I8).
    StaleLocks = "stale-locks";
    /// The locks of a transaction are not stored with the range (I8).
    LocksNotStored = "locks-not-stored";
    /// A transaction may read what was compacted meanwhile.
    CompactUnchecked = "compact-unchecked";

    // Leases.
    /// A write is numbered though its lease is gone (I12).
    NoLeaseCheck = "no-lease-check";
    /// A new leader gives leases no time of their own.
    LeaseNotExtended = "lease-not-extended";
    /// The spine does not note in which ranges keys are attached to a lease.
    AttachForgotten = "attach-forgotten";
    /// A lease ends though keys were attached elsewhere since: nobody tries again.
    RevokeNotRetried = "revoke-not-retried";
    /// The end of a lease does not wait for a merge, which brings keys of the lease.
    MembersUnlatched = "members-unlatched";

    // Splits and merges.
    /// A range is cut while writes to the keys behind the cut are under way (I9).
    SplitNoDrain = "split-no-drain";
    /// A new range does not know the leases of its keys.
    SplitForgetsLeases = "split-forgets-leases";
    /// The leases of the range that ceases are not known of the one that stays.
    MergeForgetsLeases = "merge-forgets-leases";
    /// The range that is to cease goes on writing (I16).
    FrozenAccepts = "frozen-accepts";
    /// A replica takes over before the other one here has finished (I16).
    MergeNotAwaited = "merge-not-awaited";
    /// A range ceases before each member has all of its log (I16).
    MergeNotEverywhere = "merge-not-everywhere";
    /// A range ceases before its log tells how everything was numbered (I16).
    MergeNotNoted = "merge-not-noted";
    /// A range begins without a state beside a replica that still has its keys.
    BegunBeside = "begun-beside";
    /// What is left of a ceased range stays when nobody takes it over.
    LeftBehind = "left-behind";
    /// What is left of a ceased range is dropped though somebody is still to take it over.
    DroppedEarly = "dropped-early";

    // Members and sleep.
    /// A range that is cut off range 0 has no learners.
    LearnersForgotten = "learners-forgotten";
    /// A range's leader removes members that it has not heard of.
    StrangersRemoved = "strangers-removed";
    /// A sleeping range does not notice that its leader's node is gone.
    WakeSkipped = "wake-skipped";

    // Watches.
    /// A watcher that has caught up misses the next revision.
    HandOffSkips = "hand-off-skips";
    /// Events are delivered though some before them were left out.
    GapIgnored = "gap-ignored";
    /// Progress is told up to what was seen, not to what was delivered (I10).
    ProgressAhead = "progress-ahead";
}

impl FromStr for Mutant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::find(text).ok_or_else(|| format!("no machine has a bug {text}"))
    }
}

/// Whether this bug is planted.
#[cfg(not(feature = "mutants"))]
pub const fn is(_: Mutant) -> bool {
    false
}

#[cfg(feature = "mutants")]
pub use planted::{Planted, is, plant};

#[cfg(feature = "mutants")]
mod planted {
    use std::cell::Cell;

    use super::Mutant;

    thread_local! {
        /// A world is driven by one thread, and has at most one bug planted.
        static PLANTED: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    /// Whether this bug is planted in the machines that this thread drives.
    pub fn is(mutant: Mutant) -> bool {
        PLANTED.get() == Some(mutant)
    }

    /// Plants a bug, or none, in all machines that this thread drives, until what is returned is
    /// dropped.
    pub fn plant(mutant: Option<Mutant>) -> Planted {
        Planted { before: PLANTED.replace(mutant) }
    }

    /// A bug is planted while this lives.
    #[must_use]
    #[derive(Debug)]
    pub struct Planted {
        before: Option<Mutant>,
    }

    impl Drop for Planted {
        fn drop(&mut self) {
            PLANTED.set(self.before);
        }
    }
}
