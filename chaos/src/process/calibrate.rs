//! Many runs of one target, and a table of what they found: to show on a program whose faults are
//! known that the harness finds them and nothing else.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context as _, ensure};

use crate::process::options::Options;
use crate::process::verdict::Verdict;
use crate::process::{Ended, Interrupted, scenario};

/// How a calibration is asked for.
pub const USAGE: &str =
    "flotilla-chaos calibrate --scenarios A,B,… --seeds COUNT [--first S] (flags of run)";

/// What the runs of one scenario came to.
#[derive(Clone, Debug, Default)]
struct Row {
    runs: usize,
    pass: usize,
    fail: usize,
    invalid: usize,
    failed_to_run: usize,
    /// Runs in which each kind of violation was found.
    kinds: BTreeMap<String, usize>,
    operations: usize,
}

/// Makes all runs and prints a line for each to `say`. Returns the table, as Markdown.
///
/// # Errors
/// The words are not understood, or somebody interrupted.
pub fn calibrate(words: &[String], mut say: impl FnMut(&str)) -> anyhow::Result<String> {
    let mut scenarios = Vec::new();
    let (mut seeds_count, mut first) = (1, 1);
    let mut others = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().with_context(|| format!("{word} needs a value"));
        match word.as_str() {
            "--scenarios" => scenarios = value()?.split(',').map(str::to_owned).collect(),
            "--seeds" => seeds_count = value()?.parse()?,
            "--first" => first = value()?.parse()?,
            _ => others.push(word.clone()),
        }
    }
    ensure!(!scenarios.is_empty(), "--scenarios is missing");
    let mut rows: BTreeMap<String, Row> = BTreeMap::new();
    for seed in first..first + seeds_count {
        for name in &scenarios {
            scenario::find(name)?;
            let flags = ["--scenario", name, "--seed", &seed.to_string()].map(str::to_owned);
            let options = Options::parse(&[&flags[..], &others].concat())?;
            let row = rows.entry(name.clone()).or_default();
            match crate::process::run(&options) {
                Ok(ended) => {
                    say(&format!("{name}, seed {seed}: {ended}"));
                    row.take(&ended);
                }
                Err(error) if error.is::<Interrupted>() => return Err(error),
                Err(error) => {
                    say(&format!("{name}, seed {seed}: could not be made: {error:#}"));
                    row.failed_to_run += 1;
                }
            }
        }
    }
    Ok(table(&scenarios, &rows))
}

fn table(scenarios: &[String], rows: &BTreeMap<String, Row>) -> String {
    let mut text = "| scenario | runs | PASS | FAIL | INVALID | calls | found in so many runs |\n\
                    |---|---|---|---|---|---|---|\n"
        .to_owned();
    for (name, row) in scenarios.iter().filter_map(|name| Some((name, rows.get(name)?))) {
        let kinds: Vec<String> =
            row.kinds.iter().map(|(kind, runs)| format!("{kind} {runs}")).collect();
        let found = if kinds.is_empty() { "nothing".to_owned() } else { kinds.join(", ") };
        let _ = writeln!(
            text,
            "| {name} | {} | {} | {} | {} | {} | {found} |",
            row.runs, row.pass, row.fail, row.invalid, row.operations
        );
        if row.failed_to_run > 0 {
            let _ = writeln!(text, "\n{name}: {} runs could not be made.", row.failed_to_run);
        }
    }
    text
}

impl Row {
    fn take(&mut self, ended: &Ended) {
        self.runs += 1;
        self.operations += ended.operations;
        match ended.judgement.verdict {
            Verdict::Pass => self.pass += 1,
            Verdict::Fail => self.fail += 1,
            Verdict::Invalid => self.invalid += 1,
        }
        for kind in ended.judgement.kinds.keys() {
            *self.kinds.entry(kind.clone()).or_default() += 1;
        }
    }
}
