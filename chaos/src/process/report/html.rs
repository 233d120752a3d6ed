//! The report for a person: one page without any other file.

use std::fmt::Write as _;

use crate::process::availability::ClassCost;
use crate::process::report::Report;
use crate::process::report::json::Data;
use crate::process::report::timeline;

const STYLE: &str = "body{font:14px/1.4 system-ui,sans-serif;margin:2em;max-width:1140px}\
h1{font-size:1.4em}h2{font-size:1.1em;margin-top:1.6em}table{border-collapse:collapse}\
td,th{text-align:left;padding:.15em .7em .15em 0;vertical-align:top}\
td.n{text-align:right;font-variant-numeric:tabular-nums}pre{white-space:pre-wrap;background:#f4f4f4;padding:.6em}\
svg{width:100%}svg text{font-size:10px;fill:#444}.grid{stroke:#ddd}\
.PASS{color:#228833}.FAIL{color:#bb2233}.INVALID{color:#b07000}";

/// How many lines of each node's log are shown.
const LOG_LINES: usize = 12;

/// The page.
pub(super) fn page(report: &Report<'_>, data: &Data) -> String {
    let verdict = data.judgement.verdict;
    let mut out = String::new();
    let _ = write!(
        out,
        "<!doctype html><meta charset=\"utf-8\"><title>{verdict}: {target}, seed {seed}</title>\
         <style>{STYLE}</style><h1><span class=\"{verdict}\">{verdict}</span> {target}, \
         {nodes} nodes, seed {seed}</h1><p>{network}</p><pre>{command}</pre>",
        target = escape(&data.target),
        seed = data.seed,
        nodes = data.nodes,
        network = escape(&data.network),
        command = escape(&data.command),
    );
    list(&mut out, "Broken promises", &data.judgement.violations);
    list(&mut out, "Why this proves less than was asked", &data.judgement.doubts);
    let impossible: Vec<String> =
        data.impossible.iter().map(|it| format!("{}: {}", it.about, it.text)).collect();
    list(&mut out, "Not possible here", &impossible);
    list(&mut out, "The surroundings", &data.notes);
    if !data.judgement.summary.is_empty() {
        let _ = write!(out, "<p>{}</p>", escape(&data.judgement.summary));
    }
    out += "<h2>Timeline</h2>";
    out += &timeline::svg(report, data);
    availability(&mut out, data);
    faults(&mut out, data);
    counts(&mut out, data);
    list(&mut out, "What is on the disks", &data.disks);
    let remarks: Vec<String> =
        data.remarks.iter().map(|it| format!("{}: {}", it.about, it.text)).collect();
    list(&mut out, "Remarks", &remarks);
    logs(&mut out, report);
    out
}

fn list(out: &mut String, title: &str, lines: &[String]) {
    if lines.is_empty() {
        return;
    }
    let _ = write!(out, "<h2>{title}</h2><ul>");
    for line in lines {
        let _ = write!(out, "<li>{}", escape(line).replace('\n', "<br>"));
    }
    *out += "</ul>";
}

fn availability(out: &mut String, data: &Data) {
    let found = &data.availability;
    let _ = write!(
        out,
        "<h2>Availability</h2><p>Longest time between two acknowledged writes: {:.2} s, from \
         {:.1} s on.</p><table><tr><th>faults of class<th>faults<th>calls<th>answered<th>unknown\
         <th>write p50, ms<th>write p99, ms<th>longest gap between writes, s",
        found.write_gap_seconds_max, found.write_gap_began,
    );
    for (class, cost) in &found.classes {
        class_row(out, class, cost);
    }
    *out += "</table>";
    if found.successions.is_empty() {
        return;
    }
    *out += "<table><tr><th>leader hit by<th>times<th>next acknowledged write after p50, s<th>p99, s\
             <th>longest, s<th>never";
    for (class, it) in &found.takeovers {
        let _ = write!(
            out,
            "<tr><td>{class}<td class=n>{}<td class=n>{:.2}<td class=n>{:.2}<td class=n>{:.2}<td class=n>{}",
            it.count, it.p50_seconds, it.p99_seconds, it.longest_seconds, it.never
        );
    }
    *out += "</table><table><tr><th>leader hit by<th>leader<th>at, s<th>next acknowledged write after, s";
    for it in &found.successions {
        let after =
            it.write_after_seconds.map_or("never".to_owned(), |after| format!("{after:.2}"));
        let _ = write!(
            out,
            "<tr><td>{}<td>{}<td class=n>{:.1}<td class=n>{after}",
            it.class, it.leader, it.at
        );
    }
    *out += "</table>";
}

fn class_row(out: &mut String, class: &str, cost: &ClassCost) {
    let _ = write!(
        out,
        "<tr><td>{class}<td class=n>{}<td class=n>{}<td class=n>{}<td class=n>{}\
         <td class=n>{:.1}<td class=n>{:.1}<td class=n>{:.2}",
        cost.faults,
        cost.calls,
        cost.answered,
        cost.unknown,
        cost.write_p50_ms,
        cost.write_p99_ms,
        cost.write_gap_seconds_max,
    );
}

fn faults(out: &mut String, data: &Data) {
    *out += "<h2>Faults</h2><table><tr><th>class<th>who<th>from, s<th>to, s<th>effect";
    for fault in &data.faults {
        let mark = if fault.had_effect { "" } else { "NO EFFECT: " };
        let _ = write!(
            out,
            "<tr><td>{}<td>{}<td class=n>{:.1}<td class=n>{:.1}<td>{mark}{}",
            fault.class,
            escape(&fault.who),
            fault.since,
            fault.until,
            escape(&fault.effect),
        );
    }
    *out += "</table>";
}

fn counts(out: &mut String, data: &Data) {
    let counts = &data.counts;
    let _ = write!(
        out,
        "<h2>What was recorded</h2><p>{} calls: {} answered, {} refused, {} of unknown outcome; \
         {} times no connection. {} revisions. {} watch streams with {} responses and {} events. \
         {} hashes of replicas.</p>",
        counts.operations,
        counts.answered,
        counts.refused,
        counts.unknown,
        counts.not_connected,
        counts.revisions,
        counts.watch_streams,
        counts.watch_responses,
        counts.watch_events,
        counts.hashes,
    );
}

fn logs(out: &mut String, report: &Report<'_>) {
    *out += "<h2>Logs</h2>";
    for node in 0..report.run.nodes_count() {
        let log = report.run.folder.join(format!("n{node}")).join("log");
        let bytes = std::fs::read(&log).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
        let _ = write!(
            out,
            "<details><summary>n{node}: {}</summary><pre>{}</pre></details>",
            escape(&log.display().to_string()),
            escape(&tail)
        );
    }
}

/// Text that is not markup.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
