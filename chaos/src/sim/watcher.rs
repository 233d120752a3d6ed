//! Watching clients, and the hub of each node between them and the apply stage. Some watch all
//! keys of one node from the beginning, as evidence; others watch a part somewhere, read slowly,
//! go away and come back elsewhere for the rest.

use bytes::{Bytes, BytesMut};
use flotilla_core::Time;
use flotilla_core::proto::etcdserverpb::watch_request::RequestUnion;
use flotilla_core::proto::etcdserverpb::{
    WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
};
use flotilla_core::watch::{Effect, Input, NO_WATCHER, Response, StreamId};
use prost::Message as _;

use super::event::{Event, NodeEvent};
use super::mutant::Mutant;
use super::node::Stream;
use super::plan::MS;
use super::world::{Phase, World};
use crate::history::{ClientId, Received, WatchRecord};

/// Mean time between two turns at reading history, in microseconds.
const CATCH_UP_MEAN: u64 = 200;
/// Clients that watch are numbered from here.
const FIRST_CLIENT: u32 = 1_000;

/// A watching client.
#[derive(Clone, Debug)]
pub(super) struct Watching {
    /// Where it always watches; otherwise anywhere.
    pub(super) home: Option<u64>,
    create: WatchCreateRequest,
    /// Mean time the client takes for a response, in microseconds.
    slowness: u64,
    /// Counts the streams it had.
    pub(super) session: u32,
    node: u64,
    stream: u64,
    pub(super) is_open: bool,
    /// What it asks for is wrong by itself, so it does not ask again.
    pub(super) is_refused: bool,
    /// The first revision it was not sent.
    pub(super) next: i64,
    pub(super) records: Vec<WatchRecord>,
}

impl World {
    pub(super) fn begin_watching(&mut self) {
        let homes: Vec<Option<u64>> = (1..=self.plan.nodes_count).map(Some).collect();
        let homes_count = homes.len();
        let others = vec![None; self.plan.traffic.watchers_count];
        for home in homes.into_iter().chain(others) {
            let create = self.draw_create(home.is_some());
            let slowness = match (home, self.chance.below(3)) {
                (Some(_), _) | (None, 0) => 200,
                (None, 1) => 20 * MS,
                (None, _) => 150 * MS,
            };
            let wait = if home.is_some() { 0 } else { self.chance.below(5_000 * MS) };
            let others_max = self.reduction.watchers_max;
            let count_max = others_max.map_or(usize::MAX, |max| homes_count + max);
            if self.watching.len() >= count_max {
                self.queue.skip(1);
                continue;
            }
            let next = create.start_revision;
            self.watching.push(Watching {
                home,
                create,
                slowness,
                session: 0,
                node: 0,
                stream: 0,
                is_open: false,
                is_refused: false,
                next,
                records: Vec::new(),
            });
            let watcher = self.watching.len() - 1;
            self.after(wait, Event::WatchOpen(watcher));
        }
    }

    fn draw_create(&mut self, is_evidence: bool) -> WatchCreateRequest {
        let all = Bytes::from_static(&[0]);
        if is_evidence {
            return WatchCreateRequest {
                key: all.clone(),
                range_end: all,
                start_revision: 1,
                progress_notify: true,
                prev_kv: true,
                ..WatchCreateRequest::default()
            };
        }
        let chance = &mut self.chance;
        let key = Bytes::from(format!("k{}", chance.below(self.plan.traffic.keys_count)));
        let range_end = match chance.below(3) {
            0 => Bytes::new(),
            1 => Bytes::from("k7"),
            _ => all,
        };
        let filters = match chance.below(6) {
            0 => vec![0],
            1 => vec![1],
            _ => Vec::new(),
        };
        WatchCreateRequest {
            key,
            range_end,
            start_revision: *chance.pick(&[0, 1, 1, 20, 150]),
            progress_notify: chance.one_in(2),
            filters,
            prev_kv: chance.one_in(2),
            fragment: chance.one_in(2),
            ..WatchCreateRequest::default()
        }
    }

    /// The client opens a stream, where it can, for what it has not got.
    pub(super) fn open_watch(&mut self, watcher: usize) {
        if self.watching[watcher].is_open || self.watching[watcher].is_refused {
            return;
        }
        let mut up = self.up_ids();
        up.retain(|id| self.up(*id).stage.reach().shown.index > 0);
        let home = self.watching[watcher].home;
        if home.is_some_and(|home| self.nodes[&home].is_out) {
            return;
        }
        let node = home.filter(|home| up.contains(home));
        let node =
            if home.is_some() || up.is_empty() { node } else { Some(*self.chance.pick(&up)) };
        let Some(id) = node else {
            self.after(50 * MS, Event::WatchOpen(watcher));
            return;
        };
        let now = self.now;
        let stream = u64::try_from(watcher).expect("few watchers") * 1_000_000
            + u64::from(self.watching[watcher].session)
            + 1;
        let watching = &mut self.watching[watcher];
        watching.session += 1;
        watching.node = id;
        watching.stream = stream;
        watching.is_open = true;
        let session = watching.session;
        let create =
            WatchCreateRequest { start_revision: watching.next, ..watching.create.clone() };
        watching.records.push(WatchRecord {
            client: ClientId(FIRST_CLIENT + u32::try_from(watcher).expect("few watchers")),
            invoked: now,
            create: create.clone(),
            received: Vec::new(),
            cancel_sent: None,
            open_at_end: true,
        });
        self.say(|| format!("watcher {watcher} opens at node {id} from {}", create.start_revision));
        let stream_state = Stream {
            watcher,
            session,
            queue: Default::default(),
            is_write_planned: false,
            last_arrival: now,
            is_closing: false,
        };
        self.up(id).streams.insert(stream, stream_state);
        let chance = self.chance.draw();
        let needs_leader = home.is_none() && self.chance.one_in(4);
        self.hub_step(id, Input::Open { stream: StreamId(stream), needs_leader, chance });
        let mut asked = create;
        let is_resumed = session > 1 && asked.start_revision > 0;
        if self.is_mutant(Mutant::WatchSkips) && is_resumed {
            asked.start_revision += 1;
        }
        self.send_watch(id, stream, RequestUnion::CreateRequest(asked));
        let wait = self.chance.wait(2_000 * MS);
        self.after(wait, Event::WatchAct(watcher, session));
    }

    fn send_watch(&mut self, id: u64, stream: u64, union: RequestUnion) {
        let request = WatchRequest { request_union: Some(union) };
        let wait = 1 + self.chance.wait(300);
        let bytes = request.encode_to_vec().into();
        self.on_node(id, wait, NodeEvent::StreamRequest(stream, bytes));
    }

    pub(super) fn on_stream_request(&mut self, id: u64, stream: u64, bytes: &Bytes) {
        if !self.up(id).streams.contains_key(&stream) {
            return;
        }
        let request = WatchRequest::decode(bytes.clone()).expect("encoded here");
        let revision = self.up(id).stage.reach().shown.head.revision;
        self.hub_step(id, Input::Request { stream: StreamId(stream), request, revision });
    }

    /// Now and then a client asks for progress, cancels, or goes away.
    pub(super) fn act_on_watch(&mut self, watcher: usize, session: u32) {
        let watching = &self.watching[watcher];
        if !watching.is_open || watching.session != session || self.phase > Phase::Trouble {
            return;
        }
        let (id, stream, is_home) = (watching.node, watching.stream, watching.home.is_some());
        if self.nodes[&id].running.is_none() {
            return;
        }
        match self.chance.below(if is_home { 2 } else { 6 }) {
            0 => {
                let progress = RequestUnion::ProgressRequest(WatchProgressRequest {});
                self.send_watch(id, stream, progress);
            }
            4 => {
                let now = self.now;
                if let Some(record) = self.watching[watcher].records.last_mut() {
                    record.cancel_sent.get_or_insert(now);
                }
                let cancel = WatchCancelRequest { watch_id: 0 };
                self.send_watch(id, stream, RequestUnion::CancelRequest(cancel));
            }
            5 => {
                self.see("watcher went away");
                if self.running(id).is_some_and(|node| node.streams.remove(&stream).is_some()) {
                    self.hub_step(id, Input::Close { stream: StreamId(stream) });
                }
                self.lose_watch(watcher, session);
                return;
            }
            _ => {}
        }
        let wait = self.chance.wait(1_000 * MS);
        self.after(wait, Event::WatchAct(watcher, session));
    }

    pub(super) fn receive_watch(&mut self, watcher: usize, session: u32, bytes: &Bytes) {
        let now = self.now;
        let watching = &mut self.watching[watcher];
        if watching.session != session || !watching.is_open {
            return;
        }
        let response = match WatchResponse::decode(bytes.clone()) {
            Ok(response) => response,
            Err(error) => {
                self.invariants.break_with(format!("watcher {watcher} is sent garbage: {error}"));
                return;
            }
        };
        self.trace.bytes(bytes);
        let header = response.header.as_ref().map_or(0, |header| header.revision);
        let last = response.events.last().and_then(|event| event.kv.as_ref());
        if let Some(kv) = last {
            // Of a revision in pieces only the whole is resumed after.
            let next = kv.mod_revision + i64::from(!response.fragment);
            watching.next = watching.next.max(next);
        } else if response.created && watching.next == 0 {
            watching.next = header + 1;
        } else if !response.created && !response.canceled {
            watching.next = watching.next.max(header + 1);
        }
        let is_over = response.canceled;
        watching.is_refused |= response.created && response.canceled;
        if response.compact_revision > 0 {
            watching.next = response.compact_revision;
        }
        let record = watching.records.last_mut().expect("an open stream has a record");
        record.received.push(Received { at: now, response });
        if is_over {
            self.see("watch cancelled");
            let (id, stream) = (self.watching[watcher].node, self.watching[watcher].stream);
            if self.running(id).is_some_and(|node| node.streams.remove(&stream).is_some()) {
                self.hub_step(id, Input::Close { stream: StreamId(stream) });
            }
            self.lose_watch(watcher, session);
        }
    }

    /// The client finds its stream ended and will open another.
    pub(super) fn lose_watch(&mut self, watcher: usize, session: u32) {
        let watching = &mut self.watching[watcher];
        if watching.session != session || !watching.is_open {
            return;
        }
        watching.is_open = false;
        if let Some(record) = watching.records.last_mut() {
            record.open_at_end = false;
        }
        let wait = self.chance.wait(50 * MS);
        self.after(wait, Event::WatchOpen(watcher));
    }

    /// A node has crashed: its clients find out, each in its time.
    pub(super) fn lose_streams(&mut self, id: u64) {
        for watcher in 0..self.watching.len() {
            let watching = &self.watching[watcher];
            if watching.is_open && watching.node == id {
                let session = watching.session;
                let wait = self.chance.wait(50 * MS);
                self.after(wait, Event::WatchLost(watcher, session));
            }
        }
    }
}

// The hub of a node.
impl World {
    pub(super) fn hub_step(&mut self, id: u64, input: Input) {
        let drift = self.nodes[&id].drift_ppm;
        let now = self.now;
        let running = self.up(id);
        let clock = running.clock(now, drift);
        let effects = running.hub.step(clock, input);
        self.carry_out_hub(id, effects);
    }

    pub(super) fn tell_hub_of_leader(&mut self, id: u64) {
        let status = self.up(id).status;
        let input = Input::Leader { term: status.term, is_known: status.leader.is_some() };
        self.hub_step(id, input);
    }

    pub(super) fn carry_out_hub(&mut self, id: u64, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send { stream: StreamId(stream), response } => {
                    self.queue_response(id, stream, response);
                }
                // Requests are few here; a real node stops reading.
                Effect::Reading { .. } => self.see("stream was full"),
                Effect::CloseStream { stream: StreamId(stream), error } => {
                    self.say(|| format!("node {id} closes stream {stream}: {error}"));
                    self.see("stream closed");
                    if let Some(state) = self.up(id).streams.get_mut(&stream) {
                        state.is_closing = true;
                        if !std::mem::replace(&mut state.is_write_planned, true) {
                            self.on_node(id, 1, NodeEvent::StreamWrite(stream));
                        }
                    }
                }
            }
        }
        self.plan_hub(id);
    }

    pub(super) fn plan_hub(&mut self, id: u64) {
        let drift = self.nodes[&id].drift_ppm;
        let now = self.now;
        if !self.up(id).is_catch_up_planned
            && let Some(wait) = self.block_pause(id, CATCH_UP_MEAN)
        {
            self.up(id).is_catch_up_planned = true;
            self.on_node(id, wait, NodeEvent::CatchUp);
        }
        let running = self.up(id);
        let Some(Time(deadline)) = running.hub.next_deadline() else { return };
        let Time(clock) = running.clock(now, drift);
        // At least a little later, and not by the clock's drift too early.
        let wait = deadline.saturating_sub(clock).max(MS) + MS;
        let at = now + wait;
        if running.hub_timer.is_none_or(|planned| planned > at) {
            running.hub_timer = Some(at);
            self.on_node(id, wait, NodeEvent::HubTimer);
        }
    }

    pub(super) fn on_hub_timer(&mut self, id: u64) {
        self.up(id).hub_timer = None;
        self.hub_step(id, Input::Tick);
    }

    fn queue_response(&mut self, id: u64, stream: u64, response: Response) {
        let is_mutant = self.is_mutant(Mutant::ProgressOvertakes);
        let Some(state) = self.up(id).streams.get_mut(&stream) else { return };
        let is_progress = response.events_count() == 0
            && !response.is_created
            && !response.is_canceled
            && (response.watch_id == NO_WATCHER || response.watch_id == 0);
        if is_mutant && is_progress && !state.queue.iter().any(|queued| queued.is_created) {
            state.queue.push_front(response);
        } else {
            state.queue.push_back(response);
        }
        if !std::mem::replace(&mut state.is_write_planned, true) {
            let slowness = self.watching
                [self.nodes[&id].running.as_ref().expect("it is up").streams[&stream].watcher]
                .slowness;
            let wait = 1 + self.chance.wait(self.pace(slowness));
            self.on_node(id, wait, NodeEvent::StreamWrite(stream));
        }
    }

    /// Slow clients hurry when the trouble is over, so that a run ends.
    fn pace(&self, slowness: u64) -> u64 {
        if self.phase > Phase::Trouble { slowness.min(2 * MS) } else { slowness }
    }

    pub(super) fn on_stream_write(&mut self, id: u64, stream: u64) {
        let Some(state) = self.up(id).streams.get_mut(&stream) else { return };
        state.is_write_planned = false;
        let (watcher, session) = (state.watcher, state.session);
        let Some(response) = state.queue.pop_front() else {
            if state.is_closing {
                self.up(id).streams.remove(&stream);
                let wait = 1 + self.chance.wait(300);
                self.after(wait, Event::WatchLost(watcher, session));
            }
            return;
        };
        let bytes = response.charge();
        for content in self.encode(&response) {
            let wait = 1 + self.chance.wait(300);
            let now = self.now;
            let state = self.up(id).streams.get_mut(&stream).expect("looked up above");
            state.last_arrival = state.last_arrival.max(now + wait);
            let at = state.last_arrival;
            self.queue.push(at, Event::WatchReceive(watcher, session, content));
        }
        let state = self.up(id).streams.get_mut(&stream).expect("looked up above");
        if !state.queue.is_empty() || state.is_closing {
            state.is_write_planned = true;
            let wait = 1 + self.chance.wait(self.pace(self.watching[watcher].slowness));
            self.on_node(id, wait, NodeEvent::StreamWrite(stream));
        }
        if !self.up(id).streams[&stream].is_closing {
            self.hub_step(id, Input::Sent { stream: StreamId(stream), bytes });
        }
    }

    /// The response as the client gets it; the mutant makes two of some.
    fn encode(&mut self, response: &Response) -> Vec<Bytes> {
        let mut buffer = BytesMut::with_capacity(response.encoded_len());
        response.encode_into(&mut buffer);
        let content = buffer.freeze();
        if !self.is_mutant(Mutant::WatchSplits) || response.events_count() < 2 {
            return vec![content];
        }
        let first = WatchResponse::decode(content).expect("encoded by the hub");
        let mut second = first.clone();
        let mut first = first;
        second.events = first.events.split_off(first.events.len() / 2);
        vec![first.encode_to_vec().into(), second.encode_to_vec().into()]
    }
}
