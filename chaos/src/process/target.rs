//! The program under test as named on the command line, and the words that start one node of it.

use std::path::Path;

use anyhow::{Context as _, ensure};

/// A program that speaks etcd's API and takes etcd's flags, or any with placeholders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its name in reports: what stands before the `=`, or the program's file name.
    pub name: String,
    /// The command, its words split at spaces.
    pub words: Vec<String>,
    /// It has ranges and answers Flotilla's own admin calls.
    pub is_flotilla: bool,
}

/// What one node is told when it is started.
#[derive(Clone, Debug)]
pub struct Place<'a> {
    /// Name of the member.
    pub name: &'a str,
    /// Where it keeps its data.
    pub data: &'a Path,
    /// URL for clients.
    pub client: &'a str,
    /// URL for peers.
    pub peer: &'a str,
    /// `name=url` of all members, separated by commas.
    pub cluster: &'a str,
    /// `new` or `existing`.
    pub state: &'a str,
}

impl Target {
    /// Reads `NAME=COMMAND` or `COMMAND`. A target named `flotilla` is taken for one.
    ///
    /// # Errors
    /// There is no command.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let (name, command) = match text.split_once('=') {
            Some((name, command)) if !name.contains(['/', ' ', '-']) => (Some(name), command),
            _ => (None, text),
        };
        let words: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
        let first = words.first().with_context(|| format!("{text:?} names no program"))?;
        let program = Path::new(first)
            .file_name()
            .map_or_else(|| first.clone(), |name| name.to_string_lossy().into_owned());
        let name = name.map_or(program, str::to_owned);
        ensure!(!name.is_empty(), "{text:?} has no name");
        let is_flotilla = name.starts_with("flotilla");
        Ok(Self { name, words, is_flotilla })
    }

    /// The words that start a node: the placeholders `{name}`, `{data}`, `{client}`, `{peer}`,
    /// `{cluster}` and `{state}` are filled in; without any, etcd's flags are appended.
    pub fn command_line(&self, place: &Place<'_>) -> Vec<String> {
        let data = place.data.to_string_lossy();
        let values = [
            ("{name}", place.name),
            ("{data}", &data),
            ("{client}", place.client),
            ("{peer}", place.peer),
            ("{cluster}", place.cluster),
            ("{state}", place.state),
        ];
        let is_template = |word: &String| values.iter().any(|(name, _)| word.contains(name));
        if self.words.iter().any(is_template) {
            let fill = |word: &String| {
                values.iter().fold(word.clone(), |word, (name, value)| word.replace(name, value))
            };
            return self.words.iter().map(fill).collect();
        }
        let flags = [
            ("--name", place.name),
            ("--data-dir", &data),
            ("--listen-client-urls", place.client),
            ("--advertise-client-urls", place.client),
            ("--listen-peer-urls", place.peer),
            ("--initial-advertise-peer-urls", place.peer),
            ("--initial-cluster", place.cluster),
            ("--initial-cluster-state", place.state),
        ];
        let flags = flags.iter().map(|(flag, value)| format!("{flag}={value}"));
        self.words.iter().cloned().chain(flags).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: fn() -> Place<'static> = || Place {
        name: "n0",
        data: Path::new("/d"),
        client: "http://c:1",
        peer: "http://p:1",
        cluster: "n0=http://p:1",
        state: "new",
    };

    #[test]
    fn a_target_has_a_name_and_a_command() {
        let target = Target::parse("flotilla=/opt/flotilla --quota 5").unwrap();
        assert_eq!((target.name.as_str(), target.is_flotilla), ("flotilla", true));
        assert_eq!(target.words, ["/opt/flotilla", "--quota", "5"]);
        let target = Target::parse("/usr/bin/etcd --snapshot-count=100").unwrap();
        assert_eq!((target.name.as_str(), target.is_flotilla), ("etcd", false));
        assert!(Target::parse("x=").is_err());
    }

    #[test]
    fn placeholders_take_the_place_of_the_flags_of_etcd() {
        let line = Target::parse("run {name} -d {data}").unwrap().command_line(&PLACE());
        assert_eq!(line, ["run", "n0", "-d", "/d"]);
        let line = Target::parse("etcd").unwrap().command_line(&PLACE());
        assert!(line.contains(&"--initial-cluster-state=new".to_owned()), "{line:?}");
    }
}
