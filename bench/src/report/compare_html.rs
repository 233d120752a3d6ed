//! The page of a comparison.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;

use super::html::{circumstances, page, table};
use super::svg::{Bar, Line, escape, lines, ratios};
use crate::comparison::{Comparison, RowReport};
use crate::gates::{Judgement, Kind};

/// Writes the page.
///
/// # Errors
/// The file cannot be written.
pub fn write(path: &Path, comparison: &Comparison) -> anyhow::Result<()> {
    let mut body = circumstances(&comparison.verdict, &comparison.machine);
    let _ = write!(
        body,
        "<p>{} interleaved repetitions of {} s, seed {}, {} connections; a flush took {:.3} ms before and {:.3} ms after. Ratios are to {}; bars are 95 % confidence intervals, red marks are gates.</p>",
        comparison.repetitions,
        comparison.secs_per_load,
        comparison.seed,
        comparison.connections,
        comparison.flush_before.p50_ms,
        comparison.flush_after.p50_ms,
        escape(&comparison.targets[0].name)
    );
    for target in &comparison.targets {
        if target.violations.count > 0 {
            let examples = escape(&target.violations.examples.join("; "));
            let name = escape(&target.name);
            let _ = write!(
                body,
                "<p class='bad'>{} wrong answers of {name}: {examples}</p>",
                target.violations.count
            );
        }
    }
    body.push_str(&gates(comparison));
    let bars: Vec<Bar> = comparison.rows.iter().flat_map(|row| bars(comparison, row)).collect();
    body.push_str(&ratios("Ratios", &bars));
    for row in &comparison.rows {
        body.push_str(&section(comparison, row));
    }
    let names: Vec<String> = comparison
        .targets
        .iter()
        .map(|target| format!("{} {}", target.name, target.version))
        .collect();
    std::fs::write(path, page(&names.join(" and "), &body))
        .with_context(|| path.display().to_string())
}

fn gates(comparison: &Comparison) -> String {
    let head = ["row", "metric", "store", "figure", "95 % interval", "gate", "stretch", "result"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for row in &comparison.rows {
        for judged in &row.gates {
            let result = match judged.judgement {
                Judgement::Stretch => "pass (stretch)",
                Judgement::Pass => "pass",
                Judgement::Fail => "fail",
                Judgement::NotMeasured => "not measured",
            };
            let doubt =
                if judged.is_certain || judged.figure.is_none() { "" } else { ", uncertain" };
            rows.push(vec![
                format!("{} {}", row.id, row.label),
                judged.gate.metric.clone(),
                judged.target.clone(),
                judged.figure.map_or("–".into(), |figure| format!("{:.2}", figure.value)),
                judged.figure.map_or("–".into(), |figure| {
                    format!("{:.2} … {:.2}", figure.low, figure.high)
                }),
                judged.gate.gate.to_string(),
                judged.gate.stretch.map_or("–".into(), |stretch| stretch.to_string()),
                format!("{result}{doubt}"),
            ]);
        }
    }
    format!("<h2>Gates</h2>{}", table(&rows))
}

/// The judged ratios of a row.
fn bars(comparison: &Comparison, row: &RowReport) -> Vec<Bar> {
    let with_name = comparison.targets.len() > 2;
    row.gates
        .iter()
        .filter(|judged| judged.gate.kind == Kind::Ratio)
        .filter_map(|judged| {
            let figure = judged.figure?;
            let store = if with_name { format!(" {}", judged.target) } else { String::new() };
            Some(Bar {
                name: format!("{} {}{store}", row.id, judged.gate.metric),
                value: figure.value,
                low: figure.low,
                high: figure.high,
                gate: Some(judged.gate.gate),
            })
        })
        .collect()
}

fn section(comparison: &Comparison, row: &RowReport) -> String {
    let mut html = format!("<h2>{} {}</h2>", row.id, escape(row.label));
    if let Some(error) = &row.error {
        let _ = write!(html, "<p class='bad'>{}</p>", escape(error));
    }
    let mut head = vec!["figure".to_owned()];
    head.extend(comparison.targets.iter().map(|target| target.name.clone()));
    head.push("ratio".into());
    let mut rows = vec![head];
    for metric in &row.metrics {
        let mut cells = vec![metric.name.clone()];
        cells.extend(metric.medians.iter().map(|median| format!("{median:.3}")));
        let ratio = metric.ratios.last().copied().flatten();
        cells.push(ratio.map_or("–".into(), |ratio| {
            format!("{:.2} [{:.2}, {:.2}]", ratio.value, ratio.low, ratio.high)
        }));
        rows.push(cells);
    }
    html.push_str(&table(&rows));
    let nines = |quantile: f64| -(1.0 - quantile.min(0.999_99)).log10();
    let curves: Vec<Line> = comparison
        .targets
        .iter()
        .zip(&row.loads)
        .filter_map(|(target, loads)| {
            let load = loads.last()?;
            let points = load.latency.curve.iter().map(|(q, ms)| (nines(*q), *ms)).collect();
            Some(Line { name: target.name.clone(), points })
        })
        .collect();
    if !curves.is_empty() {
        let ticks = [
            (0.0, "min"),
            (0.301, "p50"),
            (1.0, "p90"),
            (2.0, "p99"),
            (3.0, "p99.9"),
            (4.0, "p99.99"),
            (5.0, "max"),
        ];
        let ticks = ticks.map(|(at, label)| (at, label.to_owned()));
        html.push_str(&lines("Latency of the last repetition", "ms", &curves, &ticks, true));
    }
    html
}
