//! `flotilla recover` and `--force-new-cluster`: the data directory of a member whose cluster has lost
//! its quorum becomes that of a cluster of one. What is to be written is decided by
//! `flotilla_core::recover`; here the directory is read, somebody is asked, and it is written.

mod carry_out;
mod look;

use std::io::{BufRead as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;

const USAGE: &str = "\
usage: flotilla recover [--wal-dir DIR] [--give-up-lost-ranges] [--yes] DATA-DIR

Makes the data directory of a node that is down that of a cluster of this node alone, for a cluster that
has lost its quorum for good. Says first what is here and what may be lost, and asks. Exit status: 0 done,
or nothing was to be done; 1 not done; 2 it cannot be done.";

/// What has to be typed.
const CONSENT: &str = "recover";

/// A data directory that is to be recovered.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Subject {
    data: PathBuf,
    wal: PathBuf,
    gives_up_lost_ranges: bool,
}

impl Subject {
    fn store(&self) -> PathBuf {
        self.data.join("member").join("store")
    }
}

/// Carries out the arguments after `recover`.
pub fn run(arguments: &[String]) -> ExitCode {
    let Some((subject, is_agreed)) = parse(arguments) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match recover_after_asking(&subject, is_agreed) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            say("nothing was changed");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Recovers the directory of a node that is about to start, without asking. What was found is logged.
///
/// # Errors
/// It cannot be recovered: nothing is there, or ranges would be lost.
pub fn at_start(data: &Path, wal: &Path, gives_up_lost_ranges: bool) -> anyhow::Result<()> {
    let (data, wal) = (data.to_owned(), wal.to_owned());
    let subject = Subject { data, wal, gives_up_lost_ranges };
    let plan = look::look(&subject).context("--force-new-cluster")?;
    if !plan.is_needed() {
        tracing::warn!("--force-new-cluster changes nothing: this member is alone already");
        return Ok(());
    }
    for line in plan.report.to_string().lines() {
        tracing::warn!("--force-new-cluster: {line}");
    }
    carry_out::carry_out(&subject, plan)
}

fn recover_after_asking(subject: &Subject, is_agreed: bool) -> anyhow::Result<bool> {
    let plan = look::look(subject)?;
    if !plan.is_needed() {
        say("nothing is to be done: this member is alone already");
        return Ok(true);
    }
    say(&plan.report.to_string());
    if !is_agreed && !asked()? {
        return Ok(false);
    }
    carry_out::carry_out(subject, plan)?;
    say("done. Start the node without --force-new-cluster; delete the data of the other members");
    Ok(true)
}

fn asked() -> anyhow::Result<bool> {
    print!("There is no way back. Type \"{CONSENT}\" to go on: ");
    std::io::stdout().flush()?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    Ok(line.trim() == CONSENT)
}

fn parse(arguments: &[String]) -> Option<(Subject, bool)> {
    let (mut data, mut wal, mut gives_up_lost_ranges, mut is_agreed) = (None, None, false, false);
    let mut rest = arguments.iter();
    while let Some(word) = rest.next() {
        match (word.as_str(), word.split_once('=')) {
            ("--yes", _) => is_agreed = true,
            ("--give-up-lost-ranges", _) => gives_up_lost_ranges = true,
            ("--wal-dir", _) => wal = Some(PathBuf::from(rest.next()?)),
            (_, Some(("--wal-dir", dir))) => wal = Some(PathBuf::from(dir)),
            (flag, _) if flag.starts_with('-') => return None,
            (dir, _) if data.is_none() => data = Some(PathBuf::from(dir)),
            _ => return None,
        }
    }
    let data = data?;
    let wal = wal.unwrap_or_else(|| data.join("member").join("wal"));
    Some((Subject { data, wal, gives_up_lost_ranges }, is_agreed))
}

fn say(text: &str) {
    // A closed pipe is not worth a word.
    let _ = writeln!(std::io::stdout(), "{}", text.trim_end());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn arguments_are_understood_or_not() {
        let subject = |wal: &str, gives_up_lost_ranges| Subject {
            data: "/d".into(),
            wal: wal.into(),
            gives_up_lost_ranges,
        };
        let usual = "/d/member/wal";
        assert_eq!(parse(&words("/d")), Some((subject(usual, false), false)));
        assert_eq!(parse(&words("--yes /d --wal-dir /w")), Some((subject("/w", false), true)));
        let all = parse(&words("--wal-dir=/w --give-up-lost-ranges /d"));
        assert_eq!(all, Some((subject("/w", true), false)));
        for wrong in ["", "--yes", "/d /e", "/d --wal-dir", "/d --no", "--yes=true /d"] {
            assert_eq!(parse(&words(wrong)), None, "{wrong}");
        }
    }
}
