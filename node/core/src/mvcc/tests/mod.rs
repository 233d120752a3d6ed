//! Tests of the whole module: a store driven through check, evaluate, apply and settle as the
//! spine drives it, against rules, against etcd's observed answers and against a naive model.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::*;
use crate::LeaseId;
use crate::command::{Answer, Command};
use crate::memory::MemoryView;
use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::request_op::Request;
use crate::proto::internal::Effect;
use crate::proto::mvccpb::KeyValue;
use crate::view::Batch;

mod chance;
mod compaction;
mod counts;
mod elsewhere;
mod footprints;
mod fuzz;
mod layout;
mod many;
mod model;
mod naive;
mod pages;
mod probes;
mod replay;
mod rules;
mod script;

/// etcd's default.
const OPS_MAX: usize = 128;

#[derive(Clone, Debug, Default)]
struct Leases(BTreeSet<i64>);

impl LeaseTable for Leases {
    fn exists(&self, lease: LeaseId) -> bool {
        self.0.contains(&lease.0)
    }
}

/// One replica that is its own leader.
#[derive(Clone, Debug)]
struct Store {
    view: MemoryView,
    head: Head,
    leases: Leases,
    events: Vec<Event>,
}

impl Store {
    fn new() -> Self {
        Self {
            view: MemoryView::new(),
            head: Head { revision: 1, compact_revision: -1 },
            leases: Leases::default(),
            events: Vec::new(),
        }
    }

    fn check(command: &Command) -> Result<(), Error> {
        match command {
            Command::Put(put) => check_put(put),
            Command::DeleteRange(delete) => check_delete(delete),
            Command::Txn(txn) => check_txn(txn, OPS_MAX),
            _ => unreachable!(),
        }
    }

    /// What a client would be answered.
    fn run(&mut self, command: &Command) -> Result<Answer, Error> {
        Self::check(command)?;
        match evaluate(&self.view, self.head, &self.leases, command).unwrap() {
            Evaluated::Effects { effects, draft, .. } => {
                let prev = self.apply(&effects, draft.wants_prev());
                Ok(draft.settle(self.head.revision, prev))
            }
            Evaluated::NoEffect => {
                let outcome = outcome_without_effect(&self.view, self.head, &self.leases, command);
                match outcome {
                    Ok(Some(answer)) => Ok(answer),
                    Ok(None) => panic!("has an effect at the same head: {command:?}"),
                    Err(Failure::Client(error)) => Err(error),
                    Err(failure) => panic!("{failure}"),
                }
            }
        }
    }

    fn apply(&mut self, effects: &[Effect], wants_prev: bool) -> Option<KeyValue> {
        self.head.revision += 1;
        let mut batch = Batch::default();
        let mut events = Vec::new();
        let prev = Applier::new(&self.view)
            .apply(self.head.revision, effects, wants_prev, &mut batch, &mut events)
            .unwrap();
        self.view.apply(&batch);
        self.events.extend(events);
        prev
    }

    fn put(&mut self, request: pb::PutRequest) -> Result<pb::PutResponse, Error> {
        match self.run(&Command::Put(request))? {
            Answer::Put(answer) => Ok(answer),
            other => panic!("{other:?}"),
        }
    }

    fn delete(
        &mut self,
        request: pb::DeleteRangeRequest,
    ) -> Result<pb::DeleteRangeResponse, Error> {
        match self.run(&Command::DeleteRange(request))? {
            Answer::DeleteRange(answer) => Ok(answer),
            other => panic!("{other:?}"),
        }
    }

    /// A read-only one takes the way of a read.
    fn txn(&mut self, request: pb::TxnRequest) -> Result<pb::TxnResponse, Error> {
        if is_read_only(&request) {
            check_txn(&request, OPS_MAX)?;
            return client(read_txn(&self.view, self.head, &request));
        }
        match self.run(&Command::Txn(request))? {
            Answer::Txn(answer) => Ok(answer),
            other => panic!("{other:?}"),
        }
    }

    fn read(&self, request: &pb::RangeRequest) -> Result<pb::RangeResponse, Error> {
        check_range(request)?;
        client(read(&self.view, self.head, request))
    }

    /// Compacts logically; rows go only with `compact_rows`.
    fn compact(&mut self, revision: i64) -> Result<(), Error> {
        check_compact(self.head, revision)?;
        self.head.compact_revision = revision;
        Ok(())
    }

    /// Applies up to `slices` steps of the physical compaction; true when nothing is left.
    fn compact_rows(&mut self, rows_max: usize, slices: usize) -> bool {
        for _ in 0..slices {
            let slice = compact_slice(&self.view, self.head.compact_revision, rows_max).unwrap();
            self.view.apply(&slice.batch);
            if slice.is_finished {
                return true;
            }
        }
        false
    }

    fn hash(&self, revision: i64) -> Result<u32, Error> {
        client(hash_kv(&self.view, self.head, revision))
    }

    /// `key=value` of every live key, for short comparisons.
    fn dump(&self) -> String {
        self.dump_at(0)
    }

    fn dump_at(&self, revision: i64) -> String {
        let request = pb::RangeRequest { revision, ..range("\0", "\0") };
        show(&self.read(&request).unwrap().kvs)
    }
}

fn show(kvs: &[KeyValue]) -> String {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let shown: Vec<_> =
        kvs.iter().map(|kv| format!("{}={}", text(&kv.key), text(&kv.value))).collect();
    shown.join(" ")
}

fn client<T>(result: Result<T, Failure>) -> Result<T, Error> {
    result.map_err(|failure| match failure {
        Failure::Client(error) => error,
        failure => panic!("{failure}"),
    })
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn put(key: &str, value: &str) -> pb::PutRequest {
    pb::PutRequest { key: bytes(key), value: bytes(value), ..Default::default() }
}

fn delete(key: &str, range_end: &str) -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest { key: bytes(key), range_end: bytes(range_end), prev_kv: false }
}

fn range(key: &str, range_end: &str) -> pb::RangeRequest {
    pb::RangeRequest { key: bytes(key), range_end: bytes(range_end), ..Default::default() }
}

/// A transaction of one branch that always runs.
fn txn(ops: Vec<pb::RequestOp>) -> pb::TxnRequest {
    pb::TxnRequest { success: ops, ..Default::default() }
}

fn op(request: Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

fn op_put(key: &str, value: &str) -> pb::RequestOp {
    op(Request::RequestPut(put(key, value)))
}

fn op_delete(key: &str, range_end: &str) -> pb::RequestOp {
    op(Request::RequestDeleteRange(delete(key, range_end)))
}

fn op_range(key: &str, range_end: &str) -> pb::RequestOp {
    op(Request::RequestRange(range(key, range_end)))
}

fn op_txn(txn: pb::TxnRequest) -> pb::RequestOp {
    op(Request::RequestTxn(txn))
}
