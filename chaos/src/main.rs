//! The command line of the simulator: runs one seed, many seeds, or one seed twice. Prints one
//! line for each finding, which is all that is needed to repeat it.

use std::io::Write;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, bail};
use flotilla_chaos::sim::{self, Mutant, Options};

const USAGE: &str = "usage:
  flotilla-chaos sim run --seed S [--nodes N] [--mutant NAME] [--restless] [--users] [--black-box]
                         [--quiet]
  flotilla-chaos sim sweep --seeds COUNT [--first S] [--nodes N] [--mutant NAME] [--restless] [--users]
                           [--black-box] [--stop]
  flotilla-chaos sim twice --seed S [--nodes N] [--mutant NAME] [--restless] [--users]
A seed is a number. Exit code 0 means that nothing was found.";

struct Arguments {
    command: String,
    seed: u64,
    seeds_count: u64,
    is_quiet: bool,
    stops: bool,
    options: Options,
}

fn main() -> ExitCode {
    match parse().and_then(|arguments| carry_out(&arguments)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn parse() -> anyhow::Result<Arguments> {
    let mut words = std::env::args().skip(1);
    if words.next().as_deref() != Some("sim") {
        bail!("the first word is `sim`");
    }
    let command = words.next().context("a command is missing")?;
    let mut arguments = Arguments {
        command,
        seed: 0,
        seeds_count: 1,
        is_quiet: false,
        stops: false,
        options: Options::default(),
    };
    while let Some(flag) = words.next() {
        let mut value = || words.next().with_context(|| format!("{flag} needs a value"));
        let number =
            |text: String| text.parse::<u64>().with_context(|| format!("{text} is not a number"));
        match flag.as_str() {
            "--seed" | "--first" => arguments.seed = number(value()?)?,
            "--seeds" => arguments.seeds_count = number(value()?)?,
            "--nodes" => arguments.options.nodes_count = number(value()?)?,
            "--mutant" => {
                let mutant = value()?.parse::<Mutant>().map_err(anyhow::Error::msg)?;
                arguments.options.mutant = Some(mutant);
            }
            "--black-box" => arguments.options.is_black_box = true,
            "--restless" => arguments.options.is_restless = true,
            "--users" => arguments.options.has_users = true,
            "--quiet" => arguments.is_quiet = true,
            "--stop" => arguments.stops = true,
            _ => bail!("unknown flag {flag}"),
        }
    }
    Ok(arguments)
}

/// True if nothing was found.
fn carry_out(arguments: &Arguments) -> anyhow::Result<bool> {
    // A panic of a machine is a finding and is reported as one.
    std::panic::set_hook(Box::new(|_| {}));
    match arguments.command.as_str() {
        "run" => run(arguments),
        "sweep" => sweep(arguments),
        "twice" => twice(arguments),
        other => bail!("unknown command {other}"),
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let options = Options { is_told: !arguments.is_quiet, ..arguments.options.clone() };
    let report = sim::run(arguments.seed, &options);
    let mut out = std::io::stdout().lock();
    if !report.is_clean() {
        write!(out, "{}", report.trace)?;
    }
    writeln!(out, "{report}")?;
    for (what, count) in &report.seen {
        writeln!(out, "  {what}: {count}")?;
    }
    Ok(report.is_clean())
}

fn sweep(arguments: &Arguments) -> anyhow::Result<bool> {
    let began = Instant::now();
    let mut out = std::io::stdout().lock();
    let mut found_count = 0_u64;
    let mut simulated = 0;
    for seed in arguments.seed..arguments.seed + arguments.seeds_count {
        let report = sim::run(seed, &arguments.options);
        simulated += report.duration;
        if !report.is_clean() {
            found_count += 1;
            writeln!(out, "{report}")?;
            out.flush()?;
            if arguments.stops {
                break;
            }
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    let ran = simulated / 1_000_000;
    writeln!(out, "{found_count} findings; {ran} simulated seconds in {seconds:.1} s")?;
    Ok(found_count == 0)
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
