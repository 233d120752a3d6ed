//! A few nodes, their disks and the wires between them, all in memory, driven event by event.
//! After every effect it checks what Raft promises; it knows nothing of how `Group` keeps it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use prost::Message as _;

use super::*;

/// What a node applies entries to. Nodes that applied the same entries have the same state.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct State {
    pub(super) applied: Position,
    pub(super) conf: ConfState,
    pub(super) digest: u64,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    pub(super) hard_state: HardState,
    pub(super) truncated: Position,
    pub(super) entries: Vec<Entry>,
    pub(super) state: State,
}

#[derive(Clone, Debug)]
enum Record {
    Append(Append),
    Truncate(Position),
}

impl Disk {
    pub(super) fn recovered(&self) -> Recovered {
        Recovered {
            hard_state: self.hard_state,
            truncated: self.truncated,
            entries: self.entries.clone(),
            applied: self.state.applied,
            conf: self.state.conf.clone(),
        }
    }

    fn write(&mut self, record: Record) {
        match record {
            Record::Append(append) => {
                if let Some(place) = append.reset {
                    self.truncated = place;
                    self.entries.clear();
                }
                if let Some(first) = append.entries.first() {
                    self.entries.retain(|entry| entry.index < first.index);
                    self.entries.extend(append.entries);
                }
                self.hard_state = append.hard_state;
            }
            Record::Truncate(place) => {
                self.entries.retain(|entry| entry.index > place.index);
                self.truncated = place;
            }
        }
    }

    /// Whether the entry at this place is on disk, in the log or in the state.
    fn holds(&self, place: Position) -> bool {
        place.index <= self.state.applied.index
            || self.truncated == place
            || self.entries.iter().any(|entry| entry.position() == place)
    }

    fn position(&self, index: u64) -> Option<Position> {
        if index == self.truncated.index {
            return Some(self.truncated);
        }
        self.entries.iter().map(Entry::position).find(|place| place.index == index)
    }

    fn last(&self) -> u64 {
        self.entries.last().map_or(self.truncated.index, |entry| entry.index)
    }
}

pub(super) struct Node {
    pub(super) group: Option<Group>,
    pub(super) disk: Disk,
    /// On its way to disk.
    queue: VecDeque<Record>,
    pub(super) state: State,
    /// Committed and not applied, with the membership that a change leads to.
    commits: VecDeque<(Entry, Option<ConfState>)>,
    next_conf: Option<(u64, ConfState)>,
    /// A snapshot to be installed.
    install: Option<State>,
    /// Open tickets, with the index committed anywhere when they were taken.
    tickets: BTreeMap<u64, u64>,
    starts: u64,
}

/// A snapshot on its way.
#[derive(Clone)]
pub(super) struct Transfer {
    from: u64,
    to: u64,
    pub(super) message: RaftMessage,
}

pub(super) struct Network {
    pub(super) nodes: BTreeMap<u64, Node>,
    pub(super) wire: VecDeque<RaftMessage>,
    pub(super) snapshots: VecDeque<Transfer>,
    /// Directed pairs that hear nothing of each other.
    pub(super) cut: BTreeSet<(u64, u64)>,
    pub(super) seed: u64,
    next_ticket: u64,
    /// Every entry that was ever committed, by index from 2.
    pub(super) history: BTreeMap<u64, (u64, u64)>,
    /// Every entry ever appended anywhere: place -> (place before it, digest).
    appended: BTreeMap<Position, (Position, u64)>,
    leaders: BTreeMap<u64, u64>,
    confs: BTreeMap<u64, ConfState>,
    /// How often something happened, so that a run that proves nothing is noticed.
    pub(super) seen: BTreeMap<&'static str, u64>,
    /// Hash of every effect, if asked for.
    pub(super) trace: Option<u64>,
    pub(super) last_effects: Vec<Effect>,
}

impl Network {
    /// The first `voters_count` of `nodes_count` nodes start a group, the others wait to be added.
    pub(super) fn new(seed: u64, voters_count: u64, nodes_count: u64) -> Self {
        let conf = voters(1..=voters_count);
        let mut network = Self {
            nodes: BTreeMap::new(),
            wire: VecDeque::new(),
            snapshots: VecDeque::new(),
            cut: BTreeSet::new(),
            seed,
            next_ticket: 1,
            history: BTreeMap::new(),
            appended: BTreeMap::new(),
            leaders: BTreeMap::new(),
            confs: BTreeMap::from([(1, conf.clone())]),
            seen: BTreeMap::new(),
            trace: None,
            last_effects: Vec::new(),
        };
        for id in 1..=nodes_count {
            let mut disk = Disk::default();
            if id <= voters_count {
                let applied = Recovered::FIRST;
                disk.state = State { applied, conf: conf.clone(), digest: 0 };
            }
            let node = Node {
                group: None,
                state: disk.state.clone(),
                disk,
                queue: VecDeque::new(),
                commits: VecDeque::new(),
                next_conf: None,
                install: None,
                tickets: BTreeMap::new(),
                starts: 0,
            };
            network.nodes.insert(id, node);
            network.restart(id);
        }
        network
    }

    pub(super) fn ids(&self) -> Vec<u64> {
        self.nodes.keys().copied().collect()
    }

    pub(super) fn group(&self, id: u64) -> &Group {
        self.nodes[&id].group.as_ref().expect("the node is up")
    }

    pub(super) fn is_up(&self, id: u64) -> bool {
        self.nodes[&id].group.is_some()
    }

    /// The leader of the highest term.
    pub(super) fn leader(&self) -> Option<u64> {
        let leaders = self.ids().into_iter().filter(|id| self.is_up(*id));
        leaders
            .filter(|id| self.group(*id).is_leader())
            .max_by_key(|id| self.group(*id).role().term)
    }

    pub(super) fn committed(&self) -> u64 {
        self.history.last_key_value().map_or(1, |(index, _)| *index)
    }

    pub(super) fn see(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    // Events.

    pub(super) fn restart(&mut self, id: u64) {
        let seed = self.seed;
        let node = self.node(id);
        assert!(node.group.is_none());
        node.starts += 1;
        let chance = Seeded(seed ^ (id << 32) ^ node.starts);
        let group = Group::new(config(id), node.disk.recovered(), Box::new(chance));
        node.group = Some(group.unwrap_or_else(|error| panic!("node {id}: {error}")));
        node.state = node.disk.state.clone();
    }

    /// Loses all but the `kept` oldest writes under way, and the state since its last checkpoint.
    pub(super) fn crash(&mut self, id: u64, kept: usize) {
        self.write(id, kept);
        let node = self.node(id);
        node.group = None;
        node.queue.clear();
        node.commits.clear();
        node.next_conf = None;
        node.install = None;
        node.tickets.clear();
        self.snapshots.retain(|transfer| transfer.from != id);
        self.see("crash");
    }

    pub(super) fn input(&mut self, id: u64, input: Input) -> Vec<Effect> {
        let mut out = Vec::new();
        let group = self.node(id).group.as_mut().expect("the node is up");
        let was_asleep = group.is_asleep();
        group.step(input, &mut out);
        match (was_asleep, group.is_asleep(), group.is_leader()) {
            (false, true, true) => self.see("leader asleep"),
            (false, true, false) => self.see("follower asleep"),
            (true, false, _) => self.see("woken"),
            _ => {}
        }
        self.take(id, &out);
        out
    }

    /// A driver that has nothing of its own to do lets its member sleep.
    pub(super) fn tick(&mut self, id: u64) {
        self.input(id, Input::Tick);
        if self.group(id).is_sleep_due() {
            self.input(id, Input::Sleep);
        }
    }

    /// A node hears that only these others are there.
    pub(super) fn alive(&mut self, id: u64, others: impl IntoIterator<Item = u64>) {
        let others = others.into_iter().filter(|other| *other != id).map(NodeId).collect();
        self.input(id, Input::Alive(others));
    }

    /// All nodes hear that all of them are there.
    pub(super) fn all_alive(&mut self) {
        for id in self.ids() {
            self.alive(id, self.ids());
        }
    }

    pub(super) fn propose(&mut self, id: u64, commands: &[&str]) -> Vec<Effect> {
        self.input(id, Input::Propose(commands.iter().map(|text| command(text)).collect()))
    }

    pub(super) fn ticket(&mut self, id: u64) -> u64 {
        let context = self.next_ticket;
        self.next_ticket += 1;
        let committed = self.committed();
        self.node(id).tickets.insert(context, committed);
        self.input(id, Input::Ticket(context));
        context
    }

    /// The oldest `count` writes of a node reach the disk, and it is told so once.
    pub(super) fn persist(&mut self, id: u64, count: usize) {
        if let Some(token) = self.write(id, count) {
            self.input(id, Input::Persisted { token });
        }
    }

    pub(super) fn queued(&self, id: u64) -> usize {
        self.nodes[&id].queue.len()
    }

    pub(super) fn unapplied(&self, id: u64) -> usize {
        self.nodes[&id].commits.len()
    }

    pub(super) fn is_installing(&self, id: u64) -> bool {
        self.nodes[&id].install.is_some()
    }

    pub(super) fn open_tickets(&self) -> usize {
        self.nodes.values().map(|node| node.tickets.len()).sum()
    }

    pub(super) fn apply(&mut self, id: u64, count: usize) {
        let node = self.node(id);
        let count = count.min(node.commits.len());
        for (entry, conf) in node.commits.drain(..count) {
            assert_eq!(entry.index, node.state.applied.index + 1, "nothing is skipped");
            node.state.applied = entry.position();
            node.state.digest = digest(node.state.digest, &entry);
            if let Some(conf) = conf {
                node.state.conf = conf;
            }
        }
        let index = node.state.applied.index;
        if count > 0 {
            self.input(id, Input::Applied { index });
        }
    }

    /// The applied state becomes durable.
    pub(super) fn checkpoint(&mut self, id: u64) {
        let node = self.node(id);
        node.disk.state = node.state.clone();
    }

    /// Truncates the log, but not beyond what is durable.
    pub(super) fn truncate(&mut self, id: u64, index: u64) {
        let index = index.min(self.nodes[&id].disk.state.applied.index);
        self.input(id, Input::Truncate { index });
    }

    pub(super) fn deliver(&mut self, at: usize) {
        let Some(message) = self.wire.remove(at) else { return };
        let to = message.to;
        if self.is_up(to) && !self.cut.contains(&(message.from, to)) {
            self.input(to, Input::Message(message));
        }
    }

    /// The oldest snapshot on its way arrives with the sender's present state, or fails.
    pub(super) fn deliver_snapshot(&mut self, does_arrive: bool) {
        let Some(Transfer { from, to, message }) = self.snapshots.pop_front() else { return };
        let is_cut = self.cut.contains(&(from, to)) || self.cut.contains(&(to, from));
        let mut is_ok = false;
        if does_arrive && !is_cut && self.is_up(to) && self.is_up(from) {
            let state = self.nodes[&from].state.clone();
            let mark = SnapshotMark {
                index: state.applied.index,
                term: state.applied.term,
                conf: Some(state.conf.clone()),
            };
            assert!(mark.index >= message.snapshot.as_ref().unwrap().index);
            let out = self.input(to, Input::SnapshotReceived { message, mark });
            if out.iter().any(|effect| matches!(effect, Effect::Install { .. })) {
                self.node(to).install = Some(state);
                is_ok = true;
            }
        }
        if self.is_up(from) {
            self.input(from, Input::SnapshotSent { to: NodeId(to), is_ok });
        }
    }

    /// Installs a snapshot that waits for it. A crash may come between the two halves.
    pub(super) fn install(&mut self, id: u64, does_crash: bool) {
        let node = self.node(id);
        let Some(state) = node.install.take() else { return };
        let is_past = |(entry, _): &(Entry, Option<ConfState>)| entry.index <= state.applied.index;
        assert!(node.commits.iter().all(is_past), "the snapshot contains what was handed out");
        node.commits.clear();
        node.state = state.clone();
        node.disk.state = state;
        if does_crash {
            self.see("crash in install");
            self.crash(id, 0);
            return;
        }
        self.see("install");
        self.input(id, Input::SnapshotInstalled);
    }

    // Orderly runs.

    /// Lets everything on its way arrive, until nothing moves.
    pub(super) fn settle(&mut self) {
        for _ in 0..1000 {
            let mut has_moved = false;
            for _ in 0..self.wire.len() {
                self.deliver(0);
                has_moved = true;
            }
            for _ in 0..self.snapshots.len() {
                self.deliver_snapshot(true);
                has_moved = true;
            }
            for id in self.ids().into_iter().filter(|id| self.is_up(*id)).collect::<Vec<_>>() {
                has_moved |= self.is_installing(id) || self.queued(id) + self.unapplied(id) > 0;
                self.install(id, false);
                self.persist(id, usize::MAX);
                self.apply(id, usize::MAX);
            }
            if !has_moved {
                return;
            }
        }
        panic!("the network does not come to rest");
    }

    /// Delivers in order until the newest message is of this kind.
    pub(super) fn settle_until_sent(&mut self, kind: Kind) {
        while self.wire.back().is_some_and(|message| message.kind != kind as u32) {
            self.deliver(0);
        }
    }

    pub(super) fn tick_all(&mut self) {
        for id in self.ids() {
            if self.is_up(id) {
                self.tick(id);
            }
        }
        self.settle();
    }

    /// Makes a node the leader by campaigning.
    pub(super) fn elect(&mut self, id: u64) {
        for _ in 0..50 {
            self.settle();
            if self.group(id).is_leader() {
                return;
            }
            self.input(id, Input::Campaign);
            self.settle();
            self.tick_all();
        }
        panic!("node {id} is not elected");
    }

    /// Cuts a node off from all others, until everything is healed.
    pub(super) fn isolate(&mut self, id: u64) {
        for other in self.ids() {
            self.cut.insert((id, other));
            self.cut.insert((other, id));
        }
    }

    pub(super) fn heal(&mut self) {
        self.cut.clear();
    }

    fn node(&mut self, id: u64) -> &mut Node {
        self.nodes.get_mut(&id).expect("the node exists")
    }

    // Effects, and what must hold of each.

    fn take(&mut self, id: u64, out: &[Effect]) {
        if let Some(trace) = &mut self.trace {
            for effect in out {
                for byte in format!("{id}{effect:?}").bytes() {
                    *trace = trace.wrapping_mul(0x0100_0000_01b3) ^ u64::from(byte);
                }
            }
        }
        for effect in out {
            match effect {
                Effect::Role(role) => self.check_role(id, *role),
                Effect::Send(message) => {
                    self.check_send(id, message);
                    let before = Position { index: message.index, term: message.log_term };
                    if message.kind == Kind::Append as u32 {
                        self.check_leader(id, message.term);
                        let entries = message.entries.iter().cloned();
                        let entries: Option<Vec<_>> = entries.map(Entry::from_proto).collect();
                        self.check_entries(before, &entries.unwrap());
                    }
                    // Through the wire format, as between real nodes.
                    let bytes = message.encode_to_vec();
                    self.wire.push_back(RaftMessage::decode(&bytes[..]).unwrap());
                }
                Effect::SendSnapshot { to, message } => {
                    self.check_send(id, message);
                    let message = message.clone();
                    self.snapshots.push_back(Transfer { from: id, to: to.0, message });
                }
                Effect::Append(append) => {
                    self.node(id).queue.push_back(Record::Append(append.clone()));
                }
                Effect::Truncate(place) => {
                    self.see("truncate");
                    self.node(id).queue.push_back(Record::Truncate(*place));
                }
                Effect::Install { .. } => {}
                Effect::ConfApplied { index, change, conf } => {
                    assert!(change.is_some(), "a proposed change is valid");
                    let known = self.confs.entry(*index).or_insert_with(|| conf.clone());
                    assert_eq!(known, conf, "memberships agree");
                    if !conf.voters_outgoing.is_empty() {
                        self.see("joint");
                    }
                    self.node(id).next_conf = Some((*index, conf.clone()));
                }
                Effect::Commit(entries) => self.take_commit(id, entries),
                Effect::Proposed { .. } => self.see("proposed"),
                Effect::Refused(_) => self.see("refused"),
                Effect::TicketReady { context, index } => {
                    let floor = self.node(id).tickets.remove(context);
                    let floor = floor.expect("a ticket is answered once");
                    assert!(*index >= floor, "a stale read: {index} after {floor} was committed");
                    self.see("ticket ready");
                }
                Effect::TicketDropped { context } => {
                    let floor = self.node(id).tickets.remove(context);
                    assert!(floor.is_some(), "a ticket is answered once");
                    self.see("ticket dropped");
                }
                Effect::SnapshotRefused(_) => self.see("snapshot refused"),
                Effect::Ignored { reason, .. } => {
                    let is_expected = matches!(
                        reason,
                        Ignored::Stale | Ignored::NotMember | Ignored::NotLeader | Ignored::Busy
                    );
                    assert!(is_expected, "node {id} ignored an honest message: {reason}");
                }
            }
        }
        self.last_effects = out.to_vec();
    }

    /// Election safety and leader completeness.
    fn check_role(&mut self, id: u64, role: Role) {
        if role.part != Part::Leader {
            return;
        }
        // The only voter may lead, crash and forget a term that nobody heard of.
        if role.term <= self.nodes[&id].disk.hard_state.term {
            self.check_leader(id, role.term);
        }
        self.see("leader");
        // A vote may come so late that the next term has a leader already, who has committed more.
        if self.leaders.keys().next_back().is_some_and(|newest| *newest > role.term) {
            return;
        }
        let log = self.group(id).log();
        for (index, (term, _)) in self.history.range(log.truncated().index..) {
            let place = Position { index: *index, term: *term };
            assert_eq!(log.position(*index), Some(place), "leader {id} lacks a committed entry");
        }
    }

    fn check_leader(&mut self, id: u64, term: u64) {
        let leader = *self.leaders.entry(term).or_insert(id);
        assert_eq!(leader, id, "two leaders in term {term}");
    }

    /// Nothing is promised before it is on disk.
    fn check_send(&self, id: u64, message: &RaftMessage) {
        let disk = &self.nodes[&id].disk;
        let kind = Kind::from_number(message.kind).unwrap();
        assert_eq!((message.from, message.group), (id, GROUP.0));
        // Before a vote one speaks of terms that have not begun.
        let is_ahead = matches!(kind, Kind::PreVote | Kind::PreVoteAnswer);
        assert!(
            is_ahead || message.term <= disk.hard_state.term,
            "node {id} speaks for term {} that is not on disk: {kind:?}",
            message.term
        );
        // What was on disk in an earlier term may have been replaced since, all at once.
        let is_present = message.term == disk.hard_state.term;
        match kind {
            Kind::Vote if is_present => {
                assert_eq!(disk.hard_state.vote, id, "the own vote is not on disk");
            }
            Kind::VoteAnswer if is_present && !message.reject => {
                assert_eq!(disk.hard_state.vote, message.to, "a vote is not on disk");
            }
            Kind::AppendAnswer if is_present && !message.reject => {
                assert!(message.index <= disk.last(), "node {id} acknowledged too early");
            }
            Kind::Append => {
                let bytes: usize = message.entries.iter().map(|entry| entry.data.len()).sum();
                assert!(bytes <= 1000 || message.entries.len() == 1);
            }
            _ => {}
        }
    }

    /// Log matching: the same place means the same entry after the same place. Holds for what was
    /// sent or reached a disk; a leader of one voter may forget a term that nobody heard of.
    fn check_entries(&mut self, mut before: Position, entries: &[Entry]) {
        for entry in entries {
            let what = (before, digest(0, entry));
            let known = *self.appended.entry(entry.position()).or_insert(what);
            assert_eq!(known, what, "logs differ at {:?}", entry.position());
            before = entry.position();
        }
    }

    /// Writes the oldest `count` records of a node. Returns the newest token.
    fn write(&mut self, id: u64, count: usize) -> Option<u64> {
        let mut token = None;
        let records: Vec<_> = {
            let queue = &mut self.node(id).queue;
            queue.drain(..count.min(queue.len())).collect()
        };
        for record in records {
            if let Record::Append(append) = &record {
                token = Some(append.token);
                if let Some(first) = append.entries.first() {
                    let mut disk = self.nodes[&id].disk.clone();
                    disk.write(Record::Append(Append { entries: Vec::new(), ..append.clone() }));
                    let before = disk.position(first.index - 1);
                    let before = before.expect("an append continues the log on disk");
                    self.check_entries(before, &append.entries);
                }
            }
            self.node(id).disk.write(record);
        }
        token
    }

    fn take_commit(&mut self, id: u64, entries: &[Entry]) {
        for entry in entries {
            let what = (entry.term, digest(0, entry));
            if let Some(known) = self.history.get(&entry.index) {
                assert_eq!(*known, what, "committed entries differ at {}", entry.index);
            } else {
                assert_eq!(entry.index, self.committed() + 1, "commits leave no gap");
                self.check_quorum(entry.position());
                self.history.insert(entry.index, what);
            }
            let node = self.node(id);
            let conf = node.next_conf.take_if(|(index, _)| *index == entry.index);
            node.commits.push_back((entry.clone(), conf.map(|(_, conf)| conf)));
        }
        self.see("commit");
    }

    /// What is committed is on the disks of a majority, under the membership of that time: the
    /// newest before the entry, or one before if both were committed together.
    fn check_quorum(&self, place: Position) {
        let holds = |id: &&u64| self.nodes[*id].disk.holds(place);
        let has_majority =
            |ids: &[u64]| ids.is_empty() || ids.iter().filter(holds).count() * 2 > ids.len();
        let has_quorum =
            |conf: &ConfState| has_majority(&conf.voters) && has_majority(&conf.voters_outgoing);
        let mut confs = self.confs.range(..=place.index).rev().take(3);
        assert!(confs.any(|(_, conf)| has_quorum(conf)), "{place:?} is committed by too few");
    }
}

fn digest(before: u64, entry: &Entry) -> u64 {
    let head = [before, entry.index, entry.term, u64::from(entry.kind.number())];
    let bytes = head.iter().flat_map(|number| number.to_be_bytes());
    let bytes = bytes.chain(entry.data.iter().copied()).chain(entry.context.iter().copied());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
