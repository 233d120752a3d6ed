//! Which bug is looked for how, and what is to find it.

use flotilla_core::mutant::Mutant as Machine;

use super::scenarios;
use super::{Bug, Expected, Hunt, Pace, Row};
use crate::sim::{Focus, Mutant as Driver};

/// All bugs, those of the driver first. One that has a scenario of its own may be looked for with
/// seeds, too.
pub static ROWS: &[Row] = &[
    // The driver: disks, wires and clients.
    driver(Driver::AckWithoutQuorum, Hunt::Clients, &[REVISIONS]),
    driver(Driver::VoteForgotten, Hunt::Seeds, &[by("election safety")]),
    driver(Driver::AckBeforeFlush, Hunt::Clients, &[REVISIONS]),
    driver(Driver::AppliedApart, Hunt::Clients, &[says("replicas", "has hash"), ABSENT]),
    driver(Driver::ReadWithoutIndex, Hunt::Clients, &[STALE]),
    driver(Driver::TxnDecidedEarly, Hunt::Clients, &[says("answers", "should have changed")]),
    driver(Driver::UnknownRetried, Hunt::Clients, &[says("revisions", "were both made by")]),
    driver(
        Driver::SuffixKept,
        Hunt::Clients,
        &[says("inside", "refuses"), says("inside", "cannot start")],
    ),
    driver(Driver::WatchSkips, Hunt::Clients, &[says("watch", "was due before")]),
    driver(Driver::ProgressOvertakes, Hunt::Clients, &[says("watch", "was announced before")]),
    driver(Driver::WatchSplits, Hunt::Clients, &[says("watch", "was split over")]),
    driver(Driver::ClockFast, Hunt::Clients, &[LEASE]),
    driver(Driver::FlushForgotten, Hunt::Clients, &[says("inside", "cannot start"), REVISIONS]),
    driver(Driver::ApplyDiverges, Hunt::Clients, &[says("replicas", "has hash"), REVISIONS]),
    driver(Driver::PassForgotten, Hunt::Seeds, &[says("inside", "permission: ")]),
    // The machines: the order of writes.
    machine(Machine::AssignBeforeCommit, Hunt::Seeds, &[REVISIONS, ANSWERS, LEASE, SAME_STATE])
        .late(),
    machine(Machine::StaleReport, Hunt::Seeds, &[says("assertion", "numbered twice (I3)")]),
    machine(Machine::VoidsCounted, Hunt::Seeds, &[says("revisions", "is lost")]),
    machine(Machine::NumbersForgotten, Hunt::Seeds, &[LIVENESS]),
    machine(Machine::FoldedTwice, Hunt::Restless, &[REVISIONS]),
    machine(Machine::CutUnflushed, Hunt::Seeds, &[says("inside", "but the log starts after")]),
    // Evaluation.
    machine(Machine::NoLatch, Hunt::Seeds, &[REVISIONS, ANSWERS, ABSENT]),
    machine(Machine::NoDrain, Hunt::Seeds, &[ANSWERS, REVISIONS]),
    machine(Machine::LocksNotRetaken, Hunt::Seeds, &[ANSWERS, APPLY, HELD]).late(),
    machine(Machine::SpanUnchecked, Hunt::Restless, &[ANSWERS, APPLY]),
    machine(Machine::StaleFail, Hunt::Seeds, &[STALE]),
    // Reads.
    machine(Machine::StaleTicket, Hunt::Seeds, &[STALE]),
    machine(Machine::TicketReused, Hunt::Seeds, &[STALE]).late(),
    machine(Machine::ReadNoWait, Hunt::Seeds, &[STALE, by("refusals")]),
    machine(Machine::StaleRouting, Hunt::Scenario(scenarios::read_after_cut), &[SCENARIO]),
    machine(Machine::PagesAtNewest, Hunt::Seeds, &[ANSWERS]),
    machine(Machine::AskNotAwaited, Hunt::Seeds, &[ANSWERS]),
    // What a node shows.
    machine(Machine::ShownEarly, Hunt::Seeds, &[SAME_STATE, REVISIONS, WATCH]),
    machine(Machine::ShareNotAwaited, Hunt::Seeds, &[SAME_STATE, REVISIONS, WATCH]),
    machine(Machine::AnsweredEarly, Hunt::Seeds, &[says("inside", "and shows")]),
    machine(Machine::LackingShown, Hunt::Seeds, &[SAME_STATE, WATCH]),
    machine(Machine::CutShown, Hunt::Aimed, &[SAME_STATE, ANSWERS, WATCH]).late(),
    machine(Machine::SharesUnsorted, Hunt::Seeds, &[REVISIONS, WATCH]),
    // Transactions over several ranges.
    machine(Machine::CommitInParts, Hunt::Seeds, &[ANSWERS]),
    machine(Machine::NoAbortCheck, Hunt::Scenario(scenarios::aborted_commit), &[SCENARIO]),
    machine(Machine::StaleLocks, Hunt::Seeds, &[ANSWERS, REVISIONS, APPLY, ABSENT]).late(),
    machine(Machine::LocksNotStored, Hunt::Seeds, &[ANSWERS, SAME_STATE]),
    machine(Machine::CompactUnchecked, Hunt::Scenario(scenarios::past_compacted), &[SCENARIO]),
    // Leases.
    machine(Machine::NoLeaseCheck, Hunt::Seeds, &[LEASE]),
    machine(Machine::LeaseMistaken, Hunt::Scenario(scenarios::lease_again), &[SCENARIO]),
    machine(Machine::LeaseNotExtended, Hunt::Seeds, &[LEASE]),
    machine(Machine::AttachForgotten, Hunt::AimedFocused(Focus::Leases), &[LEASE, ABSENT]),
    machine(Machine::RevokeNotRetried, Hunt::AimedFocused(Focus::Leases), &[LEASE]),
    machine(
        Machine::MembersUnlatched,
        Hunt::AimedFocused(Focus::Leases),
        &[LEASE, APPLY, SAME_STATE, HELD],
    )
    .late(),
    // Splits and merges.
    machine(Machine::SplitNoDrain, Hunt::Scenario(scenarios::cut_under_writes), &[SCENARIO]),
    machine(
        Machine::SplitForgetsLeases,
        Hunt::AimedFocused(Focus::Leases),
        &[LEASE, APPLY, SAME_STATE],
    ),
    machine(
        Machine::MergeForgetsLeases,
        Hunt::AimedFocused(Focus::Leases),
        &[LEASE, APPLY, SAME_STATE, ABSENT],
    )
    .late(),
    machine(Machine::FrozenAccepts, Hunt::Restless, &[REVISIONS, SAME_STATE, HELD]),
    machine(
        Machine::MergeNotAwaited,
        Hunt::Scenario(scenarios::merge_beside_a_laggard),
        &[SCENARIO],
    ),
    machine(Machine::MergeNotEverywhere, Hunt::Restless, &[LIVENESS]),
    machine(Machine::MergeNotNoted, Hunt::Scenario(scenarios::merge_without_notes), &[SCENARIO]),
    machine(Machine::BegunBeside, Hunt::Restless, &[says("inside", "twice"), LIVENESS]),
    machine(Machine::LeftBehind, Hunt::Scenario(scenarios::left_of_a_merge), &[SCENARIO]),
    machine(Machine::DroppedEarly, Hunt::Scenario(scenarios::left_of_a_merge), &[SCENARIO]),
    // Members and sleep.
    machine(Machine::LearnersForgotten, Hunt::Seeds, &[LIVENESS]),
    machine(Machine::StrangersRemoved, Hunt::Scenario(scenarios::unheard_of_learner), &[SCENARIO]),
    machine(Machine::WakeSkipped, Hunt::Aimed, &[LIVENESS]),
    // Watches.
    machine(Machine::HandOffSkips, Hunt::Seeds, &[WATCH]),
    machine(Machine::GapIgnored, Hunt::Seeds, &[WATCH]),
    machine(Machine::ProgressAhead, Hunt::Seeds, &[WATCH]),
];

/// A store notices that what is deleted is not there.
const ABSENT: Expected = says("assertion", "a key is deleted that is not there");
const ANSWERS: Expected = by("answers");
/// A store notices that a revision comes out of order.
const APPLY: Expected = says("assertion", "comes after");
/// A range that is to cease is locked by something else (I16).
const HELD: Expected = says("assertion", "is locked by nobody else");
const LEASE: Expected = by("lease");
const LIVENESS: Expected = by("liveness");
const REVISIONS: Expected = by("revisions");
const SAME_STATE: Expected = by("state machine safety");
const SCENARIO: Expected = by(scenarios::CHECK);
const STALE: Expected = says("real time", "is stale");
const WATCH: Expected = by("watch");

const fn by(check: &'static str) -> Expected {
    Expected { check, text: "" }
}

const fn says(check: &'static str, text: &'static str) -> Expected {
    Expected { check, text }
}

const fn driver(mutant: Driver, hunt: Hunt, expected: &'static [Expected]) -> Row {
    Row { bug: Bug::Driver(mutant), hunt, pace: Pace::Soon, expected }
}

const fn machine(mutant: Machine, hunt: Hunt, expected: &'static [Expected]) -> Row {
    Row { bug: Bug::Machine(mutant), hunt, pace: Pace::Soon, expected }
}

impl Row {
    const fn late(self) -> Self {
        Self { pace: Pace::Late, ..self }
    }
}
