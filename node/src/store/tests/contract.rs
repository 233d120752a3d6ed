//! Reads, batches, moments, opening and sizes.

use std::fs;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use super::super::{Error, SIZES_AGE_MAX};
use super::*;

const fn is_shared<T: Send + Sync + Clone>() {}
const _: () = is_shared::<Store>();

/// A key that often has another as its prefix, or differs from it by one.
fn key(numbers: &mut Numbers) -> Bytes {
    let bytes = [0, 1, b'a', 0xfe, 0xff];
    (0..numbers.below(4)).map(|_| bytes[numbers.below(5) as usize]).collect::<Vec<u8>>().into()
}

fn bound(numbers: &mut Numbers) -> Bound<Bytes> {
    match numbers.below(5) {
        0 => Bound::Unbounded,
        1 | 2 => Bound::Included(key(numbers)),
        _ => Bound::Excluded(key(numbers)),
    }
}

fn is_between(key: &[u8], from: &Bound<Bytes>, to: &Bound<Bytes>) -> bool {
    (match from {
        Bound::Unbounded => true,
        Bound::Included(from) => key >= &from[..],
        Bound::Excluded(from) => key > &from[..],
    }) && (match to {
        Bound::Unbounded => true,
        Bound::Included(to) => key <= &to[..],
        Bound::Excluded(to) => key < &to[..],
    })
}

#[test]
fn random_batches_read_as_from_a_map() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open_small(dir.path());
    let mut model = Rows::default();
    let mut numbers = Numbers(1);
    for round in 0..400 {
        let mut batch = Batch::default();
        for _ in 0..numbers.below(12) {
            let column = Column::ALL[numbers.below(5) as usize];
            if numbers.below(3) == 0 {
                batch.delete(column, key(&mut numbers));
            } else {
                let times = if numbers.below(8) == 0 { 1_000 } else { 1 };
                batch.put(column, key(&mut numbers), numbers.next().to_string().repeat(times));
            }
        }
        store.apply(&batch).unwrap();
        model.apply(&batch);
        match numbers.below(40) {
            0 => store.flush().unwrap(),
            1 => store.compact_space().unwrap(),
            2 => {
                store.close().unwrap();
                store = open_small(dir.path());
            }
            _ => {}
        }
        let column = Column::ALL[numbers.below(5) as usize];
        let rows = &model.0[column as usize];
        let wanted = key(&mut numbers);
        assert_eq!(store.get(column, &wanted).unwrap(), rows.get(&wanted).cloned());

        let (from, to) = (bound(&mut numbers), bound(&mut numbers));
        let limit = numbers.below(20) as usize;
        let between = rows.iter().filter(|(key, _)| is_between(key, &from, &to));
        let between = between.map(|(key, value)| (key.clone(), value.clone()));
        let forward: Vec<_> = between.clone().take(limit + 1).collect();
        let backward: Vec<_> = between.rev().take(limit + 1).collect();
        let (lower, upper) = (from.as_ref().map(|key| &key[..]), to.as_ref().map(|key| &key[..]));
        for (expected, is_forward) in [(forward, true), (backward, false)] {
            let mut found = Vec::new();
            let visit = &mut |key: &[u8], value: &[u8]| {
                found.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
                if found.len() > limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            if is_forward {
                store.scan(column, lower, upper, visit).unwrap();
            } else {
                store.scan_back(column, lower, upper, visit).unwrap();
            }
            assert_eq!(found, expected, "round {round}: {from:?} {to:?} forward {is_forward}");
        }
    }
    assert_eq!(Rows::read(&store).unwrap(), model);
    store.verify().unwrap();
}

#[test]
fn reads_beside_a_writer_see_what_is_applied_and_at_most_what_is_being_applied() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_small(dir.path());
    let (begun, applied, is_over) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let least = applied.load(Ordering::SeqCst);
                    let row = store.get(Column::Key, b"k").unwrap();
                    let most = begun.load(Ordering::SeqCst);
                    let found: u64 =
                        row.map_or(0, |row| str::from_utf8(&row).unwrap().trim().parse().unwrap());
                    assert!((least..=most).contains(&found), "{found} is not in {least}..={most}");
                }
            });
        }
        let mut numbers = Numbers(7);
        for n in 1..=20_000_u64 {
            let width = if numbers.below(3) == 0 { 6_000 } else { 10 };
            let mut batch = put(Column::Key, "k", &format!("{n:>width$}"));
            batch.put(Column::Key, format!("other {}", numbers.below(30_000)), n.to_string());
            begun.store(n, Ordering::SeqCst);
            store.apply(&batch).unwrap();
            applied.store(n, Ordering::SeqCst);
        }
        is_over.store(true, Ordering::Relaxed);
    });
}

#[test]
fn the_later_write_of_a_batch_wins() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_small(dir.path());
    let mut batch = Batch::default();
    batch.put(Column::Key, "a", "1");
    batch.put(Column::Key, "a", "2");
    batch.put(Column::Key, "b", "1");
    batch.delete(Column::Key, "b");
    batch.delete(Column::Key, "c");
    batch.put(Column::Key, "c", "");
    store.apply(&batch).unwrap();
    assert_eq!(store.get(Column::Key, b"a").unwrap(), Some(Bytes::from("2")));
    assert_eq!(store.get(Column::Key, b"b").unwrap(), None);
    assert_eq!(store.get(Column::Key, b"c").unwrap(), Some(Bytes::new()));
    assert_eq!(store.get(Column::Revision, b"a").unwrap(), None);
}

#[test]
fn a_scan_and_a_snapshot_see_one_moment() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_small(dir.path());
    for n in 0..10 {
        store.apply(&put(Column::Key, &n.to_string(), "old")).unwrap();
    }
    let mut seen = Vec::new();
    store
        .scan(Column::Key, Bound::Unbounded, Bound::Unbounded, &mut |_, value| {
            seen.push(Bytes::copy_from_slice(value));
            for n in 0..20 {
                store.apply(&put(Column::Key, &n.to_string(), "new")).unwrap();
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(seen, vec![Bytes::from("old"); 10]);

    store.with_snapshot(|moment| {
        let before = Rows::read(moment).unwrap();
        store.apply(&put(Column::Key, "0", "newer")).unwrap();
        store.flush().unwrap();
        store.compact_space().unwrap();
        assert_eq!(Rows::read(moment).unwrap(), before);
        assert_eq!(moment.get(Column::Key, b"0").unwrap(), Some(Bytes::from("new")));
    });
    assert_eq!(store.get(Column::Key, b"0").unwrap(), Some(Bytes::from("newer")));
}

#[test]
fn a_directory_has_one_user() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_small(dir.path());
    let clone = store.clone();
    store.close().unwrap();
    let second = open(&small(dir.path())).err();
    assert!(matches!(&second, Some(Error::InUse { dir: named }) if named == dir.path()));
    let staging = clone.stage().unwrap();
    drop(clone);
    assert!(matches!(open(&small(dir.path())).err(), Some(Error::InUse { .. })));
    drop(staging);
    open_small(dir.path());
}

#[test]
fn a_store_that_was_not_finished_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    super::super::head::Head::default().write(dir.path()).unwrap();
    fs::create_dir(dir.path().join("generation-1")).unwrap();
    fs::write(dir.path().join("generation-1/CURRENT"), "half").unwrap();
    let store = open_small(dir.path());
    assert_eq!(Rows::read(&store).unwrap(), Rows::default());
}

#[test]
fn a_path_that_is_no_directory_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, "").unwrap();
    let error = open(&small(&path)).err();
    assert!(matches!(error, Some(Error::Io { path: named, .. }) if named == path));
}

#[test]
fn nothing_is_written_after_a_failed_flush() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_small(dir.path());
    store.apply(&put(Column::Key, "a", "1")).unwrap();
    fs::remove_dir_all(dir.path().join("generation-1")).unwrap();
    store.flush().unwrap_err();
    assert!(matches!(store.apply(&put(Column::Key, "b", "1")), Err(Error::Stopped(_))));
    assert!(matches!(store.flush(), Err(Error::Stopped(_))));
    assert!(matches!(store.stage().err(), Some(Error::Stopped(_))));
}

#[test]
fn sizes_follow_the_data() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_small(dir.path());
    let measured = Instant::now();
    let empty = store.sizes().unwrap();
    assert!(empty.total > 0);
    let mut numbers = Numbers(2);
    let mut value = move || (0..64).flat_map(|_| numbers.next().to_le_bytes()).collect::<Vec<u8>>();
    let rows = 4000_u64;
    for n in 0..rows {
        let mut batch = Batch::default();
        batch.put(Column::Key, n.to_be_bytes().to_vec(), value());
        store.apply(&batch).unwrap();
    }
    let again = store.sizes().unwrap();
    // A machine that is busy with other things may have taken longer.
    if measured.elapsed() < SIZES_AGE_MAX {
        assert_eq!(again, empty, "measured at most once in {SIZES_AGE_MAX:?}");
    }
    store.flush().unwrap();
    std::thread::sleep(SIZES_AGE_MAX);
    let full = store.sizes().unwrap();
    assert!(full.total > rows * 512, "{full:?}");
    assert!(full.in_use > rows * 512 * 9 / 10 && full.in_use <= full.total, "{full:?}");

    let mut batch = Batch::default();
    for n in 0..rows * 9 / 10 {
        batch.delete(Column::Key, n.to_be_bytes().to_vec());
    }
    store.apply(&batch).unwrap();
    store.compact_space().unwrap();
    let compacted = store.sizes().unwrap();
    assert!(compacted.total < full.total / 5 && compacted.total > 0, "{compacted:?}");
    assert!(compacted.in_use <= compacted.total, "{compacted:?}");
}
