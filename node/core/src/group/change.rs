//! A change of a group's membership: its steps and its encoding in an entry. Owns the encoding,
//! which is that of raft-rs's `ConfChangeV2`, because raft-rs reads back what it is asked to
//! propose. Entries from other nodes are decoded here by prost and never by rust-protobuf.

use bytes::Bytes;
use prost::Message;
use raft::eraftpb;

use crate::NodeId;

/// One step of a membership change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChangeStep {
    /// Adds a voter, or promotes a learner.
    AddVoter(NodeId),
    /// Adds a learner, or demotes a voter.
    AddLearner(NodeId),
    /// Removes a voter or a learner.
    Remove(NodeId),
}

/// A membership change. One step is carried out at once; several go through a joint membership,
/// which the group leaves by itself. No steps: leave a joint membership now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Carried out in order, as one.
    pub steps: Vec<ChangeStep>,
}

impl Change {
    /// A change of one step.
    pub fn one(step: ChangeStep) -> Self {
        Self { steps: vec![step] }
    }

    /// Whether it gives a node a part in the group.
    pub fn adds(&self, node: NodeId) -> bool {
        let adds = |step: &ChangeStep| {
            *step == ChangeStep::AddVoter(node) || *step == ChangeStep::AddLearner(node)
        };
        self.steps.iter().any(adds)
    }

    /// An entry's data.
    pub fn encode(&self) -> Bytes {
        let changes = self.steps.iter().map(|step| RawStep::from_step(*step)).collect();
        RawChange { transition: 0, changes, context: Bytes::new() }.encode_to_vec().into()
    }

    /// From an entry's data; `None` if it is not a membership change, which every node then
    /// ignores alike.
    pub fn decode(data: Bytes) -> Option<Self> {
        let raw = RawChange::decode(data).ok()?;
        if raw.transition != 0 || !raw.context.is_empty() {
            return None;
        }
        let steps = raw.changes.iter().map(RawStep::to_step).collect::<Option<_>>()?;
        Some(Self { steps })
    }

    /// As raft-rs wants it.
    pub(super) fn to_raft(&self) -> eraftpb::ConfChangeV2 {
        let mut raft_change = eraftpb::ConfChangeV2::default();
        for step in &self.steps {
            let (kind, node) = match *step {
                ChangeStep::AddVoter(node) => (eraftpb::ConfChangeType::AddNode, node),
                ChangeStep::AddLearner(node) => (eraftpb::ConfChangeType::AddLearnerNode, node),
                ChangeStep::Remove(node) => (eraftpb::ConfChangeType::RemoveNode, node),
            };
            let mut single = eraftpb::ConfChangeSingle::default();
            single.set_change_type(kind);
            single.node_id = node.0;
            raft_change.mut_changes().push(single);
        }
        raft_change
    }
}

/// `eraftpb.ConfChangeV2`.
#[derive(Clone, PartialEq, Message)]
struct RawChange {
    #[prost(uint32, tag = "1")]
    transition: u32,
    #[prost(message, repeated, tag = "2")]
    changes: Vec<RawStep>,
    #[prost(bytes = "bytes", tag = "3")]
    context: Bytes,
}

/// `eraftpb.ConfChangeSingle`.
#[derive(Clone, PartialEq, Message)]
struct RawStep {
    #[prost(uint32, tag = "1")]
    kind: u32,
    #[prost(uint64, tag = "2")]
    node: u64,
}

impl RawStep {
    fn from_step(step: ChangeStep) -> Self {
        match step {
            ChangeStep::AddVoter(node) => Self { kind: 0, node: node.0 },
            ChangeStep::Remove(node) => Self { kind: 1, node: node.0 },
            ChangeStep::AddLearner(node) => Self { kind: 2, node: node.0 },
        }
    }

    fn to_step(&self) -> Option<ChangeStep> {
        let node = NodeId(self.node);
        if node == NodeId(0) {
            return None;
        }
        match self.kind {
            0 => Some(ChangeStep::AddVoter(node)),
            1 => Some(ChangeStep::Remove(node)),
            2 => Some(ChangeStep::AddLearner(node)),
            _ => None,
        }
    }
}
