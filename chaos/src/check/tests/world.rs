//! A store that does everything right, used by several clients and watchers at once, and what
//! they record of it. Each operation takes its place at a moment between call and answer, or
//! later if its client gave up; leases run out; watchers lag, break and cancel.
//! On request it does one thing wrong, once.

use std::collections::BTreeMap;

use bytes::Bytes;
use flotilla_proto::etcdserverpb::request_op::Request as Op;
use flotilla_proto::etcdserverpb::{
    DeleteRangeRequest, RangeRequest, TxnRequest, WatchCreateRequest, WatchResponse,
};
use flotilla_proto::mvccpb;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::scene::response;
use crate::check::{LeaseTime, Rules};
use crate::history::{
    Answer, ClientId, Code, Event, History, Operation, Outcome, Received, Refused, ReplicaHash,
    Request, Stamp, WatchRecord,
};
use crate::model::requests::Requests;
use crate::model::{Limits, Model, NEVER_COMPACTED, View, is_read_only, is_serializable, validate};

const STAMPS_PER_SECOND: Stamp = 20;
const ELECTION: Stamp = 20;
/// A lease is gone this long after its deadline at the latest.
const EXPIRY_DELAY_MAX: Stamp = 60;
const CLIENTS: u32 = 5;
const WATCHERS_MAX: usize = 4;

/// What the store does wrong, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bug {
    /// Acknowledges a write and forgets it.
    LoseWrite,
    /// Carries a write out twice.
    ApplyTwice,
    /// Leaves a part of a transaction out.
    TearTxn,
    /// Decides a transaction on a state that is not the one it changes.
    CompareOldState,
    /// Ends a lease long before its time.
    ExpireEarly,
    /// Deletes one of several keys of a lease.
    ExpirePart,
}

/// What the clients recorded, and what really happened.
pub(super) struct Run {
    pub(super) history: History,
    pub(super) rules: Rules,
    pub(super) model: Model,
    /// True if the bug came to pass.
    pub(super) is_bug_planted: bool,
}

/// Plays a run of this many operations.
pub(super) fn play(seed: u64, operations: usize, bug: Option<Bug>) -> Run {
    let mut world = World::new(seed, bug);
    while world.history.operations.len() < operations {
        world.step();
    }
    world.finish()
}

struct World {
    rng: StdRng,
    requests: Requests,
    model: Model,
    history: History,
    now: Stamp,
    calls: Vec<Call>,
    watchers: Vec<Watcher>,
    deadlines: BTreeMap<i64, Stamp>,
    term: u64,
    elected_at: Stamp,
    unknown_percent: u32,
    bug: Option<Bug>,
    is_bug_planted: bool,
}

/// An operation under way.
struct Call {
    operation: usize,
    result: Option<Outcome>,
    /// Its client has given up.
    is_abandoned: bool,
    /// Its client will hear of it.
    is_heard: bool,
}

/// The store's side of a watcher.
struct Watcher {
    record: usize,
    id: i64,
    start: i64,
    /// Everything up to here was sent.
    sent: i64,
    /// It was created below the compact revision.
    is_doomed: bool,
    is_done: bool,
}

impl World {
    fn new(seed: u64, bug: Option<Bug>) -> World {
        let mut rng = StdRng::seed_from_u64(seed);
        let unknown_percent = match bug {
            // An operation of unknown outcome could have done the same.
            Some(Bug::ApplyTwice | Bug::ExpireEarly | Bug::ExpirePart) => 0,
            Some(_) | None => [0, 5, 30][rng.random_range(0..3)],
        };
        World {
            rng,
            requests: Requests::new(seed),
            model: Model::default(),
            history: History::default(),
            now: 1,
            calls: Vec::new(),
            watchers: Vec::new(),
            deadlines: BTreeMap::new(),
            term: 2,
            elected_at: 0,
            unknown_percent,
            bug,
            is_bug_planted: false,
        }
    }

    fn step(&mut self) {
        self.now += self.rng.random_range(0..3);
        self.expire();
        match self.rng.random_range(0..100) {
            0..30 => self.invoke(),
            30..60 => self.carry_out_any(),
            60..85 => self.answer_any(),
            85..87 => self.give_up_any(),
            87 => self.elect(),
            88..91 => self.create_watcher(),
            91..96 => self.send_any(),
            96 => self.progress_any(),
            97 => self.end_any(),
            _ => self.plant(),
        }
    }

    fn finish(mut self) -> Run {
        let may_stay_unknown = self.unknown_percent > 0;
        while let Some(position) = self
            .calls
            .iter()
            .position(|call| !(may_stay_unknown && call.is_abandoned && call.result.is_none()))
        {
            self.now += 1;
            self.expire();
            self.carry_out(position);
            self.answer(position);
        }
        // A last look at everything.
        self.now += 5;
        self.expire();
        self.push(Request::Read(RangeRequest {
            key: Bytes::from("\0"),
            range_end: Bytes::from("\0"),
            ..RangeRequest::default()
        }));
        self.calls.last_mut().expect("just pushed").is_heard = true;
        let last = self.calls.len() - 1;
        self.carry_out(last);
        self.now += 1;
        self.answer(last);
        for watcher in 0..self.watchers.len() {
            self.send(watcher, self.model.revision());
        }
        let head = self.model.revision();
        for source in ["node 1", "node 2"] {
            for (revision, events) in self.model.timeline().events_between(0, head) {
                self.history.evidence.tell(source, revision, events.to_vec());
            }
        }
        self.history.evidence.close(head);
        self.history.hashes = (0..6)
            .map(|node| ReplicaHash {
                replica: format!("node {}", node % 3),
                revision: head - node / 3,
                compact_revision: self.model.compacted(),
                hash: 100 + (node / 3) as u32,
            })
            .collect();
        let lease_time = LeaseTime {
            stamps_per_second: STAMPS_PER_SECOND,
            drift_ppm: 0,
            healthy_from: Some(self.elected_at),
            grace: ELECTION + EXPIRY_DELAY_MAX + 10,
        };
        let rules =
            Rules { watchers_catch_up: true, lease_time: Some(lease_time), ..Rules::default() };
        Run { history: self.history, rules, model: self.model, is_bug_planted: self.is_bug_planted }
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    fn any(&mut self, count: usize) -> Option<usize> {
        if count == 0 { None } else { Some(self.rng.random_range(0..count)) }
    }

    // Operations.

    fn invoke(&mut self) {
        if self.calls.iter().filter(|call| !call.is_abandoned).count() < CLIENTS as usize {
            let mut request = self.requests.next(&self.model);
            if let Request::LeaseGrant(grant) = &mut request
                && grant.ttl < 1_000_000
            {
                grant.ttl %= 25;
            }
            self.push(request);
        }
    }

    fn push(&mut self, request: Request) {
        let client = ClientId(self.rng.random_range(0..CLIENTS));
        let operation = self.history.operations.len();
        self.history.operations.push(Operation {
            client,
            invoked: self.now,
            returned: None,
            request,
            outcome: Outcome::Unknown,
        });
        self.calls.push(Call { operation, result: None, is_abandoned: false, is_heard: false });
    }

    fn carry_out_any(&mut self) {
        if let Some(call) = self.any(self.calls.len()) {
            self.carry_out(call);
        }
    }

    fn carry_out(&mut self, call: usize) {
        if self.calls[call].result.is_some() {
            return;
        }
        let request = self.history.operations[self.calls[call].operation].request.clone();
        let mut outcome = if self.chance(2) {
            let text = "etcdserver: too many requests".to_owned();
            Outcome::Refused(Refused { code: Code(2), text })
        } else if let Some(outcome) = self.carry_out_wrongly(call, &request) {
            self.is_bug_planted = true;
            self.calls[call].is_heard = true;
            outcome
        } else {
            self.carry_out_rightly(&request)
        };
        if let Outcome::Answered(answer) = &mut outcome
            && let Some(header) = answer.header_mut()
        {
            header.raft_term = self.term;
        }
        self.calls[call].result = Some(outcome);
    }

    fn carry_out_rightly(&mut self, request: &Request) -> Outcome {
        match request {
            Request::Read(read) if read.serializable => self.answer_from_old_state(request),
            Request::Txn(txn) if is_read_only(txn) && is_serializable(txn) => {
                self.answer_from_old_state(request)
            }
            Request::LeaseKeepAlive(keep_alive) => {
                if self.deadlines.get(&keep_alive.id).is_some_and(|&at| at <= self.now) {
                    self.end_lease(keep_alive.id);
                }
                self.apply(request)
            }
            _ => self.apply(request),
        }
    }

    fn apply(&mut self, request: &Request) -> Outcome {
        let mut answer = match self.model.apply(request) {
            Ok(step) => step.answer,
            Err(refusal) => return Outcome::Refused(refusal.received()),
        };
        match &mut answer {
            Answer::LeaseGrant(granted) => {
                self.deadlines.insert(granted.id, self.now + stamps(granted.ttl));
            }
            Answer::LeaseKeepAlive(renewed) if renewed.ttl > 0 => {
                self.deadlines.insert(renewed.id, self.now + stamps(renewed.ttl));
            }
            Answer::LeaseTimeToLive(answer) => {
                if let Some(&deadline) = self.deadlines.get(&answer.id) {
                    let left = deadline.saturating_sub(self.now) / STAMPS_PER_SECOND;
                    answer.ttl = i64::try_from(left).expect("a few seconds");
                }
            }
            _ => {}
        }
        if let Request::LeaseRevoke(revoke) = request {
            self.deadlines.remove(&revoke.id);
        }
        Outcome::Answered(answer)
    }

    /// A node that is behind, and has not heard of compactions since.
    fn answer_from_old_state(&mut self, request: &Request) -> Outcome {
        let revision = (self.model.revision() - self.rng.random_range(0..6)).max(1);
        if revision == self.model.revision() {
            return self.apply(request);
        }
        let view = View { revision, compacted: NEVER_COMPACTED, ..self.model.view() };
        let result = validate(request, &Limits::default()).and_then(|()| match request {
            Request::Read(read) => view.read(read),
            Request::Txn(txn) => view.txn(txn),
            request => panic!("{request} cannot be answered from an old state"),
        });
        match result {
            Ok(step) => Outcome::Answered(step.answer),
            Err(refusal) => Outcome::Refused(refusal.received()),
        }
    }

    fn answer_any(&mut self) {
        if let Some(call) = self.any(self.calls.len()) {
            self.answer(call);
        }
    }

    fn answer(&mut self, position: usize) {
        if self.calls[position].result.is_none() {
            return;
        }
        let call = self.calls.swap_remove(position);
        let is_lost = call.is_abandoned || self.chance(self.unknown_percent);
        if call.is_heard || !is_lost {
            let operation = &mut self.history.operations[call.operation];
            operation.returned = Some(self.now);
            operation.outcome = call.result.expect("checked above");
        }
    }

    fn give_up_any(&mut self) {
        if self.unknown_percent > 0
            && let Some(call) = self.any(self.calls.len())
        {
            self.calls[call].is_abandoned = true;
        }
    }

    // Leases.

    fn expire(&mut self) {
        let due: Vec<(i64, Stamp)> = self
            .deadlines
            .iter()
            .filter(|(_, deadline)| **deadline <= self.now)
            .map(|(lease, deadline)| (*lease, *deadline))
            .collect();
        for (lease, deadline) in due {
            if self.chance(10) || deadline + EXPIRY_DELAY_MAX <= self.now {
                self.end_lease(lease);
            }
        }
    }

    fn end_lease(&mut self, lease: i64) {
        self.model.expire(lease);
        self.deadlines.remove(&lease);
    }

    /// A new leader gives every lease its full time once more, and an election timeout.
    fn elect(&mut self) {
        if self.chance(20) {
            self.term += 1;
            self.elected_at = self.now;
            for (lease, deadline) in &mut self.deadlines {
                let ttl = self.model.leases().get(lease).copied().unwrap_or(0);
                *deadline = self.now + stamps(ttl) + ELECTION;
            }
        }
    }

    // Watchers.

    fn create_watcher(&mut self) {
        if self.watchers.iter().filter(|watcher| !watcher.is_done).count() >= WATCHERS_MAX {
            return;
        }
        let current = self.model.revision();
        let start_revision = match self.rng.random_range(0..10) {
            0..4 => 0,
            4 => -1,
            5 => current + self.rng.random_range(1..6),
            _ => (current - self.rng.random_range(0..15)).max(1),
        };
        let read = self.requests.read(&self.model);
        let (key, range_end) = match self.rng.random_range(0..3) {
            0 => (read.key, read.range_end),
            1 => (Bytes::from("a"), Bytes::from("c")),
            _ => (Bytes::from("\0"), Bytes::from("\0")),
        };
        let create = WatchCreateRequest {
            key,
            range_end,
            start_revision,
            progress_notify: self.chance(30),
            filters: if self.chance(20) { vec![self.rng.random_range(0..2)] } else { vec![] },
            prev_kv: self.chance(60),
            watch_id: if self.chance(30) { self.rng.random_range(1..50) } else { 0 },
            fragment: self.chance(40),
        };
        let record = self.history.watches.len();
        self.history.watches.push(WatchRecord {
            client: ClientId(self.rng.random_range(0..CLIENTS)),
            invoked: self.now,
            create: create.clone(),
            received: Vec::new(),
            cancel_sent: None,
            open_at_end: true,
        });
        let mut created = WatchResponse { created: true, ..response(current) };
        created.watch_id = if create.watch_id == 0 { record as i64 } else { create.watch_id };
        let is_empty = !create.range_end.is_empty()
            && create.range_end != b"\0"[..]
            && create.range_end <= lowest_key(&create);
        if start_revision < 0 || is_empty {
            created.canceled = true;
            created.watch_id = -1;
            created.cancel_reason = if start_revision < 0 {
                "etcdserver: mvcc: required revision has been compacted".to_owned()
            } else {
                "mvcc: watcher range is empty".to_owned()
            };
        }
        let is_done = created.canceled;
        let id = created.watch_id;
        let start = if start_revision == 0 { current + 1 } else { start_revision };
        self.receive(record, created);
        let is_doomed = start_revision > 0 && start_revision < self.model.compacted();
        self.watchers.push(Watcher { record, id, start, sent: start - 1, is_doomed, is_done });
    }

    fn receive(&mut self, record: usize, response: WatchResponse) {
        self.now += self.rng.random_range(0..2);
        self.history.watches[record].received.push(Received { at: self.now, response });
    }

    fn send_any(&mut self) {
        let Some(watcher) = self.any(self.watchers.len()) else { return };
        let current = self.model.revision();
        let sent = self.watchers[watcher].sent;
        if current > sent {
            let last = self.rng.random_range(sent + 1..=current);
            self.send(watcher, last);
        }
    }

    /// Sends everything up to `last`, or cancels the watcher if that is compacted.
    fn send(&mut self, index: usize, last: i64) {
        let watcher = &self.watchers[index];
        let (record, sent, id) = (watcher.record, watcher.sent, watcher.id);
        if watcher.is_done || sent >= last {
            return;
        }
        let is_doomed = watcher.is_doomed;
        let compacted = self.model.compacted();
        if sent + 1 < compacted && (is_doomed || self.chance(50)) {
            self.watchers[index].is_done = true;
            let compact_revision = compacted;
            let canceled = WatchResponse { canceled: true, compact_revision, ..response(0) };
            return self.receive(record, WatchResponse { watch_id: id, ..canceled });
        }
        self.watchers[index].sent = last;
        let events = self.events_for(record, sent + 1, last);
        let Some(last_event) = events.last() else { return };
        let last_revision = last_event.kv.as_ref().map_or(0, |pair| pair.mod_revision);
        let header = if self.chance(50) { last_revision } else { self.model.revision() };
        let batch = WatchResponse { watch_id: id, ..response(header) };
        self.send_batch(index, batch, events);
    }

    fn send_batch(&mut self, index: usize, batch: WatchResponse, events: Vec<mvccpb::Event>) {
        let record = self.watchers[index].record;
        let is_cut = self.history.watches[record].create.fragment && self.chance(50);
        let pieces: Vec<Vec<mvccpb::Event>> = if is_cut {
            let size = self.rng.random_range(1..3);
            events.chunks(size).map(<[mvccpb::Event]>::to_vec).collect()
        } else {
            vec![events]
        };
        let count = pieces.len();
        for (piece, events) in pieces.into_iter().enumerate() {
            let fragment = piece + 1 < count;
            self.receive(record, WatchResponse { events, fragment, ..batch.clone() });
            if fragment && self.chance(10) {
                return self.break_stream(index);
            }
        }
    }

    fn events_for(&mut self, record: usize, first: i64, last: i64) -> Vec<mvccpb::Event> {
        let create = self.history.watches[record].create.clone();
        let timeline = self.model.timeline().clone();
        let mut messages = Vec::new();
        for (revision, events) in timeline.events_between(first, last) {
            for event in events.iter().filter(|event| is_wanted(&create, event)) {
                let mut message = event.to_proto();
                let is_gone = revision - 1 < self.model.compacted() && self.chance(50);
                if create.prev_kv && !event.is_create() && !is_gone {
                    message.prev_kv = timeline.get(event.key(), revision - 1).cloned();
                }
                messages.push(message);
            }
        }
        messages
    }

    fn progress_any(&mut self) {
        let Some(index) = self.any(self.watchers.len()) else { return };
        let current = self.model.revision();
        if self.watchers[index].start > current {
            return;
        }
        self.send(index, current);
        let Watcher { record, id, is_done, .. } = self.watchers[index];
        if !is_done && !self.history.watches[record].received.is_empty() {
            let watch_id = if self.chance(50) { -1 } else { id };
            self.receive(record, WatchResponse { watch_id, ..response(current) });
        }
    }

    fn end_any(&mut self) {
        let Some(index) = self.any(self.watchers.len()) else { return };
        if self.watchers[index].is_done {
            return;
        }
        if self.chance(50) {
            return self.break_stream(index);
        }
        let Watcher { record, id, .. } = self.watchers[index];
        self.history.watches[record].cancel_sent = Some(self.now);
        self.watchers[index].is_done = true;
        let canceled = WatchResponse { canceled: true, ..response(self.model.revision()) };
        self.receive(record, WatchResponse { watch_id: id, ..canceled });
    }

    fn break_stream(&mut self, index: usize) {
        self.watchers[index].is_done = true;
        self.history.watches[self.watchers[index].record].open_at_end = false;
    }

    // Bugs.

    fn carry_out_wrongly(&mut self, call: usize, request: &Request) -> Option<Outcome> {
        if self.is_bug_planted || self.model.revision() < 5 || self.calls[call].is_abandoned {
            return None;
        }
        match (self.bug?, request) {
            (Bug::LoseWrite, Request::Put(put)) if put.value.starts_with(b"v") => {
                let step = self.model.evaluate(request).ok()?;
                Some(Outcome::Answered(step.answer))
            }
            (Bug::ApplyTwice, Request::Put(put)) if put.value.starts_with(b"v") => {
                let step = self.model.apply(request).ok()?;
                self.model.apply(request).ok()?;
                Some(Outcome::Answered(step.answer))
            }
            (Bug::TearTxn, Request::Txn(txn)) => {
                let step = self.model.evaluate(request).ok()?;
                let mut torn = txn.clone();
                for branch in [&mut torn.success, &mut torn.failure] {
                    branch.retain(|operation| !is_unique_put(&operation.request));
                }
                let rest = self.model.evaluate(&Request::Txn(torn.clone())).ok()?;
                if rest.events == step.events {
                    return None;
                }
                self.model.apply(&Request::Txn(torn)).ok()?;
                Some(Outcome::Answered(step.answer))
            }
            (Bug::CompareOldState, Request::Txn(txn)) => self.compare_old_state(request, txn),
            _ => None,
        }
    }

    fn compare_old_state(&mut self, request: &Request, txn: &TxnRequest) -> Option<Outcome> {
        validate(request, &Limits::default()).ok()?;
        let is_true = |view: View<'_>| {
            let only_compare = TxnRequest { compare: txn.compare.clone(), ..TxnRequest::default() };
            match view.txn(&only_compare) {
                Ok(step) => matches!(step.answer, Answer::Txn(answer) if answer.succeeded),
                Err(_) => false,
            }
        };
        let view = self.model.view();
        let is_true_before = is_true(View { revision: view.revision - 2, ..view });
        if is_true_before == is_true(view) {
            return None;
        }
        let branch = if is_true_before { &txn.success } else { &txn.failure };
        let decided = TxnRequest { success: branch.clone(), ..TxnRequest::default() };
        let mut step = self.model.apply(&Request::Txn(decided)).ok()?;
        if let Answer::Txn(answer) = &mut step.answer {
            answer.succeeded = is_true_before;
        }
        Some(Outcome::Answered(step.answer))
    }

    fn plant(&mut self) {
        if self.is_bug_planted {
            return;
        }
        let revision = self.model.revision();
        let leases: Vec<i64> = self.model.leases().keys().copied().collect();
        for lease in leases {
            let keys = self.model.timeline().attached(lease, revision);
            match self.bug {
                Some(Bug::ExpireEarly) if !keys.is_empty() && self.is_far_from_end(lease) => {
                    self.end_lease(lease);
                    self.is_bug_planted = true;
                }
                Some(Bug::ExpirePart) if keys.len() > 1 => {
                    let key = keys[0].clone();
                    let delete = DeleteRangeRequest { key, ..DeleteRangeRequest::default() };
                    self.model.apply(&Request::DeleteRange(delete)).expect("a delete is possible");
                    self.is_bug_planted = true;
                }
                Some(_) | None => continue,
            }
            return;
        }
    }

    /// True if the client that was granted the lease knows that it has a long time to go.
    fn is_far_from_end(&self, lease: i64) -> bool {
        let granted =
            self.history.operations.iter().rev().find_map(|operation| match operation.answer() {
                Some(Answer::LeaseGrant(answer)) if answer.id == lease => {
                    Some(operation.invoked + stamps(answer.ttl))
                }
                _ => None,
            });
        granted.is_some_and(|deadline| deadline > self.now + 150)
    }
}

fn stamps(seconds: i64) -> Stamp {
    Stamp::try_from(seconds).expect("a TTL is positive") * STAMPS_PER_SECOND
}

fn is_wanted(create: &WatchCreateRequest, event: &Event) -> bool {
    let (key, lowest) = (event.key(), lowest_key(create));
    let is_inside = match create.range_end.as_ref() {
        b"" => *key == lowest,
        b"\0" => *key >= lowest,
        end => lowest <= *key && key.as_ref() < end,
    };
    is_inside && !create.filters.contains(&i32::from(event.is_delete()))
}

/// An empty key stands for the lowest one.
fn lowest_key(create: &WatchCreateRequest) -> Bytes {
    if create.key.is_empty() { Bytes::from("\0") } else { create.key.clone() }
}

fn is_unique_put(request: &Option<Op>) -> bool {
    matches!(request, Some(Op::RequestPut(put)) if put.value.starts_with(b"v"))
}
