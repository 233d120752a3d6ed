//! The `flotilla-bench` program: hands its arguments to a command.

use std::io::Write as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match flotilla_bench::command::run(&arguments) {
        Ok(flotilla_bench::command::End::Good) => ExitCode::SUCCESS,
        // Wrong answers, or a gate that was missed.
        Ok(flotilla_bench::command::End::Bad) => ExitCode::from(2),
        Err(error) => {
            // Nothing is left to do if standard error is closed.
            let _ = writeln!(std::io::stderr(), "flotilla-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
