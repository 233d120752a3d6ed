//! What `flotilla snapshot` is told. Owns the grammar only: flags that speak of the new member are the
//! server's own, and are read as those are.

use std::ffi::OsString;
use std::path::PathBuf;

use bytes::Bytes;

use crate::ctl::Target;

pub(super) const USAGE: &str = "\
usage: flotilla snapshot save FILE [--endpoints URL] [--user NAME:PASSWORD] [--cacert FILE]
                              [--cert FILE --key FILE]
       flotilla snapshot status FILE [-w simple|table|json]
       flotilla snapshot restore FILE --data-dir DIR [--wal-dir DIR] [--name NAME]
                              [--initial-cluster NAME=URL,...] [--initial-cluster-token TOKEN]
                              [--initial-advertise-peer-urls URL,...] [--skip-hash-check]
                              [--bump-revision N] [--mark-compacted=false] [--prefix PREFIX]
  save     writes the state of a cluster into FILE, which etcd's tools read as well
  status   checks FILE, and tells its hash, revision, rows and size
  restore  makes the data directory of one member of a new cluster. FILE is what `save` or etcd's own
           tools have written, or with --skip-hash-check the member/snap/db of an etcd. The new cluster
           begins 1000000000 revisions later (--bump-revision), and everything before is compacted
           (--mark-compacted), so that no watcher takes the new history for the old one;
           --bump-revision=0 keeps the revision and the history";

/// How much later a restored cluster begins, unless it is told otherwise: more than any cluster writes
/// between a backup and its loss.
pub(super) const BUMP_DEFAULT: u64 = 1_000_000_000;
/// Revisions are 63 bits; what is left must do for good.
const BUMP_MAX: u64 = 1 << 62;

/// What is asked.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command {
    Help,
    Save(Target, PathBuf),
    Status(PathBuf, Format),
    Restore(PathBuf, Request),
}

/// How a status is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Simple,
    Table,
    Json,
}

/// What is to become of a backup.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// Revisions between that of the backup and that of the new cluster. If not zero, everything
    /// before the latter is compacted.
    pub(super) bump_revision: u64,
    /// The file has no hash, or it is not asked for.
    pub(super) skips_hash_check: bool,
    /// Only keys that begin so, without a history. Empty: all keys.
    pub(super) prefix: Bytes,
    /// Flags of the server.
    pub(super) server: Vec<OsString>,
}

/// Flags of the server that speak of a new member.
const SERVER_FLAGS: [&str; 6] = [
    "data-dir",
    "wal-dir",
    "name",
    "initial-cluster",
    "initial-cluster-token",
    "initial-advertise-peer-urls",
];

/// Reads the arguments.
pub(super) fn parse(arguments: &[String]) -> Result<Command, String> {
    let (verb, rest) = arguments.split_first().ok_or("what is to be done?")?;
    match verb.as_str() {
        "save" => save(rest),
        "status" => status(rest),
        "restore" => restore(rest),
        "help" | "-h" | "--help" => Ok(Command::Help),
        _ => Err(format!("unknown command {verb:?}")),
    }
}

fn save(arguments: &[String]) -> Result<Command, String> {
    let mut target = Target::default();
    let file = each(arguments, &[], &mut |flag, value| {
        let flag = if flag == "endpoints" { "endpoint" } else { flag };
        target.set(&format!("--{flag}"), value).ok_or_else(|| unknown(flag))
    })?;
    Ok(Command::Save(target, file))
}

fn status(arguments: &[String]) -> Result<Command, String> {
    let mut format = Format::Simple;
    let file = each(arguments, &[], &mut |flag, value| {
        format = match (flag, value) {
            ("w" | "write-out", "simple") => Format::Simple,
            ("w" | "write-out", "table") => Format::Table,
            ("w" | "write-out", "json") => Format::Json,
            ("w" | "write-out", other) => return Err(format!("unknown output format {other:?}")),
            _ => return Err(unknown(flag)),
        };
        Ok(())
    })?;
    Ok(Command::Status(file, format))
}

fn restore(arguments: &[String]) -> Result<Command, String> {
    let (mut skips_hash_check, mut prefix) = (false, Bytes::new());
    let mut new = NewMember::default();
    let alone = ["skip-hash-check", "mark-compacted"];
    let file = each(arguments, &alone, &mut |flag, value| match flag {
        "skip-hash-check" => {
            skips_hash_check = value.parse().map_err(|_| wrong(flag, value))?;
            Ok(())
        }
        "prefix" => {
            prefix = Bytes::copy_from_slice(value.as_bytes());
            Ok(())
        }
        _ => new.set(flag, value),
    })?;
    let (bump_revision, server) = new.finish()?;
    Ok(Command::Restore(file, Request { bump_revision, skips_hash_check, prefix, server }))
}

/// What every restore is told of the member that it makes.
#[derive(Debug, Default)]
pub(super) struct NewMember {
    bump: Option<u64>,
    is_marked: Option<bool>,
    server: Vec<OsString>,
    has_data_dir: bool,
}

impl NewMember {
    /// Takes the value of a flag.
    pub(super) fn set(&mut self, flag: &str, value: &str) -> Result<(), String> {
        match flag {
            "bump-revision" => self.bump = Some(value.parse().map_err(|_| wrong(flag, value))?),
            "mark-compacted" => {
                self.is_marked = Some(value.parse().map_err(|_| wrong(flag, value))?);
            }
            _ if SERVER_FLAGS.contains(&flag) => {
                self.has_data_dir |= flag == "data-dir";
                self.server.push(format!("--{flag}={value}").into());
            }
            _ => return Err(unknown(flag)),
        }
        Ok(())
    }

    /// By how much the revision is raised, and flags of the server.
    pub(super) fn finish(self) -> Result<(u64, Vec<OsString>), String> {
        if !self.has_data_dir {
            return Err("--data-dir is missing".to_owned());
        }
        let bump = match (self.bump, self.is_marked) {
            (None, None | Some(true)) => BUMP_DEFAULT,
            (None, Some(false)) | (Some(0), None | Some(false)) => 0,
            (Some(bump), None | Some(true)) if (1..=BUMP_MAX).contains(&bump) => bump,
            (Some(0), Some(true)) => {
                return Err("--mark-compacted needs a --bump-revision above 0".to_owned());
            }
            (Some(_), Some(false)) => {
                return Err("--bump-revision needs --mark-compacted".to_owned());
            }
            (Some(_), _) => return Err(format!("--bump-revision is above {BUMP_MAX}")),
        };
        Ok((bump, self.server))
    }
}

/// Hands out the flags, and gives back the one argument that is none. `alone` need no value.
pub(super) fn each(
    arguments: &[String],
    alone: &[&str],
    take: &mut dyn FnMut(&str, &str) -> Result<(), String>,
) -> Result<PathBuf, String> {
    let mut file = None;
    let mut rest = arguments.iter();
    while let Some(word) = rest.next() {
        let Some(flag) = word.strip_prefix('-').filter(|flag| !flag.is_empty()) else {
            if file.replace(PathBuf::from(word)).is_some() {
                return Err("one file is wanted".to_owned());
            }
            continue;
        };
        let flag = flag.strip_prefix('-').unwrap_or(flag);
        match flag.split_once('=') {
            Some((flag, value)) => take(flag, value)?,
            None if alone.contains(&flag) => take(flag, "true")?,
            None => {
                let value = rest.next().ok_or_else(|| format!("--{flag} needs a value"))?;
                take(flag, value)?;
            }
        }
    }
    file.ok_or_else(|| "which file?".to_owned())
}

pub(super) fn wrong(flag: &str, value: &str) -> String {
    format!("invalid value {value:?} for --{flag}")
}

pub(super) fn unknown(flag: &str) -> String {
    format!("unknown flag --{flag}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command, String> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn a_restore_bumps_and_marks_unless_it_is_told_not_to() {
        let cases = [
            ("", Ok(BUMP_DEFAULT)),
            ("--mark-compacted", Ok(BUMP_DEFAULT)),
            ("--bump-revision 7", Ok(7)),
            ("--bump-revision=7 --mark-compacted=true", Ok(7)),
            ("--bump-revision=0", Ok(0)),
            ("--mark-compacted=false", Ok(0)),
            ("--bump-revision=0 --mark-compacted", Err("--mark-compacted needs")),
            ("--bump-revision=7 --mark-compacted=false", Err("--bump-revision needs")),
            ("--bump-revision=9223372036854775807", Err("--bump-revision is above")),
            ("--bump-revision=x", Err("invalid value")),
        ];
        for (flags, wanted) in cases {
            match (parsed(&format!("restore f --data-dir d {flags}")), wanted) {
                (Ok(Command::Restore(_, request)), Ok(bump)) => {
                    assert_eq!(request.bump_revision, bump, "{flags}");
                }
                (Err(reason), Err(text)) => assert!(reason.starts_with(text), "{reason}"),
                (found, _) => panic!("{flags}: {found:?}"),
            }
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let lines = [
            "",
            "show f",
            "status",
            "status f g",
            "status f -w yaml",
            "status f --data-dir d",
            "restore f",
            "restore --data-dir d",
            "restore f --data-dir",
            "restore f --data-dir d --listen-client-urls http://a:1",
            "save f --data-dir d",
        ];
        for line in lines {
            assert!(parsed(line).is_err(), "{line}");
        }
        assert_eq!(parsed("status -w json f"), Ok(Command::Status("f".into(), Format::Json)));
        let Ok(Command::Restore(_, request)) = parsed("restore f --data-dir=d -name n") else {
            panic!("it is understood");
        };
        assert_eq!(request.server, ["--data-dir=d", "--name=n"].map(OsString::from));
    }
}
