//! The stream of a snapshot: header and chunks. What is taken is what was sent, or nothing is.

use bytes::{Bytes, BytesMut};
use flotilla_fuzz::{Edit, Target, apply, edits, number};
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;

use super::messages;
use crate::GroupId;
use crate::memory::MemoryView;
use crate::mvcc::layout::{RecordHead, Revision, encode_history_key};
use crate::proto::Span;
use crate::proto::internal::{ConfState, RaftMessage, SnapshotChunk, SnapshotHeader, SnapshotMark};
use crate::proto::mvccpb::KeyValue;
use crate::snapshot::{Limits, Receiver, Row, Scope, Sender};
use crate::spine::ranges::{Range, Ranges};
use crate::view::{Batch, Column};

const RANGE: GroupId = GroupId(1);

/// Everything, or one range of it.
fn scope(is_whole: bool) -> Scope {
    let mut ranges = Ranges::default();
    if is_whole {
        return Scope::new(GroupId::SPINE, &ranges).unwrap();
    }
    let span = Span { start: Bytes::from_static(b"b"), end: Some(Bytes::from_static(b"c")) };
    ranges.insert(RANGE, Range::new(span, Vec::new()));
    Scope::new(RANGE, &ranges).unwrap()
}

/// Keys with a past, each of two revisions.
fn view(keys: u8) -> MemoryView {
    let mut batch = Batch::default();
    for n in 0..keys {
        let key = Bytes::from(vec![b'a' + n % 3, n]);
        let record = |main: i64, previous| {
            let kv = KeyValue { key: key.clone(), mod_revision: main, ..KeyValue::default() };
            let revision = Revision { main, sub: 0 };
            let head = RecordHead { revision, is_tombstone: false, previous };
            let mut row = BytesMut::new();
            head.encode(&mut row);
            row.extend_from_slice(&kv.encode_to_vec());
            (revision, row.freeze())
        };
        let (old, old_row) = record(i64::from(n) * 2 + 2, None);
        let (new, new_row) = record(i64::from(n) * 2 + 3, Some(old));
        let mut history = BytesMut::new();
        encode_history_key(&key, old, &mut history);
        batch.put(Column::Key, key, new_row.clone());
        batch.put(Column::Revision, old.encode().to_vec(), old_row);
        batch.put(Column::Revision, new.encode().to_vec(), new_row);
        batch.put(Column::History, history, crate::mvcc::layout::HISTORY_PUT);
    }
    let mut view = MemoryView::new();
    view.apply(&batch);
    view
}

fn limits() -> Limits {
    Limits { chunk_bytes_max: 300, row_bytes_max: 2000, window_chunks_max: u64::MAX }
}

/// Everything that a sender says, encoded, header first.
fn stream(is_whole: bool, keys: u8) -> Vec<Vec<u8>> {
    let scope = scope(is_whole);
    let conf = ConfState { voters: vec![1, 2, 3], ..ConfState::default() };
    let message = RaftMessage { group: scope.group().0, ..RaftMessage::default() };
    let mark = SnapshotMark { index: 7, term: 2, conf: Some(conf) };
    let header = SnapshotHeader { id: 9, message: Some(message), mark: Some(mark) };
    let mut stream = vec![header.encode_to_vec()];
    let (view, mut sender) = (view(keys), Sender::new(9, scope, limits()));
    while let Some(chunk) = sender.next(&view).unwrap() {
        stream.push(chunk.encode_to_vec());
    }
    stream
}

/// The rows, if the stream was taken to its end.
fn receive(is_whole: bool, stream: &[Vec<u8>]) -> Option<Vec<Row>> {
    let header = SnapshotHeader::decode(&stream.first()?[..]).ok()?;
    let mut receiver = Receiver::new(&header, scope(is_whole), limits()).ok()?;
    let mut rows = Vec::new();
    for chunk in &stream[1..] {
        rows.extend(receiver.on_chunk(SnapshotChunk::decode(&chunk[..]).ok()?).ok()?.rows);
    }
    receiver.is_complete().then_some(rows)
}

#[derive(Clone, Debug)]
enum Damage {
    Bytes(usize, Vec<Edit>),
    Drop(usize),
    Twice(usize),
    Swap(usize, usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    let place = any::<usize>;
    prop_oneof![
        6 => (place(), edits()).prop_map(|(at, edits)| Damage::Bytes(at, edits)),
        1 => place().prop_map(Damage::Drop),
        1 => place().prop_map(Damage::Twice),
        1 => (place(), place()).prop_map(|(one, other)| Damage::Swap(one, other)),
    ]
}

#[test]
fn fuzz_core_snapshot_stream() {
    let inputs = (any::<bool>(), 0..12_u8, vec(damage(), 0..3));
    Target::new("core/snapshot_stream").cases(512).run(inputs, |(is_whole, keys, damages)| {
        let sent = stream(is_whole, keys);
        let wanted = receive(is_whole, &sent).expect("it is as it was sent");
        let mut arrived = sent.clone();
        for damage in damages {
            let count = arrived.len();
            let place = |at: usize| at % count;
            match damage {
                Damage::Bytes(at, edits) => {
                    let (at, other) = (place(at), sent.last().expect("a header").clone());
                    apply(&mut arrived[at], &edits, &other);
                }
                Damage::Drop(at) if arrived.len() > 1 => drop(arrived.remove(place(at))),
                Damage::Drop(_) => {}
                Damage::Twice(at) => {
                    let chunk = arrived[place(at)].clone();
                    arrived.insert(place(at), chunk);
                }
                Damage::Swap(one, other) => arrived.swap(place(one), place(other)),
            }
        }
        if let Some(rows) = receive(is_whole, &arrived) {
            assert_eq!(rows, wanted);
        }
    });
}

/// Chunks that somebody made on purpose: nothing of another group is taken, and no number leads astray.
#[test]
fn fuzz_core_snapshot_chunks() {
    let chunk = messages().encoded("flotilla.internal.SnapshotChunk");
    let inputs = (any::<bool>(), vec((chunk, number()), 0..5));
    Target::new("core/snapshot_chunks").cases(512).run(inputs, |(is_whole, chunks)| {
        let header = SnapshotHeader::decode(&stream(is_whole, 0)[0][..]).unwrap();
        let mut receiver = Receiver::new(&header, scope(is_whole), limits()).unwrap();
        for (n, (chunk, checksum)) in (1..).zip(chunks) {
            let mut chunk = SnapshotChunk::decode(&chunk[..]).unwrap();
            (chunk.id, chunk.sequence, chunk.checksum) = (9, n, checksum as u32);
            if let Ok(received) = receiver.on_chunk(chunk) {
                for row in received.rows {
                    assert!(scope(is_whole).holds(row.column, &row.key, &row.value).unwrap());
                }
            }
        }
    });
}
