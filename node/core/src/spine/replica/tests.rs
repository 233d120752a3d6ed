//! Machines of a small cluster, driven by hand: what the simulator would meet too seldom.

use std::collections::{BTreeMap, VecDeque};

use crate::command::{Answer, Command, Outcome};
use crate::group::{self, Chance, Recovered};
use crate::membership::Policy;
use crate::memory::MemoryView;
use crate::proto::etcdserverpb as pb;
use crate::proto::internal::{ConfState, Member, PeerFrame};
use crate::spine::apply::Task;
use crate::spine::replica::{Config, Effect, Input, Limits, Parcel, Replica};
use crate::spine::state::State;
use crate::stage::{Applied, Stage, Work};
use crate::time::{Length, Time};
use crate::view::Batch;
use crate::{GroupId, NodeId};

const TICK_MS: u64 = 100;

/// Always the shortest time-out.
struct Least;

impl Chance for Least {
    fn below(&mut self, _: u64) -> u64 {
        0
    }
}

struct Node {
    replica: Replica,
    store: MemoryView,
    stage: Stage,
    tasks: VecDeque<Task>,
    answers: BTreeMap<u64, Outcome>,
}

/// Nodes whose log is durable at once and whose wires lose nothing but what a test cuts off.
struct Cluster {
    nodes: BTreeMap<u64, Node>,
    inputs: VecDeque<(u64, Input)>,
    now: Time,
    loses_answers: bool,
}

impl Cluster {
    fn new(ids: &[u64]) -> Self {
        let members = ids.iter().map(|id| Member { id: *id, ..Member::default() }).collect();
        let state = State::bootstrap(7, members);
        let mut batch = Batch::default();
        state.write_all(&mut batch);
        let mut store = MemoryView::new();
        store.apply(&batch);
        let mut cluster = Self {
            nodes: BTreeMap::new(),
            inputs: VecDeque::new(),
            now: Time(0),
            loses_answers: false,
        };
        for id in ids {
            let config = Config {
                node: NodeId(*id),
                origin: 100 + id,
                tick: Length::from_ms(TICK_MS),
                group: group::Config::new(NodeId(*id), GroupId::SPINE),
                election_timeout: Length::from_ms(10 * TICK_MS),
                request_timeout: Length::from_ms(70 * TICK_MS),
                policy: Policy { learners_max: 1, is_strict: false },
                limits: Limits::default(),
                cluster_version: "3.6.0".to_owned(),
            };
            let position = state.position();
            let recovered = Recovered {
                applied: group::Position { index: position.index, term: position.term },
                conf: ConfState { voters: ids.to_vec(), ..ConfState::default() },
                ..Recovered::default()
            };
            let replica = Replica::new(config, Time(0), state.clone(), recovered, Box::new(Least));
            let replica = replica.expect("log and store fit together");
            let node = Node {
                replica,
                store: store.clone(),
                stage: Stage::open(&store).expect("memory can be read"),
                tasks: VecDeque::new(),
                answers: BTreeMap::new(),
            };
            cluster.nodes.insert(*id, node);
        }
        for (id, peer) in ids.iter().flat_map(|id| ids.iter().map(move |peer| (*id, *peer))) {
            if id != peer {
                cluster.inputs.push_back((id, Input::Connected(NodeId(peer))));
            }
        }
        for (id, node) in &cluster.nodes {
            cluster.inputs.push_back((*id, Input::Shown(node.stage.shown())));
        }
        cluster.inputs.push_back((ids[0], Input::Campaign));
        cluster.settle();
        assert!(cluster.nodes[&ids[0]].replica.is_serving(), "the first node leads");
        cluster
    }

    /// Lets everything happen that follows from what was handed in.
    fn settle(&mut self) {
        loop {
            while let Some((id, input)) = self.inputs.pop_front() {
                let node = self.nodes.get_mut(&id).expect("it exists");
                let mut out = Vec::new();
                let stepped = node.replica.step(self.now, &node.store, input, &mut out);
                stepped.expect("memory can be read");
                for effect in out {
                    self.carry_out(id, effect);
                }
            }
            let applying = self.nodes.iter().find(|(_, node)| !node.tasks.is_empty());
            let Some(id) = applying.map(|(id, _)| *id) else { return };
            self.apply(id);
        }
    }

    fn carry_out(&mut self, id: u64, effect: Effect) {
        match effect {
            Effect::Append(append) => self.inputs.push_back((id, Input::Persisted(append.token))),
            Effect::Send(NodeId(to), parcel) => {
                let mut frame = PeerFrame::default();
                if !(self.loses_answers && matches!(parcel, Parcel::Answer(_))) {
                    parcel.gather(&mut frame);
                }
                self.inputs.push_back((to, Input::Frame(NodeId(id), frame)));
            }
            Effect::Apply(task) => {
                self.nodes.get_mut(&id).expect("it exists").tasks.push_back(task);
            }
            Effect::Reply(n, outcome) => self.answer(id, n, outcome),
            _ => {}
        }
    }

    fn apply(&mut self, id: u64) {
        let node = self.nodes.get_mut(&id).expect("it exists");
        let works = node.tasks.drain(..).map(Work::Spine).collect();
        let applied = node.stage.run(&node.store, works).expect("memory can be read");
        let Applied { batch, spine, replies, shown, .. } = applied;
        node.store.apply(&batch);
        let position = spine.expect("the spine has moved");
        self.inputs.push_back((id, Input::Applied(position)));
        self.inputs.extend(shown.map(|shown| (id, Input::Shown(shown))));
        for (to, outcome) in replies {
            if to.node == NodeId(id) {
                self.answer(id, to.id.n, outcome);
            } else {
                let answer = super::encode_answer(to.id, &outcome);
                self.carry_out(id, Effect::Send(to.node, Parcel::Answer(answer)));
            }
        }
    }

    fn answer(&mut self, id: u64, n: u64, outcome: Outcome) {
        let node = self.nodes.get_mut(&id).expect("it exists");
        let earlier = node.answers.insert(n, outcome);
        assert!(earlier.is_none(), "request {n} is answered once");
    }

    fn submit(&mut self, id: u64, n: u64, command: Command) {
        self.inputs.push_back((id, Input::Submit(n, command)));
        self.settle();
    }
}

#[test]
fn the_answer_of_a_leader_that_removes_itself_is_not_needed() {
    let mut cluster = Cluster::new(&[1, 2, 3]);
    cluster.loses_answers = true;
    cluster.submit(2, 1, Command::MemberRemove(pb::MemberRemoveRequest { id: 1 }));
    let answer = cluster.nodes[&2].answers.get(&1);
    let Some(Ok(Answer::MemberRemove(answer))) = answer else { panic!("{answer:?}") };
    let left: Vec<u64> = answer.members.iter().map(|member| member.id).collect();
    assert_eq!(left, [2, 3]);
}

#[test]
fn a_change_is_answered_once_though_the_leader_answers_too() {
    let mut cluster = Cluster::new(&[1, 2, 3]);
    cluster.submit(2, 1, Command::MemberRemove(pb::MemberRemoveRequest { id: 3 }));
    cluster.submit(1, 1, Command::MemberRemove(pb::MemberRemoveRequest { id: 2 }));
    for id in [1, 2] {
        let answer = cluster.nodes[&id].answers.get(&1);
        assert!(matches!(answer, Some(Ok(Answer::MemberRemove(_)))), "{id}: {answer:?}");
    }
}
