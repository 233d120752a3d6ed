//! Three replicas of one range, driven by hand: what becomes of writes while the leader is handing
//! over, and of many that wait for one key.

use std::collections::{BTreeMap, VecDeque};

use crate::auth::{Admission, Pass};
use crate::command::{Answer, Command, Outcome, RequestId};
use crate::group::{self, Chance, Part, Recovered};
use crate::memory::MemoryView;
use crate::mvcc::{Applier, Head};
use crate::proto::etcdserverpb as pb;
use crate::proto::internal::{ConfState, Lock, Ref, Run, Share};
use crate::range::replica::{Config, Effect, Input, Limits, Members, Replica, Task};
use crate::range::stored::Stored;
use crate::spine::apply::{Answered, Applied, Requester};
use crate::spine::txns::Decision;
use crate::time::{Length, Time};
use crate::view::Batch;
use crate::{GroupId, NodeId, proto::Span};

pub(super) const RANGE: GroupId = GroupId(1);
const TICK: Length = Length::from_ms(100);

/// Always the shortest time-out.
struct Least;

impl Chance for Least {
    fn below(&mut self, _: u64) -> u64 {
        0
    }
}

pub(super) fn config(id: u64) -> Config {
    Config {
        since: 0,
        node: NodeId(id),
        range: RANGE,
        group: group::Config::new(NodeId(id), RANGE),
        report_again_after: Length::from_secs(5),
        abort_after: Length::from_secs(60),
        note_after: Length::from_secs(60),
        limits: Limits::default(),
    }
}

struct Node {
    replica: Replica,
    store: MemoryView,
    tasks: VecDeque<Task>,
}

/// Logs are durable at once, what is committed is numbered at once, and wires lose nothing but what
/// a test cuts off.
struct Trio {
    nodes: BTreeMap<u64, Node>,
    inputs: VecDeque<(u64, Input)>,
    now: Time,
    numbered: u64,
    /// What is sent to it is lost.
    is_deaf: Option<u64>,
    /// The spine hears nothing of it, nor it of the spine.
    is_cut_off: Option<u64>,
    answers: BTreeMap<u64, Outcome>,
    handed_back: Vec<u64>,
    /// Where a transaction was last said to hold its locks.
    prepared_at: Option<u64>,
}

impl Trio {
    /// Node 1 leads.
    fn new() -> Self {
        let conf = ConfState { voters: vec![1, 2, 3], ..ConfState::default() };
        let mut trio = Self {
            nodes: BTreeMap::new(),
            inputs: VecDeque::new(),
            now: Time(0),
            numbered: 0,
            is_deaf: None,
            is_cut_off: None,
            answers: BTreeMap::new(),
            handed_back: Vec::new(),
            prepared_at: None,
        };
        for id in [1, 2, 3] {
            let stored = Stored::first(conf.clone(), Span::all());
            let (mut store, mut batch) = (MemoryView::new(), Batch::default());
            stored.write(RANGE, &mut batch);
            store.apply(&batch);
            let recovered = Recovered {
                applied: stored.position.place(),
                conf: conf.clone(),
                ..Recovered::default()
            };
            let replica = Replica::new(config(id), Time(0), stored, recovered, Box::new(Least));
            let replica = replica.expect("log and store fit together");
            trio.nodes.insert(id, Node { replica, store, tasks: VecDeque::new() });
            trio.inputs.push_back((id, Input::Numbered(Vec::new())));
            trio.inputs.push_back((id, Input::OpenTxns(Vec::new())));
        }
        trio.inputs.push_back((1, Input::Campaign));
        trio.settle();
        assert!(trio.nodes[&1].replica.is_serving(), "the first node leads");
        trio
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
            Effect::Send(message) if self.is_deaf != Some(message.to) => {
                self.inputs.push_back((message.to, Input::Message(message)));
            }
            Effect::Apply(task) => {
                self.nodes.get_mut(&id).expect("it exists").tasks.push_back(task);
            }
            Effect::Report(reference) if self.is_cut_off != Some(id) => self.number(&reference),
            Effect::WantTicket(n) => {
                let revision = 1 + self.numbered.cast_signed();
                let head = Head { revision, compact_revision: -1 };
                self.inputs.push_back((id, Input::Ticket(n, head, Admission::default())));
            }
            Effect::Reply(to, outcome) => self.answer(to, outcome),
            Effect::Prepared(_, index) => self.prepared_at = Some(index),
            Effect::Unproposed(to, _) => self.handed_back.push(to.id.n),
            _ => {}
        }
    }

    /// The spine, on which there is nothing but this range.
    fn number(&mut self, reference: &Ref) {
        if reference.upto <= self.numbered {
            return;
        }
        let run = Run {
            first: self.numbered + 1,
            count: reference.upto - self.numbered,
            revision: 2 + self.numbered.cast_signed(),
            ..Run::default()
        };
        self.numbered = reference.upto;
        for id in [1, 2, 3].into_iter().filter(|id| self.is_cut_off != Some(*id)) {
            self.inputs.push_back((id, Input::Numbered(vec![run.clone()])));
        }
    }

    fn apply(&mut self, id: u64) {
        let node = self.nodes.get_mut(&id).expect("it exists");
        let task = node.tasks.pop_front().expect("it was looked at");
        let (view, mut applied) = (node.store.clone(), Applied::default());
        let mut applier = Applier::new(&view);
        for step in task.steps {
            applied.carry_out(step, &mut applier).expect("memory can be read");
        }
        applied.batch.writes.extend(task.rows.writes);
        node.store.apply(&applied.batch);
        self.inputs.push_back((id, Input::Applied(task.position)));
        for Answered { to, outcome, .. } in applied.replies {
            self.answer(to, outcome);
        }
    }

    fn answer(&mut self, to: Requester, outcome: Outcome) {
        let earlier = self.answers.insert(to.id.n, outcome);
        assert!(earlier.is_none(), "request {} is answered once", to.id.n);
    }

    fn submit(&mut self, n: u64, command: Command) {
        let to = Requester { id: RequestId { origin: 5, n }, node: NodeId(1), pass: Pass::NOBODY };
        self.inputs.push_back((1, Input::Submit(to, command)));
    }

    fn gather(&mut self, n: u64, command: Command) {
        let to = Requester { id: RequestId { origin: 5, n }, node: NodeId(1), pass: Pass::NOBODY };
        let node = self.nodes.get_mut(&1).expect("it exists");
        let gathered = node.replica.gather(self.now, &node.store, to, command);
        gathered.expect("memory can be read");
    }

    fn tick(&mut self, count: usize) {
        for _ in 0..count {
            self.now = self.now + TICK;
            self.inputs.extend([1, 2, 3].map(|id| (id, Input::Tick)));
            self.settle();
        }
    }

    fn leads(&self, id: u64) -> bool {
        self.nodes[&id].replica.role().part == Part::Leader
    }
}

fn put(key: &'static str) -> pb::PutRequest {
    pb::PutRequest { key: key.into(), value: "v".into(), ..Default::default() }
}

/// Has no effect unless the key is absent.
fn create(key: &'static str) -> Command {
    let absent = pb::Compare {
        target: pb::compare::CompareTarget::Version.into(),
        key: key.into(),
        target_union: Some(pb::compare::TargetUnion::Version(0)),
        ..Default::default()
    };
    let success = pb::RequestOp { request: Some(pb::request_op::Request::RequestPut(put(key))) };
    let success = vec![success];
    Command::Txn(pb::TxnRequest { compare: vec![absent], success, ..Default::default() })
}

#[test]
fn what_was_asked_before_and_while_the_lead_is_handed_over_is_not_refused() {
    let mut trio = Trio::new();
    trio.is_deaf = Some(2);
    // The first is not proposed yet, the second waits for its latch. The hand-over lasts, as the one
    // who is to lead hears of nothing.
    trio.gather(1, Command::Put(put("k")));
    trio.gather(2, create("k"));
    trio.inputs.push_back((1, Input::Transfer(NodeId(2))));
    trio.settle();
    trio.submit(3, Command::Put(put("l")));
    trio.settle();
    assert!(trio.leads(1) && matches!(trio.answers.get(&1), Some(Ok(_))), "{:?}", trio.answers);
    assert_eq!((trio.answers.len(), trio.handed_back.len()), (1, 0));
    trio.is_deaf = None;
    trio.tick(3);
    assert!(trio.leads(2));
    trio.handed_back.sort_unstable();
    assert_eq!(trio.handed_back, [2, 3], "nothing of them was proposed here");
    assert_eq!(trio.answers.len(), 1);
}

#[test]
fn what_was_asked_before_a_leader_goes_by_itself_is_not_refused() {
    let mut trio = Trio::new();
    let conf = ConfState { voters: vec![2, 3], ..ConfState::default() };
    let members = Members { conf, changes: 1, ..Members::default() };
    trio.inputs.extend([1, 2, 3].map(|id| (id, Input::Members(members.clone()))));
    // It makes sure of what it was told before it goes.
    trio.tick(1);
    assert!(trio.leads(1));
    trio.gather(1, Command::Put(put("k")));
    trio.tick(3);
    assert!(!trio.leads(1));
    assert!(matches!(trio.answers.get(&1), Some(Ok(_))), "{:?}", trio.answers);
}

#[test]
fn what_waited_for_a_hand_over_that_came_to_nothing_goes_on() {
    let mut trio = Trio::new();
    trio.is_deaf = Some(2);
    trio.inputs.push_back((1, Input::Transfer(NodeId(2))));
    trio.submit(1, Command::Put(put("k")));
    trio.settle();
    assert!(trio.answers.is_empty());
    trio.tick(30);
    assert!(trio.leads(1));
    assert!(matches!(trio.answers.get(&1), Some(Ok(_))), "{:?}", trio.answers);
}

#[test]
fn thousands_that_wait_for_one_key_are_answered_one_after_the_other() {
    let mut trio = Trio::new();
    let last = Limits::default().writes_max as u64;
    // All but the first find the key when they have its latch, and give that back at once.
    for n in 1..=last {
        trio.submit(n, create("k"));
    }
    trio.settle();
    assert_eq!(trio.answers.len() as u64, last);
    let is_first = |answer: &&Outcome| matches!(answer, Ok(Answer::Txn(it)) if it.succeeded);
    assert_eq!(trio.answers.values().filter(is_first).count(), 1);
    assert!(trio.answers.values().all(Result::is_ok));
}

/// A leader that is cut off from the spine hears of no number.
#[test]
fn a_leader_that_is_cut_off_from_the_spine_hands_over_when_something_waits() {
    let mut trio = Trio::new();
    trio.tick(10);
    trio.is_cut_off = Some(1);
    let others = |ids: &[u64]| Input::CutOff(ids.iter().copied().map(NodeId).collect());
    trio.inputs.push_back((1, others(&[2, 3])));
    trio.tick(3);
    assert!(trio.leads(1), "nobody waits for anything");
    trio.submit(1, Command::Put(put("k")));
    trio.tick(3);
    assert_eq!(trio.answers.len(), 0, "its followers report it, and it does not hear the number");
    trio.inputs.push_back((1, others(&[])));
    trio.tick(3);
    assert!(trio.leads(1), "nobody could do better");
    trio.inputs.push_back((1, others(&[3])));
    trio.tick(3);
    assert!(trio.leads(3));
}

#[test]
fn a_leader_whose_log_has_stalled_hands_over_when_something_waits() {
    let mut trio = Trio::new();
    trio.tick(10);
    trio.inputs.push_back((1, Input::DiskStalled));
    trio.tick(3);
    assert!(trio.leads(1), "nobody waits for anything");
    trio.is_cut_off = Some(1);
    trio.submit(1, Command::Put(put("k")));
    trio.inputs.push_back((1, Input::DiskStalled));
    trio.tick(3);
    assert!(!trio.leads(1));
}

/// A replica that lags joins the end of the first locks after it knows of the second.
#[test]
fn a_transaction_that_has_ended_may_lock_again_by_a_request_that_came_late() {
    let mut trio = Trio::new();
    trio.is_deaf = Some(3);
    let id = RequestId { origin: 6, n: 1 };
    let lock = Lock { key: "l".into(), is_write: true, ..Lock::default() };
    let index_of = |trio: &mut Trio| {
        trio.inputs.push_back((1, Input::Prepare(id, vec![lock.clone()])));
        trio.settle();
        trio.prepared_at.take().expect("the key is locked")
    };
    let first = index_of(&mut trio);
    let committed = Decision::Commit(0, Share { prepared_at: first, ..Share::default() });
    trio.inputs.push_back((1, Input::Decided(id, Decision::Abort)));
    trio.settle();
    let second = index_of(&mut trio);
    assert!(first < second);
    // Were it the first that was decided on, the second would have no more to write than this.
    trio.inputs.push_back((1, Input::Decided(id, committed)));
    trio.settle();
    let third = index_of(&mut trio);
    assert!(second < third);
    let applied = |trio: &Trio, id: u64| trio.nodes[&id].replica.applied().index;
    assert!(applied(&trio, 3) < first);
    trio.is_deaf = None;
    trio.tick(3);
    assert_eq!(applied(&trio, 3), applied(&trio, 1));
    trio.inputs.push_back((1, Input::Transfer(NodeId(3))));
    trio.tick(3);
    assert!(trio.leads(3));
    // The new leader holds the third, and only it.
    let to = Requester { id: RequestId { origin: 5, n: 2 }, node: NodeId(3), pass: Pass::NOBODY };
    trio.inputs.push_back((3, Input::Submit(to, Command::Put(put("l")))));
    trio.settle();
    assert!(!trio.answers.contains_key(&2));
    trio.inputs.push_back((3, Input::Decided(id, Decision::Abort)));
    trio.settle();
    assert!(matches!(trio.answers.get(&2), Some(Ok(_))), "{:?}", trio.answers);
}
