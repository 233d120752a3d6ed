//! Moments at which a crash would be worst, named, so that a test can have the process stop, panic or
//! sleep at one of them. docs/failpoints.md tells how to, and what is looked at afterwards.
//!
//! A build without the feature `failpoints` has nothing of it: to have `reached` one does nothing, and no
//! name is in the program. With it a point can do no more than a crash or a slow machine could at the same place.

/// A moment.
#[derive(Clone, Copy)]
#[cfg_attr(any(test, feature = "failpoints"), derive(Debug, PartialEq, Eq))]
pub enum Failpoint {
    /// A vote or a new term is about to be written to the log.
    VoteBeforeWrite,
    /// A vote or a new term is durable; the machine that cast it does not know.
    VoteAfterFlush,
    /// Entries are about to be written to the log.
    WalBeforeWrite,
    /// A frame is written and not flushed.
    WalBeforeFlush,
    /// Entries are durable; nobody was told.
    WalAfterFlush,
    /// The next segment of the log is there, and the one before it is not sealed.
    WalSegmentMade,
    /// A segment of the log was given up.
    WalSegmentFreed,
    /// A batch of applied writes, with where they end in their log, is about to go to the store.
    ApplyBeforeBatch,
    /// It is in the store; nobody was told.
    ApplyAfterBatch,
    /// Clients of this node were answered; the machine does not know that it is applied.
    ApplyAfterAnswers,
    /// RocksDB is durable, and the store's HEAD does not say so.
    StoreFlushed,
    /// The next HEAD of the store is durable under its other name.
    StoreHeadWritten,
    /// HEAD was replaced.
    StoreHeadRenamed,
    /// A slice of a compaction was applied.
    CompactionSlice,
    /// The last slice of a compaction was applied; it is not told that it ended.
    CompactionEnd,
    /// A piece of a snapshot was sent.
    SnapshotChunkSent,
    /// There is a place for the rows of a snapshot.
    SnapshotBegun,
    /// A piece of a snapshot was written there.
    SnapshotChunkWritten,
    /// All of a snapshot is durable there; the sender does not know.
    SnapshotSealed,
    /// Nobody reads the rows that a snapshot will replace.
    InstallBegun,
    /// A snapshot of everything has the node's own rows.
    ReplaceRowsCopied,
    /// A snapshot of everything is durable, and is not the store yet.
    ReplaceFlushed,
    /// A batch of old rows of a group was removed, or of new ones written; more follow.
    ExchangeBatch,
    /// The files of one column of a range's snapshot were taken over.
    InstallBetweenFiles,
    /// All rows of a group were exchanged, and what says that it is under way is still there.
    ExchangeBeforeLast,
    /// All rows of a snapshot are in the store.
    InstallWritten,
    /// They are durable, and what was received is still there.
    InstallFlushed,
    /// The store has the snapshot; the machine does not know.
    InstallDone,
    /// A range has its part of a transaction, a split or a merge locked in its log; who coordinates
    /// it does not know.
    TxnPrepared,
    /// Such a transaction, split or merge is decided; its range does not know.
    TxnDecided,
    /// The row of a range that was split off is in the store, and its parent's shorter span; its
    /// replica does not run.
    SplitWritten,
    /// The replica of a range that was split off runs; nobody leads it.
    SplitBegun,
    /// A range has taken over the keys of another in the store; the other's replica still runs.
    MergeWritten,
    /// Some keys of a range that left this node were removed.
    LeaveSlice,
    /// A lease was found to have expired; its end is proposed at the earliest.
    LeaseExpired,
    /// A store was made on the first start, and HEAD does not name it.
    StoreCreated,
    /// The log was read at a start; nothing of it was cut or confirmed.
    StartLogRead,
    /// An exchange of rows that a crash had interrupted was done at a start; it is not durable.
    StartExchangeDone,
    /// Log and store are open, and it is known who this node is.
    StartKnown,
    /// The replica of a range was begun at a start; others follow.
    StartRangeBegun,
    /// Some of a backup is in the directory that is made of it.
    RestoreBatch,
    /// All of it is there, and durable; there is no log.
    RestoreFilled,
    /// The directory is whole and has not got its name.
    RestoreBeforeName,
}

/// What is worked out for a point alone need not be without them.
pub const IS_COMPILED_IN: bool = cfg!(any(test, feature = "failpoints"));

impl Failpoint {
    /// The process has come to it.
    #[inline(always)]
    pub fn reached(self) {
        #[cfg(any(test, feature = "failpoints"))]
        act::on(self);
    }
}

/// Reads `FAILPOINTS`; to be called once, before anything else.
///
/// # Panics
/// It cannot be understood, or names a point that is not there.
#[cfg(feature = "failpoints")]
pub fn start() {
    // As long as the process.
    std::mem::forget(fail::FailScenario::setup());
    for (name, _) in fail::list() {
        assert!(Failpoint::ALL.iter().any(|(_, known)| *known == name), "no failpoint {name:?}");
    }
}

#[cfg(any(test, feature = "failpoints"))]
impl Failpoint {
    /// All of them, with what `FAILPOINTS` calls them.
    pub const ALL: [(Failpoint, &'static str); 43] = [
        (Failpoint::VoteBeforeWrite, "vote-before-write"),
        (Failpoint::VoteAfterFlush, "vote-after-flush"),
        (Failpoint::WalBeforeWrite, "wal-before-write"),
        (Failpoint::WalBeforeFlush, "wal-before-flush"),
        (Failpoint::WalAfterFlush, "wal-after-flush"),
        (Failpoint::WalSegmentMade, "wal-segment-made"),
        (Failpoint::WalSegmentFreed, "wal-segment-freed"),
        (Failpoint::ApplyBeforeBatch, "apply-before-batch"),
        (Failpoint::ApplyAfterBatch, "apply-after-batch"),
        (Failpoint::ApplyAfterAnswers, "apply-after-answers"),
        (Failpoint::StoreFlushed, "store-flushed"),
        (Failpoint::StoreHeadWritten, "store-head-written"),
        (Failpoint::StoreHeadRenamed, "store-head-renamed"),
        (Failpoint::CompactionSlice, "compaction-slice"),
        (Failpoint::CompactionEnd, "compaction-end"),
        (Failpoint::SnapshotChunkSent, "snapshot-chunk-sent"),
        (Failpoint::SnapshotBegun, "snapshot-begun"),
        (Failpoint::SnapshotChunkWritten, "snapshot-chunk-written"),
        (Failpoint::SnapshotSealed, "snapshot-sealed"),
        (Failpoint::InstallBegun, "install-begun"),
        (Failpoint::ReplaceRowsCopied, "replace-rows-copied"),
        (Failpoint::ReplaceFlushed, "replace-flushed"),
        (Failpoint::ExchangeBatch, "exchange-batch"),
        (Failpoint::InstallBetweenFiles, "install-between-files"),
        (Failpoint::ExchangeBeforeLast, "exchange-before-last"),
        (Failpoint::InstallWritten, "install-written"),
        (Failpoint::InstallFlushed, "install-flushed"),
        (Failpoint::InstallDone, "install-done"),
        (Failpoint::TxnPrepared, "txn-prepared"),
        (Failpoint::TxnDecided, "txn-decided"),
        (Failpoint::SplitWritten, "split-written"),
        (Failpoint::SplitBegun, "split-begun"),
        (Failpoint::MergeWritten, "merge-written"),
        (Failpoint::LeaveSlice, "leave-slice"),
        (Failpoint::LeaseExpired, "lease-expired"),
        (Failpoint::StoreCreated, "store-created"),
        (Failpoint::StartLogRead, "start-log-read"),
        (Failpoint::StartExchangeDone, "start-exchange-done"),
        (Failpoint::StartKnown, "start-known"),
        (Failpoint::StartRangeBegun, "start-range-begun"),
        (Failpoint::RestoreBatch, "restore-batch"),
        (Failpoint::RestoreFilled, "restore-filled"),
        (Failpoint::RestoreBeforeName, "restore-before-name"),
    ];

    /// What `FAILPOINTS` calls it.
    pub fn name(self) -> &'static str {
        let found = Failpoint::ALL.iter().find(|(point, _)| *point == self);
        found.map(|(_, name)| *name).expect("every point is listed")
    }
}

#[cfg(all(feature = "failpoints", not(test)))]
mod act {
    use super::Failpoint;

    pub(super) fn on(point: Failpoint) {
        fail::fail_point!(point.name(), |_| stop(point));
    }

    /// What `return` means here: the process is gone at once, as after SIGKILL.
    fn stop(point: Failpoint) {
        eprintln!("flotilla: stopped at failpoint {}", point.name());
        std::process::abort();
    }
}

/// In unit tests a process of the test kills itself at the point that the test names.
#[cfg(test)]
pub(crate) mod act {
    use super::Failpoint;

    /// Names the point.
    pub(crate) const KILL_AT: &str = "FLOTILLA_TEST_KILL_AT";

    pub(super) fn on(point: Failpoint) {
        kill_at(point.name());
    }

    /// For moments between what is tested.
    pub(crate) fn kill_at(name: &str) {
        if std::env::var(KILL_AT).is_ok_and(|wanted| wanted == name) {
            let this = rustix::process::getpid();
            rustix::process::kill_process(this, rustix::process::Signal::KILL)
                .expect("a process can be killed by itself");
            std::thread::sleep(std::time::Duration::from_secs(60));
        }
    }
}
