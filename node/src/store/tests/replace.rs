//! Receiving a snapshot: all of it or nothing, whenever the process is killed.

use flotilla_proto::internal::SnapshotRow;

use super::super::{Error, LOCAL_PREFIX, Sealed, database};
use super::crash::{child_dir, crash_at};
use super::*;
use crate::failpoint::act::kill_at;

const SNAPSHOT_ROWS: u32 = 3000;

fn local_key() -> Bytes {
    [LOCAL_PREFIX, b"id"].concat().into()
}

/// What the store holds before: two columns, and a row that is the node's own.
fn old_rows() -> Batch {
    let mut batch = Batch::default();
    for n in 0..500 {
        batch.put(Column::Key, format!("old {n}"), "old");
    }
    batch.put(Column::Meta, "applied", "10");
    batch.put(Column::Meta, local_key(), "mine");
    batch
}

/// What the snapshot brings.
fn new_rows() -> Batch {
    let mut batch = Batch::default();
    for n in 0..SNAPSHOT_ROWS {
        let column = Column::ALL[n as usize % 4];
        batch.put(column, format!("new {n}"), vec![b'n'; n as usize % 900]);
    }
    batch.put(Column::Meta, "applied", "20");
    batch
}

/// What the store must hold after: the snapshot, and the node's own row.
fn rows_after() -> Rows {
    let mut rows = Rows::default();
    rows.apply(&new_rows());
    rows.0[Column::Meta as usize].insert(local_key(), Bytes::from("mine"));
    rows
}

fn rows_before() -> Rows {
    let mut rows = Rows::default();
    rows.apply(&old_rows());
    rows
}

fn receive(store: &Store) -> Sealed {
    let row = |column: &Column, key: &Bytes, value: &Bytes| SnapshotRow {
        column: *column as u32,
        key: key.clone(),
        value: value.clone(),
    };
    let mut rows: Vec<_> = new_rows()
        .writes
        .iter()
        .map(|write| match write {
            Write::Put(column, key, value) => row(column, key, value),
            Write::Delete(..) => unreachable!("a snapshot deletes nothing"),
        })
        .collect();
    rows.push(row(&Column::Meta, &local_key(), &Bytes::from("the sender's")));
    let staging = store.stage().unwrap();
    for chunk in rows.chunks(700) {
        staging.append(chunk).unwrap();
        kill_at("appended");
    }
    staging.finish(flotilla_core::GroupId::SPINE).unwrap()
}

/// Run in a child, which is killed on the way.
#[test]
fn child_receives() {
    let Some(dir) = child_dir() else { return };
    let store = open_small(&dir);
    let sealed = receive(&store);
    kill_at("sealed");
    store.replace(sealed).unwrap();
    kill_at("replaced");
}

#[test]
fn a_crash_leaves_the_old_rows_or_the_new() {
    let steps = [
        ("snapshot-begun", false),
        ("appended", false),
        ("sealed", false),
        ("replace-rows-copied", false),
        ("replace-flushed", false),
        ("store-head-written", false),
        ("store-head-renamed", true),
        ("replaced", true),
    ];
    for (step, is_replaced) in steps {
        let dir = tempfile::tempdir().unwrap();
        let store = open_small(dir.path());
        store.apply(&old_rows()).unwrap();
        store.close().unwrap();
        crash_at("store::tests::replace::child_receives", dir.path(), step);

        let store = open_small(dir.path());
        let expected = if is_replaced { rows_after() } else { rows_before() };
        assert!(Rows::read(&store).unwrap() == expected, "killed when {step}");
        let generations = database::generations(dir.path()).unwrap();
        assert_eq!(generations, [if is_replaced { 2 } else { 1 }], "killed when {step}");
        // The next attempt meets nothing of the one that failed.
        let sealed = receive(&store);
        store.replace(sealed).unwrap();
        assert!(Rows::read(&store).unwrap() == rows_after(), "after {step}");
    }
}

#[test]
fn reads_see_the_old_rows_until_all_are_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_small(dir.path());
    store.apply(&old_rows()).unwrap();
    let sealed = receive(&store);
    assert_eq!(Rows::read(&store).unwrap(), rows_before());
    store.with_snapshot(|moment| {
        store.replace(sealed).unwrap();
        assert_eq!(Rows::read(&store).unwrap(), rows_after());
        for (column, rows) in Column::ALL.into_iter().zip(rows_before().0) {
            for key in rows.keys() {
                let expected = rows_after().0[column as usize].get(key).cloned();
                assert_eq!(store.get(column, key).unwrap(), expected, "{column:?} {key:?}");
            }
        }
        assert_eq!(Rows::read(moment).unwrap(), rows_before());
    });
    assert_eq!(database::generations(dir.path()).unwrap(), [2]);

    let batch = put(Column::Key, "newest", "1");
    store.apply(&batch).unwrap();
    store.close().unwrap();
    let mut expected = rows_after();
    expected.apply(&batch);
    assert_eq!(Rows::read(&open_small(dir.path())).unwrap(), expected);
}

#[test]
fn an_abandoned_snapshot_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_small(dir.path());
    let (staging, sealed) = (store.stage().unwrap(), receive(&store));
    assert_eq!(database::generations(dir.path()).unwrap().len(), 3);
    drop(staging);
    drop(sealed);
    assert_eq!(database::generations(dir.path()).unwrap(), [1]);
}

#[test]
fn a_row_of_no_column_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_small(dir.path());
    let row = SnapshotRow { column: 5, key: "a".into(), value: "b".into() };
    let error = store.stage().unwrap().append(&[row]);
    assert!(matches!(error, Err(Error::UnknownColumn(5))));
}

#[test]
fn batches_and_flushes_go_on_while_a_snapshot_comes_in() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_small(dir.path());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..2000 {
                store.apply(&put(Column::Key, &n.to_string(), &"x".repeat(1000))).unwrap();
            }
        });
        scope.spawn(|| (0..20).for_each(|_| store.flush().unwrap()));
        for _ in 0..4 {
            let sealed = receive(&store);
            store.replace(sealed).unwrap();
        }
    });
    store.flush().unwrap();
    let held = Rows::read(&store).unwrap();
    drop(store);
    assert!(Rows::read(&open_small(dir.path())).unwrap() == held);
}
