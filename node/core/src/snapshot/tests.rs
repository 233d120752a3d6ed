//! Sender and receiver against each other, and the receiver against every kind of wrong chunk.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use bytes::Bytes;

use super::*;
use crate::proto::internal::{
    ConfState, RaftMessage, SnapshotAck, SnapshotChunk, SnapshotHeader, SnapshotMark, SnapshotRow,
};
use crate::view::{View, ViewError, Visit};

#[derive(Default)]
struct Memory {
    columns: [BTreeMap<Vec<u8>, Vec<u8>>; 5],
    is_broken: bool,
}

impl Memory {
    fn put(&mut self, column: Column, key: &[u8], value: &[u8]) {
        self.columns[column as usize].insert(key.to_vec(), value.to_vec());
    }
}

impl View for Memory {
    fn get(&self, column: Column, key: &[u8]) -> Result<Option<Bytes>, ViewError> {
        Ok(self.columns[column as usize].get(key).map(|value| Bytes::copy_from_slice(value)))
    }

    fn scan(
        &self,
        column: Column,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        visit: Visit<'_>,
    ) -> Result<(), ViewError> {
        if self.is_broken {
            return Err(ViewError("the disk is gone".to_owned()));
        }
        for (key, value) in self.columns[column as usize].range::<[u8], _>((from, to)) {
            if visit(key, value) == ControlFlow::Break(()) {
                break;
            }
        }
        Ok(())
    }

    fn scan_back(
        &self,
        _column: Column,
        _from: Bound<&[u8]>,
        _to: Bound<&[u8]>,
        _visit: Visit<'_>,
    ) -> Result<(), ViewError> {
        unreachable!("a snapshot is read forwards")
    }
}

fn limits(chunk_bytes_max: usize, window_chunks_max: u64) -> Limits {
    Limits { chunk_bytes_max, row_bytes_max: 4096, window_chunks_max }
}

/// All of an unsplit cluster.
fn whole() -> Scope {
    Scope::new(crate::GroupId::SPINE, &Default::default()).unwrap()
}

fn header() -> SnapshotHeader {
    let conf = ConfState { voters: vec![1, 2, 3], ..ConfState::default() };
    SnapshotHeader {
        id: 9,
        message: Some(RaftMessage::default()),
        mark: Some(SnapshotMark { index: 7, term: 2, conf: Some(conf) }),
    }
}

/// A state in every column, with the awkward keys: empty, prefixes of each other, node-local.
fn state() -> Memory {
    let mut memory = Memory::default();
    for column in Column::ALL {
        memory.put(column, b"", b"at the empty key");
        memory.put(column, b"a", b"");
        memory.put(column, b"ab", &[column as u8; 100]);
        memory.put(column, b"\xff\xff", b"last");
        for number in 0..200u32 {
            memory.put(column, &number.to_be_bytes(), &vec![7; number as usize]);
        }
    }
    memory.columns[Column::Meta as usize].retain(|key, _| key.first() != Some(&NODE_LOCAL));
    memory
}

fn chunks(memory: &Memory, limits: Limits) -> Vec<SnapshotChunk> {
    let mut sender = Sender::new(9, whole(), limits);
    let mut chunks = Vec::new();
    while let Some(chunk) = sender.next(memory).unwrap() {
        let ack = SnapshotAck { id: 9, sequence: chunk.sequence, is_refused: false };
        sender.on_ack(&ack).unwrap();
        chunks.push(chunk);
        assert!(chunks.len() <= 1100, "the sender gets on");
    }
    assert!(sender.is_finished());
    chunks
}

fn receive(chunks: &[SnapshotChunk], limits: Limits) -> Memory {
    let mut receiver = Receiver::new(&header(), whole(), limits).unwrap();
    let mut memory = Memory::default();
    for chunk in chunks {
        assert!(!receiver.is_complete());
        let received = receiver.on_chunk(chunk.clone()).unwrap();
        assert_eq!(received.ack.sequence, chunk.sequence);
        assert_eq!(received.is_last, chunk.is_last);
        for row in received.rows {
            memory.put(row.column, &row.key, &row.value);
        }
    }
    assert!(receiver.is_complete());
    memory
}

#[test]
fn everything_arrives_whatever_the_chunk_size() {
    let memory = state();
    for chunk_bytes_max in [1, 25, 100, 333, 1000, 5000, 1 << 20] {
        let mut last = None;
        let limits = limits(chunk_bytes_max, 1);
        let chunks = chunks(&memory, limits);
        for chunk in &chunks {
            let bytes: usize = chunk.rows.iter().map(|row| row_bytes(&row.key, &row.value)).sum();
            assert!(bytes <= chunk_bytes_max || chunk.rows.len() == 1);
            assert!(!chunk.rows.is_empty());
            for row in &chunk.rows {
                let place = Some((row.column, row.key.clone()));
                assert!(last < place, "an unsplit cluster is read from end to end");
                last = place;
            }
        }
        assert_eq!(receive(&chunks, limits).columns, memory.columns);
    }
}

#[test]
fn an_empty_state_is_one_empty_chunk() {
    let chunks = chunks(&Memory::default(), limits(100, 1));
    assert_eq!(chunks.len(), 1);
    assert!(chunks[0].rows.is_empty() && chunks[0].is_last);
    assert_eq!(receive(&chunks, limits(100, 1)).columns, Memory::default().columns);
}

#[test]
fn rows_of_one_node_stay_there() {
    let mut memory = state();
    let want = memory.columns.clone();
    memory.put(Column::Meta, &[NODE_LOCAL], b"mine");
    memory.put(Column::Meta, &[NODE_LOCAL, 1, 2], b"mine too");
    memory.put(Column::Key, &[NODE_LOCAL], b"a user's key");
    let got = receive(&chunks(&memory, limits(50, 1)), limits(50, 1)).columns;
    assert_eq!(got[Column::Meta as usize], want[Column::Meta as usize]);
    assert!(got[Column::Key as usize].contains_key(&[NODE_LOCAL][..]));
}

#[test]
fn the_window_bounds_what_is_under_way() {
    let memory = state();
    let mut sender = Sender::new(9, whole(), limits(100, 3));
    for _ in 0..3 {
        assert!(sender.next(&memory).unwrap().is_some());
    }
    assert_eq!(sender.next(&memory).unwrap(), None);
    sender.on_ack(&SnapshotAck { id: 9, sequence: 2, is_refused: false }).unwrap();
    // A late, smaller acknowledgement takes nothing back.
    sender.on_ack(&SnapshotAck { id: 9, sequence: 1, is_refused: false }).unwrap();
    assert_eq!(sender.next(&memory).unwrap().map(|chunk| chunk.sequence), Some(4));
    assert_eq!(sender.next(&memory).unwrap().map(|chunk| chunk.sequence), Some(5));
    assert_eq!(sender.next(&memory).unwrap(), None);
    assert!(!sender.is_finished());
}

#[test]
fn the_sender_believes_no_wrong_acknowledgement() {
    let memory = state();
    let mut sender = Sender::new(9, whole(), limits(100, 3));
    sender.next(&memory).unwrap();
    let ack = |id, sequence, is_refused| SnapshotAck { id, sequence, is_refused };
    assert_eq!(sender.on_ack(&ack(8, 1, false)), Err(SenderError::WrongAck));
    assert_eq!(sender.on_ack(&ack(9, 2, false)), Err(SenderError::WrongAck));
    assert_eq!(sender.on_ack(&ack(9, 1, true)), Err(SenderError::Refused { sequence: 1 }));
}

#[test]
fn the_sender_reports_a_broken_store_and_a_huge_row() {
    let mut memory = state();
    memory.is_broken = true;
    let result = Sender::new(9, whole(), limits(100, 3)).next(&memory);
    assert!(matches!(result, Err(SenderError::View(_))));

    let mut memory = Memory::default();
    memory.put(Column::History, b"k", &[0; 5000]);
    let bytes = 5000 + 1 + ROW_OVERHEAD_BYTES;
    let result = Sender::new(9, whole(), limits(100, 3)).next(&memory);
    assert_eq!(result, Err(SenderError::RowTooLarge { bytes }));
}

/// Feeds good chunks up to the second, changed by `damage`, and expects the error; after it
/// nothing is taken any more.
fn check_refused(damage: impl Fn(&mut SnapshotChunk), want: &ReceiverError) {
    let limits = limits(300, 1);
    let mut chunks = chunks(&state(), limits);
    let mut receiver = Receiver::new(&header(), whole(), limits).unwrap();
    receiver.on_chunk(chunks[0].clone()).unwrap();
    let good = chunks[1].clone();
    damage(&mut chunks[1]);
    assert_eq!(receiver.on_chunk(chunks[1].clone()).as_ref(), Err(want));
    assert_eq!(receiver.on_chunk(good), Err(ReceiverError::GivenUp));
    assert_eq!(receiver.refuse(), SnapshotAck { id: 9, sequence: 1, is_refused: true });
}

#[test]
fn the_receiver_takes_no_damaged_chunk() {
    use ReceiverError as E;
    let row = |column: u32, key: &'static [u8]| SnapshotRow {
        column,
        key: Bytes::from_static(key),
        value: Bytes::new(),
    };
    check_refused(|c| c.id = 8, &E::WrongSnapshot { want: 9, got: 8 });
    check_refused(|c| c.sequence = 3, &E::Gap { want: 2, got: 3 });
    check_refused(|c| c.sequence = 0, &E::Gap { want: 2, got: 0 });
    check_refused(|c| c.rows.clear(), &E::Empty(2));
    check_refused(|c| c.checksum ^= 1, &E::Checksum(2));
    check_refused(|c| c.rows[0].column = 5, &E::Foreign(2));
    check_refused(|c| c.rows.push(row(4, &[NODE_LOCAL])), &E::Foreign(2));
    check_refused(|c| c.rows.push(row(0, b"")), &E::Order(2));
    check_refused(|c| c.rows.swap(0, 1), &E::Order(2));
    check_refused(|c| c.rows[1] = c.rows[0].clone(), &E::Order(2));
    check_refused(|c| c.rows[0].value = Bytes::from(vec![0; 4096]), &E::TooLarge(2));
    check_refused(|c| c.rows[0].value = Bytes::from(vec![0; 290]), &E::TooLarge(2));
    check_refused(|c| c.rows[0].value = Bytes::from_static(b"?"), &E::Checksum(2));
    check_refused(|c| drop(c.rows.pop()), &E::Checksum(2));
    // Bytes that move from a key to its value are another row.
    check_refused(
        |c| {
            let row = c.rows.last_mut().unwrap();
            let all = [&row.key[..], &row.value[..]].concat();
            let cut = row.key.len() + 1;
            row.key = Bytes::copy_from_slice(&all[..cut]);
            row.value = Bytes::copy_from_slice(&all[cut..]);
        },
        &E::Checksum(2),
    );
}

#[test]
fn a_repeated_chunk_is_acknowledged_again_and_brings_nothing() {
    let limits = limits(300, 1);
    let chunks = chunks(&state(), limits);
    let mut receiver = Receiver::new(&header(), whole(), limits).unwrap();
    for chunk in &chunks[..3] {
        receiver.on_chunk(chunk.clone()).unwrap();
    }
    let again = receiver.on_chunk(chunks[1].clone()).unwrap();
    assert!(again.rows.is_empty() && again.ack.sequence == 3 && !again.is_last);
    for chunk in &chunks[3..] {
        receiver.on_chunk(chunk.clone()).unwrap();
    }
    let last = chunks.last().unwrap();
    assert!(receiver.on_chunk(last.clone()).unwrap().rows.is_empty());
    let beyond = SnapshotChunk { sequence: last.sequence + 1, ..last.clone() };
    assert_eq!(receiver.on_chunk(beyond), Err(ReceiverError::AfterEnd));
}

#[test]
fn a_header_must_say_where_the_data_stands() {
    let check = |damage: fn(&mut SnapshotHeader)| {
        let mut header = header();
        damage(&mut header);
        assert_eq!(
            Receiver::new(&header, whole(), Limits::default()).err(),
            Some(ReceiverError::Header)
        );
    };
    check(|h| h.mark = None);
    check(|h| h.message = None);
    check(|h| h.message.as_mut().unwrap().group = 1);
    check(|h| h.mark.as_mut().unwrap().index = 0);
    check(|h| h.mark.as_mut().unwrap().index = u64::MAX);
    check(|h| h.mark.as_mut().unwrap().term = 0);
    check(|h| h.mark.as_mut().unwrap().conf = None);
    check(|h| h.mark.as_mut().unwrap().conf.as_mut().unwrap().voters.clear());
    assert_eq!(Receiver::new(&header(), whole(), Limits::default()).unwrap().mark().index, 7);
}
