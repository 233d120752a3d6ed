//! Backups: a bbolt file from wherever its owner kept it, down to what its rows mean.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use bytes::Bytes;
use flotilla_fuzz::{Target, bytes, damaged, number};
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;

use crate::auth::Auth;
use crate::image::bolt::{HEAD_BYTES, PAGE_BYTES, Reader, Writer};
use crate::image::schema::{facts, visit_changes, write_after, write_before, write_change};
use crate::image::{Change, Error, Facts, Origin};
use crate::mvcc::layout::Revision;
use crate::proto::mvccpb::KeyValue;

type Row = (Vec<u8>, Vec<u8>);

fn no_facts() -> Facts {
    Facts {
        compacted: 1,
        compact_revision: 1,
        leases: BTreeMap::new(),
        auth: Auth::restored(false, 1),
        alarms: BTreeSet::new(),
    }
}

/// An image of so many keys with values of these lengths.
fn image(lens: &[u16]) -> Vec<u8> {
    let (facts, origin, mut writer) = (no_facts(), Origin::default(), Writer::default());
    write_before(&facts, &origin, &mut writer);
    for (main, len) in (2..).zip(lens) {
        let kv = KeyValue {
            key: Bytes::from(format!("key {main}")),
            create_revision: main,
            mod_revision: main,
            version: 1,
            value: vec![b'v'; usize::from(*len)].into(),
            lease: 0,
        };
        let revision = Revision { main, sub: 0 };
        let change = Change { revision, is_delete: false, kv: &kv.encode_to_vec() };
        write_change(&change, &mut writer);
    }
    write_after(&facts, &origin, &mut writer);
    let finished = writer.finish();
    [finished.head, finished.tail].concat()
}

/// All changes, however strange the file is.
fn read(file: &[u8]) -> Result<Vec<Row>, Error> {
    let reader = Reader::open(file)?;
    let mut rows = Vec::new();
    for bucket in reader.buckets()? {
        let _ = reader.visit(&bucket, &mut |key, _| {
            assert!(key.len() <= file.len());
            ControlFlow::Continue(())
        });
    }
    facts(&reader)?;
    visit_changes(&reader, &mut |change| {
        rows.push((change.revision.encode().to_vec(), change.kv.to_vec()));
        ControlFlow::Continue(())
    })?;
    Ok(rows)
}

#[test]
fn fuzz_core_image_damaged() {
    let lens = vec(prop_oneof![4 => 0..200_u16, 1 => 0..10_000_u16], 0..40);
    let target = Target::new("core/image").cases(256).bytes_max(64 << 20);
    target.run(damaged(lens.prop_map(|lens| image(&lens))), |file| drop(read(&file)));
}

/// Where numbers of pages lie is changed, and the first pages vouch for it.
#[test]
fn fuzz_core_image_hostile_pages() {
    let lens = vec(0..3000_u16, 0..40);
    let field = prop_oneof![
        // Head of a page: its number, kind, elements, overflow.
        Just((0, 8)),
        Just((8, 2)),
        Just((10, 2)),
        Just((12, 4)),
        // The first elements: flags or place, lengths, the page below.
        (1..12_usize).prop_map(|n| (12 + 4 * n, 4)),
        (1..6_usize).prop_map(|n| (8 + 16 * n, 8)),
    ];
    let value = prop_oneof![3 => number(), 3 => 0..20_u64];
    let edits = vec((any::<usize>(), field, value), 0..6);
    let target = Target::new("core/image_pages").cases(256).bytes_max(64 << 20);
    target.run((lens, edits), |(lens, edits)| {
        let mut file = image(&lens);
        let pages = file.len() / PAGE_BYTES;
        for (page, (at, width), value) in edits {
            let at = (page % pages) * PAGE_BYTES + at;
            file[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
        }
        // Both first pages are made valid again.
        for page in 0..HEAD_BYTES / PAGE_BYTES {
            let meta = &mut file[page * PAGE_BYTES + 16..page * PAGE_BYTES + 80];
            let step = |hash: u64, byte: &u8| {
                (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
            };
            let checksum = meta[..56].iter().fold(0xcbf2_9ce4_8422_2325, step);
            meta[56..].copy_from_slice(&u64::to_le_bytes(checksum));
        }
        drop(read(&file));
    });
}

/// Rows of any bytes come back as they were.
#[test]
fn fuzz_core_image_comes_back() {
    let rows = proptest::collection::btree_map(
        bytes().prop_filter("bbolt has no empty keys", |key| !key.is_empty()),
        prop_oneof![6 => bytes(), 1 => vec(any::<u8>(), 0..9000)],
        0..60,
    );
    let buckets = proptest::collection::btree_map("[a-z]{1,8}", rows, 0..4);
    Target::new("core/image_comes_back").cases(128).bytes_max(64 << 20).run(buckets, |buckets| {
        let mut writer = Writer::default();
        for (name, rows) in &buckets {
            writer.bucket(name.as_bytes());
            rows.iter().for_each(|(key, value)| writer.put(key, value));
        }
        let finished = writer.finish();
        let file = [finished.head, finished.tail].concat();
        let reader = Reader::open(&file[..]).unwrap();
        for (name, rows) in &buckets {
            let mut found = BTreeMap::new();
            let is_there = reader.visit(name.as_bytes(), &mut |key, value| {
                found.insert(key.to_vec(), value.to_vec());
                ControlFlow::Continue(())
            });
            assert!(is_there.unwrap());
            assert_eq!(&found, rows);
        }
    });
}
