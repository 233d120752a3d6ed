//! Which operations of unknown outcome made the revisions that no answer claims. An operation
//! can have made a revision if it does exactly that to the state before it, and was invoked
//! before the revision was seen; it can have made one revision at most.
//! An unknown operation has no upper bound in time, so nothing else restricts it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use flotilla_proto::etcdserverpb::request_op::Request as Op;
use flotilla_proto::etcdserverpb::{DeleteRangeRequest, PutRequest, RequestOp};
use flotilla_proto::mvccpb::KeyValue;

use crate::check::attribution::{Facts, Hole, effect};
use crate::history::{Event, Request};

/// The operations of unknown outcome, found by what they can do.
#[derive(Clone, Debug, Default)]
pub(super) struct Candidates {
    /// Puts that bring a value, by key and value.
    bringers: BTreeMap<(Bytes, Bytes), Vec<usize>>,
    /// Puts that keep the value of their key.
    keepers: BTreeMap<Bytes, Vec<usize>>,
    /// Deletes of one key.
    key_deletes: BTreeMap<Bytes, Vec<usize>>,
    /// Deletes of more than one key.
    span_deletes: Vec<usize>,
    /// Revocations, by lease.
    revokes: BTreeMap<i64, Vec<usize>>,
}

/// What explains each hole, in the order of the holes.
#[derive(Clone, Debug)]
pub(super) struct Assignment {
    pub(super) matches: Vec<Match>,
    /// The revision that each operation was taken for.
    pub(super) taken: BTreeMap<usize, i64>,
}

/// What explains a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Match {
    /// This operation.
    Operation(usize),
    /// The end of this lease. `certain` if no other operation than a revocation can have done
    /// the same.
    LeaseEnd { lease: i64, certain: bool },
    /// Nothing.
    Nothing,
}

impl Candidates {
    pub(super) fn new(facts: Facts<'_>) -> Candidates {
        let mut candidates = Candidates::default();
        for (index, operation) in facts.history.operations.iter().enumerate() {
            if operation.is_unknown() {
                candidates.add(index, &operation.request);
            }
        }
        candidates
    }

    /// Finds an operation for every hole that needs one. With lower bounds in time only, and
    /// each operation usable once, this is a matching in a bipartite graph; where all effects
    /// are alike it is the same as taking any possible operation in the order of the holes.
    ///
    /// A hole that the end of a lease explains needs no operation, unless the lease cannot have
    /// run out by then.
    pub(super) fn assign(&self, facts: Facts<'_>, holes: &[Hole]) -> Assignment {
        let edges: Vec<Vec<usize>> = holes
            .iter()
            .map(|hole| {
                let mut possible = self.with_effect(facts, hole.revision);
                possible.retain(|&operation| is_in_time(facts, operation, hole.revision));
                possible
            })
            .collect();
        let mut matching =
            Matching { edges: &edges, of_hole: vec![None; holes.len()], of: BTreeMap::new() };
        let mut matches = Vec::with_capacity(holes.len());
        for (index, hole) in holes.iter().enumerate() {
            matches.push(match hole.ended {
                Some(lease) if hole.too_early.is_none() => {
                    let certain = edges[index].iter().all(|&operation| {
                        matches!(
                            facts.history.operations[operation].request,
                            Request::LeaseRevoke(_)
                        )
                    });
                    Match::LeaseEnd { lease, certain }
                }
                Some(_) | None => {
                    matching.augment(index);
                    Match::Nothing
                }
            });
        }
        let mut taken = BTreeMap::new();
        for (index, operation) in matching.of_hole.iter().enumerate() {
            if let Some(operation) = *operation {
                matches[index] = Match::Operation(operation);
                taken.insert(operation, holes[index].revision);
            }
        }
        Assignment { matches, taken }
    }

    /// The operations that make exactly this revision out of the state before it.
    pub(super) fn with_effect(&self, facts: Facts<'_>, revision: i64) -> Vec<usize> {
        let events = facts.timeline.events_at(revision);
        self.recognised(facts, revision)
            .into_iter()
            .filter(|&operation| effect(facts, operation, revision - 1) == events)
            .collect()
    }

    /// The operations worth trying.
    fn recognised(&self, facts: Facts<'_>, revision: i64) -> BTreeSet<usize> {
        let events = facts.timeline.events_at(revision);
        let put = events.iter().find_map(|event| match event {
            Event::Put(pair) => Some(pair),
            Event::Delete { .. } => None,
        });
        let mut found = BTreeSet::new();
        match (put, events.first()) {
            (Some(pair), _) => {
                found.extend(entries(&self.bringers, &(pair.key.clone(), pair.value.clone())));
                found.extend(entries(&self.keepers, &pair.key));
            }
            (None, Some(event)) => {
                found.extend(entries(&self.key_deletes, event.key()));
                found.extend(&self.span_deletes);
                if let Some(pair) = facts.timeline.get(event.key(), revision - 1) {
                    found.extend(entries(&self.revokes, &pair.lease));
                }
            }
            (None, None) => {}
        }
        found
    }

    fn add(&mut self, index: usize, request: &Request) {
        match request {
            Request::Put(put) => self.add_put(index, put),
            Request::DeleteRange(delete) => self.add_delete(index, delete),
            Request::Txn(txn) => {
                for operation in txn.success.iter().chain(&txn.failure) {
                    self.add_operation(index, operation);
                }
            }
            Request::LeaseRevoke(revoke) => self.revokes.entry(revoke.id).or_default().push(index),
            Request::Read(_)
            | Request::Compact(_)
            | Request::LeaseGrant(_)
            | Request::LeaseKeepAlive(_)
            | Request::LeaseTimeToLive(_)
            | Request::LeaseLeases(_) => {}
        }
    }

    fn add_operation(&mut self, index: usize, operation: &RequestOp) {
        match &operation.request {
            Some(Op::RequestPut(put)) => self.add_put(index, put),
            Some(Op::RequestDeleteRange(delete)) => self.add_delete(index, delete),
            Some(Op::RequestTxn(txn)) => {
                for operation in txn.success.iter().chain(&txn.failure) {
                    self.add_operation(index, operation);
                }
            }
            Some(Op::RequestRange(_)) | None => {}
        }
    }

    fn add_put(&mut self, index: usize, put: &PutRequest) {
        if put.ignore_value {
            self.keepers.entry(put.key.clone()).or_default().push(index);
        } else {
            let name = (put.key.clone(), put.value.clone());
            self.bringers.entry(name).or_default().push(index);
        }
    }

    fn add_delete(&mut self, index: usize, delete: &DeleteRangeRequest) {
        if delete.range_end.is_empty() {
            self.key_deletes.entry(delete.key.clone()).or_default().push(index);
        } else {
            self.span_deletes.push(index);
        }
    }
}

/// True if the request holds a put of exactly this key and value.
pub(super) fn brings(request: &Request, pair: &KeyValue) -> bool {
    let is_it =
        |put: &PutRequest| !put.ignore_value && put.key == pair.key && put.value == pair.value;
    fn any(operations: &[RequestOp], is_it: &dyn Fn(&PutRequest) -> bool) -> bool {
        operations.iter().any(|operation| match &operation.request {
            Some(Op::RequestPut(put)) => is_it(put),
            Some(Op::RequestTxn(txn)) => any(&txn.success, is_it) || any(&txn.failure, is_it),
            Some(Op::RequestRange(_) | Op::RequestDeleteRange(_)) | None => false,
        })
    }
    match request {
        Request::Put(put) => is_it(put),
        Request::Txn(txn) => any(&txn.success, &is_it) || any(&txn.failure, &is_it),
        Request::Read(_)
        | Request::DeleteRange(_)
        | Request::Compact(_)
        | Request::LeaseGrant(_)
        | Request::LeaseRevoke(_)
        | Request::LeaseKeepAlive(_)
        | Request::LeaseTimeToLive(_)
        | Request::LeaseLeases(_) => false,
    }
}

/// True if the revision was not seen before the operation was invoked.
pub(super) fn is_in_time(facts: Facts<'_>, operation: usize, revision: i64) -> bool {
    facts.seen.revision_before(facts.history.operations[operation].invoked) < revision
}

fn entries<'a, K: Ord>(
    map: &'a BTreeMap<K, Vec<usize>>,
    key: &K,
) -> impl Iterator<Item = &'a usize> {
    map.get(key).into_iter().flatten()
}

/// Holes on one side, operations on the other.
struct Matching<'e> {
    edges: &'e [Vec<usize>],
    of_hole: Vec<Option<usize>>,
    of: BTreeMap<usize, usize>,
}

impl Matching<'_> {
    /// Finds an operation for one more hole, by moving others to another of their operations if
    /// need be: breadth first along alternating paths.
    fn augment(&mut self, hole: usize) {
        let mut reached_from: BTreeMap<usize, usize> = BTreeMap::new();
        let mut queue = VecDeque::from([hole]);
        while let Some(hole) = queue.pop_front() {
            for &operation in &self.edges[hole] {
                if reached_from.contains_key(&operation) {
                    continue;
                }
                reached_from.insert(operation, hole);
                match self.of.get(&operation) {
                    Some(&other) => queue.push_back(other),
                    None => return self.take(operation, &reached_from),
                }
            }
        }
    }

    fn take(&mut self, operation: usize, reached_from: &BTreeMap<usize, usize>) {
        let mut operation = Some(operation);
        while let Some(taken) = operation {
            let hole = reached_from[&taken];
            self.of.insert(taken, hole);
            operation = self.of_hole[hole].replace(taken);
        }
    }
}
