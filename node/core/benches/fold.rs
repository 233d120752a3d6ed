//! What the one order costs: folding a record of references into the spine's state, and its bytes in the
//! spine's log. Run with `cargo bench -p flotilla-core`; prints a table.

#![expect(clippy::disallowed_methods, reason = "a bench measures time; the machines are handed it")]

use std::hint::black_box;
use std::time::Instant;

use bytes::Bytes;
use flotilla_core::NodeId;
use flotilla_core::proto::internal::{Record, Ref, Refs, record::Body};
use flotilla_core::spine::{Member, State};
use flotilla_core::view::Batch;
use prost::Message;

/// Records of one measurement.
const RECORDS: u64 = 20_000;
/// Of so many measurements the fastest counts: what is slower was disturbed.
const ROUNDS: usize = 7;

fn main() {
    println!("ranges  writes in each  ns a record  ns a reference  ns a write  bytes a write");
    for ranges in [1, 8, 64] {
        for writes in [1, 10, 100] {
            measure(ranges, writes);
        }
    }
}

/// Every record refers to all ranges, and to so many new writes of each.
fn measure(ranges: u64, writes: u64) {
    let mut nanoseconds = u128::MAX;
    let mut bytes = 0;
    for _ in 0..ROUNDS {
        let mut state = founded(ranges);
        let records: Vec<Record> = (1..=RECORDS).map(|n| record(n, ranges, writes)).collect();
        bytes = records.iter().map(Message::encoded_len).sum();
        let began = Instant::now();
        for (n, record) in records.iter().enumerate() {
            let mut batch = Batch::default();
            state.enter(n as u64 + 2, 1);
            black_box(state.fold(record, &mut batch));
            black_box(batch);
        }
        nanoseconds = nanoseconds.min(began.elapsed().as_nanos());
    }
    let each = nanoseconds as f64 / RECORDS as f64;
    let references = each / ranges as f64;
    println!(
        "{ranges:6}  {writes:14}  {each:11.0}  {references:14.0}  {:10.1}  {:13.2}",
        references / writes as f64,
        bytes as f64 / (RECORDS * ranges * writes) as f64,
    );
}

fn founded(ranges: u64) -> State {
    let member = Member { id: 1, ..Member::default() };
    let mut state = State::bootstrap(7, vec![member]);
    let keys: Vec<Bytes> = (0..ranges).map(|n| Bytes::from(format!("k{n:03}"))).collect();
    state.pre_split(&keys, &[NodeId(1)]);
    state
}

fn record(n: u64, ranges: u64, writes: u64) -> Record {
    let reference =
        |range| Ref { range, upto: n * writes, noted: n * writes - writes, ..Ref::default() };
    let refs = (1..=ranges).map(reference).collect();
    Record { origin: 5, n, body: Some(Body::Refs(Refs { refs })) }
}
