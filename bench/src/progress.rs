//! A line on the terminal for each second of a load, on standard error.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use crate::recorder::Interval;

/// Where progress goes.
pub struct Progress {
    label: String,
    is_terminal: bool,
    is_quiet: bool,
}

impl Progress {
    /// Progress of what is called `label`.
    #[must_use]
    pub fn new(label: &str, is_quiet: bool) -> Self {
        Self { label: label.into(), is_terminal: std::io::stderr().is_terminal(), is_quiet }
    }

    /// The same place under another name.
    #[must_use]
    pub fn labelled(&self, label: &str) -> Self {
        Self { label: label.into(), ..*self }
    }

    /// Shows how the last interval went; `length` is all there is to come.
    pub fn show(&self, interval: &Interval, length: Duration) {
        let errors = match interval.errors {
            0 => String::new(),
            errors => format!(", {errors} errors"),
        };
        self.write(&format!(
            "{:3.0}/{:.0} s  {:.0} ops/s, p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms{errors}",
            interval.at_secs,
            length.as_secs_f64(),
            interval.rate,
            interval.p50_ms,
            interval.p99_ms,
            interval.max_ms
        ));
    }

    /// Says what happens now.
    pub fn say(&self, what: &str) {
        self.write(what);
        self.done();
    }

    fn write(&self, text: &str) {
        if self.is_quiet {
            return;
        }
        // One line is rewritten on a terminal; in a file each is kept. A closed pipe is no reason
        // to stop measuring.
        let (before, after) = if self.is_terminal { ("\r\x1b[K", "") } else { ("", "\n") };
        let _ = write!(std::io::stderr(), "{before}{}: {text}{after}", self.label);
    }

    /// Ends the line.
    pub fn done(&self) {
        if self.is_terminal && !self.is_quiet {
            let _ = writeln!(std::io::stderr());
        }
    }
}
