//! The command line: runs one seed of the simulator, many, or one twice; or runs a real cluster
//! under real faults. Prints one line for each finding, which is all that is needed to repeat it.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, bail};
use flotilla_chaos::process;
use flotilla_chaos::sim::sweep::{CORNERS, SEEDS_MIN, kind_of};
use flotilla_chaos::sim::trace::LINES_USUAL;
use flotilla_chaos::sim::{self, Options, shrink};

/// The simulator allocates more than it does anything else.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "usage:
  flotilla-chaos sim run --seed S [KIND] [REDUCTION] [--quiet | --lines N]
  flotilla-chaos sim sweep --seeds COUNT [--first S] [KIND | --mixed] [--stop] [--shrink …]
  flotilla-chaos sim shrink --seed S [KIND] [REDUCTION] [--tries N] [--seconds N] [--quiet | --lines N]
  flotilla-chaos sim twice --seed S [KIND] [REDUCTION]
      KIND: [--nodes N] [--mutant NAME] [--restless | --aimed] [--focus WHAT] [--users] [--black-box]
      REDUCTION: [--keep TROUBLE,…] [--without PART,…] [--clients N] [--watchers N] [--ranges N]
                 [--founders N] [--until MS]
  flotilla-chaos scale [--nodes N,…] [--ranges-per-node R] [--outstanding-per-node P] [--skewed]
                       [--spine-apart] [--seed S]
  flotilla-chaos mutants [--seeds COUNT] [--only NAME]
`mutants` plants every bug there is, looks for each with at most COUNT seeds (5000), and prints a
table; it needs a build with the feature `mutants`. A seed is a number, and the focus of clients is on
`leases` or on `history`. Exit code 0 means that nothing was found.
";
const CODES: &str = "Exit codes of `run`: 0 PASS, 1 FAIL, 2 it could not be made, 3 INVALID.
Scenarios:";

struct Arguments {
    command: String,
    seed: u64,
    seeds_count: u64,
    is_quiet: bool,
    /// Of the trace, the last ones.
    lines_max: usize,
    stops: bool,
    /// The first finding of a sweep is shrunk.
    shrinks: bool,
    limits: shrink::Limits,
    /// A sweep over all kinds of runs.
    is_mixed: bool,
    options: Options,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let result = match words.first().map(String::as_str) {
        Some("run") => return run_processes(&words[1..]),
        Some("calibrate") => return calibrate(&words[1..]),
        Some("power-cut") => return cut_power(&words[1..]),
        Some("mutants") => hunt_mutants(),
        Some("scale") => look_at_scale(),
        _ => parse().and_then(|arguments| carry_out(&arguments)),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}\n{USAGE}{}", process_usage());
            ExitCode::from(2)
        }
    }
}

/// How real clusters are run.
fn process_usage() -> String {
    let scenarios = process::scenario::SCENARIOS.iter();
    let scenarios: Vec<String> =
        scenarios.map(|it| format!("  {:<11} {}", it.name, it.about)).collect();
    let (run, many) = (process::options::USAGE, process::calibrate::USAGE);
    let power_cut = process::gigabyte::USAGE;
    format!("  {run}\n  {many}\n  {power_cut}\n{CODES}\n{}", scenarios.join("\n"))
}

fn calibrate(words: &[String]) -> ExitCode {
    let mut out = std::io::stdout().lock();
    let say = |line: &str| eprint!("{line}");
    match process::calibrate::calibrate(words, say) {
        Ok(table) => {
            // Whoever does not listen has the reports.
            let _ = write!(out, "{table}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error:#}\n{}", process_usage());
            ExitCode::from(2)
        }
    }
}

fn cut_power(words: &[String]) -> ExitCode {
    match process::gigabyte::power_cut(words) {
        Ok(outcome) => {
            let _ = write!(std::io::stdout().lock(), "{outcome}");
            ExitCode::from(u8::from(!outcome.is_good()))
        }
        Err(error) => {
            eprintln!("the run could not be made: {error:#}\n{}", process::gigabyte::USAGE);
            ExitCode::from(2)
        }
    }
}

fn run_processes(words: &[String]) -> ExitCode {
    let options = match process::Options::parse(words) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("{error:#}\n{}", process_usage());
            return ExitCode::from(2);
        }
    };
    match process::run(&options) {
        Ok(ended) => {
            let mut out = std::io::stdout().lock();
            // Whoever does not listen has the report.
            let _ = write!(out, "{ended}");
            let _ = writeln!(out, "{}", options.command());
            ExitCode::from(ended.judgement.verdict.exit_code())
        }
        Err(error) => {
            eprintln!("the run could not be made: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn parse() -> anyhow::Result<Arguments> {
    let mut words = std::env::args().skip(1);
    if words.next().as_deref() != Some("sim") {
        bail!("the first word is `sim` or `run`");
    }
    let command = words.next().context("a command is missing")?;
    let mut arguments = Arguments {
        command,
        seed: 0,
        seeds_count: 1,
        is_quiet: false,
        lines_max: LINES_USUAL,
        stops: false,
        shrinks: false,
        limits: shrink::Limits::default(),
        is_mixed: false,
        options: Options::default(),
    };
    while let Some(flag) = words.next() {
        let mut value = || words.next().with_context(|| format!("{flag} needs a value"));
        let number =
            |text: String| text.parse::<u64>().with_context(|| format!("{text} is not a number"));
        match flag.as_str() {
            "--seed" | "--first" => arguments.seed = number(value()?)?,
            "--seeds" => arguments.seeds_count = number(value()?)?,
            "--quiet" => arguments.is_quiet = true,
            "--lines" => {
                let count = number(value()?)?;
                arguments.lines_max = usize::try_from(count).context("too many lines")?;
            }
            "--mixed" => arguments.is_mixed = true,
            "--stop" => arguments.stops = true,
            "--shrink" => arguments.shrinks = true,
            "--tries" => arguments.limits.tries_max = number(value()?)?,
            "--seconds" => arguments.limits.seconds_max = number(value()?)?,
            _ if arguments.options.take_flag(&flag, value)? => {}
            _ => bail!("unknown flag {flag}"),
        }
    }
    Ok(arguments)
}

/// Prints how throughput grows with the nodes, in virtual time.
fn look_at_scale() -> anyhow::Result<bool> {
    use flotilla_chaos::sim::scale::{Scale, look};

    let (mut nodes, mut ranges, mut outstanding) = (vec![3, 6, 12, 24], 4, 150);
    let (mut is_skewed, mut is_spine_apart, mut seed) = (false, false, 1);
    let mut words = std::env::args().skip(2);
    while let Some(flag) = words.next() {
        let mut value = || words.next().with_context(|| format!("{flag} needs a value"));
        let number =
            |text: &str| text.parse::<u64>().with_context(|| format!("{text} is not a number"));
        match flag.as_str() {
            "--nodes" => nodes = value()?.split(',').map(number).collect::<anyhow::Result<_>>()?,
            "--ranges-per-node" => ranges = number(&value()?)?,
            "--outstanding-per-node" => outstanding = number(&value()?)?,
            "--seed" => seed = number(&value()?)?,
            "--skewed" => is_skewed = true,
            "--spine-apart" => is_spine_apart = true,
            _ => bail!("unknown flag {flag}"),
        }
    }
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "nodes ranges under way  puts/s  p50 ms  p99 ms  spine's leader  busiest  all nodes  most led"
    )?;
    for nodes_count in nodes {
        let under_way = u32::try_from(outstanding * nodes_count).context("too many")?;
        let ranges_count = ranges * nodes_count;
        let scale =
            Scale { nodes_count, ranges_count, outstanding: under_way, is_skewed, is_spine_apart };
        let seen = look(scale, seed).map_err(anyhow::Error::msg)?;
        let percent = |share: f64| format!("{:.0} %", share * 100.0);
        writeln!(
            out,
            "{nodes_count:5} {ranges_count:6} {under_way:9} {:7.0} {:7.2} {:7.2} {:>15} {:>8} {:>10} {:>9}",
            seen.puts_per_second,
            seen.p50_us as f64 / 1_000.0,
            seen.p99_us as f64 / 1_000.0,
            percent(seen.spine_leader_busy),
            percent(seen.busiest),
            percent(seen.mean_busy),
            seen.led.first().copied().unwrap_or(0),
        )?;
        out.flush()?;
    }
    Ok(true)
}

/// True if nothing was found.
fn carry_out(arguments: &Arguments) -> anyhow::Result<bool> {
    // A panic of a machine is a finding and is reported as one.
    sim::finding::note_panics();
    match arguments.command.as_str() {
        "run" => run(arguments),
        "sweep" => sweep(arguments),
        "twice" => twice(arguments),
        "shrink" => shrink(arguments),
        other => bail!("unknown command {other}"),
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let lines_max = if arguments.is_quiet { 0 } else { arguments.lines_max };
    let options = Options { lines_max, ..arguments.options.clone() };
    let report = sim::run(arguments.seed, &options);
    say_report(&report, &mut std::io::stdout().lock())?;
    Ok(report.is_clean())
}

fn say_report(report: &sim::Report, out: &mut impl Write) -> anyhow::Result<()> {
    if !report.is_clean() {
        write!(out, "{}", report.trace)?;
    }
    writeln!(out, "{report}")?;
    for (what, count) in &report.seen {
        writeln!(out, "  {what}: {count}")?;
    }
    Ok(())
}

/// True if the seed fails, and can be shrunk.
fn shrink(arguments: &Arguments) -> anyhow::Result<bool> {
    let mut out = std::io::stdout().lock();
    let is_found = say_shrunk(arguments, arguments.seed, &arguments.options, &mut out)?;
    if !is_found {
        writeln!(out, "seed {} does not fail", arguments.seed)?;
    }
    Ok(is_found)
}

/// Shrinks a seed. False if it does not fail.
fn say_shrunk(
    arguments: &Arguments,
    seed: u64,
    options: &Options,
    out: &mut impl Write,
) -> anyhow::Result<bool> {
    let lines_max = if arguments.is_quiet { 0 } else { arguments.lines_max };
    let options = Options { lines_max, ..options.clone() };
    let Some(shrunk) = shrink::shrink(seed, &options, arguments.limits) else { return Ok(false) };
    writeln!(out, "{shrunk}")?;
    say_report(&shrunk.report, out)?;
    Ok(true)
}

fn sweep(arguments: &Arguments) -> anyhow::Result<bool> {
    let began = Instant::now();
    let mut out = std::io::stdout().lock();
    let mut found_count = 0_u64;
    let mut simulated = 0;
    let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in arguments.seed..arguments.seed + arguments.seeds_count {
        let (options, flags) = match arguments.is_mixed {
            true => kind_of(seed, &arguments.options),
            false => (arguments.options.clone(), ""),
        };
        let report = sim::run(seed, &options);
        simulated += report.duration;
        for (what, count) in &report.seen {
            *seen.entry(what).or_default() += count;
        }
        if !report.is_clean() {
            found_count += 1;
            if !flags.is_empty() {
                write!(out, "{flags} ")?;
            }
            writeln!(out, "{report}")?;
            out.flush()?;
            if arguments.shrinks && found_count == 1 {
                say_shrunk(arguments, seed, &options, &mut out)?;
            }
            if arguments.stops {
                break;
            }
        }
    }
    let never_count = if arguments.is_mixed { say_corners(&seen, &mut out)? } else { 0 };
    let seconds = began.elapsed().as_secs_f64();
    let ran = simulated / 1_000_000;
    writeln!(out, "{found_count} findings; {ran} simulated seconds in {seconds:.1} s")?;
    Ok(found_count == 0 && never_count == 0)
}

/// Says how often what was to happen did. Gives back how much never did.
fn say_corners(seen: &BTreeMap<&str, u64>, out: &mut impl Write) -> anyhow::Result<usize> {
    let mut never_count = 0;
    for what in CORNERS {
        let count = seen.get(what).copied().unwrap_or(0);
        never_count += usize::from(count == 0);
        writeln!(out, "  {what}: {count}")?;
    }
    if never_count > 0 {
        writeln!(
            out,
            "{never_count} corners were never reached; a sweep of {SEEDS_MIN} seeds is expected to \
             reach all"
        )?;
    }
    Ok(never_count)
}

fn twice(arguments: &Arguments) -> anyhow::Result<bool> {
    let first = sim::run(arguments.seed, &arguments.options);
    let second = sim::run(arguments.seed, &arguments.options);
    let mut out = std::io::stdout().lock();
    writeln!(out, "{first}\n{second}")?;
    let is_same = first.hash == second.hash && first.end == second.end;
    if !is_same {
        writeln!(out, "seed {} does not repeat itself", arguments.seed)?;
    }
    Ok(is_same)
}

#[cfg(not(feature = "mutants"))]
fn hunt_mutants() -> anyhow::Result<bool> {
    bail!("there are no bugs to plant in this build; {}", sim::flags::NEEDS_FEATURE)
}

/// Looks for every bug that can be planted. True if each is found by a check that is there for it.
#[cfg(feature = "mutants")]
fn hunt_mutants() -> anyhow::Result<bool> {
    use flotilla_chaos::mutants::{ROWS, Table, hunt};

    /// Seeds within which a bug must be found.
    const SEEDS_MAX: u64 = 5_000;

    let (mut seeds_max, mut only) = (SEEDS_MAX, None);
    let mut words = std::env::args().skip(2);
    while let Some(flag) = words.next() {
        let value = words.next().with_context(|| format!("{flag} needs a value"))?;
        match flag.as_str() {
            "--seeds" => {
                seeds_max = value.parse().with_context(|| format!("{value} is not a number"))?;
            }
            "--only" => only = Some(value),
            _ => bail!("unknown flag {flag}"),
        }
    }
    let is_wanted = |name: &str| only.as_deref().is_none_or(|only| only == name);
    if !ROWS.iter().any(|row| is_wanted(row.bug.name())) {
        bail!("no bug is called {}", only.unwrap_or_default());
    }
    std::panic::set_hook(Box::new(|_| {}));
    let mut out = std::io::stdout().lock();
    let mut table = Table::default();
    writeln!(out, "{}", Table::HEAD)?;
    for row in ROWS.iter().filter(|row| is_wanted(row.bug.name())) {
        let hunted = hunt(row, seeds_max);
        writeln!(out, "{hunted}")?;
        out.flush()?;
        table.push(hunted);
    }
    let failed: Vec<&str> = table.failed().map(|hunted| hunted.row.bug.name()).collect();
    writeln!(out)?;
    if let Some((middle, most)) = table.seeds() {
        writeln!(
            out,
            "Half of those found with seeds took no more than {middle}, all no more than {most}."
        )?;
    }
    match failed.as_slice() {
        [] => writeln!(out, "Every bug was found by a check that is there for it.")?,
        failed => writeln!(out, "Not found, or by another check: {}", failed.join(", "))?,
    }
    Ok(failed.is_empty())
}
