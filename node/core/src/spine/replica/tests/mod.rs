//! Machines of a small cluster, driven by hand: what the simulator would meet too seldom.

mod fuzz;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::auth::Pass;
use crate::command::{Answer, Command, Outcome};
use crate::group::{self, Chance, Recovered};
use crate::membership::Policy;
use crate::memory::MemoryView;
use crate::proto::etcdserverpb as pb;
use crate::proto::internal::{ConfState, Member, PeerFrame, TxnMessage, txn_message};
use crate::range;
use crate::remote;
use crate::spine::apply::{Answered, Task};
use crate::spine::replica::{Config, Effect, Input, Limits, Parcel, Replica};
use crate::spine::state::State;
use crate::stage::{Applied, Stage, Work};
use crate::time::{Length, Time};
use crate::view::Batch;
use crate::{Error, GroupId, NodeId};

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
    /// As everybody on the node is told.
    leader: Option<NodeId>,
}

/// Nodes whose log is durable at once and whose wires lose nothing but what a test cuts off.
struct Cluster {
    nodes: BTreeMap<u64, Node>,
    inputs: VecDeque<(u64, Input)>,
    now: Time,
    loses_answers: bool,
    /// What is sent to it is lost.
    is_deaf: Option<u64>,
    /// Neither of the two hears of the other.
    is_cut: Option<[u64; 2]>,
    /// Who told its ranges that it is cut off from the spine, and who they heard is not.
    cut_off: BTreeMap<u64, BTreeSet<NodeId>>,
    /// A node whose log keeps nothing any more, since when, and how often its ranges were told.
    stalled: Option<(u64, Time)>,
    stalls_told: BTreeMap<u64, usize>,
}

impl Cluster {
    fn new(ids: &[u64]) -> Self {
        Self::of(ids, State::bootstrap(7, Self::members(ids)))
    }

    fn members(ids: &[u64]) -> Vec<Member> {
        ids.iter().map(|id| Member { id: *id, ..Member::default() }).collect()
    }

    fn of(ids: &[u64], state: State) -> Self {
        let mut batch = Batch::default();
        state.write_all(&mut batch);
        let mut store = MemoryView::new();
        store.apply(&batch);
        let mut cluster = Self {
            nodes: BTreeMap::new(),
            inputs: VecDeque::new(),
            now: Time(0),
            loses_answers: false,
            is_deaf: None,
            is_cut: None,
            cut_off: BTreeMap::new(),
            stalled: None,
            stalls_told: BTreeMap::new(),
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
                leader: None,
            };
            cluster.nodes.insert(*id, node);
        }
        for (id, peer) in ids.iter().flat_map(|id| ids.iter().map(move |peer| (*id, *peer))) {
            if id != peer {
                cluster.inputs.push_back((id, Input::Connected(NodeId(peer))));
            }
        }
        for (id, node) in &cluster.nodes {
            cluster.inputs.push_back((*id, Input::Reach(node.stage.reach().clone())));
        }
        cluster.inputs.push_back((ids[0], Input::Campaign));
        cluster.settle();
        assert!(cluster.nodes[&ids[0]].replica.is_serving(), "the first node leads");
        cluster
    }

    /// Lets everything happen that follows from what was handed in.
    fn settle(&mut self) {
        let mut inputs_left = 1_000_000_u32;
        loop {
            while let Some((id, input)) = self.inputs.pop_front() {
                inputs_left = inputs_left.checked_sub(1).expect("it comes to rest");
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
            Effect::Append(_) if self.stalled.is_some_and(|(node, _)| node == id) => {}
            Effect::Append(append) => self.inputs.push_back((id, Input::Persisted(append.token))),
            Effect::Send(NodeId(to), parcel) => {
                let mut frame = PeerFrame::default();
                if !(self.loses_answers && matches!(parcel, Parcel::Answer(_))) {
                    parcel.gather(&mut frame);
                }
                let is_cut =
                    self.is_cut.is_some_and(|pair| pair.contains(&id) && pair.contains(&to));
                // A member may have been added that is nowhere.
                let is_there = self.nodes.contains_key(&to);
                if is_there && self.is_deaf != Some(to) && !is_cut {
                    self.inputs.push_back((to, Input::Frame(NodeId(id), frame)));
                }
            }
            Effect::Apply(task) => {
                self.nodes.get_mut(&id).expect("it exists").tasks.push_back(task);
            }
            Effect::Status(status) => {
                self.nodes.get_mut(&id).expect("it exists").leader = status.leader;
            }
            Effect::Reply(n, outcome) => self.answer(id, n, outcome),
            Effect::Answer(to, ask) => {
                let told =
                    remote::answer(&self.nodes[&id].store, &ask).expect("memory can be read");
                self.carry_out(id, Effect::Send(to, Parcel::Told(told)));
            }
            Effect::Range(_, range::replica::Input::CutOff(others)) => {
                self.cut_off.insert(id, others);
            }
            Effect::Range(_, range::replica::Input::DiskStalled) => {
                *self.stalls_told.entry(id).or_default() += 1;
            }
            _ => {}
        }
    }

    fn apply(&mut self, id: u64) {
        let node = self.nodes.get_mut(&id).expect("it exists");
        let works = node.tasks.drain(..).map(Work::Spine).collect();
        let applied = node.stage.run(&node.store, works).expect("memory can be read");
        let Applied { batch, spine, replies, reach, .. } = applied;
        node.store.apply(&batch);
        let position = spine.expect("the spine has moved");
        let is_own = |it: &&Answered| it.to.node == NodeId(id);
        let answered = replies.iter().filter(is_own).map(|it| it.to.id.n).collect();
        self.inputs.push_back((id, Input::Answered(answered)));
        self.inputs.push_back((id, Input::Applied(position)));
        self.inputs.extend(reach.map(|reach| (id, Input::Reach(reach))));
        for Answered { to, outcome, .. } in replies {
            if to.node == NodeId(id) {
                self.answer(id, to.id.n, outcome);
            } else {
                let answer = super::encode_answer(to.id, &outcome, position.index);
                self.carry_out(id, Effect::Send(to.node, Parcel::Answer(answer)));
            }
        }
    }

    fn answer(&mut self, id: u64, n: u64, outcome: Outcome) {
        let node = self.nodes.get_mut(&id).expect("it exists");
        if let Ok(Answer::MoveLeader(_)) = outcome {
            assert!(node.leader.is_some_and(|it| it != NodeId(id)), "{:?} leads", node.leader);
        }
        let earlier = node.answers.insert(n, outcome);
        assert!(earlier.is_none(), "request {n} is answered once");
    }

    fn submit(&mut self, id: u64, n: u64, command: Command) {
        self.inputs.push_back((id, Input::Submit(n, Pass::NOBODY, command)));
        self.settle();
    }

    fn tick(&mut self, count: usize) {
        for _ in 0..count {
            self.now = self.now + Length::from_ms(TICK_MS);
            if let Some((node, since)) = self.stalled {
                self.inputs.push_back((node, Input::DiskStalled(self.now.since(since))));
            }
            let ids: Vec<u64> = self.nodes.keys().copied().collect();
            self.inputs.extend(ids.into_iter().map(|id| (id, Input::Tick)));
            self.settle();
        }
    }
}

/// Requests for a range wait for time to pass where each is sent to the other for it.
#[test]
fn who_is_named_in_a_circle_is_not_asked_for_ever() {
    let mut state = State::bootstrap(7, Cluster::members(&[1, 2, 3]));
    state.pre_split(&["m".into()], &[NodeId(2), NodeId(3)]);
    let mut cluster = Cluster::of(&[1, 2, 3], state);
    cluster.tick(40);
    let ranges: Vec<GroupId> =
        cluster.nodes[&1].replica.state().ranges().iter().map(|(range, _)| range).collect();
    for (node, leader) in [(2, 3), (3, 2), (1, 9)] {
        let tell = |range: &GroupId| TxnMessage {
            range: range.0,
            body: Some(txn_message::Body::Leader(leader)),
            ..TxnMessage::default()
        };
        let frame = PeerFrame { txns: ranges.iter().map(tell).collect(), ..PeerFrame::default() };
        let from = if node == 1 { 2 } else { 1 };
        cluster.inputs.push_back((node, Input::Frame(NodeId(from), frame)));
    }
    cluster.submit(1, 1, put("z"));
    let put_of = |key: &'static str| match put(key) {
        Command::Put(request) => {
            pb::RequestOp { request: Some(pb::request_op::Request::RequestPut(request)) }
        }
        other => unreachable!("{other:?} is a put"),
    };
    let success = vec![put_of("a"), put_of("y")];
    cluster.submit(1, 2, Command::Txn(pb::TxnRequest { success, ..pb::TxnRequest::default() }));
    cluster.tick(80);
    for n in [1, 2] {
        let answer = cluster.nodes[&1].answers.get(&n);
        assert!(matches!(answer, Some(Err(Error::Timeout))), "{answer:?}");
    }
}

/// What is proposed by a leader whose disk does not answer has no end, so others lead.
#[test]
fn who_has_a_stalled_log_leads_nothing_for_long() {
    let mut state = State::bootstrap(7, Cluster::members(&[1, 2, 3]));
    state.pre_split(&["m".into()], &[NodeId(1), NodeId(2), NodeId(3)]);
    let mut cluster = Cluster::of(&[1, 2, 3], state);
    cluster.tick(40);
    cluster.stalled = Some((1, cluster.now));
    cluster.submit(1, 1, put("k"));
    let timeout_ticks =
        (cluster.nodes[&1].replica.config.election_timeout.0 / Length::from_ms(TICK_MS).0) as usize;
    cluster.tick(2 * timeout_ticks - 1);
    assert!(cluster.nodes[&1].replica.status.is_leader, "a slow disk is waited for");
    assert_eq!(cluster.stalls_told, BTreeMap::new());
    cluster.tick(2);
    assert!(cluster.nodes[&2].leader.is_some_and(|leader| leader != NodeId(1)));
    assert_eq!(cluster.stalls_told, BTreeMap::from([(1, 1)]), "its ranges are handed over, too");
    cluster.submit(2, 2, put("l"));
    assert!(matches!(cluster.nodes[&2].answers.get(&2), Some(Ok(_))));
    // As long as it lasts: a range may be led here again.
    cluster.tick(3 * timeout_ticks);
    assert_eq!(cluster.stalls_told, BTreeMap::from([(1, 4)]));
}

/// What tells of a revision that is never shown is not kept for longer than its client waits.
#[test]
fn an_answer_that_is_held_is_forgotten_with_its_request() {
    let mut cluster = Cluster::new(&[1, 2, 3]);
    cluster.is_deaf = Some(1);
    cluster.submit(2, 1, put("k"));
    let header = Some(pb::ResponseHeader { revision: 99, ..Default::default() });
    let early = Ok(Answer::Put(pb::PutResponse { header, ..Default::default() }));
    cluster.inputs.push_back((2, Input::Early(vec![(1, early)])));
    cluster.settle();
    let held = |cluster: &Cluster| format!("{:?}", cluster.nodes[&2].replica.held);
    assert!(held(&cluster).contains("99") && cluster.nodes[&2].answers.is_empty());
    cluster.tick(80);
    assert!(matches!(cluster.nodes[&2].answers.get(&1), Some(Err(_))));
    assert!(!held(&cluster).contains("99"), "{}", held(&cluster));
}

/// Of three nodes one is cut off from the spine's leader alone, and later from nobody.
#[test]
fn who_is_cut_off_from_the_spine_learns_who_is_not() {
    let mut state = State::bootstrap(7, Cluster::members(&[1, 2, 3]));
    state.pre_split(&["m".into()], &[NodeId(1), NodeId(2), NodeId(3)]);
    let mut cluster = Cluster::of(&[1, 2, 3], state);
    cluster.tick(40);
    assert_eq!(cluster.cut_off, BTreeMap::new());
    cluster.is_cut = Some([1, 2]);
    cluster.tick(40);
    assert_eq!(cluster.cut_off, BTreeMap::from([(2, BTreeSet::from([NodeId(3)]))]));
    cluster.is_cut = None;
    cluster.tick(5);
    cluster.cut_off.clear();
    cluster.tick(40);
    assert_eq!(cluster.cut_off, BTreeMap::new());
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

/// Of two that vote, the one that stays must not depend on hearing from the one that goes.
#[test]
fn a_leader_of_two_is_removed_by_the_other() {
    let mut cluster = Cluster::new(&[1, 2]);
    cluster.submit(1, 1, Command::MemberRemove(pb::MemberRemoveRequest { id: 1 }));
    cluster.tick(5);
    assert!(cluster.nodes[&2].replica.status().is_leader);
    let answer = cluster.nodes[&1].answers.get(&1);
    assert!(matches!(answer, Some(Ok(Answer::MemberRemove(_)))), "{answer:?}");
    cluster.submit(2, 1, put("k"));
    assert!(matches!(cluster.nodes[&2].answers.get(&1), Some(Ok(Answer::Put(_)))));
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

/// The spine's leader holds no replica of the range that another is to lead.
#[test]
fn whoever_holds_a_range_is_asked_to_hand_over_where_it_is_not_held() {
    let mut state = State::bootstrap(7, Cluster::members(&[1, 2, 3]));
    state.pre_split(&["m".into()], &[NodeId(2), NodeId(3)]);
    let range = state.ranges().iter().map(|(range, _)| range).next().expect("it was cut");
    let mut cluster = Cluster::of(&[1, 2, 3], state);
    let node = cluster.nodes.get_mut(&1).expect("it exists");
    let (mut out, wanted) = (Vec::new(), Input::TransferRange(range, NodeId(3)));
    node.replica.step(cluster.now, &node.store, wanted, &mut out).expect("memory can be read");
    let is_asked =
        |effect: &Effect| matches!(effect, Effect::Send(NodeId(2 | 3), Parcel::Transfer(_)));
    assert!(out.iter().any(is_asked), "{out:?}");
}

fn put(key: &'static str) -> Command {
    Command::Put(pb::PutRequest { key: key.into(), value: "v".into(), ..Default::default() })
}

/// Has no effect unless the key is absent.
fn create(key: &'static str) -> Command {
    let absent = pb::Compare {
        target: pb::compare::CompareTarget::Version.into(),
        key: key.into(),
        target_union: Some(pb::compare::TargetUnion::Version(0)),
        ..Default::default()
    };
    let Command::Put(put) = put(key) else { unreachable!() };
    let success = pb::RequestOp { request: Some(pb::request_op::Request::RequestPut(put)) };
    let success = vec![success];
    Command::Txn(pb::TxnRequest { compare: vec![absent], success, ..Default::default() })
}

#[test]
fn thousands_that_wait_for_one_key_are_answered_one_after_the_other() {
    let mut cluster = Cluster::new(&[1]);
    let last = Limits::default().open_requests_max as u64;
    // All but the first find the key when they have its latch, and give that back at once.
    cluster.inputs.extend((1..=last).map(|n| (1, Input::Submit(n, Pass::NOBODY, create("k")))));
    cluster.settle();
    let answers = &cluster.nodes[&1].answers;
    assert_eq!(answers.len() as u64, last);
    let is_first = |answer: &Outcome| matches!(answer, Ok(Answer::Txn(it)) if it.succeeded);
    assert_eq!(answers.values().filter(|answer| is_first(answer)).count(), 1);
    assert!(answers.values().all(Result::is_ok));
}

#[test]
fn what_waits_for_a_key_while_the_lead_is_handed_over_goes_to_the_new_leader() {
    let mut cluster = Cluster::new(&[1, 2, 3]);
    cluster.is_deaf = Some(2);
    // The first holds the latch until it is applied, the second waits for it. The hand-over lasts,
    // as the one who is to lead hears of nothing.
    cluster.inputs.push_back((1, Input::Submit(1, Pass::NOBODY, put("k"))));
    cluster.inputs.push_back((1, Input::Submit(2, Pass::NOBODY, create("k"))));
    cluster.inputs.push_back((1, Input::TransferRange(GroupId::SPINE, NodeId(2))));
    cluster.settle();
    let answers = &cluster.nodes[&1].answers;
    assert!(matches!(answers.get(&1), Some(Ok(_))) && answers.len() == 1, "{answers:?}");
    cluster.is_deaf = None;
    for _ in 0..40 {
        cluster.now = cluster.now + Length::from_ms(TICK_MS);
        cluster.inputs.extend([1, 2, 3].map(|id| (id, Input::Tick)));
        cluster.settle();
    }
    let answer = cluster.nodes[&1].answers.get(&2);
    assert!(matches!(answer, Some(Ok(_))), "{answer:?}");
}

#[test]
fn who_is_told_that_the_leader_has_moved_finds_that_it_has() {
    let mut cluster = Cluster::new(&[1, 2, 3]);
    let request = pb::MoveLeaderRequest { target_id: 2 };
    cluster.submit(1, 1, Command::MoveLeader(request));
    let answer = cluster.nodes[&1].answers.get(&1);
    assert!(matches!(answer, Some(Ok(Answer::MoveLeader(_)))), "{answer:?}");
    assert_eq!(cluster.nodes[&1].leader, Some(NodeId(2)));
}

#[test]
fn a_node_that_does_not_lead_has_the_leader_asked_to_hand_over() {
    let mut cluster = Cluster::new(&[1, 2, 3]);
    // Neither a stranger nor the leader itself is taken for a target.
    for (asked, to) in [(3, 9), (3, 1), (2, 3)] {
        cluster.inputs.push_back((asked, Input::TransferRange(GroupId::SPINE, NodeId(to))));
        cluster.settle();
        let leaders: Vec<u64> = [1, 2, 3]
            .into_iter()
            .filter(|id| cluster.nodes[id].replica.status().is_leader)
            .collect();
        assert_eq!(leaders, [if to == 3 { 3 } else { 1 }], "{asked} asked for {to}");
    }
}
