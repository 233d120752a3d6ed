//! Snapshots of groups that share a store: what is sent, removed and installed, against the plain
//! rule of which row belongs to whom; and that compaction stays right when its cursors meet.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::ops::Bound;

use bytes::Bytes;

use super::*;
use crate::GroupId;
use crate::memory::MemoryView;
use crate::mvcc::layout::{COMPACTION_ROW, CompactionCursor};
use crate::mvcc::{self, Applier, Head};
use crate::proto::etcdserverpb as pb;
use crate::proto::internal::{ConfState, Effect, RaftMessage, SnapshotAck, SnapshotHeader};
use crate::proto::{NodeId, Span};
use crate::range::stored::{self, Position, Stored};
use crate::spine::State;
use crate::spine::ranges::{Range, Ranges};
use crate::view::{Batch, View, ViewError, Visit};

/// splitmix64.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// Bounds of ranges and keys beside them, with the bytes that are escaped.
const KEYS: [&[u8]; 11] =
    [b"a", b"a\0", b"a\0\xff", b"b", b"b\0", b"ba", b"c\0", b"k\xff", b"m", b"m\xff\0", b"z"];

fn span(start: &'static [u8], end: Option<&'static [u8]>) -> Span {
    Span { start: Bytes::from_static(start), end: end.map(Bytes::from_static) }
}

/// Range 1 has [b, c\0), range 2 [m, ..); range 0 has the rest, in two pieces.
fn ranges() -> Ranges {
    let mut ranges = Ranges::default();
    // Not in the order of their keys.
    ranges.insert(GroupId(2), Range::new(span(b"b", Some(b"c\0")), vec![NodeId(1)]));
    ranges.insert(GroupId(1), Range::new(span(b"m", None), vec![NodeId(1)]));
    ranges
}

const GROUPS: [GroupId; 3] = [GroupId::SPINE, GroupId(1), GroupId(2)];

fn scope(group: GroupId) -> Scope {
    Scope::new(group, &ranges()).unwrap()
}

/// A node's store, and what was written.
#[derive(Clone)]
struct Store {
    view: MemoryView,
    revision: i64,
}

impl Store {
    fn new() -> Self {
        let members = vec![crate::spine::Member { id: 1, ..Default::default() }];
        let state = State::bootstrap(7, members);
        let mut batch = Batch::default();
        state.write_all(&mut batch);
        let ranges = ranges();
        for (id, known) in ranges.iter() {
            let key = [&[b'g'][..], &id.0.to_be_bytes()].concat();
            batch.put(Column::Meta, key, ranges.encode(id).unwrap());
            let conf = ConfState { voters: vec![1], ..Default::default() };
            Stored::first(conf, known.span.clone()).write(id, &mut batch);
        }
        batch.put(Column::Meta, vec![NODE_LOCAL, b'i'], "mine");
        let mut view = MemoryView::new();
        view.apply(&batch);
        Self { view, revision: 1 }
    }

    fn write(&mut self, effects: &[Effect]) {
        self.revision += 1;
        self.write_at(self.revision, effects);
    }

    fn write_at(&mut self, revision: i64, effects: &[Effect]) {
        let (mut batch, mut events) = (Batch::default(), Vec::new());
        let applied =
            Applier::new(&self.view).apply(revision, effects, false, &mut batch, &mut events);
        applied.unwrap();
        self.view.apply(&batch);
    }

    fn compact(&mut self, target: i64, rows_max: usize, steps: u64) {
        for _ in 0..steps {
            let slice = mvcc::compact_slice(&self.view, target, rows_max).unwrap();
            self.view.apply(&slice.batch);
            if slice.is_finished {
                return;
            }
        }
    }

    fn rows(&self) -> Rows {
        let all = Column::ALL.iter().flat_map(|column| {
            let rows = self.view.rows(*column);
            rows.map(|(key, value)| (*column, key.clone(), value.clone()))
        });
        all.collect()
    }

    fn rows_of(&self, group: GroupId) -> Rows {
        let scope = scope(group);
        let holds =
            |row: &(Column, Bytes, Bytes)| scope.holds(row.0, &row.1, &row.2).expect("our own");
        self.rows().into_iter().filter(holds).collect()
    }
}

type Rows = BTreeSet<(Column, Bytes, Bytes)>;

fn without_cursor(rows: Rows) -> Rows {
    rows.into_iter().filter(|row| row.1 != COMPACTION_ROW).collect()
}

/// A random change of one or more keys that fits the store.
fn change(numbers: &mut Numbers, view: &MemoryView) -> Vec<Effect> {
    let mut effects: Vec<Effect> = Vec::new();
    for _ in 0..=numbers.below(3) {
        let key = Bytes::from_static(KEYS[numbers.below(KEYS.len() as u64) as usize]);
        if effects.iter().any(|effect| effect.key == key) {
            continue;
        }
        let read = pb::RangeRequest { key: key.clone(), ..Default::default() };
        let head = Head { revision: i64::MAX - 1, compact_revision: -1 };
        let is_there = mvcc::read(view, head, &read).unwrap().count > 0;
        let is_delete = is_there && numbers.below(3) == 0;
        let lease = if is_delete { 0 } else { numbers.below(3).cast_signed() };
        let value = Bytes::from(vec![b'v'; numbers.below(40) as usize]);
        effects.push(Effect { key, value, lease, is_delete, ..Default::default() });
    }
    effects
}

fn random_store(seed: u64) -> Store {
    random_stores(seed, 60, 60)[0].clone()
}

/// Two nodes that have applied so many of the same writes, and compacted as they like.
fn random_stores(seed: u64, one: u64, other: u64) -> [Store; 2] {
    [(one, seed + 1_000), (other, seed + 2_000)]
        .map(|(count, seed_of_compaction)| random_node(seed, count, seed_of_compaction))
}

fn random_node(seed: u64, count: u64, seed_of_compaction: u64) -> Store {
    let (mut writes, mut numbers) = (Numbers(seed), Numbers(seed_of_compaction));
    let mut store = Store::new();
    for _ in 0..count {
        let effects = change(&mut writes, &store.view);
        store.write(&effects);
        if numbers.below(8) == 0 {
            let target = CompactionCursor::load(&store.view).unwrap().target;
            let target = target.max(store.revision - numbers.below(20).cast_signed());
            store.compact(target, 3, numbers.below(5));
        }
    }
    store
}

fn send(view: &dyn View, group: GroupId, chunk_bytes_max: usize) -> MemoryView {
    let limits = Limits { chunk_bytes_max, row_bytes_max: 4096, window_chunks_max: 2 };
    let scope = Scope::load(view, group).unwrap().unwrap();
    let header = SnapshotHeader {
        id: 9,
        message: Some(RaftMessage { group: group.0, ..Default::default() }),
        mark: to_send(view, group).unwrap().map(|(mark, _)| mark),
    };
    let mut sender = Sender::new(9, scope.clone(), limits);
    let mut receiver = Receiver::new(&header, scope, limits).unwrap();
    let mut staged = MemoryView::new();
    while !sender.is_finished() {
        let chunk = sender.next(view).unwrap().expect("all is acknowledged");
        let received = receiver.on_chunk(chunk).unwrap();
        let mut batch = Batch::default();
        for Row { column, key, value } in received.rows {
            batch.put(column, key, value);
        }
        staged.apply(&batch);
        let ack = SnapshotAck { id: 9, sequence: received.ack.sequence, is_refused: false };
        sender.on_ack(&ack).unwrap();
    }
    assert!(receiver.is_complete());
    staged
}

fn all_rows(view: &MemoryView) -> Rows {
    Store { view: view.clone(), revision: 0 }.rows()
}

#[test]
fn every_row_is_sent_with_one_group_and_with_no_other() {
    for seed in 0..40 {
        let store = random_store(seed);
        let mut together = Rows::new();
        let mut count = 0;
        for group in GROUPS {
            let staged = send(&store.view, group, [1, 70, 300, 1 << 20][seed as usize % 4]);
            let rows = all_rows(&staged);
            assert!(rows == store.rows_of(group), "seed {seed}, group {group}");
            let rows = without_cursor(rows);
            count += rows.len();
            together.extend(rows);
        }
        let mut all = without_cursor(store.rows());
        assert!(all.remove(&(
            Column::Meta,
            Bytes::from_static(&[NODE_LOCAL, b'i']),
            "mine".into()
        )));
        assert_eq!((together.len(), count), (all.len(), all.len()), "seed {seed}");
        assert!(together == all, "seed {seed}");
    }
}

#[test]
fn the_holes_of_range_0_are_what_is_left() {
    let spans = |group| scope(group).spans().to_vec();
    let span = |start: &'static [u8], end: Option<&'static [u8]>| Span {
        start: Bytes::from_static(start),
        end: end.map(Bytes::from_static),
    };
    assert_eq!(spans(GroupId::SPINE), [span(b"", Some(b"b")), span(b"c\0", Some(b"m"))]);
    assert_eq!(spans(GroupId(1)), [span(b"m", None)]);
    assert_eq!(Scope::new(GroupId(3), &ranges()), None);
    let mut all = Ranges::default();
    all.insert(GroupId(1), Range::new(span(b"m", None), Vec::new()));
    all.insert(GroupId(2), Range::new(span(b"", Some(b"m")), Vec::new()));
    assert_eq!(Scope::new(GroupId::SPINE, &all).unwrap().spans(), []);
    assert!(Scope::new(GroupId::SPINE, &Ranges::default()).unwrap().is_whole());
    assert!(!scope(GroupId::SPINE).is_whole());
}

/// A view that counts what is looked at.
struct Counting<'a>(&'a MemoryView, Cell<usize>);

impl View for Counting<'_> {
    fn get(&self, column: Column, key: &[u8]) -> Result<Option<Bytes>, ViewError> {
        self.1.set(self.1.get() + 1);
        self.0.get(column, key)
    }

    fn scan(
        &self,
        column: Column,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        visit: Visit<'_>,
    ) -> Result<(), ViewError> {
        self.0.scan(column, from, to, &mut |key, value| {
            self.1.set(self.1.get() + 1);
            visit(key, value)
        })
    }

    fn scan_back(
        &self,
        _: Column,
        _: Bound<&[u8]>,
        _: Bound<&[u8]>,
        _: Visit<'_>,
    ) -> Result<(), ViewError> {
        unreachable!("a snapshot is read forwards")
    }
}

#[test]
fn a_small_range_in_a_large_store_is_little_work() {
    let mut store = Store::new();
    let put = |key: &str| Effect { key: key.to_owned().into(), lease: 1, ..Default::default() };
    for n in 0..2_000 {
        store.write(&[put(&format!("a{n}"))]);
    }
    for _ in 0..5 {
        store.write(&[put("b1"), put("b2")]);
    }
    let view = Counting(&store.view, Cell::new(0));
    let staged = send(&view, GroupId(2), 100);
    assert_eq!(staged.rows_count(Column::Revision), 10);
    assert_eq!(staged.rows_count(Column::LeaseKey), 2);
    assert!(view.1.get() < 200, "looked at {} rows", view.1.get());

    let view = Counting(&store.view, Cell::new(0));
    let mut clear = Clear::new(scope(GroupId(2)));
    let mut cleared = store.view.clone();
    while let Some(batch) = clear.next(&view).unwrap() {
        assert!(batch.writes.len() <= CLEAR_RECORDS_MAX * 3);
        cleared.apply(&batch);
    }
    assert!(view.1.get() < 100, "looked at {} rows", view.1.get());
    assert_eq!(all_rows(&store.view).len() - all_rows(&cleared).len(), 2 + 10 + 8 + 2 + 1);
}

#[test]
fn a_group_is_removed_without_a_trace_of_it_and_nothing_else_is() {
    for seed in 0..8 {
        for group in [GroupId(1), GroupId(2)] {
            let mut store = random_store(seed);
            let gone = without_cursor(store.rows_of(group));
            let rest: Rows = store.rows().difference(&gone).cloned().collect();
            // Begun anew after a crash at any batch.
            let mut crash_after = 0;
            'crashed: loop {
                let mut clear = Clear::new(scope(group));
                for n in 0.. {
                    if n == crash_after {
                        crash_after += 1;
                        continue 'crashed;
                    }
                    let Some(batch) = clear.next(&store.view).unwrap() else { break 'crashed };
                    store.view.apply(&batch);
                    assert_eq!(to_send(&store.view, group), Ok(None), "what is left is no state");
                }
            }
            assert!(store.rows() == rest, "seed {seed}, group {group}");
        }
    }
}

fn install(live: &mut MemoryView, staged: &MemoryView, group: GroupId, batches_max: usize) -> bool {
    let scope = Scope::load(live, group).unwrap().unwrap();
    let mut install = Install::new(scope);
    for _ in 0..batches_max {
        let batch = install.next(live, staged).unwrap();
        live.apply(&batch);
        if install.is_finished() {
            return true;
        }
    }
    false
}

#[test]
fn an_installed_group_is_as_sent_and_others_are_as_they_were() {
    for seed in 0..8 {
        for group in GROUPS {
            let [mut ours, theirs] = random_stores(seed, 40, 60);
            let staged = send(&theirs.view, group, 200);
            let mut expected: Rows =
                ours.rows().difference(&ours.rows_of(group)).cloned().collect();
            expected.extend(without_cursor(theirs.rows_of(group)));
            // Begun anew after a crash at any batch.
            let mut batches_max = 0;
            while !install(&mut ours.view, &staged, group, batches_max) {
                batches_max += 1;
            }
            assert!(batches_max > 8, "it takes several batches");
            let rows = without_cursor(ours.rows());
            assert!(rows == expected, "seed {seed}, group {group}");
            let again = CompactionCursor::load(&ours.view).unwrap();
            assert!(install(&mut ours.view, &staged, group, usize::MAX));
            assert_eq!(CompactionCursor::load(&ours.view).unwrap(), again);
        }
    }
}

#[test]
fn what_is_not_the_groups_is_neither_taken_nor_installed() {
    let [mut ours, theirs] = random_stores(1, 50, 60);
    let limits = Limits::default();
    let header = SnapshotHeader {
        id: 9,
        message: Some(RaftMessage { group: 1, ..Default::default() }),
        mark: to_send(&theirs.view, GroupId(1)).unwrap().map(|(mark, _)| mark),
    };
    let is_taken = |row: &(Column, Bytes, Bytes)| {
        let mut receiver = Receiver::new(&header, scope(GroupId(1)), limits).unwrap();
        let checksum = add_row(0, row.0, &row.1, &row.2);
        let (column, key, value) = (row.0 as u32, row.1.clone(), row.2.clone());
        let rows = vec![crate::proto::internal::SnapshotRow { column, key, value }];
        let (id, sequence, is_last) = (9, 1, false);
        let chunk = crate::proto::internal::SnapshotChunk { id, sequence, rows, is_last, checksum };
        match receiver.on_chunk(chunk) {
            Ok(_) => true,
            Err(ReceiverError::Foreign(1)) => false,
            Err(other) => panic!("{other}"),
        }
    };
    let own = theirs.rows_of(GroupId(1));
    for row in theirs.rows() {
        assert_eq!(is_taken(&row), own.contains(&row), "{row:?}");
    }
    assert!(!is_taken(&(
        Column::Revision,
        Bytes::from_static(b"junk"),
        Bytes::from_static(b"junk")
    )));

    let staged = send(&theirs.view, GroupId(2), 200);
    let mut install = Install::new(scope(GroupId(1)));
    let failed = (0..100).any(|_| match install.next(&ours.view, &staged) {
        Ok(batch) => {
            ours.view.apply(&batch);
            false
        }
        Err(_) => true,
    });
    assert!(failed);
}

fn read_all(view: &MemoryView, revision: i64, newest: i64) -> Result<String, mvcc::Failure> {
    let mut read = pb::RangeRequest {
        key: b"\0"[..].into(),
        range_end: b"\0"[..].into(),
        ..Default::default()
    };
    read.revision = revision;
    let head = Head { revision: newest, compact_revision: -1 };
    Ok(format!("{:?}", mvcc::read(view, head, &read)?.kvs))
}

/// Two nodes with the same history and compactions that are anywhere, at different compact
/// revisions. A range goes from one to the other; reads stay exact from the later of both on, and
/// when compaction is through, nothing is there that should not be.
#[test]
fn compaction_stays_right_when_cursors_meet() {
    let (mut ahead, mut behind) = (0, 0);
    for seed in 0..80 {
        let mut numbers = Numbers(seed);
        let mut whole = Store::new();
        let mut nodes = [Store::new(), Store::new()];
        let mut targets = [-1, -1];
        for _ in 0..40 {
            let effects = change(&mut numbers, &whole.view);
            whole.write(&effects);
            for (node, target) in nodes.iter_mut().zip(&mut targets) {
                node.write(&effects);
                if numbers.below(6) == 0 {
                    *target = node.revision.min(*target + 1 + numbers.below(12).cast_signed());
                    *target = (*target).max(1);
                }
                if *target > 0 && numbers.below(2) == 0 {
                    node.compact(*target, 1 + numbers.below(5) as usize, numbers.below(6));
                }
            }
        }
        let [ours, theirs] = &mut nodes;
        let floors = [&ours.view, &theirs.view].map(|view| mvcc::compaction_floor(view).unwrap());
        ahead += u64::from(floors[1] > floors[0]);
        behind += u64::from(floors[1] < floors[0]);
        let group = GROUPS[numbers.below(3) as usize];
        let staged = send(&theirs.view, group, 200);
        assert!(install(&mut ours.view, &staged, group, usize::MAX));
        let floor = mvcc::compaction_floor(&ours.view).unwrap();
        assert_eq!(floor, floors[0].max(floors[1]), "seed {seed}");

        let newest = whole.revision;
        // The node may have heard of a lower compact revision yet.
        let mut heard = floors[0];
        loop {
            for revision in 2..=newest {
                let found = read_all(&ours.view, revision, newest);
                match found {
                    Ok(found) => {
                        assert_eq!(
                            Ok(found),
                            read_all(&whole.view, revision, newest),
                            "seed {seed}"
                        );
                    }
                    Err(mvcc::Failure::Overtaken) => assert!(revision < floor.max(heard)),
                    Err(other) => panic!("{other}"),
                }
            }
            let before = CompactionCursor::load(&ours.view).unwrap();
            ours.compact(heard, 3, 1);
            if CompactionCursor::load(&ours.view).unwrap() == before {
                if heard == newest {
                    break;
                }
                heard = if heard < floor { floor } else { newest };
            }
        }
        // As if it had been compacted in one go.
        whole.compact(newest, usize::MAX, 2);
        let user = |store: &Store| -> Rows {
            store.rows().into_iter().filter(|row| row.0 != Column::Meta).collect()
        };
        assert!(user(ours) == user(&whole), "seed {seed}");
    }
    assert!(ahead > 15 && behind > 15, "{ahead} {behind}");
}

#[test]
fn an_event_behind_the_cursor_is_looked_at_again() {
    let put = |key: &'static [u8]| Effect { key: Bytes::from_static(key), ..Default::default() };
    let delete = |key| Effect { is_delete: true, ..put(key) };
    // Range 1 (m..) applies its writes at 3, 5 and 7 when the compaction at 6 has come anywhere.
    for steps in 0..8 {
        let mut late = Store::new();
        for (revision, key) in [(2, b"m"), (4, b"a"), (6, b"a"), (8, b"a")] {
            late.write_at(revision, &[put(key)]);
        }
        late.compact(6, 1, steps);
        late.write_at(3, &[put(b"m")]);
        late.compact(6, 1, steps / 2);
        late.write_at(5, &[delete(b"m")]);
        late.write_at(7, &[put(b"z")]);
        let mut whole = Store::new();
        whole.write_at(2, &[put(b"m")]);
        whole.write_at(3, &[put(b"m")]);
        whole.write_at(4, &[put(b"a")]);
        whole.write_at(5, &[delete(b"m")]);
        whole.write_at(6, &[put(b"a")]);
        whole.write_at(7, &[put(b"z")]);
        whole.write_at(8, &[put(b"a")]);
        for store in [&mut late, &mut whole] {
            store.compact(6, usize::MAX, 5);
        }
        assert!(without_cursor(late.rows()) == without_cursor(whole.rows()), "{steps}");
    }
}

#[test]
fn a_range_is_sent_as_its_own_state_has_it() {
    let mut store = random_store(3);
    let conf = ConfState { voters: vec![1, 4], learners: vec![2], ..Default::default() };
    let position = Position { index: 9, term: 3, seq: 5 };
    let span = ranges().get(GroupId(2)).unwrap().span.clone();
    let stored = Stored { position, conf: conf.clone(), span: span.clone(), ..Default::default() };
    let write = |store: &mut Store, range: u64, stored: &Stored| {
        let mut batch = Batch::default();
        stored.write(GroupId(range), &mut batch);
        store.view.apply(&batch);
    };
    let to = |end: &'static [u8]| Span { end: Some(Bytes::from_static(end)), ..span.clone() };
    // It is to take over another, as the spine's state knows, and has not come there.
    write(&mut store, 2, &Stored { span: to(b"bb"), ..stored.clone() });
    assert_eq!(to_send(&store.view, GroupId(2)), Ok(None));
    write(&mut store, 2, &stored);
    let (mark, scope) = to_send(&store.view, GroupId(2)).unwrap().unwrap();
    assert_eq!((mark.index, mark.term, mark.conf), (9, 3, Some(conf)));
    assert_eq!(scope.spans(), std::slice::from_ref(&span));
    // It was cut, as the spine's state knows, and has not come there.
    write(&mut store, 2, &Stored { span: to(b"k"), ..stored.clone() });
    let (_, scope) = to_send(&store.view, GroupId(2)).unwrap().unwrap();
    assert_eq!(scope.spans(), [to(b"k")]);
    // Nor is it sent with keys that another has here.
    let start = span.end.clone().unwrap();
    write(&mut store, 9, &Stored { span: Span { start, end: None }, ..stored });
    assert_eq!(to_send(&store.view, GroupId(2)), Ok(None));

    assert_eq!(to_send(&store.view, GroupId(7)), Ok(None));
    let (mark, _) = to_send(&store.view, GroupId::SPINE).unwrap().unwrap();
    assert_eq!(mark.index, 1);
}

#[test]
fn a_range_is_received_as_wide_as_the_table_or_its_own_state_has_it() {
    let mut store = random_store(3);
    let span = ranges().get(GroupId(2)).unwrap().span.clone();
    let received =
        |store: &Store| Scope::to_receive(&store.view, GroupId(2), |_| false).unwrap().unwrap();
    assert_eq!(received(&store).spans(), std::slice::from_ref(&span));
    for (end, want) in [(&b"bb"[..], &b"c\0"[..]), (b"k", b"k")] {
        let own = Span { end: Some(Bytes::from_static(end)), ..span.clone() };
        let mut batch = Batch::default();
        Stored { span: own, ..Default::default() }.write(GroupId(2), &mut batch);
        store.view.apply(&batch);
        assert_eq!(received(&store).spans(), [Span { end: Some(want.into()), ..span.clone() }]);
    }
    assert_eq!(Scope::to_receive(&store.view, GroupId(7), |_| false), Ok(None));
}

#[test]
fn a_range_that_is_not_here_is_received_from_before_cuts_whose_keys_are_nobodys_here() {
    let mut ranges = Ranges::default();
    ranges.insert(GroupId(1), Range::new(span(b"b", Some(b"w")), vec![NodeId(1)]));
    ranges.insert(GroupId(2), Range::new(span(b"w", None), vec![NodeId(1)]));
    for (child, key) in [(3, "h"), (5, "d")] {
        ranges.split(GroupId(1), GroupId(child), Bytes::from_static(key.as_bytes()), Vec::new());
    }
    ranges.split(GroupId(3), GroupId(4), Bytes::from_static(b"m"), Vec::new());
    // By keys: 1 from b, 5 from d, 3 from h, 4 from m, and from w 2, which is no child of these.
    let store = || {
        let members = vec![crate::spine::Member { id: 1, ..Default::default() }];
        let (mut view, mut batch) = (MemoryView::new(), Batch::default());
        State::bootstrap(7, members).write_all(&mut batch);
        for (id, _) in ranges.iter() {
            let key = [&[b'g'][..], &id.0.to_be_bytes()].concat();
            batch.put(Column::Meta, key, ranges.encode(id).unwrap());
        }
        view.apply(&batch);
        view
    };
    let end = |view: &MemoryView, running: &[u64]| {
        let runs = |range: GroupId| running.contains(&range.0);
        let scope = Scope::to_receive(view, GroupId(1), runs).unwrap().unwrap();
        assert_eq!(scope.spans().len(), 1);
        scope.spans()[0].end.clone().unwrap()
    };
    assert_eq!(end(&store(), &[]), "w");
    assert_eq!(end(&store(), &[4]), "m");
    assert_eq!(end(&store(), &[3]), "h");
    assert_eq!(end(&store(), &[5, 2]), "d");
    let with = |write: &dyn Fn(&mut Batch)| {
        let (mut view, mut batch) = (store(), Batch::default());
        write(&mut batch);
        view.apply(&batch);
        view
    };
    // It is here, or another replica that lags has its keys, or what has left is not cleared yet.
    let stored = |span: Span| Stored { span, ..Stored::default() };
    let here = with(&|batch| stored(span(b"m", Some(b"w"))).write(GroupId(4), batch));
    assert_eq!(end(&here, &[]), "m");
    let lags = with(&|batch| stored(span(b"h", None)).write(GroupId(9), batch));
    assert_eq!(end(&lags, &[]), "h");
    let left = with(&|batch| stored::leave(GroupId(5), &span(b"d", Some(b"h")), batch));
    assert_eq!(end(&left, &[]), "d");
    // What it has itself is what it may get.
    let own = with(&|batch| stored(span(b"b", Some(b"h"))).write(GroupId(1), batch));
    assert_eq!(end(&own, &[]), "h");
}
