//! A clean store with its logs, and one harm of each kind: what is found is that and is at its place.

use bytes::{Bytes, BytesMut};
use prost::Message;

use super::*;
use crate::LeaseId;
use crate::group::{Entry, EntryKind, HardState, Position};
use crate::memory::MemoryView;
use crate::mvcc::layout::{self, COMPACTION_ROW, Record as Row, Revision};
use crate::mvcc::{self, Applier};
use crate::proto::Span;
use crate::proto::authpb::User;
use crate::proto::internal::record::Body;
use crate::proto::internal::{
    ConfState, Effect, LeaseGrant, Member, MemberChange, Range, RangeEntry, RangeWrite, Record,
    Ref, Refs, Run, SpineEntry, Write,
};
use crate::spine::state;
use crate::view::{Batch, Column};

const LEASE: i64 = 0x1ea5e;
const RANGE: GroupId = GroupId(1);

/// A node of a cluster of one.
#[derive(Clone)]
struct Node {
    state: State,
    view: MemoryView,
    logs: BTreeMap<GroupId, Recovered>,
}

impl Node {
    /// Founded, with the cuts.
    fn founded(cuts: &[&'static str]) -> Self {
        let member = Member { id: 1, name: "n".into(), ..Member::default() };
        let mut state = State::bootstrap(7, vec![member]);
        let cuts: Vec<Bytes> = cuts.iter().map(|key| Bytes::from_static(key.as_bytes())).collect();
        state.pre_split(&cuts, &[crate::NodeId(1)]);
        let mut batch = Batch::default();
        state.write_all(&mut batch);
        let conf = ConfState { voters: vec![1], ..ConfState::default() };
        for (range, known) in state.ranges().iter() {
            Stored::first(conf.clone(), known.span.clone()).write(range, &mut batch);
        }
        let mut view = MemoryView::default();
        view.apply(&batch);
        let first = Position { index: 1, term: 1 };
        let hard_state = HardState { term: 1, vote: 0, commit: 1 };
        let log = Recovered { truncated: first, hard_state, ..Recovered::default() };
        let ranges = state.ranges().iter().map(|(range, _)| range);
        let logs = ranges.chain([GroupId::SPINE]).map(|group| (group, log.clone())).collect();
        Self { state, view, logs }
    }

    /// An entry of the spine's log with a record, folded and applied.
    fn fold(&mut self, body: Body, effects: &[Effect]) -> i64 {
        let before = self.state.position();
        let index = before.index + 1;
        let record = Record { origin: 9, n: index, body: Some(body) };
        let entry = SpineEntry { records: vec![record.clone()] };
        self.append(GroupId::SPINE, index, &entry);
        self.state.enter(index, before.term);
        let mut batch = Batch::default();
        self.state.fold(&record, &mut batch);
        let revision = self.state.position().revision;
        Applier::new(&self.view)
            .apply(revision, effects, false, &mut batch, &mut Vec::new())
            .expect("it is in memory");
        self.state.write_windows(before.index, &mut batch);
        self.state.position().write(&mut batch);
        self.view.apply(&batch);
        revision
    }

    fn append(&mut self, group: GroupId, index: u64, content: &impl Message) {
        let log = self.logs.get_mut(&group).expect("a log");
        let data = content.encode_to_vec().into();
        let (kind, context) = (EntryKind::Normal, Bytes::new());
        log.entries.push(Entry { index, term: 1, kind, data, context });
        log.hard_state = HardState { term: 1, vote: 1, commit: index };
    }

    fn write(&mut self, effect: Effect) -> i64 {
        let effects = vec![effect.clone()];
        self.fold(Body::Write(Write { effects, pass: 0 }), &[effect])
    }

    /// A write in the range's log, numbered by the spine, applied; and noted.
    fn write_in_range(&mut self, effect: Effect) {
        let mut stored = Stored::load(&self.view, RANGE).expect("read").expect("there");
        let (index, seq) = (stored.position.index + 1, stored.position.seq + 1);
        let write = RangeWrite { effects: vec![effect.clone()], ..RangeWrite::default() };
        self.append(RANGE, index, &RangeEntry { writes: vec![write], ..RangeEntry::default() });
        let reference = Ref { range: RANGE.0, upto: seq, ..Ref::default() };
        let revision = self.fold(Body::Refs(Refs { refs: vec![reference] }), &[]);
        let notes = vec![Run { first: seq, count: 1, revision, voids: Vec::new() }];
        self.append(RANGE, index + 1, &RangeEntry { notes, ..RangeEntry::default() });
        let mut batch = Batch::default();
        Applier::new(&self.view)
            .apply(revision, &[effect], false, &mut batch, &mut Vec::new())
            .expect("it is in memory");
        stored.position.seq = seq;
        stored.position.index = index + 1;
        stored.noted = seq;
        stored.write(RANGE, &mut batch);
        self.view.apply(&batch);
    }

    /// Two keys, one of them with a history, a tombstone and one that is attached to a lease.
    fn filled() -> Self {
        let mut node = Self::founded(&[]);
        node.write(put("a", 0));
        node.write(put("a", 0));
        node.write(put("b", 0));
        node.write(Effect { key: "b".into(), is_delete: true, ..Effect::default() });
        node.fold(Body::LeaseGrant(LeaseGrant { id: LEASE, ttl: 10 }), &[]);
        node.write(put("c", LEASE));
        node
    }

    /// Range 1 has what is from "m" on.
    fn with_range() -> Self {
        let mut node = Self::founded(&["m"]);
        node.write(put("a", 0));
        node.write_in_range(put("x", 0));
        node.write_in_range(put("x", 0));
        node
    }

    fn get(&self, column: Column, key: &[u8]) -> Bytes {
        self.view.get(column, key).expect("it is in memory").expect("a row")
    }

    fn put(&mut self, column: Column, key: &[u8], value: impl Into<Bytes>) {
        let mut batch = Batch::default();
        batch.put(column, Bytes::copy_from_slice(key), value);
        self.view.apply(&batch);
    }

    fn delete(&mut self, column: Column, key: &[u8]) {
        let mut batch = Batch::default();
        batch.delete(column, Bytes::copy_from_slice(key));
        self.view.apply(&batch);
    }

    fn stored(&mut self, change: impl FnOnce(&mut Stored)) {
        let mut stored = Stored::load(&self.view, RANGE).expect("read").expect("there");
        change(&mut stored);
        let mut batch = Batch::default();
        stored.write(RANGE, &mut batch);
        self.view.apply(&batch);
    }

    /// The row of the range in the spine's table.
    fn table(&mut self, change: impl FnOnce(&mut Range)) {
        let row = state::range_row(RANGE);
        let mut range = Range::decode(self.get(Column::Meta, &row)).expect("a row");
        change(&mut range);
        self.put(Column::Meta, &row, range.encode_to_vec());
    }

    fn report(&self) -> Report {
        verify(&self.view, Some(&self.logs))
    }

    #[track_caller]
    fn finds(&self, kind: Kind) {
        let report = self.report();
        assert!(report.findings.iter().any(|it| it.kind == kind), "no {kind:?}: {report:#?}");
    }

    /// That, and nothing of another kind.
    #[track_caller]
    fn finds_only(&self, kind: Kind) {
        self.finds(kind);
        let report = self.report();
        assert!(report.findings.iter().all(|it| it.kind == kind), "{report:#?}");
    }
}

fn put(key: &'static str, lease: i64) -> Effect {
    Effect { key: key.into(), value: "value".into(), lease, ..Effect::default() }
}

fn at(main: i64) -> [u8; layout::REVISION_BYTES] {
    Revision { main, sub: 0 }.encode()
}

fn history_row(key: &str, main: i64) -> Bytes {
    let mut row = BytesMut::new();
    layout::encode_history_key(key.as_bytes(), Revision { main, sub: 0 }, &mut row);
    row.freeze()
}

#[test]
fn what_has_come_about_is_clean() {
    let report = Node::filled().report();
    assert!(report.is_clean(), "{report:#?}");
    assert_eq!((report.groups_count, report.entries_count), (1, 6));
    assert_eq!(report.rows_count[Column::Revision as usize], 5);
    let report = Node::with_range().report();
    assert!(report.is_clean(), "{report:#?}");
    assert_eq!((report.groups_count, report.entries_count), (2, 7));
    assert!(Node::founded(&[]).report().is_clean());
    assert_eq!(verify(&MemoryView::default(), None), Report::default());
}

#[test]
fn without_logs_the_rows_alone_are_judged() {
    let node = Node::with_range();
    let report = verify(&node.view, None);
    assert!(report.is_clean() && report.groups_count == 0, "{report:#?}");
}

#[test]
fn a_row_that_others_are_judged_by_cannot_be_read() {
    let mut node = Node::with_range();
    node.put(Column::Meta, &stored::key(RANGE), &b"\xff\xff"[..]);
    node.finds_only(Kind::Unreadable);
}

#[test]
fn a_row_is_malformed() {
    let mut node = Node::filled();
    node.put(Column::LeaseKey, &mvcc::lease_row(LeaseId(LEASE), b"c"), &b"x"[..]);
    node.finds_only(Kind::Malformed);
    let mut node = Node::filled();
    node.put(Column::History, &history_row("a", 2), &b"what is this"[..]);
    node.finds(Kind::Malformed);
}

#[test]
fn an_event_is_missing() {
    let mut node = Node::filled();
    node.delete(Column::Revision, &at(3));
    let report = node.report();
    assert_eq!(report.findings[0].place, Place::Row(Column::Key, "a".into()), "{report:#?}");
    node.finds(Kind::EventMissing);
    // Nothing else would say that it was there.
    node.finds(Kind::Gap);
}

#[test]
fn an_event_differs() {
    let mut node = Node::filled();
    let row = node.get(Column::Revision, &at(3));
    let changed: Vec<u8> = String::from_utf8_lossy(&row[row.len() - 5..]).to_uppercase().into();
    let row: Bytes = [&row[..row.len() - 5], &changed[..]].concat().into();
    node.put(Column::Revision, &at(3), row);
    node.finds_only(Kind::EventDiffers);
    let text = node.report().findings[0].to_string();
    assert_eq!(text, "event-differs: store, key \"a\": the event at its revision 3.0 differs");
}

#[test]
fn a_key_is_missing() {
    let mut node = Node::filled();
    node.delete(Column::Key, b"a");
    node.finds_only(Kind::KeyMissing);
    let mut node = Node::filled();
    node.delete(Column::Key, b"c");
    node.finds_only(Kind::KeyMissing);
}

#[test]
fn a_key_stands_still() {
    let mut node = Node::filled();
    let older = node.get(Column::Revision, &at(2));
    node.put(Column::Key, b"a", older);
    node.finds_only(Kind::KeyStale);
}

#[test]
fn the_history_does_not_have_an_event() {
    let mut node = Node::filled();
    node.delete(Column::History, &history_row("a", 2));
    node.finds_only(Kind::HistoryMissing);
}

#[test]
fn numbers_do_not_continue() {
    let mut node = Node::filled();
    let row = Row::decode(node.get(Column::Key, b"a")).expect("a record");
    let mut kv = layout::decode_key_value(row.kv.clone()).expect("a key");
    kv.version += 1;
    let mut changed = BytesMut::new();
    row.head.encode(&mut changed);
    changed.extend_from_slice(&kv.encode_to_vec());
    node.put(Column::Key, b"a", changed.clone());
    node.put(Column::Revision, &at(3), changed);
    node.finds_only(Kind::Version);
}

#[test]
fn a_revision_is_missing() {
    let mut node = Node::filled();
    for (column, row) in [
        (Column::Key, Bytes::from("b")),
        (Column::Revision, at(4).to_vec().into()),
        (Column::Revision, at(5).to_vec().into()),
        (Column::History, history_row("b", 4)),
    ] {
        node.delete(column, &row);
    }
    node.finds_only(Kind::Gap);
}

#[test]
fn a_revision_is_ahead() {
    let mut node = Node::filled();
    // As if the store had lost the end of the spine's state, and kept the rows of what it numbered.
    let earlier = Node::founded(&[]);
    let mut batch = Batch::default();
    earlier.state.position().write(&mut batch);
    node.view.apply(&batch);
    node.finds(Kind::Ahead);

    let mut node = Node::with_range();
    let revision = node.state.position().revision + 1;
    let mut batch = Batch::default();
    Applier::new(&node.view)
        .apply(revision, &[put("y", 0)], false, &mut batch, &mut Vec::new())
        .expect("it is in memory");
    node.view.apply(&batch);
    node.finds_only(Kind::Ahead);
}

#[test]
fn what_is_compacted_is_still_there() {
    let mut node = Node::filled();
    let cursor = CompactionCursor {
        finished: 3,
        target: 3,
        ..CompactionCursor::load(&node.view).expect("read")
    };
    node.put(Column::Meta, COMPACTION_ROW, cursor.encode());
    node.finds_only(Kind::Compaction);
}

#[test]
fn a_lease_and_its_keys_do_not_agree() {
    let mut node = Node::filled();
    node.delete(Column::LeaseKey, &mvcc::lease_row(LeaseId(LEASE), b"c"));
    node.finds_only(Kind::Lease);
    let mut node = Node::filled();
    node.put(Column::LeaseKey, &mvcc::lease_row(LeaseId(LEASE), b"a"), Bytes::new());
    node.finds_only(Kind::Lease);
}

#[test]
fn a_key_has_two_owners_or_none() {
    let mut node = Node::with_range();
    node.stored(|stored| stored.span = Span { start: "k".into(), end: None });
    node.finds_only(Kind::Owner);

    // It has left or was merged away, or has begun and nothing of it came yet.
    let mut node = Node::with_range();
    node.delete(Column::Meta, &stored::key(RANGE));
    let report = node.report();
    assert!(report.is_clean() && report.notes.len() == 1, "{report:#?}");

    let mut node = Node::with_range();
    let mut batch = Batch::default();
    Stored::first(
        ConfState { voters: vec![1], ..ConfState::default() },
        Span { start: "x".into(), end: None },
    )
    .write(GroupId(5), &mut batch);
    node.view.apply(&batch);
    node.finds(Kind::Owner);
}

#[test]
fn where_a_state_stands_makes_no_sense() {
    let mut node = Node::with_range();
    node.stored(|stored| stored.noted = stored.position.seq + 1);
    node.finds_only(Kind::Position);
    let mut node = Node::with_range();
    node.stored(|stored| stored.conf_changed = stored.position.index + 1);
    node.finds_only(Kind::Position);
}

#[test]
fn a_state_does_not_stand_where_its_log_says() {
    // It claims one write more, or one entry more, than the log has.
    let mut node = Node::with_range();
    node.stored(|stored| stored.position.seq += 1);
    node.finds_only(Kind::Covered);
    let mut node = Node::with_range();
    node.stored(|stored| stored.position.index -= 2);
    node.finds_only(Kind::Covered);
    // The log starts behind it.
    let mut node = Node::with_range();
    let log = node.logs.get_mut(&RANGE).expect("a log");
    log.entries.drain(..3);
    log.truncated.index += 3;
    node.stored(|stored| (stored.position.index, stored.position.seq) = (3, 1));
    node.finds(Kind::Covered);
    // The spine's log was lost.
    let mut node = Node::filled();
    node.logs.get_mut(&GroupId::SPINE).expect("a log").entries.pop();
    node.finds_only(Kind::Covered);
    // Even if the log does not remember that more was committed: nobody else could have told the state.
    let mut node = Node::filled();
    let log = node.logs.get_mut(&GroupId::SPINE).expect("a log");
    log.entries.pop();
    log.hard_state.commit -= 1;
    node.finds_only(Kind::Covered);
    // A request was folded of which the state knows nothing.
    let mut node = Node::filled();
    let entry = Record { origin: 5, n: 1, body: Some(Body::Refs(Refs::default())) };
    let data = SpineEntry { records: vec![entry] }.encode_to_vec().into();
    node.logs.get_mut(&GroupId::SPINE).expect("a log").entries[0].data = data;
    node.finds_only(Kind::Covered);
}

#[test]
fn a_log_has_a_gap_or_an_entry_that_means_nothing() {
    let mut node = Node::with_range();
    node.logs.get_mut(&RANGE).expect("a log").entries.remove(1);
    node.finds(Kind::LogEntry);
    let mut node = Node::filled();
    let log = node.logs.get_mut(&GroupId::SPINE).expect("a log");
    log.entries[4].data = Bytes::from_static(b"\xff\xff\xff");
    node.finds_only(Kind::LogEntry);
}

#[test]
fn members_and_consensus_do_not_agree() {
    let mut node = Node::filled();
    let mut conf = node.state.conf().clone();
    conf.voters.push(2);
    let mut batch = Batch::default();
    node.state.enter(8, 1);
    let change = MemberChange::default();
    node.state.fold_change(&change, conf, &mut batch);
    node.view.apply(&batch);
    node.finds_only(Kind::Members);
}

#[test]
fn a_role_that_is_granted_is_not_there() {
    let mut node = Node::filled();
    let roles = vec!["nobody".to_owned()];
    let user = User { name: "u".into(), roles, ..User::default() };
    node.put(Column::Meta, &state::user_row("u"), user.encode_to_vec());
    node.finds_only(Kind::Users);
}

#[test]
fn the_table_contradicts_itself() {
    let mut node = Node::with_range();
    node.table(|range| range.parent = 77);
    node.finds_only(Kind::Table);
}

#[test]
fn how_writes_were_numbered_has_a_gap() {
    let mut node = Node::with_range();
    node.table(|range| range.assigned += 1);
    node.finds_only(Kind::Numbers);
}

#[test]
fn further_findings_are_counted() {
    let mut node = Node::founded(&[]);
    for n in 0..FINDINGS_MAX + 3 {
        node.put(
            Column::LeaseKey,
            &mvcc::lease_row(LeaseId(1), format!("{n}").as_bytes()),
            Bytes::new(),
        );
    }
    let report = node.report();
    assert_eq!((report.findings.len(), report.unlisted_count), (FINDINGS_MAX, 3));
}
