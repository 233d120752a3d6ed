//! The past as watchers are shown it.

use super::*;
use crate::proto::Span;

const WIDE: ReplayLimits = ReplayLimits { events_max: 1000, bytes_max: 1 << 20, rows_max: 1000 };

fn replay(store: &Store, span: &Span, from: i64, limits: ReplayLimits) -> Replay {
    events_from(&store.view, span, from, store.head.revision, true, limits).unwrap()
}

/// What the events are when they happen is what they are later.
#[test]
fn live_events_are_those_of_the_history() {
    let mut store = Store::new();
    store.put(put("a", "1")).unwrap();
    store.put(put("a", "2")).unwrap();
    store.delete(delete("a", "")).unwrap();
    store.put(put("a", "3")).unwrap();
    // Twice at one revision: over a key that is there, and over one that is not.
    store.txn(txn(vec![op_put("a", "4"), op_put("b", "4"), op_delete("a", "\0")])).unwrap();
    store.put(put("a", "5")).unwrap();
    store.txn(txn(vec![op_delete("a", "\0"), op_put("a", "6"), op_delete("Z", "\0")])).unwrap();
    assert_eq!(replay(&store, &Span::all(), 1, WIDE).events, store.events);

    let shown: Vec<_> = store
        .events
        .iter()
        .map(|event| {
            let prev = event.prev.clone().map(|prev| {
                let prev = super::super::layout::decode_key_value(prev).unwrap();
                format!("{}@{}", show(std::slice::from_ref(&prev)), prev.mod_revision)
            });
            let kind = match (event.is_delete, event.is_create) {
                (true, _) => "delete",
                (_, true) => "create",
                _ => "put",
            };
            let key = std::str::from_utf8(&event.key).unwrap();
            let prev = prev.unwrap_or_else(|| "-".into());
            format!("{}.{} {kind} {key} {prev}", event.revision, event.sub)
        })
        .collect();
    assert_eq!(
        shown,
        [
            "2.0 create a -",
            "3.0 put a a=1@2",
            "4.0 delete a a=2@3",
            "5.0 create a -",
            "6.0 put a a=3@5",
            "6.1 create b -",
            "6.2 delete a a=3@5",
            "6.3 delete b -",
            "7.0 create a -",
            "8.0 delete a a=5@7",
            "8.1 create a -",
            "8.2 delete a a=5@7",
        ]
    );
}

#[test]
fn a_revision_is_never_split() {
    let mut store = Store::new();
    store.txn(txn(vec![op_put("a", ""), op_put("b", ""), op_put("c", "")])).unwrap();
    store.txn(txn(vec![op_put("d", ""), op_put("e", "")])).unwrap();
    store.put(put("a", "")).unwrap();
    let nexts = |span: &Span, limits: ReplayLimits| {
        let mut nexts = Vec::new();
        let mut next = 1;
        while next <= store.head.revision {
            let replay = replay(&store, span, next, limits);
            next = replay.next;
            nexts.push((next, replay.events.len()));
        }
        nexts
    };
    assert_eq!(nexts(&Span::all(), WIDE), [(5, 6)]);
    let one = ReplayLimits { events_max: 1, ..WIDE };
    assert_eq!(nexts(&Span::all(), one), [(3, 3), (4, 2), (5, 1)]);
    let some_rows = ReplayLimits { rows_max: 4, ..WIDE };
    assert_eq!(nexts(&Span::all(), some_rows), [(4, 5), (5, 1)]);
    let few_bytes = ReplayLimits { bytes_max: 1, ..WIDE };
    assert_eq!(nexts(&Span::all(), few_bytes), [(3, 3), (4, 2), (5, 1)]);
    // Rows outside of the span count as work, so that a search for nothing ends as well.
    let elsewhere = Span::key(bytes("z"));
    assert_eq!(nexts(&elsewhere, some_rows), [(4, 0), (5, 0)]);
    assert_eq!(nexts(&elsewhere, one), [(5, 0)]);
    assert_eq!(nexts(&Span::key(bytes("a")), WIDE), [(5, 2)]);
}

#[test]
fn compaction_cuts_the_past() {
    let mut store = Store::new();
    store.put(put("a", "1")).unwrap();
    store.put(put("a", "2")).unwrap();
    store.delete(delete("a", "")).unwrap();
    store.put(put("a", "3")).unwrap();
    store.compact(4).unwrap();
    store.compact_rows(100, 1);
    let from = |revision| {
        events_from(&store.view, &Span::all(), revision, 5, true, WIDE).map(|it| it.events)
    };
    assert_eq!(from(3), Err(Failure::Client(Error::Compacted)));
    // At the compact revision itself the delete is there, what it deleted is not.
    let mut want = store.events[2..].to_vec();
    assert!(want[0].prev.is_some());
    want[0].prev = None;
    assert_eq!(from(4), Ok(want));
}

#[test]
fn without_what_was_before() {
    let mut store = Store::new();
    store.put(put("a", "1")).unwrap();
    store.put(put("a", "2")).unwrap();
    let got = events_from(&store.view, &Span::all(), 3, 3, false, WIDE).unwrap();
    assert_eq!(got.events.len(), 1);
    assert_eq!(got.events[0].prev, None);
    assert_eq!(got.events[0].kv, store.events[1].kv);
    assert!(!got.events[0].is_create);
}
