//! `run`, `search` and `replay`: one store under one load.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

use super::End;
use crate::arrivals::{Profile, Spacing};
use crate::connect;
use crate::flags::{Flags, Spec, duration};
use crate::histogram::Percentiles;
use crate::keys::ValueLength;
use crate::load::{Outcome, Schedule, Shape};
use crate::machine;
use crate::progress::Progress;
use crate::rate_search::RateSearch;
use crate::report::json::{self, Load, Run};
use crate::report::{html, terminal};
use crate::session::{Session, Timing};
use crate::target::{Cluster, Target};
use crate::trace::{Trace, TraceWriter};
use crate::verdict::{self, Evidence};
use crate::workload::{self, Parameters, Plan};

/// Flags about the store, the connections and the report.
pub(super) const COMMON: Spec = Spec {
    values: &[
        "target",
        "endpoints",
        "user",
        "nodes",
        "dir",
        "connections",
        "streams",
        "outstanding",
        "seed",
        "threads",
        "duration",
        "warmup",
        "json",
        "html",
    ],
    switches: &["quiet"],
};
const WORKLOAD: Spec = Spec {
    values: &[
        "rate",
        "arrivals",
        "profile",
        "keys",
        "key-size",
        "key-prefix",
        "key-dist",
        "value-size",
        "list-limit",
        "record",
        "limit",
        "tolerance",
        "speed",
        "start-rate",
    ],
    switches: &[],
};

/// Connections unless told otherwise.
const CONNECTIONS: usize = 8;
/// Requests under way unless told otherwise.
const STREAMS: usize = 8;
/// Seed unless told otherwise.
pub(super) const SEED: u64 = 1;
/// Most requests under way.
const OUTSTANDING_MAX: usize = 100_000;
/// Requests an open loop may have under way unless told otherwise.
const OPEN_OUTSTANDING: usize = 4096;

/// A store and a session on it.
struct Scene {
    /// Runs as long as the scene lives.
    _cluster: Cluster,
    session: Session,
    target: Target,
    connections: usize,
    timing: Timing,
    flush_dir: PathBuf,
    threads: usize,
}

impl Scene {
    async fn open(flags: &Flags) -> anyhow::Result<Self> {
        let target = match (flags.text("target"), flags.text("endpoints")) {
            (Some(target), None) => Target::parse(target)?,
            (None, Some(endpoints)) => {
                let urls: Vec<&str> = endpoints.split(',').collect();
                let url = |at: &&str| match at.contains("://") {
                    true => (*at).to_owned(),
                    false => format!("http://{at}"),
                };
                Target::parse(&urls.iter().map(url).collect::<Vec<_>>().join(","))?
            }
            _ => bail!("name the store with either --target or --endpoints"),
        };
        let dir = PathBuf::from(flags.text("dir").unwrap_or("/tmp"));
        let progress = Progress::new(&target.name, flags.is_on("quiet")?);
        let cluster = target.start(flags.or("nodes", 1)?, &dir).await?;
        let connections = flags.or("connections", CONNECTIONS)?;
        let options = connect::log_in(&cluster.endpoints, flags.text("user")).await?;
        let seed = flags.or("seed", SEED)?;
        let pids = cluster.pids();
        let session =
            Session::open(&cluster.endpoints, connections, &options, pids, seed, progress).await?;
        let timing = Timing {
            warmup_max: flags.duration("warmup")?.unwrap_or(Duration::from_secs(5)),
            length: flags.duration("duration")?.unwrap_or(Duration::from_secs(10)),
        };
        let threads = flags.or("threads", 1)?;
        Ok(Self {
            _cluster: cluster,
            session,
            target,
            connections,
            timing,
            flush_dir: dir,
            threads,
        })
    }

    /// Reports the loads and says how it ended.
    async fn report(
        &self,
        flags: &Flags,
        loads: Vec<Load>,
        highest_rate: Option<f64>,
        flush_before: machine::Flush,
    ) -> anyhow::Result<End> {
        let flush_after = machine::flush(&self.flush_dir)?;
        let violations = self.session.check.violations();
        let version = self.session.pool.status().await.map(|status| status.version);
        let evidence = Evidence {
            targets: 1,
            repetitions: 1,
            flushes: Some((flush_before, flush_after)),
            violations: violations.count,
            ..Evidence::of_loads(loads.iter(), self.threads)
        };
        let verdict = verdict::judge(&evidence);
        let run = Run {
            form: json::FORM,
            target: self.target.name.clone(),
            version: version.unwrap_or_default(),
            seed: self.session.seed,
            connections: self.connections,
            machine: machine::describe(),
            flush_before: Some(flush_before),
            flush_after: Some(flush_after),
            loads,
            highest_rate,
            violations,
            verdict,
        };
        terminal::print_run(&run)?;
        if let Some(path) = flags.text("json") {
            json::write(Path::new(path), &run)?;
        }
        if let Some(path) = flags.text("html") {
            html::write_run(Path::new(path), &run)?;
        }
        Ok(if run.violations.count == 0 { End::Good } else { End::Bad })
    }
}

fn parameters(flags: &Flags, slots: usize) -> anyhow::Result<Parameters> {
    let default = Parameters::default();
    Ok(Parameters {
        prefix: flags.text("key-prefix").unwrap_or(&default.prefix).to_owned(),
        keys_count: flags.or("keys", default.keys_count)?,
        key_bytes: flags.or("key-size", 0)?,
        choice: flags.text("key-dist").unwrap_or(&default.choice).to_owned(),
        value: flags.text("value-size").map_or(Ok(default.value), ValueLength::parse)?,
        limit: flags.or("list-limit", default.limit)?,
        slots,
    })
}

fn shape(flags: &Flags, length: Duration) -> anyhow::Result<Shape> {
    let connections = flags.or("connections", CONNECTIONS)?;
    let outstanding = match flags.get("outstanding")? {
        Some(outstanding) => Some(outstanding),
        None => flags.get::<usize>("streams")?.map(|streams| streams * connections),
    };
    let spacing = match flags.text("arrivals") {
        None | Some("constant") => Spacing::Constant,
        Some("poisson") => Spacing::Poisson,
        Some(other) => bail!("--arrivals: constant or poisson, not {other:?}"),
    };
    let profile = match (flags.get::<f64>("rate")?, flags.text("profile")) {
        (Some(rate), None) => Some(Profile::constant(rate, length)),
        (None, Some(text)) => Some(profile(text, length)?),
        (None, None) => None,
        (Some(_), Some(_)) => bail!("--rate and --profile exclude each other"),
    };
    let outstanding_default = match profile {
        Some(_) => OPEN_OUTSTANDING,
        None => STREAMS * connections,
    };
    let outstanding = outstanding.unwrap_or(outstanding_default);
    ensure!(
        (1..=OUTSTANDING_MAX).contains(&outstanding),
        "1 to {OUTSTANDING_MAX} requests under way"
    );
    Ok(match profile {
        Some(profile) => {
            let schedule = Schedule::Profile { profile, spacing };
            Shape::Open { schedule, outstanding_max: outstanding }
        }
        None => Shape::Closed { outstanding },
    })
}

/// Reads `ramp:FROM:TO`, `step:FROM:TO:COUNT` or `spike:BASE:PEAK`, in requests a second.
fn profile(text: &str, length: Duration) -> anyhow::Result<Profile> {
    let parts: Vec<&str> = text.split(':').collect();
    let rate = |text: &str| -> anyhow::Result<f64> {
        let rate: f64 = text.parse().with_context(|| format!("{text:?} is not a rate"))?;
        ensure!(rate >= 0.0 && rate.is_finite(), "{text:?} is not a rate");
        Ok(rate)
    };
    Ok(match parts[..] {
        ["ramp", from, to] => Profile::ramp(rate(from)?, rate(to)?, length),
        ["step", from, to, count] => Profile::steps(rate(from)?, rate(to)?, count.parse()?, length),
        ["spike", base, peak] => Profile::spike(rate(base)?, rate(peak)?, length),
        _ => bail!("unknown profile {text:?}: ramp:FROM:TO, step:FROM:TO:COUNT, spike:BASE:PEAK"),
    })
}

/// `run WORKLOAD`
pub(super) fn run(arguments: &[String]) -> anyhow::Result<End> {
    let flags = Flags::parse(arguments, &[&COMMON, &WORKLOAD])?;
    let [name] = &flags.words[..] else { bail!("run needs one workload") };
    super::runtime(flags.or("threads", 1)?)?.block_on(async {
        let mut scene = Scene::open(&flags).await?;
        let shape = shape(&flags, scene.timing.length)?;
        let plan = workload::plan(name, &parameters(&flags, shape.slots())?)?;
        let trace = flags.text("record").map(|path| TraceWriter::create(Path::new(path)));
        scene.session.trace = trace.transpose()?.map(Arc::new);
        let flush_before = machine::flush(&scene.flush_dir)?;
        scene.session.prepare(&plan.fill).await?;
        let outcome = scene.session.load(&plan, &shape, scene.timing).await?;
        if let Some(trace) = &scene.session.trace {
            trace.finish()?;
        }
        let load = load_report(&plan, &shape, &outcome);
        scene.report(&flags, vec![load], None, flush_before).await
    })
}

fn load_report(plan: &Plan, shape: &Shape, outcome: &Outcome) -> Load {
    let is_open = matches!(shape, Shape::Open { .. });
    Load::new(&plan.name, is_open, shape.slots(), outcome)
}

/// `search WORKLOAD --limit p99=10ms`
pub(super) fn search(arguments: &[String]) -> anyhow::Result<End> {
    let flags = Flags::parse(arguments, &[&COMMON, &WORKLOAD])?;
    let [name] = &flags.words[..] else { bail!("search needs one workload") };
    let limit = Limit::parse(flags.text("limit").unwrap_or("p99=10ms"))?;
    super::runtime(flags.or("threads", 1)?)?.block_on(async {
        let mut scene = Scene::open(&flags).await?;
        let slots = flags.or("outstanding", OPEN_OUTSTANDING)?;
        let plan = workload::plan(name, &parameters(&flags, slots)?)?;
        let flush_before = machine::flush(&scene.flush_dir)?;
        scene.session.prepare(&plan.fill).await?;
        let mut search =
            RateSearch::new(flags.or("start-rate", 1000.0)?, flags.or("tolerance", 0.05)?);
        let mut loads = Vec::new();
        while let Some(rate) = search.next() {
            let profile = Profile::constant(rate, scene.timing.length);
            let schedule = Schedule::Profile { profile, spacing: Spacing::Poisson };
            let shape = Shape::Open { schedule, outstanding_max: slots };
            let outcome = scene.session.load(&plan, &shape, scene.timing).await?;
            let load = load_report(&plan, &shape, &outcome);
            let is_kept = limit.is_kept(&load);
            let says = if is_kept { "within" } else { "beyond" };
            let seen = limit.of(&load.latency);
            scene.session.progress.say(&format!("{rate:.0} ops/s: {seen:.2} ms, {says} the limit"));
            search.observe(rate, is_kept);
            loads.push(load);
        }
        scene.report(&flags, loads, search.best(), flush_before).await
    })
}

/// A latency that must not be exceeded.
struct Limit {
    quantile: String,
    ms: f64,
}

impl Limit {
    fn parse(text: &str) -> anyhow::Result<Self> {
        let (quantile, limit) = text.split_once('=').context("--limit is written p99=10ms")?;
        let is_known = ["p50", "p90", "p99", "p999", "p9999", "max"].contains(&quantile);
        ensure!(is_known, "--limit: {quantile:?} is not one of p50 p90 p99 p999 p9999 max");
        Ok(Self { quantile: quantile.into(), ms: duration(limit)?.as_secs_f64() * 1e3 })
    }

    fn of(&self, latency: &Percentiles) -> f64 {
        match self.quantile.as_str() {
            "p50" => latency.p50_ms,
            "p90" => latency.p90_ms,
            "p99" => latency.p99_ms,
            "p999" => latency.p999_ms,
            "p9999" => latency.p9999_ms,
            _ => latency.max_ms,
        }
    }

    /// The limit holds, and nearly all that was due was answered: a backlog that only begins to
    /// grow does not show in the latency yet.
    fn is_kept(&self, load: &Load) -> bool {
        let due = load.due.unwrap_or(load.answered).max(1) as f64;
        load.answered as f64 / due >= verdict::ACHIEVED_SHARE_MIN
            && load.failures.is_empty()
            && self.of(&load.latency) <= self.ms
    }
}

/// `replay FILE`
pub(super) fn replay(arguments: &[String]) -> anyhow::Result<End> {
    let flags = Flags::parse(arguments, &[&COMMON, &WORKLOAD])?;
    let [file] = &flags.words[..] else { bail!("replay needs one file") };
    let trace = Trace::read(Path::new(file))?;
    let speed: f64 = flags.or("speed", 1.0)?;
    ensure!(speed > 0.0 && speed.is_finite(), "--speed is a positive factor");
    super::runtime(flags.or("threads", 1)?)?.block_on(async {
        let mut scene = Scene::open(&flags).await?;
        let due: Vec<Duration> = trace.due(speed).collect();
        // A little longer than the trace, so that its last answers count.
        scene.timing.length = due.last().copied().unwrap_or_default() + Duration::from_millis(500);
        scene.timing.warmup_max = Duration::ZERO;
        let outstanding_max = flags.or("outstanding", OPEN_OUTSTANDING)?;
        let shape = Shape::Open { schedule: Schedule::Recorded(due), outstanding_max };
        let plan = trace.plan();
        let flush_before = machine::flush(&scene.flush_dir)?;
        let outcome = scene.session.load(&plan, &shape, scene.timing).await?;
        let load = load_report(&plan, &shape, &outcome);
        scene.report(&flags, vec![load], None, flush_before).await
    })
}
