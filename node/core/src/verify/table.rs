//! The spine's state by itself, and the table of ranges beside the replicas that are here.

use std::collections::BTreeSet;
use std::ops::{Bound, ControlFlow};

use super::{Kind, Known, Place, Report};
use crate::mvcc::layout::{COMPACTION_ROW, CompactionCursor};
use crate::proto::internal::Run;
use crate::range::run;
use crate::range::stored::{self, Stored};
use crate::snapshot::NODE_LOCAL;
use crate::spine::ranges::Range;
use crate::spine::state::{self, State};
use crate::view::{Column, View};
use crate::{GroupId, NodeId};

pub(super) fn check(known: &Known, view: &dyn View, report: &mut Report) {
    check_meta_rows(view, report);
    check_cursor(&known.cursor, report);
    check_overlaps(known, report);
    for (range, stored) in &known.stored {
        check_stored(*range, stored, known.state.as_ref(), report);
    }
    let Some(state) = &known.state else {
        if !known.stored.is_empty() {
            report.find(Kind::Owner, Place::Store, "there are ranges, but no state of the spine");
        }
        return;
    };
    check_position(state, report);
    check_members(state, report);
    check_users(state, view, report);
    for (range, table) in state.ranges().iter() {
        check_range(range, table, state, report);
    }
    for (id, lease) in state.leases() {
        let unknown =
            lease.ranges.iter().find(|range| state.ranges().get(GroupId(**range)).is_none());
        if let Some(range) = unknown {
            let text = format!("lease {id:x} has keys in range {range}, which does not exist");
            report.group(Kind::Lease, GroupId::SPINE, text);
        }
    }
}

fn check_meta_rows(view: &dyn View, report: &mut Report) {
    let scanned = view.scan(Column::Meta, Bound::Unbounded, Bound::Unbounded, &mut |key, _| {
        let is_known = key.first() == Some(&NODE_LOCAL)
            || key == COMPACTION_ROW
            || stored::is_row(key)
            || state::is_row(key);
        if !is_known {
            report.note(format!("the meta row {key:02x?} is of a kind this version does not know"));
        }
        ControlFlow::Continue(())
    });
    if let Err(error) = scanned {
        report.find(Kind::Unreadable, Place::Store, error.0);
    }
}

fn check_cursor(cursor: &CompactionCursor, report: &mut Report) {
    let CompactionCursor { finished, target, .. } = *cursor;
    if finished > target || finished < -1 {
        let text = format!("compaction has finished {finished} on its way to {target}");
        report.row(Kind::Compaction, Column::Meta, COMPACTION_ROW, text);
    }
}

/// A key has one owner (I9).
fn check_overlaps(known: &Known, report: &mut Report) {
    let mut by_start: Vec<_> = known.stored.iter().collect();
    by_start.sort_by(|(_, one), (_, other)| one.span.start.cmp(&other.span.start));
    for pair in by_start.windows(2) {
        let ((left, one), (right, other)) = (pair[0], pair[1]);
        if one.span.overlaps(&other.span) {
            let text = format!("its replica has keys that range {left} has, too (I9)");
            report.group(Kind::Owner, *right, text);
        }
    }
}

fn check_stored(range: GroupId, stored: &Stored, state: Option<&State>, report: &mut Report) {
    let Stored { position, noted, span, generation, .. } = stored;
    let mut find = |kind: Kind, text: String| report.group(kind, range, text);
    if range == GroupId::SPINE || span.is_empty() {
        find(Kind::Owner, format!("its replica has the keys {span:?}"));
    }
    if position.index == 0 || position.term == 0 {
        let text =
            format!("its state stands at index {} of term {}", position.index, position.term);
        find(Kind::Position, text);
    }
    if *noted > position.seq {
        let text = format!("its log tells of write {noted}, its state of {} only", position.seq);
        find(Kind::Position, text);
    }
    if stored.conf_changed > position.index {
        let (changed, index) = (stored.conf_changed, position.index);
        let text = format!("its members changed at index {changed}, its state stands at {index}");
        find(Kind::Position, text);
    }
    if let Some(locked) = stored.prepared.iter().find(|it| it.index > position.index) {
        let (locked, index) = (locked.index, position.index);
        let text = format!("it locks keys since index {locked}, its state stands at {index}");
        find(Kind::Position, text);
    }
    let table = state.and_then(|state| state.ranges().get(range));
    let Some(table) = table else { return };
    if table.generation == *generation && table.span != *span {
        let text =
            format!("its replica has the keys {span:?}, the table says {:?} (I9)", table.span);
        find(Kind::Owner, text);
    }
}

fn check_position(state: &State, report: &mut Report) {
    let position = state.position();
    let mut find = |text: String| report.group(Kind::Position, GroupId::SPINE, text);
    if position.index == 0 || position.term == 0 || position.revision < 1 {
        find(format!("its state stands at {position:?}"));
    }
    if position.compact_revision > position.revision {
        let (compacted, revision) = (position.compact_revision, position.revision);
        find(format!("it is compacted at {compacted}, and stands at revision {revision}"));
    }
    if state.newest_window() > position.index {
        let (seen, index) = (state.newest_window(), position.index);
        find(format!("a request was seen at index {seen}, its state stands at {index}"));
    }
}

fn check_members(state: &State, report: &mut Report) {
    let mut find = |text: String| report.group(Kind::Members, GroupId::SPINE, text);
    let (conf, members) = (state.conf(), state.members());
    // Of many members some only learn in the spine without being learners for their clients.
    for id in conf.voters.iter().chain(&conf.learners) {
        match members.get(id) {
            None => find(format!("{} has a role in the spine, and is no member", NodeId(*id))),
            Some(member) if member.is_learner && conf.voters.contains(id) => {
                find(format!("{} votes, and is a learner", NodeId(*id)));
            }
            Some(_) => {}
        }
    }
    for id in members.keys() {
        if state.removed().contains(id) {
            find(format!("member {} was removed", NodeId(*id)));
        }
        let all = [&conf.voters, &conf.learners, &conf.voters_outgoing, &conf.learners_next];
        if !all.iter().any(|ids| ids.contains(id)) {
            find(format!("member {} has no role", NodeId(*id)));
        }
    }
}

/// The rows of users and roles bear their names, and roles that are granted exist.
fn check_users(state: &State, view: &dyn View, report: &mut Report) {
    let auth = state.auth();
    let users = auth.user_names().map(|name| (state::user_row(name), "user", name));
    let roles = auth.role_names().map(|name| (state::role_row(name), "role", name));
    for (row, what, name) in users.chain(roles) {
        match view.get(Column::Meta, &row) {
            Ok(Some(_)) => {}
            Ok(None) => {
                let text = format!("{what} {name} has another's row");
                report.group(Kind::Users, GroupId::SPINE, text);
            }
            Err(error) => report.find(Kind::Unreadable, Place::Store, error.0),
        }
    }
    if auth.changed_at() > state.position().index {
        let (changed, index) = (auth.changed_at(), state.position().index);
        let text = format!("users changed at index {changed}, its state stands at {index}");
        report.group(Kind::Users, GroupId::SPINE, text);
    }
    for name in auth.user_names() {
        let granted = auth.user(name).map_or(&[][..], |user| user.roles());
        let is_there = |role: &&String| *role == crate::auth::ROOT || auth.role(role).is_some();
        if let Some(role) = granted.iter().find(|role| !is_there(role)) {
            let text = format!("user {name} has role {role}, which does not exist");
            report.group(Kind::Users, GroupId::SPINE, text);
        }
    }
}

fn check_range(id: GroupId, range: &Range, state: &State, report: &mut Report) {
    let mut find = |kind: Kind, text: String| report.group(kind, id, text);
    if id.0 >= state.next_range() {
        find(
            Kind::Table,
            format!("the table has it, though the next new range is {}", state.next_range()),
        );
    }
    if range.parent != GroupId::SPINE && state.ranges().get(range.parent).is_none() {
        find(Kind::Table, format!("it was cut off range {}, which does not exist", range.parent));
    }
    let holders: BTreeSet<NodeId> = range.replicas.iter().copied().collect();
    if holders.len() < range.replicas.len() {
        find(Kind::Table, "the table has a replica twice".to_owned());
    }
    if let Some(node) = holders.iter().find(|node| !state.members().contains_key(&node.0)) {
        find(Kind::Table, format!("the table has a replica on {node}, which is no member"));
    }
    if range.settled > range.changes {
        let (settled, changes) = (range.settled, range.changes);
        find(Kind::Table, format!("{settled} changes of its holders are settled, of {changes}"));
    }
    check_runs(range, state.position().revision, &mut |text| find(Kind::Numbers, text));
}

/// How writes were numbered is remembered without a gap, and revisions rise (I1, I3).
fn check_runs(range: &Range, head: i64, find: &mut dyn FnMut(String)) {
    let mut revision = 0;
    let mut next: Option<u64> = None;
    for it in range.runs() {
        let Run { first, count, voids, .. } = it;
        let voids_count = voids.len() as u64;
        if *first == 0 || *count == 0 || voids_count > *count || next.is_some_and(|at| at != *first)
        {
            find(format!("its writes from {first} on are numbered after those before {next:?}"));
            return;
        }
        let Some(end) = first.checked_add(*count) else {
            find(format!("{count} of its writes are numbered from {first} on"));
            return;
        };
        next = Some(end);
        let seqs: Vec<u64> = voids.iter().map(|void| void.seq).collect();
        if !seqs.is_sorted_by(|one, other| one < other)
            || seqs.iter().any(|seq| !(*first..end).contains(seq))
        {
            find(format!("of its writes {first} to {} others are void", end - 1));
        }
        if it.revision != 0 {
            let last = it.revision.saturating_add_unsigned(count - voids_count) - 1;
            if it.revision <= revision || last > head {
                find(format!(
                    "its writes from {first} on have revisions {} to {last}, after {revision} and up \
                     to {head}",
                    it.revision
                ));
            }
            revision = last;
        }
    }
    let numbered = range.runs().last().map(run::last);
    if numbered.is_some_and(|last| last != range.assigned) {
        find(format!("writes up to {} are numbered, those known to {numbered:?}", range.assigned));
    }
}
