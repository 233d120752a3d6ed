//! The simulator under test: seeds that must stay clean, seeds that once failed, runs that repeat
//! themselves to the byte, and planted bugs that must be found by what clients see.

use flotilla_chaos::sim::sweep::CORNERS;
use flotilla_chaos::sim::trace::LINES_USUAL;
use flotilla_chaos::sim::{self, End, Focus, Mutant, Options};

/// Fresh seeds of every run of the tests.
const SEEDS: std::ops::RangeInclusive<u64> = 1..=40;
/// Fresh seeds in which ranges are cut and merged all the time.
const RESTLESS_SEEDS: std::ops::RangeInclusive<u64> = 1..=24;
/// Fresh seeds of each kind that is aimed at something.
const FOCUSED_SEEDS: std::ops::RangeInclusive<u64> = 1..=16;
/// Fresh seeds in which permissions come and go.
const USERS_SEEDS: std::ops::RangeInclusive<u64> = 1..=28;
/// Seeds within which a planted bug must be found.
const MUTANT_SEEDS_MAX: u64 = 200;

fn check_clean(seeds: impl Iterator<Item = (u64, Options)>) {
    let found: Vec<String> = seeds
        .map(|(seed, options)| sim::run(seed, &options))
        .filter(|report| !report.is_clean())
        .map(|report| report.to_string())
        .collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn seeds_are_clean() {
    check_clean(SEEDS.map(|seed| (seed, Options::default())));
}

/// Ranges are cut and merged all the time.
#[test]
fn restless_seeds_are_clean() {
    let options = Options { is_restless: true, ..Options::default() };
    check_clean(RESTLESS_SEEDS.map(|seed| (seed, options.clone())));
}

/// Ranges are cut and merged, and trouble strikes in the middle of that.
#[test]
fn aimed_seeds_are_clean() {
    let options = Options { is_restless: true, is_aimed: true, ..Options::default() };
    check_clean(FOCUSED_SEEDS.map(|seed| (seed, options.clone())));
    for corner in ["struck in the middle", "node lost for good", "range taken over"] {
        let is_reached = |seed| sim::run(seed, &options).seen.contains_key(corner);
        assert!(FOCUSED_SEEDS.into_iter().any(is_reached), "{corner} never happened");
    }
}

/// Clients mostly do one thing.
#[test]
fn seeds_with_a_focus_are_clean() {
    for focus in [Focus::Leases, Focus::History] {
        let options = Options { focus: Some(focus), ..Options::default() };
        check_clean(FOCUSED_SEEDS.map(|seed| (seed, options.clone())));
    }
}

/// Authentication is on, and permissions come and go while all the rest goes wrong.
#[test]
fn seeds_with_users_are_clean_and_reach_every_corner() {
    let mut seen = std::collections::BTreeMap::new();
    for seed in USERS_SEEDS {
        let options = Options { has_users: true, ..Options::default() };
        let report = sim::run(seed, &options);
        assert!(report.is_clean(), "{report}");
        for (what, count) in report.seen {
            *seen.entry(what).or_insert(0) += count;
        }
    }
    for corner in [
        "users changed",
        "permission denied",
        "read denied",
        "refused by the order because users changed",
        "read done again because users changed",
    ] {
        assert!(seen.contains_key(corner), "{corner} never happened; seen: {seen:?}");
    }
}

#[test]
fn forgetting_the_pass_is_found() {
    check_found(Mutant::PassForgotten, &["permission: "]);
}

#[test]
fn seeds_that_once_failed_are_clean() {
    let list = include_str!("seeds.txt");
    let seeds = list.lines().filter_map(|line| {
        let (seed, reason) = line.split_once(' ').filter(|_| !line.starts_with('#'))?;
        let seed = seed.parse().expect("a line begins with a seed");
        let is_aimed = reason.starts_with("aimed");
        let is_restless = is_aimed || reason.starts_with("restless");
        let focus =
            reason.split_once(':').and_then(|(kind, _)| kind.split(' ').next_back()?.parse().ok());
        Some((seed, Options { is_restless, is_aimed, focus, ..Options::default() }))
    });
    check_clean(seeds);
}

/// Together these must reach every corner of a merge.
#[test]
fn the_restless_seeds_reach_every_corner() {
    let options = Options { is_restless: true, ..Options::default() };
    let mut seen = std::collections::BTreeMap::new();
    for seed in RESTLESS_SEEDS {
        for (what, count) in sim::run(seed, &options).seen {
            *seen.entry(what).or_insert(0) += count;
        }
    }
    for corner in [
        "range cut",
        "ranges merged",
        "range taken over",
        "merged range retired",
        "merge of others than neighbours refused",
        "merge given up",
        "merge with a lock in the way",
        "merge under a live watch",
        "replica ahead of the spine over a merge",
        "crash in the middle of a merge",
    ] {
        assert!(seen.contains_key(corner), "{corner} never happened; seen: {seen:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    for seed in [3, 14, 15] {
        let options = Options { lines_max: LINES_USUAL, ..Options::default() };
        let (first, second) = (sim::run(seed, &options), sim::run(seed, &options));
        assert_eq!(first.hash, second.hash, "seed {seed}");
        assert_eq!(first.trace, second.trace, "seed {seed}");
        assert_eq!(first.end, second.end, "seed {seed}");
    }
    let first = sim::run(3, &Options::default());
    let other = sim::run(14, &Options::default());
    assert_ne!(first.hash, other.hash);
}

/// Together the seeds must reach every corner, or a clean sweep would prove little.
#[test]
fn the_seeds_reach_every_corner() {
    let mut seen = std::collections::BTreeMap::new();
    for seed in SEEDS {
        for (what, count) in sim::run(seed, &Options::default()).seen {
            *seen.entry(what).or_insert(0) += count;
        }
    }
    for corner in [
        "all crashed",
        "bit flipped",
        "call given up",
        "compaction finished",
        "connection broken",
        "crash lost log records",
        "crash lost store batches",
        "cut",
        "disk stuck",
        "disks of a crashed node checked",
        "follower of a range fell asleep",
        "forwards given back",
        "frame lost",
        "handed over",
        "leader elected",
        "leader of a range elected",
        "leader moved",
        "leader of a range asked to hand over",
        "decision concluded",
        "decision kept",
        "member drained or no longer",
        "leader of a range fell asleep",
        "leader of a range woken by a follower",
        "leader of a range woken by a node that came or went",
        "learner of a range fell asleep",
        "learner of a range woken",
        "log truncated",
        "log of a range truncated",
        "member added",
        "member promoted",
        "member removed",
        "members of a range changed",
        "paused",
        "keys of a lease read",
        "question refused",
        "range begun",
        "range cut",
        "range was here between asking and taking",
        "read elsewhere",
        "range woken by a message",
        "range woken by a request",
        "range woken by the silence of its leader's node",
        "snapshot failed",
        "snapshot installed",
        "snapshot of a range installed",
        "stream was full",
        "unknown outcome",
        "vote in the spine given or taken",
        "watch block from elsewhere",
        "watch block given up for the own store",
        "watch block in pieces",
        "watch block put together",
        "watch block refused",
        "watch cancelled",
        "watchers caught up from history",
    ] {
        assert!(seen.contains_key(corner), "{corner} never happened; seen: {seen:?}");
    }
}

/// Finds a planted bug, looking only at what clients see, and by a check that names it.
fn check_found(mutant: Mutant, wanted: &[&str]) {
    check_found_with(mutant, wanted, true);
}

fn check_found_with(mutant: Mutant, wanted: &[&str], is_black_box: bool) {
    let options = Options { mutant: Some(mutant), is_black_box, ..Options::default() };
    let mut others = Vec::new();
    for seed in 1..=MUTANT_SEEDS_MAX {
        if let End::Found(what) = sim::run(seed, &options).end {
            if wanted.iter().any(|wanted| what.contains(wanted)) {
                return;
            }
            others.push(format!("seed {seed}: {what}"));
        }
    }
    panic!("{mutant} is not found as {wanted:?}; found were:\n{}", others.join("\n"));
}

#[test]
fn acknowledging_without_a_quorum_is_found() {
    check_found(Mutant::AckWithoutQuorum, &["both made by", " saw [", "was given to"]);
}

/// Two leaders of one term seldom do visible harm, so this one is looked for inside.
#[test]
fn forgetting_the_vote_is_found() {
    check_found_with(Mutant::VoteForgotten, &["election safety"], false);
}

#[test]
fn acknowledging_before_the_flush_is_found() {
    check_found(Mutant::AckBeforeFlush, &["both made by", " saw [", "was given to"]);
}

#[test]
fn storing_the_applied_index_apart_is_found() {
    check_found(Mutant::AppliedApart, &["has hash"]);
}

#[test]
fn reading_without_a_read_index_is_found() {
    check_found(Mutant::ReadWithoutIndex, &["stale"]);
}

#[test]
fn deciding_a_transaction_early_is_found() {
    check_found(Mutant::TxnDecidedEarly, &["should have changed"]);
}

#[test]
fn repeating_a_request_of_unknown_outcome_is_found() {
    check_found(Mutant::UnknownRetried, &["were both made by"]);
}

#[test]
fn keeping_the_log_beside_a_snapshot_is_found() {
    check_found(Mutant::SuffixKept, &["refuses", "cannot start"]);
}

#[test]
fn a_watcher_that_skips_is_found() {
    check_found(Mutant::WatchSkips, &["was due before"]);
}

#[test]
fn progress_that_overtakes_is_found() {
    check_found(Mutant::ProgressOvertakes, &["was announced before"]);
}

#[test]
fn a_revision_in_two_responses_is_found() {
    check_found(Mutant::WatchSplits, &["was split over"]);
}

#[test]
fn leases_on_a_fast_clock_are_found() {
    check_found(Mutant::ClockFast, &["not before"]);
}

#[test]
fn a_log_that_loses_what_was_flushed_is_found() {
    check_found(Mutant::FlushForgotten, &["cannot start", "both made by"]);
}

#[test]
fn replicas_that_apply_differently_are_found() {
    check_found(Mutant::ApplyDiverges, &["has hash"]);
}

/// A sweep over all kinds of runs says what never happened, of all that is counted anywhere.
#[test]
fn every_counter_is_a_corner_of_the_mixed_sweep() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/sim");
    let files = std::fs::read_dir(folder).expect("the sources of the simulator");
    let paths = files.map(|file| file.expect("a file").path());
    // Where they are listed they are not counted.
    let paths = paths.filter(|path| !path.ends_with("sweep.rs"));
    let texts = paths.map(|path| std::fs::read_to_string(path).expect("a source"));
    let source: String = texts.collect();
    let counted: Vec<&str> = source
        .split("see(\"")
        .skip(1)
        .map(|rest| rest.split('"').next().expect("a literal ends"))
        .collect();
    assert!(counted.len() > 60, "counters were looked for in vain: {counted:?}");
    let missing: Vec<_> = counted.iter().filter(|what| !CORNERS.contains(what)).collect();
    assert!(missing.is_empty(), "not in `CORNERS`: {missing:?}");
    let unknown: Vec<_> =
        CORNERS.iter().filter(|what| !source.contains(&format!("\"{what}\""))).collect();
    assert!(unknown.is_empty(), "counted nowhere: {unknown:?}");
}
