//! Shrinking: from a seed that fails, a run that fails in the same way with as little in it as can
//! be. What is left out at a time is tried for, largest first; whatever still fails is kept, until a
//! round finds nothing more, or a limit is reached.

use std::collections::BTreeSet;
use std::fmt;
use std::time::{Duration, Instant};

use super::ddmin::ddmin;
use super::finding::Class;
use super::plan::{MS, Options};
use super::reduction::{Part, Reduction};
use super::tape::{Kind, Tape};
use super::{Report, run_whole, run_with};

/// Runs that are tried where nobody says how many.
pub const TRIES_USUAL: u64 = 1_000;
/// Seconds after which no run is begun where nobody says how many.
pub const SECONDS_USUAL: u64 = 120;
/// Halvings of the time in which there is trouble, in a round.
const HALVINGS_MAX: u32 = 6;

/// When to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Runs that are tried. What comes of a search that this ends is always the same.
    pub tries_max: u64,
    /// Seconds after which no run is begun. What comes of a search that this ends depends on the
    /// speed of the machine.
    pub seconds_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { tries_max: TRIES_USUAL, seconds_max: SECONDS_USUAL }
    }
}

/// A run that fails, and with less in it.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// The seed of both.
    pub seed: u64,
    /// What both find.
    pub class: Class,
    /// The reduced run.
    pub options: Options,
    /// Its report, with as many lines as were asked for.
    pub report: Report,
    /// Of the whole run: troubles that came.
    pub troubles_before: usize,
    /// Of the whole run: simulated microseconds.
    pub duration_before: u64,
    /// Runs that were tried.
    pub tries: u64,
    /// How long that took.
    pub took: Duration,
    /// False if a limit ended the search.
    pub is_finished: bool,
}

impl fmt::Display for Shrunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "seed {}: {}: {} troubles in {} ms before, {} in {} ms now; {} tries in {:.1} s{}",
            self.seed,
            self.class,
            self.troubles_before,
            self.duration_before / MS,
            self.report.tape.troubles.len(),
            self.report.duration / MS,
            self.tries,
            self.took.as_secs_f64(),
            if self.is_finished { "" } else { ", then a limit was reached" },
        )?;
        write!(f, "{}", self.options.command(self.seed))
    }
}

/// Shrinks a seed. None if it does not fail.
pub fn shrink(seed: u64, options: &Options, limits: Limits) -> Option<Shrunk> {
    let began = Instant::now();
    let whole = run_whole(seed, options);
    let tape = whole.tape;
    let report = match options.reduction.is_whole() {
        true => Report { tape: tape.clone(), ..whole },
        false => run_with(seed, &Options { lines_max: 0, ..options.clone() }, Some(tape.clone())),
    };
    let class = report.findings.first()?.class.clone();
    let (troubles_before, duration_before) = (report.tape.troubles.len(), report.duration);
    let mut search = Search {
        seed,
        options: Options { lines_max: 0, ..options.clone() },
        tape,
        class,
        best: options.reduction.clone(),
        tried: BTreeSet::new(),
        tries: 0,
        began,
        limits,
        is_finished: true,
        report,
    };
    search.best.keep = Some(search.kept());
    search.search();
    let reduction = search.best.clone();
    let options = Options { reduction, ..options.clone() };
    Some(Shrunk {
        seed,
        class: search.class,
        report: run_with(seed, &options, Some(search.tape)),
        options,
        troubles_before,
        duration_before,
        tries: search.tries,
        took: began.elapsed(),
        is_finished: search.is_finished,
    })
}

struct Search {
    seed: u64,
    /// Of the whole run.
    options: Options,
    tape: Tape,
    class: Class,
    best: Reduction,
    /// What came of the best.
    report: Report,
    tried: BTreeSet<Reduction>,
    tries: u64,
    began: Instant,
    limits: Limits,
    is_finished: bool,
}

impl Search {
    /// Rounds, as what could not be spared may be once something else is gone.
    fn search(&mut self) {
        loop {
            let before = self.best.clone();
            self.drop_kinds();
            self.drop_clients();
            self.drop_places();
            self.drop_parts();
            self.drop_troubles();
            self.end_early();
            if self.best == before || !self.is_finished {
                return;
            }
        }
    }

    /// Whether the run still fails in the same way with this left out. If so, it is the best so far.
    fn holds(&mut self, candidate: Reduction) -> bool {
        if candidate == self.best || !self.tried.insert(candidate.clone()) {
            return false;
        }
        let is_late = self.began.elapsed().as_secs() >= self.limits.seconds_max;
        if self.tries >= self.limits.tries_max || is_late {
            self.is_finished = false;
            return false;
        }
        self.tries += 1;
        let options = Options { reduction: candidate.clone(), ..self.options.clone() };
        let report = run_with(self.seed, &options, Some(self.tape.clone()));
        if !report.findings.iter().any(|finding| finding.class == self.class) {
            return false;
        }
        (self.best, self.report) = (candidate, report);
        // What was to come after the end is not needed to get there.
        self.best.keep = Some(self.kept());
        true
    }

    /// As `holds`, for a change of the best.
    fn holds_with(&mut self, change: impl FnOnce(&mut Reduction)) -> bool {
        let mut candidate = self.best.clone();
        change(&mut candidate);
        self.holds(candidate)
    }

    /// The numbers of the troubles that came.
    fn kept(&self) -> BTreeSet<usize> {
        self.report.tape.troubles.iter().map(|trouble| trouble.number).collect()
    }

    /// All trouble, and then one kind after the other.
    fn drop_kinds(&mut self) {
        self.holds_with(|it| it.keep = Some(BTreeSet::new()));
        let mut kinds: Vec<Kind> = Vec::new();
        for trouble in &self.report.tape.troubles {
            if !kinds.iter().any(|kind| kind.is_like(trouble.kind)) {
                kinds.push(trouble.kind);
            }
        }
        for kind in kinds {
            let troubles = self.report.tape.troubles.iter();
            let others = troubles.filter(|trouble| !trouble.kind.is_like(kind));
            let others = others.map(|trouble| trouble.number).collect();
            self.holds_with(|it| it.keep = Some(others));
        }
    }

    fn drop_clients(&mut self) {
        let clients = self.report.size.clients;
        for count in few(1, u64::from(clients)) {
            let count = u32::try_from(count).expect("fewer than there are");
            if self.holds_with(|it| it.clients_max = Some(count)) {
                break;
            }
        }
        let watchers = self.report.size.watchers;
        for count in few(0, watchers as u64) {
            let count = usize::try_from(count).expect("fewer than there are");
            if self.holds_with(|it| it.watchers_max = Some(count)) {
                break;
            }
        }
    }

    /// Ranges and nodes.
    fn drop_places(&mut self) {
        let ranges = self.report.size.ranges;
        for count in few(1, ranges as u64) {
            let count = usize::try_from(count).expect("fewer than there are");
            if self.holds_with(|it| it.ranges_max = Some(count)) {
                break;
            }
        }
        let founders = self.report.size.founders;
        // An even number has no majority that the odd one below it has not.
        for count in (1..founders).step_by(2) {
            if self.holds_with(|it| it.founders_max = Some(count)) {
                break;
            }
        }
    }

    fn drop_parts(&mut self) {
        self.holds_with(|it| it.without = Part::ALL.into());
        for part in Part::ALL {
            self.holds_with(|it| _ = it.without.insert(part));
        }
    }

    fn drop_troubles(&mut self) {
        let numbers: Vec<usize> = self.kept().into_iter().collect();
        ddmin(&numbers, |rest| {
            self.holds_with(|it| it.keep = Some(rest.iter().copied().collect()))
        });
    }

    /// Trouble, and with it traffic, ends soon after the last trouble that is needed.
    fn end_early(&mut self) {
        let last = self.report.tape.troubles.last().map_or(0, |trouble| trouble.at / MS);
        let mut fails = last + 1;
        let mut holds = self.report.duration.div_ceil(MS);
        holds = holds.min(self.best.until_ms.unwrap_or(u64::MAX));
        if fails >= holds || self.holds_with(|it| it.until_ms = Some(fails)) {
            return;
        }
        for _ in 0..HALVINGS_MAX {
            let middle = fails.midpoint(holds);
            match self.holds_with(|it| it.until_ms = Some(middle)) {
                true => holds = middle.min(self.report.duration.div_ceil(MS)),
                false => fails = middle,
            }
        }
    }
}

/// Numbers from `least` on to try in place of `count`: each twice the one before, and one less.
fn few(least: u64, count: u64) -> Vec<u64> {
    let mut numbers: BTreeSet<u64> = BTreeSet::from([least]);
    let mut next = 1;
    while next < count {
        numbers.insert(next);
        next *= 2;
    }
    numbers.extend(count.checked_sub(1));
    numbers.into_iter().filter(|number| (least..count).contains(number)).collect()
}

#[cfg(test)]
mod tests {
    use super::few;

    #[test]
    fn few_are_tried_before_many() {
        assert_eq!(few(1, 12), [1, 2, 4, 8, 11]);
        assert_eq!(few(0, 3), [0, 1, 2]);
        assert!(few(1, 1).is_empty());
        assert!(few(0, 0).is_empty());
    }
}
