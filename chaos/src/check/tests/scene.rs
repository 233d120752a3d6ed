//! A stage for small histories: operations run one after the other on the model, so that each
//! test only has to bend the one thing it is about.

use bytes::Bytes;
use flotilla_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use flotilla_proto::etcdserverpb::request_op::Request as Op;
use flotilla_proto::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseKeepAliveRequest,
    LeaseRevokeRequest, LeaseTimeToLiveRequest, PutRequest, RangeRequest, RequestOp,
    ResponseHeader, TxnRequest, WatchCreateRequest, WatchResponse,
};

use super::assert_passes;
use crate::check::{LeaseTime, Rules};
use crate::history::{
    Answer, ClientId, Event, History, Operation, Outcome, Received, Request, Stamp, WatchRecord,
};
use crate::model::Model;

/// Stamps a second of a scene has.
pub(super) const SECOND: Stamp = 100;

pub(super) struct Scene {
    pub(super) model: Model,
    pub(super) history: History,
    pub(super) rules: Rules,
    pub(super) now: Stamp,
}

impl Scene {
    pub(super) fn new() -> Scene {
        let lease_time = LeaseTime {
            stamps_per_second: SECOND,
            drift_ppm: 0,
            healthy_from: Some(0),
            grace: SECOND,
        };
        let rules =
            Rules { lease_time: Some(lease_time), watchers_catch_up: true, ..Rules::default() };
        Scene { model: Model::default(), history: History::default(), rules, now: 0 }
    }

    /// Runs an operation to its end. Returns its place in the history.
    pub(super) fn run(&mut self, request: Request) -> usize {
        let outcome = match self.model.apply(&request) {
            Ok(step) => Outcome::Answered(step.answer),
            Err(refusal) => Outcome::Refused(refusal.received()),
        };
        let returned = Some(self.now + 5);
        self.push(request, returned, outcome)
    }

    /// Runs operations in turn.
    pub(super) fn run_all(&mut self, requests: impl IntoIterator<Item = Request>) {
        for request in requests {
            self.run(request);
        }
    }

    /// An operation whose outcome its client never learned, but which took place.
    pub(super) fn run_unseen(&mut self, request: Request) -> usize {
        self.model.apply(&request).expect("the scene asks for what is possible");
        self.push(request, None, Outcome::Unknown)
    }

    /// An operation that never took place, and nobody knows.
    pub(super) fn lose(&mut self, request: Request) -> usize {
        self.push(request, None, Outcome::Unknown)
    }

    /// Lets time pass.
    pub(super) fn wait_seconds(&mut self, seconds: u64) {
        self.now += seconds * SECOND;
    }

    /// A watcher that gets everything in one response per revision, until the scene ends.
    pub(super) fn watch(&mut self, create: WatchCreateRequest) -> usize {
        let header = response(self.model.revision());
        let created = WatchResponse { created: true, ..header };
        self.history.watches.push(WatchRecord {
            client: ClientId(9),
            invoked: self.now,
            create,
            received: vec![Received { at: self.now + 1, response: created }],
            cancel_sent: None,
            open_at_end: true,
        });
        self.now += 10;
        self.history.watches.len() - 1
    }

    /// Fills in the watchers and the evidence, and makes sure that nothing is wrong so far.
    pub(super) fn finish(mut self) -> (History, Rules) {
        let timeline = self.model.timeline();
        let events = timeline.events_between(0, self.model.revision());
        let revisions: Vec<(i64, Vec<Event>)> =
            events.map(|(revision, events)| (revision, events.to_vec())).collect();
        for (revision, events) in &revisions {
            self.history.evidence.tell("node 1", *revision, events.clone());
        }
        self.history.evidence.close(self.model.revision());
        let at = self.now + 10;
        for watch in &mut self.history.watches {
            let created = watch.received[0].response.header.as_ref().map_or(0, |it| it.revision);
            let start = match watch.create.start_revision {
                0 => created + 1,
                start => start,
            };
            for (revision, events) in revisions.iter().filter(|(revision, _)| *revision >= start) {
                let mut batch = response(*revision);
                for event in events {
                    let mut message = event.to_proto();
                    if watch.create.prev_kv && !event.is_create() {
                        message.prev_kv = timeline.get(event.key(), revision - 1).cloned();
                    }
                    batch.events.push(message);
                }
                watch.received.push(Received { at, response: batch });
            }
        }
        assert_passes(&self.history, &self.rules);
        (self.history, self.rules)
    }

    fn push(&mut self, request: Request, returned: Option<Stamp>, outcome: Outcome) -> usize {
        self.history.operations.push(Operation {
            client: ClientId(1),
            invoked: self.now,
            returned,
            request,
            outcome,
        });
        self.now += 10;
        self.history.operations.len() - 1
    }
}

pub(super) fn response(revision: i64) -> WatchResponse {
    WatchResponse {
        header: Some(ResponseHeader { revision, ..ResponseHeader::default() }),
        ..WatchResponse::default()
    }
}

/// A watcher of every key from a revision on, with previous pairs.
pub(super) fn everything(start_revision: i64) -> WatchCreateRequest {
    WatchCreateRequest {
        key: Bytes::from("\0"),
        range_end: Bytes::from("\0"),
        start_revision,
        prev_kv: true,
        ..WatchCreateRequest::default()
    }
}

pub(super) fn put(key: &'static str, value: &'static str) -> Request {
    Request::Put(put_request(key, value, 0))
}

pub(super) fn put_leased(key: &'static str, value: &'static str, lease: i64) -> Request {
    Request::Put(put_request(key, value, lease))
}

pub(super) fn put_request(key: &'static str, value: &'static str, lease: i64) -> PutRequest {
    PutRequest {
        key: Bytes::from(key),
        value: Bytes::from(value),
        lease,
        prev_kv: true,
        ..PutRequest::default()
    }
}

pub(super) fn delete(key: &'static str) -> Request {
    span_delete(key, "")
}

pub(super) fn span_delete(key: &'static str, range_end: &'static str) -> Request {
    Request::DeleteRange(DeleteRangeRequest {
        key: Bytes::from(key),
        range_end: Bytes::from(range_end),
        prev_kv: true,
    })
}

pub(super) fn read(key: &'static str) -> Request {
    read_at(key, 0)
}

pub(super) fn read_at(key: &'static str, revision: i64) -> Request {
    Request::Read(RangeRequest { key: Bytes::from(key), revision, ..RangeRequest::default() })
}

pub(super) fn read_old(key: &'static str) -> Request {
    Request::Read(RangeRequest {
        key: Bytes::from(key),
        serializable: true,
        ..RangeRequest::default()
    })
}

pub(super) fn read_all() -> Request {
    Request::Read(RangeRequest {
        key: Bytes::from("\0"),
        range_end: Bytes::from("\0"),
        ..RangeRequest::default()
    })
}

/// If the key has this value, puts both keys, else reads the first.
pub(super) fn swap(
    key: &'static str,
    from: &'static str,
    to: &'static str,
    other: &'static str,
) -> Request {
    Request::Txn(TxnRequest {
        compare: vec![Compare {
            result: CompareResult::Equal.into(),
            target: CompareTarget::Value.into(),
            key: Bytes::from(key),
            range_end: Bytes::new(),
            target_union: Some(TargetUnion::Value(Bytes::from(from))),
        }],
        success: vec![
            RequestOp { request: Some(Op::RequestPut(put_request(key, to, 0))) },
            RequestOp { request: Some(Op::RequestPut(put_request(other, to, 0))) },
        ],
        failure: vec![RequestOp {
            request: Some(Op::RequestRange(RangeRequest {
                key: Bytes::from(key),
                ..RangeRequest::default()
            })),
        }],
    })
}

pub(super) fn compact(revision: i64) -> Request {
    Request::Compact(CompactionRequest { revision, physical: false })
}

pub(super) fn grant(id: i64, ttl: i64) -> Request {
    Request::LeaseGrant(LeaseGrantRequest { ttl, id })
}

pub(super) fn revoke(id: i64) -> Request {
    Request::LeaseRevoke(LeaseRevokeRequest { id })
}

pub(super) fn keep_alive(id: i64) -> Request {
    Request::LeaseKeepAlive(LeaseKeepAliveRequest { id })
}

pub(super) fn time_to_live(id: i64) -> Request {
    Request::LeaseTimeToLive(LeaseTimeToLiveRequest { id, keys: true })
}

/// The answer of an operation, to be bent.
pub(super) fn answer(history: &mut History, operation: usize) -> &mut Answer {
    match &mut history.operations[operation].outcome {
        Outcome::Answered(answer) => answer,
        Outcome::Refused(_) | Outcome::Unknown => panic!("operation {operation} has no answer"),
    }
}

/// Sets the revision in the header of an answer.
pub(super) fn set_revision(answer: &mut Answer, revision: i64) {
    *answer.header_mut() = Some(ResponseHeader { revision, ..ResponseHeader::default() });
}

/// Rewrites the evidence: `edit` gets each revision with its events and returns what is told
/// instead; `None` leaves the revision out.
pub(super) fn edit_evidence(
    history: &mut History,
    edit: impl Fn(i64, Vec<Event>) -> Option<Vec<Event>>,
) {
    let told: Vec<(i64, Vec<Event>)> = history
        .evidence
        .revisions()
        .map(|(revision, events)| (revision, events.to_vec()))
        .collect();
    let head = history.evidence.head().expect("a finished scene has a head");
    history.evidence = Default::default();
    for (revision, events) in told {
        if let Some(events) = edit(revision, events) {
            history.evidence.tell("node 1", revision, events);
        }
    }
    history.evidence.close(head);
}
