//! Effects that stand for many keys: a large delete and the end of a lease with many keys.

use bytes::Bytes;

use crate::LeaseId;
use crate::command::{Answer, Command};
use crate::memory::MemoryView;
use crate::mvcc::evaluate::NoLeases;
use crate::mvcc::{Applier, Evaluated, Event, Head, NAMED_KEYS_MAX, evaluate, lease_keys};
use crate::proto::etcdserverpb as pb;
use crate::proto::internal::Effect;
use crate::view::{Batch, Column};

fn key(n: usize) -> Bytes {
    Bytes::from(format!("k{n:05}"))
}

fn put(key: Bytes, lease: i64) -> Effect {
    Effect { key, lease, value: Bytes::from_static(b"v"), ..Default::default() }
}

fn apply(view: &mut MemoryView, writes: &[(i64, Vec<Effect>)]) -> Vec<Event> {
    let mut batch = Batch::default();
    let mut events = Vec::new();
    let frozen = view.clone();
    let mut applier = Applier::new(&frozen);
    for (revision, effects) in writes {
        applier
            .apply(*revision, effects, false, &mut batch, &mut events)
            .expect("memory is readable");
    }
    view.apply(&batch);
    events
}

fn filled(count: usize, lease: i64) -> MemoryView {
    let mut view = MemoryView::new();
    let effects = (0..count).map(|n| put(key(n), lease)).collect();
    apply(&mut view, &[(2, effects)]);
    view
}

#[test]
fn a_large_delete_is_logged_as_its_span_and_applied_key_by_key() {
    let count = NAMED_KEYS_MAX + 7;
    let mut view = filled(count, 0);
    let request = pb::DeleteRangeRequest {
        key: Bytes::from_static(b"k"),
        range_end: Bytes::from_static(b"l"),
        ..Default::default()
    };
    let head = Head { revision: 2, compact_revision: -1 };
    let command = Command::DeleteRange(request);
    let Evaluated::Effects { effects, draft, .. } =
        evaluate(&view, head, &NoLeases, &command).expect("memory is readable")
    else {
        panic!("there are keys to delete");
    };
    assert_eq!(effects.len(), 1, "one effect for all keys");
    let Answer::DeleteRange(answer) = draft.settle(3, None) else {
        panic!("of the command's kind")
    };
    assert_eq!(answer.deleted, count as i64);

    let events = apply(&mut view, &[(3, effects)]);
    let deleted: Vec<_> = events.iter().map(|event| (event.sub, event.key.clone())).collect();
    let expected: Vec<_> = (0..count).map(|n| (n as i64, key(n))).collect();
    assert_eq!(deleted, expected, "one event a key, in the order of the keys");
    assert!(events.iter().all(|event| event.is_delete && event.revision == 3));
}

#[test]
fn a_span_sees_what_was_put_and_deleted_just_before_it_in_the_same_batch() {
    let mut view = filled(3, 0);
    let span = Effect {
        key: Bytes::from_static(b"k"),
        range_end: Bytes::from_static(b"\0"),
        is_delete: true,
        ..Default::default()
    };
    let gone = Effect { key: key(1), is_delete: true, ..Default::default() };
    let writes = [(3, vec![put(key(9), 0)]), (4, vec![gone]), (5, vec![span])];
    let events = apply(&mut view, &writes);
    let last: Vec<_> =
        events.iter().filter(|event| event.revision == 5).map(|event| event.key.clone()).collect();
    assert_eq!(last, vec![key(0), key(2), key(9)]);
}

#[test]
fn the_end_of_a_lease_takes_the_keys_attached_to_it_at_that_moment() {
    let mut view = filled(4, 7);
    let end = Effect { lease: 7, is_delete: true, ..Default::default() };
    // One key leaves the lease and another joins it before it ends.
    let writes = [(3, vec![put(key(0), 0)]), (4, vec![put(key(8), 7)]), (5, vec![end])];
    let events = apply(&mut view, &writes);
    let last: Vec<_> =
        events.iter().filter(|event| event.revision == 5).map(|event| event.key.clone()).collect();
    assert_eq!(last, vec![key(1), key(2), key(3), key(8)]);
    assert_eq!(lease_keys(&view, LeaseId(7)).expect("memory is readable"), Vec::<Bytes>::new());
    assert_eq!(view.rows_count(Column::LeaseKey), 0);
}
