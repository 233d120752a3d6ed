//! The logs of groups beside the states in the store.

use std::collections::BTreeMap;

use prost::Message;

use super::{Kind, Known, Report};
use crate::GroupId;
use crate::command::RequestId;
use crate::group::{self, Entry, EntryKind, Position, Recovered};
use crate::proto::internal::{RangeEntry, SpineEntry, record::Body};
use crate::range::stored::Stored;
use crate::spine::State;

pub(super) fn check(known: &Known, logs: &BTreeMap<GroupId, Recovered>, report: &mut Report) {
    let mut groups: Vec<GroupId> = logs.keys().chain(known.stored.keys()).copied().collect();
    groups.extend(known.state.as_ref().map(|_| GroupId::SPINE));
    groups.sort_unstable();
    groups.dedup();
    for group in groups {
        report.groups_count += 1;
        let log = logs.get(&group).cloned().unwrap_or_default();
        report.entries_count += log.entries.len() as u64;
        check_entries(group, &log, report);
        check_state(group, log, known, report);
    }
}

/// By range: the highest revision that its log names, of those whose log is there from the beginning.
/// An entry may tell how a write before it was numbered, and be committed when that is joined: all of
/// the log counts, not only what is joined.
pub(super) fn named(
    stored: &BTreeMap<GroupId, Stored>,
    logs: &BTreeMap<GroupId, Recovered>,
) -> BTreeMap<GroupId, i64> {
    let mut named = BTreeMap::new();
    for (range, stored) in stored {
        let Some(log) = logs.get(range).filter(|log| is_whole(log, stored)) else { continue };
        let mut newest = 0;
        for (_, content) in commands::<RangeEntry>(log) {
            for note in &content.notes {
                let numbered_count = note.count.saturating_sub(note.voids.len() as u64);
                newest = newest.max(note.revision.saturating_add_unsigned(numbered_count) - 1);
            }
            let resolved = content.resolves.iter().map(|resolve| resolve.revision);
            newest = resolved.fold(newest, i64::max);
        }
        named.insert(*range, newest);
    }
    named
}

/// Whether the log has every entry that led to the state.
fn is_whole(log: &Recovered, stored: &Stored) -> bool {
    let last = log.entries.last().map_or(log.truncated.index, |entry| entry.index);
    log.truncated.index <= Recovered::FIRST.index && last >= stored.position.index
}

/// The newest revision that the spine can have given by the end of its log here: a fold gives each
/// record one at most, and each write that a reference is the first to name.
pub(super) fn given(state: &State, log: &Recovered) -> i64 {
    let position = state.position();
    let mut revision = position.revision;
    let mut assigned: BTreeMap<u64, u64> =
        state.ranges().iter().map(|(range, known)| (range.0, known.assigned)).collect();
    for (_, content) in commands::<SpineEntry>(log).filter(|(at, _)| *at > position.index) {
        for body in content.records.into_iter().filter_map(|record| record.body) {
            let Body::Refs(refs) = body else {
                revision = revision.saturating_add(1);
                continue;
            };
            for it in refs.refs {
                let assigned = assigned.entry(it.range).or_default();
                revision = revision.saturating_add_unsigned(it.upto.saturating_sub(*assigned));
                *assigned = it.upto.max(*assigned);
            }
        }
    }
    revision
}

/// What the entries say, those that can be read, with their indexes.
fn commands<T: Message + Default>(log: &Recovered) -> impl Iterator<Item = (u64, T)> {
    let entries = log.entries.iter().filter(|entry| entry.kind == EntryKind::Normal);
    entries.filter_map(|entry| Some((entry.index, T::decode(entry.data.clone()).ok()?)))
}

fn check_entries(group: GroupId, log: &Recovered, report: &mut Report) {
    let commands = log.entries.iter().filter(|entry| entry.kind == EntryKind::Normal);
    for Entry { index, data, .. } in commands {
        let read = match group {
            GroupId::SPINE => SpineEntry::decode(data.clone()).map(|_| ()),
            _ => RangeEntry::decode(data.clone()).map(|_| ()),
        };
        if let Err(error) = read {
            let text = format!("entry {index} of its log cannot be read: {error}");
            report.group(Kind::LogEntry, group, text);
        }
    }
}

fn check_state(group: GroupId, mut log: Recovered, known: &Known, report: &mut Report) {
    let stored = known.stored.get(&group);
    match (group, &known.state, stored) {
        (GroupId::SPINE, Some(state), _) => {
            let position = state.position();
            log.applied = Position { index: position.index, term: position.term };
            log.conf = state.conf().clone();
            check_requests(&log, state, report);
        }
        // A node that joins: its log is empty, too.
        (GroupId::SPINE, None, _) => {}
        // One that was left, has ended, or waits for its first state keeps what it voted, and perhaps
        // where its log ended.
        (_, _, None) => {
            if let Err(error) = log.check_log() {
                report.group(Kind::LogEntry, group, error.to_string());
            }
            return;
        }
        (_, _, Some(stored)) => {
            log.applied = stored.position.place();
            log.conf = stored.conf.clone();
            check_writes(group, &log, stored, report);
        }
    }
    let (applied, is_first) = (log.applied.index, log.applied == Recovered::FIRST);
    let is_alone = log.conf.voters.len() == 1 && log.conf.learners.is_empty();
    let last = log.entries.last().map_or(log.truncated.index, |entry| entry.index);
    match log.check() {
        Ok(None) => {}
        // A replica that begins has no log yet.
        Ok(Some(_)) if is_first => {}
        // Nobody is there who could have sent it that state.
        Ok(Some(_)) if is_alone => {
            let text = format!("its state stands at index {applied}, its log ends at {last}");
            report.group(Kind::Covered, group, text);
        }
        Ok(Some(_)) => report.note(format!(
            "group {group}: its state, at index {applied}, is ahead of its log, as after a snapshot"
        )),
        Err(error) => report.group(kind_of(&error), group, error.to_string()),
    }
}

fn kind_of(error: &group::Error) -> Kind {
    match error {
        group::Error::Gap { .. } | group::Error::TermLost { .. } => Kind::LogEntry,
        group::Error::Conf(_) | group::Error::ConfWithoutState => Kind::Members,
        _ => Kind::Covered,
    }
}

/// Every request up to where the state stands was seen by it (I13).
fn check_requests(log: &Recovered, state: &State, report: &mut Report) {
    let applied = log.applied.index;
    // A state that came with a snapshot may be of another log than the entries here that nobody knew to be
    // committed.
    let is_of_this_log = log.entries.iter().any(|entry| entry.position() == log.applied);
    let upto = if is_of_this_log { applied } else { applied.min(log.hard_state.commit) };
    for (index, content) in commands::<SpineEntry>(log).take_while(|(at, _)| *at <= upto) {
        for record in content.records {
            let id = RequestId { origin: record.origin, n: record.n };
            if record.body.is_some() && state.has_seen(id) == Some(false) {
                let text = format!(
                    "its state stands at index {applied}, and knows nothing of request {} of {:x} at \
                     index {index} (I13)",
                    id.n, id.origin
                );
                report.group(Kind::Covered, GroupId::SPINE, text);
                return;
            }
        }
    }
}

/// The writes up to where the state stands are as many as it says (I6).
fn check_writes(range: GroupId, log: &Recovered, stored: &Stored, report: &mut Report) {
    if !is_whole(log, stored) {
        return;
    }
    let joined = commands(log).take_while(|(at, _)| *at <= stored.position.index);
    let writes_count: u64 = joined.map(|(_, RangeEntry { writes, .. })| writes.len() as u64).sum();
    let (index, seq) = (stored.position.index, stored.position.seq);
    if writes_count != seq {
        let text = format!(
            "its state stands at index {index} with {seq} writes, its log has {writes_count} up to \
             there (I6)"
        );
        report.group(Kind::Covered, range, text);
    }
}
