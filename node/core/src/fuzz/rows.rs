//! Rows of keys, revisions, history and leases, and the cursor of the compaction.

use bytes::{Bytes, BytesMut};
use flotilla_fuzz::{Target, bytes, damaged, signed};
use proptest::prelude::*;
use prost::Message;

use super::messages;
use crate::mvcc::layout::{
    CompactionCursor, KeyValueFields, Record, RecordHead, Revision, decode_history_key,
    decode_history_revision, decode_history_value, decode_key_value, decode_lease_key,
    encode_history_key, encode_lease_key, history_key_len,
};
use crate::proto::mvccpb::KeyValue;

fn revision() -> impl Strategy<Value = Revision> + Clone {
    let number = || signed().prop_map(|number| number & i64::MAX);
    (number(), number()).prop_map(|(main, sub)| Revision { main, sub }).boxed()
}

fn key_value() -> impl Strategy<Value = KeyValue> {
    (bytes(), bytes(), signed(), signed(), signed(), signed()).prop_map(
        |(key, value, create_revision, mod_revision, version, lease)| KeyValue {
            key: key.into(),
            create_revision,
            mod_revision,
            version,
            value: value.into(),
            lease,
        },
    )
}

fn head() -> impl Strategy<Value = RecordHead> {
    (revision(), any::<bool>(), proptest::option::of(revision())).prop_map(
        |(revision, is_tombstone, previous)| RecordHead { revision, is_tombstone, previous },
    )
}

fn encoded_record(head: &RecordHead, kv: &KeyValue) -> Vec<u8> {
    let mut row = BytesMut::new();
    head.encode(&mut row);
    row.extend_from_slice(&kv.encode_to_vec());
    row.to_vec()
}

#[test]
fn fuzz_core_rows_come_back() {
    let inputs = (head(), key_value(), bytes(), signed(), revision());
    Target::new("core/rows_come_back").run(inputs, |(head, kv, key, lease, next)| {
        let record = Record::decode(encoded_record(&head, &kv).into()).unwrap();
        assert_eq!(record.head, head);
        assert_eq!(decode_key_value(record.kv.clone()).unwrap(), kv);
        let fields = KeyValueFields::decode(&record.kv).unwrap();
        assert_eq!((fields.key, fields.value), (&kv.key[..], &kv.value[..]));
        assert_eq!(
            (fields.create_revision, fields.mod_revision, fields.version, fields.lease),
            (kv.create_revision, kv.mod_revision, kv.version, kv.lease)
        );

        let mut row = BytesMut::new();
        encode_history_key(&key, head.revision, &mut row);
        assert_eq!(row.len(), history_key_len(&key));
        assert_eq!(decode_history_key(&row).unwrap(), (Bytes::from(key.clone()), head.revision));
        assert_eq!(decode_history_revision(&row).unwrap(), head.revision);

        let mut row = BytesMut::new();
        encode_lease_key(lease, &key, &mut row);
        assert_eq!(decode_lease_key(&row).unwrap(), (lease, &key[..]));

        let cursor = CompactionCursor { finished: lease, target: kv.version, next };
        assert_eq!(CompactionCursor::decode(&cursor.encode()).unwrap(), cursor);
    });
}

/// Rows of history have one form: two keys are never mixed up, and the order is that of the keys.
#[test]
fn fuzz_core_history_keys_sort_as_keys_do() {
    let inputs = ((bytes(), revision()), (bytes(), revision()));
    Target::new("core/history_order").run(inputs, |(one, other)| {
        let row = |(key, revision): &(Vec<u8>, Revision)| {
            let mut row = BytesMut::new();
            encode_history_key(key, *revision, &mut row);
            row.freeze()
        };
        let wanted = one.0.cmp(&other.0).then(other.1.cmp(&one.1));
        assert_eq!(row(&one).cmp(&row(&other)), wanted);
    });
}

#[test]
fn fuzz_core_damaged_rows() {
    let record = (head(), key_value()).prop_map(|(head, kv)| encoded_record(&head, &kv));
    let history = (bytes(), revision()).prop_map(|(key, revision)| {
        let mut row = BytesMut::new();
        encode_history_key(&key, revision, &mut row);
        row.to_vec()
    });
    let kv = messages().encoded("mvccpb.KeyValue");
    let inputs = prop_oneof![damaged(record), damaged(history), damaged(kv)];
    Target::new("core/damaged_rows").cases(512).run(inputs, |row| {
        if let Ok(record) = Record::decode(Bytes::from(row.clone())) {
            let mut again = BytesMut::new();
            record.head.encode(&mut again);
            again.extend_from_slice(&record.kv);
            assert_eq!(again, row);
        }
        if let Ok(fields) = KeyValueFields::decode(&row) {
            // The two readers of one form agree, but that the store's own takes no field it does
            // not write and looks at no wire type again.
            let kv = decode_key_value(Bytes::from(row.clone())).expect("a stricter reader took it");
            assert_eq!((fields.key, fields.value), (&kv.key[..], &kv.value[..]));
            assert_eq!((fields.lease, fields.version), (kv.lease, kv.version));
            assert_eq!(fields.create_revision, kv.create_revision);
            assert_eq!(fields.mod_revision, kv.mod_revision);
        }
        if let Ok((key, revision)) = decode_history_key(&row) {
            let mut again = BytesMut::new();
            encode_history_key(&key, revision, &mut again);
            assert_eq!(again, row);
            assert_eq!(decode_history_revision(&row).unwrap(), revision);
        }
        if let Ok((lease, key)) = decode_lease_key(&row) {
            let mut again = BytesMut::new();
            encode_lease_key(lease, key, &mut again);
            assert_eq!(again, row);
        }
        if let Ok(cursor) = CompactionCursor::decode(&row) {
            assert_eq!(cursor.encode(), row);
        }
        if let Ok(revision) = Revision::decode(&row) {
            assert_eq!(revision.encode()[..], row);
        }
        if let Ok(is_tombstone) = decode_history_value(&row) {
            assert_eq!([u8::from(is_tombstone)][..], row);
        }
    });
}
