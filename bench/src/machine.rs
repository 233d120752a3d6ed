//! The machine a run shares: how long its disk takes to flush, and what it is.

use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use serde::Serialize;

use crate::histogram;

/// Flushes measured at a time.
const FLUSHES_COUNT: usize = 50;
/// Bytes appended before each flush.
const FLUSH_BYTES: usize = 4096;

/// Latency of a data flush after appending 4 KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Flush {
    /// Median.
    pub p50_ms: f64,
    /// 99th percentile.
    pub p99_ms: f64,
}

/// Measures flushes in `dir`.
///
/// # Errors
/// The directory cannot be written.
pub fn flush(dir: &Path) -> anyhow::Result<Flush> {
    // Another run may be measuring there, too.
    let mut file = tempfile::Builder::new().prefix("flush-probe-").tempfile_in(dir)?;
    let mut latency = histogram::new();
    for _ in 0..FLUSHES_COUNT {
        file.write_all(&[0; FLUSH_BYTES])?;
        let began = Instant::now();
        file.as_file().sync_data()?;
        histogram::record(&mut latency, began.elapsed());
    }
    file.close()?;
    let table = histogram::percentiles(&latency);
    Ok(Flush { p50_ms: table.p50_ms, p99_ms: table.p99_ms })
}

/// What the machine is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Machine {
    /// Processors this process may use.
    pub processors: usize,
    /// The processor's own name.
    pub model: String,
    /// The kernel's release.
    pub kernel: String,
    /// Bytes of memory.
    pub memory_bytes: u64,
}

/// Looks at the machine; what it does not tell stays empty.
#[must_use]
pub fn describe() -> Machine {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
    };
    let memory = field(&read("/proc/meminfo"), "MemTotal").unwrap_or_default();
    let kib: u64 = memory.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0);
    Machine {
        processors: std::thread::available_parallelism().map_or(0, usize::from),
        model: field(&read("/proc/cpuinfo"), "model name").unwrap_or_default(),
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        memory_bytes: kib * 1024,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_runs_measure_in_one_directory() {
        let dir = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            let runs: Vec<_> = (0..2).map(|_| scope.spawn(|| flush(dir.path()))).collect();
            for run in runs {
                assert!(run.join().unwrap().unwrap().p50_ms > 0.0);
            }
        });
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
