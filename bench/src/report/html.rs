//! The report for people: one HTML file with its plots inside, and nothing fetched from elsewhere.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;

use super::json::{Load, Run};
use super::svg::{Line, escape, lines};
use crate::machine::Machine;
use crate::verdict::Verdict;

const STYLE: &str = "body{font-family:sans-serif;max-width:60em;margin:2em auto;color:#1f2328}\
table{border-collapse:collapse;margin:1em 0}td,th{border:1px solid #d0d7de;padding:.25em .6em;text-align:right}\
td:first-child,th:first-child{text-align:left}.good{color:#1a7f37}.bad{color:#d1242f}figure{margin:1em 0}\
figcaption{font-weight:bold}";

/// A page around `body`.
pub(super) fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>{0}</title><style>{STYLE}</style><h1>{0}</h1>{body}</html>\n",
        escape(title)
    )
}

/// A table; the first row is its head.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let mut html = String::from("<table>");
    for (n, row) in rows.iter().enumerate() {
        let tag = if n == 0 { "th" } else { "td" };
        let cells: String =
            row.iter().map(|cell| format!("<{tag}>{}</{tag}>", escape(cell))).collect();
        let _ = write!(html, "<tr>{cells}</tr>");
    }
    html + "</table>"
}

/// The verdict and the machine.
pub(super) fn circumstances(verdict: &Verdict, machine: &Machine) -> String {
    let judged = match verdict.is_fit {
        true => "<p class='good'>Fit to quote.</p>".to_owned(),
        false => {
            format!("<p class='bad'>Not fit to quote: {}.</p>", escape(&verdict.reasons.join("; ")))
        }
    };
    format!(
        "{judged}<p>{} processors ({}), {} MiB of memory, kernel {}</p>",
        machine.processors,
        escape(&machine.model),
        machine.memory_bytes >> 20,
        escape(&machine.kernel)
    )
}

/// Writes the page of a run.
///
/// # Errors
/// The file cannot be written.
pub fn write_run(path: &Path, run: &Run) -> anyhow::Result<()> {
    let mut body = circumstances(&run.verdict, &run.machine);
    if run.violations.count > 0 {
        let _ = write!(body, "<p class='bad'>{} wrong answers:</p><ul>", run.violations.count);
        for example in &run.violations.examples {
            let _ = write!(body, "<li>{}</li>", escape(example));
        }
        body.push_str("</ul>");
    }
    if let Some(rate) = run.highest_rate {
        let _ = write!(body, "<p>Highest rate within the limit: {rate:.0} ops/s</p>");
    }
    body.push_str(&table(&load_rows(&run.loads)));
    body.push_str(&distribution(&run.loads));
    for load in &run.loads {
        body.push_str(&timeline(load));
    }
    let title = format!("{} {}", run.target, run.version);
    std::fs::write(path, page(&title, &body)).with_context(|| path.display().to_string())
}

fn load_rows(loads: &[Load]) -> Vec<Vec<String>> {
    let head = [
        "workload",
        "loop",
        "outstanding",
        "ops/s",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "p99.99 ms",
        "max ms",
        "servers µs/op",
        "generator µs/op",
        "failed",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for load in loads {
        let latency = &load.latency;
        let failed: u64 = load.failures.iter().map(|failure| failure.count).sum();
        let servers = load.servers_cpu_us_per_op.map_or("–".into(), |cpu| format!("{cpu:.1}"));
        rows.push(vec![
            load.workload.clone(),
            load.shape.to_owned(),
            load.outstanding.to_string(),
            format!("{:.0}", load.rate),
            format!("{:.3}", latency.p50_ms),
            format!("{:.3}", latency.p99_ms),
            format!("{:.3}", latency.p999_ms),
            format!("{:.3}", latency.p9999_ms),
            format!("{:.3}", latency.max_ms),
            servers,
            format!("{:.2}", load.generator_cpu_us_per_op),
            failed.to_string(),
        ]);
    }
    rows
}

/// Latency over the "nines" of the quantile.
fn distribution(loads: &[Load]) -> String {
    let nines = |quantile: f64| -(1.0 - quantile.min(0.999_99)).log10();
    let curves: Vec<Line> = loads
        .iter()
        .map(|load| Line {
            name: format!("{} {:.0}/s", load.workload, load.rate),
            points: load.latency.curve.iter().map(|(q, ms)| (nines(*q), *ms)).collect(),
        })
        .collect();
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
    lines("Latency distribution", "ms", &curves, &ticks, true)
}

fn timeline(load: &Load) -> String {
    let line = |name: &str, of: &dyn Fn(&crate::recorder::Interval) -> f64| Line {
        name: name.into(),
        points: load.timeline.iter().map(|interval| (interval.at_secs, of(interval))).collect(),
    };
    let rate = [line("rate", &|interval| interval.rate)];
    let latency = [
        line("p50", &|interval| interval.p50_ms),
        line("p99", &|interval| interval.p99_ms),
        line("max", &|interval| interval.max_ms),
    ];
    let title =
        |what: &str| format!("{} at {:.0} ops/s: {what} over time", load.workload, load.rate);
    lines(&title("rate"), "ops/s", &rate, &[], false)
        + &lines(&title("latency"), "ms", &latency, &[], true)
}
