//! The picture of a run: time goes to the right; from above faults, leaders, calls by outcome,
//! and the latency of writes.

use std::fmt::Write as _;

use crate::history::{Outcome, Stamp};
use crate::process::availability::{is_write, percentile};
use crate::process::clock::seconds;
use crate::process::report::Report;
use crate::process::report::html::escape;
use crate::process::report::json::Data;

const WIDTH: f64 = 1_100.0;
/// Room for the names of the lanes.
const LEFT: f64 = 110.0;
const LANE: f64 = 16.0;
const CALLS: f64 = 110.0;
const LATENCY: f64 = 90.0;
const GAP: f64 = 26.0;
/// Length of a bucket of calls.
const BUCKET_US: Stamp = 250_000;
const COLOURS: [&str; 5] = ["#4477aa", "#ee6677", "#228833", "#ccbb44", "#aa3377"];

/// Calls of one bucket.
#[derive(Clone, Debug, Default)]
struct Bucket {
    answered: usize,
    refused: usize,
    unknown: usize,
    unreachable: usize,
    latencies: Vec<Stamp>,
}

/// The picture as SVG.
pub(super) fn svg(report: &Report<'_>, data: &Data) -> String {
    let buckets = buckets(report);
    let end = (buckets.len() as u64 * BUCKET_US).max(1);
    let x = |at: f64| LEFT + at / seconds(end) * (WIDTH - LEFT);
    let mut classes: Vec<&str> = data.faults.iter().map(|fault| fault.class.as_str()).collect();
    classes.sort_unstable();
    classes.dedup();
    let mut out = String::new();
    let mut y = 4.0;
    for class in &classes {
        label(&mut out, y, class);
        for fault in data.faults.iter().filter(|fault| fault.class == *class) {
            let colour = if fault.had_effect { "#bb5566" } else { "#bbbbbb" };
            let title = format!("{}: {} ({})", fault.class, fault.who, fault.effect);
            bar(&mut out, (x(fault.since), x(fault.until)), y, colour, &title);
        }
        y += LANE;
    }
    label(&mut out, y, "leader");
    for (place, leader) in data.leaders.iter().enumerate() {
        let until = data.leaders.get(place + 1).map_or(seconds(end), |next| next.since);
        let colour = leader.node.map_or("#dddddd", |node| COLOURS[node % COLOURS.len()]);
        let name = leader.node.map_or_else(|| "?".to_owned(), |node| format!("n{node}"));
        let title = format!("{name} in term {}", leader.term);
        bar(&mut out, (x(leader.since), x(until.min(seconds(end)))), y, colour, &title);
    }
    y += LANE + GAP;
    calls(&mut out, &buckets, y, &x);
    y += CALLS + GAP;
    latencies(&mut out, &buckets, y, &x);
    y += LATENCY;
    axis(&mut out, seconds(end), y, &x);
    let height = y + GAP;
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\" \
         aria-label=\"the run over time\">{out}</svg>"
    )
}

fn buckets(report: &Report<'_>) -> Vec<Bucket> {
    let operations = &report.history.operations;
    let end = operations.iter().map(|it| it.returned.unwrap_or(it.invoked)).max().unwrap_or(0);
    let place = |at: Stamp| usize::try_from(at / BUCKET_US).unwrap_or(0);
    let mut buckets = vec![Bucket::default(); place(end) + 1];
    for operation in operations {
        let Some(bucket) = buckets.get_mut(place(operation.invoked)) else { continue };
        match (&operation.outcome, operation.returned) {
            (Outcome::Answered(_), Some(returned)) => {
                bucket.answered += 1;
                if is_write(&operation.request) {
                    bucket.latencies.push(returned - operation.invoked);
                }
            }
            (Outcome::Answered(_) | Outcome::Refused(_), _) => bucket.refused += 1,
            (Outcome::Unknown, _) => bucket.unknown += 1,
        }
    }
    for (at, _) in &report.run.recorder.notes().unreachable {
        if let Some(bucket) = buckets.get_mut(place(*at)) {
            bucket.unreachable += 1;
        }
    }
    for bucket in &mut buckets {
        bucket.latencies.sort_unstable();
    }
    buckets
}

fn calls(out: &mut String, buckets: &[Bucket], top: f64, x: &impl Fn(f64) -> f64) {
    label(out, top, "calls / 250 ms");
    let most = buckets
        .iter()
        .map(|it| it.answered + it.refused + it.unknown + it.unreachable)
        .max()
        .unwrap_or(1)
        .max(1);
    let scale = CALLS / most as f64;
    for (place, bucket) in buckets.iter().enumerate() {
        let from = x(seconds(place as u64 * BUCKET_US));
        let to = x(seconds((place as u64 + 1) * BUCKET_US));
        let mut base = top + CALLS;
        let parts = [
            (bucket.answered, "#4477aa", "answered"),
            (bucket.refused, "#ccbb44", "refused"),
            (bucket.unknown, "#ee6677", "unknown"),
            (bucket.unreachable, "#bbbbbb", "not connected"),
        ];
        for (count, colour, name) in parts.into_iter().filter(|(count, _, _)| *count > 0) {
            let height = count as f64 * scale;
            base -= height;
            let _ = write!(
                out,
                "<rect x=\"{from:.1}\" y=\"{base:.1}\" width=\"{:.1}\" height=\"{height:.1}\" \
                 fill=\"{colour}\"><title>{count} {name}</title></rect>",
                (to - from - 0.3).max(0.3),
            );
        }
    }
}

fn latencies(out: &mut String, buckets: &[Bucket], top: f64, x: &impl Fn(f64) -> f64) {
    label(out, top, "write p50, p99");
    // Logarithmic from 1 ms to 10 s.
    let y = |ms: f64| top + LATENCY - ms.max(1.0).log10() / 4.0 * LATENCY;
    for ms in [1.0, 10.0, 100.0, 1_000.0, 10_000.0] {
        let _ = write!(
            out,
            "<line x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{0:.1}\" y2=\"{0:.1}\" class=\"grid\"/>\
             <text x=\"{1}\" y=\"{2:.1}\" text-anchor=\"end\">{ms} ms</text>",
            y(ms),
            LEFT - 4.0,
            y(ms) + 3.0,
        );
    }
    for (percent, colour) in [(50, "#4477aa"), (99, "#ee6677")] {
        let points: Vec<String> = buckets
            .iter()
            .enumerate()
            .filter(|(_, bucket)| !bucket.latencies.is_empty())
            .map(|(place, bucket)| {
                let at = x(seconds(place as u64 * BUCKET_US + BUCKET_US / 2));
                format!("{at:.1},{:.1}", y(percentile(&bucket.latencies, percent)))
            })
            .collect();
        let _ = write!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\"/>",
            points.join(" ")
        );
    }
}

fn axis(out: &mut String, end: f64, y: f64, x: &impl Fn(f64) -> f64) {
    let step = if end > 120.0 { 20.0 } else { 5.0 };
    let mut at = 0.0;
    while at <= end {
        let _ = write!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{at:.0} s</text>",
            x(at),
            y + 16.0
        );
        at += step;
    }
}

fn label(out: &mut String, y: f64, text: &str) {
    let _ = write!(out, "<text x=\"0\" y=\"{:.1}\">{}</text>", y + LANE - 5.0, escape(text));
}

fn bar(out: &mut String, (from, to): (f64, f64), y: f64, colour: &str, title: &str) {
    let _ = write!(
        out,
        "<rect x=\"{from:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{colour}\">\
         <title>{}</title></rect>",
        (to - from).max(1.5),
        LANE - 3.0,
        escape(title),
    );
}
