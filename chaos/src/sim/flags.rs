//! A run on a command line: which kind of run it is and what is left out of it, read and written.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::str::FromStr;

use anyhow::{Context, bail};
use flotilla_core::mutant as machine;

use super::mutant::Mutant;
use super::plan::Options;
use super::reduction::Part;

/// Why a bug cannot be planted.
pub const NEEDS_FEATURE: &str =
    "plant it with: cargo run --release -p flotilla-chaos --features mutants";
/// A list with nothing in it.
const NOTHING: &str = "none";
/// A list with all parts in it.
const EVERYTHING: &str = "all";

impl Options {
    /// Takes one flag of a run, with its value if it has one. False if no run has such a flag.
    ///
    /// # Errors
    /// There is no such value.
    pub fn take_flag(
        &mut self,
        flag: &str,
        mut value: impl FnMut() -> anyhow::Result<String>,
    ) -> anyhow::Result<bool> {
        let reduction = &mut self.reduction;
        match flag {
            "--nodes" => self.nodes_count = number(&value()?)?,
            "--mutant" => self.plant(&value()?)?,
            "--focus" => self.focus = Some(value()?.parse().map_err(anyhow::Error::msg)?),
            "--black-box" => self.is_black_box = true,
            "--restless" => self.is_restless = true,
            "--aimed" => (self.is_restless, self.is_aimed) = (true, true),
            "--users" => self.has_users = true,
            "--keep" => reduction.keep = Some(list(&value()?)?),
            "--without" => reduction.without = parts(&value()?)?,
            "--clients" => reduction.clients_max = Some(number(&value()?)?),
            "--watchers" => reduction.watchers_max = Some(number(&value()?)?),
            "--ranges" => reduction.ranges_max = Some(number(&value()?)?),
            "--founders" => reduction.founders_max = Some(number(&value()?)?),
            "--until" => reduction.until_ms = Some(number(&value()?)?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn plant(&mut self, name: &str) -> anyhow::Result<()> {
        match name.parse::<machine::Mutant>() {
            Ok(mutant) if machine::IS_COMPILED_IN => self.machine_mutant = Some(mutant),
            Ok(_) => bail!("{name} is a bug of the machines; {NEEDS_FEATURE}"),
            Err(_) => {
                self.mutant = Some(name.parse::<Mutant>().map_err(anyhow::Error::msg)?);
            }
        }
        Ok(())
    }

    /// The command that repeats a run of this seed.
    pub fn command(&self, seed: u64) -> String {
        let mut line = format!("flotilla-chaos sim run --seed {seed}");
        let mut add = |flag: &str, value: Option<String>| {
            write!(line, " {flag}").expect("a string takes everything");
            if let Some(value) = value {
                write!(line, " {value}").expect("a string takes everything");
            }
        };
        if self.nodes_count > 0 {
            add("--nodes", Some(self.nodes_count.to_string()));
        }
        match (self.is_restless, self.is_aimed) {
            (_, true) => add("--aimed", None),
            (true, false) => add("--restless", None),
            (false, false) => {}
        }
        if let Some(focus) = self.focus {
            add("--focus", Some(focus.name().to_owned()));
        }
        if self.has_users {
            add("--users", None);
        }
        if self.is_black_box {
            add("--black-box", None);
        }
        let machine_mutant = self.machine_mutant.map(|mutant| mutant.to_string());
        if let Some(name) = self.mutant.map(|mutant| mutant.to_string()).or(machine_mutant) {
            add("--mutant", Some(name));
        }
        let reduction = &self.reduction;
        if !reduction.without.is_empty() {
            let is_all = reduction.without.len() == Part::ALL.len();
            let names = join(reduction.without.iter().map(|part| part.name()));
            add("--without", Some(if is_all { EVERYTHING.to_owned() } else { names }));
        }
        let limits = [
            ("--clients", reduction.clients_max.map(u64::from)),
            ("--watchers", reduction.watchers_max.map(|max| max as u64)),
            ("--ranges", reduction.ranges_max.map(|max| max as u64)),
            ("--founders", reduction.founders_max),
            ("--until", reduction.until_ms),
        ];
        for (flag, max) in limits {
            if let Some(max) = max {
                add(flag, Some(max.to_string()));
            }
        }
        if let Some(keep) = &reduction.keep {
            add("--keep", Some(join(keep)));
        }
        line
    }
}

fn number<T: FromStr>(text: &str) -> anyhow::Result<T> {
    text.parse().ok().with_context(|| format!("{text} is not a number, or too large a one"))
}

fn parts(text: &str) -> anyhow::Result<BTreeSet<Part>> {
    if text == EVERYTHING { Ok(Part::ALL.into()) } else { list(text) }
}

fn list<T: FromStr + Ord>(text: &str) -> anyhow::Result<BTreeSet<T>>
where
    T::Err: fmt::Display,
{
    if text == NOTHING {
        return Ok(BTreeSet::new());
    }
    let items = text.split(',').map(|item| {
        item.parse().map_err(|error: T::Err| anyhow::anyhow!("{item} in {text}: {error}"))
    });
    items.collect()
}

fn join<T: fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    if items.is_empty() { NOTHING.to_owned() } else { items.join(",") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::{Focus, Reduction};

    fn read(line: &str) -> (u64, Options) {
        let mut words = line.split(' ').skip(3).map(str::to_owned);
        let (mut seed, mut options) = (0, Options::default());
        while let Some(flag) = words.next() {
            let mut value = || words.next().context("a value");
            if flag == "--seed" {
                seed = number(&value().expect("a seed")).expect("a number");
            } else {
                assert!(options.take_flag(&flag, value).expect("a good value"), "{flag}");
            }
        }
        (seed, options)
    }

    #[test]
    fn what_is_written_is_read_again() {
        let reduction = Reduction {
            keep: Some([3, 17].into()),
            without: [Part::Loss, Part::LostNode].into(),
            clients_max: Some(2),
            watchers_max: Some(0),
            ranges_max: Some(1),
            founders_max: Some(3),
            until_ms: Some(4_120),
        };
        let options = Options {
            nodes_count: 5,
            is_restless: true,
            is_aimed: true,
            focus: Some(Focus::History),
            has_users: true,
            mutant: Some(Mutant::WatchSkips),
            is_black_box: true,
            reduction,
            ..Options::default()
        };
        let line = options.command(7);
        let (seed, read_again) = read(&line);
        assert_eq!(seed, 7);
        assert_eq!(format!("{read_again:?}"), format!("{options:?}"), "{line}");
        assert!(line.ends_with("--without loss,lost-node --clients 2 --watchers 0 --ranges 1 --founders 3 --until 4120 --keep 3,17"), "{line}");
        let line = "flotilla-chaos sim run --seed 9 --restless --without all --keep none";
        let (seed, options) = read(line);
        assert_eq!((seed, options.command(9).as_str()), (9, line));
    }

    #[test]
    fn nonsense_is_refused() {
        let take = |flag: &str, text: &str| {
            Options::default().take_flag(flag, || Ok(text.to_owned())).map_err(|it| it.to_string())
        };
        assert_eq!(take("--fish", ""), Ok(false));
        assert!(take("--keep", "1,fish").expect_err("no number").contains("fish in 1,fish"));
        assert!(take("--without", "fish").expect_err("no part").contains("lost-node"));
        assert!(take("--clients", "-1").expect_err("no number").contains("-1 is not a number"));
    }
}
