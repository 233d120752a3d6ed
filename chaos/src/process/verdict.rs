//! What a run is worth: PASS, FAIL or INVALID. A broken promise fails a run however little else
//! it proves; a run in which a fault had no effect, or too little happened, is invalid.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::check;
use crate::process::fault::{Class, Done};

/// The three verdicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    /// Every promise was kept, under every fault that was asked for.
    Pass,
    /// A promise was broken.
    Fail,
    /// The run proves nothing.
    Invalid,
}

/// A verdict and what led to it.
#[derive(Clone, Debug, Serialize)]
pub struct Judgement {
    /// The verdict.
    pub verdict: Verdict,
    /// What was broken, one line each.
    pub violations: Vec<String>,
    /// How often each kind of violation was found.
    pub kinds: BTreeMap<String, usize>,
    /// Why the run proves nothing, or proves less than was asked.
    pub doubts: Vec<String>,
    /// What the history consists of, if it passed.
    pub summary: String,
}

impl Judgement {
    /// Adds reasons why the run proves less than was asked.
    pub fn doubt(&mut self, doubts: impl Iterator<Item = String>) {
        self.doubts.extend(doubts);
        if self.verdict == Verdict::Pass && !self.doubts.is_empty() {
            self.verdict = Verdict::Invalid;
        }
    }
}

impl Verdict {
    /// Exit code of the command: 0, 1 and 3. Code 2 is a run that could not be made.
    pub fn exit_code(self) -> u8 {
        match self {
            Verdict::Pass => 0,
            Verdict::Fail => 1,
            Verdict::Invalid => 3,
        }
    }
}

/// Joins what the checkers say with what was found besides, and with the effects of the faults.
pub fn judge(
    history: &check::Verdict,
    findings: Vec<String>,
    done: &[Done],
    asked: &[Class],
) -> Judgement {
    let mut kinds = BTreeMap::new();
    let mut violations = findings;
    if !violations.is_empty() {
        kinds.insert("finding beside the history".to_owned(), violations.len());
    }
    let mut doubts = Vec::new();
    let mut summary = String::new();
    match history {
        check::Verdict::Pass(_) => {
            summary = history.to_string().replace("PASS: ", "the history is clean: ")
        }
        check::Verdict::Fail(found) => {
            violations.extend(found.iter().map(ToString::to_string));
            for violation in found {
                *kinds.entry(kind(violation)).or_default() += 1;
            }
        }
        check::Verdict::Invalid(reason) => doubts.push(reason.to_string()),
    }
    doubts.extend(without_effect(done, asked));
    let verdict = match (violations.is_empty(), doubts.is_empty()) {
        (false, _) => Verdict::Fail,
        (true, false) => Verdict::Invalid,
        (true, true) => Verdict::Pass,
    };
    Judgement { verdict, violations, kinds, doubts, summary }
}

/// The name of a kind of violation, as the checks have it.
fn kind(violation: &check::Violation) -> String {
    let (prefix, debug) = match violation {
        check::Violation::Watch { fault, .. } => ("watch: ", format!("{fault:?}")),
        other => ("", format!("{other:?}")),
    };
    let name = debug.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
    format!("{prefix}{name}")
}

/// Each class that was asked for and never had an effect. One fault of a class may miss: its
/// node can be hit by another fault at the same time.
fn without_effect(done: &[Done], asked: &[Class]) -> Vec<String> {
    let mut effects: BTreeMap<Class, (usize, String)> = BTreeMap::new();
    for class in asked {
        effects.insert(*class, (0, "it never came up: the run is too short".to_owned()));
    }
    for fault in done {
        let entry = effects.entry(fault.class).or_insert((0, String::new()));
        match &fault.effect {
            Ok(_) => entry.0 += 1,
            Err(reason) => entry.1.clone_from(reason),
        }
    }
    effects
        .into_iter()
        .filter(|(_, (count, _))| *count == 0)
        .map(|(class, (_, reason))| format!("{class} had no effect: {reason}"))
        .collect()
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Pass => "PASS",
            Verdict::Fail => "FAIL",
            Verdict::Invalid => "INVALID",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(class: Class, effect: Result<String, String>) -> Done {
        Done { class, who: String::new(), since: 0, until: 1, effect }
    }

    #[test]
    fn a_class_without_effect_makes_a_run_invalid_and_a_finding_makes_it_fail() {
        let history = check::Verdict::Pass(check::Summary::default());
        let hit = done(Class::Kill, Ok("killed".to_owned()));
        let miss = done(Class::Kill, Err("it did not run".to_owned()));
        let verdict = |findings: &[&str], done: &[Done]| {
            let findings = findings.iter().map(|it| (*it).to_owned()).collect();
            judge(&history, findings, done, &[Class::Kill]).verdict
        };
        assert_eq!(verdict(&[], &[hit.clone(), miss.clone()]), Verdict::Pass);
        assert_eq!(verdict(&[], std::slice::from_ref(&miss)), Verdict::Invalid);
        assert_eq!(verdict(&[], &[]), Verdict::Invalid);
        assert_eq!(verdict(&["a node left"], &[miss]), Verdict::Fail);
        let invalid = check::Verdict::Invalid(check::Invalid::OpenEvidence);
        let judgement = judge(&invalid, Vec::new(), &[hit], &[Class::Kill]);
        assert_eq!(judgement.verdict, Verdict::Invalid);
    }
}
