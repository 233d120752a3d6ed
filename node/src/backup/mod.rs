//! `flotilla snapshot`: takes a backup of a cluster, looks at one, and makes a data directory of one.

mod arguments;
mod file;
mod restore;
mod save;
mod status;

use std::process::ExitCode;

use arguments::Command;

/// Carries out the arguments after `snapshot`.
pub fn run(arguments: &[String]) -> ExitCode {
    let command = match arguments::parse(arguments) {
        Ok(command) => command,
        Err(reason) => {
            eprintln!("Error: {reason}\n{}", arguments::USAGE);
            return ExitCode::from(2);
        }
    };
    let result = match command {
        Command::Help => Ok(format!("{}\n", arguments::USAGE)),
        Command::Save(target, file) => save::save(&target, &file),
        Command::Status(file, format) => status::status(&file, format),
        Command::Restore(file, request) => restore::restore(&file, &request),
    };
    match result {
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
