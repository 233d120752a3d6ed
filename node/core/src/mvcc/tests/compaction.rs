//! Which rows go, and that interruptions of any kind change nothing.

use super::super::layout::{COMPACTION_ROW, CompactionCursor};
use super::*;
use crate::view::{Column, View};

fn store_with_history() -> Store {
    let mut store = Store::new();
    for value in ["1", "2", "3"] {
        store.put(put("a", value)).unwrap(); // 2 3 4
    }
    store.put(put("b", "1")).unwrap(); // 5
    store.delete(delete("b", "")).unwrap(); // 6
    store.put(put("c", "1")).unwrap(); // 7
    store.delete(delete("c", "")).unwrap(); // 8
    store.put(put("c", "2")).unwrap(); // 9
    store.put(put("a", "4")).unwrap(); // 10
    store
}

fn revisions(store: &Store) -> Vec<i64> {
    let rows = store.view.rows(Column::Revision);
    rows.map(|(row, _)| super::super::layout::Revision::decode(row).unwrap().main).collect()
}

#[test]
fn the_newest_at_the_compact_revision_stays() {
    let mut store = store_with_history();
    store.compact(7).unwrap();
    assert!(store.compact_rows(100, 1));
    assert_eq!(revisions(&store), [4, 7, 8, 9, 10]);
    assert_eq!(store.dump_at(7), "a=3 c=1");
    assert_eq!(store.dump_at(8), "a=3");
    assert_eq!(store.dump(), "a=4 c=2");
    let newest: Vec<_> = store.view.rows(Column::Key).map(|(key, _)| key.clone()).collect();
    assert_eq!(newest, ["a", "c"], "the delete of b is gone");
}

#[test]
fn a_delete_at_the_compact_revision_stays_until_the_next_compaction() {
    let mut store = store_with_history();
    store.compact(6).unwrap();
    store.compact_rows(100, 1);
    assert_eq!(revisions(&store), [4, 6, 7, 8, 9, 10]);
    store.compact(7).unwrap();
    store.compact_rows(100, 1);
    assert_eq!(revisions(&store), [4, 7, 8, 9, 10]);
    // And one that was superseded since.
    store.compact(8).unwrap();
    store.compact_rows(100, 1);
    assert_eq!(revisions(&store), [4, 8, 9, 10]);
    store.compact(10).unwrap();
    store.compact_rows(100, 1);
    assert_eq!(revisions(&store), [9, 10]);
    assert_eq!(store.view.rows_count(Column::History), 0);
    assert_eq!(store.dump(), "a=4 c=2");
}

#[test]
fn a_key_put_again_while_its_delete_is_compacted() {
    let mut store = Store::new();
    store.put(put("k", "1")).unwrap(); // 2
    store.delete(delete("k", "")).unwrap(); // 3
    store.put(put("other", "")).unwrap(); // 4
    store.compact(4).unwrap();
    store.compact_rows(1, 1); // has looked at the first event only
    store.put(put("k", "2")).unwrap(); // 5
    assert!(store.compact_rows(1, 10));
    assert_eq!(store.dump(), "k=2 other=");
    assert_eq!(store.dump_at(4), "other=");
    assert_eq!(revisions(&store), [4, 5]);
    assert_eq!(store.view.rows_count(Column::History), 0);
    let kvs = store.read(&range("k", "")).unwrap().kvs;
    assert_eq!((kvs[0].create_revision, kvs[0].version), (5, 1));
}

/// The work is in proportion to the events since the last compaction, not to the keys.
#[test]
fn a_second_compaction_looks_only_at_what_is_new() {
    struct Counting<'a>(&'a MemoryView, std::cell::Cell<usize>);
    impl View for Counting<'_> {
        fn get(&self, column: Column, key: &[u8]) -> Result<Option<Bytes>, crate::view::ViewError> {
            self.1.set(self.1.get() + 1);
            self.0.get(column, key)
        }
        fn scan(
            &self,
            column: Column,
            from: std::ops::Bound<&[u8]>,
            to: std::ops::Bound<&[u8]>,
            visit: crate::view::Visit<'_>,
        ) -> Result<(), crate::view::ViewError> {
            self.0.scan(column, from, to, &mut |key, value| {
                self.1.set(self.1.get() + 1);
                visit(key, value)
            })
        }
        fn scan_back(
            &self,
            _: Column,
            _: std::ops::Bound<&[u8]>,
            _: std::ops::Bound<&[u8]>,
            _: crate::view::Visit<'_>,
        ) -> Result<(), crate::view::ViewError> {
            unreachable!()
        }
    }
    let mut store = Store::new();
    for n in 0..1000 {
        store.put(put(&format!("k{n}"), "")).unwrap();
    }
    store.put(put("k0", "superseded at the compact revision")).unwrap();
    store.compact(1002).unwrap();
    store.compact_rows(usize::MAX, 1);
    for n in 0..5 {
        store.put(put(&format!("k{n}"), "again")).unwrap();
    }
    store.delete(delete("k7", "")).unwrap();
    store.put(put("k8", "again")).unwrap();
    let view = Counting(&store.view, Default::default());
    let slice = compact_slice(&view, store.head.revision, usize::MAX).unwrap();
    assert!(slice.is_finished);
    assert!(view.1.get() <= 12, "looked at {} rows", view.1.get());
    // Seven superseded puts with their history, the delete with its key, the cursor.
    assert_eq!(slice.batch.writes.len(), 2 * 7 + 2 + 1);
}

#[test]
fn a_finished_compaction_has_nothing_to_do() {
    let mut store = store_with_history();
    let none = compact_slice(&store.view, -1, 10).unwrap();
    assert_eq!(none, Slice { batch: Batch::default(), is_finished: true });
    store.compact(6).unwrap();
    store.compact_rows(usize::MAX, 1);
    assert_eq!(compaction_floor(&store.view), Ok(6));
    let again = compact_slice(&store.view, 6, 10).unwrap();
    assert_eq!(again, Slice { batch: Batch::default(), is_finished: true });
}

/// A target that rises on the way: the deletes spared at the old one must not be forgotten.
#[test]
fn a_higher_compact_revision_before_the_last_is_finished() {
    for steps in 0..12 {
        let mut store = Store::new();
        store.put(put("x", "")).unwrap(); // 2
        store.put(put("y", "")).unwrap(); // 3
        store.put(put("z", "")).unwrap(); // 4
        store.delete(delete("x", "\0")).unwrap(); // 5, three deletes
        store.put(put("a", "")).unwrap(); // 6
        store.compact(5).unwrap();
        store.compact_rows(1, steps);
        store.compact(6).unwrap();
        assert!(store.compact_rows(1, 100));
        assert_eq!(revisions(&store), [6], "after {steps} steps");
        assert_eq!(store.view.rows_count(Column::Key), 1);
        assert_eq!(store.view.rows_count(Column::History), 0);
    }
}

#[test]
fn a_step_may_be_repeated_or_lost() {
    let mut store = store_with_history();
    store.compact(9).unwrap();
    loop {
        let lost = compact_slice(&store.view, 9, 2).unwrap();
        let slice = compact_slice(&store.view, 9, 2).unwrap();
        assert_eq!(lost, slice);
        store.view.apply(&slice.batch);
        store.view.apply(&slice.batch);
        if slice.is_finished {
            break;
        }
    }
    assert_eq!(revisions(&store), [4, 9, 10]);
    let row = store.view.get(Column::Meta, COMPACTION_ROW).unwrap().unwrap();
    let cursor = CompactionCursor::decode(&row).unwrap();
    assert_eq!((cursor.finished, cursor.target, cursor.next.main), (9, 9, 9));
}

#[test]
fn the_hash_does_not_know_how_far_compaction_is() {
    let mut store = store_with_history();
    let before = store.hash(0).unwrap();
    store.compact(8).unwrap();
    let wanted: Vec<_> = (8..=10).map(|revision| store.hash(revision)).collect();
    assert_ne!(wanted[2], Ok(before));
    assert_eq!(store.hash(7), Err(Error::Compacted));
    assert_eq!(store.hash(11), Err(Error::FutureRevision));
    while !store.compact_rows(1, 1) {
        let now: Vec<_> = (8..=10).map(|revision| store.hash(revision)).collect();
        assert_eq!(now, wanted);
    }
    assert_eq!(store.hash(0), store.hash(10));
}

#[test]
fn the_hash_of_a_store_without_live_keys() {
    let empty = crc32c::crc32c(b"key");
    let mut store = Store::new();
    assert_eq!(store.hash(0), Ok(empty));
    assert_eq!(store.hash(-1), Ok(empty));
    store.put(put("k", "1")).unwrap();
    store.put(put("l", "1")).unwrap();
    store.compact(3).unwrap();
    store.delete(delete("k", "\0")).unwrap();
    // Nothing is left at 4, so what lives at 3 counts, and the deletes above 3.
    let full = store.hash(4).unwrap();
    store.compact_rows(1, 100);
    assert_eq!(store.hash(4), Ok(full));
    assert_ne!(full, empty);
    store.compact(4).unwrap();
    assert_eq!(store.hash(4), Ok(empty), "a delete at the compact revision never counts");
}
