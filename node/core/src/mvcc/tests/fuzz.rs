//! Requests of any shape, from a client that means no good: each is refused or carried out, and leaves a
//! store that can be read. docs/fuzzing.md has the table.

use flotilla_fuzz::{Messages, Target, damaged, signed};
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::auth::Needs;
use crate::proto::Span;

#[derive(Clone, Debug)]
enum Asked {
    Put(Vec<u8>),
    Delete(Vec<u8>),
    Txn(Vec<u8>),
    Range(Vec<u8>),
    Watch(Vec<u8>),
    Compact(i64),
    Hash(i64),
}

fn asked() -> impl Strategy<Value = Asked> {
    let messages = Messages::new(crate::proto::DESCRIPTOR_SET);
    let of = |name: &str| damaged(messages.encoded(&format!("etcdserverpb.{name}")));
    prop_oneof![
        4 => of("PutRequest").prop_map(Asked::Put),
        2 => of("DeleteRangeRequest").prop_map(Asked::Delete),
        4 => of("TxnRequest").prop_map(Asked::Txn),
        3 => of("RangeRequest").prop_map(Asked::Range),
        1 => of("WatchCreateRequest").prop_map(Asked::Watch),
        1 => signed().prop_map(Asked::Compact),
        1 => signed().prop_map(Asked::Hash),
    ]
}

fn decoded<M: Message + Default>(encoded: &[u8]) -> Option<M> {
    M::decode(encoded).ok()
}

/// What is asked of a request before it is carried out, and of its effects after.
fn look_at(command: &Command) {
    drop((footprint(command), quota_cost(command)));
    let needs = match command {
        Command::Put(put) => Needs::of_put(put),
        Command::DeleteRange(delete) => Needs::of_delete(delete),
        Command::Txn(txn) => Needs::of_txn(txn),
        _ => unreachable!("no other is drawn"),
    };
    drop(needs);
}

fn ask(store: &mut Store, asked: Asked) {
    let command = match asked {
        Asked::Put(encoded) => decoded(&encoded).map(Command::Put),
        Asked::Delete(encoded) => decoded(&encoded).map(Command::DeleteRange),
        Asked::Txn(encoded) => decoded(&encoded).map(Command::Txn),
        Asked::Range(encoded) => {
            if let Some(request) = decoded(&encoded) {
                drop((Needs::of_range(&request), check_range_stream(&request)));
                if let Ok(answer) = store.read(&request) {
                    assert!(request.count_only || answer.kvs.len() as i64 <= answer.count);
                }
            }
            return;
        }
        Asked::Watch(encoded) => {
            if let Some(request) = decoded::<pb::WatchCreateRequest>(&encoded) {
                drop(Needs::of_watch(&request));
                let span = Span::from_request(request.key, request.range_end);
                assert!(!span.is_empty() || !span.contains(b"a"));
            }
            return;
        }
        Asked::Compact(revision) => {
            if store.compact(revision).is_ok() {
                assert!(store.compact_rows(3, 10_000));
            }
            return;
        }
        Asked::Hash(revision) => {
            let _ = store.hash(revision);
            return;
        }
    };
    let Some(command) = command else { return };
    look_at(&command);
    match command {
        Command::Txn(txn) => drop(store.txn(txn)),
        command => drop(store.run(&command)),
    }
}

#[test]
fn fuzz_core_requests() {
    Target::new("core/requests").cases(512).run(vec(asked(), 0..30), |requests| {
        let mut store = Store::new();
        store.leases.0 = (0..4).collect();
        for request in requests {
            ask(&mut store, request);
        }
        // Everything can still be read, as it is and as it was.
        for revision in store.head.compact_revision.max(1)..=store.head.revision {
            store.dump_at(revision);
        }
        store.hash(0).unwrap();
    });
}
