//! Frames that no node would send, among three that hold ranges: requests that nobody has looked at,
//! answers to what was not asked, questions of anything, news of transactions that do not exist.

use bytes::Bytes;
use flotilla_fuzz::{Target, number};
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;

use super::{Cluster, put};
use crate::NodeId;
use crate::command::Command;
use crate::fuzz::messages;
use crate::proto::internal::{Forward, PeerFrame};
use crate::spine::replica::Input;
use crate::spine::state::State;

/// What is forwarded, and its number between nodes.
const REQUESTS: [(u32, &str); 25] = [
    (1, "etcdserverpb.PutRequest"),
    (2, "etcdserverpb.DeleteRangeRequest"),
    (3, "etcdserverpb.TxnRequest"),
    (4, "etcdserverpb.CompactionRequest"),
    (5, "etcdserverpb.LeaseGrantRequest"),
    (6, "etcdserverpb.LeaseRevokeRequest"),
    (7, "etcdserverpb.LeaseKeepAliveRequest"),
    (8, "etcdserverpb.LeaseTimeToLiveRequest"),
    (9, "flotilla.internal.Member"),
    (10, "etcdserverpb.MemberRemoveRequest"),
    (11, "etcdserverpb.MemberUpdateRequest"),
    (12, "etcdserverpb.MemberPromoteRequest"),
    (13, "flotilla.internal.MemberAttributes"),
    (14, "etcdserverpb.AlarmRequest"),
    (15, "etcdserverpb.MoveLeaderRequest"),
    (16, "flotilla.internal.SplitRequest"),
    (17, "flotilla.internal.MergeRequest"),
    (18, "flotilla.internal.MemberDrain"),
    (19, "flotilla.internal.Decision"),
    (20, "flotilla.internal.DecisionOutcome"),
    (21, "flotilla.internal.ReplicasRequest"),
    (22, "flotilla.internal.ReplicasWanted"),
    (23, "flotilla.internal.AuthChange"),
    (24, "flotilla.internal.AuthToken"),
    (25, "flotilla.internal.SpineVote"),
];

#[derive(Clone, Debug)]
enum Action {
    /// A request that looks as if it were forwarded.
    Forward { from: u64, to: u64, kind: u32, body: Vec<u8>, n: u64 },
    /// Anything else that is in a frame.
    Frame { from: u64, to: u64, frame: Vec<u8>, is_plausible: bool },
    /// Time passes.
    Ticks(usize),
}

fn action() -> impl Strategy<Value = Action> {
    let messages = messages();
    let frame = messages.encoded("flotilla.internal.PeerFrame");
    let requests = REQUESTS.map(|(kind, name)| (Just(kind), messages.encoded(name)).boxed());
    let request = proptest::sample::select(requests.to_vec()).prop_flat_map(|request| request);
    let ends = || (1..4_u64, 1..4_u64);
    prop_oneof![
        4 => (ends(), request, number())
            .prop_map(|((from, to), (kind, body), n)| Action::Forward { from, to, kind, body, n }),
        4 => (ends(), frame, any::<bool>()).prop_map(|((from, to), frame, is_plausible)| {
            Action::Frame { from, to, frame, is_plausible }
        }),
        1 => (1..30_usize).prop_map(Action::Ticks),
    ]
}

/// Ranges that exist, and numbers that nodes give.
fn plausible(frame: &mut PeerFrame) {
    for txn in &mut frame.txns {
        txn.range %= 3;
        if let Some(id) = &mut txn.id {
            (id.origin, id.n) = (101 + id.origin % 3, id.n % 8);
        }
    }
    for transfer in &mut frame.transfers {
        (transfer.range, transfer.to) = (transfer.range % 3, transfer.to % 4);
    }
    for ask in &mut frame.asks {
        (ask.range, ask.index, ask.revision) = (ask.range % 3, ask.index % 8, ask.revision % 8);
    }
    for told in &mut frame.told {
        (told.origin, told.n) = (101 + told.origin % 3, told.n % 8);
    }
    for left in &mut frame.left {
        left.range %= 3;
    }
    for answer in &mut frame.answers {
        (answer.origin, answer.n) = (101 + answer.origin % 3, answer.n % 8);
    }
}

impl Cluster {
    fn act(&mut self, action: Action) {
        let (from, to, frame) = match action {
            Action::Ticks(count) => return self.tick(count),
            Action::Forward { from, to, kind, body, n } => {
                let body = Bytes::from(body);
                assert!(Command::decode(kind, body.clone()).is_some(), "a request of kind {kind}");
                let forward = Forward { origin: 100 + from, n, kind, body, ..Forward::default() };
                (from, to, PeerFrame { forwards: vec![forward], ..PeerFrame::default() })
            }
            Action::Frame { from, to, frame, is_plausible } => {
                let mut frame = PeerFrame::decode(&frame[..]).expect("it is valid");
                // Consensus has a target of its own. What is committed and what was decided is a fact
                // that its sender alone knows.
                (frame.raft, frame.refs, frame.records) = (Vec::new(), Vec::new(), Vec::new());
                frame.forwards.clear();
                if is_plausible {
                    plausible(&mut frame);
                }
                (from, to, frame)
            }
        };
        if from != to {
            self.inputs.push_back((to, Input::Frame(NodeId(from), frame)));
            self.inputs.push_back((to, Input::Turn));
            self.settle();
        }
    }
}

#[test]
fn fuzz_core_frames() {
    let target = Target::new("core/frames").cases(200).bytes_max(64 << 20);
    target.run(vec(action(), 0..40), |actions| {
        let mut state = State::bootstrap(7, Cluster::members(&[1, 2, 3]));
        state.pre_split(&["a".into(), "b".into()], &[NodeId(1), NodeId(2), NodeId(3)]);
        let mut cluster = Cluster::of(&[1, 2, 3], state);
        for action in actions {
            cluster.act(action);
        }
        cluster.submit(1, u64::MAX, put("\0"));
        cluster.tick(200);
        assert!(cluster.nodes[&1].answers.contains_key(&u64::MAX), "nobody answered");
        let states: Vec<&State> = cluster.nodes.values().map(|node| node.replica.state()).collect();
        for state in &states {
            if state.position() == states[0].position() {
                assert_eq!(*state, states[0], "the same log means the same state");
            }
        }
    });
}
