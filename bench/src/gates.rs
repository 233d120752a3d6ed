//! The gates: what each row's figures must reach, read from one table.

use anyhow::{Context as _, bail, ensure};
use serde::Serialize;

use crate::bootstrap::Ratio;

/// The table that comes with the program.
const TABLE: &str = include_str!("../gates.tsv");

/// What a gate judges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The target's median over the baseline's.
    Ratio,
    /// The target's median itself.
    Own,
}

/// On which side of the gate is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// Less or the same.
    AtMost,
    /// More or the same.
    AtLeast,
}

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Gate {
    /// The row of the goals, such as `P1`.
    pub row: String,
    /// The metric of the row's experiment.
    pub metric: String,
    /// What is judged.
    pub kind: Kind,
    /// Which side is good.
    pub bound: Bound,
    /// The value that must be reached.
    pub gate: f64,
    /// The value hoped for.
    pub stretch: Option<f64>,
}

/// How a gate was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Judgement {
    /// Met, and so is the stretch goal.
    Stretch,
    /// Met.
    Pass,
    /// Missed.
    Fail,
    /// There is no figure.
    NotMeasured,
}

impl Gate {
    /// Judges a figure. The second answer says whether its whole interval lies on the same side.
    #[must_use]
    pub fn judge(&self, figure: Option<Ratio>) -> (Judgement, bool) {
        let Some(figure) = figure else { return (Judgement::NotMeasured, false) };
        let meets = |value: f64, gate: f64| match self.bound {
            Bound::AtMost => value <= gate,
            Bound::AtLeast => value >= gate,
        };
        let is_met = meets(figure.value, self.gate);
        let is_certain =
            meets(figure.low, self.gate) == is_met && meets(figure.high, self.gate) == is_met;
        let judgement = match (is_met, self.stretch) {
            (true, Some(stretch)) if meets(figure.value, stretch) => Judgement::Stretch,
            (true, _) => Judgement::Pass,
            (false, _) => Judgement::Fail,
        };
        (judgement, is_certain)
    }
}

/// The gates of the table that comes with the program.
///
/// # Errors
/// The table is malformed; a test sees to it that it is not.
pub fn table() -> anyhow::Result<Vec<Gate>> {
    parse(TABLE)
}

/// Reads a table of gates: tab-separated, comments begin with `#`.
///
/// # Errors
/// A line is not understood.
pub fn parse(text: &str) -> anyhow::Result<Vec<Gate>> {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    lines.map(|line| parse_line(line).with_context(|| format!("gate {line:?}"))).collect()
}

fn parse_line(line: &str) -> anyhow::Result<Gate> {
    let columns: Vec<&str> = line.split('\t').collect();
    ensure!(columns.len() == 6, "six columns are needed");
    Ok(Gate {
        row: columns[0].into(),
        metric: columns[1].into(),
        kind: match columns[2] {
            "ratio" => Kind::Ratio,
            "own" => Kind::Own,
            other => bail!("unknown kind {other:?}"),
        },
        bound: match columns[3] {
            "<=" => Bound::AtMost,
            ">=" => Bound::AtLeast,
            other => bail!("unknown bound {other:?}"),
        },
        gate: columns[4].parse()?,
        stretch: match columns[5] {
            "-" => None,
            stretch => Some(stretch.parse()?),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_well_formed_and_stretches_are_harder() {
        let gates = table().unwrap();
        assert!(gates.len() > 20);
        for gate in &gates {
            if let Some(stretch) = gate.stretch {
                let is_harder = match gate.bound {
                    Bound::AtMost => stretch < gate.gate,
                    Bound::AtLeast => stretch > gate.gate,
                };
                assert!(is_harder, "{gate:?}");
            }
            assert!(crate::rows::ROWS.iter().any(|row| row.id == gate.row), "{gate:?}");
        }
    }

    #[test]
    fn figures_are_judged_with_their_certainty() {
        let gate = parse("P1\tthroughput\tratio\t>=\t2.0\t3.0").unwrap().remove(0);
        let figure = |low, value, high| Some(Ratio { value, low, high });
        assert_eq!(gate.judge(figure(2.1, 2.5, 2.9)), (Judgement::Pass, true));
        assert_eq!(gate.judge(figure(1.9, 2.5, 2.9)), (Judgement::Pass, false));
        assert_eq!(gate.judge(figure(3.1, 3.5, 3.9)), (Judgement::Stretch, true));
        assert_eq!(gate.judge(figure(1.0, 1.5, 2.5)), (Judgement::Fail, false));
        assert_eq!(gate.judge(None), (Judgement::NotMeasured, false));
        assert!(parse("P1\tthroughput\tratio\t==\t2.0\t3.0").is_err());
    }
}
