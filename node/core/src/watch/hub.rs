//! The hub's boundary and its bookkeeping: streams come and go, watchers are created and
//! cancelled, budgets fill and drain. Everything a client is sent passes `send`. Never reads the
//! store; that is `catch_up`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Event;
use super::catch_up::Turn;
use super::frontier::Frontier;
use super::gather::{Entry, Gather, fragments};
use super::index::Index;
use super::limits::Limits;
use super::response::{NO_WATCHER, Response};
use super::slab::{NONE, Slab, Slot};
use super::stream::Stream;
use super::watcher::{Phase, Refusal, Watcher, read_request, refusal_reason};
use crate::Error;
use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::watch_request::RequestUnion;
use crate::time::{Length, Time};

/// Names one client stream on this worker; never used again after it was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

/// Default of `Config::progress_interval`.
pub const PROGRESS_INTERVAL: Length = Length::from_secs(600);
/// The shortest interval of progress that is accepted.
pub const PROGRESS_INTERVAL_MIN: Length = Length::from_ms(100);
/// A stream's interval is longer by up to this part of it, so that streams opened together do not
/// stay together.
const PROGRESS_JITTER_DIVISOR: u64 = 10;

/// Fixed for a hub's life.
#[derive(Clone, Debug)]
pub struct Config {
    /// Goes into every header.
    pub cluster_id: u64,
    /// Goes into every header.
    pub member_id: u64,
    /// How often quiet watchers are told progress, if they want it.
    pub progress_interval: Length,
    /// Streams that need a leader are closed after `LEADERLESS_TIMEOUTS` of these without one.
    pub election_timeout: Length,
    /// How much is done and kept at a time.
    pub limits: Limits,
}

/// What a hub is told.
#[derive(Debug)]
pub enum Input {
    /// A client opened a stream.
    Open {
        /// Its name.
        stream: StreamId,
        /// The client asked (`hasleader`) not to be served without a leader.
        needs_leader: bool,
        /// Any number, as random as can be.
        chance: u64,
    },
    /// The client is gone. Its closing the sending side alone is not this: events go on.
    Close {
        /// Which stream.
        stream: StreamId,
    },
    /// A message of the client.
    Request {
        /// From which stream.
        stream: StreamId,
        /// The message.
        request: pb::WatchRequest,
        /// The store's revision when the message was read: at least that of every write whose
        /// answer this node's clients can have seen.
        revision: i64,
    },
    /// A create request of a client who may not read the keys is refused in its turn.
    Refuse {
        /// On which stream.
        stream: StreamId,
        /// Why.
        error: Error,
        /// As of a request.
        revision: i64,
    },
    /// The transport took a response.
    Sent {
        /// On which stream.
        stream: StreamId,
        /// `Response::charge` of what it took.
        bytes: usize,
    },
    /// The applied state moved on.
    Published(Published),
    /// What this node knows of the cluster's leader changed.
    Leader {
        /// The present term, for headers.
        term: u64,
        /// Whether there is one.
        is_known: bool,
    },
    /// Time passed; wanted at `Hub::next_deadline`.
    Tick,
}

/// Consecutive revisions that can be read, here or elsewhere. A batch may be left out, for example
/// when the way to the hub is full, when a snapshot replaced the state, or while the node lacks some
/// range: the next one's `after` shows it, and the hub wants what it missed as blocks of history.
#[derive(Clone, Debug)]
pub struct Published {
    /// The revision before the first of the batch.
    pub after: i64,
    /// The last revision of the batch, which is the applied one.
    pub revision: i64,
    /// The compacted revision at that point, -1 before any compaction.
    pub compact_revision: i64,
    /// All events of the batch, in the order of revision and sub-revision. None if `after` is the
    /// batch's own last revision.
    pub events: Arc<[Event]>,
}

/// What is to be done. Effects on one stream keep their order.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Queue a response to the client, and report `Input::Sent` when the transport took it.
    Send {
        /// To which stream.
        stream: StreamId,
        /// What.
        response: Response,
    },
    /// Stop or go on reading the client's messages.
    Reading {
        /// Of which stream.
        stream: StreamId,
        /// Whether to read.
        is_on: bool,
    },
    /// End the stream after what is queued. The hub has forgotten it.
    CloseStream {
        /// Which.
        stream: StreamId,
        /// The status.
        error: Error,
    },
}

/// Figures for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Open streams.
    pub streams: usize,
    /// Watchers that are registered.
    pub watchers: usize,
    /// Those of them that read history or wait to.
    pub slow_watchers: usize,
}

/// The watchers of one worker.
#[derive(Debug)]
pub struct Hub {
    pub(super) config: Config,
    term: u64,
    pub(super) frontier: Frontier,
    pub(super) streams: Slab<Stream>,
    streams_by_id: BTreeMap<StreamId, Slot>,
    pub(super) watchers: Slab<Watcher>,
    pub(super) index: Index,
    /// Watchers that begin above the frontier, by the revision from which they may be told
    /// progress.
    waiting: BTreeSet<(i64, Slot)>,
    /// Watchers whose turn it is to read history, by the first revision each has not been sent.
    pub(super) ready: BTreeSet<(i64, Slot)>,
    slow_count: usize,
    pub(super) live_count: usize,
    /// Watchers that want to be sent what was there before.
    pub(super) wanting_prev_count: usize,
    pub(super) scan: Turn,
    pub(super) gather: Gather,
    /// The ends of the streams' intervals of progress.
    pub(super) progress_ends: BTreeSet<(Time, Slot)>,
    pub(super) leaderless_since: Option<Time>,
    /// Streams that are closed when there is no leader for long.
    pub(super) needing_leader: BTreeSet<Slot>,
    effects: Vec<Effect>,
}

impl Hub {
    /// A hub without streams on a node whose applied state is at `revision`. A leader is taken to
    /// be known until told otherwise.
    pub fn new(config: Config, revision: i64, compact_revision: i64) -> Self {
        Self {
            config,
            term: 0,
            frontier: Frontier::new(revision, compact_revision),
            streams: Slab::new(),
            streams_by_id: BTreeMap::new(),
            watchers: Slab::new(),
            index: Index::new(),
            waiting: BTreeSet::new(),
            ready: BTreeSet::new(),
            slow_count: 0,
            live_count: 0,
            wanting_prev_count: 0,
            scan: Turn::default(),
            gather: Gather::default(),
            progress_ends: BTreeSet::new(),
            leaderless_since: None,
            needing_leader: BTreeSet::new(),
            effects: Vec::new(),
        }
    }

    /// Takes one input. Inputs about a stream that is closed have no effect.
    pub fn step(&mut self, now: Time, input: Input) -> Vec<Effect> {
        match input {
            Input::Open { stream, needs_leader, chance } => {
                self.on_open(stream, needs_leader, chance);
            }
            Input::Close { stream } => {
                if let Some(slot) = self.stream(stream) {
                    self.remove_stream(slot);
                }
            }
            Input::Request { stream, request, revision } => {
                self.frontier.on_seen(revision);
                if let (Some(slot), Some(union)) = (self.stream(stream), request.request_union) {
                    self.on_request(now, slot, union);
                }
            }
            Input::Refuse { stream, error, revision } => {
                self.frontier.on_seen(revision);
                if let Some(slot) = self.stream(stream) {
                    self.send_refusal(slot, refusal_reason(error));
                }
            }
            Input::Sent { stream, bytes } => {
                if let Some(slot) = self.stream(stream) {
                    self.on_sent(slot, bytes);
                }
            }
            Input::Published(published) => self.on_published(published),
            Input::Leader { term, is_known } => {
                self.term = term;
                let since = self.leaderless_since.unwrap_or(now);
                self.leaderless_since = (!is_known).then_some(since);
            }
            Input::Tick => self.on_tick(now),
        }
        self.take_effects()
    }

    /// Figures for metrics.
    pub fn counts(&self) -> Counts {
        Counts {
            streams: self.streams.len(),
            watchers: self.watchers.len(),
            slow_watchers: self.slow_count,
        }
    }

    /// An estimate of the heap the hub takes, which is what idle watchers cost: all streams,
    /// watchers and keys, without responses (see
    /// `Limits::queue_bytes_max`).
    pub fn heap_bytes(&self) -> usize {
        /// As for the streams' own sets.
        const FILL_INVERSE: usize = 2;
        let sets = (self.ready.len() + self.waiting.len()) * size_of::<(i64, Slot)>()
            + self.progress_ends.len() * size_of::<(Time, Slot)>()
            + self.needing_leader.len() * size_of::<Slot>()
            + self.streams_by_id.len() * size_of::<(StreamId, Slot)>();
        sets * FILL_INVERSE
            + self.streams.heap_bytes()
            + self.streams.iter().map(|(_, stream)| stream.heap_bytes()).sum::<usize>()
            + self.watchers.heap_bytes()
            + self.index.heap_bytes()
    }

    fn on_open(&mut self, id: StreamId, needs_leader: bool, chance: u64) {
        if needs_leader && self.leaderless_since.is_some() {
            self.effects.push(Effect::CloseStream { stream: id, error: Error::NoLeader });
            return;
        }
        let interval = self.config.progress_interval.0.max(PROGRESS_INTERVAL_MIN.0);
        let jitter = (u128::from(interval / PROGRESS_JITTER_DIVISOR) * u128::from(chance)) >> 64;
        let stream = Stream::new(id, Length(interval + jitter as u64));
        let slot = self.streams.insert(stream);
        let earlier = self.streams_by_id.insert(id, slot);
        assert!(earlier.is_none(), "a stream's name is used once");
        if needs_leader {
            self.needing_leader.insert(slot);
        }
    }

    fn on_request(&mut self, now: Time, stream: Slot, union: RequestUnion) {
        match union {
            RequestUnion::CreateRequest(request) => self.on_create(now, stream, &request),
            RequestUnion::CancelRequest(request) => self.on_cancel(stream, request.watch_id),
            RequestUnion::ProgressRequest(_) => self.on_progress_request(stream),
        }
    }

    fn send_refusal(&mut self, stream: Slot, reason: &'static str) {
        let mut response = Response::new(self.header(self.frontier.seen()), NO_WATCHER);
        response.is_created = true;
        response.is_canceled = true;
        response.cancel_reason = reason;
        self.send(stream, response);
    }

    fn on_create(&mut self, now: Time, stream: Slot, request: &pb::WatchCreateRequest) {
        let current = self.frontier.seen();
        let is_taken = self.streams[stream].watchers.contains_key(&request.watch_id);
        let checked = read_request(request).and_then(|accepted| match request.watch_id {
            0 => Ok(accepted),
            _ if is_taken => Err(Refusal::DuplicateId),
            _ => Ok(accepted),
        });
        let (span, options) = match checked {
            Ok(accepted) => accepted,
            Err(refusal) => return self.send_refusal(stream, refusal.reason()),
        };

        let id = match request.watch_id {
            0 => self.streams[stream].draw_id(),
            id => id,
        };
        let next = if options.is_from_now { current + 1 } else { request.start_revision };
        let slot = self.watchers.insert(Watcher::new(id, stream, next, options));
        self.watchers[slot].place = self.index.insert(&span, slot);
        self.wanting_prev_count += usize::from(options.wants_prev);
        self.streams[stream].watchers.insert(id, slot);
        if options.wants_progress {
            self.begin_progress(now, stream, id);
        }

        let mut response = Response::new(self.header(current), id);
        response.is_created = true;
        self.send(stream, response);
        // What is asked for at present need not have its keys.
        if next > self.scan.gap_to().max(self.frontier.delivered()) {
            self.begin_live(slot);
        } else {
            self.set_phase(slot, Phase::Parked, next);
            self.fill_ready(stream);
        }
    }

    fn on_cancel(&mut self, stream: Slot, id: i64) {
        let Some(slot) = self.streams[stream].watchers.remove(&id) else { return };
        self.streams[stream].notified.remove(&id);
        self.remove_watcher(slot);
        let mut response = Response::new(self.header(self.frontier.seen()), id);
        response.is_canceled = true;
        self.send(stream, response);
        self.fill_ready(stream);
    }

    fn on_sent(&mut self, slot: Slot, bytes: usize) {
        let stream = &mut self.streams[slot];
        stream.queued_bytes =
            stream.queued_bytes.checked_sub(bytes).expect("only what was queued can be sent");
        if stream.is_blocked && stream.queued_bytes <= self.config.limits.queue_bytes_max / 2 {
            stream.is_blocked = false;
            let id = stream.id;
            self.effects.push(Effect::Reading { stream: id, is_on: true });
            self.fill_ready(slot);
        }
    }

    pub(super) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    pub(super) fn header(&self, revision: i64) -> pb::ResponseHeader {
        pb::ResponseHeader {
            cluster_id: self.config.cluster_id,
            member_id: self.config.member_id,
            revision,
            raft_term: self.term,
        }
    }

    /// Queues a response, whatever the budget: who sends events asks before.
    pub(super) fn send(&mut self, slot: Slot, response: Response) {
        let stream = &mut self.streams[slot];
        stream.queued_bytes += response.charge();
        let (id, was_blocked) = (stream.id, stream.is_blocked);
        stream.is_blocked |= stream.queued_bytes >= self.config.limits.queue_bytes_max;
        let is_blocked = stream.is_blocked;
        self.effects.push(Effect::Send { stream: id, response });
        if is_blocked && !was_blocked {
            self.effects.push(Effect::Reading { stream: id, is_on: false });
        }
    }

    /// Sends what was gathered for a watcher, as far as its stream has room. Returns the first
    /// revision that was not sent, or `None` if all were. `revision` is the header's; without it,
    /// each response has that of its last event.
    pub(super) fn send_events(&mut self, entry: Entry, revision: Option<i64>) -> Option<i64> {
        let slot = entry.watcher;
        let watcher = &mut self.watchers[slot];
        watcher.gathered = NONE;
        let (id, stream, options) = (watcher.id, watcher.stream, watcher.options);
        let mut blocked = entry.is_blocked.then_some(entry.first);
        for piece in entry.into_pieces(&self.config.limits) {
            if self.streams[stream].is_blocked {
                blocked = Some(piece.first);
                break;
            }
            let header = self.header(revision.unwrap_or(piece.last));
            let response = Response { events: piece.events, ..Response::new(header, id) };
            if options.takes_fragments {
                for fragment in fragments(response, self.config.limits.fragment_bytes) {
                    self.send(stream, fragment);
                }
            } else {
                self.send(stream, response);
            }
            self.watchers[slot].is_quiet = false;
        }
        blocked
    }

    /// The only place where a watcher changes the way it gets its events.
    pub(super) fn set_phase(&mut self, slot: Slot, phase: Phase, next: i64) {
        let Self { watchers, index, .. } = self;
        let watcher = &mut watchers[slot];
        let stream = &mut self.streams[watcher.stream];
        let mut live = None;
        match watcher.phase {
            Phase::Detached => {}
            Phase::Live => {
                live = Some(false);
                self.live_count -= 1;
            }
            Phase::Ready => {
                self.ready.remove(&(watcher.next, slot));
                stream.ready_count -= 1;
                self.slow_count -= 1;
            }
            Phase::Parked => {
                stream.parked.remove(&(watcher.next, slot));
                self.slow_count -= 1;
            }
            Phase::Compacted => stream.compacted_count -= 1,
        }
        debug_assert!(next >= watcher.next, "a cursor never goes back");
        watcher.next = next;
        watcher.phase = phase;
        match phase {
            Phase::Detached => {}
            Phase::Live => {
                live = Some(true);
                self.live_count += 1;
            }
            Phase::Ready => {
                self.ready.insert((next, slot));
                stream.ready_count += 1;
                self.slow_count += 1;
            }
            Phase::Parked => {
                stream.parked.insert((next, slot));
                self.slow_count += 1;
            }
            Phase::Compacted => stream.compacted_count += 1,
        }
        if let Some(is_live) = live {
            let place = watcher.place;
            index.set_live(place, is_live, |moved, place| watchers[moved].place = place);
        }
    }

    /// Lets parked watchers of a stream read history, the one that is furthest behind first.
    pub(super) fn fill_ready(&mut self, slot: Slot) {
        loop {
            let stream = &self.streams[slot];
            if stream.is_blocked || stream.ready_count >= self.config.limits.stream_ready_max {
                return;
            }
            let Some(&(next, watcher)) = stream.parked.first() else { return };
            if next < self.frontier.compact_revision() {
                self.cancel_compacted(watcher);
            } else {
                self.set_phase(watcher, Phase::Ready, next);
            }
        }
    }

    /// Tells the client that what the watcher wants is gone. The header has no revision, so that
    /// no client takes it for progress.
    pub(super) fn cancel_compacted(&mut self, slot: Slot) {
        self.end_waiting(slot);
        let (id, stream, next) = {
            let watcher = &self.watchers[slot];
            (watcher.id, watcher.stream, watcher.next)
        };
        self.set_phase(slot, Phase::Compacted, next);
        let mut response = Response::new(self.header(0), id);
        response.is_canceled = true;
        response.compact_revision = self.frontier.compact_revision();
        self.send(stream, response);
    }

    /// Ends the wait of the watchers that may be told progress from `through` on. Must come before
    /// their cursors move.
    pub(super) fn settle_waiting(&mut self, through: i64) {
        while let Some(&(from, slot)) = self.waiting.first()
            && from <= through
        {
            self.end_waiting(slot);
        }
    }

    /// Serves a watcher that begins above the frontier as events are published.
    pub(super) fn begin_live(&mut self, slot: Slot) {
        let next = self.watchers[slot].next;
        self.set_phase(slot, Phase::Live, next);
        self.begin_waiting(slot);
    }

    fn begin_waiting(&mut self, slot: Slot) {
        let watcher = &mut self.watchers[slot];
        if watcher.progress_from() > self.frontier.delivered() {
            watcher.is_waiting = true;
            self.waiting.insert((watcher.progress_from(), slot));
            self.streams[watcher.stream].waiting_count += 1;
        }
    }

    fn end_waiting(&mut self, slot: Slot) {
        let watcher = &mut self.watchers[slot];
        if std::mem::take(&mut watcher.is_waiting) {
            let was_waiting = self.waiting.remove(&(watcher.progress_from(), slot));
            assert!(was_waiting, "a waiting watcher's cursor does not move");
            self.streams[watcher.stream].waiting_count -= 1;
        }
    }

    /// Forgets a watcher that its stream has already forgotten.
    fn remove_watcher(&mut self, slot: Slot) {
        self.end_waiting(slot);
        let next = self.watchers[slot].next;
        self.set_phase(slot, Phase::Detached, next);
        let Watcher { place, options, .. } = self.watchers.remove(slot);
        self.wanting_prev_count -= usize::from(options.wants_prev);
        let Self { index, watchers, .. } = self;
        index.remove(place, |moved, place| watchers[moved].place = place);
    }

    pub(super) fn close_stream(&mut self, slot: Slot, error: Error) {
        let id = self.streams[slot].id;
        self.remove_stream(slot);
        self.effects.push(Effect::CloseStream { stream: id, error });
    }

    fn remove_stream(&mut self, slot: Slot) {
        for watcher in std::mem::take(&mut self.streams[slot].watchers).into_values() {
            self.remove_watcher(watcher);
        }
        let stream = self.streams.remove(slot);
        self.streams_by_id.remove(&stream.id);
        self.needing_leader.remove(&slot);
        if let Some(end) = stream.progress_at {
            self.progress_ends.remove(&(end, slot));
        }
    }

    fn stream(&self, id: StreamId) -> Option<Slot> {
        self.streams_by_id.get(&id).copied()
    }
}
