use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::*;
use crate::image::Error;

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;
type Database = BTreeMap<Vec<u8>, Rows>;

/// Numbers that look random and are the same in every run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % end
    }
}

fn written(database: &Database) -> Vec<u8> {
    let mut writer = Writer::default();
    let mut file = vec![0; HEAD_BYTES];
    for (name, rows) in database {
        writer.bucket(name);
        for (key, value) in rows {
            writer.put(key, value);
            file.extend(writer.take());
        }
    }
    let finished = writer.finish();
    file.extend(finished.tail);
    file[..HEAD_BYTES].copy_from_slice(&finished.head);
    file
}

fn read(file: &[u8]) -> Result<Database, Error> {
    let reader = Reader::open(file)?;
    let mut database = Database::new();
    for name in reader.buckets()? {
        let mut rows = Rows::new();
        reader.visit(&name, &mut |key, value| {
            rows.insert(key.to_vec(), value.to_vec());
            ControlFlow::Continue(())
        })?;
        database.insert(name, rows);
    }
    Ok(database)
}

/// Buckets of every shape: empty, one leaf, many leaves, many levels, rows longer than pages.
fn random(seed: u64, rows_max: usize, key_max: usize, value_max: usize) -> Database {
    let mut chance = Chance(seed);
    let mut database = Database::new();
    for bucket in 0..chance.below(5) {
        let mut rows = Rows::new();
        for _ in 0..chance.below(rows_max) {
            let key = (0..=chance.below(key_max)).map(|_| chance.below(256) as u8).collect();
            rows.insert(key, vec![chance.below(256) as u8; chance.below(value_max)]);
        }
        database.insert(format!("bucket {bucket}").into_bytes(), rows);
    }
    database
}

#[test]
fn what_is_written_is_read() {
    for seed in 0..60 {
        let (rows, key, value) =
            [(3, 20, 9_000), (300, 40, 100), (900, 1_500, 3)][seed as usize % 3];
        let database = random(seed, rows, key, value);
        let file = written(&database);
        assert_eq!(file.len() % PAGE_BYTES, 0);
        assert_eq!(read(&file).unwrap(), database, "seed {seed}");
        assert_eq!(Reader::open(&file[..]).unwrap().size(), file.len() as u64);
    }
}

#[test]
fn a_bucket_that_is_not_there_is_told() {
    let file = written(&random(1, 9, 9, 9));
    let reader = Reader::open(&file[..]).unwrap();
    assert!(!reader.visit(b"another", &mut |_, _| ControlFlow::Continue(())).unwrap());
}

#[test]
fn a_walk_ends_when_it_is_told_to() {
    let rows = (0..2_000_u32).map(|n| (n.to_be_bytes().to_vec(), vec![1; 30])).collect();
    let file = written(&Database::from([(b"b".to_vec(), rows)]));
    let mut seen = 0;
    Reader::open(&file[..])
        .unwrap()
        .visit(b"b", &mut |_, _| {
            seen += 1;
            if seen == 777 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
    assert_eq!(seen, 777);
}

/// One of the two first pages is enough, and without both there is nothing.
#[test]
fn a_damaged_first_page_leaves_the_other() {
    let database = random(7, 50, 20, 50);
    let mut file = written(&database);
    file[20] ^= 1;
    assert_eq!(read(&file).unwrap(), database);
    file[PAGE_BYTES + 20] ^= 1;
    assert!(read(&file).is_err());
}

#[test]
fn a_cut_file_is_damaged() {
    let file = written(&random(11, 200, 20, 50));
    for len in (0..file.len()).step_by(97).chain([file.len() - 1]) {
        assert!(read(&file[..len]).is_err(), "{len} of {} bytes", file.len());
    }
}

/// The format has no checksum over its pages, so that a changed byte may go unnoticed here; the hash
/// behind the file is for that. But whatever it says, reading ends, with rows or with an error.
#[test]
fn changed_bytes_end_in_rows_or_in_an_error() {
    let mut errors = 0;
    let database = random(21, 400, 30, 40);
    let file = written(&database);
    let mut chance = Chance(5);
    for _ in 0..4_000 {
        let mut changed = file.clone();
        for _ in 0..=chance.below(3) {
            // Heads and elements of pages more often than what rows hold.
            let page = chance.below(file.len() / PAGE_BYTES) * PAGE_BYTES;
            let at =
                page + if chance.below(3) > 0 { chance.below(200) } else { chance.below(4096) };
            changed[at] = chance.below(256) as u8;
        }
        errors += usize::from(read(&changed).is_err());
    }
    assert!(errors > 1_000, "{errors} errors: the changes do not reach what matters");
}

#[test]
fn bytes_of_no_meaning_are_an_error() {
    let mut chance = Chance(3);
    for _ in 0..200 {
        let len = chance.below(20_000);
        let file: Vec<u8> = (0..len).map(|_| chance.below(256) as u8).collect();
        assert!(read(&file).is_err());
    }
}

#[test]
#[should_panic(expected = "in the order of their keys")]
fn rows_out_of_order_are_a_bug() {
    let mut writer = Writer::default();
    writer.bucket(b"b");
    writer.put(b"2", b"");
    writer.put(b"1", b"");
}
