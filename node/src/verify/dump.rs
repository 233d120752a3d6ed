//! A group's log in lines that can be read.

use std::fmt::Write as _;

use anyhow::Context as _;
use bytes::Bytes;
use flotilla_core::GroupId;
use flotilla_core::group::{Entry, EntryKind, Recovered};
use flotilla_core::proto::internal::{
    Effect, Prepare, RangeEntry, Record, Resolve, SpineEntry, TxnId, record::Body,
};
use prost::Message;

use super::Paths;
use crate::range;
use crate::wal;

/// Of a key so many bytes are shown.
const KEY_SHOWN_BYTES: usize = 64;
/// Of the effects of a write so many are shown.
const EFFECTS_SHOWN: usize = 8;

/// What is to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct What {
    group: GroupId,
    from: u64,
    to: u64,
}

impl What {
    /// From the values of `--group`, `--from` and `--to`.
    pub(super) fn parse([group, from, to]: [Option<String>; 3]) -> Option<Self> {
        let number = |value: Option<String>, default: u64| match value {
            Some(value) => value.parse().ok(),
            None => Some(default),
        };
        let group = GroupId(group?.parse().ok()?);
        Some(Self { group, from: number(from, 0)?, to: number(to, u64::MAX)? })
    }
}

pub(super) fn dump(paths: &Paths, what: &What) -> anyhow::Result<String> {
    let (log, _lock) = wal::inspect(&paths.wal)?;
    if let Some(problem) = log.problems.into_iter().next() {
        return Err(problem.into());
    }
    let mut groups = log.groups.context("the log cannot be read")?;
    let known: Vec<String> = groups.keys().map(ToString::to_string).collect();
    let log = groups.remove(&what.group).with_context(|| {
        format!("the log has nothing of group {}; it has groups {}", what.group, known.join(", "))
    })?;
    let log = range::from_wal(log).map_err(anyhow::Error::msg)?;
    Ok(show(what, &log))
}

fn show(what: &What, log: &Recovered) -> String {
    let hard = log.hard_state;
    let mut text = format!(
        "group {}: term {}, vote {:x}, commit {}; {} entries after index {} of term {}\n",
        what.group,
        hard.term,
        hard.vote,
        hard.commit,
        log.entries.len(),
        log.truncated.index,
        log.truncated.term
    );
    let shown = log.entries.iter().filter(|it| (what.from..=what.to).contains(&it.index));
    for entry in shown {
        let (index, term, bytes) = (entry.index, entry.term, entry.data.len());
        let content = match (entry.kind, what.group) {
            (EntryKind::Change, _) => "change of members".to_owned(),
            (EntryKind::Normal, _) if entry.data.is_empty() => "begin of a term".to_owned(),
            (EntryKind::Normal, GroupId::SPINE) => of_spine(entry),
            (EntryKind::Normal, _) => of_range(entry),
        };
        let _ = writeln!(text, "{index} term {term} {bytes} B: {content}");
    }
    text
}

fn of_spine(entry: &Entry) -> String {
    match SpineEntry::decode(entry.data.clone()) {
        Ok(content) => joined(content.records.iter().map(record)),
        Err(error) => format!("UNREADABLE: {error}"),
    }
}

fn of_range(entry: &Entry) -> String {
    let content = match RangeEntry::decode(entry.data.clone()) {
        Ok(content) => content,
        Err(error) => return format!("UNREADABLE: {error}"),
    };
    let writes = content.writes.iter().map(|write| {
        let name = name(&TxnId { origin: write.origin, n: write.n });
        format!("write {name} {}", effects(&write.effects))
    });
    let notes = content.notes.iter().map(|run| {
        let (first, last) = (run.first, run.first + run.count.saturating_sub(1));
        format!("note: writes {first} to {last} from revision {} on", run.revision)
    });
    let settles = (content.settles > 0).then(|| format!("settles {}", content.settles));
    let parts = notes
        .chain(content.prepares.iter().map(prepare))
        .chain(content.resolves.iter().map(resolve))
        .chain(writes)
        .chain(settles);
    joined(parts)
}

fn joined(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join("; ")
}

fn name(id: &TxnId) -> String {
    if id.origin == 0 { "of nobody".to_owned() } else { format!("{:x}/{}", id.origin, id.n) }
}

fn name_of(id: Option<&TxnId>) -> String {
    id.map_or_else(|| "of nobody".to_owned(), name)
}

fn prepare(prepare: &Prepare) -> String {
    format!("prepare {} with {} locks", name_of(prepare.id.as_ref()), prepare.locks.len())
}

fn resolve(resolve: &Resolve) -> String {
    let name = name_of(resolve.id.as_ref());
    if let Some(split) = &resolve.split {
        return format!("resolve {name}: split at {} into range {}", key(&split.key), split.child);
    }
    if let Some(merge) = &resolve.merge {
        return format!("resolve {name}: merge range {}", merge.right);
    }
    match resolve.revision {
        0 => format!("resolve {name}: no effect"),
        revision => format!("resolve {name}: revision {revision} {}", effects(&resolve.effects)),
    }
}

fn record(record: &Record) -> String {
    let name = name(&TxnId { origin: record.origin, n: record.n });
    let content = match &record.body {
        None => "nothing".to_owned(),
        Some(Body::Write(write)) => format!("write {}", effects(&write.effects)),
        Some(Body::LeaseGrant(grant)) => format!("grant lease {:x} for {} s", grant.id, grant.ttl),
        Some(Body::LeaseRevoke(revoke)) => format!("end lease {:x}", revoke.id),
        Some(Body::LeaseCheckpoint(it)) => format!("checkpoint of {} leases", it.leases.len()),
        Some(Body::Compact(compact)) => format!("compact at {}", compact.revision),
        Some(Body::Alarm(alarm)) => {
            let what = if alarm.is_active { "raise" } else { "end" };
            format!("{what} alarm {} of {:x}", alarm.kind, alarm.member)
        }
        Some(Body::MemberAttributes(it)) => format!("member {:x} is {}", it.id, it.name),
        Some(Body::MemberUrls(it)) => format!("peer URLs of {:x}", it.id),
        Some(Body::MemberDrain(it)) => format!("drain {:x}: {}", it.id, it.is_draining),
        Some(Body::ClusterVersion(it)) => format!("cluster version {}", it.version),
        Some(Body::Refs(refs)) => {
            let refs = refs.refs.iter().map(|it| format!("range {} up to {}", it.range, it.upto));
            format!("number {}", refs.collect::<Vec<_>>().join(", "))
        }
        Some(Body::TxnCommit(commit)) => {
            let ranges: Vec<String> = commit.ranges.iter().map(ToString::to_string).collect();
            let what = match (&commit.split, &commit.merge) {
                (Some(split), _) => format!("split at {}", key(&split.key)),
                (None, Some(merge)) => format!("merge range {} into {}", merge.right, merge.left),
                (None, None) => {
                    let shares = commit.shares.iter().flat_map(|share| &share.effects);
                    effects(&shares.cloned().collect::<Vec<_>>())
                }
            };
            format!("commit over ranges {}: {what}", ranges.join(", "))
        }
        Some(Body::TxnAbort(abort)) => format!("abort {}", name_of(abort.id.as_ref())),
        Some(Body::Decision(it)) => format!("placement decides {} ({})", it.step, it.reason),
        Some(Body::DecisionOutcome(it)) => format!("outcome of a decision: {}", it.outcome),
        Some(Body::Replicas(it)) => {
            let nodes: Vec<String> = it.nodes.iter().map(|id| format!("{id:x}")).collect();
            format!("range {} is to be held by {}", it.range, nodes.join(", "))
        }
        Some(Body::Recovery(it)) => {
            format!("recovery: {:x} is alone; {} ranges begin anew", it.node, it.abandoned.len())
        }
        Some(Body::ReplicasWanted(it)) => format!("{} replicas of each range are wanted", it.count),
        // Hashes and tokens are nobody's business.
        Some(Body::AuthChange(_)) => "change of users or roles".to_owned(),
        Some(Body::AuthToken(token)) => format!("token for {}", token.user),
    };
    format!("{name} {content}")
}

fn effects(effects: &[Effect]) -> String {
    let mut shown: Vec<String> = effects.iter().take(EFFECTS_SHOWN).map(effect).collect();
    if effects.len() > EFFECTS_SHOWN {
        shown.push(format!("and {} more", effects.len() - EFFECTS_SHOWN));
    }
    format!("[{}]", shown.join(", "))
}

fn effect(effect: &Effect) -> String {
    let (name, bytes) = (key(&effect.key), effect.value.len());
    match (effect.is_delete, effect.lease) {
        (false, 0) => format!("put {name} {bytes} B"),
        (false, lease) => format!("put {name} {bytes} B lease {lease:x}"),
        (true, 0) if effect.range_end.is_empty() => format!("delete {name}"),
        (true, 0) => format!("delete {name} to {}", key(&effect.range_end)),
        (true, lease) => format!("delete all of lease {lease:x}"),
    }
}

fn key(key: &Bytes) -> String {
    let shown = &key[..key.len().min(KEY_SHOWN_BYTES)];
    let more = if shown.len() < key.len() { "…" } else { "" };
    format!("\"{}{more}\"", shown.escape_ascii())
}
