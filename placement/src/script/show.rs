//! What the commands print.

use std::fmt::Write;

use crate::plan::Plan;
use crate::survey::{ROOT, Replica, Survey};
use crate::units::{Bytes, Millis, Span};

/// Decisions and complaints, or that there is nothing to do.
pub(super) fn plan(plan: &Plan) -> String {
    let mut text = String::new();
    for decision in &plan.decisions {
        line(&mut text, format_args!("{decision}"));
    }
    if plan.decisions.is_empty() {
        line(&mut text, format_args!("nothing to do"));
    }
    text + &complaints(plan)
}

pub(super) fn complaints(plan: &Plan) -> String {
    let mut text = String::new();
    for complaint in &plan.complaints {
        line(&mut text, format_args!("! {complaint}"));
    }
    text
}

pub(super) fn round(round: usize, plan: &Plan) -> String {
    let mut text = String::new();
    line(&mut text, format_args!("round {round}"));
    for decision in &plan.decisions {
        line(&mut text, format_args!("  {decision}"));
    }
    text
}

/// Nodes, the spine and the ranges in the order of their spans; `*` marks leaders.
pub(super) fn survey(survey: &Survey) -> String {
    let mut text = String::new();
    for (id, node) in &survey.nodes {
        let zone = if node.zone.is_empty() { "-" } else { &node.zone };
        let draining = if node.is_draining { " draining" } else { "" };
        let silent = Millis(node.silent_ms);
        line(&mut text, format_args!("node {id} zone={zone} silent {silent}{draining}"));
    }
    let spine = replicas(&survey.spine.replicas, survey.spine.leader);
    line(&mut text, format_args!("spine {spine}"));
    for id in survey.ids_by_span() {
        let Some(range) = survey.ranges.get(&id) else { continue };
        let span = Span(&range.start, &range.end);
        let bytes = Bytes(range.bytes);
        if id == ROOT {
            line(&mut text, format_args!("range {id} {span} {bytes}"));
        } else {
            let replicas = replicas(&range.replicas, range.leader);
            line(&mut text, format_args!("range {id} {span} {bytes} {replicas}"));
        }
    }
    text
}

fn replicas(replicas: &[Replica], leader: Option<u64>) -> String {
    let mut sorted = replicas.to_vec();
    sorted.sort_by_key(|replica| replica.node);
    let words: Vec<String> = sorted.iter().map(|replica| word(replica, leader)).collect();
    words.join(",")
}

fn word(replica: &Replica, leader: Option<u64>) -> String {
    let leads = if leader == Some(replica.node) { "*" } else { "" };
    let learns = if replica.is_learner { "L" } else { "" };
    match replica.lag_entries {
        0 => format!("{}{learns}{leads}", replica.node),
        lag => format!("{}{learns}~{lag}{leads}", replica.node),
    }
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    _ = writeln!(text, "{arguments}");
}
