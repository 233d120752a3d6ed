//! Five nodes, three of them with a replica of each range at first, their logs, stores and wires, and
//! the spine as a list of committed entries that every node folds in its own time.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;

use bytes::Bytes;
use prost::Message as _;

use super::moves::{Confs, Progress, Transfer, Unfinished, Work};

use crate::auth::{Admission, Pass};
use crate::command::{Command, Outcome, RequestId};
use crate::group::{self, Append, Chance, Entry, EntryKind, HardState, Part, Recovered, Retention};
use crate::memory::MemoryView;
use crate::mvcc::layout::CompactionCursor;
use crate::mvcc::{self, Applier, Failure, Head};
use crate::proto::etcdserverpb as pb;
use crate::proto::internal::{self, ConfState, RaftMessage, RangeEntry, Record, Ref, record::Body};
use crate::proto::{Span, mvccpb};
use crate::range::frontier::Frontier;
use crate::range::replica::commit::requester;
use crate::range::replica::{Config, Effect, Input, Limits, Replica, Task};
use crate::range::run;
use crate::range::stored::Stored;
use crate::spine::State;
use crate::spine::apply::{Answered, Applied, Requester};
use crate::spine::state::Verdict;
use crate::spine::txns;
use crate::time::{Length, Time};
use crate::txn::{self, Coordinator};
use crate::view::Batch;
use crate::{Error, GroupId, NodeId};

const NODES: [u64; 5] = [1, 2, 3, 4, 5];
/// Those that begin with replicas.
const FIRST: [u64; 3] = [1, 2, 3];
const TICK: u64 = 1_000;

/// A source of chance from a seed (splitmix64).
#[derive(Clone, Debug)]
pub(super) struct Seeded(pub(super) u64);

impl Seeded {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn is_hit(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

impl Chance for Seeded {
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// The log of one replica on disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Log {
    pub(super) hard_state: HardState,
    truncated: group::Position,
    entries: Vec<Entry>,
    unflushed: VecDeque<Append>,
}

impl Log {
    fn flush_one(&mut self) -> Option<u64> {
        let append = self.unflushed.pop_front()?;
        if let Some(place) = append.reset {
            self.truncated = place;
            self.entries.clear();
        }
        if let Some(first) = append.entries.first() {
            self.entries.retain(|entry| entry.index < first.index);
            self.entries.extend(append.entries);
        }
        self.hard_state = append.hard_state;
        Some(append.token)
    }
}

pub(super) struct Node {
    pub(super) store: MemoryView,
    pub(super) state: State,
    pub(super) frontier: Frontier,
    pub(super) logs: BTreeMap<GroupId, Log>,
    pub(super) replicas: BTreeMap<GroupId, Replica>,
    pub(super) work: VecDeque<Work>,
    /// Received snapshots.
    pub(super) staged: BTreeMap<GroupId, MemoryView>,
    pub(super) progress: Option<Progress>,
    pub(super) installing: Option<MemoryView>,
    /// What the store says is not finished.
    pub(super) unfinished: Option<Unfinished>,
    /// Tickets that wait: range, number, index.
    pub(super) tickets: Vec<(GroupId, u64, u64)>,
    pub(super) is_up: bool,
    /// What the spine said of transactions since this node started: their revision, or why they
    /// have none, which is unknown for those that were ended.
    decided: BTreeMap<RequestId, Result<i64, Option<Error>>>,
}

/// A transaction over several ranges, and the node that coordinates it.
struct Txn {
    /// Who asked.
    n: u64,
    node: u64,
    coordinator: Coordinator,
    /// The index that its ticket is good for.
    ticket: Option<u64>,
}

/// Who wrote what at a revision, by sub-revision.
pub(super) type Written = (u64, BTreeMap<u64, internal::Effect>);

/// What a client asked for, and what came of it.
pub(super) struct Asked {
    pub(super) command: Command,
    pub(super) asked_at: u64,
    pub(super) answer: Option<(u64, Outcome)>,
}

/// What a node shows of a range.
pub(super) struct Look {
    pub(super) node: u64,
    pub(super) span: Span,
    pub(super) revision: i64,
    pub(super) kvs: Vec<mvccpb::KeyValue>,
}

pub(super) struct World {
    pub(super) chance: Seeded,
    now: u64,
    /// Counts events, as real time does.
    clock: u64,
    pub(super) nodes: BTreeMap<u64, Node>,
    wire: Vec<RaftMessage>,
    reports: Vec<Ref>,
    /// Committed entries of the spine after index 1.
    spine: Vec<Vec<Record>>,
    spine_state: State,
    pub(super) asked: BTreeMap<u64, Asked>,
    /// Handed back by a node that could not carry them out.
    homeless: Vec<(Requester, Command)>,
    inputs: VecDeque<(u64, GroupId, Input)>,
    is_stepping: bool,
    /// Who asked for the writes of an entry.
    entries: BTreeMap<(GroupId, group::Position), Vec<RequestId>>,
    /// By revision: who wrote what.
    pub(super) written: BTreeMap<i64, Written>,
    pub(super) transfers: Vec<Transfer>,
    pub(super) snapshots_count: u64,
    /// Memberships that have taken effect.
    pub(super) confs: BTreeMap<GroupId, Confs>,
    pub(super) looks: Vec<Look>,
    /// By the name of the attempt.
    txns: BTreeMap<RequestId, Txn>,
    attempts: BTreeMap<RequestId, u64>,
    pub(super) is_calm: bool,
    pub(super) seen: BTreeMap<&'static str, u64>,
    /// Drops one rule, to see that it is missed.
    pub(super) mutant: &'static str,
}

impl Node {
    fn shows_all(&self) -> bool {
        self.frontier.shows(GroupId(1)) && self.frontier.shows(GroupId(2))
    }
}

impl World {
    pub(super) fn new(seed: u64, mutant: &'static str) -> Self {
        let members = NODES.map(|id| internal::Member { id, ..Default::default() }).to_vec();
        let mut state = State::bootstrap(7, members);
        let keys = [Bytes::from_static(b"b"), Bytes::from_static(b"m")];
        state.pre_split(&keys, &FIRST.map(NodeId));
        let mut store = MemoryView::new();
        let mut batch = Batch::default();
        state.write_all(&mut batch);
        store.apply(&batch);
        let conf = ConfState { voters: FIRST.to_vec(), ..Default::default() };
        let mut first = Batch::default();
        let mut confs = BTreeMap::new();
        for (range, _) in state.ranges().iter() {
            let span = state.ranges().get(range).expect("listed").span.clone();
            Stored::first(conf.clone(), span).write(range, &mut first);
            confs.insert(range, BTreeMap::from([(Recovered::FIRST, conf.clone())]));
        }
        let mut world = Self {
            chance: Seeded(seed),
            now: 0,
            clock: 0,
            nodes: BTreeMap::new(),
            wire: Vec::new(),
            reports: Vec::new(),
            spine: Vec::new(),
            spine_state: state.clone(),
            asked: BTreeMap::new(),
            homeless: Vec::new(),
            inputs: VecDeque::new(),
            is_stepping: false,
            entries: BTreeMap::new(),
            written: BTreeMap::new(),
            transfers: Vec::new(),
            snapshots_count: 1,
            confs,
            looks: Vec::new(),
            txns: BTreeMap::new(),
            attempts: BTreeMap::new(),
            is_calm: false,
            seen: BTreeMap::new(),
            mutant,
        };
        for id in NODES {
            let mut store = store.clone();
            if FIRST.contains(&id) {
                store.apply(&first);
            }
            let node = Node {
                store,
                state: state.clone(),
                frontier: Frontier::new(0, Head { revision: 0, compact_revision: -1 }),
                logs: BTreeMap::new(),
                replicas: BTreeMap::new(),
                work: VecDeque::new(),
                staged: BTreeMap::new(),
                progress: None,
                installing: None,
                unfinished: None,
                tickets: Vec::new(),
                is_up: false,
                decided: BTreeMap::new(),
            };
            world.nodes.insert(id, node);
            world.start(id);
        }
        world
    }

    pub(super) fn see(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    fn start(&mut self, id: u64) {
        self.finish_work(id);
        let node = self.nodes.get_mut(&id).expect("it exists");
        node.state = State::load(&node.store).expect("it can be read").expect("it is there");
        let position = node.state.position();
        let head =
            Head { revision: position.revision, compact_revision: position.compact_revision };
        node.frontier = Frontier::new(position.index, head);
        node.is_up = true;
        for range in [GroupId(1), GroupId(2)] {
            let stored = Stored::load(&self.nodes[&id].store, range).expect("readable");
            if let Some(stored) = stored {
                self.join(id, range);
                self.start_replica(id, range, stored);
            }
        }
    }

    pub(super) fn start_replica(&mut self, id: u64, range: GroupId, stored: Stored) {
        let seed = self.chance.next();
        let now = Time(self.now);
        let node = self.nodes.get_mut(&id).expect("it exists");
        let log = node.logs.entry(range).or_default();
        let recovered = Recovered {
            hard_state: log.hard_state,
            truncated: log.truncated,
            entries: log.entries.clone(),
            applied: stored.position.place(),
            conf: stored.conf.clone(),
        };
        let config = Config {
            since: 0,
            node: NodeId(id),
            range,
            group: group::Config::new(NodeId(id), range),
            report_again_after: Length(5 * TICK),
            abort_after: Length(60 * TICK),
            note_after: Length(20 * TICK),
            limits: Limits {
                retention: Retention {
                    flush_entries: 10,
                    catch_up_entries: 5,
                    ..Retention::default()
                },
                ..Limits::default()
            },
        };
        let chance = Box::new(Seeded(seed));
        let replica = Replica::new(config, now, stored, recovered, chance);
        node.replicas.insert(range, replica.expect("log and store fit together"));
        self.numbers(id, range);
    }

    fn crash(&mut self, id: u64) {
        self.see("crash");
        let node = self.nodes.get_mut(&id).expect("it exists");
        node.is_up = false;
        node.replicas.clear();
        node.work.clear();
        node.staged.clear();
        node.progress = None;
        node.installing = None;
        node.tickets.clear();
        node.decided.clear();
        self.txns.retain(|_, txn| txn.node != id);
        let node = self.nodes.get_mut(&id).expect("it exists");
        for log in node.logs.values_mut() {
            log.unflushed.clear();
        }
    }

    fn numbers(&mut self, id: u64, range: GroupId) {
        let known = self.nodes[&id].state.ranges().get(range).expect("it exists");
        let runs = known.runs().to_vec();
        self.step(id, range, Input::Numbered(runs));
        let open = self.nodes[&id].state.txns().open(range);
        let open = open.map(|(id, share)| (id, share.prepared_at)).collect();
        self.step(id, range, Input::OpenTxns(open));
        self.tell_decisions(id, range);
    }

    fn tell_decisions(&mut self, id: u64, range: GroupId) {
        let node = &self.nodes[&id];
        let Some(replica) = node.replicas.get(&range) else { return };
        for txn in replica.undecided() {
            if let Some(decision) = self.nodes[&id].state.decision(range, txn) {
                self.step(id, range, Input::Decided(txn, decision));
            }
        }
    }

    /// Hands an input to a machine, after everything that the one before it asked for.
    pub(super) fn step(&mut self, id: u64, range: GroupId, input: Input) {
        self.inputs.push_back((id, range, input));
        if std::mem::replace(&mut self.is_stepping, true) {
            return;
        }
        while let Some((id, range, input)) = self.inputs.pop_front() {
            self.step_one(id, range, input);
        }
        self.is_stepping = false;
    }

    fn step_one(&mut self, id: u64, range: GroupId, input: Input) {
        let node = self.nodes.get_mut(&id).expect("it exists");
        let Some(replica) = node.replicas.get_mut(&range) else { return };
        let mut out = Vec::new();
        replica.step(Time(self.now), &node.store, input, &mut out).expect("memory can be read");
        for effect in out {
            self.carry_out(id, range, effect);
        }
    }

    fn carry_out(&mut self, id: u64, range: GroupId, effect: Effect) {
        let node = self.nodes.get_mut(&id).expect("it exists");
        match effect {
            Effect::Append(append) => {
                for entry in append.entries.iter().filter(|entry| entry.kind == EntryKind::Normal) {
                    let content = RangeEntry::decode(entry.data.clone()).expect("our own");
                    let ids = content.writes.iter().map(|it| requester(it).id).collect();
                    self.entries.insert((range, entry.position()), ids);
                }
                node.logs.entry(range).or_default().unflushed.push_back(append);
            }
            Effect::Send(message) => self.wire.push(message),
            Effect::Truncate(place) => {
                let log = node.logs.get_mut(&range).expect("a log");
                log.entries.retain(|entry| entry.index > place.index);
                log.truncated = place;
                self.see("truncated");
            }
            Effect::SendSnapshot(_, message) => self.send_snapshot(id, range, message),
            Effect::Install(_) => self.install(id, range),
            Effect::SnapshotRefused(_) => {
                node.staged.remove(&range);
                self.see("snapshot refused");
            }
            // The spine's state is never replaced here.
            Effect::CatchingUp => unreachable!("nobody asks to catch up again"),
            Effect::CaughtUp => {
                node.frontier.set_caught_up(range);
                self.see("caught up");
            }
            Effect::Replicas(place, conf) => {
                let known = self.confs.entry(range).or_default();
                let before = known.insert(place, conf.clone());
                assert!(before.is_none_or(|before| before == conf), "two memberships at {place:?}");
                self.see("membership changed");
            }
            Effect::WantFinish(..) | Effect::Retired => unreachable!("no ranges are merged"),
            Effect::Gone(place, nodes) => {
                self.see("gone");
                for node in nodes {
                    self.step(node.0, range, Input::RemovedAt(place));
                }
            }
            Effect::Outside => {}
            Effect::ReplicasRefused(_) => self.see("change refused"),
            Effect::Removed => self.remove_replica(id, range),
            Effect::Ignored(_, _, reason) => {
                assert!(reason != group::Ignored::LostEntries, "node {id}, range {range}");
                self.see("ignored");
            }
            Effect::Report(mut reference) => {
                reference.upto += u64::from(self.mutant == "reference before commit");
                self.reports.push(reference);
            }
            Effect::WantNumbers => {
                self.see("numbers wanted");
                self.numbers(id, range);
            }
            Effect::WantTicket(n) => {
                // A ticket is as new as the request for it (I7).
                let mut index = self.spine.len() as u64 + 1;
                if self.mutant == "stale ticket" {
                    index = self.nodes[&id].frontier.index();
                }
                self.nodes.get_mut(&id).expect("it exists").tickets.push((range, n, index));
            }
            Effect::Apply(task) => node.work.push_back(Work::Task(task)),
            Effect::FlushStore => {
                let index = node.replicas[&range].applied().index;
                self.step(id, range, Input::Flushed(index));
            }
            Effect::Reply(to, outcome) => self.answer(to, outcome),
            Effect::Unproposed(to, command) => self.homeless.push((to, command)),
            Effect::Prepared(txn, index) => {
                self.step_txn(txn, txn::Input::Prepared(range, index));
            }
            Effect::PrepareFailed(txn) => {
                self.see("prepare failed");
                self.step_txn(txn, txn::Input::PrepareFailed(range));
            }
            Effect::AbortTxn(txn) => {
                self.see("transaction ended");
                self.abort(txn);
            }
            Effect::Role(role) => {
                if role.part == Part::Leader {
                    self.see("leader");
                }
            }
        }
    }

    fn answer(&mut self, to: Requester, outcome: Outcome) {
        let asked = self.asked.get_mut(&to.id.n).expect("someone asked");
        assert!(asked.answer.is_none(), "request {} is answered twice", to.id.n);
        asked.answer = Some((self.clock, outcome));
    }

    /// A client asks.
    pub(super) fn ask(&mut self, command: Command) {
        let n = self.asked.len() as u64 + 1;
        let asked = Asked { command: command.clone(), asked_at: self.clock, answer: None };
        self.asked.insert(n, asked);
        let to = Requester { id: RequestId { origin: 5, n }, node: NodeId(1), pass: Pass::NOBODY };
        self.homeless.push((to, command));
    }

    /// Sends a request to some node, more often than not to the leader.
    fn route(&mut self) {
        if self.homeless.is_empty() {
            return;
        }
        let at = self.chance.below(self.homeless.len() as u64);
        let at = usize::try_from(at).expect("small");
        let (to, command) = self.homeless.swap_remove(at);
        let ranges = txn::owners(self.spine_state.ranges(), &command);
        if ranges.len() > 1 {
            self.begin_txn(to.id.n);
            return;
        }
        let range = ranges[0];
        let is_leader = |id: &u64| {
            let replica = self.nodes[id].replicas.get(&range);
            replica.is_some_and(|it| it.role().part == Part::Leader)
        };
        let leaders: Vec<u64> = NODES.into_iter().filter(is_leader).collect();
        let has_replica = |id: &u64| self.nodes[id].replicas.contains_key(&range);
        let up: Vec<u64> = NODES.into_iter().filter(has_replica).collect();
        let to_leader = !leaders.is_empty() && (self.is_calm || self.chance.is_hit(90));
        let choice = if to_leader { leaders } else { up };
        if choice.is_empty() {
            self.homeless.push((to, command));
            return;
        }
        let id = choice[usize::try_from(self.chance.below(choice.len() as u64)).expect("small")];
        self.step(id, range, Input::Submit(to, command));
    }

    /// The spine's leader puts what was reported into an entry.
    fn commit_spine(&mut self) {
        let mut refs = Vec::new();
        for reference in std::mem::take(&mut self.reports) {
            if !self.is_calm && self.chance.is_hit(20) {
                self.see("report lost");
                continue;
            }
            if self.chance.is_hit(10) {
                // Comes again, late.
                self.reports.push(reference.clone());
            }
            refs.push(reference);
        }
        if refs.is_empty() {
            return;
        }
        let body = Some(Body::Refs(internal::Refs { refs }));
        self.push_spine(vec![Record { body, ..Default::default() }]);
    }

    pub(super) fn push_spine(&mut self, records: Vec<Record>) {
        let index = self.spine_state.position().index + 1;
        self.spine_state.enter(index, 1);
        for record in &records {
            let verdict = self.spine_state.fold(record, &mut Batch::default());
            if let Verdict::Committed(revision) = verdict {
                let id = RequestId { origin: record.origin, n: record.n };
                self.written.insert(revision, (self.attempts[&id], BTreeMap::new()));
            }
        }
        self.spine.push(records);
    }

    pub(super) fn revision(&self) -> i64 {
        self.spine_state.position().revision
    }

    pub(super) fn compact_revision(&self) -> i64 {
        self.spine_state.position().compact_revision
    }

    fn fold(&mut self, id: u64) {
        let node = self.nodes.get_mut(&id).expect("it exists");
        let index = node.state.position().index + 1;
        let at = usize::try_from(index - 2).expect("small");
        let (Some(records), true) = (self.spine.get(at).cloned(), node.is_up) else { return };
        node.state.enter(index, 1);
        let mut batch = Batch::default();
        let mut runs: BTreeMap<GroupId, Vec<internal::Run>> = BTreeMap::new();
        let mut committed = Vec::new();
        for record in &records {
            let id = RequestId { origin: record.origin, n: record.n };
            match node.state.fold(record, &mut batch) {
                Verdict::Assigned(assigned) => {
                    for (range, run) in assigned {
                        runs.entry(range).or_default().push(run);
                    }
                }
                Verdict::Committed(revision) => {
                    node.decided.insert(id, Ok(revision));
                    let Some(Body::TxnCommit(commit)) = &record.body else { unreachable!() };
                    for share in &commit.shares {
                        let range = GroupId(share.range);
                        let stored = Stored::load(&node.store, range).expect("readable");
                        if !stored.is_some_and(|it| it.tells_of(id, share.prepared_at)) {
                            committed.push((range, (id, share.prepared_at)));
                        }
                    }
                }
                Verdict::Rejected(error) => {
                    node.decided.insert(id, Err(Some(error)));
                }
                _ => {}
            }
            if let Some(Body::TxnAbort(abort)) = &record.body {
                let id = txns::from_proto(abort.id.as_ref().expect("named"));
                node.decided.entry(id).or_insert(Err(None));
            }
        }
        node.state.write_windows(index - 1, &mut batch);
        let position = node.state.position();
        position.write(&mut batch);
        node.store.apply(&batch);
        let head =
            Head { revision: position.revision, compact_revision: position.compact_revision };
        let ends = |(range, runs): (&GroupId, &Vec<internal::Run>)| {
            let last = runs.last().expect("not empty");
            (*range, run::last(last))
        };
        node.frontier.fold(index, head, runs.iter().map(ends).collect(), committed);
        for range in [GroupId(1), GroupId(2)] {
            if self.is_calm || !self.chance.is_hit(10) {
                self.tell_decisions(id, range);
            }
        }
        for (range, runs) in runs {
            // The message to the replica may be lost with a node that is slow.
            if self.is_calm || !self.chance.is_hit(10) {
                self.step(id, range, Input::Numbered(runs));
            }
        }
    }

    pub(super) fn apply(&mut self, id: u64, task: Task) {
        let node = self.nodes.get_mut(&id).expect("it exists");
        let mut applied = Applied::default();
        let view = node.store.clone();
        let mut applier = Applier::new(&view);
        let mut written: Vec<(i64, Written)> = Vec::new();
        let index = group::Position { index: task.position.index, term: task.position.term };
        let ids = self.entries.get(&(task.range, index)).cloned().unwrap_or_default();
        let mut ids = ids.into_iter();
        for step in task.steps {
            if !step.subs.is_empty() {
                let effects = step.subs.iter().copied().zip(step.effects.clone()).collect();
                written.push((step.revision, (self.written[&step.revision].0, effects)));
            } else {
                let n = ids.next().expect("every write was asked for").n;
                if step.revision != 0 {
                    let effects = (0..).zip(step.effects.clone()).collect();
                    written.push((step.revision, (n, effects)));
                }
            }
            applied.carry_out(step, &mut applier).expect("memory can be read");
        }
        applied.batch.writes.extend(task.rows.writes);
        node.store.apply(&applied.batch);
        node.frontier.set_applied(task.range, task.position.seq);
        for id in &task.resolved {
            node.frontier.set_resolved(task.range, *id);
        }
        for (revision, (n, effects)) in written {
            let known = self.written.entry(revision).or_insert((n, BTreeMap::new()));
            assert_eq!(known.0, n, "two writes at revision {revision}");
            for (sub, effect) in effects {
                let known = known.1.entry(sub).or_insert_with(|| effect.clone());
                assert_eq!(*known, effect, "two changes at {revision}/{sub}");
            }
        }
        for Answered { to, outcome, .. } in applied.replies {
            self.answer(to, outcome);
        }
        self.step(id, task.range, Input::Applied(task.position));
    }

    fn serve_tickets(&mut self, id: u64) {
        let node = self.nodes.get_mut(&id).expect("it exists");
        let (index, head) = (node.frontier.index(), node.frontier.head());
        let is_waited_for = self.mutant != "ticket without wait";
        let is_due = |wanted: u64| !is_waited_for || wanted <= index;
        let is_shown = |range: &GroupId| node.frontier.shows(*range);
        let mut tickets = node.tickets.iter();
        let at = tickets.position(|(range, _, wanted)| is_due(*wanted) && is_shown(range));
        let Some(at) = at else { return };
        let (range, n, _) = node.tickets.swap_remove(at);
        self.step(id, range, Input::Ticket(n, head, Admission::default()));
    }

    fn deliver(&mut self) {
        if self.wire.is_empty() {
            return;
        }
        let at = match self.is_calm {
            true => 0,
            false => usize::try_from(self.chance.below(self.wire.len() as u64)).expect("small"),
        };
        let message = self.wire.remove(at);
        if !self.is_calm && self.chance.is_hit(5) {
            self.see("message lost");
            return;
        }
        if !self.is_calm && self.chance.is_hit(5) {
            self.wire.push(message.clone());
        }
        let (to, range) = (message.to, GroupId(message.group));
        self.step(to, range, Input::Message(message));
    }

    fn begin_txn(&mut self, n: u64) {
        // It evaluates on its own store.
        let holds = |id: &u64| self.nodes[id].is_up && self.nodes[id].shows_all();
        let able: Vec<u64> = NODES.into_iter().filter(holds).collect();
        if able.is_empty() {
            let to =
                Requester { id: RequestId { origin: 5, n }, node: NodeId(1), pass: Pass::NOBODY };
            self.homeless.push((to, self.asked[&n].command.clone()));
            return;
        }
        let node = able[usize::try_from(self.chance.below(able.len() as u64)).expect("small")];
        let id = RequestId { origin: 9, n: self.attempts.len() as u64 + 1 };
        self.attempts.insert(id, n);
        let command = self.asked[&n].command.clone();
        let coordinator =
            Coordinator::new(id, txn::Job::Change(command), self.spine_state.ranges());
        self.txns.insert(id, Txn { n, node, coordinator, ticket: None });
    }

    fn abort(&mut self, id: RequestId) {
        let body = Body::TxnAbort(internal::TxnAbort { id: Some(txns::to_proto(id)) });
        self.push_spine(vec![Record { body: Some(body), ..Default::default() }]);
    }

    fn drive_txns(&mut self) {
        let ids: Vec<RequestId> = self.txns.keys().copied().collect();
        for id in ids {
            if self.is_calm || self.chance.is_hit(30) {
                self.drive_txn(id);
            }
        }
    }

    fn drive_txn(&mut self, id: RequestId) {
        if !self.txns.contains_key(&id) {
            return;
        }
        let coordinator = &self.nodes[&self.txns[&id].node];
        if !coordinator.shows_all() {
            // A range may be back soon, or never.
            let has_left = coordinator.replicas.len() < 2 || self.is_calm;
            if has_left && self.chance.is_hit(5) {
                self.see("coordinator lost a range");
                self.txns.remove(&id);
            }
            return;
        }
        if !self.is_calm && self.chance.is_hit(3) {
            // The coordinator dies, and its client never hears of it.
            self.see("coordinator died");
            self.txns.remove(&id);
            return;
        }
        let txn = &self.txns[&id];
        let node = &self.nodes[&txn.node];
        let decided = node.decided.get(&id);
        let is_ended = decided == Some(&Err(None)) && self.mutant != "no abort check";
        let is_ticket_good = txn.ticket.is_some_and(|index| node.frontier.index() >= index);
        let input = match decided {
            Some(Ok(revision)) => txn::Input::Committed(*revision, *revision),
            Some(Err(Some(error))) => txn::Input::Rejected(*error),
            _ if is_ended => txn::Input::Ended,
            _ if is_ticket_good => txn::Input::Ticket(node.frontier.head()),
            _ => txn::Input::Tick,
        };
        self.step_txn(id, input);
    }

    fn step_txn(&mut self, id: RequestId, input: txn::Input) {
        let Some(txn) = self.txns.get_mut(&id) else { return };
        let node = &self.nodes[&txn.node];
        if matches!(input, txn::Input::Ticket(_)) {
            txn.ticket = None;
        }
        let ranges = node.state.ranges();
        let mut out = Vec::new();
        let step = txn.coordinator.step(Time(self.now), &node.store, ranges, input, &mut out);
        step.expect("memory can be read");
        for effect in out {
            self.carry_out_txn(id, effect);
        }
    }

    fn carry_out_txn(&mut self, id: RequestId, effect: txn::Effect) {
        match effect {
            txn::Effect::Prepare(range, locks) => {
                let is_leader = |id: &u64| {
                    let replica = self.nodes[id].replicas.get(&range);
                    replica.is_some_and(|it| it.role().part == Part::Leader)
                };
                let leader = NODES.into_iter().find(is_leader);
                if let Some(leader) = leader.filter(|_| self.is_calm || !self.chance.is_hit(10)) {
                    self.step(leader, range, Input::Prepare(id, locks));
                }
            }
            txn::Effect::Propose(record) => {
                if self.is_calm || self.chance.is_hit(70) {
                    self.push_spine(vec![record]);
                }
            }
            txn::Effect::WantTicket => {
                let index = self.spine.len() as u64 + 1;
                self.txns.get_mut(&id).expect("it is under way").ticket = Some(index);
            }
            txn::Effect::Abort => self.abort(id),
            txn::Effect::Reply(outcome) => {
                let txn = self.txns.remove(&id).expect("it is under way");
                let is_committed = self.nodes[&txn.node].decided.contains_key(&id);
                self.see(match (&outcome, is_committed) {
                    (Err(_), _) => "transaction refused",
                    (Ok(_), true) => "transaction committed",
                    (Ok(_), false) => "transaction without effect",
                });
                let to = Requester {
                    id: RequestId { origin: 5, n: txn.n },
                    node: NodeId(1),
                    pass: Pass::NOBODY,
                };
                self.answer(to, outcome);
            }
            txn::Effect::TryAgain(
                txn::Job::LeaseEnd { .. } | txn::Job::Split { .. } | txn::Job::Merge { .. },
            ) => unreachable!("no lease ends here, and no range is cut or merged"),
            txn::Effect::TryAgain(txn::Job::Change(command)) => {
                self.see("attempt aborted");
                let txn = self.txns.remove(&id).expect("it is under way");
                let to = Requester {
                    id: RequestId { origin: 5, n: txn.n },
                    node: NodeId(1),
                    pass: Pass::NOBODY,
                };
                self.homeless.push((to, command));
            }
        }
    }

    /// What a node shows is what was there.
    fn look(&mut self, id: u64, range: GroupId) {
        let node = &self.nodes[&id];
        if !node.is_up || !node.frontier.shows(range) {
            return;
        }
        let head = node.frontier.head();
        let span = node.state.ranges().get(range).expect("it exists").span.clone();
        let past = self.chance.below(2) * self.chance.below(10);
        let revision = (head.revision - past.cast_signed()).max(1);
        let range_end = span.end.clone().unwrap_or(Bytes::from_static(b"\0"));
        let read =
            pb::RangeRequest { key: span.start.clone(), range_end, revision, ..Default::default() };
        match mvcc::read(&node.store, head, &read) {
            Ok(answer) => {
                self.see("look");
                self.looks.push(Look { node: id, span, revision, kvs: answer.kvs });
            }
            Err(Failure::Client(Error::Compacted) | Failure::Overtaken) => {
                self.see("look at what is compacted");
            }
            Err(error) => panic!("node {id}: {error}"),
        }
    }

    fn propose_compaction(&mut self) {
        let revision = self.revision() - self.chance.below(20).cast_signed();
        if revision > self.spine_state.position().compact_revision.max(1) {
            let body = Some(Body::Compact(internal::Compact { revision }));
            self.push_spine(vec![Record { body, ..Default::default() }]);
        }
    }

    fn compact(&mut self, id: u64) {
        let rows_max = usize::try_from(1 + self.chance.below(8)).expect("small");
        let node = self.nodes.get_mut(&id).expect("it exists");
        if !node.is_up || node.progress.is_some() {
            return;
        }
        let compact_revision = node.frontier.head().compact_revision;
        let slice = mvcc::compact_slice(&node.store, compact_revision, rows_max);
        let slice = slice.expect("memory can be read");
        node.store.apply(&slice.batch);
        if !slice.batch.writes.is_empty() {
            self.see("compaction");
        }
    }

    /// One random event.
    pub(super) fn go(&mut self) {
        self.clock += 1;
        let id = 1 + self.chance.below(NODES.len() as u64);
        let ranges = [GroupId(1), GroupId(2)];
        let range = ranges[usize::try_from(self.chance.below(2)).expect("small")];
        match self.chance.below(1_000) {
            0..340 => {
                for _ in 0..if self.is_calm { 8 } else { 2 } {
                    self.deliver();
                }
            }
            340..510 => {
                let node = self.nodes.get_mut(&id).expect("it exists");
                let token = node.logs.get_mut(&range).and_then(Log::flush_one);
                if let Some(token) = token.filter(|_| self.nodes[&id].is_up) {
                    self.step(id, range, Input::Persisted(token));
                }
            }
            510..690 => self.work(id),
            690..790 => {
                // A calm node keeps up with the spine.
                for _ in 0..if self.is_calm { 100 } else { 1 + self.chance.below(3) } {
                    self.fold(id);
                }
            }
            790..840 => self.serve_tickets(id),
            840..880 => self.commit_spine(),
            880..905 => self.route(),
            905..920 => self.drive_txns(),
            920..935 => self.carry_snapshot(),
            935..950 => self.compact(id),
            950..960 => self.look(id, range),
            960..965 => self.tend(),
            965..990 => {
                self.now += TICK;
                for id in NODES {
                    for range in ranges {
                        self.step(id, range, Input::Tick);
                    }
                }
            }
            _ if self.is_calm => {}
            990..992 => self.move_replicas(),
            992 => self.propose_compaction(),
            993..996 if self.nodes.values().all(|node| node.is_up) => self.crash(id),
            996 => {
                let to = NodeId(1 + self.chance.below(NODES.len() as u64));
                self.step(id, range, Input::Transfer(to));
            }
            _ => self.start_all(),
        }
    }

    pub(super) fn start_all(&mut self) {
        for id in NODES {
            if !self.nodes[&id].is_up {
                self.start(id);
            }
        }
    }

    /// Whether there is nothing left to do.
    pub(super) fn is_quiet(&self) -> bool {
        self.unrest().is_empty()
    }

    /// Where everybody stands.
    pub(super) fn standing(&self) -> String {
        let mut text = format!("the spine ends at {:?}", self.spine_state.position());
        for (id, node) in &self.nodes {
            let (up, shown, folded) = (node.is_up, node.frontier.index(), node.state.position());
            let work = (node.work.len(), node.progress.is_some());
            let _ =
                write!(text, "\n{id} up {up} shows {shown} folded {} work {work:?}", folded.index);
            for (range, replica) in &node.replicas {
                let (role, applied) = (replica.role(), replica.applied());
                let (shows, conf) = (node.frontier.shows(*range), replica.group().conf());
                let _ = write!(text, "\n  {range} {role:?} {applied:?} shown {shows} {conf:?}");
            }
        }
        text
    }

    /// What is left to do.
    pub(super) fn unrest(&self) -> String {
        let end = self.spine_state.position();
        if !self.txns.is_empty() {
            return format!(
                "{} transactions are under way, and {} were tried",
                self.txns.len(),
                self.attempts.len()
            );
        }
        if !self.homeless.is_empty() {
            return format!("{} requests wait for a leader", self.homeless.len());
        }
        for (id, node) in &self.nodes {
            let work = node.work.len() + usize::from(node.progress.is_some());
            let tickets = node.tickets.len();
            let (folded, shown) = (node.state.position(), node.frontier.index());
            if work + tickets > 0 || folded != end || shown != end.index {
                return format!(
                    "node {id}: {work} to do, {tickets} tickets, {folded:?} folded, {shown} shown, \
                     the end is {end:?}"
                );
            }
            let cursor = CompactionCursor::load(&node.store).expect("readable");
            if cursor.finished < end.compact_revision {
                return format!("node {id}: {cursor:?} is behind {end:?}");
            }
            for (range, replica) in &node.replicas {
                let assigned = self.spine_state.ranges().get(*range).expect("it exists").assigned;
                let (applied, committed) = (replica.applied(), replica.committed());
                let newest = self.confs[range].last_key_value().expect("the first").1;
                let is_member = group::conf::has_member(newest, NodeId(*id));
                let is_shown = node.frontier.shows(*range);
                if applied.seq != assigned || committed != assigned || !is_member || !is_shown {
                    return format!(
                        "node {id}, range {range}: {committed} committed, {assigned} numbered, \
                         {applied:?} applied, {:?}, member {is_member}, shown {is_shown}",
                        replica.role()
                    );
                }
            }
        }
        for (range, confs) in &self.confs {
            let newest = confs.last_key_value().expect("the first").1;
            let lacks = |id: &u64| {
                let is_member = group::conf::has_member(newest, NodeId(*id));
                is_member && !self.nodes[id].replicas.contains_key(range)
            };
            if !newest.voters_outgoing.is_empty() || NODES.iter().any(lacks) {
                return format!("range {range}: {newest:?}");
            }
        }
        String::new()
    }
}
