//! One replica that is a range's only member, with its log, its store and the spine's part played by
//! hand: what is appended waits until it is persisted, what is committed until it is numbered.

use bytes::Bytes;
use flotilla_core::auth::Pass;
use flotilla_core::command::{Command, RequestId};
use flotilla_core::group::{self, Recovered};
use flotilla_core::memory::MemoryView;
use flotilla_core::proto::Span;
use flotilla_core::proto::etcdserverpb::PutRequest;
use flotilla_core::proto::internal::{ConfState, Run};
use flotilla_core::range::replica::{Config, Effect, Input, Limits, Replica};
use flotilla_core::range::stored::Stored;
use flotilla_core::spine::apply::{Applied, Requester};
use flotilla_core::time::Length;
use flotilla_core::view::Batch;
use flotilla_core::{GroupId, NodeId, Time, mvcc};

use crate::sim::chance::Chance;

const NODE: NodeId = NodeId(1);
const NOTE_AFTER: Length = Length::from_secs(60);
const NEVER: Length = Length::from_secs(3_600);

/// One voter, and these learners.
pub(super) fn conf(learners: &[u64]) -> ConfState {
    let (voters, learners) = (vec![NODE.0], learners.to_vec());
    ConfState { voters, learners, ..ConfState::default() }
}

/// The replica and what is around it.
pub(super) struct RangeMachine {
    replica: Replica,
    view: MemoryView,
    now: u64,
    requests: u64,
    /// Appended, and not persisted.
    unpersisted: Option<u64>,
    /// Joined, and not applied.
    tasks: Vec<flotilla_core::range::replica::Task>,
    /// What it said to others and was not looked at yet.
    pub(super) said: Vec<Effect>,
    /// The ranges that it has taken over.
    pub(super) ended: Vec<GroupId>,
}

impl RangeMachine {
    /// A leader of a range with these keys and learners, in which nothing was written.
    pub(super) fn leader(range: GroupId, span: Span, learners: &[u64]) -> Self {
        Self::restarted(range, &Stored::first(conf(learners), span))
    }

    /// A leader of a range that was stored like this.
    pub(super) fn restarted(range: GroupId, stored: &Stored) -> Self {
        let mut rows = Batch::default();
        stored.write(range, &mut rows);
        let mut view = MemoryView::new();
        view.apply(&rows);
        let config = Config {
            node: NODE,
            range,
            since: 0,
            group: group::Config::new(NODE, range),
            report_again_after: Length::from_ms(100),
            abort_after: NEVER,
            note_after: NOTE_AFTER,
            limits: Limits::default(),
        };
        let (applied, conf) = (stored.position.place(), stored.conf.clone());
        let recovered = Recovered { applied, conf, ..Recovered::default() };
        let chance = Box::new(Chance::new(1));
        let replica = Replica::new(config, Time(0), stored.clone(), recovered, chance);
        let replica = replica.expect("a state and an empty log fit together");
        let (unpersisted, tasks, said, ended) = (None, Vec::new(), Vec::new(), Vec::new());
        let (now, requests) = (0, 0);
        let mut machine = Self { replica, view, now, requests, unpersisted, tasks, said, ended };
        while machine.persist() {}
        machine.step(Input::Campaign);
        while machine.persist() {}
        machine.apply();
        assert!(machine.replica.is_serving(), "who is alone leads");
        machine
    }

    /// Time goes by, enough for what is done after a while.
    pub(super) fn wait(&mut self) {
        self.now += NOTE_AFTER.0;
        self.step(Input::Tick);
    }

    pub(super) fn step(&mut self, input: Input) {
        self.now += 1_000;
        let mut effects = Vec::new();
        self.replica.step(Time(self.now), &self.view, input, &mut effects).expect("memory");
        for effect in effects {
            match effect {
                Effect::Append(append) => self.unpersisted = Some(append.token),
                Effect::Apply(task) => {
                    self.ended.extend(&task.ended);
                    self.tasks.push(task);
                }
                effect => self.said.push(effect),
            }
        }
    }

    /// A client puts a key.
    pub(super) fn put(&mut self, key: &'static [u8]) {
        self.requests += 1;
        let id = RequestId { origin: 1, n: self.requests };
        let request = PutRequest {
            key: Bytes::from_static(key),
            value: Bytes::from_static(b"value"),
            ..PutRequest::default()
        };
        self.step(Input::Submit(
            Requester { id, node: NODE, pass: Pass::NOBODY },
            Command::Put(request),
        ));
    }

    /// Where the lock of a transaction stands in the log, once it is held.
    pub(super) fn locked_at(&mut self) -> Option<u64> {
        std::mem::take(&mut self.said).into_iter().find_map(|said| match said {
            Effect::Prepared(_, at) => Some(at),
            _ => None,
        })
    }

    /// The ticket it wants, if it wants one.
    pub(super) fn wanted_ticket(&mut self) -> Option<u64> {
        std::mem::take(&mut self.said).into_iter().find_map(|said| match said {
            Effect::WantTicket(n) => Some(n),
            _ => None,
        })
    }

    /// Another range has a replica beside it, which stands here.
    pub(super) fn set_beside(&mut self, range: GroupId, stored: &Stored) {
        let mut rows = Batch::default();
        stored.write(range, &mut rows);
        self.view.apply(&rows);
    }

    /// The members of its range, as the log has them.
    pub(super) fn conf(&self) -> ConfState {
        self.replica.group().conf()
    }

    /// Everything that was appended is durable, and with that committed.
    pub(super) fn persist(&mut self) -> bool {
        let Some(token) = self.unpersisted.take() else { return false };
        self.step(Input::Persisted(token));
        true
    }

    /// The spine has numbered the first writes.
    pub(super) fn number(&mut self, count: u64) {
        let run = Run { first: 1, count, revision: 2, ..Run::default() };
        self.step(Input::Numbered(vec![run]));
        self.apply();
    }

    /// Everything that was joined is applied.
    pub(super) fn apply(&mut self) {
        for task in std::mem::take(&mut self.tasks) {
            let mut applied = Applied::default();
            let mut applier = mvcc::Applier::new(&self.view);
            for step in task.steps {
                applied.carry_out(step, &mut applier).expect("memory");
            }
            self.view.apply(&applied.batch);
            self.view.apply(&task.rows);
            self.step(Input::Applied(task.position));
        }
    }
}
