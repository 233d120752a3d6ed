//! Where lines go: to each output that was asked for, in order.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};

use tracing_subscriber::fmt::MakeWriter;

use crate::config::LogOutput;

enum Output {
    Stdout,
    Stderr,
    File(File),
}

/// All outputs of the log.
pub(super) struct Outputs(Vec<Output>);

impl Outputs {
    /// # Errors
    /// A file cannot be opened.
    pub(super) fn open(wanted: &[LogOutput]) -> io::Result<Self> {
        let open = |output: &LogOutput| {
            Ok(match output {
                LogOutput::Stdout => Output::Stdout,
                // Under systemd, standard error is the journal.
                LogOutput::Stderr | LogOutput::Journal => Output::Stderr,
                LogOutput::File(path) => {
                    Output::File(OpenOptions::new().create(true).append(true).open(path)?)
                }
            })
        };
        wanted.iter().map(open).collect::<io::Result<_>>().map(Self)
    }
}

/// Takes whole lines.
pub(super) struct Writer<'a>(&'a [Output]);

impl<'a> MakeWriter<'a> for Outputs {
    type Writer = Writer<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        Writer(&self.0)
    }
}

impl Write for Writer<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut result = Ok(line.len());
        for output in self.0 {
            let written = match output {
                Output::Stdout => io::stdout().lock().write_all(line),
                Output::Stderr => io::stderr().lock().write_all(line),
                // Opened for appending, one write is one line, whoever else writes.
                Output::File(file) => (&mut &*file).write_all(line),
            };
            // One output that is full must not silence the others.
            if let Err(error) = written {
                result = Err(error);
            }
        }
        result
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_output_gets_every_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let paths = ["a", "b"].map(|name| folder.path().join(name));
        let wanted = paths.clone().map(LogOutput::File);
        for line in ["one\n", "two\n"] {
            // Opened again, a file goes on.
            let outputs = Outputs::open(&wanted).expect("files");
            outputs.make_writer().write_all(line.as_bytes()).expect("room");
        }
        for path in paths {
            assert_eq!(std::fs::read_to_string(path).expect("a file"), "one\ntwo\n");
        }
        let missing = LogOutput::File(folder.path().join("missing").join("c"));
        assert!(Outputs::open(&[missing]).is_err());
    }
}
