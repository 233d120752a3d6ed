//! `compare`: two or more stores, by turns, on the same machine in one run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

use super::End;
use super::load::{COMMON, SEED};
use crate::comparison::{self, Comparison, Contestant, RowReport};
use crate::connect;
use crate::flags::{Flags, Spec};
use crate::gates::{self, Gate, Judgement};
use crate::interleave;
use crate::machine;
use crate::progress::Progress;
use crate::random::Random;
use crate::report::json::Load;
use crate::report::{compare_html, json, terminal};
use crate::rows::{Experiment, ROWS, Row, Scale};
use crate::scenario::{self, Settings, Side};
use crate::session::{Session, Timing};
use crate::target::Target;
use crate::verdict::{self, Evidence};

const SPEC: Spec = Spec {
    values: &["rows", "repetitions", "scale", "baseline", "gates"],
    switches: &["fail-on-gate"],
};

/// Repetitions unless told otherwise.
const REPETITIONS: usize = verdict::REPETITIONS_MIN;
/// Most repetitions.
const REPETITIONS_MAX: usize = 101;
/// Connections unless told otherwise.
const CONNECTIONS: usize = 8;

/// What a comparison was asked to do.
struct Order {
    targets: Vec<Target>,
    rows: Vec<Row>,
    repetitions: usize,
    settings: Settings,
    seed: u64,
    connections: usize,
    threads: usize,
    user: Option<String>,
    dir: PathBuf,
    gates: Vec<Gate>,
    is_quiet: bool,
}

impl Order {
    fn parse(flags: &Flags) -> anyhow::Result<Self> {
        ensure!(flags.words.is_empty(), "compare takes flags only: {:?}", flags.words);
        let mut targets: Vec<Target> =
            flags.all("target").iter().map(|text| Target::parse(text)).collect::<Result<_, _>>()?;
        ensure!(targets.len() >= 2, "compare needs two --target or more");
        for n in 1..targets.len() {
            if targets[..n].iter().any(|other| other.name == targets[n].name) {
                targets[n].name = format!("{}-{}", targets[n].name, n + 1);
            }
        }
        if let Some(baseline) = flags.text("baseline") {
            let at = targets.iter().position(|target| target.name == baseline);
            let at = at.with_context(|| format!("--baseline {baseline:?} is no target"))?;
            targets[..=at].rotate_right(1);
        }
        let repetitions = flags.or("repetitions", REPETITIONS)?;
        ensure!((1..=REPETITIONS_MAX).contains(&repetitions), "1 to {REPETITIONS_MAX} repetitions");
        let scale = Scale(flags.or("scale", 1.0)?);
        ensure!(scale.0 > 0.0 && scale.0 <= 10.0, "--scale is a factor up to 10");
        let gates = match flags.text("gates") {
            Some(path) => gates::parse(&std::fs::read_to_string(path).context(path.to_owned())?)?,
            None => gates::table()?,
        };
        Ok(Self {
            targets,
            rows: rows(flags.text("rows"))?,
            repetitions,
            settings: Settings {
                timing: Timing {
                    warmup_max: flags.duration("warmup")?.unwrap_or(Duration::from_secs(3)),
                    length: flags.duration("duration")?.unwrap_or(Duration::from_secs(5)),
                },
                scale,
            },
            seed: flags.or("seed", SEED)?,
            connections: flags.or("connections", CONNECTIONS)?,
            threads: flags.or("threads", 1)?,
            user: flags.text("user").map(str::to_owned),
            dir: PathBuf::from(flags.text("dir").unwrap_or("/tmp")),
            gates,
            is_quiet: flags.is_on("quiet")?,
        })
    }
}

/// The rows named, or all that can be driven.
fn rows(names: Option<&str>) -> anyhow::Result<Vec<Row>> {
    let Some(names) = names else {
        let can_drive = |row: &&Row| !matches!(row.experiment, Experiment::Refused(_));
        return Ok(ROWS.iter().filter(can_drive).copied().collect());
    };
    let mut rows = Vec::new();
    for name in names.split(',') {
        let row = ROWS.iter().find(|row| row.id.eq_ignore_ascii_case(name.trim()));
        let row = row.with_context(|| format!("there is no row {name:?}"))?;
        if let Experiment::Refused(why) = row.experiment {
            bail!("{} ({}) is not built: {why}", row.id, row.label);
        }
        rows.push(*row);
    }
    Ok(rows)
}

/// `compare --target A --target B`
pub(super) fn run(arguments: &[String]) -> anyhow::Result<End> {
    let flags = Flags::parse(arguments, &[&COMMON, &SPEC])?;
    let order = Order::parse(&flags)?;
    let comparison = super::runtime(order.threads)?.block_on(compare(&order))?;
    terminal::print_comparison(&comparison)?;
    if let Some(path) = flags.text("json") {
        json::write(Path::new(path), &comparison)?;
    }
    if let Some(path) = flags.text("html") {
        compare_html::write(Path::new(path), &comparison)?;
    }
    let is_wrong = comparison.targets.iter().any(|target| target.violations.count > 0);
    let misses = |judged: &comparison::Judged| {
        matches!(judged.judgement, Judgement::Fail | Judgement::NotMeasured)
    };
    let is_missed = comparison.rows.iter().flat_map(|row| &row.gates).any(misses);
    let is_bad = is_wrong || (flags.is_on("fail-on-gate")? && is_missed);
    Ok(if is_bad { End::Bad } else { End::Good })
}

async fn compare(order: &Order) -> anyhow::Result<Comparison> {
    let flush_before = machine::flush(&order.dir)?;
    let mut targets: Vec<Contestant> = order
        .targets
        .iter()
        .map(|target| Contestant {
            name: target.name.clone(),
            version: String::new(),
            violations: crate::check::Violations::default(),
        })
        .collect();
    let mut reports = Vec::new();
    let mut sizes: Vec<usize> = order.rows.iter().map(|row| row.nodes).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let mut expects_failures = Vec::new();
    for nodes in sizes {
        let mut sides = Vec::new();
        for (n, target) in order.targets.iter().enumerate() {
            let side = open(order, target, nodes).await?;
            targets[n].version = side.session.pool.status().await?.version;
            sides.push(side);
        }
        for row in order.rows.iter().filter(|row| row.nodes == nodes) {
            let (report, is_expected) = run_row(order, row, &mut sides, &mut targets).await;
            expects_failures.push(is_expected);
            reports.push(report);
        }
        for (target, side) in targets.iter_mut().zip(&sides) {
            target.learn(side);
        }
    }
    let flush_after = machine::flush(&order.dir)?;
    let evidence =
        evidence(order, &reports, &expects_failures, &targets, (flush_before, flush_after));
    let mut verdict = verdict::judge(&evidence);
    if order.settings.scale != Scale(1.0) {
        verdict.is_fit = false;
        verdict
            .reasons
            .push(format!("sizes are {} times those of the goals", order.settings.scale.0));
    }
    for report in &reports {
        if let Some(error) = &report.error {
            verdict.is_fit = false;
            verdict.reasons.push(format!("{}: {error}", report.id));
        }
    }
    Ok(Comparison {
        form: json::FORM,
        targets,
        repetitions: order.repetitions,
        secs_per_load: order.settings.timing.length.as_secs_f64(),
        scale: order.settings.scale.0,
        seed: order.seed,
        connections: order.connections,
        machine: machine::describe(),
        flush_before,
        flush_after,
        rows: reports,
        verdict,
    })
}

async fn open(order: &Order, target: &Target, nodes: usize) -> anyhow::Result<Side> {
    let progress = Progress::new(&target.name, order.is_quiet);
    progress.say(&format!("starting {nodes} nodes"));
    let cluster = target.start(nodes, &order.dir).await?;
    let options = connect::log_in(&cluster.endpoints, order.user.as_deref()).await?;
    let (pids, seed) = (cluster.pids(), order.seed);
    let session =
        Session::open(&cluster.endpoints, order.connections, &options, pids, seed, progress)
            .await?;
    Ok(Side { cluster, session })
}

/// All turns of a row. An error ends the row, not the run.
async fn run_row(
    order: &Order,
    row: &Row,
    sides: &mut [Side],
    targets: &mut [Contestant],
) -> (RowReport, bool) {
    let mut turns: Vec<Vec<BTreeMap<String, f64>>> = vec![Vec::new(); sides.len()];
    let mut loads: Vec<Vec<Load>> = vec![Vec::new(); sides.len()];
    let mut error = None;
    let mut expects_failures = false;
    'turns: for repetition in 0..order.repetitions {
        for n in interleave::order(repetition, sides.len()) {
            let name = &order.targets[n].name;
            let label = format!("{} {}/{} {name}", row.id, repetition + 1, order.repetitions);
            if row.experiment.needs_fresh_store() {
                match open(order, &order.targets[n], row.nodes).await {
                    Ok(fresh) => {
                        targets[n].learn(&sides[n]);
                        sides[n] = fresh;
                    }
                    Err(failure) => {
                        error = Some(format!("{name}: {failure:#}"));
                        break 'turns;
                    }
                }
            }
            sides[n].session.progress = Progress::new(&label, order.is_quiet);
            match scenario::turn(row, &mut sides[n], order.settings).await {
                Ok(turn) => {
                    expects_failures |= turn.expects_failures;
                    turns[n].push(turn.metrics);
                    loads[n].extend(turn.loads);
                }
                Err(failure) => {
                    error = Some(format!("{name}: {failure:#}"));
                    break 'turns;
                }
            }
        }
    }
    let mut random = Random::new(order.seed, 1 << 50);
    let metrics = comparison::metrics(&turns, &mut random);
    let names: Vec<String> = order.targets.iter().map(|target| target.name.clone()).collect();
    let gates = comparison::judge(row.id, &order.gates, &metrics, &names, &mut random);
    let (id, label, nodes) = (row.id, row.label, row.nodes);
    (RowReport { id, label, nodes, metrics, gates, loads, error }, expects_failures)
}

fn evidence(
    order: &Order,
    reports: &[RowReport],
    expects_failures: &[bool],
    targets: &[Contestant],
    flushes: (machine::Flush, machine::Flush),
) -> Evidence {
    let loads = || reports.iter().flat_map(|row| row.loads.iter().flatten());
    let all = Evidence::of_loads(loads(), order.threads);
    let judged: Vec<&Load> = reports
        .iter()
        .zip(expects_failures)
        .filter(|(_, is_expected)| !**is_expected)
        .flat_map(|(row, _)| row.loads.iter().flatten())
        .collect();
    let failed = judged.iter().flat_map(|load| &load.failures).map(|failure| failure.count).sum();
    let answered: u64 = judged.iter().map(|load| load.answered).sum();
    // Rows without loads, such as a restart, have no requests that could fail.
    let requests = if judged.is_empty() { (0, 1) } else { (failed, answered + failed) };
    Evidence {
        targets: targets.len(),
        repetitions: order.repetitions,
        flushes: Some(flushes),
        violations: targets.iter().map(|target| target.violations.count).sum(),
        failed: requests,
        ..all
    }
}
