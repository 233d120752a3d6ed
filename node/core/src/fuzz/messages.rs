//! Messages of consensus, from a peer that means no good: honest traffic, damaged on its way, and
//! messages of nobody. A node may be misled by them (peers are not proof against lies), but it goes on,
//! and what it has handed out as committed stays so.

use std::collections::VecDeque;

use bytes::Bytes;
use flotilla_fuzz::{Edit, Target, apply, edits, number};
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;

use super::messages;
use crate::group::{Chance, Config, Effect, Group, Input, Recovered};
use crate::proto::internal::{ConfState, RaftMessage, SnapshotMark};
use crate::{GroupId, NodeId};

const GROUP: GroupId = GroupId(5);
/// Messages under way; more are lost.
const WIRE_MAX: usize = 64;

#[derive(Clone, Debug)]
enum Action {
    Tick(usize),
    Propose(usize),
    Ticket(usize, u64),
    Transfer(usize, u64),
    /// The oldest message arrives, after this was done to its bytes.
    Deliver(Vec<Edit>),
    /// The oldest message arrives with another number in one of its fields.
    Change(u8, u64),
    /// A message that nobody sent arrives.
    Forge {
        to: usize,
        from: u64,
        kind: u32,
        is_plausible: bool,
        encoded: Vec<u8>,
    },
    /// A snapshot that nobody sent.
    Snapshot {
        to: usize,
        from: u64,
        term: u64,
        mark: SnapshotMark,
    },
}

fn action() -> impl Strategy<Value = Action> {
    let node = || 0..3_usize;
    let encoded = messages().encoded("flotilla.internal.RaftMessage");
    let ids = || vec(0..5_u64, 0..4);
    let mark = (number(), number(), ids(), ids(), ids(), ids(), any::<bool>()).prop_map(
        |(index, term, voters, learners, voters_outgoing, learners_next, auto_leave)| {
            let conf = ConfState { voters, learners, voters_outgoing, learners_next, auto_leave };
            SnapshotMark { index, term, conf: Some(conf) }
        },
    );
    prop_oneof![
        6 => node().prop_map(Action::Tick),
        2 => node().prop_map(Action::Propose),
        1 => (node(), number()).prop_map(|(node, ticket)| Action::Ticket(node, ticket)),
        1 => (node(), 0..5_u64).prop_map(|(node, to)| Action::Transfer(node, to)),
        12 => Just(Action::Deliver(Vec::new())),
        2 => edits().prop_map(Action::Deliver),
        3 => (any::<u8>(), number()).prop_map(|(field, number)| Action::Change(field, number)),
        2 => (node(), 0..5_u64, prop_oneof![0..20_u32, 60..70_u32], any::<bool>(), encoded).prop_map(
            |(to, from, kind, is_plausible, encoded)| {
                Action::Forge { to, from, kind, is_plausible, encoded }
            }
        ),
        1 => (node(), 0..5_u64, 0..9_u64, mark).prop_map(|(to, from, term, mark)| {
            Action::Snapshot { to, from, term, mark }
        }),
    ]
}

struct Draw(u64);

impl Chance for Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % bound
    }
}

struct Net {
    groups: Vec<Group>,
    /// Up to where each has handed out what is committed.
    handed_out: Vec<u64>,
    wire: VecDeque<RaftMessage>,
}

impl Net {
    fn new() -> Self {
        let conf = ConfState { voters: vec![1, 2, 3], ..ConfState::default() };
        let start = |id: u64| {
            let config = Config {
                election_ticks: 4,
                sleep_after_ticks: 6,
                message_bytes_max: 200,
                inflight_messages_max: 4,
                uncommitted_bytes_max: 2000,
                commit_bytes_max: 500,
                tickets_max: 16,
                ..Config::new(NodeId(id), GROUP)
            };
            Group::new(config, Recovered::first(conf.clone()), Box::new(Draw(id))).unwrap()
        };
        let mut net = Self {
            groups: (1..=3).map(start).collect(),
            handed_out: vec![1; 3],
            wire: VecDeque::new(),
        };
        net.input(0, Input::Campaign);
        net
    }

    /// Flushes and applies at once: what arrives is what is tested.
    fn input(&mut self, node: usize, input: Input) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            let mut effects = Vec::new();
            self.groups[node].step(input, &mut effects);
            for effect in effects {
                match effect {
                    Effect::Send(message) => self.wire.push_back(message),
                    Effect::Append(append) => inputs.push(Input::Persisted { token: append.token }),
                    Effect::Commit(entries) => {
                        for entry in entries {
                            assert_eq!(entry.index, self.handed_out[node] + 1);
                            self.handed_out[node] = entry.index;
                        }
                        inputs.push(Input::Applied { index: self.handed_out[node] });
                    }
                    Effect::Install { mark, .. } => {
                        assert!(mark.index > self.handed_out[node]);
                        self.handed_out[node] = mark.index;
                        inputs.push(Input::SnapshotInstalled);
                    }
                    Effect::SendSnapshot { to, .. } => {
                        inputs.push(Input::SnapshotSent { to, is_ok: false });
                    }
                    _ => {}
                }
            }
        }
        self.wire.truncate(WIRE_MAX);
    }

    fn arrive(&mut self, message: RaftMessage) {
        let to = message.to.clamp(1, 3) as usize - 1;
        self.input(to, Input::Message(message));
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Tick(node) => self.input(node, Input::Tick),
            Action::Propose(node) => {
                self.input(node, Input::Propose(vec![Bytes::from_static(b"command")]));
            }
            Action::Ticket(node, ticket) => self.input(node, Input::Ticket(ticket)),
            Action::Transfer(node, to) => self.input(node, Input::Transfer(NodeId(to))),
            Action::Deliver(edits) => {
                let Some(message) = self.wire.pop_front() else { return };
                let mut encoded = message.encode_to_vec();
                apply(&mut encoded, &edits, &[]);
                if let Ok(message) = RaftMessage::decode(&encoded[..]) {
                    self.arrive(message);
                }
            }
            Action::Change(field, number) => {
                let Some(mut message) = self.wire.pop_front() else { return };
                change(&mut message, field, number);
                self.arrive(message);
            }
            Action::Forge { to, from, kind, is_plausible, encoded } => {
                let mut message = RaftMessage::decode(&encoded[..]).expect("it is valid");
                message.group = GROUP.0;
                (message.to, message.from, message.kind) = (to as u64 + 1, from, kind);
                if is_plausible {
                    plausible(&mut message);
                }
                self.arrive(message);
            }
            Action::Snapshot { to, from, term, mark } => {
                let kind = crate::group::Kind::Snapshot as u32;
                let (group, to_id) = (GROUP.0, to as u64 + 1);
                let message =
                    RaftMessage { group, kind, from, to: to_id, term, ..RaftMessage::default() };
                self.input(to, Input::SnapshotReceived { message, mark });
            }
        }
    }
}

fn change(message: &mut RaftMessage, field: u8, number: u64) {
    let entries = message.entries.len();
    match field % 11 {
        0 => message.term = number,
        1 => message.log_term = number,
        2 => message.index = number,
        3 => message.commit = number,
        4 => message.commit_term = number,
        5 => message.reject = !message.reject,
        6 => message.reject_hint = number,
        7 => message.from = number % 5,
        8 => message.since = number,
        9 if entries > 0 => message.entries[number as usize % entries].term = number,
        _ if entries > 0 => message.entries[number as usize % entries].index = number,
        _ => message.context = Bytes::from(number.to_be_bytes().to_vec()),
    }
}

/// Small numbers, and entries that follow each other: what passes the first checks.
fn plausible(message: &mut RaftMessage) {
    message.snapshot = None;
    for number in [
        &mut message.request_snapshot,
        &mut message.term,
        &mut message.log_term,
        &mut message.index,
        &mut message.commit,
        &mut message.commit_term,
        &mut message.reject_hint,
    ] {
        *number %= 12;
    }
    message.log_term = message.log_term.min(message.term);
    let (mut index, term) = (message.index, message.term);
    for entry in &mut message.entries {
        index += 1;
        (entry.index, entry.term, entry.kind) = (index, term, entry.kind % 3);
    }
}

#[test]
fn fuzz_core_raft_messages() {
    let target = Target::new("core/raft_messages").cases(300);
    target.run(vec(action(), 0..200), |actions| {
        let mut net = Net::new();
        for action in actions {
            net.act(action);
        }
    });
}
