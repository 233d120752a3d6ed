//! The logs of groups beside the states in the store.

use std::collections::BTreeMap;

use prost::Message;

use super::{Known, Report};
use crate::GroupId;
use crate::command::RequestId;
use crate::group::{Entry, EntryKind, Position, Recovered};
use crate::proto::internal::{RangeEntry, SpineEntry};
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

/// By range: the highest revision that its log names up to where its state stands, of those whose log
/// is there from the beginning.
pub(super) fn named(
    stored: &BTreeMap<GroupId, Stored>,
    logs: &BTreeMap<GroupId, Recovered>,
) -> BTreeMap<GroupId, i64> {
    let mut named = BTreeMap::new();
    for (range, stored) in stored {
        let Some(log) = logs.get(range).filter(|log| is_whole(log, stored)) else { continue };
        let mut newest = 0;
        for content in joined(log, stored) {
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

/// What the entries up to where the state stands say, those that can be read.
fn joined(log: &Recovered, stored: &Stored) -> impl Iterator<Item = RangeEntry> {
    let upto = stored.position.index;
    let entries = log.entries.iter().take_while(move |entry| entry.index <= upto);
    let commands = entries.filter(|entry| entry.kind == EntryKind::Normal);
    commands.filter_map(|entry| RangeEntry::decode(entry.data.clone()).ok())
}

fn check_entries(group: GroupId, log: &Recovered, report: &mut Report) {
    let commands = log.entries.iter().filter(|entry| entry.kind == EntryKind::Normal);
    for Entry { index, data, .. } in commands {
        let read = match group {
            GroupId::SPINE => SpineEntry::decode(data.clone()).map(|_| ()),
            _ => RangeEntry::decode(data.clone()).map(|_| ()),
        };
        if let Err(error) = read {
            report.group(group, format!("entry {index} of its log cannot be read: {error}"));
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
        (GroupId::SPINE, None, _) | (_, _, None) => {}
        (_, _, Some(stored)) => {
            log.applied = stored.position.place();
            log.conf = stored.conf.clone();
            check_writes(group, &log, stored, report);
        }
    }
    let (applied, is_first) = (log.applied.index, log.applied == Recovered::FIRST);
    match log.check() {
        Ok(None) => {}
        // A replica that begins has no log yet.
        Ok(Some(_)) if is_first => {}
        Ok(Some(_)) => report.note(format!(
            "group {group}: its state, at index {applied}, is ahead of its log, as after a snapshot"
        )),
        Err(error) => report.group(group, error.to_string()),
    }
}

/// Every request up to where the state stands was seen by it (I13).
fn check_requests(log: &Recovered, state: &State, report: &mut Report) {
    let commands = log.entries.iter().filter(|entry| entry.kind == EntryKind::Normal);
    for entry in commands.take_while(|entry| entry.index <= log.applied.index) {
        let Ok(content) = SpineEntry::decode(entry.data.clone()) else { continue };
        for record in content.records {
            let id = RequestId { origin: record.origin, n: record.n };
            if record.body.is_some() && state.has_seen(id) == Some(false) {
                let (index, applied) = (entry.index, log.applied.index);
                let text = format!(
                    "its state stands at index {applied}, and knows nothing of request {} of {:x} at \
                     index {index} (I13)",
                    id.n, id.origin
                );
                report.group(GroupId::SPINE, text);
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
    let writes_count: u64 = joined(log, stored).map(|content| content.writes.len() as u64).sum();
    let (index, seq) = (stored.position.index, stored.position.seq);
    if writes_count != seq {
        let text = format!(
            "its state stands at index {index} with {seq} writes, its log has {writes_count} up to \
             there (I6)"
        );
        report.group(range, text);
    }
}
