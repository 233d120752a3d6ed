//! The outcome of hunts as a table, in Markdown.

use std::fmt;

use super::{Hunt, Hunted, Outcome};
use crate::sim::{Finding, Focus};

/// Characters of what a check says that are shown.
const TEXT_CHARS_MAX: usize = 110;

/// One line for each hunt, in the order in which they were made.
#[derive(Debug, Default)]
pub struct Table(Vec<Hunted>);

impl Table {
    /// The two lines at its head.
    pub const HEAD: &'static str = "\
| Bug | What it does | Looked for with | Expected of | Found by | Seeds | Seconds |
|---|---|---|---|---|---|---|";

    /// Adds a hunt.
    pub fn push(&mut self, hunted: Hunted) {
        self.0.push(hunted);
    }

    /// Those that did not find what they were for.
    pub fn failed(&self) -> impl Iterator<Item = &Hunted> {
        self.0.iter().filter(|hunted| !hunted.is_found())
    }

    /// Seeds that it took, of those that found their bug with seeds: the middle one, and the most.
    pub fn seeds(&self) -> Option<(u64, u64)> {
        let found = self.0.iter().filter(|hunted| hunted.is_found() && hunted.seeds > 0);
        let mut seeds: Vec<u64> = found.map(|hunted| hunted.seeds).collect();
        seeds.sort_unstable();
        Some((seeds[seeds.len().checked_sub(1)? / 2], *seeds.last()?))
    }
}

impl fmt::Display for Hunted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (bug, hunt) = (self.row.bug, self.row.hunt);
        let with = match hunt {
            Hunt::Clients => "seeds, as clients see it",
            Hunt::Seeds => "seeds",
            Hunt::Restless => "restless seeds",
            Hunt::Aimed => "aimed seeds",
            Hunt::Focused(Focus::Leases) => "seeds with many leases",
            Hunt::Focused(Focus::History) => "seeds that read the past",
            Hunt::AimedFocused(Focus::Leases) => "aimed seeds with many leases",
            Hunt::AimedFocused(Focus::History) => "aimed seeds that read the past",
            Hunt::Scenario(_) => "a scenario",
        };
        let mut expected: Vec<&str> = self.row.expected.iter().map(|it| it.check).collect();
        expected.dedup();
        let found = match &self.outcome {
            Outcome::Found(findings) => said(findings),
            Outcome::Unexpected(findings) => format!("**by others: {}**", said(findings)),
            Outcome::Survived => "**not found**".to_owned(),
            Outcome::Unsound(finding) => {
                format!(
                    "**the scenario fails without it: {}**",
                    said(std::slice::from_ref(finding))
                )
            }
        };
        let seeds = if self.seeds == 0 { "–".to_owned() } else { self.seeds.to_string() };
        write!(
            f,
            "| `{}` | {} | {with} | {} | {found} | {seeds} | {:.1} |",
            bug.name(),
            bug.text(),
            expected.join(", "),
            self.took.as_secs_f64()
        )
    }
}

fn said(findings: &[Finding]) -> String {
    let Some(first) = findings.first() else { return String::new() };
    let mut checks: Vec<&str> = findings.iter().map(Finding::check).collect();
    checks.dedup();
    let line = first.text.lines().next().unwrap_or_default();
    // What an invariant finds begins with its name.
    let named = format!("{}: ", first.check());
    let line = line.strip_prefix(named.as_str()).unwrap_or(line);
    let line = line.replace('|', "\\|");
    let mut text: String = line.chars().take(TEXT_CHARS_MAX).collect();
    if text.len() < line.len() {
        text.push('…');
    }
    format!("{}: {text}", checks.join(", "))
}
