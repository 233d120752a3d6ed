//! Workloads: for each slot a source of operations. No workload does IO, so all can be tested.

mod cas;
mod discovery;
mod kubernetes;
mod large;
mod lease;
mod lock;
mod put;
mod read;
mod ycsb;

use anyhow::bail;

use crate::keys::{Choice, Keyspace, ValueLength};
use crate::operation::{Answer, Op};
use crate::random::Random;
use crate::wire::Status;

/// Where a slot's operations come from.
pub trait Source: Send {
    /// The next operation.
    fn next(&mut self, random: &mut Random) -> Op;

    /// How it went; most sources do not mind.
    fn on_answer(&mut self, _op: &Op, _answer: &Result<Answer, Status>) {}
}

/// Keys written before the load begins.
#[derive(Clone, Debug)]
pub struct Fill {
    /// The keys.
    pub keyspace: Keyspace,
    /// Their values.
    pub value: ValueLength,
}

/// Watches held open during the load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watchers {
    /// The keys they watch.
    pub prefix: String,
    /// How many.
    pub count: usize,
}

/// Makes the source of one slot.
pub type MakeSource = Box<dyn Fn(usize) -> Box<dyn Source> + Send + Sync>;

/// A workload ready to run.
pub struct Plan {
    /// Its name.
    pub name: String,
    /// Keys it wants to find.
    pub fill: Vec<Fill>,
    /// Watches it holds.
    pub watchers: Vec<Watchers>,
    /// Makes the sources.
    pub source: MakeSource,
}

impl Plan {
    fn new<S: Source + 'static>(
        name: &str,
        fill: Vec<Fill>,
        source: impl Fn(usize) -> S + Send + Sync + 'static,
    ) -> Self {
        let source: MakeSource = Box::new(move |slot| Box::new(source(slot)));
        Self { name: name.into(), fill, watchers: Vec::new(), source }
    }
}

/// What the command line may change about a workload.
#[derive(Clone, Debug)]
pub struct Parameters {
    /// What all keys begin with.
    pub prefix: String,
    /// How many keys.
    pub keys_count: u64,
    /// Length of keys; zero is as short as possible.
    pub key_bytes: usize,
    /// How keys are chosen, as on the command line.
    pub choice: String,
    /// How long values are.
    pub value: ValueLength,
    /// Keys a list returns at most; zero is all.
    pub limit: i64,
    /// Slots that will run, for workloads that divide things among them.
    pub slots: usize,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            prefix: "/bench/".into(),
            keys_count: 10_000,
            key_bytes: 0,
            choice: "uniform".into(),
            value: ValueLength::Fixed(256),
            limit: 500,
            slots: 1,
        }
    }
}

impl Parameters {
    /// The keyspace they describe.
    ///
    /// # Errors
    /// The distribution is not known.
    pub fn keyspace(&self) -> anyhow::Result<Keyspace> {
        Ok(Keyspace {
            prefix: self.prefix.clone(),
            count: self.keys_count,
            key_bytes: self.key_bytes,
            choice: Choice::parse(&self.choice, self.keys_count)?,
        })
    }
}

/// Names of all workloads, with what they do.
pub const NAMES: [(&str, &str); 25] = [
    ("put", "writes of single keys"),
    ("get", "linearizable reads of single keys"),
    ("get-serializable", "serializable reads of single keys"),
    ("cas", "compare-and-swap of keys nobody else writes"),
    ("cas-contended", "compare-and-swap of keys all write"),
    ("list", "lists of the prefix with a limit"),
    ("list-all", "lists of the whole prefix in one answer"),
    ("list-stream", "lists of the whole prefix with RangeStream (etcd 3.7)"),
    ("count", "counts of the prefix"),
    ("mixed", "nine reads to one write"),
    ("lease-grant", "grants of leases of an hour"),
    ("lease-keepalive", "keep-alives, one lease and stream a slot"),
    ("lock", "a lock taken and given back, eight names"),
    ("election", "a lead won and resigned, eight names"),
    ("discovery", "services register, stay alive, expire or leave; clients look them up"),
    ("kubernetes", "a control plane: node leases, pod churn, lists, watches, compaction"),
    ("large", "writes and reads of values of 100 KiB to 1 MiB"),
    ("txn-put", "transactions of eight writes"),
    ("delete", "keys written and deleted"),
    ("ycsb-a", "half reads, half writes, zipfian"),
    ("ycsb-b", "95 % reads, 5 % writes, zipfian"),
    ("ycsb-c", "reads, zipfian"),
    ("ycsb-d", "95 % reads of the latest, 5 % inserts"),
    ("ycsb-e", "95 % short scans, 5 % inserts, zipfian"),
    ("ycsb-f", "half reads, half read-modify-writes, zipfian"),
];

/// The workload of this name.
///
/// # Errors
/// The name or a distribution is not known.
pub fn plan(name: &str, parameters: &Parameters) -> anyhow::Result<Plan> {
    Ok(match name {
        "put" => put::put(parameters)?,
        "txn-put" => put::txn_put(parameters)?,
        "delete" => put::delete(parameters)?,
        "get" => read::get(parameters, false)?,
        "get-serializable" => read::get(parameters, true)?,
        "mixed" => read::mixed(parameters)?,
        "list" => read::list(parameters)?,
        "list-all" => read::list_all(parameters)?,
        "list-stream" => read::list_stream(parameters)?,
        "count" => read::count(parameters)?,
        "cas" => cas::plan(parameters, false)?,
        "cas-contended" => cas::plan(parameters, true)?,
        "lease-grant" => lease::grant(),
        "lease-keepalive" => lease::keep_alive(),
        "lock" => lock::lock(parameters),
        "election" => lock::election(parameters),
        "discovery" => discovery::plan(parameters),
        "kubernetes" => kubernetes::plan(parameters),
        "large" => large::plan(parameters),
        _ => match name.strip_prefix("ycsb-") {
            Some(letter) => ycsb::plan(letter, parameters)?,
            None => bail!("unknown workload {name:?}; `flotilla-bench workloads` lists them"),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_makes_the_same_operations_twice() {
        for (name, _) in NAMES {
            let parameters = Parameters { slots: 4, ..Parameters::default() };
            let ops = || -> Vec<Op> {
                let plan = plan(name, &parameters).unwrap();
                let mut source = (plan.source)(1);
                let mut random = Random::new(1, 1);
                let answer = Ok(Answer {
                    lease: 7,
                    revision: 9,
                    mod_revision: 9,
                    succeeded: true,
                    ..Answer::default()
                });
                let mut step = || {
                    let op = source.next(&mut random);
                    source.on_answer(&op, &answer);
                    op
                };
                (0..200).map(|_| step()).collect()
            };
            assert_eq!(ops(), ops(), "{name}");
        }
        assert!(plan("ycsb-g", &Parameters::default()).is_err());
        assert!(plan("nothing", &Parameters::default()).is_err());
    }
}
