//! What processes cost: CPU time and memory, read from /proc.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::Serialize;

/// Clock ticks a second in /proc, fixed by the kernel's interface on Linux.
const TICKS_PER_SEC: f64 = 100.0;

/// CPU seconds a process has used, user and system.
///
/// # Errors
/// The process is gone.
pub fn cpu_secs(pid: u32) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in parentheses may hold spaces; user and system time are fields 14 and 15.
    let (_, rest) = stat.rsplit_once(')').context("/proc/pid/stat has a name")?;
    let field = |n: usize| -> anyhow::Result<f64> {
        Ok(rest.split_whitespace().nth(n).context("/proc/pid/stat is short")?.parse()?)
    };
    Ok((field(11)? + field(12)?) / TICKS_PER_SEC)
}

/// Resident bytes of a process: all of them, and those backed by no file.
///
/// # Errors
/// The process is gone.
pub fn memory_bytes(pid: u32) -> anyhow::Result<Memory> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| -> anyhow::Result<u64> {
        let line = status.lines().find(|line| line.starts_with(name));
        let kib: u64 = line
            .and_then(|line| line.split_whitespace().nth(1))
            .with_context(|| format!("/proc/pid/status has no {name}"))?
            .parse()?;
        Ok(kib * 1024)
    };
    Ok(Memory { resident_bytes: field("VmRSS:")?, anonymous_bytes: field("RssAnon:")? })
}

/// Memory of one or more processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Resident bytes, mapped files included.
    pub resident_bytes: u64,
    /// Resident bytes backed by no file.
    pub anonymous_bytes: u64,
}

/// What an interval cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Usage {
    /// CPU seconds of all servers, if they run here.
    pub servers_cpu_secs: Option<f64>,
    /// CPU seconds of this process.
    pub generator_cpu_secs: f64,
    /// CPU seconds of the whole machine.
    pub machine_cpu_secs: f64,
    /// Seconds the hypervisor took away.
    pub stolen_secs: f64,
    /// Memory of all servers when the interval began.
    pub memory_before: Option<Memory>,
    /// Most resident bytes of all servers seen during the interval.
    pub resident_bytes_max: Option<u64>,
    /// Length of the interval.
    pub elapsed_secs: f64,
    /// Processors of the machine.
    pub processors: usize,
}

impl Usage {
    /// CPU of processes other than the servers and this one, as a share of the machine. Unknown
    /// if the servers run elsewhere.
    #[must_use]
    pub fn others_share(&self) -> Option<f64> {
        let ours = self.servers_cpu_secs? + self.generator_cpu_secs;
        let capacity = self.elapsed_secs * self.processors as f64;
        Some(((self.machine_cpu_secs - ours) / capacity).max(0.0))
    }
}

/// Measures the cost of an interval.
pub struct Meter {
    pids: Vec<u32>,
    began: Instant,
    servers_before: Option<f64>,
    generator_before: f64,
    machine_before: (f64, f64),
    memory_before: Option<Memory>,
    resident_bytes_max: u64,
}

/// How often a meter should look at memory.
pub const MEMORY_INTERVAL: Duration = Duration::from_millis(50);

impl Meter {
    /// Begins an interval. No pids: the servers run elsewhere.
    ///
    /// # Errors
    /// A server is gone.
    pub fn start(pids: &[u32]) -> anyhow::Result<Self> {
        let memory_before = total_memory(pids)?;
        Ok(Self {
            pids: pids.to_vec(),
            began: Instant::now(),
            servers_before: total_cpu(pids)?,
            generator_before: cpu_secs(std::process::id())?,
            machine_before: machine_cpu()?,
            memory_before,
            resident_bytes_max: memory_before.map_or(0, |memory| memory.resident_bytes),
        })
    }

    /// Looks at memory.
    pub fn sample(&mut self) {
        // A server that dies meanwhile shows when the interval ends.
        if let Ok(Some(memory)) = total_memory(&self.pids) {
            self.resident_bytes_max = self.resident_bytes_max.max(memory.resident_bytes);
        }
    }

    /// Ends the interval.
    ///
    /// # Errors
    /// A server is gone.
    pub fn finish(mut self) -> anyhow::Result<Usage> {
        self.sample();
        let machine = machine_cpu()?;
        let servers = total_cpu(&self.pids)?;
        Ok(Usage {
            servers_cpu_secs: servers
                .zip(self.servers_before)
                .map(|(after, before)| after - before),
            generator_cpu_secs: cpu_secs(std::process::id())? - self.generator_before,
            machine_cpu_secs: machine.0 - self.machine_before.0,
            stolen_secs: machine.1 - self.machine_before.1,
            memory_before: self.memory_before,
            resident_bytes_max: self.memory_before.map(|_| self.resident_bytes_max),
            elapsed_secs: self.began.elapsed().as_secs_f64(),
            processors: std::thread::available_parallelism()?.get(),
        })
    }
}

fn total_cpu(pids: &[u32]) -> anyhow::Result<Option<f64>> {
    if pids.is_empty() {
        return Ok(None);
    }
    Ok(Some(pids.iter().map(|pid| cpu_secs(*pid)).sum::<anyhow::Result<f64>>()?))
}

/// Memory of all of `pids`, or nothing if there are none.
///
/// # Errors
/// A process is gone.
pub fn total_memory(pids: &[u32]) -> anyhow::Result<Option<Memory>> {
    let mut total = Memory::default();
    for pid in pids {
        let memory = memory_bytes(*pid)?;
        total.resident_bytes += memory.resident_bytes;
        total.anonymous_bytes += memory.anonymous_bytes;
    }
    Ok((!pids.is_empty()).then_some(total))
}

/// Busy and stolen CPU seconds of the machine since it started.
fn machine_cpu() -> anyhow::Result<(f64, f64)> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().context("/proc/stat is empty")?;
    let ticks: Vec<f64> =
        line.split_whitespace().skip(1).map(str::parse).collect::<Result<_, _>>()?;
    let tick = |n: usize| ticks.get(n).copied().unwrap_or(0.0) / TICKS_PER_SEC;
    // user, nice, system, idle, iowait, irq, softirq, steal
    Ok((tick(0) + tick(1) + tick(2) + tick(5) + tick(6), tick(7)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_costs_what_it_burns() {
        let meter = Meter::start(&[std::process::id()]).unwrap();
        // By the clock of this process: a busy machine may give it little of a second.
        let before = cpu_secs(std::process::id()).unwrap();
        while cpu_secs(std::process::id()).unwrap() < before + 0.1 {
            std::hint::spin_loop();
        }
        let usage = meter.finish().unwrap();
        assert!(usage.generator_cpu_secs > 0.09, "{usage:?}");
        assert!(usage.servers_cpu_secs.unwrap() > 0.09, "{usage:?}");
        assert!(usage.resident_bytes_max.unwrap() > 1 << 20);
        assert!(Meter::start(&[u32::MAX]).is_err());
    }

    #[test]
    fn others_are_what_is_left() {
        let usage = Usage {
            servers_cpu_secs: Some(1.0),
            generator_cpu_secs: 0.5,
            machine_cpu_secs: 1.7,
            elapsed_secs: 1.0,
            processors: 2,
            ..Usage::default()
        };
        assert!((usage.others_share().unwrap() - 0.1).abs() < 1e-9);
        assert_eq!(Usage { servers_cpu_secs: None, ..usage }.others_share(), None);
    }
}
