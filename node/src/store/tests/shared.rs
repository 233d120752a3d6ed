//! The snapshot of one group in a store of many: stopped anywhere, it is in whole after the next
//! start or not at all, and the rows of others are as they were.

use flotilla_core::memory::MemoryView;
use flotilla_core::proto::Span;
use flotilla_core::proto::internal::{ConfState, Effect, SnapshotRow};
use flotilla_core::range::stored::{Position, Stored};
use flotilla_core::snapshot::{Clear, Install, Limits, Scope, Sender};
use flotilla_core::spine::{Member, State};
use flotilla_core::{GroupId, NodeId, mvcc};

use super::crash::{child_dir, crash_at};
use super::*;
use crate::store::shared::{UnderWay, carry_out};
use crate::store::{Error, Sealed, database};

const RANGE: GroupId = GroupId(1);
const KEYS_COUNT: u64 = 700;

/// A node whose range 1 owns [m, ..), after so many writes of all keys.
fn rows(writes: u64, index: u64) -> MemoryView {
    let members = vec![Member { id: 1, ..Member::default() }];
    let mut state = State::bootstrap(7, members);
    state.pre_split(&[Bytes::from_static(b"m")], &[NodeId(1)]);
    let mut batch = Batch::default();
    state.write_all(&mut batch);
    let conf = ConfState { voters: vec![1], ..ConfState::default() };
    let position = Position { index, term: 1, seq: writes };
    let span = Span { start: Bytes::from_static(b"m"), end: None };
    Stored { position, conf, span, ..Stored::default() }.write(RANGE, &mut batch);
    batch.put(Column::Meta, vec![0, b'x'], "mine");
    let mut view = MemoryView::new();
    view.apply(&batch);
    for revision in 2..2 + writes {
        let mut batch = Batch::default();
        let effect = |n: u64| {
            let key = format!("{}{n}", if n.is_multiple_of(2) { "a" } else { "m" });
            let lease = if n.is_multiple_of(5) { 9 } else { 0 };
            let value = vec![b'v'; 300 + n as usize % 300].into();
            Effect { key: key.into(), value, lease, ..Effect::default() }
        };
        let effects: Vec<Effect> = (0..KEYS_COUNT).map(effect).collect();
        let mut applier = mvcc::Applier::new(&view);
        let revision = revision.cast_signed();
        applier.apply(revision, &effects, false, &mut batch, &mut Vec::new()).unwrap();
        view.apply(&batch);
    }
    view
}

fn scope(view: &dyn View, group: GroupId) -> Scope {
    Scope::load(view, group).unwrap().unwrap()
}

fn sent(view: &MemoryView, group: GroupId) -> Vec<Vec<SnapshotRow>> {
    let limits = Limits { window_chunks_max: u64::MAX, ..Limits::default() };
    let mut sender = Sender::new(1, scope(view, group), limits);
    std::iter::from_fn(|| sender.next(view).unwrap()).map(|chunk| chunk.rows).collect()
}

fn filled(dir: &Path, view: &MemoryView) -> Store {
    let store = open_small(dir);
    for column in Column::ALL {
        let mut batch = Batch::default();
        for (key, value) in view.rows(column) {
            batch.put(column, key.clone(), value.clone());
        }
        store.apply(&batch).unwrap();
    }
    store.flush().unwrap();
    store
}

fn receive(store: &Store, group: GroupId) -> Sealed {
    let staging = store.stage().unwrap();
    for chunk in sent(&rows(4, 20), group) {
        staging.append(&chunk).unwrap();
    }
    staging.finish(group).unwrap()
}

fn before() -> MemoryView {
    rows(2, 10)
}

fn installed(group: GroupId) -> MemoryView {
    let (mut view, mut staged) = (before(), MemoryView::new());
    for row in sent(&rows(4, 20), group).concat() {
        let mut batch = Batch::default();
        batch.put(Column::from_number(row.column).unwrap(), row.key, row.value);
        staged.apply(&batch);
    }
    let mut install = Install::new(scope(&view, group));
    while !install.is_finished() {
        let batch = install.next(&view, &staged).unwrap();
        view.apply(&batch);
    }
    view
}

fn cleared() -> MemoryView {
    let mut view = before();
    let mut clear = Clear::new(scope(&view, RANGE));
    while let Some(batch) = clear.next(&view).unwrap() {
        view.apply(&batch);
    }
    view
}

fn check(store: &Store, expected: &MemoryView, what: &str) {
    let found = Rows::read(store).unwrap();
    let expected = Rows::read(expected).unwrap();
    for column in Column::ALL {
        let (found, expected) = (&found.0[column as usize], &expected.0[column as usize]);
        assert!(found == expected, "{what}: {column:?}: {} for {}", found.len(), expected.len());
        for key in Rows::read(&before()).unwrap().0[column as usize].keys() {
            assert_eq!(store.get(column, key).unwrap().as_ref(), expected.get(key), "{what}");
        }
    }
}

#[test]
fn a_group_is_put_in_the_place_of_its_old_rows() {
    for group in [RANGE, GroupId::SPINE] {
        let dir = tempfile::tempdir().unwrap();
        let store = filled(dir.path(), &before());
        let sealed = receive(&store, group);
        store.install(group, sealed).unwrap();
        check(&store, &installed(group), "installed");
        assert_eq!(database::generations(dir.path()).unwrap(), [1]);
        drop(store);
        check(&open_small(dir.path()), &installed(group), "after a start");
    }
}

#[test]
fn a_spine_that_is_alone_takes_the_store_over_in_one_step() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path(), &cleared());
    let sealed = receive(&store, GroupId::SPINE);
    store.with_snapshot(|moment| {
        store.install(GroupId::SPINE, sealed).unwrap();
        check(&store, &installed_alone(), "installed");
        assert_eq!(Rows::read(moment).unwrap(), Rows::read(&cleared()).unwrap());
    });
    assert_eq!(database::generations(dir.path()).unwrap(), [2]);
}

fn installed_alone() -> MemoryView {
    let mut view = rows(4, 20);
    let mut clear = Clear::new(scope(&view, RANGE));
    while let Some(batch) = clear.next(&view).unwrap() {
        view.apply(&batch);
    }
    view
}

/// Every prefix of the batches on disk, as a crash may leave it.
#[test]
fn the_next_start_ends_what_was_under_way() {
    let mut steps = 0;
    for batches in (1..).map(|n| n * n) {
        let dir = tempfile::tempdir().unwrap();
        let store = filled(dir.path(), &before());
        let sealed = receive(&store, RANGE);
        let under_way = UnderWay { group: RANGE, generation: Some(sealed.database.generation) };
        sealed.database.keep();
        let received = Some(&sealed.database);
        let is_done = carry_out(&store.current(), under_way, received, batches).unwrap();
        if !is_done {
            assert_eq!(Stored::load(&store, RANGE).unwrap(), None, "what is there is no state");
        }
        store.flush().unwrap();
        drop((store, sealed));
        let store = open_small(dir.path());
        check(&store, &installed(RANGE), "after some batches");
        assert_eq!(database::generations(dir.path()).unwrap(), [1]);
        assert_eq!(UnderWay::load(&store.current()).unwrap(), None);
        steps += 1;
        if is_done {
            break;
        }
    }
    assert!(steps > 2, "it takes several batches");

    for batches in [1, 2] {
        let dir = tempfile::tempdir().unwrap();
        let store = filled(dir.path(), &before());
        let under_way = UnderWay { group: RANGE, generation: None };
        assert!(!carry_out(&store.current(), under_way, None, batches).unwrap());
        store.flush().unwrap();
        drop(store);
        check(&open_small(dir.path()), &cleared(), "after some batches");
    }
}

#[test]
fn received_rows_that_are_gone_are_damage() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path(), &before());
    let sealed = receive(&store, RANGE);
    let under_way = UnderWay { group: RANGE, generation: Some(sealed.database.generation) };
    carry_out(&store.current(), under_way, Some(&sealed.database), 2).unwrap();
    store.flush().unwrap();
    // It was not kept, and so is removed.
    drop((store, sealed));
    assert!(matches!(open(&small(dir.path())), Err(Error::Damaged { .. })));
}

#[test]
fn what_is_not_of_the_group_stops_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path(), &before());
    let sealed = receive(&store, GroupId::SPINE);
    assert!(store.install(RANGE, sealed).is_err());
    assert!(matches!(store.apply(&Batch::default()), Err(Error::Stopped(_))));
    assert!(matches!(
        filled(tempfile::tempdir().unwrap().path(), &before()).clear(GroupId(8)),
        Err(Error::Row(_))
    ));
}

/// Run in a child, which is killed on the way.
#[test]
fn child_installs() {
    let Some(dir) = child_dir() else { return };
    let store = open_small(&dir);
    let sealed = receive(&store, RANGE);
    store.install(RANGE, sealed).unwrap();
}

/// Run in a child, which is killed on the way.
#[test]
fn child_clears() {
    let Some(dir) = child_dir() else { return };
    open_small(&dir).clear(RANGE).unwrap();
}

/// Run in a child: the end of what was under way is killed as well.
#[test]
fn child_starts_again() {
    let Some(dir) = child_dir() else { return };
    open_small(&dir);
}

#[test]
fn a_crash_leaves_the_old_rows_or_the_new_of_a_group() {
    let steps = [
        "exchange-batch",
        "install-between-files",
        "exchange-before-last",
        "install-written",
        "install-flushed",
    ];
    for (step, is_whole) in steps.iter().map(|step| (step, *step == "install-flushed")) {
        let dir = tempfile::tempdir().unwrap();
        drop(filled(dir.path(), &before()));
        crash_at("store::tests::shared::child_installs", dir.path(), step);
        let store = open_small(dir.path());
        let is_new = Stored::load(&store, RANGE).unwrap().unwrap().position.index == 20;
        assert!(is_new || !is_whole, "killed when {step}");
        check(&store, &if is_new { installed(RANGE) } else { before() }, step);
        assert_eq!(database::generations(dir.path()).unwrap(), [1], "killed when {step}");
    }
    for step in ["exchange-batch", "exchange-before-last", "clear written"] {
        let dir = tempfile::tempdir().unwrap();
        drop(filled(dir.path(), &before()));
        crash_at("store::tests::shared::child_clears", dir.path(), step);
        let store = open_small(dir.path());
        let is_there = Stored::load(&store, RANGE).unwrap().is_some();
        check(&store, &if is_there { before() } else { cleared() }, step);
    }
}

#[test]
fn a_start_that_ends_what_was_under_way_may_crash_too() {
    for step in
        ["exchange-batch", "start-exchange-done", "store-head-written", "store-head-renamed"]
    {
        let dir = tempfile::tempdir().unwrap();
        let store = filled(dir.path(), &before());
        let sealed = receive(&store, RANGE);
        let under_way = UnderWay { group: RANGE, generation: Some(sealed.database.generation) };
        sealed.database.keep();
        carry_out(&store.current(), under_way, Some(&sealed.database), 4).unwrap();
        store.flush().unwrap();
        drop((store, sealed));
        crash_at("store::tests::shared::child_starts_again", dir.path(), step);
        check(&open_small(dir.path()), &installed(RANGE), step);
    }
}
