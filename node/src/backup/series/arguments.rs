//! What `flotilla backup` is told. Owns the grammar only.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;

use super::super::arguments::{NewMember, each, unknown, wrong};
use super::apply;
use super::restore::{self, At};
use super::take;
use crate::calendar;
use crate::config::number::parse_duration;
use crate::ctl::Target;

pub(super) const USAGE: &str = "\
usage: flotilla backup take DIR [--endpoints URL,...] [--user NAME:PASSWORD] [--cacert FILE]
                              [--cert FILE --key FILE] [--follow] [--interval 10s]
                              [--base-every DURATION] [--keep BASES]
       flotilla backup status DIR [-w simple|json]
       flotilla backup verify DIR
       flotilla backup restore DIR --data-dir DIR [--revision N | --time MOMENT] [--prefix PREFIX]
                              [flags of `flotilla snapshot restore`]
       flotilla backup apply DIR --prefix PREFIX [--revision N | --time MOMENT] [--exact] [--dry-run]
                              [--without-leases] [--max-txn-ops 128] [--endpoints URL] [--user ...]
  take     writes into DIR what it lacks: a base, which is a snapshot, when nothing can follow on what is
           there, and increments with every change since. --follow goes on until it is told to stop
  status   lists bases, increments, and the revisions that can be restored
  verify   reads all of it: checksums, and that no revision is missing
  restore  makes the data directory of one member of a new cluster with the state at a revision, or at
           the last one that was recorded by a moment (2026-11-22T10:45:29Z); by default the newest
  apply    puts the keys of one prefix, as they were, back into a running cluster, in several
           transactions. --exact deletes those that were not there; --dry-run only counts";

/// How often changes become an increment while they are followed.
const INTERVAL_DEFAULT: Duration = Duration::from_secs(10);
const INTERVAL_MIN: Duration = Duration::from_millis(100);
/// etcd's limit of operations in a transaction, unless a cluster is told another.
const TXN_OPS_DEFAULT: usize = 128;

/// What is asked.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command {
    Help,
    Take(take::Request),
    Status(PathBuf, Format),
    Verify(PathBuf),
    Restore(restore::Request),
    Apply(apply::Request),
}

/// How a status is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Simple,
    Json,
}

/// Reads the arguments.
pub(super) fn parse(arguments: &[String]) -> Result<Command, String> {
    let (verb, rest) = arguments.split_first().ok_or("what is to be done?")?;
    match verb.as_str() {
        "take" => take(rest),
        "status" => status(rest),
        "verify" => {
            let dir = each(rest, &[], &mut |flag, _| Err(unknown(flag)))?;
            Ok(Command::Verify(dir))
        }
        "restore" => restore(rest),
        "apply" => apply(rest),
        "help" | "-h" | "--help" => Ok(Command::Help),
        _ => Err(format!("unknown command {verb:?}")),
    }
}

/// Where nodes are, and who asks.
#[derive(Default)]
struct Nodes {
    base: Target,
    urls: Vec<String>,
}

impl Nodes {
    fn set(&mut self, flag: &str, value: &str) -> Result<(), String> {
        match flag {
            "endpoint" | "endpoints" => {
                self.urls.extend(value.split(',').map(str::to_owned));
                Ok(())
            }
            _ => self.base.set(&format!("--{flag}"), value).ok_or_else(|| unknown(flag)),
        }
    }

    fn targets(self) -> Vec<Target> {
        let mut targets: Vec<Target> = Vec::new();
        for url in self.urls {
            let mut target = self.base.clone();
            target.set("--endpoint", &url).expect("there is such a flag");
            targets.push(target);
        }
        if targets.is_empty() { vec![self.base] } else { targets }
    }
}

fn take(arguments: &[String]) -> Result<Command, String> {
    let mut nodes = Nodes::default();
    let (mut follows, mut interval) = (false, INTERVAL_DEFAULT);
    let (mut base_every, mut keep) = (None, None);
    let dir = each(arguments, &["follow"], &mut |flag, value| {
        match flag {
            "follow" => follows = value.parse().map_err(|_| wrong(flag, value))?,
            "interval" => interval = duration(flag, value)?.max(INTERVAL_MIN),
            "base-every" => base_every = Some(duration(flag, value)?),
            "keep" => {
                let bases = value.parse().ok().filter(|bases| *bases > 0);
                keep = Some(bases.ok_or_else(|| wrong(flag, value))?);
            }
            _ => return nodes.set(flag, value),
        }
        Ok(())
    })?;
    let targets = nodes.targets();
    Ok(Command::Take(take::Request { dir, targets, follows, interval, base_every, keep }))
}

fn status(arguments: &[String]) -> Result<Command, String> {
    let mut format = Format::Simple;
    let dir = each(arguments, &[], &mut |flag, value| {
        format = match (flag, value) {
            ("w" | "write-out", "simple") => Format::Simple,
            ("w" | "write-out", "json") => Format::Json,
            ("w" | "write-out", other) => return Err(format!("unknown output format {other:?}")),
            _ => return Err(unknown(flag)),
        };
        Ok(())
    })?;
    Ok(Command::Status(dir, format))
}

fn restore(arguments: &[String]) -> Result<Command, String> {
    let (mut at, mut prefix) = (At::Newest, Bytes::new());
    let mut new = NewMember::default();
    let dir = each(arguments, &["mark-compacted"], &mut |flag, value| match flag {
        "revision" | "time" => moment(&mut at, flag, value),
        "prefix" => {
            prefix = Bytes::copy_from_slice(value.as_bytes());
            Ok(())
        }
        _ => new.set(flag, value),
    })?;
    let (bump_revision, server) = new.finish()?;
    Ok(Command::Restore(restore::Request { dir, at, prefix, bump_revision, server }))
}

fn apply(arguments: &[String]) -> Result<Command, String> {
    let (mut at, mut prefix, mut nodes) = (At::Newest, Bytes::new(), Nodes::default());
    let (mut is_exact, mut is_dry, mut drops_leases) = (false, false, false);
    let mut txn_ops_max = TXN_OPS_DEFAULT;
    let alone = ["exact", "dry-run", "without-leases"];
    let dir = each(arguments, &alone, &mut |flag, value| {
        match flag {
            "revision" | "time" => moment(&mut at, flag, value)?,
            "prefix" => prefix = Bytes::copy_from_slice(value.as_bytes()),
            "exact" => is_exact = value.parse().map_err(|_| wrong(flag, value))?,
            "dry-run" => is_dry = value.parse().map_err(|_| wrong(flag, value))?,
            "without-leases" => drops_leases = value.parse().map_err(|_| wrong(flag, value))?,
            "max-txn-ops" => {
                let ops = value.parse().ok().filter(|ops| *ops > 0);
                txn_ops_max = ops.ok_or_else(|| wrong(flag, value))?;
            }
            _ => return nodes.set(flag, value),
        }
        Ok(())
    })?;
    if prefix.is_empty() {
        return Err("--prefix is missing".to_owned());
    }
    let mut targets = nodes.targets();
    let target = targets.remove(0);
    Ok(Command::Apply(apply::Request {
        dir,
        at,
        prefix,
        target,
        is_exact,
        is_dry,
        drops_leases,
        txn_ops_max,
    }))
}

fn moment(at: &mut At, flag: &str, value: &str) -> Result<(), String> {
    if *at != At::Newest {
        return Err("one --revision or one --time is wanted".to_owned());
    }
    *at = if flag == "revision" {
        let revision = value.parse().ok().filter(|revision| *revision > 0);
        At::Revision(revision.ok_or_else(|| wrong(flag, value))?)
    } else {
        At::Time(calendar::milliseconds(value).ok_or_else(|| wrong(flag, value))?)
    };
    Ok(())
}

fn duration(flag: &str, value: &str) -> Result<Duration, String> {
    let nanos = parse_duration(value).map_err(|error| error.to_string())?;
    Ok(Duration::from_nanos(u64::try_from(nanos).map_err(|_| wrong(flag, value))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command, String> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn a_backup_may_be_asked_of_several_nodes() {
        let line = "take d --endpoints=a:1,http://b:2 --user=root:x --follow --interval 1m \
                    --base-every=24h --keep 3";
        let Ok(Command::Take(request)) = parsed(line) else { panic!("it is understood") };
        let urls: Vec<&str> = request.targets.iter().map(Target::url).collect();
        assert_eq!(urls, ["http://a:1", "http://b:2"]);
        assert_eq!((request.follows, request.interval), (true, Duration::from_secs(60)));
        assert_eq!(
            (request.base_every, request.keep),
            (Some(Duration::from_secs(86_400)), Some(3))
        );
        let Ok(Command::Take(request)) = parsed("take d") else { panic!("it is understood") };
        assert_eq!((request.targets.len(), request.follows, request.keep), (1, false, None));
    }

    #[test]
    fn a_moment_is_a_revision_or_a_time() {
        let at = |flags: &str| match parsed(&format!("restore d --data-dir e {flags}")) {
            Ok(Command::Restore(request)) => Ok(request.at),
            Ok(other) => panic!("{other:?}"),
            Err(reason) => Err(reason),
        };
        assert_eq!(at(""), Ok(At::Newest));
        assert_eq!(at("--revision 7"), Ok(At::Revision(7)));
        assert_eq!(at("--time=1970-01-01T00:00:01Z"), Ok(At::Time(1_000)));
        for flags in ["--revision 0", "--revision=-1", "--time yesterday", "--revision 1 --time 2"]
        {
            assert!(at(flags).is_err(), "{flags}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let lines = [
            "",
            "show d",
            "take",
            "take d e",
            "take d --keep 0",
            "take d --interval 5",
            "take d --revision 5",
            "status d -w table",
            "verify d --follow",
            "restore d",
            "restore d --data-dir e --follow",
            "apply d",
            "apply d --prefix p --max-txn-ops 0",
            "apply d --prefix p --data-dir e",
        ];
        for line in lines {
            assert!(parsed(line).is_err(), "{line}");
        }
    }
}
