//! Every row must come back as it was written, and sort as its column promises.

use bytes::{BufMut, BytesMut};
use prost::Message;

use super::super::layout::*;
use super::chance::Chance;
use super::*;

fn history_key(key: &[u8], revision: Revision) -> Bytes {
    let mut buf = BytesMut::new();
    encode_history_key(key, revision, &mut buf);
    assert_eq!(buf.len(), history_key_len(key));
    buf.freeze()
}

/// Every string of up to three bytes out of those that matter to escaping.
fn hard_keys() -> Vec<Vec<u8>> {
    let mut keys = vec![Vec::new()];
    let mut from = 0;
    for _ in 0..3 {
        let to = keys.len();
        for n in from..to {
            for byte in [0x00, 0x01, 0x61, 0xfe, 0xff] {
                let mut key = keys[n].clone();
                key.push(byte);
                keys.push(key);
            }
        }
        from = to;
    }
    keys
}

#[test]
fn revisions_keep_their_order() {
    let mut revisions = Vec::new();
    for main in [0, 1, 255, 256, 1 << 40, i64::MAX] {
        for sub in [0, 1, 255, 256, i64::MAX] {
            revisions.push(Revision { main, sub });
        }
    }
    for window in revisions.windows(2) {
        assert!(window[0].encode() < window[1].encode(), "{window:?}");
    }
    for revision in revisions {
        assert_eq!(Revision::decode(&revision.encode()), Ok(revision));
    }
}

#[test]
fn history_rows_sort_by_key_then_newest_first() {
    let mut rows = Vec::new();
    for key in hard_keys() {
        for revision in [(0, 0), (1, 0), (1, 1), (256, 0), (i64::MAX, i64::MAX)] {
            let revision = Revision { main: revision.0, sub: revision.1 };
            let row = history_key(&key, revision);
            assert_eq!(decode_history_key(&row), Ok((key.clone().into(), revision)));
            assert_eq!(decode_history_revision(&row), Ok(revision));
            rows.push((key.clone(), std::cmp::Reverse(revision), row));
        }
    }
    let mut by_meaning = rows.clone();
    by_meaning.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
    let mut by_bytes = rows;
    by_bytes.sort_by(|a, b| a.2.cmp(&b.2));
    assert_eq!(by_meaning, by_bytes);
}

#[test]
fn lease_rows_group_by_lease_and_sort_by_key() {
    let mut last: Option<Bytes> = None;
    for lease in [0, 1, i64::MAX, i64::MIN, -1] {
        let mut keys = hard_keys();
        keys.sort();
        for key in keys {
            let mut buf = BytesMut::new();
            encode_lease_key(lease, &key, &mut buf);
            let row = buf.freeze();
            assert_eq!(decode_lease_key(&row), Ok((lease, key.as_slice())));
            assert!(last.is_none_or(|last| last < row));
            last = Some(row);
        }
    }
}

#[test]
fn records_come_back_without_a_copy() {
    let kv = KeyValue {
        key: bytes("key"),
        create_revision: 1,
        mod_revision: i64::MAX,
        version: 300,
        value: bytes("value"),
        lease: -1,
    };
    for previous in [None, Some(Revision { main: 5, sub: 1 })] {
        for is_tombstone in [false, true] {
            let revision = Revision { main: 9, sub: 2 };
            let head = RecordHead { revision, is_tombstone, previous };
            let mut buf = BytesMut::new();
            head.encode(&mut buf);
            assert_eq!(buf.len(), head.encoded_len());
            kv.encode(&mut buf).unwrap();
            let row = buf.freeze();
            assert_eq!(RecordHead::decode(&row), Ok(head));
            let record = Record::decode(row.clone()).unwrap();
            assert_eq!(record.head, head);
            let decoded = decode_key_value(record.kv).unwrap();
            assert_eq!(decoded, kv);
            let within = row.as_ptr_range();
            assert!(within.contains(&decoded.key.as_ptr()), "the key was copied");
            assert!(within.contains(&decoded.value.as_ptr()), "the value was copied");
        }
    }
}

#[test]
fn fields_are_those_of_the_message() {
    let mut chance = Chance::new(1);
    let numbers = [0, 1, 127, 128, 1 << 35, i64::MAX, i64::MIN, -1];
    for _ in 0..2_000 {
        let blob = |chance: &mut Chance| Bytes::from(vec![7; chance.pick(&[0, 1, 127, 128, 300])]);
        let kv = KeyValue {
            key: blob(&mut chance),
            create_revision: chance.pick(&numbers),
            mod_revision: chance.pick(&numbers),
            version: chance.pick(&numbers),
            value: blob(&mut chance),
            lease: chance.pick(&numbers),
        };
        let encoded = kv.encode_to_vec();
        let fields = KeyValueFields::decode(&encoded).unwrap();
        let want = KeyValueFields {
            key: &kv.key,
            create_revision: kv.create_revision,
            mod_revision: kv.mod_revision,
            version: kv.version,
            value: &kv.value,
            lease: kv.lease,
        };
        assert_eq!(fields, want);
    }
}

#[test]
fn cursors_come_back() {
    let next = Revision { main: 7, sub: 3 };
    for cursor in
        [CompactionCursor::START, CompactionCursor { finished: -1, target: i64::MAX, next }]
    {
        assert_eq!(CompactionCursor::decode(&cursor.encode()), Ok(cursor));
    }
}

#[test]
fn damage_is_an_error_and_never_a_panic() {
    let kv = KeyValue { key: bytes("k"), value: bytes("v"), version: 1, ..Default::default() };
    let head = RecordHead {
        revision: Revision { main: 1, sub: 0 },
        is_tombstone: false,
        previous: Some(Revision { main: 1, sub: 0 }),
    };
    let mut record = BytesMut::new();
    head.encode(&mut record);
    for len in 0..record.len() {
        assert!(RecordHead::decode(&record[..len]).is_err(), "{len}");
    }
    record[0] = 0x80;
    assert!(RecordHead::decode(&record).is_err(), "unknown flag");

    let kv = kv.encode_to_vec();
    for len in 0..kv.len() {
        // A cut between two fields is a shorter message; everywhere else it is damage.
        let is_whole = [0, 3, 5].contains(&len);
        assert_eq!(KeyValueFields::decode(&kv[..len]).is_ok(), is_whole, "{len}");
    }
    assert!(KeyValueFields::decode(&[0x10, 0xff, 0xff, 0xff]).is_err(), "endless number");
    assert!(KeyValueFields::decode(&[0x38, 0x00]).is_err(), "unknown field");

    let row = history_key(b"a\0b", Revision { main: 1, sub: 0 });
    for len in 0..row.len() {
        assert!(decode_history_key(&row[..len]).is_err(), "{len}");
    }
    assert!(decode_history_value(b"").is_err());
    assert!(decode_history_value(&[2]).is_err());
    assert!(decode_lease_key(&[0; 7]).is_err());
    assert!(CompactionCursor::decode(&[0; 31]).is_err());
    let mut negative = BytesMut::new();
    negative.put_i64(-1);
    negative.put_i64(0);
    assert!(Revision::decode(&negative).is_err());
}

/// The bytes themselves, so that a change of the format is noticed.
#[test]
fn rows_have_these_bytes() {
    let mut store = Store::new();
    store.leases.0.insert(5);
    store.put(pb::PutRequest { lease: 5, ..put("k\0", "v") }).unwrap();
    store.delete(delete("k\0", "")).unwrap();
    let rows = |column| -> Vec<String> {
        let hex =
            |bytes: &Bytes| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        store
            .view
            .rows(column)
            .map(|(key, value)| format!("{}: {}", hex(key), hex(value)))
            .collect()
    };
    let one = "0000000000000002".to_owned() + "0000000000000000";
    let two = "0000000000000003".to_owned() + "0000000000000000";
    let put_kv = "0a026b00100218022001".to_owned() + "2a01763005";
    let tombstone = format!("03{two}{one}0a026b00");
    assert_eq!(rows(crate::view::Column::Key), [format!("6b00: {tombstone}")]);
    assert_eq!(
        rows(crate::view::Column::Revision),
        [format!("{one}: 00{one}{put_kv}"), format!("{two}: {tombstone}")]
    );
    assert_eq!(
        rows(crate::view::Column::History),
        ["6b00ff0000".to_owned() + "fffffffffffffffd" + "ffffffffffffffff" + ": 00"]
    );
    assert_eq!(rows(crate::view::Column::LeaseKey), Vec::<String>::new());
}

/// Found by fuzzing: such a row of a backup was taken, and was damage when its key was read.
#[test]
fn a_number_of_more_than_64_bits_is_damage_to_both_readers() {
    let mut row = vec![0x0a, 1, b'k', 0x20];
    row.extend([0xff; 9]);
    for last in [0, 1, 2, 3, 0x7f] {
        let row = [&row[..], &[last]].concat();
        let is_read = KeyValueFields::decode(&row).is_ok();
        assert_eq!(is_read, last < 2, "{last}");
        assert_eq!(decode_key_value(Bytes::from(row)).is_ok(), is_read, "{last}");
    }
}
