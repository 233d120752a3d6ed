//! Random histories: the right ones must pass, all of them, and a planted fault must be found,
//! every time.

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::faults::FAULTS;
use super::world::{Bug, play};
use crate::check::{Summary, Verdict, judge};

/// Runs without a fault, and how long they are.
const RIGHT_RUNS: u64 = 2_000;
const OPERATIONS: usize = 60;
/// Runs for each fault.
const WRONG_RUNS: u64 = 60;
/// Of these so many must have had a place for the fault, or it proves nothing.
const PLANTED_MIN: u64 = 12;

#[test]
fn right_histories_pass() {
    let mut total = Summary::default();
    for seed in 0..RIGHT_RUNS {
        let run = play(seed, OPERATIONS, None);
        match judge(&run.history, &run.rules) {
            Verdict::Pass(summary) => {
                total.answered += summary.answered;
                total.refused += summary.refused;
                total.unknown_applied += summary.unknown_applied;
                total.events += summary.events;
            }
            verdict => panic!("seed {seed}: {verdict}"),
        }
    }
    // The runs must have been about something.
    let runs = usize::try_from(RIGHT_RUNS).expect("a few thousand");
    assert!(total.answered > 30 * runs, "{total:?}");
    assert!(total.refused > 3 * runs, "{total:?}");
    assert!(total.unknown_applied > runs, "{total:?}");
    assert!(total.events > 10 * runs, "{total:?}");
}

#[test]
fn a_long_history_passes() {
    let run = play(7, 3_000, None);
    let verdict = judge(&run.history, &run.rules);
    assert!(matches!(verdict, Verdict::Pass(_)), "{verdict}");
}

#[test]
fn planted_faults_are_found() {
    for (name, plant) in FAULTS {
        let mut planted = 0;
        for seed in 0..WRONG_RUNS {
            let mut run = play(seed, OPERATIONS, None);
            let mut rng = StdRng::seed_from_u64(seed);
            if plant(&mut run, &mut rng) {
                planted += 1;
                let verdict = judge(&run.history, &run.rules);
                assert!(matches!(verdict, Verdict::Fail(_)), "{name}, seed {seed}: {verdict}");
            }
        }
        assert!(planted >= PLANTED_MIN, "{name} was planted {planted} times only");
    }
}

#[test]
fn bugs_of_the_store_are_found() {
    let bugs = [
        Bug::LoseWrite,
        Bug::ApplyTwice,
        Bug::TearTxn,
        Bug::CompareOldState,
        Bug::ExpireEarly,
        Bug::ExpirePart,
    ];
    for bug in bugs {
        let mut planted = 0;
        for seed in 0..WRONG_RUNS {
            let run = play(seed, 2 * OPERATIONS, Some(bug));
            if run.is_bug_planted {
                planted += 1;
                let verdict = judge(&run.history, &run.rules);
                assert!(matches!(verdict, Verdict::Fail(_)), "{bug:?}, seed {seed}: {verdict}");
            }
        }
        assert!(planted >= PLANTED_MIN, "{bug:?} was planted {planted} times only");
    }
}

#[test]
fn the_same_seed_gives_the_same_history_and_verdict() {
    let (first, second) = (play(3, OPERATIONS, None), play(3, OPERATIONS, None));
    assert_eq!(first.history.operations, second.history.operations);
    assert_eq!(first.history.watches, second.history.watches);
    assert_eq!(judge(&first.history, &first.rules), judge(&second.history, &second.rules));
}
