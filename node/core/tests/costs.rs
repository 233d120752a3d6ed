//! What the hot machines cost, in allocations: the same on every machine and in every run, so that a
//! regression is seen without a cluster and without a clock. A bound is what was counted when it was set,
//! and a little room. Who makes a machine cheaper lowers it; who has to raise it says why.

use std::collections::VecDeque;
use std::sync::Arc;

use allocation_counter::{AllocationInfo, measure};
use bytes::Bytes;
use flotilla_core::auth::Pass;
use flotilla_core::command::Command;
use flotilla_core::group::{self, Chance, Recovered};
use flotilla_core::membership::Policy;
use flotilla_core::memory::MemoryView;
use flotilla_core::mvcc;
use flotilla_core::proto::etcdserverpb as pb;
use flotilla_core::proto::etcdserverpb::watch_request::RequestUnion;
use flotilla_core::proto::internal::{ConfState, Member};
use flotilla_core::spine::{Config, Effect, Input, Limits, Replica, State};
use flotilla_core::stage::{Stage, Work};
use flotilla_core::time::{Length, Time};
use flotilla_core::view::Batch;
use flotilla_core::watch::{self, Hub, Published, StreamId};
use flotilla_core::{GroupId, NodeId};

/// Puts of one turn, as they arrive under load.
const TURN_PUTS: u64 = 64;
const TURNS: u64 = 50;
const VALUE_BYTES: usize = 256;
const KEYS: u64 = 1_000;

/// Always the shortest time-out.
struct Least;

impl Chance for Least {
    fn below(&mut self, _: u64) -> u64 {
        0
    }
}

/// A cluster of one node whose log is durable at once.
struct Node {
    replica: Replica,
    store: MemoryView,
    stage: Stage,
    requests: u64,
    /// Of the machine of the spine, and of applying, without the store itself.
    order: AllocationInfo,
    apply: AllocationInfo,
}

impl Node {
    fn new() -> Self {
        let state = State::bootstrap(7, vec![Member { id: 1, ..Member::default() }]);
        let mut batch = Batch::default();
        state.write_all(&mut batch);
        let mut store = MemoryView::new();
        store.apply(&batch);
        let config = Config {
            node: NodeId(1),
            origin: 101,
            tick: Length::from_ms(100),
            group: group::Config::new(NodeId(1), GroupId::SPINE),
            election_timeout: Length::from_ms(1_000),
            request_timeout: Length::from_ms(7_000),
            policy: Policy { learners_max: 1, is_strict: false },
            limits: Limits::default(),
            cluster_version: "3.6.0".to_owned(),
        };
        let position = state.position();
        let recovered = Recovered {
            applied: group::Position { index: position.index, term: position.term },
            conf: ConfState { voters: vec![1], ..ConfState::default() },
            ..Recovered::default()
        };
        let replica = Replica::new(config, Time(0), state, recovered, Box::new(Least));
        let replica = replica.expect("log and store fit together");
        let stage = Stage::open(&store).expect("memory can be read");
        let (order, apply) = Default::default();
        let mut node = Self { replica, store, stage, requests: 0, order, apply };
        node.carry_out([Input::Campaign]);
        assert!(node.replica.status().is_leader, "it leads");
        node
    }

    fn carry_out(&mut self, inputs: impl IntoIterator<Item = Input>) {
        let mut inputs: VecDeque<Input> = inputs.into_iter().collect();
        while let Some(input) = inputs.pop_front() {
            let mut out = Vec::new();
            let stepped = measure(|| {
                let stepped = self.replica.step(Time(0), &self.store, input, &mut out);
                stepped.expect("memory can be read");
            });
            self.order += stepped;
            for effect in out {
                match effect {
                    Effect::Append(append) => inputs.push_back(Input::Persisted(append.token)),
                    Effect::Apply(task) => inputs.extend(self.apply(vec![Work::Spine(task)])),
                    _ => {}
                }
            }
        }
    }

    fn apply(&mut self, works: Vec<Work>) -> Vec<Input> {
        let mut applied = None;
        let ran = measure(|| applied = Some(self.stage.run(&self.store, works)));
        self.apply += ran;
        let applied = applied.expect("it was run").expect("memory can be read");
        self.store.apply(&applied.batch);
        let answered = applied.replies.iter().map(|it| it.to.id.n).collect();
        let position = applied.spine.expect("the spine has moved");
        let reach = applied.reach.map(Input::Reach);
        [Input::Answered(answered), Input::Applied(position)].into_iter().chain(reach).collect()
    }

    /// Puts that arrive together, each on a key of its own.
    fn turn(&mut self, puts: u64) {
        let value = Bytes::from(vec![7; VALUE_BYTES]);
        for _ in 0..puts {
            self.requests += 1;
            let (n, key) = (self.requests, format!("key/{:04}", self.requests % KEYS).into());
            let put = pb::PutRequest { key, value: value.clone(), ..pb::PutRequest::default() };
            let gathered = measure(|| {
                let put = Command::Put(put);
                let gathered = self.replica.gather(Time(0), &self.store, n, Pass::NOBODY, put);
                gathered.expect("memory can be read");
            });
            self.order += gathered;
        }
        self.carry_out([Input::Turn]);
    }

    /// Allocations for each put: of the order, and of applying.
    fn puts(puts_of_turn: u64) -> (f64, f64) {
        let mut node = Self::new();
        // Maps and buffers have their sizes then.
        for _ in 0..TURNS {
            node.turn(puts_of_turn);
        }
        (node.order, node.apply) = Default::default();
        for _ in 0..TURNS {
            node.turn(puts_of_turn);
        }
        let puts = (TURNS * puts_of_turn) as f64;
        let revision = 1 + i64::try_from(node.requests).expect("few");
        assert_eq!(node.stage.shown().head.revision, revision, "every put was ordered and applied");
        (node.order.count_total as f64 / puts, node.apply.count_total as f64 / puts)
    }
}

#[test]
fn a_put_among_others_costs_few_allocations() {
    let (order, apply) = Node::puts(TURN_PUTS);
    println!(
        "of {TURN_PUTS} puts each: {order:.1} allocations to be ordered, {apply:.1} to be applied"
    );
    assert!(order <= ORDER_MAX, "{order:.1} allocations to be ordered, {ORDER_MAX} at most");
    assert!(apply <= APPLY_MAX, "{apply:.1} allocations to be applied, {APPLY_MAX} at most");
}

#[test]
fn puts_that_arrive_together_share_what_a_turn_costs() {
    let (alone, _) = Node::puts(1);
    let (together, _) = Node::puts(TURN_PUTS);
    println!("{alone:.1} allocations to be ordered alone, {together:.1} among {TURN_PUTS}");
    assert!(together * TOGETHER_FACTOR <= alone, "{together:.1} among others, {alone:.1} alone");
}

#[test]
fn an_event_is_encoded_once_for_all_who_watch_it() {
    const WATCHERS: u64 = 1_000;
    let config = watch::Config {
        cluster_id: 7,
        member_id: 1,
        progress_interval: watch::PROGRESS_INTERVAL,
        election_timeout: Length::from_ms(1_000),
        limits: watch::Limits::default(),
    };
    let mut hub = Hub::new(config, 1, -1);
    for n in 0..WATCHERS {
        let stream = StreamId(n);
        hub.step(Time(0), watch::Input::Open { stream, needs_leader: false, chance: n });
        let create = pb::WatchCreateRequest { key: "key".into(), ..Default::default() };
        let request = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        hub.step(Time(0), watch::Input::Request { stream, request, revision: 1 });
    }
    assert_eq!(hub.counts().watchers, WATCHERS as usize);
    let event = |revision| mvcc::Event {
        revision,
        sub: 0,
        key: "key".into(),
        is_delete: false,
        is_create: revision == 2,
        kv: Bytes::from(vec![7; VALUE_BYTES]),
        prev: None,
    };
    let mut publish = |revision: i64| {
        let events: Arc<[watch::Event]> = [watch::Event::from(event(revision))].into();
        let published = Published { after: revision - 1, revision, compact_revision: -1, events };
        let mut effects = Vec::new();
        let info = measure(|| effects = hub.step(Time(0), watch::Input::Published(published)));
        let sent = effects.iter().filter(|it| matches!(it, watch::Effect::Send { .. })).count();
        assert_eq!(sent as u64, WATCHERS, "everybody is sent the event");
        for effect in effects {
            if let watch::Effect::Send { stream, response } = effect {
                let bytes = response.charge();
                hub.step(Time(0), watch::Input::Sent { stream, bytes });
            }
        }
        info
    };
    publish(2);
    let info = publish(3);
    let each = info.count_total as f64 / WATCHERS as f64;
    let bytes = info.bytes_total as f64 / WATCHERS as f64;
    println!("for each of {WATCHERS} watchers: {each:.2} allocations, {bytes:.0} bytes");
    assert!(each <= WATCHER_MAX, "{each:.2} allocations for each watcher, {WATCHER_MAX} at most");
}

// What was counted, and a little room.
const ORDER_MAX: f64 = 10.0;
const APPLY_MAX: f64 = 3.0;
const TOGETHER_FACTOR: f64 = 2.5;
const WATCHER_MAX: f64 = 0.1;
