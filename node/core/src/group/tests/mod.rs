//! Tests of one group: unit tests by concern, and a simulated network whose every event is checked.

mod admission;
mod durability;
mod leadership;
mod log;
mod membership;
mod network;
mod random;
mod recovery;
mod replication;
mod retention;
mod sleep;
mod snapshots;
mod tickets;

use bytes::Bytes;

use super::*;
use crate::proto::internal::{ConfState, RaftMessage, SnapshotMark};
use network::Network;

/// A source of chance from a seed (splitmix64).
#[derive(Clone, Debug)]
struct Seeded(u64);

impl Seeded {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// True in `percent` of a hundred cases.
    fn is_hit(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

impl Chance for Seeded {
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

const GROUP: GroupId = GroupId(5);

fn config(id: u64) -> Config {
    Config {
        election_ticks: 6,
        heartbeat_ticks: 2,
        sleep_after_ticks: 8,
        message_bytes_max: 1000,
        inflight_messages_max: 4,
        uncommitted_bytes_max: 4000,
        commit_bytes_max: 2000,
        ..Config::new(NodeId(id), GROUP)
    }
}

fn voters(ids: impl IntoIterator<Item = u64>) -> ConfState {
    ConfState { voters: ids.into_iter().collect(), ..ConfState::default() }
}

fn start(id: u64, recovered: Recovered) -> Group {
    Group::new(config(id), recovered, Box::new(Seeded(id))).unwrap()
}

fn step(group: &mut Group, input: Input) -> Vec<Effect> {
    let mut out = Vec::new();
    group.step(input, &mut out);
    out
}

fn message(kind: Kind, from: u64, to: u64, term: u64) -> RaftMessage {
    RaftMessage { group: GROUP.0, kind: kind as u32, from, to, term, ..RaftMessage::default() }
}

fn command(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn entry(index: u64, term: u64, text: &str) -> Entry {
    Entry { index, term, data: command(text), ..Entry::default() }
}

fn appends(out: &[Effect]) -> Vec<Append> {
    let pick = |effect: &Effect| match effect {
        Effect::Append(append) => Some(append.clone()),
        _ => None,
    };
    out.iter().filter_map(pick).collect()
}

/// The kinds and receivers of what is sent.
fn sent(out: &[Effect]) -> Vec<(Kind, u64)> {
    messages(out)
        .into_iter()
        .map(|message| (Kind::from_number(message.kind).unwrap(), message.to))
        .collect()
}

fn messages(out: &[Effect]) -> Vec<RaftMessage> {
    let pick = |effect: &Effect| match effect {
        Effect::Send(message) => Some(message.clone()),
        _ => None,
    };
    out.iter().filter_map(pick).collect()
}

fn committed(out: &[Effect]) -> Vec<u64> {
    let pick = |effect: &Effect| match effect {
        Effect::Commit(entries) => entries.iter().map(|entry| entry.index).collect(),
        _ => Vec::new(),
    };
    out.iter().flat_map(pick).collect()
}

fn refusals(out: &[Effect]) -> Vec<Refusal> {
    let pick = |effect: &Effect| match effect {
        Effect::Refused(refusal) => Some(*refusal),
        _ => None,
    };
    out.iter().filter_map(pick).collect()
}

fn ignored(out: &[Effect]) -> Vec<Ignored> {
    let pick = |effect: &Effect| match effect {
        Effect::Ignored { reason, .. } => Some(*reason),
        _ => None,
    };
    out.iter().filter_map(pick).collect()
}
