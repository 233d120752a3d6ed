//! Seeds that fail are shrunk: a reduced run fails as the whole one did, has far less in it, and is
//! repeated by the flags that are printed.

use flotilla_chaos::sim::reduction::Reduction;
use flotilla_chaos::sim::shrink::{Limits, Shrunk, shrink};
use flotilla_chaos::sim::tape::Trouble;
use flotilla_chaos::sim::{self, Class, Focus, Mutant, Options, Report};

/// Seeds within which a bug must be found after enough trouble.
const SEEDS_MAX: u64 = 100;
/// Troubles that a run must have had to be worth shrinking.
const TROUBLES_MIN: usize = 8;
/// Runs that are tried. No seconds are counted, as they would make a test depend on the machine.
const LIMITS: Limits = Limits { tries_max: 150, seconds_max: u64::MAX };

/// The first run with a bug in which it is found after some trouble.
fn found(options: &Options) -> Report {
    let reports = (1..=SEEDS_MAX).map(|seed| sim::run(seed, options));
    let mut found = reports.filter(|report| !report.is_clean());
    let is_long = |report: &Report| report.tape.troubles.len() >= TROUBLES_MIN;
    found.find(is_long).expect("a planted bug is found")
}

fn classes(report: &Report) -> Vec<&Class> {
    report.findings.iter().map(|finding| &finding.class).collect()
}

/// What a command line asks for.
fn read(line: &str) -> (u64, Options) {
    let words = line.strip_prefix("flotilla-chaos sim run --seed ").expect("a run of a seed");
    let mut words = words.split(' ').map(str::to_owned);
    let seed = words.next().and_then(|word| word.parse().ok()).expect("a seed");
    let mut options = Options::default();
    while let Some(flag) = words.next() {
        let value = || Ok(words.next().expect("a flag that has a value is followed by it"));
        assert!(options.take_flag(&flag, value).expect("what was written can be read"), "{flag}");
    }
    (seed, options)
}

/// Shrinks a run with a bug to at most so many troubles.
fn check_shrunk(mutant: Mutant, troubles_max: usize) -> Shrunk {
    let options = Options { mutant: Some(mutant), ..Options::default() };
    let whole = found(&options);
    let shrunk = shrink(whole.seed, &options, LIMITS).expect("it fails");
    assert_eq!(&shrunk.class, classes(&whole)[0]);
    assert_eq!(shrunk.troubles_before, whole.tape.troubles.len());
    assert!(classes(&shrunk.report).contains(&&shrunk.class), "{shrunk}");
    let troubles_count = shrunk.report.tape.troubles.len();
    assert!(troubles_count <= troubles_max, "{troubles_count} troubles are left: {shrunk}");
    assert!(shrunk.report.size.clients <= whole.size.clients);

    let line = shrunk.to_string();
    let (seed, options) = read(line.lines().last().expect("the last line is the command"));
    let again = sim::run(seed, &options);
    assert_eq!(again.hash, shrunk.report.hash, "{shrunk}");
    assert_eq!(again.findings, shrunk.report.findings, "{shrunk}");
    assert_eq!(again.tape.troubles, shrunk.report.tape.troubles, "{shrunk}");
    shrunk
}

#[test]
fn a_run_that_fails_is_shrunk() {
    let shrunk = check_shrunk(Mutant::AppliedApart, 4);
    let options = Options { reduction: Reduction::default(), ..shrunk.options };
    let again = shrink(shrunk.seed, &options, LIMITS).expect("it still fails");
    assert_eq!(again.options.command(again.seed), shrunk.options.command(shrunk.seed));
    assert_eq!(again.tries, shrunk.tries);
}

#[test]
fn a_run_that_needs_several_troubles_is_shrunk() {
    check_shrunk(Mutant::PassForgotten, 4);
}

#[test]
fn a_run_that_is_found_out_by_its_clients_is_shrunk() {
    check_shrunk(Mutant::ClockFast, 1);
}

#[test]
fn a_run_that_does_not_fail_is_not_shrunk() {
    assert!(shrink(1, &Options::default(), LIMITS).is_none());
}

/// The search ends with a limit, and what it has found by then still fails.
#[test]
fn a_limit_ends_the_search() {
    let options = Options { mutant: Some(Mutant::AppliedApart), ..Options::default() };
    let whole = found(&options);
    let limits = Limits { tries_max: 5, ..LIMITS };
    let shrunk = shrink(whole.seed, &options, limits).expect("it fails");
    assert_eq!((shrunk.tries, shrunk.is_finished), (5, false));
    assert!(classes(&shrunk.report).contains(&&shrunk.class), "{shrunk}");
}

fn kinds() -> Vec<Options> {
    let aimed = Options { is_restless: true, is_aimed: true, ..Options::default() };
    vec![
        Options::default(),
        Options { is_restless: true, ..Options::default() },
        Options { focus: Some(Focus::Leases), ..aimed },
        Options { has_users: true, ..Options::default() },
        Options { mutant: Some(Mutant::AckBeforeFlush), ..Options::default() },
    ]
}

/// With everything on its tape a reduced run is the whole one.
#[test]
fn with_nothing_left_out_it_is_the_same_run() {
    for (options, seed) in kinds().into_iter().zip(3..) {
        let whole = sim::run(seed, &options);
        let keep = (1..=whole.tape.troubles.len()).collect();
        let reduction = Reduction { keep: Some(keep), ..Reduction::default() };
        let replay = sim::run(seed, &Options { reduction, ..options });
        assert_eq!(replay.end, whole.end, "seed {seed}");
        assert_eq!(replay.duration, whole.duration, "seed {seed}");
        assert_eq!(replay.seen, whole.seen, "seed {seed}");
        assert_eq!(replay.tape.troubles, whole.tape.troubles, "seed {seed}");
    }
}

/// What is left out makes no others of the rest: they come at the same moments.
#[test]
fn troubles_that_are_kept_stay_what_they_are() {
    for (options, seed) in kinds().into_iter().zip(13..) {
        let whole = sim::run(seed, &options);
        let is_kept = |trouble: &&Trouble| trouble.number.is_multiple_of(2);
        let kept: Vec<Trouble> = whole.tape.troubles.iter().filter(is_kept).cloned().collect();
        let keep = kept.iter().map(|trouble| trouble.number).collect();
        let reduction = Reduction { keep: Some(keep), ..Reduction::default() };
        let reduced = sim::run(seed, &Options { reduction, ..options });
        // A run that fails ends with that, maybe before the last of them.
        assert!(kept.starts_with(&reduced.tape.troubles), "seed {seed}");
        if whole.is_clean() {
            assert!(reduced.is_clean(), "{reduced}");
            assert_eq!(reduced.tape.troubles.len(), kept.len(), "seed {seed}");
        }
    }
}
