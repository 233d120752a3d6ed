//! Structured logs, set up once from the configuration, with a level that can be changed while the
//! node runs. Lines are those of etcd's logger, so that what reads its logs reads these.

mod line;
mod outputs;

use std::io;
use std::sync::OnceLock;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry};

use crate::config::{Config, LogLevel};
use line::Line;
use outputs::Outputs;

/// The process has one log.
static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Starts logging to all outputs.
///
/// # Errors
/// A log file cannot be opened.
pub fn start(config: &Config) -> io::Result<()> {
    let outputs = Outputs::open(&config.log_outputs)?;
    let (filter, handle) = reload::Layer::new(filter(config.log_level));
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .event_format(Line { format: config.log_format })
        .with_writer(outputs);
    tracing_subscriber::registry().with(filter).with(lines).init();
    // A second start would have failed in the line before.
    let _ = FILTER.set(handle);
    Ok(())
}

/// Logs at another level from now on. False if nothing is logged.
pub fn set_level(level: LogLevel) -> bool {
    FILTER.get().is_some_and(|handle| handle.reload(filter(level)).is_ok())
}

/// Libraries say more at `debug` than anyone wants to read.
fn filter(level: LogLevel) -> EnvFilter {
    let level = match level {
        LogLevel::Debug => "debug",
        LogLevel::Info => "info",
        LogLevel::Warn => "warn",
        LogLevel::Error | LogLevel::Panic | LogLevel::Fatal => "error",
    };
    EnvFilter::new(match level {
        "debug" => "debug,h2=info,hyper=info,tower=info,hickory_resolver=info,hickory_net=info",
        level => level,
    })
}
