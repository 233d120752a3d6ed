//! `flotilla backup`: a directory of bases, which are snapshots, and increments, which have every change
//! behind them; and the state that they lead to, at any revision, in a new cluster or a running one.

mod apply;
mod arguments;
mod cluster;
mod directory;
mod draft;
mod restore;
mod show;
mod take;

use std::process::ExitCode;

use arguments::Command;

/// Carries out the arguments after `backup`.
pub fn run(arguments: &[String]) -> ExitCode {
    super::run_command(arguments::parse(arguments), arguments::USAGE, |command| match command {
        Command::Help => Ok(format!("{}\n", arguments::USAGE)),
        Command::Take(request) => take::take(&request),
        Command::Status(dir, format) => show::status(&dir, format),
        Command::Verify(dir) => show::verify(&dir),
        Command::Restore(request) => restore::restore(&request),
        Command::Apply(request) => apply::apply(&request),
    })
}
