//! Proof that the checks find bugs: every bug that can be planted is planted, one at a time, and
//! looked for with the seeds of any other run until the check fires that is there for it.
//!
//! What random seeds meet too seldom has a scenario of its own (`scenarios`), which constructs the
//! interleaving on the real machines: without the bug it passes, with it it must not.

mod rows;
pub mod scenarios;
mod table;

use std::time::{Duration, Instant};

use flotilla_core::mutant;

use crate::sim::{self, Finding, Focus, Mutant, Options, Report};

pub use rows::ROWS;
pub use table::Table;

/// A bug that can be planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// In the simulator's driver: what a node does around the machines.
    Driver(Mutant),
    /// In the machines of the core.
    Machine(mutant::Mutant),
}

impl Bug {
    /// As on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Driver(mutant) => mutant.name(),
            Self::Machine(mutant) => mutant.name(),
        }
    }

    /// What is wrong with it, in a sentence.
    pub fn text(self) -> &'static str {
        match self {
            Self::Driver(mutant) => mutant.text().trim(),
            Self::Machine(mutant) => mutant.text().trim(),
        }
    }

    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        let driver = Mutant::ALL.iter().copied().map(Self::Driver);
        driver.chain(mutant::Mutant::ALL.iter().copied().map(Self::Machine))
    }
}

/// How a bug is looked for.
#[derive(Clone, Copy, Debug)]
pub enum Hunt {
    /// Seeds, judged by what clients see alone.
    Clients,
    /// Seeds, with all checks.
    Seeds,
    /// Seeds in which ranges are cut and merged all the time.
    Restless,
    /// Restless seeds in which trouble strikes in the middle of cuts and merges.
    Aimed,
    /// Seeds in which clients mostly do this.
    Focused(Focus),
    /// As `Aimed`, and clients mostly do this.
    AimedFocused(Focus),
    /// An interleaving that seeds seldom meet.
    Scenario(Scenario),
}

/// Drives machines through one interleaving and judges what came of it. A panic is a finding, too.
pub type Scenario = fn() -> Result<(), Finding>;

/// A check that is to find a bug.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// As `Finding::check` says.
    pub check: &'static str,
    /// What its text must hold.
    pub text: &'static str,
}

impl Expected {
    fn is_met_by(&self, finding: &Finding) -> bool {
        finding.check() == self.check && finding.text.contains(self.text)
    }
}

/// How soon a bug is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Within a hundred seeds, so that every run of the tests looks for it.
    Soon,
    /// Later: only the whole hunt looks for it.
    Late,
}

/// One bug, and what is to be seen of it.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The bug.
    pub bug: Bug,
    /// How it is looked for.
    pub hunt: Hunt,
    /// How soon it is found.
    pub pace: Pace,
    /// The checks that are there for it, each of which names what it breaks. Others may see something
    /// of it as well, and sooner; the hunt goes on until one of these does.
    pub expected: &'static [Expected],
}

/// What became of a hunt.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Found, by these checks that were expected to.
    Found(Vec<Finding>),
    /// Found, and by none that was expected to.
    Unexpected(Vec<Finding>),
    /// Not found.
    Survived,
    /// The scenario fails without the bug.
    Unsound(Finding),
}

/// A hunt that is over.
#[derive(Clone, Debug)]
pub struct Hunted {
    /// For what.
    pub row: &'static Row,
    /// What became of it.
    pub outcome: Outcome,
    /// Seeds that were run, the last of which has found it if it was found; 0 for a scenario.
    pub seeds: u64,
    /// How long that took.
    pub took: Duration,
}

impl Hunted {
    /// Whether the bug was found by a check that is there for it.
    pub fn is_found(&self) -> bool {
        matches!(self.outcome, Outcome::Found(_))
    }
}

/// Looks for the bug of a row, with at most so many seeds, from the first on.
pub fn hunt(row: &'static Row, seeds_max: u64) -> Hunted {
    let began = Instant::now();
    let (outcome, seeds) = match row.hunt {
        Hunt::Scenario(scenario) => (play(row, scenario), 0),
        _ => sweep(row, seeds_max),
    };
    Hunted { row, outcome, seeds, took: began.elapsed() }
}

fn sweep(row: &Row, seeds_max: u64) -> (Outcome, u64) {
    let options = options_of(row);
    let mut outcome = Outcome::Survived;
    for seed in 1..=seeds_max {
        let Report { findings, .. } = sim::run(seed, &options);
        if findings.is_empty() {
            continue;
        }
        match judge(row, findings) {
            found @ Outcome::Found(_) => return (found, seed),
            other if matches!(outcome, Outcome::Survived) => outcome = other,
            _ => {}
        }
    }
    (outcome, seeds_max)
}

fn options_of(row: &Row) -> Options {
    let (mutant, machine_mutant) = match row.bug {
        Bug::Driver(mutant) => (Some(mutant), None),
        Bug::Machine(mutant) => (None, Some(mutant)),
    };
    let is_aimed = matches!(row.hunt, Hunt::Aimed | Hunt::AimedFocused(_));
    Options {
        mutant,
        machine_mutant,
        is_black_box: matches!(row.hunt, Hunt::Clients),
        is_restless: is_aimed || matches!(row.hunt, Hunt::Restless),
        is_aimed,
        focus: match row.hunt {
            Hunt::Focused(focus) | Hunt::AimedFocused(focus) => Some(focus),
            _ => None,
        },
        ..Options::default()
    }
}

fn play(row: &Row, scenario: Scenario) -> Outcome {
    let Bug::Machine(mutant) = row.bug else {
        unreachable!("scenarios drive machines, not the driver")
    };
    if let Err(finding) = scenarios::play(None, scenario) {
        return Outcome::Unsound(finding);
    }
    match scenarios::play(Some(mutant), scenario) {
        Ok(()) => Outcome::Survived,
        Err(finding) => judge(row, vec![finding]),
    }
}

fn judge(row: &Row, findings: Vec<Finding>) -> Outcome {
    let is_expected = |finding: &Finding| row.expected.iter().any(|it| it.is_met_by(finding));
    let (expected, others): (Vec<_>, Vec<_>) = findings.into_iter().partition(is_expected);
    if expected.is_empty() { Outcome::Unexpected(others) } else { Outcome::Found(expected) }
}
