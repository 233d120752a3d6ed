//! Files changed behind the store's back: every reading then fails with an error, or finds what
//! was written. Nothing in between, and no panic.

use std::fs;
use std::path::PathBuf;

use super::super::{Error, LOCK_FILE, head};
use super::*;

/// Positions tried in a file, beside its ends.
const FLIPS_MAX: usize = 12;
/// Bytes at either end of a file that are all tried.
const ENDS_BYTES: usize = 4;
const CUTS_MAX: usize = 6;

/// What became of a damaged store.
#[derive(Debug)]
enum Found {
    Whole,
    AtOpen(Error),
    AtRead(String),
}

/// A closed store with files of several kinds and ages.
fn damage_me(dir: &Path) -> Rows {
    let store = open_small(dir);
    let mut model = Rows::default();
    let mut numbers = Numbers(4);
    for round in 0..4 {
        for n in 0..60 {
            let mut batch = Batch::default();
            let column = Column::ALL[numbers.below(5) as usize];
            batch.put(column, format!("row {}", numbers.below(80)), numbers.next().to_string());
            batch.put(Column::Key, format!("key {n}"), "value".repeat(numbers.below(30) as usize));
            batch.put(Column::Meta, "applied", (round * 60 + n).to_string());
            store.apply(&batch).unwrap();
            model.apply(&batch);
        }
        if round == 1 {
            store.compact_space().unwrap();
        } else {
            store.flush().unwrap();
        }
    }
    store.close().unwrap();
    model
}

fn files_under(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(files_under(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}

/// Reopens a copy in which one file is other, or missing.
fn reopen(original: &Path, file: &Path, bytes: Option<&[u8]>, expected: &Rows) -> Found {
    let copy = tempfile::tempdir().unwrap();
    for path in files_under(original) {
        let to = copy.path().join(path.strip_prefix(original).unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        match bytes {
            _ if path != file => {
                fs::copy(&path, &to).unwrap();
            }
            Some(bytes) => fs::write(&to, bytes).unwrap(),
            None => {}
        }
    }
    let store = match open(&small(copy.path())) {
        Ok(store) => store,
        Err(error) => return Found::AtOpen(error),
    };
    match Rows::read(&store) {
        Ok(found) => {
            assert!(found == *expected, "{} gives other rows", file.display());
            for column in Column::ALL {
                for (key, value) in &expected.0[column as usize] {
                    match store.get(column, key) {
                        Ok(found) => assert_eq!(found.as_ref(), Some(value)),
                        Err(error) => return Found::AtRead(error.0),
                    }
                }
            }
            Found::Whole
        }
        Err(error) => Found::AtRead(error.0),
    }
}

fn name(file: &Path) -> &str {
    file.file_name().unwrap().to_str().unwrap()
}

#[test]
fn flipped_bits_are_found_or_do_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let expected = damage_me(dir.path());
    let mut numbers = Numbers(5);
    let mut data_flips_found = 0;
    for file in files_under(dir.path()) {
        let bytes = fs::read(&file).unwrap();
        let step = bytes.len().div_ceil(FLIPS_MAX).max(1);
        let is_end = |at: usize| at < ENDS_BYTES || at + ENDS_BYTES >= bytes.len();
        for at in (0..bytes.len()).filter(|at| at % step == 0 || is_end(*at)) {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << numbers.below(8);
            let found = reopen(dir.path(), &file, Some(&changed), &expected);
            let place = format!("byte {at} of {}: {found:?}", name(&file));
            match (name(&file), &found) {
                (head::FILE | "CURRENT", found) => {
                    assert!(matches!(found, Found::AtOpen(Error::Damaged { .. })), "{place}");
                }
                (name, Found::AtOpen(Error::Damaged { .. })) if name.ends_with(".sst") => {
                    data_flips_found += 1;
                }
                (name, Found::AtRead(detail)) => {
                    assert!(detail.contains(name), "{place}");
                    data_flips_found += 1;
                }
                (_, Found::AtOpen(error)) => {
                    assert!(matches!(error, Error::Damaged { .. }), "{place}");
                }
                (_, Found::Whole) => {}
            }
        }
    }
    assert!(data_flips_found > 100, "{data_flips_found}");
}

#[test]
fn cut_files_are_found_or_do_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let expected = damage_me(dir.path());
    for file in files_under(dir.path()) {
        let bytes = fs::read(&file).unwrap();
        let matters = name(&file) == head::FILE
            || name(&file) == "CURRENT"
            || name(&file).starts_with("MANIFEST")
            || name(&file).ends_with(".sst");
        let step = bytes.len().div_ceil(CUTS_MAX).max(1);
        for end in (0..bytes.len()).filter(|end| end % step == 0 || end + 2 >= bytes.len()) {
            let found = reopen(dir.path(), &file, Some(&bytes[..end]), &expected);
            let is_damage = matches!(found, Found::AtOpen(Error::Damaged { .. }));
            assert!(is_damage || !matters, "{} cut at {end}: {found:?}", name(&file));
        }
        let found = reopen(dir.path(), &file, None, &expected);
        let is_damage = matches!(found, Found::AtOpen(Error::Damaged { .. }));
        assert!(is_damage || !matters, "{} removed: {found:?}", name(&file));
        assert!(!is_damage || name(&file) != LOCK_FILE);
    }
}

#[test]
fn a_missing_generation_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    damage_me(dir.path());
    fs::remove_dir_all(dir.path().join("generation-1")).unwrap();
    assert!(matches!(open(&small(dir.path())).err(), Some(Error::Damaged { .. })));
}

#[test]
fn a_flip_in_use_is_found_by_verify() {
    let dir = tempfile::tempdir().unwrap();
    damage_me(dir.path());
    let data = files_under(dir.path()).into_iter().find(|file| name(file).ends_with(".sst"));
    let data = data.unwrap();
    let store = open_small(dir.path());
    store.verify().unwrap();
    let mut bytes = fs::read(&data).unwrap();
    bytes[20] ^= 1;
    fs::write(&data, bytes).unwrap();
    let error = store.verify().unwrap_err();
    assert!(matches!(&error, Error::Damaged { file, .. } if *file == data), "{error}");
}
