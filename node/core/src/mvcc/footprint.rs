//! What a change of keys may depend on or touch, known from the request alone. The leader latches
//! it before it evaluates.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::LeaseId;
use crate::command::Command;
use crate::proto::Span;
use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::request_op::Request;

/// How a key or a span is used, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// Its state decides something. Shared with other reads.
    Read,
    /// It is put whatever its state is. Shared with other blind puts, which follow the order of
    /// the log.
    Blind,
    /// It may be changed, depending on its state or that of others. Exclusive.
    Write,
}

/// The parts of the state that a request concerns, on whichever branch it goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Single keys in order, each once with the strongest of its uses.
    pub keys: Vec<(Bytes, Mode)>,
    /// Spans, never blind, never empty. They may overlap each other and contain some of `keys`.
    pub spans: Vec<(Span, Mode)>,
    /// Leases to which a key may be attached, in order. Shared; who revokes one excludes these.
    pub leases: Vec<LeaseId>,
    /// The lowest revision it asks for by number: a compaction above it must not come between its
    /// evaluation and its commit. Compacting excludes these.
    pub reads_at: Option<i64>,
}

/// The footprint of a Put, DeleteRange or Txn; empty for every other command.
pub fn footprint(command: &Command) -> Footprint {
    let mut uses = Uses::default();
    match command {
        Command::Put(put) => {
            let mode = if super::put::is_blind(put) { Mode::Blind } else { Mode::Write };
            uses.add_put(put, mode);
        }
        Command::DeleteRange(delete) => uses.add(&delete.key, &delete.range_end, Mode::Write),
        Command::Txn(txn) => uses.add_txn(txn),
        Command::Compact(_)
        | Command::LeaseGrant(_)
        | Command::LeaseRevoke(_)
        | Command::LeaseKeepAlive(_)
        | Command::LeaseTimeToLive(_)
        | Command::MemberAdd(_)
        | Command::MemberRemove(_)
        | Command::MemberUpdate(_)
        | Command::MemberPromote(_)
        | Command::SpineVote(_)
        | Command::MemberAttributes(_)
        | Command::MemberDrain(_)
        | Command::Decide(_)
        | Command::Conclude(_)
        | Command::Replicas(_)
        | Command::ReplicasWanted(_)
        | Command::Alarm(_)
        | Command::MoveLeader(_)
        | Command::Split(_)
        | Command::Merge(_)
        | Command::AuthChange(_)
        | Command::AuthToken(_) => {}
    }
    Footprint {
        keys: uses.keys.into_iter().collect(),
        spans: uses.spans,
        leases: uses.leases.into_iter().collect(),
        reads_at: uses.reads_at,
    }
}

#[derive(Default)]
struct Uses {
    keys: BTreeMap<Bytes, Mode>,
    spans: Vec<(Span, Mode)>,
    leases: BTreeSet<LeaseId>,
    reads_at: Option<i64>,
}

impl Uses {
    fn add_txn(&mut self, txn: &pb::TxnRequest) {
        for compare in &txn.compare {
            self.add(&compare.key, &compare.range_end, Mode::Read);
        }
        for op in txn.success.iter().chain(&txn.failure) {
            match &op.request {
                Some(Request::RequestRange(range)) => {
                    if range.revision != 0 {
                        let lowest = self.reads_at.get_or_insert(range.revision);
                        *lowest = range.revision.min(*lowest);
                    }
                    // What was does not change, but is known only to who holds the key now.
                    self.add(&range.key, &range.range_end, Mode::Read);
                }
                // Whether it happens at all depends on the conditions, so it is never blind.
                Some(Request::RequestPut(put)) => self.add_put(put, Mode::Write),
                Some(Request::RequestDeleteRange(delete)) => {
                    self.add(&delete.key, &delete.range_end, Mode::Write);
                }
                Some(Request::RequestTxn(txn)) => self.add_txn(txn),
                None => {}
            }
        }
    }

    fn add_put(&mut self, put: &pb::PutRequest, mode: Mode) {
        self.add_key(&put.key, mode);
        if put.lease != 0 {
            self.leases.insert(LeaseId(put.lease));
        }
    }

    fn add(&mut self, key: &Bytes, range_end: &Bytes, mode: Mode) {
        if range_end.is_empty() {
            self.add_key(key, mode);
            return;
        }
        let span = Span::from_request(key.clone(), range_end.clone());
        if !span.is_empty() {
            self.spans.push((span, mode));
        }
    }

    fn add_key(&mut self, key: &Bytes, mode: Mode) {
        let strongest = self.keys.entry(key.clone()).or_insert(mode);
        *strongest = mode.max(*strongest);
    }
}
