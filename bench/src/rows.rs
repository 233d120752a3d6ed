//! The rows of the performance goals as experiments.

use crate::keys::ValueLength;
use crate::workload::Parameters;

/// A row.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its name in the goals.
    pub id: &'static str,
    /// What it does.
    pub label: &'static str,
    /// Nodes of the cluster.
    pub nodes: usize,
    /// The experiment.
    pub experiment: Experiment,
}

/// What is done in a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Experiment {
    /// A workload in a closed loop.
    Throughput {
        /// The workload's name.
        workload: &'static str,
        /// Requests under way.
        outstanding: usize,
    },
    /// Full lists, unary and streamed.
    ListAll,
    /// Grants, then keep-alives.
    Leases,
    /// Leases expire in masses while puts are measured.
    LeaseExpiry,
    /// One event to many watchers.
    Fanout,
    /// Idle watches, then a stalled one.
    Watches,
    /// Memory with many keys.
    Resident,
    /// Compaction while puts are measured.
    Compaction,
    /// Few, then many requests under way.
    Streams,
    /// Full lists in a loop while puts are measured.
    Noisy,
    /// The leader is killed while puts are tried.
    LeaderKill,
    /// All nodes stop and start.
    Restart,
    /// A client of etcd's API cannot do it; this is why.
    Refused(&'static str),
}

impl Experiment {
    /// Memory once freed is often kept by the process and used again, so that growth shows in a
    /// new process only.
    #[must_use]
    pub fn needs_fresh_store(self) -> bool {
        matches!(self, Self::Watches)
    }
}

/// Requests under way of a full load.
const FULL: usize = 1000;

/// All rows.
pub const ROWS: [Row; 22] = [
    row("P1", "put, 1 node, 1000 outstanding", 1, throughput("put", FULL)),
    row("P2", "put, 3 nodes, 1000 outstanding", 3, throughput("put", FULL)),
    row("P3", "put, 3 nodes, 1 outstanding", 3, throughput("put", 1)),
    row("P4", "compare-and-swap, 3 nodes", 3, throughput("cas", FULL)),
    row("P5", "linearizable get", 3, throughput("get", FULL)),
    row("P6", "serializable get", 3, throughput("get-serializable", FULL)),
    row("P7", "list 500 of 20 k × 1 KiB", 1, throughput("list", 16)),
    row("P8", "list all 20 k × 1 KiB, unary and stream", 1, Experiment::ListAll),
    row("P9", "count of a prefix of 1 M keys", 1, throughput("count", 1)),
    row("P10", "lease grant and keep-alive", 1, Experiment::Leases),
    row("P11", "100 k leases expire within 10 s", 1, Experiment::LeaseExpiry),
    row("P12", "1 event to 1000 watchers", 1, Experiment::Fanout),
    row("P13", "100 k idle watches; one stalled watcher", 1, Experiment::Watches),
    row("P14", "memory with 1 M × 1 KiB keys", 1, Experiment::Resident),
    row("P15", "compaction of 1 M revisions at half load", 1, Experiment::Compaction),
    row("P16", "200 → 4000 client streams", 1, Experiment::Streams),
    row("P17", "1 → 64 ranges", 1, Experiment::Refused("etcd's API cannot split ranges")),
    row("P18", "10 k idle groups", 3, Experiment::Refused("etcd's API cannot make groups")),
    row("P19", "noisy neighbour", 1, Experiment::Noisy),
    row("P20", "leader killed", 3, Experiment::LeaderKill),
    row("P21", "restart with 1 M keys", 1, Experiment::Restart),
    row(
        "P22",
        "split, merge, move under load",
        3,
        Experiment::Refused("etcd's API cannot split, merge or move ranges"),
    ),
];

const fn row(id: &'static str, label: &'static str, nodes: usize, experiment: Experiment) -> Row {
    Row { id, label, nodes, experiment }
}

const fn throughput(workload: &'static str, outstanding: usize) -> Experiment {
    Experiment::Throughput { workload, outstanding }
}

/// The sizes the goals name, times a factor for trying things out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale(pub f64);

impl Scale {
    /// A number of things, at least one.
    #[must_use]
    pub fn of(self, count: u64) -> u64 {
        ((count as f64 * self.0) as u64).max(1)
    }
}

/// Keys and values of a row's workload.
#[must_use]
pub fn parameters(id: &str, slots: usize, scale: Scale) -> Parameters {
    let base = Parameters { slots, ..Parameters::default() };
    let kib = ValueLength::Fixed(1024);
    match id {
        "P7" | "P8" | "P19" => Parameters { keys_count: scale.of(20_000), value: kib, ..base },
        "P9" => {
            Parameters { keys_count: scale.of(1_000_000), value: ValueLength::Fixed(16), ..base }
        }
        "P14" | "P21" => Parameters {
            keys_count: scale.of(1_000_000),
            value: kib,
            prefix: "/million/".into(),
            ..base
        },
        _ => base,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload;

    #[test]
    fn rows_are_in_order_and_their_workloads_exist() {
        for (n, row) in ROWS.iter().enumerate() {
            assert_eq!(row.id, format!("P{}", n + 1));
            if let Experiment::Throughput { workload, outstanding } = row.experiment {
                let parameters = parameters(row.id, outstanding, Scale(1.0));
                workload::plan(workload, &parameters).unwrap();
            }
        }
    }
}
