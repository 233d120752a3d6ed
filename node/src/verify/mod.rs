//! `flotilla verify` and `flotilla dump`: what is in the data directory of a node that is down. Opens
//! everything for reading, under the locks of a node, and changes nothing.
//!
//! Here is what concerns files: checksums, what a start would refuse, and how it is told. What the rows
//! and the logs must have to do with each other is `flotilla_core::verify`.

mod directory;
mod dump;
mod summary;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use directory::Directory;
use summary::Summary;

const VERIFY_USAGE: &str = "\
usage: flotilla verify [--wal-dir DIR] DATA-DIR

Checks every checksum in the data directory of a node that is down, and log and store beside each other.
A line for each finding, then a summary. Exit status: 0 nothing was found, 1 something was, 2 it could
not be looked at.";

const DUMP_USAGE: &str = "\
usage: flotilla dump [--wal-dir DIR] --group N [--from INDEX] [--to INDEX] DATA-DIR

Shows what the log of a node that is down remembers of a group: a line for each entry.";

/// Where a node keeps what it must not lose.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Paths {
    data: PathBuf,
    wal: PathBuf,
}

impl Paths {
    fn store(&self) -> PathBuf {
        self.data.join("member").join("store")
    }
}

/// Carries out the arguments after `verify`.
pub fn run(arguments: &[String]) -> ExitCode {
    let Some((paths, [])) = split(arguments, []) else {
        eprintln!("{VERIFY_USAGE}");
        return ExitCode::from(2);
    };
    match verify(&paths) {
        Ok(summary) => {
            say(&summary.to_string());
            if summary.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => refuse(&error),
    }
}

/// Carries out the arguments after `dump`.
pub fn run_dump(arguments: &[String]) -> ExitCode {
    let parsed = split(arguments, ["--group", "--from", "--to"])
        .and_then(|(paths, values)| Some((paths, dump::What::parse(values)?)));
    let Some((paths, what)) = parsed else {
        eprintln!("{DUMP_USAGE}");
        return ExitCode::from(2);
    };
    match dump::dump(&paths, &what) {
        Ok(text) => {
            say(&text);
            ExitCode::SUCCESS
        }
        Err(error) => refuse(&error),
    }
}

fn verify(paths: &Paths) -> anyhow::Result<Summary> {
    let mut summary = Summary::begin();
    let directory = Directory::open(paths, &mut summary)?;
    directory.check(&mut summary);
    summary.end();
    Ok(summary)
}

/// The directories, and the values of these flags.
fn split<const N: usize>(
    arguments: &[String],
    flags: [&str; N],
) -> Option<(Paths, [Option<String>; N])> {
    let mut values = [const { None }; N];
    let (mut data, mut wal) = (None, None);
    let mut rest = arguments.iter();
    while let Some(word) = rest.next() {
        if !word.starts_with("--") {
            if data.replace(PathBuf::from(word)).is_some() {
                return None;
            }
            continue;
        }
        let (flag, value) = match word.split_once('=') {
            Some((flag, value)) => (flag, value.to_owned()),
            None => (word.as_str(), rest.next()?.clone()),
        };
        if flag == "--wal-dir" {
            wal = Some(PathBuf::from(value));
        } else {
            let at = flags.iter().position(|known| *known == flag)?;
            values[at] = Some(value);
        }
    }
    let data = data?;
    let wal = wal.unwrap_or_else(|| data.join("member").join("wal"));
    Some((Paths { data, wal }, values))
}

fn say(text: &str) {
    // A closed pipe is not worth a word.
    let _ = writeln!(std::io::stdout(), "{}", text.trim_end());
}

fn refuse(error: &anyhow::Error) -> ExitCode {
    eprintln!("Error: {error:#}");
    ExitCode::from(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn arguments_are_understood_or_not() {
        let paths = |data: &str, wal: &str| Paths { data: data.into(), wal: wal.into() };
        assert_eq!(split(&words("/d"), []), Some((paths("/d", "/d/member/wal"), [])));
        assert_eq!(split(&words("--wal-dir /w /d"), []), Some((paths("/d", "/w"), [])));
        assert_eq!(split(&words("/d --wal-dir=/w"), []), Some((paths("/d", "/w"), [])));
        for wrong in ["", "--wal-dir", "--wal-dir /w", "/d /e", "--group 1 /d", "/d --group"] {
            assert_eq!(split(&words(wrong), []), None, "{wrong}");
        }
        let (_, values) = split(&words("--group 7 /d"), ["--group", "--from"]).expect("sound");
        assert_eq!(values, [Some("7".to_owned()), None]);
    }
}
