//! Tables for the terminal.

use std::io::Write as _;

use super::json::{Load, Run};
use crate::bootstrap::Ratio;
use crate::comparison::{Comparison, RowReport};
use crate::gates::{Bound, Judgement};
use crate::verdict::Verdict;

/// Prints a run.
///
/// # Errors
/// Standard output is closed.
pub fn print_run(run: &Run) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{} {} with {} connections, seed {}",
        run.target, run.version, run.connections, run.seed
    )?;
    for load in &run.loads {
        print_load(&mut out, load)?;
    }
    if let Some(rate) = run.highest_rate {
        writeln!(out, "highest rate within the limit: {rate:.0} ops/s")?;
    }
    if let (Some(before), Some(after)) = (run.flush_before, run.flush_after) {
        writeln!(
            out,
            "  a flush of the disk: {:.3} ms before, {:.3} ms after",
            before.p50_ms, after.p50_ms
        )?;
    }
    if run.violations.count > 0 {
        writeln!(out, "WRONG ANSWERS: {}", run.violations.count)?;
        for example in &run.violations.examples {
            writeln!(out, "  {example}")?;
        }
    }
    print_verdict(&mut out, &run.verdict)
}

fn print_load(out: &mut impl std::io::Write, load: &Load) -> anyhow::Result<()> {
    let latency = &load.latency;
    writeln!(
        out,
        "{} ({} loop, {} outstanding): {:.0} ops/s over {:.1} s",
        load.workload, load.shape, load.outstanding, load.rate, load.elapsed_secs
    )?;
    writeln!(
        out,
        "  latency ms: p50 {:.3}  p90 {:.3}  p99 {:.3}  p99.9 {:.3}  p99.99 {:.3}  max {:.3}",
        latency.p50_ms,
        latency.p90_ms,
        latency.p99_ms,
        latency.p999_ms,
        latency.p9999_ms,
        latency.max_ms
    )?;
    if load.by_operation.len() > 1 {
        for (operation, latency) in &load.by_operation {
            writeln!(
                out,
                "    {operation}: {} answered, p50 {:.3}, p99 {:.3}, max {:.3}",
                latency.count, latency.p50_ms, latency.p99_ms, latency.max_ms
            )?;
        }
    }
    let servers = match load.servers_cpu_us_per_op {
        Some(cpu) => format!("servers {cpu:.1} µs/op"),
        None => "servers elsewhere".into(),
    };
    write!(out, "  CPU: {servers}, generator {:.2} µs/op", load.generator_cpu_us_per_op)?;
    match load.usage.resident_bytes_max {
        Some(bytes) => writeln!(out, "; servers' memory at most {} MiB", bytes >> 20)?,
        None => writeln!(out)?,
    }
    if let Some(due) = load.due {
        writeln!(out, "  {due} due, {} answered, {} never sent", load.answered, load.dropped)?;
    }
    for failure in &load.failures {
        writeln!(
            out,
            "  {} {} × {}: {}",
            failure.count, failure.operation, failure.code, failure.message
        )?;
    }
    Ok(())
}

/// Prints whether the figures may be quoted.
///
/// # Errors
/// Standard output is closed.
pub fn print_verdict(out: &mut impl std::io::Write, verdict: &Verdict) -> anyhow::Result<()> {
    if verdict.is_fit {
        writeln!(out, "fit to quote")?;
    } else {
        writeln!(out, "not fit to quote: {}", verdict.reasons.join("; "))?;
    }
    Ok(())
}

/// Prints a comparison.
///
/// # Errors
/// Standard output is closed.
pub fn print_comparison(comparison: &Comparison) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    for (n, target) in comparison.targets.iter().enumerate() {
        let role = if n == 0 { " (baseline)" } else { "" };
        writeln!(out, "{} {}{role}", target.name, target.version)?;
    }
    writeln!(
        out,
        "{} interleaved repetitions of {} s; medians; [95 % confidence interval of the ratio]",
        comparison.repetitions, comparison.secs_per_load
    )?;
    for row in &comparison.rows {
        print_row(&mut out, comparison, row)?;
    }
    writeln!(
        out,
        "a flush of the disk: {:.3} ms before, {:.3} ms after",
        comparison.flush_before.p50_ms, comparison.flush_after.p50_ms
    )?;
    for target in &comparison.targets {
        if target.violations.count > 0 {
            writeln!(out, "WRONG ANSWERS of {}: {}", target.name, target.violations.count)?;
            for example in &target.violations.examples {
                writeln!(out, "  {example}")?;
            }
        }
    }
    print_verdict(&mut out, &comparison.verdict)
}

fn print_row(
    out: &mut impl std::io::Write,
    comparison: &Comparison,
    row: &RowReport,
) -> anyhow::Result<()> {
    writeln!(out, "\n{} {}", row.id, row.label)?;
    if let Some(error) = &row.error {
        writeln!(out, "  ERROR {error}")?;
    }
    for metric in &row.metrics {
        write!(out, "  {:28}", metric.name)?;
        for (n, target) in comparison.targets.iter().enumerate() {
            write!(out, " {} {:.3}", target.name, metric.medians[n])?;
            if let (Some(ratio), true) = (metric.ratios[n], n > 0) {
                write!(out, " = {}", show_ratio(&ratio))?;
            }
        }
        writeln!(out)?;
    }
    for (target, loads) in comparison.targets.iter().zip(&row.loads) {
        let answered: u64 = loads.iter().map(|load| load.answered).sum();
        let cpu: f64 = loads.iter().map(|load| load.usage.generator_cpu_secs).sum();
        let failed: u64 =
            loads.iter().flat_map(|load| &load.failures).map(|failure| failure.count).sum();
        if answered + failed > 0 {
            let cpu = cpu * 1e6 / answered.max(1) as f64;
            writeln!(
                out,
                "  {}: {answered} answered, {failed} failed, generator {cpu:.2} µs/op",
                target.name
            )?;
        }
    }
    for judged in &row.gates {
        let bound = match judged.gate.bound {
            Bound::AtMost => "≤",
            Bound::AtLeast => "≥",
        };
        let word = match judged.judgement {
            Judgement::Stretch => "PASS, stretch goal met",
            Judgement::Pass => "PASS",
            Judgement::Fail => "FAIL",
            Judgement::NotMeasured => "NOT MEASURED",
        };
        let figure = judged.figure.map_or("–".into(), |figure| show_ratio(&figure));
        let doubt = match (judged.figure, judged.is_certain) {
            (Some(_), false) => ", but the interval spans the gate",
            _ => "",
        };
        writeln!(
            out,
            "  gate {} {bound} {}: {} {figure} {word}{doubt}",
            judged.gate.metric, judged.gate.gate, judged.target
        )?;
    }
    Ok(())
}

fn show_ratio(ratio: &Ratio) -> String {
    format!("{:.2} [{:.2}, {:.2}]", ratio.value, ratio.low, ratio.high)
}
