//! Figures of the process and its machine, as Prometheus' library for Go names them and takes them
//! from Linux.

use std::fs;

use metrics::{counter, describe_counter, describe_gauge, gauge};
use rustix::process::{Resource, getrlimit};

/// Time on the processor, in seconds.
pub(super) const CPU_SECONDS: &str = "process_cpu_seconds_total";
pub(super) const RESIDENT_BYTES: &str = "process_resident_memory_bytes";
const VIRTUAL_BYTES: &str = "process_virtual_memory_bytes";
const VIRTUAL_BYTES_MAX: &str = "process_virtual_memory_max_bytes";
const OPEN_FDS: &str = "process_open_fds";
const FDS_MAX: &str = "process_max_fds";
const START_SECONDS: &str = "process_start_time_seconds";
const RECEIVED_BYTES: &str = "process_network_receive_bytes_total";
const SENT_BYTES: &str = "process_network_transmit_bytes_total";
/// etcd has names of its own for two of them.
const ETCD_FDS_USED: &str = "os_fd_used";
const ETCD_FDS_MAX: &str = "os_fd_limit";

/// Linux counts time in hundredths of a second for user programs.
const TICKS_PER_SECOND: f64 = 100.0;
/// Where these stand in /proc/self/stat behind the name of the program.
const USER_TICKS: usize = 11;
const SYSTEM_TICKS: usize = 12;
const START_TICKS: usize = 19;

pub(super) fn describe() {
    // A gauge to the recorder, which has no counters with a fraction; shown as the counter it is.
    describe_gauge!(CPU_SECONDS, "time on the processor");
    describe_gauge!(RESIDENT_BYTES, "bytes in memory");
    describe_gauge!(VIRTUAL_BYTES, "bytes of address space");
    describe_gauge!(VIRTUAL_BYTES_MAX, "bytes of address space that are allowed");
    describe_gauge!(OPEN_FDS, "open file descriptors");
    describe_gauge!(FDS_MAX, "file descriptors that are allowed");
    describe_gauge!(START_SECONDS, "when the process began, in seconds since 1970");
    describe_counter!(RECEIVED_BYTES, "bytes received by the network namespace");
    describe_counter!(SENT_BYTES, "bytes sent by the network namespace");
    describe_gauge!(ETCD_FDS_USED, "open file descriptors");
    describe_gauge!(ETCD_FDS_MAX, "file descriptors that are allowed");
}

/// Looks at the process. What the system does not tell stays as it was.
pub(super) fn look() {
    let set = |name: &'static str, value: f64| gauge!(name).set(value);
    if let Some([user, system, started]) = ticks() {
        set(CPU_SECONDS, (user + system) / TICKS_PER_SECOND);
        if let Some(boot) = boot_seconds() {
            set(START_SECONDS, boot + started / TICKS_PER_SECOND);
        }
    }
    if let Ok(status) = fs::read_to_string("/proc/self/status") {
        let kilobytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<f64>().ok()
        };
        for (name, gauge) in [("VmSize:", VIRTUAL_BYTES), ("VmRSS:", RESIDENT_BYTES)] {
            if let Some(kilobytes) = kilobytes(name) {
                set(gauge, kilobytes * 1024.0);
            }
        }
    }
    if let Ok(entries) = fs::read_dir("/proc/self/fd") {
        let count = entries.count() as f64;
        set(OPEN_FDS, count);
        set(ETCD_FDS_USED, count);
    }
    // No limit is the largest number, as Prometheus' library has it.
    let limit = |resource| getrlimit(resource).current.unwrap_or(u64::MAX) as f64;
    set(FDS_MAX, limit(Resource::Nofile));
    set(ETCD_FDS_MAX, limit(Resource::Nofile));
    set(VIRTUAL_BYTES_MAX, limit(Resource::As));
    if let Some([received, sent]) = network_bytes() {
        counter!(RECEIVED_BYTES).absolute(received);
        counter!(SENT_BYTES).absolute(sent);
    }
}

fn ticks() -> Option<[f64; 3]> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program, in brackets, may hold anything; the third field follows it.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |at: usize| fields.get(at)?.parse().ok();
    Some([field(USER_TICKS)?, field(SYSTEM_TICKS)?, field(START_TICKS)?])
}

fn boot_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

/// The row `IpExt` of a table that has its names in the line before.
fn network_bytes() -> Option<[u64; 2]> {
    let table = fs::read_to_string("/proc/self/net/netstat").ok()?;
    let mut rows = table.lines().filter_map(|line| line.strip_prefix("IpExt: "));
    let (names, values) = (rows.next()?, rows.next()?);
    let value = |wanted: &str| {
        let at = names.split_whitespace().position(|name| name == wanted)?;
        values.split_whitespace().nth(at)?.parse().ok()
    };
    Some([value("InOctets")?, value("OutOctets")?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linux_tells_what_is_asked() {
        let [user, system, started] = ticks().expect("Linux counts time");
        assert!(user + system >= 0.0 && started > 0.0);
        assert!(boot_seconds().is_some_and(|at| at > 1e9), "a moment of this century");
        assert!(network_bytes().is_some());
    }
}
