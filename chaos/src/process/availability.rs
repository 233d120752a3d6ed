//! How available the cluster was: the longest time without an acknowledged write, the time from
//! a leader's death to the next one, and latencies under each class of faults.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::history::{Operation, Outcome, Request, Stamp};
use crate::process::clock::{STAMPS_PER_SECOND, seconds};
use crate::process::fault::Done;
use crate::process::fault::Ground;

/// A death this close to the end of the load is not counted, in stamps.
const SUCCESSION_MIN: Stamp = 5 * STAMPS_PER_SECOND;

/// What clients could get done.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Availability {
    /// Longest time between two acknowledged writes under load, in seconds.
    pub write_gap_seconds_max: f64,
    /// When it began, in seconds from the start.
    pub write_gap_began: f64,
    /// Leaders that died, and what it cost.
    pub successions: Vec<Succession>,
    /// The same by class of faults.
    pub takeovers: BTreeMap<String, Takeovers>,
    /// By class of faults; `none` is the time without any.
    pub classes: BTreeMap<String, ClassCost>,
}

/// A leader's death and the way back.
#[derive(Clone, Debug, Serialize)]
pub struct Succession {
    /// The class of faults that hit it.
    pub class: String,
    /// Who it was.
    pub leader: String,
    /// When, in seconds from the start.
    pub at: f64,
    /// Seconds until a write was acknowledged that had been asked for after the death; `None` if
    /// none was.
    pub write_after_seconds: Option<f64>,
}

/// Seconds from a leader's death to the next write, over all deaths of a class.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Takeovers {
    /// Deaths.
    pub count: usize,
    /// Deaths after which no write was acknowledged.
    pub never: usize,
    /// Half of them took no longer.
    pub p50_seconds: f64,
    /// See above.
    pub p99_seconds: f64,
    /// See above.
    pub longest_seconds: f64,
}

impl Takeovers {
    /// Of some deaths, by class.
    fn of(successions: &[Succession]) -> BTreeMap<String, Takeovers> {
        let mut classes: BTreeMap<String, Vec<Option<f64>>> = BTreeMap::new();
        for it in successions {
            classes.entry(it.class.clone()).or_default().push(it.write_after_seconds);
        }
        let summed = classes.into_iter().map(|(class, after)| {
            let mut known: Vec<f64> = after.iter().flatten().copied().collect();
            known.sort_by(f64::total_cmp);
            let at = |percent: usize| {
                // The smallest that so many do not exceed.
                let rank = (known.len() * percent).div_ceil(100);
                known.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
            };
            let takeovers = Takeovers {
                count: after.len(),
                never: after.len() - known.len(),
                p50_seconds: at(50),
                p99_seconds: at(99),
                longest_seconds: at(100),
            };
            (class, takeovers)
        });
        summed.collect()
    }
}

/// What clients saw while a class of faults was under way.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ClassCost {
    /// Faults of the class.
    pub faults: usize,
    /// Calls that began meanwhile.
    pub calls: usize,
    /// Of those, the answered ones.
    pub answered: usize,
    /// Of those, the ones of unknown outcome.
    pub unknown: usize,
    /// Latencies of answered writes, in milliseconds.
    pub write_p50_ms: f64,
    /// See above.
    pub write_p99_ms: f64,
    /// Longest time without an acknowledged write that overlaps one of the faults, in seconds.
    pub write_gap_seconds_max: f64,
}

/// Derives it from what was recorded between two moments.
pub fn measure(operations: &[Operation], ground: &Ground, from: Stamp, to: Stamp) -> Availability {
    let done = ground.done();
    let mut acks: Vec<(Stamp, Stamp)> = operations
        .iter()
        .filter(|it| is_write(&it.request) && matches!(it.outcome, Outcome::Answered(_)))
        .filter_map(|it| Some((it.returned?, it.invoked)))
        .collect();
    acks.sort_unstable();
    let mut edges = vec![from];
    let under_load = acks.iter().map(|(returned, _)| *returned);
    edges.extend(under_load.filter(|returned| (from..=to).contains(returned)));
    edges.push(to);
    let gaps: Vec<(Stamp, Stamp)> = edges.windows(2).map(|pair| (pair[0], pair[1])).collect();
    let longest = gaps.iter().max_by_key(|(begin, end)| end - begin).copied();
    let (began, ended) = longest.unwrap_or((from, from));
    // Hardly anybody writes once the load is over.
    let successions: Vec<Succession> = ground
        .deaths()
        .into_iter()
        .filter(|death| death.at + SUCCESSION_MIN < to)
        .map(|death| Succession {
            class: death.class.to_string(),
            leader: format!("n{}", death.node),
            at: seconds(death.at),
            write_after_seconds: acks
                .iter()
                .find(|(_, invoked)| *invoked > death.at)
                .map(|(returned, _)| seconds(returned - death.at)),
        })
        .collect();
    Availability {
        write_gap_seconds_max: seconds(ended - began),
        write_gap_began: seconds(began),
        takeovers: Takeovers::of(&successions),
        successions,
        classes: costs(operations, &done, &gaps, (from, to)),
    }
}

fn costs(
    operations: &[Operation],
    done: &[Done],
    gaps: &[(Stamp, Stamp)],
    load: (Stamp, Stamp),
) -> BTreeMap<String, ClassCost> {
    let mut windows: BTreeMap<String, Vec<(Stamp, Stamp)>> = BTreeMap::new();
    for fault in done {
        windows.entry(fault.class.to_string()).or_default().push((fault.since, fault.until));
    }
    let all: Vec<(Stamp, Stamp)> = windows.values().flatten().copied().collect();
    let mut costs: BTreeMap<String, ClassCost> = windows
        .iter()
        .map(|(class, windows)| {
            let is_inside = |stamp| is_inside(windows, stamp);
            (class.clone(), cost(operations, windows.len(), gaps, is_inside, windows))
        })
        .collect();
    let is_quiet = |stamp| (load.0..load.1).contains(&stamp) && !is_inside(&all, stamp);
    let quiet_gaps: Vec<(Stamp, Stamp)> =
        gaps.iter().filter(|gap| !all.iter().any(|it| overlap(**gap, *it))).copied().collect();
    let quiet = cost(operations, 0, &quiet_gaps, is_quiet, &[load]);
    costs.insert("none".to_owned(), quiet);
    costs
}

fn cost(
    operations: &[Operation],
    faults: usize,
    gaps: &[(Stamp, Stamp)],
    is_inside: impl Fn(Stamp) -> bool,
    windows: &[(Stamp, Stamp)],
) -> ClassCost {
    let mut cost = ClassCost { faults, ..ClassCost::default() };
    let mut latencies = Vec::new();
    for operation in operations.iter().filter(|it| is_inside(it.invoked)) {
        cost.calls += 1;
        match (&operation.outcome, operation.returned) {
            (Outcome::Answered(_), Some(returned)) => {
                cost.answered += 1;
                if is_write(&operation.request) {
                    latencies.push(returned - operation.invoked);
                }
            }
            (Outcome::Unknown, _) => cost.unknown += 1,
            _ => {}
        }
    }
    latencies.sort_unstable();
    cost.write_p50_ms = percentile(&latencies, 50);
    cost.write_p99_ms = percentile(&latencies, 99);
    let gaps = gaps.iter().filter(|gap| windows.iter().any(|it| overlap(**gap, *it)));
    cost.write_gap_seconds_max = seconds(gaps.map(|(begin, end)| end - begin).max().unwrap_or(0));
    cost
}

/// A percentile of sorted latencies, in milliseconds; zero if there is none.
pub fn percentile(sorted: &[Stamp], percent: usize) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get(last * percent / 100).map_or(0.0, |latency| seconds(*latency) * 1_000.0)
}

/// True for calls that can make a revision.
pub fn is_write(request: &Request) -> bool {
    matches!(request, Request::Put(_) | Request::DeleteRange(_) | Request::Txn(_))
}

fn is_inside(windows: &[(Stamp, Stamp)], stamp: Stamp) -> bool {
    windows.iter().any(|(since, until)| (*since..*until).contains(&stamp))
}

fn overlap(a: (Stamp, Stamp), b: (Stamp, Stamp)) -> bool {
    a.0 < b.1 && b.0 < a.1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takeovers_are_ranked_by_class() {
        let death = |class: &str, after| Succession {
            class: class.to_owned(),
            leader: "n0".to_owned(),
            at: 1.0,
            write_after_seconds: after,
        };
        let mut deaths: Vec<Succession> =
            (1..=100).rev().map(|tenth| death("kill", Some(f64::from(tenth) / 10.0))).collect();
        deaths.push(death("kill", None));
        deaths.push(death("pause", Some(2.5)));
        let takeovers = Takeovers::of(&deaths);
        let kill = Takeovers {
            count: 101,
            never: 1,
            p50_seconds: 5.0,
            p99_seconds: 9.9,
            longest_seconds: 10.0,
        };
        assert_eq!(takeovers["kill"], kill);
        let pause = Takeovers {
            count: 1,
            never: 0,
            p50_seconds: 2.5,
            p99_seconds: 2.5,
            longest_seconds: 2.5,
        };
        assert_eq!(takeovers["pause"], pause);
    }
}
