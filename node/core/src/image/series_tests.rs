//! Increments, what is made of a directory's files, and the states that they lead to.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;
use prost::Message;

use super::bolt::{Reader, Writer};
use super::catalog::{Catalog, Missing, Next, Plan, Run, Superseded};
use super::chain::{Chain, Part, TTL_UNKNOWN_SECONDS, Wanted};
use super::schema::{Origin, write_after, write_before, write_change};
use super::*;
use crate::auth::Auth;
use crate::mvcc::layout::Revision;
use crate::proto::internal::backup_frame::Content;
use crate::proto::internal::{BackupChanges, BackupEnd, BackupHead};
use crate::proto::mvccpb::event::EventType;
use crate::proto::mvccpb::{Event, KeyValue};
use crate::spine::state::Lease;

const CLUSTER: u64 = 7;

fn put(key: &str, main: i64, lease: i64) -> Event {
    let kv = KeyValue {
        key: Bytes::copy_from_slice(key.as_bytes()),
        create_revision: main,
        mod_revision: main,
        version: 1,
        value: format!("{key} at {main}").into(),
        lease,
    };
    Event { r#type: EventType::Put.into(), kv: Some(kv), prev_kv: None }
}

fn delete(key: &str, main: i64) -> Event {
    let key = Bytes::copy_from_slice(key.as_bytes());
    let kv = KeyValue { key, mod_revision: main, ..Default::default() };
    Event { r#type: EventType::Delete.into(), kv: Some(kv), prev_kv: None }
}

/// An increment of messages, each with the moment at which it came.
fn increment(first: i64, messages: &[(u64, &[Event])], ttls: &[(i64, i64)]) -> Vec<u8> {
    let (mut writer, mut file) = increment::Writer::new(CLUSTER, first).unwrap();
    for (time_ms, events) in messages {
        file.extend(writer.add(*time_ms, events.to_vec()).unwrap());
    }
    file.extend(writer.finish(3, &ttls.iter().copied().collect()));
    file
}

fn some() -> Vec<u8> {
    let first = [put("a", 5, 0), put("b", 5, 9)];
    let second = [delete("c", 5), put("a", 6, 0)];
    increment(5, &[(100, &first), (200, &second), (150, &[put("d", 7, 8)])], &[(9, 60)])
}

type Row = ((i64, i64), bool, KeyValue, u64);

fn rows(file: &[u8]) -> Result<Vec<Row>, Error> {
    let mut rows = Vec::new();
    increment::visit(&file, &mut |change, time_ms| {
        let Revision { main, sub } = change.revision;
        rows.push(((main, sub), change.is_delete, KeyValue::decode(change.kv).unwrap(), time_ms));
        ControlFlow::Continue(())
    })?;
    Ok(rows)
}

#[test]
fn what_is_written_is_read() {
    let found = rows(&some()).unwrap();
    let kv = |event: Event| event.kv.unwrap();
    let deleted = KeyValue { key: "c".into(), ..Default::default() };
    let wanted = [
        ((5, 0), false, kv(put("a", 5, 0)), 100),
        ((5, 1), false, kv(put("b", 5, 9)), 100),
        // A revision that came in two messages is one.
        ((5, 2), true, deleted, 200),
        ((6, 0), false, kv(put("a", 6, 0)), 200),
        // A clock that was set back stands still.
        ((7, 0), false, kv(put("d", 7, 8)), 200),
    ];
    assert_eq!(found, wanted);
    let summary = increment::summary(&&some()[..]).unwrap();
    assert_eq!((summary.first, summary.last, summary.events_count), (5, 7, 5));
    assert_eq!((summary.cluster_id, summary.auth_revision, summary.time_ms), (CLUSTER, 3, 200));
    assert_eq!(summary.leases, BTreeMap::from([(8, 0), (9, 60)]));
}

#[test]
fn any_flipped_bit_and_any_cut_is_found() {
    let whole = some();
    for bit in 0..whole.len() * 8 {
        let mut file = whole.clone();
        file[bit / 8] ^= 1 << (bit % 8);
        assert!(rows(&file).is_err(), "bit {bit}");
    }
    for length in 0..whole.len() {
        assert!(rows(&whole[..length]).is_err(), "cut at {length}");
    }
    let twice = [&whole[..], &whole[..]].concat();
    assert!(rows(&twice).is_err(), "one behind the other");
}

#[test]
fn a_hole_is_refused_by_who_writes_and_by_who_reads() {
    let cases: [&[Event]; 7] = [
        &[put("a", 6, 0)],
        &[put("a", 4, 0)],
        &[put("a", 5, 0), put("b", 7, 0)],
        &[put("a", 5, 0), put("b", 6, 0), put("c", 5, 0)],
        &[put("", 5, 0)],
        &[Event::default()],
        &[Event {
            kv: Some(KeyValue { version: 0, ..put("a", 5, 0).kv.unwrap() }),
            ..put("a", 5, 0)
        }],
    ];
    for events in cases {
        let (mut writer, _) = increment::Writer::new(CLUSTER, 5).unwrap();
        assert!(writer.add(1, events.to_vec()).is_err(), "{events:?}");
        let last = events.last().unwrap().kv.as_ref().map_or(5, |kv| kv.mod_revision.max(5));
        let contents = [
            Content::Head(BackupHead { cluster_id: CLUSTER, first: 5 }),
            Content::Changes(BackupChanges { time_ms: 1, events: events.to_vec() }),
        ];
        let end =
            BackupEnd { last, time_ms: 1, events_count: events.len() as u64, ..Default::default() };
        let mut file = frames::file_head();
        contents.into_iter().for_each(|content| file.extend(frames::frame(content)));
        file.extend(frames::last_frame(Content::End(end)));
        let error = rows(&file).unwrap_err();
        assert!(matches!(error, Error::Part(_)), "{events:?}: {error}");
    }
    assert!(increment::Writer::new(CLUSTER, 1).is_err());
}

#[test]
fn a_moment_is_the_last_revision_that_was_whole_by_then() {
    let at = |time_ms| increment::revision_at(&&some()[..], time_ms).unwrap();
    let cases = [(0, None), (99, None), (100, None), (199, None), (200, Some(7)), (900, Some(7))];
    for (time_ms, revision) in cases {
        assert_eq!(at(time_ms), revision, "{time_ms}");
    }
    let file = increment(2, &[(10, &[put("a", 2, 0)]), (20, &[put("a", 3, 0)])], &[]);
    let at = |time_ms| increment::revision_at(&&file[..], time_ms).unwrap();
    assert_eq!([at(9), at(10), at(19), at(20)], [None, Some(2), Some(2), Some(3)]);
}

fn catalog(bases: &[(i64, i64)], runs: &[(i64, i64)]) -> Catalog {
    let mut catalog = Catalog::default();
    bases.iter().for_each(|(revision, compacted)| catalog.add_base(*revision, *compacted));
    runs.iter().for_each(|(first, last)| {
        catalog.add_increment(Run { first: *first, last: *last });
    });
    catalog
}

fn runs(runs: &[(i64, i64)]) -> Vec<Run> {
    runs.iter().map(|(first, last)| Run { first: *first, last: *last }).collect()
}

#[test]
fn a_revision_is_made_of_the_newest_base_before_it() {
    let two = catalog(&[(10, 1), (25, 22)], &[(11, 20), (21, 30), (31, 40)]);
    let plan = |base, increments: &[(i64, i64)]| Ok(Plan { base, increments: runs(increments) });
    assert_eq!(two.plan(10), plan(10, &[]));
    assert_eq!(two.plan(11), plan(10, &[(11, 20)]));
    assert_eq!(two.plan(24), plan(10, &[(11, 20), (21, 30)]));
    // It begins within an increment.
    assert_eq!(two.plan(26), plan(25, &[(21, 30)]));
    assert_eq!(two.plan(40), plan(25, &[(21, 30), (31, 40)]));
    assert_eq!(two.plan(41), Err(Missing::Increment(41)));
    // The history of a later base has what is before it.
    assert_eq!(two.plan(5), plan(10, &[]));
    let holed = catalog(&[(10, 4), (25, 22)], &[(11, 15), (31, 40)]);
    assert_eq!(holed.plan(22), plan(25, &[]));
    assert_eq!(holed.plan(21), Err(Missing::Increment(16)));
    assert_eq!(holed.plan(31), Err(Missing::Increment(26)));
    assert_eq!(holed.plan(3), Err(Missing::TooOld(4)));
    assert_eq!(catalog(&[], &[(2, 9)]).plan(5), Err(Missing::Base));
    assert_eq!(holed.covered(), runs(&[(4, 15), (22, 25)]));
    assert_eq!(two.covered(), runs(&[(1, 40)]));
}

#[test]
fn changes_follow_where_nothing_is_missing() {
    assert_eq!(catalog(&[], &[]).next(), Next::Base);
    assert_eq!(catalog(&[], &[(2, 9)]).next(), Next::Base);
    assert_eq!(catalog(&[(10, 1)], &[]).next(), Next::After(vec![10]));
    assert_eq!(catalog(&[(10, 1)], &[(11, 20), (21, 30)]).next(), Next::After(vec![30]));
    assert_eq!(catalog(&[(25, 1)], &[(11, 20)]).next(), Next::After(vec![20, 25]));
    assert_eq!(catalog(&[(20, 1)], &[(11, 20)]).next(), Next::After(vec![20]));
    let holed = catalog(&[(10, 1)], &[(11, 20), (31, 40)]);
    assert_eq!(holed.next(), Next::Missing(Missing::Increment(21)));
}

#[test]
fn only_what_no_kept_base_needs_is_let_go() {
    let three = catalog(&[(10, 1), (25, 22), (40, 30)], &[(11, 20), (21, 30), (31, 40), (41, 50)]);
    let superseded = |keep| three.superseded(keep);
    let let_go = |bases: &[i64], increments: &[(i64, i64)]| Superseded {
        bases: bases.to_vec(),
        increments: runs(increments),
    };
    assert_eq!(superseded(1), let_go(&[10, 25], &[(11, 20), (21, 30), (31, 40)]));
    assert_eq!(superseded(2), let_go(&[10], &[(11, 20)]));
    assert_eq!(superseded(3), let_go(&[], &[]));
    assert_eq!(superseded(9), let_go(&[], &[]));
}

/// A snapshot of revision 4.
fn base() -> Vec<u8> {
    let lease = |ttl| Lease { ttl, remaining_ttl: 5, ..Lease::default() };
    let facts = Facts {
        compacted: 2,
        compact_revision: 2,
        leases: BTreeMap::from([(1, lease(30)), (2, lease(40))]),
        auth: Auth::restored(false, 1),
        alarms: Default::default(),
    };
    let (origin, mut writer) = (Origin::default(), Writer::default());
    write_before(&facts, &origin, &mut writer);
    for event in [put("p/a", 2, 1), put("q", 3, 0), put("p/b", 4, 0)] {
        let kv = event.kv.unwrap();
        let revision = Revision { main: kv.mod_revision, sub: 0 };
        let kv = kv.encode_to_vec();
        write_change(&Change { revision, is_delete: false, kv: &kv }, &mut writer);
    }
    write_after(&facts, &origin, &mut writer);
    let finished = writer.finish();
    [finished.head, finished.tail].concat()
}

fn chain<'a>(
    base: &'a [u8],
    parts: &[(&str, &'a [u8])],
    revision: i64,
    prefix: &'static str,
) -> Result<Chain<&'a [u8]>, Error> {
    let part = |(name, bytes): &(&str, &'a [u8])| Part { name: (*name).to_owned(), bytes: *bytes };
    let wanted = Wanted { revision, prefix: Bytes::from_static(prefix.as_bytes()) };
    Chain::open(Reader::open(base)?, (4, CLUSTER), parts.iter().map(part).collect(), wanted)
}

/// The revisions of changes, and keys.
fn changes(chain: &Chain<&[u8]>) -> Vec<((i64, i64), String)> {
    let mut found = Vec::new();
    chain
        .visit_changes(&mut |change| {
            let key = KeyValue::decode(change.kv).unwrap().key;
            let mark = if change.is_delete { "-" } else { "" };
            let key = format!("{mark}{}", String::from_utf8_lossy(&key));
            found.push(((change.revision.main, change.revision.sub), key));
            ControlFlow::Continue(())
        })
        .unwrap();
    found
}

#[test]
fn a_chain_ends_at_its_revision_and_has_the_leases_of_its_keys() {
    let base = base();
    // It begins before the base, as one does that was written while the base was taken.
    let one = increment(
        4,
        &[(1, &[put("p/b", 4, 0)]), (1, &[put("p/c", 5, 6), delete("q", 5)])],
        &[(6, 70)],
    );
    let two =
        increment(6, &[(2, &[put("p/d", 6, 8), put("r", 6, 9)]), (2, &[delete("p/a", 7)])], &[]);
    let parts: [(&str, &[u8]); 2] = [("one", &one), ("two", &two)];
    let all = [
        ((2, 0), "p/a"),
        ((3, 0), "q"),
        ((4, 0), "p/b"),
        ((5, 0), "p/c"),
        ((5, 1), "-q"),
        ((6, 0), "p/d"),
        ((6, 1), "r"),
        ((7, 0), "-p/a"),
    ];
    for (revision, count, leases, unknown) in [
        (3, 2, vec![(1, 30), (2, 40)], vec![]),
        (4, 3, vec![(1, 30), (2, 40)], vec![]),
        (5, 5, vec![(1, 30), (2, 40), (6, 70)], vec![]),
        (6, 7, vec![(1, 30), (2, 40), (6, 70), (8, 60), (9, 60)], vec![8, 9]),
        (7, 8, vec![(1, 30), (2, 40), (6, 70), (8, 60), (9, 60)], vec![8, 9]),
    ] {
        let chain = chain(&base, &parts, revision, "").unwrap();
        let wanted: Vec<_> =
            all[..count].iter().map(|(at, key)| (*at, (*key).to_owned())).collect();
        assert_eq!(changes(&chain), wanted, "{revision}");
        let facts = chain.facts().unwrap();
        let found: Vec<_> = facts.leases.iter().map(|(id, lease)| (*id, lease.ttl)).collect();
        assert_eq!(found, leases, "{revision}");
        assert_eq!(chain.leases_unknown(), unknown, "{revision}");
        assert_eq!((facts.compact_revision, chain.revision_min()), (2, revision));
    }
    assert_eq!(TTL_UNKNOWN_SECONDS, 60);
    // Of a prefix there is no history to watch, and no lease of others.
    let chain = chain(&base, &parts, 6, "p/").unwrap();
    let keys: Vec<String> = changes(&chain).into_iter().map(|(_, key)| key).collect();
    assert_eq!(keys, ["p/a", "p/b", "p/c", "p/d"]);
    let facts = chain.facts().unwrap();
    assert_eq!(facts.leases.keys().copied().collect::<Vec<_>>(), [1, 6, 8]);
    assert_eq!(facts.compact_revision, 6);
}

#[test]
fn a_chain_that_does_not_hold_is_refused_by_name() {
    let base = base();
    let one = increment(5, &[(1, &[put("a", 5, 0)])], &[]);
    let three = increment(7, &[(1, &[put("a", 7, 0)])], &[]);
    let (mut foreign, head) = increment::Writer::new(CLUSTER + 1, 6).unwrap();
    let mut other = head;
    other.extend(foreign.add(1, vec![put("a", 6, 0)]).unwrap());
    other.extend(foreign.finish(1, &BTreeMap::new()));
    let mut bad = one.clone();
    bad[40] ^= 1;
    type Files<'a> = &'a [(&'a str, &'a [u8])];
    let cases: [(Files<'_>, i64, &str); 6] = [
        (
            &[("one", &one), ("three", &three)],
            7,
            "three: this part of the backup is damaged: revision 6",
        ),
        (&[("bad", &bad)], 5, "bad: "),
        (
            &[("one", &one), ("other", &other)],
            6,
            "other: this part of the backup is damaged: it is of another",
        ),
        (&[("one", &one)], 6, "revision 6 is missing"),
        (&[], 5, "revision 5 is missing"),
        (&[], 1, "revision 1 is compacted at 2"),
    ];
    for (parts, revision, text) in cases {
        let error = chain(&base, parts, revision, "").unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    }
    let wanted = Wanted { revision: 5, prefix: Bytes::new() };
    let error = Chain::open(
        Reader::open(&base[..]).unwrap(),
        (5, CLUSTER),
        Vec::<Part<&[u8]>>::new(),
        wanted,
    );
    assert!(error.unwrap_err().to_string().contains("it is of revision 4, not 5"));
}
