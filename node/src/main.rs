//! The `flotilla` binary: flags in, a node until a signal.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use flotilla::config::{self, Outcome};
use flotilla::{backup, ctl, dev, logging, recover, start, supervise, verify};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    #[cfg(feature = "failpoints")]
    flotilla::failpoint::start();
    let arguments: Vec<String> =
        std::env::args_os().skip(1).map(|it| it.to_string_lossy().into_owned()).collect();
    match arguments.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        Some(("ctl", rest)) => return ctl::run(rest),
        Some(("verify", rest)) => return verify::run(rest),
        Some(("dump", rest)) => return verify::run_dump(rest),
        Some(("recover", rest)) => return recover::run(rest),
        Some(("top", rest)) => return ctl::top(rest),
        Some(("dev", rest)) => return dev::run(rest),
        Some(("snapshot", rest)) => return backup::run(rest),
        Some(("backup", rest)) => return backup::run_series(rest),
        _ => {}
    }
    // Variables that are not text are none of ours.
    let env: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let read_file = |path: &Path| std::fs::read_to_string(path);
    let outcome = config::parse(std::env::args_os().skip(1), &env, &read_file);
    match outcome {
        Err(error) => {
            say_error(&error.report());
            ExitCode::from(error.exit_code())
        }
        Ok(Outcome::Version) => {
            say(&start::version());
            ExitCode::SUCCESS
        }
        Ok(Outcome::Help) => {
            say(&config::flag_list());
            ExitCode::SUCCESS
        }
        Ok(Outcome::Run(config, notices)) => {
            if let Err(error) = logging::start(&config) {
                say_error(&format!("cannot open the log output: {error}"));
                return ExitCode::FAILURE;
            }
            supervise::stop_on_panic();
            for notice in notices {
                tracing::warn!("{notice}");
            }
            match start::run(*config) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    tracing::error!(%error, "cannot start");
                    say_error(&format!("flotilla: {error:#}"));
                    ExitCode::FAILURE
                }
            }
        }
    }
}

fn say(text: &str) {
    // A closed pipe is not worth a word.
    let _ = writeln!(std::io::stdout(), "{}", text.trim_end());
}

fn say_error(text: &str) {
    // A closed pipe is not worth a word.
    let _ = writeln!(std::io::stderr(), "{}", text.trim_end());
}
