//! The spine's state and the ranges' rows, as they are found in the store.

use bytes::Bytes;
use flotilla_fuzz::{Messages, Target, bytes, damaged, number};
use proptest::collection::vec;
use proptest::prelude::*;

use super::messages;
use crate::GroupId;
use crate::command::RequestId;
use crate::memory::MemoryView;
use crate::proto::internal::Member;
use crate::range::stored;
use crate::snapshot::Scope;
use crate::spine::State;
use crate::view::{Batch, Column, Write};

/// The rows of a new cluster.
fn bootstrapped() -> MemoryView {
    let member = |id| Member { id, name: format!("n{id}"), ..Member::default() };
    let state = State::bootstrap(7, vec![member(1), member(2), member(3)]);
    let mut batch = Batch::default();
    state.write_all(&mut batch);
    let mut view = MemoryView::new();
    view.apply(&batch);
    view
}

/// The value of some row, and what it may be the value of by the letter its key begins with.
fn value(messages: &Messages) -> impl Strategy<Value = Vec<u8>> + use<> {
    let names = [
        "flotilla.internal.ConfState",
        "flotilla.internal.StoredLease",
        "flotilla.internal.Member",
        "flotilla.internal.RequestWindow",
        "flotilla.internal.Range",
        "flotilla.internal.StoredTxn",
        "flotilla.internal.StoredRange",
        "flotilla.internal.Decision",
        "flotilla.internal.StoredAuth",
        "authpb.User",
        "authpb.Role",
    ];
    let values = names.map(|name| messages.encoded(name).boxed()).to_vec();
    let message = proptest::sample::select(values).prop_flat_map(|value| value);
    prop_oneof![
        6 => damaged(message),
        2 => number().prop_map(|number| number.to_be_bytes().to_vec()),
        1 => bytes(),
    ]
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    let numbers = vec(number().prop_map(|number| number % 4), 0..3);
    let numbered = (any::<u8>(), numbers).prop_map(|(letter, numbers)| {
        // Rows begin with a small letter; others are met now and then.
        let letter = if letter < 240 { b'a' + letter % 26 } else { letter };
        let mut key = vec![letter];
        numbers.iter().for_each(|number| key.extend(number.to_be_bytes()));
        key
    });
    prop_oneof![8 => numbered, 1 => bytes()]
}

/// Whatever the store has, the state is loaded or the store is damaged; and what is loaded can be used.
#[test]
fn fuzz_core_state() {
    let messages = messages();
    let rows = vec((key(), value(&messages)), 0..6);
    Target::new("core/state").cases(512).run((any::<bool>(), rows), |(is_new, rows)| {
        let mut view = if is_new { bootstrapped() } else { MemoryView::new() };
        let puts = rows
            .into_iter()
            .map(|(key, value)| Write::Put(Column::Meta, Bytes::from(key), Bytes::from(value)));
        view.apply(&Batch { writes: puts.collect() });
        if let Ok(Some(state)) = State::load(&view) {
            let mut batch = Batch::default();
            state.write_all(&mut batch);
            let mut copy = MemoryView::new();
            copy.apply(&batch);
            let again = State::load(&copy).unwrap().expect("it was written");
            assert_eq!((again.position(), again.conf()), (state.position(), state.conf()));
            assert_eq!(again.ranges(), state.ranges());
            for n in 0..4 {
                let group = GroupId(n);
                Scope::new(group, state.ranges()).map(|scope| scope.spans().to_vec());
                state.decision(group, RequestId { origin: n, n });
            }
        }
        let ids = stored::ids(&view).unwrap_or_default();
        for id in ids {
            if let Ok(Some(range)) = stored::Stored::load(&view, id) {
                let mut batch = Batch::default();
                range.write(id, &mut batch);
                let mut copy = MemoryView::new();
                copy.apply(&batch);
                assert_eq!(stored::Stored::load(&copy, id), Ok(Some(range)));
            }
            let _ = stored::since(&view, id);
        }
        let _ = (stored::ended_ids(&view), stored::left(&view));
    });
}
