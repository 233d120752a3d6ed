//! Structured logs, set up once from the configuration.

use std::fs::OpenOptions;
use std::io;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use crate::config::{Config, LogFormat, LogLevel, LogOutput};

/// Starts logging. Only the first of several outputs is used for now beside a file.
///
/// # Errors
/// A log file cannot be opened.
pub fn start(config: &Config) -> io::Result<()> {
    let level = match config.log_level {
        LogLevel::Debug => "debug",
        LogLevel::Info => "info",
        LogLevel::Warn => "warn",
        LogLevel::Error | LogLevel::Panic | LogLevel::Fatal => "error",
    };
    let filter = EnvFilter::new(format!("{level},h2=info,hyper=info,tower=info"));
    let writer = match &config.log_outputs[0] {
        LogOutput::Stdout => BoxMakeWriter::new(io::stdout),
        LogOutput::Stderr | LogOutput::Journal => BoxMakeWriter::new(io::stderr),
        LogOutput::File(path) => {
            let file = OpenOptions::new().create(true).append(true).open(path)?;
            BoxMakeWriter::new(std::sync::Mutex::new(file))
        }
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    match config.log_format {
        LogFormat::Json => builder.json().flatten_event(true).init(),
        LogFormat::Console => builder.with_ansi(false).init(),
    }
    Ok(())
}
