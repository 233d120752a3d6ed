//! A hub with a store and clients, and a log in words.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;

use crate::memory::MemoryView;
use crate::mvcc::{self, Applier, Head, compact_slice};
use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::watch_request::RequestUnion;
use crate::proto::{Span, internal, mvccpb};
use crate::time::{Length, Time};
use crate::view::Batch;
use crate::watch::{
    BlockRequest, Config, Effect, Event, Hub, Input, Limits, Published, Response, StreamId,
};

pub(super) const CLUSTER: u64 = 0xc1;
pub(super) const MEMBER: u64 = 0x3e;
pub(super) const TERM: u64 = 7;

pub(super) fn config(limits: Limits) -> Config {
    Config {
        cluster_id: CLUSTER,
        member_id: MEMBER,
        progress_interval: Length::from_secs(600),
        election_timeout: Length::from_secs(1),
        limits,
    }
}

/// One change to be committed.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Put(&'static str, String),
    Delete(&'static str),
}

pub(super) fn put(key: &'static str, value: &str) -> Change {
    Change::Put(key, value.to_owned())
}

pub(super) fn delete(key: &'static str) -> Change {
    Change::Delete(key)
}

/// Rows in memory under the code that writes, reads and compacts them in a node.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) head: Head,
    view: MemoryView,
    live: BTreeSet<&'static str>,
}

impl Store {
    pub(super) fn new() -> Self {
        let head = Head { revision: 1, compact_revision: -1 };
        Self { head, view: MemoryView::new(), live: BTreeSet::new() }
    }

    /// Commits changes as one revision and returns its events. Deletes of keys that are not there
    /// change nothing.
    pub(super) fn commit(&mut self, changes: &[Change]) -> Vec<mvcc::Event> {
        let mut effects = Vec::new();
        for change in changes {
            let (key, value, is_delete) = match change {
                Change::Put(key, value) => (key, value.clone(), false),
                Change::Delete(key) => (key, String::new(), true),
            };
            let is_changed = if is_delete { self.live.remove(key) } else { true };
            if is_changed {
                if !is_delete {
                    self.live.insert(key);
                }
                let key = Bytes::from_static(key.as_bytes());
                let value = value.into();
                let effect = internal::Effect { key, value, is_delete, ..Default::default() };
                effects.push(effect);
            }
        }
        if effects.is_empty() {
            return Vec::new();
        }
        self.head.revision += 1;
        let (mut batch, mut events) = (Batch::default(), Vec::new());
        Applier::new(&self.view)
            .apply(self.head.revision, &effects, false, &mut batch, &mut events)
            .expect("memory can be read");
        self.view.apply(&batch);
        events
    }

    pub(super) fn view(&self) -> &MemoryView {
        &self.view
    }

    /// One call of the hub's `catch_up`.
    pub(super) fn catch_up(&self, hub: &mut Hub) -> Vec<Effect> {
        hub.catch_up(&self.view, self.head, || true).expect("memory can be read")
    }

    /// Compacts, rows included.
    pub(super) fn compact(&mut self, revision: i64) {
        self.head.compact_revision = revision;
        loop {
            let slice = compact_slice(&self.view, revision, 3).expect("memory can be read");
            self.view.apply(&slice.batch);
            if slice.is_finished {
                return;
            }
        }
    }
}

/// A create request of a watcher on one key; change fields as needed.
pub(super) fn on_key(key: &str) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest { key: key.to_owned().into(), ..Default::default() }
}

/// A create request of a watcher on every key with a prefix.
pub(super) fn on_prefix(prefix: &str) -> pb::WatchCreateRequest {
    let span = Span::prefix(prefix.to_owned().into());
    pb::WatchCreateRequest {
        key: span.start,
        range_end: span.end.expect("the prefix is no 0xff"),
        ..Default::default()
    }
}

pub(super) fn request(union: RequestUnion) -> pb::WatchRequest {
    pb::WatchRequest { request_union: Some(union) }
}

pub(super) struct Stage {
    pub(super) hub: Hub,
    pub(super) store: Store,
    pub(super) now: Time,
    /// Streams whose client takes nothing.
    stalled: BTreeSet<u64>,
    /// Charges of what such a client has not taken.
    queues: BTreeMap<u64, VecDeque<usize>>,
    log: String,
}

impl Stage {
    pub(super) fn new() -> Self {
        Self::with_limits(Limits::default())
    }

    pub(super) fn with_limits(limits: Limits) -> Self {
        let mut hub = Hub::new(config(limits), 1, -1);
        let effects = hub.step(Time(0), Input::Leader { term: TERM, is_known: true });
        assert_eq!(effects, []);
        Self {
            hub,
            store: Store::new(),
            now: Time(0),
            stalled: BTreeSet::new(),
            queues: BTreeMap::new(),
            log: String::new(),
        }
    }

    pub(super) fn open(&mut self, stream: u64) {
        self.step(Input::Open { stream: StreamId(stream), needs_leader: false, chance: 0 });
    }

    pub(super) fn close(&mut self, stream: u64) {
        self.step(Input::Close { stream: StreamId(stream) });
    }

    pub(super) fn create(&mut self, stream: u64, create: pb::WatchCreateRequest) {
        self.request(stream, RequestUnion::CreateRequest(create));
    }

    pub(super) fn cancel(&mut self, stream: u64, watch_id: i64) {
        let cancel = pb::WatchCancelRequest { watch_id };
        self.request(stream, RequestUnion::CancelRequest(cancel));
    }

    pub(super) fn ask_progress(&mut self, stream: u64) {
        self.request(stream, RequestUnion::ProgressRequest(pb::WatchProgressRequest {}));
    }

    pub(super) fn request(&mut self, stream: u64, union: RequestUnion) {
        let revision = self.store.head.revision;
        let request = request(union);
        self.step(Input::Request { stream: StreamId(stream), request, revision });
    }

    /// Commits one revision and publishes it.
    pub(super) fn commit(&mut self, changes: &[Change]) {
        let after = self.store.head.revision;
        let events = self.store.commit(changes);
        self.publish(after, events);
    }

    /// Tells the hub of everything up to the store's revision. Events may be left out with all
    /// revisions up to and including `after`.
    pub(super) fn publish(&mut self, after: i64, events: Vec<mvcc::Event>) {
        let events: Vec<Event> = events.into_iter().map(Event::from).collect();
        self.step(Input::Published(Published {
            after,
            revision: self.store.head.revision,
            compact_revision: self.store.head.compact_revision,
            events: Arc::from(events),
        }));
    }

    /// Compacts and tells the hub.
    pub(super) fn compact(&mut self, revision: i64) {
        self.store.compact(revision);
        self.publish(self.store.head.revision, Vec::new());
    }

    pub(super) fn tick(&mut self, now: Time) {
        self.now = now;
        self.step(Input::Tick);
    }

    pub(super) fn step(&mut self, input: Input) {
        let effects = self.hub.step(self.now, input);
        self.carry_out(effects);
    }

    /// One call of `catch_up`.
    pub(super) fn catch_up_once(&mut self) {
        let effects = self.store.catch_up(&mut self.hub);
        self.carry_out(effects);
    }

    /// Commits one revision and tells the hub of it without its events, as a node does that lacks a
    /// range.
    pub(super) fn commit_elsewhere(&mut self, changes: &[Change]) {
        self.store.commit(changes);
        self.publish(self.store.head.revision, Vec::new());
    }

    /// What the hub wants to be read.
    pub(super) fn next_block(&mut self) -> Option<BlockRequest> {
        let mut effects = Vec::new();
        let request = self.hub.next_block(self.store.head, &mut effects);
        self.carry_out(effects);
        request
    }

    /// Reads what the hub wanted.
    pub(super) fn take_block(&mut self, request: &BlockRequest) {
        let block = request.read(self.store.view()).expect("memory can be read");
        let effects = self.hub.take_block(request, block);
        self.carry_out(effects);
    }

    /// It could not be read.
    pub(super) fn refuse_block(&mut self, request: &BlockRequest) {
        let effects = self.hub.take_block(request, None);
        self.carry_out(effects);
    }

    /// Calls `catch_up` while there is work.
    pub(super) fn catch_up(&mut self) {
        for _ in 0..10_000 {
            if !self.hub.is_behind() {
                return;
            }
            self.catch_up_once();
        }
        panic!("the hub never catches up");
    }

    /// The client stops taking responses.
    pub(super) fn stall(&mut self, stream: u64) {
        self.stalled.insert(stream);
    }

    /// The client takes `count` responses of those that wait.
    pub(super) fn take(&mut self, stream: u64, count: usize) {
        for _ in 0..count {
            let bytes = self.queues.get_mut(&stream).and_then(VecDeque::pop_front);
            let Some(bytes) = bytes else { return };
            self.step(Input::Sent { stream: StreamId(stream), bytes });
        }
    }

    /// The client takes all that waits, and all that comes.
    pub(super) fn unstall(&mut self, stream: u64) {
        self.stalled.remove(&stream);
        self.take(stream, usize::MAX);
    }

    /// Bytes that wait for a client.
    pub(super) fn queued(&self, stream: u64) -> usize {
        self.queues.get(&stream).map_or(0, |queue| queue.iter().sum())
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        let mut taken = Vec::new();
        for effect in effects {
            match effect {
                Effect::Send { stream, response } => {
                    let _ = writeln!(self.log, "{}: {}", stream.0, describe(&decode(&response)));
                    if self.stalled.contains(&stream.0) {
                        self.queues.entry(stream.0).or_default().push_back(response.charge());
                    } else {
                        taken.push((stream, response.charge()));
                    }
                }
                Effect::Reading { stream, is_on } => {
                    let _ = writeln!(self.log, "{}: reading {is_on}", stream.0);
                }
                Effect::CloseStream { stream, error } => {
                    let _ = writeln!(self.log, "{}: closed {error}", stream.0);
                }
            }
        }
        for (stream, bytes) in taken {
            self.step(Input::Sent { stream, bytes });
        }
    }

    /// Compares what was sent since the last call.
    #[track_caller]
    pub(super) fn expect(&mut self, lines: &str) {
        let expected: String = lines.lines().map(str::trim).filter(|line| !line.is_empty()).fold(
            String::new(),
            |mut text, line| {
                let _ = writeln!(text, "{line}");
                text
            },
        );
        let found = std::mem::take(&mut self.log);
        assert_eq!(found, expected, "\nfound:\n{found}\nexpected:\n{expected}");
    }

    /// What was sent since the last call.
    pub(super) fn take_log(&mut self) -> String {
        std::mem::take(&mut self.log)
    }
}

/// Through the bytes, as a client sees it.
pub(super) fn decode(response: &Response) -> pb::WatchResponse {
    let mut bytes = Vec::new();
    response.encode_into(&mut bytes);
    assert_eq!(bytes.len(), response.encoded_len());
    let decoded = pb::WatchResponse::decode(&bytes[..]).expect("the message can be read");
    let header = decoded.header.as_ref().expect("there always is a header");
    assert_eq!((header.cluster_id, header.member_id, header.raft_term), (CLUSTER, MEMBER, TERM));
    decoded
}

/// `#watcher @header-revision`, what is set, and the events as `revision+key=value`,
/// `revision-key`, with the previous value in brackets.
fn describe(response: &pb::WatchResponse) -> String {
    let revision = response.header.as_ref().map_or(0, |header| header.revision);
    let mut text = format!("#{} @{revision}", response.watch_id);
    for (is_set, word) in [
        (response.created, " created"),
        (response.canceled, " canceled"),
        (response.fragment, " fragment"),
    ] {
        text.push_str(if is_set { word } else { "" });
    }
    if response.compact_revision != 0 {
        let _ = write!(text, " compacted={}", response.compact_revision);
    }
    if !response.cancel_reason.is_empty() {
        let _ = write!(text, " ({})", response.cancel_reason);
    }
    for event in &response.events {
        let kv = event.kv.as_ref().expect("an event has a key");
        let key = String::from_utf8_lossy(&kv.key);
        let _ = match event.r#type() {
            mvccpb::event::EventType::Put => {
                write!(text, " {}+{key}={}", kv.mod_revision, String::from_utf8_lossy(&kv.value))
            }
            mvccpb::event::EventType::Delete => write!(text, " {}-{key}", kv.mod_revision),
        };
        if let Some(prev) = &event.prev_kv {
            let _ = write!(text, "[{}]", String::from_utf8_lossy(&prev.value));
        }
    }
    text
}
