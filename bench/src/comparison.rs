//! A comparison as data: the figures of all turns, their ratios, and the gates they meet.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::bootstrap::{self, Ratio};
use crate::check::Violations;
use crate::gates::{Gate, Judgement, Kind};
use crate::machine::{Flush, Machine};
use crate::random::Random;
use crate::report::json::Load;
use crate::scenario::Side;
use crate::verdict::Verdict;

/// A store that took part.
#[derive(Clone, Debug, Serialize)]
pub struct Contestant {
    /// Its name.
    pub name: String,
    /// What it says its version is.
    pub version: String,
    /// Its wrong answers.
    pub violations: Violations,
}

impl Contestant {
    /// Adds the wrong answers of a store that is done with.
    pub fn learn(&mut self, side: &Side) {
        let seen = side.session.check.violations();
        self.violations.count += seen.count;
        self.violations.examples.extend(seen.examples);
    }
}

/// A figure of all stores.
#[derive(Clone, Debug, Serialize)]
pub struct Metric {
    /// Its name, with the unit.
    pub name: String,
    /// For each store: its value in each turn.
    pub values: Vec<Vec<f64>>,
    /// For each store: the median of its values.
    pub medians: Vec<f64>,
    /// For each store: the ratio to the first one.
    pub ratios: Vec<Option<Ratio>>,
}

/// A gate as one store met it.
#[derive(Clone, Debug, Serialize)]
pub struct Judged {
    /// The gate.
    pub gate: Gate,
    /// The store.
    pub target: String,
    /// What was judged.
    pub figure: Option<Ratio>,
    /// How it was met.
    pub judgement: Judgement,
    /// The whole confidence interval lies on the same side of the gate.
    pub is_certain: bool,
}

/// A row with all its turns.
#[derive(Clone, Debug, Serialize)]
pub struct RowReport {
    /// Its name in the goals.
    pub id: &'static str,
    /// What it does.
    pub label: &'static str,
    /// Nodes of each cluster.
    pub nodes: usize,
    /// Its figures.
    pub metrics: Vec<Metric>,
    /// Its gates.
    pub gates: Vec<Judged>,
    /// For each store: the loads of its turns.
    pub loads: Vec<Vec<Load>>,
    /// Why there are no figures, or fewer than asked for.
    pub error: Option<String>,
}

/// The whole comparison.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// Version of this form.
    pub form: u32,
    /// The stores; the first is the baseline.
    pub targets: Vec<Contestant>,
    /// Turns of each store in each row.
    pub repetitions: usize,
    /// Length of a load.
    pub secs_per_load: f64,
    /// Factor on the goals' sizes.
    pub scale: f64,
    /// Seed of all draws.
    pub seed: u64,
    /// Connections of each store.
    pub connections: usize,
    /// The machine.
    pub machine: Machine,
    /// Flush latency before the run.
    pub flush_before: Flush,
    /// Flush latency after the run.
    pub flush_after: Flush,
    /// The rows.
    pub rows: Vec<RowReport>,
    /// Whether the figures may be quoted.
    pub verdict: Verdict,
}

/// The figures of a row from `turns[store][repetition]`. A figure missing from a turn is left out
/// of that store's values.
#[must_use]
pub fn metrics(turns: &[Vec<BTreeMap<String, f64>>], random: &mut Random) -> Vec<Metric> {
    let names: BTreeSet<&String> = turns.iter().flatten().flat_map(BTreeMap::keys).collect();
    let metric = |name: &String| {
        let values: Vec<Vec<f64>> = turns
            .iter()
            .map(|turns| turns.iter().filter_map(|turn| turn.get(name).copied()).collect())
            .collect();
        let medians = values.iter().map(|values| bootstrap::median(values)).collect();
        let ratios = values.iter().map(|of| bootstrap::ratio(of, &values[0], random)).collect();
        Metric { name: name.clone(), values, medians, ratios }
    };
    names.into_iter().map(metric).collect()
}

/// Judges all stores but the baseline by the gates of row `id`.
#[must_use]
pub fn judge(
    id: &str,
    gates: &[Gate],
    metrics: &[Metric],
    targets: &[String],
    random: &mut Random,
) -> Vec<Judged> {
    let mut judged = Vec::new();
    for gate in gates.iter().filter(|gate| gate.row == id) {
        let metric = metrics.iter().find(|metric| metric.name == gate.metric);
        for (n, target) in targets.iter().enumerate().skip(1) {
            let figure = metric.and_then(|metric| match gate.kind {
                Kind::Ratio => metric.ratios[n],
                Kind::Own => bootstrap::level(&metric.values[n], random),
            });
            let (judgement, is_certain) = gate.judge(figure);
            let target = target.clone();
            judged.push(Judged { gate: gate.clone(), target, figure, judgement, is_certain });
        }
    }
    judged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gates;

    #[test]
    fn figures_are_compared_with_the_first_store_and_judged() {
        let turn = |rate: f64| BTreeMap::from([("throughput".to_owned(), rate)]);
        let turns = vec![
            vec![turn(100.0), turn(110.0), turn(90.0)],
            vec![turn(300.0), turn(310.0), turn(290.0)],
        ];
        let mut random = Random::new(1, 0);
        let metrics = metrics(&turns, &mut random);
        assert_eq!(metrics[0].medians, [100.0, 300.0]);
        let names = ["a".to_owned(), "b".to_owned()];
        let gates = gates::table().unwrap();
        let judged = judge("P1", &gates, &metrics, &names, &mut random);
        assert_eq!(judged.len(), 2, "throughput and CPU, for the second store");
        assert_eq!(judged[0].judgement, Judgement::Stretch);
        assert_eq!(judged[1].judgement, Judgement::NotMeasured);
    }

    #[test]
    fn a_ratio_needs_figures_of_both() {
        let turns = vec![vec![], vec![BTreeMap::from([("x".to_owned(), 1.0)])]];
        assert_eq!(metrics(&turns, &mut Random::new(1, 0))[0].ratios, [None, None]);
    }
}
