//! Bugs planted in the machines, and in the driver around them, must be found by the checks that are
//! there for them. Those that random seeds find seldom are left to the whole hunt, `flotilla-chaos
//! mutants`; docs/mutants.md has its table.

use std::collections::BTreeSet;

use flotilla_chaos::mutants::{Bug, Hunt, Hunted, Pace, ROWS, Row, hunt, scenarios};
use flotilla_chaos::sim::{self, Options};

/// Seeds within which a bug must be found here that is found soon.
const SEEDS_MAX: u64 = 100;

/// Hunts for those that are found soon, every third of them.
fn check_found(third: usize) {
    let soon = ROWS.iter().filter(|row| row.pace == Pace::Soon);
    let hunted = soon.skip(third).step_by(3).map(|row| hunt(row, SEEDS_MAX));
    let failed: Vec<String> =
        hunted.filter(|hunted| !hunted.is_found()).map(|hunted| hunted.to_string()).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn planted_bugs_are_found() {
    check_found(0);
}

#[test]
fn planted_bugs_are_found_too() {
    check_found(1);
}

#[test]
fn planted_bugs_are_found_as_well() {
    check_found(2);
}

/// What seeds meet seldom fails with its bug, and passes without: `hunt` plays it both ways.
#[test]
fn scenarios_find_their_bugs_and_nothing_else() {
    let is_scenario = |row: &&Row| matches!(row.hunt, Hunt::Scenario(_));
    let hunted: Vec<Hunted> = ROWS.iter().filter(is_scenario).map(|row| hunt(row, 0)).collect();
    assert!(hunted.len() >= 3, "there are scenarios");
    let failed: Vec<String> =
        hunted.iter().filter(|it| !it.is_found()).map(ToString::to_string).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    for hunted in hunted {
        let Hunt::Scenario(scenario) = hunted.row.hunt else { continue };
        assert_eq!(scenarios::play(None, scenario), Ok(()), "{}", hunted.row.bug.name());
    }
}

#[test]
fn every_bug_is_looked_for() {
    let looked_for: BTreeSet<&str> = ROWS.iter().map(|row| row.bug.name()).collect();
    let all: Vec<&str> = Bug::all().map(Bug::name).collect();
    assert_eq!(looked_for.len(), all.len(), "a name is used once");
    let forgotten: Vec<_> = all.iter().filter(|name| !looked_for.contains(**name)).collect();
    assert!(forgotten.is_empty(), "nobody looks for {forgotten:?}");
    assert!(ROWS.iter().all(|row| !row.expected.is_empty()), "something is expected of each");
}

/// That bugs can be planted changes nothing while none is.
#[test]
fn seeds_are_clean_when_nothing_is_planted() {
    for seed in 1..=6 {
        for is_restless in [false, true] {
            let report = sim::run(seed, &Options { is_restless, ..Options::default() });
            assert!(report.is_clean(), "{report}");
        }
    }
}
