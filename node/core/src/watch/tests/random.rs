//! Random clients, writers, compactions, lost batches, slow transports, and history that is read in
//! pieces elsewhere, against an oracle that knows all history: each watcher is sent exactly what it asked for, in order, whole revisions,
//! no progress ahead of its events, and is cut off only by a compaction that overtook it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;

use crate::mvcc::{self, Head};
use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::watch_create_request::FilterType;
use crate::proto::etcdserverpb::watch_request::RequestUnion;
use crate::proto::{Span, mvccpb};
use crate::time::Time;
use crate::watch::{Effect, Event, Hub, Input, Limits, Published, StreamId};

use super::pieces::{Pieces, Seen};
use super::stage::{Change, Store, config, decode, request};

const SEEDS: u64 = 2_000;
const STEPS: usize = 250;
pub(super) const KEYS: [&str; 6] = ["a", "a1", "a2", "b", "b1", "c"];

/// A repeatable source of chance: SplitMix64.
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// At least 0 and below `bound`.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn in_range(&mut self, low: i64, high: i64) -> i64 {
        low + self.below((high - low + 1) as u64) as i64
    }
}

#[test]
fn every_watcher_is_sent_exactly_what_it_asked_for() {
    let mut totals = Totals::default();
    for seed in 0..SEEDS {
        let mut run = Run::new(seed);
        run.play();
        totals.add(&run.totals);
    }
    // A test that never meets the hard cases proves nothing.
    let Totals { events, fragments, progress, compacted, blocked, gaps, refused, seen } = totals;
    for (count, least) in [
        (events, 50 * SEEDS),
        (fragments, SEEDS),
        (progress, 3 * SEEDS),
        (compacted, SEEDS),
        (blocked, SEEDS),
        (gaps, SEEDS),
        (refused, SEEDS / 2),
        (seen.blocks, SEEDS),
        (seen.refused, SEEDS),
        (seen.moved, SEEDS / 10),
        (seen.given_up, SEEDS / 2),
        (seen.late, SEEDS / 10),
        (seen.within_a_revision, SEEDS / 10),
    ] {
        assert!(count >= least, "{totals:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_effects() {
    for seed in 0..50 {
        let play = || {
            let mut run = Run::new(seed);
            run.trace = Some(String::new());
            run.play();
            run.trace
        };
        assert_eq!(play(), play(), "seed {seed}");
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    events: u64,
    fragments: u64,
    progress: u64,
    compacted: u64,
    blocked: u64,
    gaps: u64,
    refused: u64,
    seen: Seen,
}

impl Totals {
    fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.fragments += other.fragments;
        self.progress += other.progress;
        self.compacted += other.compacted;
        self.blocked += other.blocked;
        self.gaps += other.gaps;
        self.refused += other.refused;
        let Seen { blocks, refused, moved, given_up, late, within_a_revision } = other.seen;
        self.seen.blocks += blocks;
        self.seen.refused += refused;
        self.seen.moved += moved;
        self.seen.given_up += given_up;
        self.seen.late += late;
        self.seen.within_a_revision += within_a_revision;
    }
}

/// What a client knows of one of its watchers.
#[derive(Clone, Debug)]
struct Watched {
    request: pb::WatchCreateRequest,
    span: Span,
    /// The first revision wanted.
    start: i64,
    /// Entries of the whole history that were sent or are not wanted.
    position: usize,
    /// Pieces of a response that is not complete.
    pieces: Vec<mvccpb::Event>,
    is_compacted: bool,
    /// It may have fallen behind since the hub was last seen with nothing left to do.
    may_be_behind: bool,
}

impl Watched {
    fn wants(&self, event: &mvcc::Event) -> bool {
        let filter = if event.is_delete { FilterType::Nodelete } else { FilterType::Noput };
        event.revision >= self.start
            && self.span.contains(&event.key)
            && !self.request.filters.contains(&filter.into())
    }

    /// The next event it has to be sent.
    fn next<'a>(&self, history: &'a [mvcc::Event]) -> Option<&'a mvcc::Event> {
        history[self.position..].iter().find(|event| self.wants(event))
    }
}

#[derive(Debug, Default)]
struct Client {
    watched: BTreeMap<i64, Watched>,
    /// Charges of what the transport holds.
    queue: VecDeque<usize>,
    next_id: i64,
    is_read: bool,
    progress: i64,
}

struct Run {
    seed: u64,
    step: usize,
    chance: Chance,
    limits: Limits,
    hub: Hub,
    store: Store,
    old_head: Head,
    now: Time,
    history: Vec<mvcc::Event>,
    /// Events that were not published, and the revision before them.
    late: Vec<mvcc::Event>,
    published: i64,
    clients: BTreeMap<u64, Client>,
    opened: u64,
    /// The node shows some keys only: batches come without their events.
    is_lacking: bool,
    pieces: Pieces,
    totals: Totals,
    /// Every effect in words, if wanted.
    trace: Option<String>,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let limits = Limits {
            queue_bytes_max: chance.in_range(300, 6_000) as usize,
            fragment_bytes: chance.in_range(40, 200) as usize,
            response_revisions_max: chance.in_range(1, 5) as usize,
            response_bytes_max: chance.in_range(20, 300) as usize,
            block_rows_max: chance.in_range(1, 20) as usize,
            block_events_max: chance.in_range(1, 10) as usize,
            block_bytes_max: chance.in_range(20, 500) as usize,
            block_watchers_max: chance.in_range(1, 6) as usize,
            stream_ready_max: chance.in_range(1, 4) as usize,
            gather_events_max: chance.in_range(1, 20) as usize,
            tick_streams_max: chance.in_range(1, 3) as usize,
        };
        let mut hub = Hub::new(config(limits.clone()), 1, -1);
        let term = super::stage::TERM;
        let effects = hub.step(Time(0), Input::Leader { term, is_known: true });
        assert_eq!(effects, []);
        let store = Store::new();
        Self {
            seed,
            step: 0,
            chance,
            limits,
            hub,
            old_head: store.head,
            store,
            now: Time(0),
            history: Vec::new(),
            late: Vec::new(),
            published: 1,
            clients: BTreeMap::new(),
            opened: 0,
            is_lacking: false,
            pieces: Pieces::default(),
            totals: Totals::default(),
            trace: None,
        }
    }

    fn play(&mut self) {
        for step in 0..STEPS {
            self.step = step;
            match self.chance.below(114) {
                0..30 => self.commit(),
                30..48 => self.publish(),
                48..52 => self.compact(),
                52..60 => self.create(),
                60..62 => self.cancel(),
                62..69 => self.ask_progress(),
                69..71 => self.tick(),
                71..83 => self.catch_up(),
                83..97 => self.take(),
                97..99 => self.open(),
                99..100 => self.close(),
                100..102 => self.is_lacking = self.chance.below(3) == 0,
                102..104 => self.pieces.move_keys(&mut self.chance),
                _ => self.ask_progress(),
            }
            self.note_quiet();
        }
        self.finish();
        self.totals.seen = self.pieces.seen;
    }

    fn commit(&mut self) {
        let count = self.chance.in_range(1, 4);
        let mut changes: BTreeMap<&str, Change> = BTreeMap::new();
        for _ in 0..count {
            let key = KEYS[self.chance.below(KEYS.len() as u64) as usize];
            let change = if self.chance.below(4) == 0 {
                Change::Delete(key)
            } else {
                Change::Put(key, "v".repeat(self.chance.below(30) as usize))
            };
            changes.insert(key, change);
        }
        let changes: Vec<Change> = changes.into_values().collect();
        let events = self.store.commit(&changes);
        self.history.extend(events.iter().cloned());
        self.late.extend(events);
    }

    fn publish(&mut self) {
        let is_lost = self.chance.below(12) == 0 || self.is_lacking;
        let events = std::mem::take(&mut self.late);
        let revision = self.store.head.revision;
        if is_lost && revision > self.published {
            self.totals.gaps += 1;
            for watched in self.all_watched() {
                watched.may_be_behind = true;
            }
        }
        let after = if is_lost { revision } else { self.published };
        let events = if is_lost { Vec::new() } else { events };
        let events: Vec<Event> = events.into_iter().map(Event::from).collect();
        self.published = revision;
        self.input(Input::Published(Published {
            after,
            revision,
            compact_revision: self.store.head.compact_revision,
            events: Arc::from(events),
        }));
    }

    /// Seeds differ in how often: never, now and then, often.
    fn compact(&mut self) {
        if self.chance.below(4) >= self.seed % 3 {
            return;
        }
        let Head { revision, compact_revision } = self.store.head;
        let target = self.chance.in_range(compact_revision.max(0), revision);
        if target > compact_revision {
            self.old_head = self.store.head;
            self.store.compact(target);
        }
    }

    fn create(&mut self) {
        let Some(stream) = self.reading_client() else { return };
        let start_revision = match self.chance.below(8) {
            0..3 => 0,
            3..6 => self.chance.in_range(1, self.store.head.revision),
            6 => self.store.head.revision + self.chance.in_range(0, 5),
            _ => self.chance.in_range(-1, 2),
        };
        let key = KEYS[self.chance.below(KEYS.len() as u64) as usize];
        let range_end = match self.chance.below(5) {
            0 | 1 => Bytes::new(),
            2 => Bytes::from_static(b"\0"),
            3 => Span::prefix(key.into()).end.unwrap_or_default(),
            _ => KEYS[self.chance.below(KEYS.len() as u64) as usize].into(),
        };
        let mut filters = Vec::new();
        for filter in [FilterType::Noput, FilterType::Nodelete] {
            if self.chance.below(6) == 0 {
                filters.push(filter.into());
            }
        }
        let create = pb::WatchCreateRequest {
            key: key.into(),
            range_end,
            start_revision,
            progress_notify: self.chance.below(3) == 0,
            filters,
            prev_kv: self.chance.below(2) == 0,
            watch_id: if self.chance.below(4) == 0 { self.chance.in_range(-2, 5) } else { 0 },
            fragment: self.chance.below(3) == 0,
        };
        let union = RequestUnion::CreateRequest(create.clone());
        let effects = self.request(stream, union);
        let mut effects = effects.into_iter();
        self.on_created(stream, create, effects.next());
        self.check(effects.collect());
    }

    /// The first effect of a create request is its reply.
    fn on_created(&mut self, stream: u64, create: pb::WatchCreateRequest, reply: Option<Effect>) {
        let Some(Effect::Send { response, .. }) = &reply else {
            panic!("seed {}: a create request is answered", self.seed);
        };
        let message = decode(response);
        let current = self.store.head.revision;
        assert!(message.created, "seed {}", self.seed);
        assert_eq!(message.header.expect("checked").revision, current);

        let span = Span::from_request(create.key.clone(), create.range_end.clone());
        let client = self.clients.get_mut(&stream).expect("it is open");
        let is_taken = create.watch_id != 0 && client.watched.contains_key(&create.watch_id);
        let is_refused = create.start_revision < 0 || span.is_empty() || is_taken;
        assert_eq!(message.canceled, is_refused, "seed {}", self.seed);
        self.totals.refused += u64::from(is_refused);
        if is_refused {
            assert_eq!(message.watch_id, -1);
        } else {
            if create.watch_id == 0 {
                while client.watched.contains_key(&client.next_id) {
                    client.next_id += 1;
                }
                assert_eq!(message.watch_id, client.next_id, "seed {}", self.seed);
                client.next_id += 1;
            } else {
                assert_eq!(message.watch_id, create.watch_id);
            }
            let start = match create.start_revision {
                0 => current + 1,
                start => start,
            };
            let watched = Watched {
                span,
                start,
                position: self.history.partition_point(|event| event.revision < start),
                pieces: Vec::new(),
                is_compacted: false,
                may_be_behind: start <= self.published || self.hub.is_behind(),
                request: create,
            };
            client.watched.insert(message.watch_id, watched);
        }
        self.queue(stream, response.charge());
        self.trace(&reply);
    }

    fn cancel(&mut self) {
        let Some(stream) = self.reading_client() else { return };
        let watch_id = self.chance.in_range(0, 6);
        let is_known = self.clients[&stream].watched.contains_key(&watch_id);
        let union = RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id });
        let mut effects = self.request(stream, union).into_iter();
        if is_known {
            let reply = effects.next();
            let Some(Effect::Send { response, .. }) = &reply else {
                panic!("seed {}: a cancel of a known id is answered", self.seed);
            };
            let message = decode(response);
            assert!(message.canceled && !message.created && message.compact_revision == 0);
            assert_eq!(message.header.expect("checked").revision, self.store.head.revision);
            self.client(stream).watched.remove(&watch_id);
            self.queue(stream, response.charge());
            self.trace(&reply);
        }
        self.check(effects.collect());
    }

    fn ask_progress(&mut self) {
        let Some(stream) = self.reading_client() else { return };
        let union = RequestUnion::ProgressRequest(pb::WatchProgressRequest {});
        let effects = self.request(stream, union);
        self.check(effects);
    }

    fn tick(&mut self) {
        self.now = Time(self.now.0 + 700_000_000);
        self.input(Input::Tick);
    }

    fn catch_up(&mut self) {
        if self.is_lacking {
            for _ in 0..self.chance.below(8) {
                self.go_on_with_block();
            }
            return;
        }
        if !self.hub.is_behind() {
            return;
        }
        let new_head = self.store.head;
        if self.chance.below(4) == 0 {
            self.store.head = self.old_head;
        }
        let effects = self.store.catch_up(&mut self.hub);
        self.store.head = new_head;
        self.check(effects);
    }

    fn go_on_with_block(&mut self) {
        let head = if self.chance.below(4) == 0 { self.old_head } else { self.store.head };
        let Self { pieces, chance, hub, store, .. } = self;
        let effects = pieces.step(chance, hub, store, head);
        self.check(effects);
    }

    fn take(&mut self) {
        let Some(stream) = self.any_client() else { return };
        for _ in 0..self.chance.in_range(1, 12) {
            let Some(bytes) = self.client(stream).queue.pop_front() else { return };
            self.input(Input::Sent { stream: StreamId(stream), bytes });
        }
    }

    fn open(&mut self) {
        if self.clients.len() < 4 {
            self.opened += 1;
            let stream = StreamId(self.opened);
            self.clients.insert(self.opened, Client { is_read: true, ..Client::default() });
            let chance = self.chance.next();
            self.input(Input::Open { stream, needs_leader: false, chance });
        }
    }

    fn close(&mut self) {
        if let Some(stream) = self.any_client() {
            self.clients.remove(&stream);
            self.input(Input::Close { stream: StreamId(stream) });
        }
    }

    /// Everything is published and taken: then everybody has everything.
    fn finish(&mut self) {
        self.publish();
        for round in 0.. {
            assert!(round < 10_000, "seed {}: the hub never catches up", self.seed);
            let streams: Vec<u64> = self.clients.keys().copied().collect();
            for stream in streams {
                while let Some(bytes) = self.client(stream).queue.pop_front() {
                    self.input(Input::Sent { stream: StreamId(stream), bytes });
                }
            }
            if !self.hub.is_behind() {
                break;
            }
            if self.is_lacking {
                self.go_on_with_block();
            } else {
                let effects = self.store.catch_up(&mut self.hub);
                self.check(effects);
            }
        }
        assert_eq!(self.hub.counts().slow_watchers, 0, "seed {}", self.seed);
        let streams: Vec<u64> = self.clients.keys().copied().collect();
        for stream in streams {
            self.expect_all_sent(stream);
        }
    }

    fn expect_all_sent(&mut self, stream: u64) {
        let (seed, revision) = (self.seed, self.store.head.revision);
        let client = &self.clients[&stream];
        let mut may_progress = !client.watched.is_empty();
        for (id, watched) in &client.watched {
            assert_eq!(watched.pieces, [], "seed {seed}: {stream} #{id} lacks a piece");
            let next = watched.next(&self.history);
            assert!(
                watched.is_compacted || next.is_none(),
                "seed {seed}: {stream} #{id} was never sent {next:?}"
            );
            may_progress &= !watched.is_compacted && watched.request.start_revision <= revision;
        }
        let union = RequestUnion::ProgressRequest(pb::WatchProgressRequest {});
        let effects = self.request(stream, union);
        assert_eq!(effects.len(), usize::from(may_progress), "seed {seed}: {stream} {effects:?}");
        self.check(effects);
    }

    fn request(&mut self, stream: u64, union: RequestUnion) -> Vec<Effect> {
        let revision = self.store.head.revision;
        let request = request(union);
        self.hub.step(self.now, Input::Request { stream: StreamId(stream), request, revision })
    }

    fn input(&mut self, input: Input) {
        let effects = self.hub.step(self.now, input);
        self.check(effects);
    }

    fn check(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            self.trace(&effect);
            match effect {
                Effect::Send { stream, response } => {
                    let message = decode(&response);
                    self.on_message(stream.0, message);
                    self.queue(stream.0, response.charge());
                }
                Effect::Reading { stream, is_on } => {
                    self.client(stream.0).is_read = is_on;
                    self.totals.blocked += u64::from(!is_on);
                    let queued: usize = self.client(stream.0).queue.iter().sum();
                    assert_eq!(queued < self.limits.queue_bytes_max, is_on, "seed {}", self.seed);
                    if !is_on {
                        for watched in self.client(stream.0).watched.values_mut() {
                            watched.may_be_behind = true;
                        }
                    }
                }
                Effect::CloseStream { .. } => panic!("seed {}: nobody asked for it", self.seed),
            }
        }
    }

    fn on_message(&mut self, stream: u64, message: pb::WatchResponse) {
        let seed = self.seed;
        assert!(!message.created, "seed {seed}: created comes first");
        assert_eq!(message.cancel_reason, "");
        if message.canceled {
            self.on_compacted(stream, &message);
        } else if message.events.is_empty() {
            self.on_progress(stream, &message);
        } else {
            self.on_events(stream, message);
        }
    }

    fn on_events(&mut self, stream: u64, message: pb::WatchResponse) {
        let (seed, step, id) = (self.seed, self.step, message.watch_id);
        let Head { revision: head, compact_revision } = self.store.head;
        self.totals.events += message.events.len() as u64;
        self.totals.fragments += u64::from(message.fragment);
        let queue_bytes_max = self.limits.queue_bytes_max;
        let client = self.clients.get_mut(&stream).expect("it is open");
        let queued: usize = client.queue.iter().sum();
        let watched = client.watched.get_mut(&id).expect("events of a known watcher");
        assert!(!watched.is_compacted, "seed {seed} step {step}: events after the end");
        assert!(watched.request.fragment || !message.fragment);
        assert!(queued < queue_bytes_max || !watched.pieces.is_empty(), "seed {seed} step {step}");
        watched.pieces.extend(message.events);
        if message.fragment {
            return;
        }

        let events = std::mem::take(&mut watched.pieces);
        let mut revisions = Vec::new();
        for event in events {
            let expected = watched.next(&self.history).expect("nothing that never happened");
            let context = format!("seed {seed} step {step}: {stream} #{id} {event:?} {expected:?}");
            let kv = event.kv.as_ref().expect("always there");
            assert_eq!(kv.encode_to_vec(), expected.kv, "{context}");
            assert_eq!(event.r#type() == mvccpb::event::EventType::Delete, expected.is_delete);
            let prev = event.prev_kv.map(|prev| Bytes::from(prev.encode_to_vec()));
            let is_compacted = expected.revision <= compact_revision;
            if !watched.request.prev_kv {
                assert_eq!(prev, None, "{context}");
            } else if !(prev.is_none() && is_compacted) {
                assert_eq!(prev, expected.prev, "{context}");
            }
            revisions.push(expected.revision);
            watched.position = self.history.partition_point(|event| {
                (event.revision, event.sub) <= (expected.revision, expected.sub)
            });
        }
        let last = *revisions.last().expect("there are events");
        revisions.dedup();
        assert!(revisions.len() <= self.limits.response_revisions_max);
        let next = watched.next(&self.history).map(|event| event.revision);
        assert_ne!(next, Some(last), "seed {seed} step {step}: {stream} #{id} a torn revision");
        let header = message.header.expect("checked").revision;
        assert!((last..=head).contains(&header), "seed {seed} step {step}: header {header}");
    }

    fn on_progress(&mut self, stream: u64, message: &pb::WatchResponse) {
        let (seed, step, id) = (self.seed, self.step, message.watch_id);
        self.totals.progress += 1;
        let revision = message.header.expect("checked").revision;
        let head = self.store.head.revision;
        let client = self.clients.get_mut(&stream).expect("it is open");
        assert!(!client.watched.is_empty(), "seed {seed} step {step}");
        assert!((client.progress..=head).contains(&revision), "seed {seed} step {step}");
        client.progress = revision;
        // A client may have chosen -1 as an id: then it may be progress of that one only.
        let is_for_all =
            id == -1 && !client.watched.get(&-1).is_some_and(|it| it.request.progress_notify);
        for (watch_id, watched) in &client.watched {
            if !is_for_all && *watch_id != id {
                continue;
            }
            let context = format!("seed {seed} step {step}: {stream} #{watch_id} at {revision}");
            assert!(is_for_all || watched.request.progress_notify, "{context}");
            assert!(!watched.is_compacted && watched.pieces.is_empty(), "{context}");
            assert!(watched.request.start_revision <= revision, "{context}");
            assert!(watched.start - 1 <= revision, "{context}");
            let next = watched.next(&self.history).map(|event| event.revision);
            assert!(next.is_none_or(|next| next > revision), "{context}: {next:?} was not sent");
        }
    }

    fn on_compacted(&mut self, stream: u64, message: &pb::WatchResponse) {
        let (seed, step, id) = (self.seed, self.step, message.watch_id);
        self.totals.compacted += 1;
        let context = format!("seed {seed} step {step}: {stream} #{id} {message:?}");
        let compacted = message.compact_revision;
        assert!(compacted > 0 && compacted <= self.store.head.compact_revision, "{context}");
        assert_eq!(message.header.expect("checked").revision, 0, "{context}");
        let history = &self.history;
        let client = self.clients.get_mut(&stream).expect("it is open");
        let watched = client.watched.get_mut(&id).expect("a known watcher");
        assert!(!watched.is_compacted && watched.pieces.is_empty(), "{context}");
        assert!(watched.may_be_behind, "{context}: it was up to date");
        let sent = history[..watched.position].iter().rfind(|event| watched.wants(event));
        assert!(watched.start < compacted, "{context}");
        assert!(sent.is_none_or(|sent| sent.revision < compacted), "{context}");
        watched.is_compacted = true;
    }

    /// With nothing left to do and all published, no watcher is behind.
    fn note_quiet(&mut self) {
        if !self.hub.is_behind() && self.hub.counts().slow_watchers == 0 {
            let published = self.published;
            for client in self.clients.values_mut() {
                let is_read = client.is_read;
                for watched in client.watched.values_mut() {
                    watched.may_be_behind &= !is_read || watched.start > published;
                }
            }
        }
    }

    fn all_watched(&mut self) -> impl Iterator<Item = &mut Watched> {
        self.clients.values_mut().flat_map(|client| client.watched.values_mut())
    }

    fn queue(&mut self, stream: u64, charge: usize) {
        self.client(stream).queue.push_back(charge);
    }

    fn client(&mut self, stream: u64) -> &mut Client {
        self.clients.get_mut(&stream).expect("the stream is open")
    }

    fn any_client(&mut self) -> Option<u64> {
        let count = self.clients.len() as u64;
        let nth = if count == 0 { return None } else { self.chance.below(count) as usize };
        self.clients.keys().nth(nth).copied()
    }

    /// One that the hub wants to read from.
    fn reading_client(&mut self) -> Option<u64> {
        self.any_client().filter(|stream| self.clients[stream].is_read)
    }

    fn trace(&mut self, effect: &impl std::fmt::Debug) {
        use std::fmt::Write as _;
        if let Some(trace) = &mut self.trace {
            let _ = write!(trace, "{effect:?}");
        }
    }
}
