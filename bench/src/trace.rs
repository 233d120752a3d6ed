//! Traces: the operations of a run, one JSON object a line, to be replayed against any store.

use std::fs::File;
use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::operation::{Kind, Op, Span};
use crate::random::Random;
use crate::workload::{Plan, Source};

/// Most lines of a trace.
const LINES_MAX: usize = 10_000_000;

/// One operation of a trace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// When it was sent, microseconds after the first.
    pub at_us: u64,
    /// What it was: put, get, list, count, txn_put or delete.
    pub op: Kind,
    /// The key, or the first of a span.
    pub key: String,
    /// The end of a span.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub end: String,
    /// The limit of a list.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub limit: i64,
    /// Length of the value written.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub value_bytes: usize,
    /// A read from the member's own state.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub serializable: bool,
}

fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Line {
    /// The line of an operation; nothing for operations that make no sense in another run, such
    /// as those on leases.
    fn from_op(op: &Op, at_us: u64) -> Option<Self> {
        let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).ok();
        let empty = Self {
            at_us,
            op: op.kind(),
            key: String::new(),
            end: String::new(),
            limit: 0,
            value_bytes: 0,
            serializable: false,
        };
        match op {
            Op::Put { key, value_bytes, .. }
            | Op::Cas { key, value_bytes, .. }
            | Op::Update { key, value_bytes } => {
                // A swap's revision means nothing elsewhere; a read with a write back does.
                let op = if matches!(op, Op::Put { .. }) { Kind::Put } else { Kind::Update };
                Some(Self { op, key: text(key)?, value_bytes: *value_bytes, ..empty })
            }
            Op::Get { key, is_serializable } => {
                Some(Self { key: text(key)?, serializable: *is_serializable, ..empty })
            }
            Op::List(span) | Op::ListStream(span) | Op::Count(span) => Some(Self {
                key: text(&span.key)?,
                end: text(&span.end)?,
                limit: span.limit,
                serializable: span.is_serializable,
                ..empty
            }),
            Op::Delete { key } => Some(Self { key: text(key)?, ..empty }),
            _ => None,
        }
    }

    fn into_op(self) -> anyhow::Result<Op> {
        let key = Bytes::from(self.key);
        let span = Span {
            key: key.clone(),
            end: Bytes::from(self.end),
            limit: self.limit,
            is_serializable: self.serializable,
            expected_count: None,
        };
        let value_bytes = self.value_bytes;
        Ok(match self.op {
            Kind::Put => Op::Put { key, value_bytes, lease: 0 },
            Kind::Get => Op::Get { key, is_serializable: self.serializable },
            Kind::List => Op::List(span),
            Kind::ListStream => Op::ListStream(span),
            Kind::Count => Op::Count(span),
            Kind::Update => Op::Update { key, value_bytes },
            Kind::Delete => Op::Delete { key },
            other => bail!("a trace cannot hold {}", other.name()),
        })
    }
}

/// Writes the operations of a run to a file.
pub struct TraceWriter {
    began: Instant,
    file: Mutex<BufWriter<File>>,
}

impl TraceWriter {
    /// Begins a trace.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        let file = File::create(path).with_context(|| path.display().to_string())?;
        Ok(Self { began: Instant::now(), file: Mutex::new(BufWriter::new(file)) })
    }

    /// Adds an operation that is sent now.
    pub fn write(&self, op: &Op) {
        let at_us = self.began.elapsed().as_micros() as u64;
        let line = Line::from_op(op, at_us).and_then(|line| serde_json::to_string(&line).ok());
        if let Some(line) = line {
            let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
            // A full disk shows when the trace is finished.
            let _ = writeln!(file, "{line}");
        }
    }

    /// Ends the trace.
    ///
    /// # Errors
    /// The disk is full.
    pub fn finish(&self) -> anyhow::Result<()> {
        Ok(self.file.lock().unwrap_or_else(PoisonError::into_inner).flush()?)
    }
}

/// A trace read into memory.
#[derive(Clone, Debug)]
pub struct Trace {
    ops: Arc<Vec<(Duration, Op)>>,
}

impl Trace {
    /// Reads a trace.
    ///
    /// # Errors
    /// A line is not understood, with its number.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let file = File::open(path).with_context(|| path.display().to_string())?;
        let mut ops = Vec::new();
        for (n, line) in BufReader::new(file).lines().enumerate() {
            ensure!(n < LINES_MAX, "a trace has at most {LINES_MAX} lines");
            let line = line?;
            if line.trim().is_empty() {
                continue;
            }
            let parsed: Line = serde_json::from_str(&line)
                .with_context(|| format!("{}:{}", path.display(), n + 1))?;
            let at = Duration::from_micros(parsed.at_us);
            ops.push((at, parsed.into_op()?));
        }
        ensure!(!ops.is_empty(), "{} holds no operation", path.display());
        ops.sort_by_key(|(at, _)| *at);
        Ok(Self { ops: Arc::new(ops) })
    }

    /// Operations in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// A trace has at least one operation.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The due times of its operations, from the first, at `speed` times the recorded pace.
    pub fn due(&self, speed: f64) -> impl Iterator<Item = Duration> + '_ {
        let first = self.ops[0].0;
        self.ops.iter().map(move |(at, _)| (*at - first).div_f64(speed))
    }

    /// A workload whose slots take its operations in order, and begin again at the end.
    #[must_use]
    pub fn plan(&self) -> Plan {
        let ops = self.ops.clone();
        let next = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        Plan {
            name: "replay".into(),
            fill: Vec::new(),
            watchers: Vec::new(),
            source: Box::new(move |_| Box::new(Replay { ops: ops.clone(), next: next.clone() })),
        }
    }
}

struct Replay {
    ops: Arc<Vec<(Duration, Op)>>,
    next: Arc<std::sync::atomic::AtomicUsize>,
}

impl Source for Replay {
    fn next(&mut self, _random: &mut Random) -> Op {
        let n = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.ops[n % self.ops.len()].1.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("trace");
        let writer = TraceWriter::create(&path).unwrap();
        let put = Op::Put { key: "a".into(), value_bytes: 99, lease: 0 };
        let list = Op::List(Span { limit: 5, ..Span::prefix("a/") });
        for op in [&put, &Op::Grant { ttl_secs: 5 }, &list] {
            writer.write(op);
        }
        writer.finish().unwrap();
        let trace = Trace::read(&path).unwrap();
        let ops: Vec<Op> = trace.ops.iter().map(|(_, op)| op.clone()).collect();
        assert_eq!(ops, [put, list], "a grant cannot be replayed and is left out");
        assert_eq!(trace.due(2.0).next(), Some(Duration::ZERO));
    }

    #[test]
    fn a_bad_line_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("trace");
        std::fs::write(&path, "{\"at_us\":0,\"op\":\"put\",\"key\":\"a\"}\nnonsense\n").unwrap();
        assert!(format!("{:#}", Trace::read(&path).unwrap_err()).contains(":2"));
    }
}
