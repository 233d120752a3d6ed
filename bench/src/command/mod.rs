//! The commands of the program. Each reads its flags, does its work and prints its result.

mod compare;
mod load;

use std::io::Write as _;

use anyhow::bail;

/// How a command ended that did its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Well.
    Good,
    /// The store gave wrong answers, or missed a gate.
    Bad,
}

const USAGE: &str = "\
usage: flotilla-bench COMMAND [FLAGS]

  run WORKLOAD       load a store and report rates and latencies
  search WORKLOAD    find the highest rate within a latency limit (--limit p99=10ms)
  replay FILE        replay a recorded trace (--speed 1.0)
  compare            two or more --target by turns; ratios, confidence, gates
  benchmark put|range|txn-put|txn-mixed|watch|watch-latency|lease-keepalive|stm
                     takes the flags of etcd's benchmark and prints its summary
  rows               list the rows of the goals that compare knows
  workloads          list the workloads

Every command takes a store as --target 'COMMAND' (started and stopped here), --target http://HOST:PORT
or --endpoints HOST:PORT,HOST:PORT. docs/bench.md tells the rest.";

/// Runs the command the arguments name.
///
/// # Errors
/// Flags that are not understood, or work that could not be done.
pub fn run(arguments: &[String]) -> anyhow::Result<End> {
    let Some((command, rest)) = arguments.split_first() else {
        bail!("{USAGE}");
    };
    match command.as_str() {
        "run" => load::run(rest),
        "search" => load::search(rest),
        "replay" => load::replay(rest),
        "compare" => compare::run(rest),
        "benchmark" => {
            let is_right = crate::etcd_benchmark::run(rest)?;
            Ok(if is_right { End::Good } else { End::Bad })
        }
        "rows" => {
            for row in &crate::rows::ROWS {
                let note = match row.experiment {
                    crate::rows::Experiment::Refused(why) => format!(" (not built: {why})"),
                    _ => String::new(),
                };
                writeln!(std::io::stdout(), "{:4} {}{note}", row.id, row.label)?;
            }
            Ok(End::Good)
        }
        "workloads" => {
            for (name, about) in crate::workload::NAMES {
                writeln!(std::io::stdout(), "{name:17} {about}")?;
            }
            Ok(End::Good)
        }
        "help" | "--help" | "-h" => {
            writeln!(std::io::stdout(), "{USAGE}")?;
            Ok(End::Good)
        }
        other => bail!("unknown command {other:?}\n{USAGE}"),
    }
}

/// A runtime: one thread is the leanest and the default.
fn runtime(threads: usize) -> anyhow::Result<tokio::runtime::Runtime> {
    let mut builder = match threads {
        0 | 1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    if threads > 1 {
        builder.worker_threads(threads);
    }
    Ok(builder.enable_all().build()?)
}
