//! One line of the log: the keys, levels and moments of etcd's logger, as JSON, or with tabs between
//! them for a person.

use std::fmt::{self, Write as _};
use std::time::SystemTime;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::registry::LookupSpan;

use crate::config::LogFormat;

/// Writes lines.
pub(super) struct Line {
    pub(super) format: LogFormat,
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        let caller = format!(
            "{}:{}",
            place(metadata.file().unwrap_or_default()),
            metadata.line().unwrap_or_default()
        );
        let Fields { message, others } = fields;
        write_line(
            &mut writer,
            self.format,
            &Head { level: level(*metadata.level()), at: SystemTime::now(), caller },
            message,
            others,
        )
    }
}

/// What every line begins with.
struct Head {
    level: &'static str,
    at: SystemTime,
    caller: String,
}

fn write_line(
    writer: &mut dyn fmt::Write,
    format: LogFormat,
    head: &Head,
    message: String,
    others: Map<String, Value>,
) -> fmt::Result {
    let Head { level, at, caller } = head;
    let at = moment(*at);
    match format {
        LogFormat::Json => {
            // In the order of etcd's logger; the keys of the event come last and cannot hide these.
            let (caller, message) = (Value::from(caller.as_str()), Value::from(message));
            write!(
                writer,
                "{{\"level\":\"{level}\",\"ts\":\"{at}\",\"caller\":{caller},\"msg\":{message}"
            )?;
            for (name, value) in others {
                write!(writer, ",{}:{value}", Value::from(name))?;
            }
            writeln!(writer, "}}")
        }
        LogFormat::Console => {
            write!(writer, "{at}\t{level}\t{caller}\t{message}")?;
            if !others.is_empty() {
                write!(writer, "\t{}", Value::from(others))?;
            }
            writeln!(writer)
        }
    }
}

fn level(level: Level) -> &'static str {
    match level {
        Level::TRACE | Level::DEBUG => "debug",
        Level::INFO => "info",
        Level::WARN => "warn",
        Level::ERROR => "error",
    }
}

/// The last folder and the file, which is enough to find it.
fn place(file: &str) -> &str {
    match file.rmatch_indices('/').nth(1) {
        Some((at, _)) => &file[at + 1..],
        None => file,
    }
}

/// In UTC, to the microsecond.
fn moment(at: SystemTime) -> String {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    crate::calendar::moment(since.as_secs(), Some(since.subsec_micros()))
}

/// The fields of an event.
#[derive(Default)]
struct Fields {
    message: String,
    others: Map<String, Value>,
}

/// Keys of every line; a field of such a name would make two of them.
const TAKEN: [&str; 4] = ["level", "ts", "caller", "msg"];

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        let name = field.name();
        if name == "message" {
            self.message = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        } else if TAKEN.contains(&name) {
            self.others.insert(format!("{name}_"), value);
        } else {
            self.others.insert(name.to_owned(), value);
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = String::new();
        // Writing to a text cannot fail.
        let _ = write!(text, "{value:?}");
        self.put(field, Value::from(text));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, Value::from(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, Value::from(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, Value::from(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, Value::from(value));
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.put(
            field,
            i64::try_from(value).map_or_else(|_| value.to_string().into(), Value::from),
        );
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.put(
            field,
            u64::try_from(value).map_or_else(|_| value.to_string().into(), Value::from),
        );
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, Value::from(value));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn line(format: LogFormat) -> String {
        let at = SystemTime::UNIX_EPOCH + Duration::from_micros(1_700_000_000_012_345);
        let head =
            Head { level: "info", at, caller: place("node/src/api/kv.rs").to_owned() + ":7" };
        let mut others = Map::new();
        others.insert("took_ms".to_owned(), Value::from(5));
        others.insert("why".to_owned(), Value::from("a \"b\"\n"));
        let mut text = String::new();
        write_line(&mut text, format, &head, "said".to_owned(), others).expect("room");
        text
    }

    #[test]
    fn lines_are_those_of_etcds_logger() {
        assert_eq!(
            line(LogFormat::Json),
            "{\"level\":\"info\",\"ts\":\"2023-11-14T22:13:20.012345Z\",\"caller\":\"api/kv.rs:7\",\
             \"msg\":\"said\",\"took_ms\":5,\"why\":\"a \\\"b\\\"\\n\"}\n"
        );
        assert_eq!(
            line(LogFormat::Console),
            "2023-11-14T22:13:20.012345Z\tinfo\tapi/kv.rs:7\tsaid\t\
             {\"took_ms\":5,\"why\":\"a \\\"b\\\"\\n\"}\n"
        );
    }

    #[test]
    fn a_file_is_named_with_its_folder() {
        for (file, short) in [("a/b/c.rs", "b/c.rs"), ("b/c.rs", "b/c.rs"), ("c.rs", "c.rs")] {
            assert_eq!(place(file), short);
        }
    }
}
