//! Every way a history can break a promise, each with what a person needs to see it. Printed, a
//! violation is one line.

use thiserror::Error;

use crate::check::watch::Fault;
use crate::history::{Event, History, MalformedEvent, Refused, Stamp};
use crate::model::Difference;

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum Violation {
    // Revisions: dense, unique, each made by one operation.
    /// Two sources tell different content of one revision.
    #[error(
        "revision {revision}: {first} saw [{}], {second} saw [{}]",
        list(first_events),
        list(second_events)
    )]
    EvidenceConflict {
        /// The revision.
        revision: i64,
        /// The source heard first.
        first: String,
        /// What it saw.
        first_events: Vec<Event>,
        /// The other source.
        second: String,
        /// What that saw.
        second_events: Vec<Event>,
    },
    /// A revision below the head has no content, or an operation was acknowledged above the head.
    #[error("revision {revision} is lost{}", writer.as_ref().map_or(String::new(), |it| format!(", made by {it}")))]
    LostRevision {
        /// The revision.
        revision: i64,
        /// The operation that was told it made the revision, if one was.
        writer: Option<Subject>,
    },
    /// The content of a revision cannot be: it is empty, or its events name another revision.
    #[error("revision {revision} cannot have the content [{}]", list(events))]
    ImpossibleRevision {
        /// The revision.
        revision: i64,
        /// Its content.
        events: Vec<Event>,
    },
    /// An answer names a revision that the store never reached, without claiming to have made it.
    #[error("{operation} names a revision above the head {head}")]
    RevisionBeyondHead {
        /// The operation.
        operation: Subject,
        /// The last revision of the run.
        head: i64,
    },
    /// Two operations were told that they made the same revision.
    #[error("revision {revision} was given to {first} and to {second}")]
    DuplicateRevision {
        /// The revision.
        revision: i64,
        /// One of them.
        first: Subject,
        /// The other.
        second: Subject,
    },
    /// One operation made two revisions.
    #[error("revisions {first} and {second} were both made by {operation}")]
    AppliedTwice {
        /// The operation.
        operation: Subject,
        /// A revision it made.
        first: i64,
        /// Another revision it made.
        second: i64,
    },
    /// No operation can have made the revision.
    #[error("nobody made revision {revision} [{}]", list(events))]
    Phantom {
        /// The revision.
        revision: i64,
        /// Its content.
        events: Vec<Event>,
    },
    /// An operation that was refused made the revision.
    #[error("revision {revision} was made by {operation}")]
    RefusedButApplied {
        /// The operation.
        operation: Subject,
        /// The revision.
        revision: i64,
    },
    /// The revision was seen before the only operation that can have made it was invoked.
    #[error("revision {revision} was seen at {seen_at}, before {operation} could make it")]
    SeenBeforeInvoked {
        /// The operation.
        operation: Subject,
        /// The revision.
        revision: i64,
        /// When it was seen.
        seen_at: Stamp,
    },

    // Answers.
    /// A revision does not hold what the operation that made it does to the state before it.
    #[error("{operation} should have changed [{}], changed [{}]", list(expected), list(found))]
    EffectDiffers {
        /// The operation.
        operation: Subject,
        /// What it does in the model.
        expected: Vec<Event>,
        /// What the revision holds.
        found: Vec<Event>,
    },
    /// An answer is not what the state at its place gives.
    #[error("{operation}: {difference}")]
    AnswerDiffers {
        /// The operation.
        operation: Subject,
        /// Where it is wrong.
        difference: Difference,
    },
    /// An answer without a header.
    #[error("{operation} has no header")]
    HeaderMissing {
        /// The operation.
        operation: Subject,
    },
    /// An operation was answered that should have been refused.
    #[error("{operation} should have been refused: {refusal}")]
    RefusalMissing {
        /// The operation.
        operation: Subject,
        /// The refusal.
        refusal: crate::model::Refusal,
    },
    /// An operation was refused for a reason that did not hold at any moment of it.
    #[error("{operation}: the reason held at no revision from {first} to {last}")]
    RefusalUnjustified {
        /// The operation.
        operation: Subject,
        /// The lowest revision the store can have had during it.
        first: i64,
        /// The highest.
        last: i64,
    },
    /// A refusal carries the right text with the wrong code.
    #[error("{operation} has code {}, should have {expected}", found.code.0)]
    RefusalCodeDiffers {
        /// The operation.
        operation: Subject,
        /// The code of etcd for this text.
        expected: i32,
        /// What came.
        found: Refused,
    },

    // Real time.
    /// A write took its place before something that was seen before it was invoked.
    #[error("{operation} was placed before revision {seen}, seen at {seen_at} by {witness}")]
    WrittenInPast {
        /// The operation.
        operation: Subject,
        /// The revision seen before.
        seen: i64,
        /// When it was seen.
        seen_at: Stamp,
        /// Who saw it.
        witness: String,
    },
    /// A linearizable answer shows a state older than one that was seen before it was asked.
    #[error("{operation} is stale: revision {seen} was seen at {seen_at} by {witness}")]
    StaleRead {
        /// The operation.
        operation: Subject,
        /// The revision seen before.
        seen: i64,
        /// When it was seen.
        seen_at: Stamp,
        /// Who saw it.
        witness: String,
    },

    // Compaction.
    /// History was read after it was acknowledged as compacted.
    #[error("{operation} reads history that {compaction} had removed")]
    ReadBelowCompaction {
        /// The operation.
        operation: Subject,
        /// The compaction.
        compaction: Subject,
    },
    /// Two compactions succeeded in an order in which the second had nothing to do.
    #[error("{operation} succeeded after {earlier}")]
    CompactedAgain {
        /// The compaction that should have been refused.
        operation: Subject,
        /// The one that came before.
        earlier: Subject,
    },
    /// A compaction of revisions that did not exist.
    #[error("{operation} compacted above the revision of the store")]
    CompactedFuture {
        /// The compaction.
        operation: Subject,
    },

    // Leases.
    /// A lease ended before its last acknowledged renewal allows.
    #[error(
        "lease {lease:x} ended in revision {revision}, seen at {seen_at}, not before {deadline}"
    )]
    LeaseExpiredEarly {
        /// The lease.
        lease: i64,
        /// The revision that deleted its keys.
        revision: i64,
        /// When that was first seen.
        seen_at: Stamp,
        /// The earliest moment it could have ended.
        deadline: Stamp,
    },
    /// A lease was still there long after nobody kept it alive.
    #[error("lease {lease:x} should have ended by {deadline}; {operation} still sees {key}")]
    LeaseOutlived {
        /// The lease.
        lease: i64,
        /// A key attached to it.
        key: String,
        /// The read that saw it.
        operation: Subject,
        /// When it should have ended.
        deadline: Stamp,
    },
    /// The end of a lease deleted a part of its keys, or keys of others with them.
    #[error("revision {revision} ends lease {lease:x} but deletes [{}] of its keys [{}]", deleted.join(", "), attached.join(", "))]
    LeaseEndedInParts {
        /// The lease.
        lease: i64,
        /// The revision.
        revision: i64,
        /// The keys that were deleted.
        deleted: Vec<String>,
        /// The keys that were attached.
        attached: Vec<String>,
    },
    /// A lease was revoked and its keys stayed.
    #[error("{operation} left the keys [{}]", keys.join(", "))]
    RevokeLeftKeys {
        /// The revocation.
        operation: Subject,
        /// The keys.
        keys: Vec<String>,
    },
    /// A key was attached to a lease that did not exist.
    #[error("revision {revision} attaches {key} to lease {lease:x}, which was not there")]
    AttachedToDeadLease {
        /// The revision.
        revision: i64,
        /// The key.
        key: String,
        /// The lease.
        lease: i64,
    },
    /// A lease was granted while it existed.
    #[error("{operation} succeeded while the lease was there since {earlier}")]
    LeaseGrantedTwice {
        /// The grant.
        operation: Subject,
        /// The grant before.
        earlier: Subject,
    },
    /// An operation found a lease that was gone.
    #[error("{operation} found a lease that was gone")]
    LeaseNotGone {
        /// The operation.
        operation: Subject,
    },
    /// An operation did not find a lease that was there.
    #[error("{operation} did not find a lease that was there")]
    LeaseLost {
        /// The operation.
        operation: Subject,
    },
    /// The remaining time of a lease grew, and nobody had renewed it.
    #[error("{second} shows more time than {first}, without a renewal")]
    TtlGrew {
        /// The answer with less time.
        first: Subject,
        /// The later answer with more time.
        second: Subject,
    },
    /// The keys of a lease were reported as they never were during the operation.
    #[error("{operation} shows keys [{}] that the lease never had", keys.join(", "))]
    LeaseKeysDiffer {
        /// The operation.
        operation: Subject,
        /// The keys it reports.
        keys: Vec<String>,
    },

    // Watches.
    /// A watcher was sent something wrong.
    #[error("watcher {watcher} ({line}): {fault}")]
    Watch {
        /// The place of the watcher in the history.
        watcher: usize,
        /// Who it is and what it asked for.
        line: String,
        /// What is wrong.
        fault: Box<Fault>,
    },

    // Replicas.
    /// Two replicas hashed the same content differently.
    #[error(
        "at revision {revision}, compacted at {compact_revision}: {first} has hash {first_hash:08x}, {second} has {second_hash:08x}"
    )]
    ReplicasDiffer {
        /// The revision that both hashed.
        revision: i64,
        /// The compact revision of both.
        compact_revision: i64,
        /// One replica.
        first: String,
        /// Its hash.
        first_hash: u32,
        /// The other.
        second: String,
        /// Its hash.
        second_hash: u32,
    },
}

impl Violation {
    /// The promise that is broken, as its check is called.
    pub const fn check(&self) -> &'static str {
        match self {
            Self::EvidenceConflict { .. }
            | Self::LostRevision { .. }
            | Self::ImpossibleRevision { .. }
            | Self::RevisionBeyondHead { .. }
            | Self::DuplicateRevision { .. }
            | Self::AppliedTwice { .. }
            | Self::Phantom { .. }
            | Self::RefusedButApplied { .. }
            | Self::SeenBeforeInvoked { .. } => "revisions",
            Self::EffectDiffers { .. }
            | Self::AnswerDiffers { .. }
            | Self::HeaderMissing { .. }
            | Self::RefusalMissing { .. } => "answers",
            Self::RefusalUnjustified { .. } | Self::RefusalCodeDiffers { .. } => "refusals",
            Self::WrittenInPast { .. } | Self::StaleRead { .. } => "real time",
            Self::ReadBelowCompaction { .. }
            | Self::CompactedAgain { .. }
            | Self::CompactedFuture { .. } => "compaction",
            Self::LeaseExpiredEarly { .. }
            | Self::LeaseOutlived { .. }
            | Self::LeaseEndedInParts { .. }
            | Self::RevokeLeftKeys { .. }
            | Self::AttachedToDeadLease { .. }
            | Self::LeaseGrantedTwice { .. }
            | Self::LeaseNotGone { .. }
            | Self::LeaseLost { .. }
            | Self::TtlGrew { .. }
            | Self::LeaseKeysDiffer { .. } => "lease",
            Self::Watch { .. } => "watch",
            Self::ReplicasDiffer { .. } => "replicas",
        }
    }
}

/// An operation as a violation names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Its place in [`History::operations`].
    pub operation: usize,
    /// What it is.
    pub line: String,
}

impl Subject {
    /// Names the operation at `operation`.
    pub fn new(history: &History, operation: usize) -> Subject {
        Subject { operation, line: history.operations[operation].to_string() }
    }
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "operation {} ({})", self.operation, self.line)
    }
}

impl From<MalformedEvent> for Fault {
    fn from(malformed: MalformedEvent) -> Fault {
        Fault::Malformed(malformed)
    }
}

fn list(events: &[Event]) -> String {
    events.iter().map(Event::to_string).collect::<Vec<_>>().join("; ")
}
