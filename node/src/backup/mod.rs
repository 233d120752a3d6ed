//! `flotilla snapshot`: takes a backup of a cluster, looks at one, and makes a data directory of one.
//! `flotilla backup` (`series`): a directory of them, with every change in between.

mod arguments;
mod file;
mod restore;
mod save;
mod series;
mod status;

use std::fmt::Display;
use std::process::ExitCode;

use arguments::Command;

pub use series::run as run_series;

/// Carries out the arguments after `snapshot`.
pub fn run(arguments: &[String]) -> ExitCode {
    run_command(arguments::parse(arguments), arguments::USAGE, |command| match command {
        Command::Help => Ok(format!("{}\n", arguments::USAGE)),
        Command::Save(target, file) => save::save(&target, &file),
        Command::Status(file, format) => status::status(&file, format),
        Command::Restore(file, request) => restore::restore(&file, &request),
    })
}

/// Prints what comes of a command, or why there is none.
fn run_command<C, R: Display>(
    command: Result<C, R>,
    usage: &str,
    carry_out: impl FnOnce(C) -> anyhow::Result<String>,
) -> ExitCode {
    let command = match command {
        Ok(command) => command,
        Err(reason) => {
            eprintln!("Error: {reason}\n{usage}");
            return ExitCode::from(2);
        }
    };
    match carry_out(command) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
