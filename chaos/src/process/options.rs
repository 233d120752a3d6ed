//! The command line of a run. Together with the program it is all that is needed to repeat one.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

use crate::process::fault::Class;
use crate::process::scenario;
use crate::process::target::Target;

/// Most members of a cluster.
const MEMBERS_MAX: usize = 5;
/// Most faults at once.
const LANES_MAX: usize = 3;
/// Members that hold a range where replicas are moved.
pub const RANGE_REPLICAS: usize = 3;

/// What a run is made of.
#[derive(Clone, Debug)]
pub struct Options {
    /// The program under test.
    pub target: Target,
    /// Founding members: 1, 3 or 5.
    pub nodes_count: usize,
    /// Where all chance comes from.
    pub seed: u64,
    /// How long the load and the faults last.
    pub length: Duration,
    /// Classes of faults; may be empty.
    pub classes: Vec<Class>,
    /// Most faults at once.
    pub lanes: usize,
    /// Clients.
    pub clients_count: u32,
    /// Keys they share.
    pub keys_count: u64,
    /// Keys that are written besides, once, where the faults are a cluster's life.
    pub fill_keys: u64,
    /// Watchers of parts of the keyspace.
    pub watchers_count: u32,
    /// Which mix of calls.
    pub mix: Mix,
    /// Mean pause between two calls of a client.
    pub think: Duration,
    /// Where the run's folder is made.
    pub out: PathBuf,
    /// Only the loopback: no namespaces, no switch.
    pub is_loopback: bool,
    /// Ordinary directories even if faults of the disk are asked for.
    pub is_plain_disk: bool,
    /// A name is durable only once its directory was synced, as POSIX has it; otherwise also
    /// once the file was, as on ext4.
    pub has_strict_names: bool,
    /// Faults that are not possible here do not make the run invalid; they are listed all the same.
    pub is_lenient: bool,
    /// Moments at which nodes can be stopped, of a target that was built with them.
    pub failpoints: Vec<String>,
    /// What nodes are upgraded to.
    pub upgrade_to: Option<Target>,
    /// Keys at which Flotilla cuts the keyspace from the beginning, separated by commas.
    pub split_keys: String,
    /// The words as they were given, for the line that repeats the run.
    words: Vec<String>,
}

/// How often which calls are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    /// Every form of every call.
    Usual,
    /// Puts and deletes of few keys, and compaction all the time.
    Churn,
    /// Almost only puts.
    Puts,
    /// Leases above all.
    Leases,
}

impl Mix {
    /// All mixes, with their names.
    pub const ALL: [(Mix, &'static str); 4] = [
        (Mix::Usual, "usual"),
        (Mix::Churn, "churn"),
        (Mix::Puts, "puts"),
        (Mix::Leases, "leases"),
    ];

    /// Weights of the calls, in the order of [`crate::traffic::KINDS`].
    pub fn weights(self) -> Vec<u64> {
        let weights = |all: [u64; 12]| all.to_vec();
        match self {
            Mix::Usual => crate::traffic::KINDS.iter().map(|(_, weight)| *weight).collect(),
            //                    put read stale old del swap txn compact grant revoke keep ttl
            Mix::Churn => weights([40, 10, 2, 4, 40, 2, 6, 8, 0, 0, 0, 0]),
            Mix::Puts => weights([92, 4, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0]),
            Mix::Leases => weights([30, 15, 2, 2, 3, 4, 4, 1, 15, 4, 16, 8]),
        }
    }
}

/// How the options are given.
pub const USAGE: &str =
    "flotilla-chaos run --target NAME=COMMAND [--nodes 1|3|5] [--seed S] [--seconds N]
                     [--scenario NAME | --faults A,B,…] [--overlap 1..3] [--clients N] [--keys N]
                     [--watchers N] [--mix usual|churn|puts|leases] [--think-ms N] [--out DIR]
                     [--loopback] [--plain-disk] [--strict-names] [--lenient]
                     [--split-keys K,…] [--fill KEYS] [--failpoints A,B,…] [--upgrade-to COMMAND]";

impl Options {
    /// Reads the words behind `run`.
    ///
    /// # Errors
    /// A word that is not understood, or no target.
    pub fn parse(words: &[String]) -> anyhow::Result<Self> {
        let mut options =
            Self::new(Target { name: String::new(), words: Vec::new(), is_flotilla: false });
        options.words = words.to_vec();
        let mut words = words.iter();
        let mut is_scenario = false;
        while let Some(flag) = words.next() {
            let mut value = || {
                words.next().with_context(|| format!("{flag} needs a value")).map(String::as_str)
            };
            match flag.as_str() {
                "--target" => options.target = Target::parse(value()?)?,
                "--nodes" => options.nodes_count = number(flag, value()?)?,
                "--seed" => options.seed = number(flag, value()?)?,
                "--seconds" => options.length = Duration::from_secs(number(flag, value()?)?),
                "--scenario" => {
                    scenario::find(value()?)?.set(&mut options);
                    is_scenario = true;
                }
                "--faults" => {
                    is_scenario = false;
                    let names = value()?.split(',').filter(|name| !name.is_empty());
                    options.classes = names.map(str::parse).collect::<anyhow::Result<_>>()?;
                }
                "--overlap" => options.lanes = number(flag, value()?)?,
                "--clients" => options.clients_count = number(flag, value()?)?,
                "--keys" => options.keys_count = number(flag, value()?)?,
                "--fill" => options.fill_keys = number(flag, value()?)?,
                "--watchers" => options.watchers_count = number(flag, value()?)?,
                "--mix" => options.mix = mix(value()?)?,
                "--think-ms" => options.think = Duration::from_millis(number(flag, value()?)?),
                "--out" => options.out = value()?.into(),
                "--loopback" => options.is_loopback = true,
                "--plain-disk" => options.is_plain_disk = true,
                "--strict-names" => options.has_strict_names = true,
                "--split-keys" => options.split_keys = value()?.to_owned(),
                "--failpoints" => {
                    let names = value()?.split(',').filter(|name| !name.is_empty());
                    options.failpoints = names.map(str::to_owned).collect();
                }
                "--upgrade-to" => options.upgrade_to = Some(Target::parse(value()?)?),
                "--lenient" => options.is_lenient = true,
                _ => bail!("unknown flag {flag}"),
            }
        }
        options.check()?;
        // A scenario for clusters of any size.
        if is_scenario && options.nodes_count <= RANGE_REPLICAS {
            options.classes.retain(|class| *class != Class::Move);
        }
        if options.target.is_flotilla && options.classes.contains(&Class::Move) {
            let flag = format!("--initial-range-replicas={RANGE_REPLICAS}");
            options.target.words.push(flag);
        }
        if options.target.is_flotilla && !options.split_keys.is_empty() {
            let flag = format!("--initial-split-keys={}", options.split_keys);
            options.target.words.push(flag);
        }
        Ok(options)
    }

    /// The usual run of a target.
    pub fn new(target: Target) -> Self {
        Self {
            target,
            nodes_count: 3,
            seed: 1,
            length: Duration::from_secs(60),
            classes: Vec::new(),
            lanes: 1,
            clients_count: 9,
            keys_count: 10,
            fill_keys: 0,
            watchers_count: 6,
            mix: Mix::Usual,
            think: Duration::from_millis(25),
            out: PathBuf::from("."),
            is_loopback: false,
            is_plain_disk: false,
            has_strict_names: false,
            is_lenient: false,
            failpoints: Vec::new(),
            upgrade_to: None,
            split_keys: String::new(),
            words: Vec::new(),
        }
    }

    /// The command that repeats the run.
    pub fn command(&self) -> String {
        if self.words.is_empty() {
            return self.spelled_out();
        }
        let quoted = self
            .words
            .iter()
            .map(|word| if word.contains(' ') { format!("'{word}'") } else { word.clone() });
        let words: Vec<String> = quoted.collect();
        let seed = if self.words.iter().any(|word| word == "--seed") {
            String::new()
        } else {
            format!(" --seed {}", self.seed)
        };
        format!("flotilla-chaos run {}{seed}", words.join(" "))
    }

    /// The command of options that no words were read for.
    fn spelled_out(&self) -> String {
        let classes: Vec<String> = self.classes.iter().map(ToString::to_string).collect();
        format!(
            "flotilla-chaos run --target '{}={}' --nodes {} --seed {} --seconds {} --faults {} \
             --overlap {}",
            self.target.name,
            self.target.words.join(" "),
            self.nodes_count,
            self.seed,
            self.length.as_secs(),
            classes.join(","),
            self.lanes,
        )
    }

    fn check(&self) -> anyhow::Result<()> {
        ensure!(!self.target.words.is_empty(), "--target is missing");
        ensure!(
            self.nodes_count % 2 == 1 && self.nodes_count <= MEMBERS_MAX,
            "--nodes is 1, 3 or 5"
        );
        ensure!((1..=LANES_MAX).contains(&self.lanes), "--overlap is 1 to {LANES_MAX}");
        ensure!(self.keys_count > 1, "--keys is at least 2");
        ensure!(!self.length.is_zero(), "--seconds is not zero");
        Ok(())
    }
}

fn number<T: std::str::FromStr>(flag: &str, text: &str) -> anyhow::Result<T> {
    text.parse().map_err(|_| anyhow::anyhow!("{flag}: {text} is not a number that fits"))
}

fn mix(text: &str) -> anyhow::Result<Mix> {
    let found = Mix::ALL.iter().find(|(_, name)| *name == text).map(|(mix, _)| *mix);
    found.with_context(|| format!("there is no mix {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> anyhow::Result<Options> {
        Options::parse(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn a_line_makes_options_and_they_make_the_line() {
        let options = parse("--target etcd=/e --nodes 1 --seed 7 --faults kill,pause").unwrap();
        assert_eq!((options.nodes_count, options.seed), (1, 7));
        assert_eq!(options.classes, [Class::Kill, Class::Pause]);
        let line = "flotilla-chaos run --target etcd=/e --nodes 1 --seed 7 --faults kill,pause";
        assert_eq!(options.command(), line);
        for wrong in ["--nodes 1", "--target e --nodes 2", "--target e --faults x", "--target e -x"]
        {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        for (mix, name) in Mix::ALL {
            assert_eq!(mix.weights().len(), crate::traffic::KINDS.len(), "{name}");
        }
    }
}
