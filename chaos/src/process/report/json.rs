//! The numbers of a report, as they are written to `report.json`.

use serde::Serialize;

use crate::history::Outcome;
use crate::process::availability::Availability;
use crate::process::clock::seconds;
use crate::process::report::Report;
use crate::process::verdict::Judgement;

/// Everything in `report.json`. Times are seconds from the start of the run.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Data {
    pub(super) target: String,
    pub(super) command: String,
    pub(super) seed: u64,
    pub(super) nodes: usize,
    pub(super) network: String,
    pub(super) judgement: Judgement,
    pub(super) disks: Vec<String>,
    pub(super) impossible: Vec<Line>,
    pub(super) notes: Vec<String>,
    pub(super) counts: Counts,
    pub(super) availability: Availability,
    pub(super) faults: Vec<Fault>,
    pub(super) leaders: Vec<Leader>,
    pub(super) remarks: Vec<Line>,
}

/// Something said of something.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Line {
    pub(super) about: String,
    pub(super) text: String,
}

/// How much happened.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Counts {
    pub(super) operations: usize,
    pub(super) answered: usize,
    pub(super) refused: usize,
    pub(super) unknown: usize,
    pub(super) not_connected: usize,
    pub(super) revisions: usize,
    pub(super) watch_streams: usize,
    pub(super) watch_responses: usize,
    pub(super) watch_events: usize,
    pub(super) hashes: usize,
}

/// A fault that was carried out.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Fault {
    pub(super) class: String,
    pub(super) who: String,
    pub(super) since: f64,
    pub(super) until: f64,
    pub(super) had_effect: bool,
    pub(super) effect: String,
}

/// Who led since when.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Leader {
    pub(super) since: f64,
    pub(super) node: Option<usize>,
    pub(super) term: u64,
}

impl Data {
    pub(super) fn new(report: &Report<'_>, availability: Availability) -> Self {
        let history = report.history;
        let outcome = |wanted: fn(&Outcome) -> bool| {
            history.operations.iter().filter(|it| wanted(&it.outcome)).count()
        };
        let received = || history.watches.iter().flat_map(|watch| &watch.received);
        let counts = Counts {
            operations: history.operations.len(),
            answered: outcome(|it| matches!(it, Outcome::Answered(_))),
            refused: outcome(|it| matches!(it, Outcome::Refused(_))),
            unknown: outcome(|it| matches!(it, Outcome::Unknown)),
            not_connected: report.run.recorder.notes().unreachable.len(),
            revisions: history.evidence.revisions().count(),
            watch_streams: history.watches.len(),
            watch_responses: received().count(),
            watch_events: received().map(|it| it.response.events.len()).sum(),
            hashes: history.hashes.len(),
        };
        let faults = report
            .ground
            .done()
            .into_iter()
            .map(|done| Fault {
                class: done.class.to_string(),
                who: done.who,
                since: seconds(done.since),
                until: seconds(done.until),
                had_effect: done.effect.is_ok(),
                effect: done.effect.unwrap_or_else(|reason| reason),
            })
            .collect();
        let leaders = report
            .run
            .monitor
            .leaderships()
            .into_iter()
            .map(|it| Leader { since: seconds(it.since), node: it.node, term: it.term })
            .collect();
        Self {
            target: report.options.target.words.join(" "),
            command: report.options.command(),
            seed: report.options.seed,
            nodes: report.options.nodes_count,
            network: report.run.network.to_string(),
            judgement: report.judgement.clone(),
            disks: report.disks.iter().map(ToString::to_string).collect(),
            impossible: report
                .impossible
                .iter()
                .map(|(class, reason)| Line { about: class.to_string(), text: reason.clone() })
                .collect(),
            notes: report.notes.to_vec(),
            counts,
            availability,
            faults,
            leaders,
            remarks: report
                .run
                .remarks()
                .into_iter()
                .map(|(at, text)| Line { about: format!("{:.1} s", seconds(at)), text })
                .collect(),
        }
    }
}
