use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use prost::Message;

use super::bolt::{HEAD_BYTES, Reader, Writer};
use super::schema::{Origin, facts, visit_changes, write_after, write_before, write_change};
use super::*;
use crate::auth::Auth;
use crate::mvcc::layout::Revision;
use crate::proto::authpb;
use crate::proto::internal::{ConfState, Member};
use crate::proto::mvccpb::KeyValue;
use crate::spine::state::Lease;

/// Both halves of the revision and whether it is a delete; and the key-value.
type Row = ((i64, i64, bool), Vec<u8>);

fn some_facts() -> Facts {
    let lease = |ttl, remaining_ttl| Lease { ttl, remaining_ttl, ..Lease::default() };
    let mut auth = Auth::restored(true, 9);
    let role = authpb::Role { name: "r".into(), ..Default::default() };
    auth.decode_role(&role.encode_to_vec()).unwrap();
    let user = authpb::User {
        name: "root".into(),
        password: "$2a$".into(),
        roles: vec!["root".to_owned()],
        options: Some(authpb::UserAddOptions { no_password: false }),
    };
    auth.decode_user(&user.encode_to_vec()).unwrap();
    Facts {
        compacted: 3,
        compact_revision: 4,
        leases: BTreeMap::from([(7, lease(60, 0)), (i64::MIN, lease(9, 4)), (-1, lease(1, 1))]),
        auth,
        alarms: BTreeSet::from([(1, 5), (2, u64::MAX), (1, 300)]),
    }
}

fn some_origin() -> Origin {
    let member = Member { id: 16, name: "a \"b\"".into(), is_learner: true, ..Default::default() };
    Origin {
        index: 77,
        term: 2,
        conf: ConfState { voters: vec![3], learners: vec![16], ..Default::default() },
        members: vec![member, Member { id: 3, ..Default::default() }],
        removed: BTreeSet::from([9, 160]),
        cluster_version: "3.7.0".to_owned(),
    }
}

fn put(main: i64, sub: i64) -> Row {
    let kv = KeyValue {
        key: format!("key {sub}").into(),
        create_revision: 1,
        mod_revision: main,
        version: main,
        value: vec![b'v'; main as usize * 100].into(),
        lease: 7,
    };
    ((main, sub, false), kv.encode_to_vec())
}

fn delete(main: i64, sub: i64) -> Row {
    let kv = KeyValue { key: format!("key {sub}").into(), ..Default::default() };
    ((main, sub, true), kv.encode_to_vec())
}

fn image(changes: &[Row]) -> Vec<u8> {
    let (facts, origin) = (some_facts(), some_origin());
    let mut writer = Writer::default();
    write_before(&facts, &origin, &mut writer);
    for ((main, sub, is_delete), kv) in changes {
        let revision = Revision { main: *main, sub: *sub };
        write_change(&Change { revision, is_delete: *is_delete, kv }, &mut writer);
    }
    write_after(&facts, &origin, &mut writer);
    let finished = writer.finish();
    let mut file = finished.head;
    assert_eq!(file.len(), HEAD_BYTES);
    file.extend(finished.tail);
    file
}

fn changes(file: &[u8]) -> Result<Vec<Row>, Error> {
    let mut found = Vec::new();
    visit_changes(&Reader::open(file)?, &mut |change| {
        let Revision { main, sub } = change.revision;
        found.push(((main, sub, change.is_delete), change.kv.to_vec()));
        ControlFlow::Continue(())
    })?;
    Ok(found)
}

#[test]
fn what_is_written_is_read() {
    let wanted = [put(2, 0), put(2, 1), put(3, 0), delete(4, 0), delete(4, 1), put(90, 0)];
    let file = image(&wanted);
    assert_eq!(changes(&file).unwrap(), wanted);
    assert_eq!(facts(&Reader::open(&file[..]).unwrap()).unwrap(), some_facts());
}

#[test]
fn a_revision_without_a_change_is_read() {
    let wanted = [put(2, 0), ((1_000, 0, false), Vec::new())];
    assert_eq!(changes(&image(&wanted)).unwrap(), wanted);
}

#[test]
fn a_row_that_no_etcd_writes_is_named() {
    let kv = |kv: KeyValue| kv.encode_to_vec();
    let (_, of_two) = put(2, 0);
    let cases = [
        ((3, 0, false), of_two),
        ((3, 0, false), kv(KeyValue { mod_revision: 3, version: 1, ..Default::default() })),
        ((3, 0, false), vec![0xff, 0xff]),
        ((3, 0, true), Vec::new()),
        ((3, -1, false), put(3, 0).1),
    ];
    for case in cases {
        let error = changes(&image(&[put(2, 0), case.clone()])).unwrap_err();
        assert!(matches!(error, Error::Row { bucket: "key", .. }), "{case:?}: {error}");
    }
}

#[test]
fn the_database_of_something_else_is_refused() {
    let mut writer = Writer::default();
    writer.bucket(b"something");
    let finished = writer.finish();
    let file = [finished.head, finished.tail].concat();
    let reader = Reader::open(&file[..]).unwrap();
    assert!(matches!(facts(&reader), Err(Error::Bolt(_))));
    assert!(matches!(changes(&file), Err(Error::Bolt(_))));
}
