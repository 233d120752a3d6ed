//! What is applied: tasks, their steps, and the answers that wait for them. It runs behind the fold,
//! away from the Raft path, and never decides anything; `stage` makes a batch of it.

use bytes::Bytes;

use crate::auth::Pass;
use crate::command::{Answer, Outcome, RequestId};
use crate::mvcc;
use crate::proto::etcdserverpb::ResponseHeader;
use crate::proto::internal;
use crate::proto::mvccpb::KeyValue;
use crate::spine::state::Position;
use crate::time::Time;
use crate::view::{Batch, ViewError};
use crate::{Error, GroupId, NodeId};

/// Who waits for an answer: the request, and the node its client talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Requester {
    /// The request.
    pub id: RequestId,
    /// Where its client is.
    pub node: NodeId,
    /// What it was let in with.
    pub pass: Pass,
}

/// What is answered once a record is applied.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// All but the revision in its header.
    Done(Answer),
    /// Lacks the revision of the write, and perhaps the value it replaced.
    Draft(mvcc::Draft),
    /// The record was void.
    Refused(Error),
}

/// An answer that is given once its entry is applied (I11).
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// Who gets it.
    pub to: Requester,
    /// The answer.
    pub content: Content,
    /// For its header.
    pub revision: i64,
    /// How it got here.
    pub way: Way,
}

/// When a write came to the stations of its way on the leader; zero where that is not known. A
/// machine knows the first. The others are what the driver did, and it fills them in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Way {
    /// Its latches were asked for.
    pub begun: Time,
    /// Its entry was handed to the log and to the peers.
    pub proposed: Time,
    /// The entry is durable here.
    pub flushed: Time,
    /// A quorum has it.
    pub committed: Time,
    /// It has its place in the order, and was handed to the store.
    pub ordered: Time,
}

/// An answer that may be given: its write is in the store.
#[derive(Clone, Debug)]
pub struct Answered {
    /// Who gets it.
    pub to: Requester,
    /// The answer.
    pub outcome: Outcome,
    /// How its write got here.
    pub way: Way,
}

impl Reply {
    fn wants_previous(&self) -> bool {
        matches!(&self.content, Content::Draft(draft) if draft.wants_prev())
    }

    fn finish(self, previous: Option<KeyValue>) -> Outcome {
        match self.content {
            Content::Refused(error) => Err(error),
            Content::Draft(draft) => Ok(draft.settle(self.revision, previous)),
            Content::Done(mut answer) => {
                stamp(&mut answer, self.revision);
                Ok(answer)
            }
        }
    }
}

/// Headers of leases, compaction and alarms tell the revision; those of the cluster do not.
fn stamp(answer: &mut Answer, revision: i64) {
    let slot = match answer {
        Answer::LeaseGrant(answer) => &mut answer.header,
        Answer::LeaseRevoke(answer) => &mut answer.header,
        Answer::Compact(answer) => &mut answer.header,
        Answer::Alarm(answer) => &mut answer.header,
        Answer::Put(_)
        | Answer::DeleteRange(_)
        | Answer::Txn(_)
        | Answer::LeaseKeepAlive(_)
        | Answer::LeaseTimeToLive(_)
        | Answer::MemberAdd(_)
        | Answer::MemberRemove(_)
        | Answer::MemberUpdate(_)
        | Answer::MemberPromote(_)
        | Answer::SpineVote(_)
        | Answer::MemberAttributes(_)
        | Answer::MemberDrain(_)
        | Answer::Decide(_)
        | Answer::Conclude(_)
        | Answer::Replicas(_)
        | Answer::ReplicasWanted(_)
        | Answer::MoveLeader(_)
        | Answer::Split(_)
        | Answer::Merge(_)
        | Answer::AuthChange(_)
        | Answer::AuthToken(_) => return,
    };
    *slot = Some(ResponseHeader { revision, ..ResponseHeader::default() });
}

/// One record's share of an entry.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Step {
    /// The revision its effects have; 0 when there are none.
    pub revision: i64,
    /// Changed keys.
    pub effects: Vec<internal::Effect>,
    /// The sub-revision of each effect, if they do not count up from 0.
    pub subs: Vec<u64>,
    /// Who waits on this node's word.
    pub reply: Option<Reply>,
}

/// A range was cut in two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// It keeps what is before the key.
    pub parent: GroupId,
    /// It begins with the key.
    pub child: GroupId,
    /// Where.
    pub key: Bytes,
    /// Of the parent from then on: a replica of it that has this one has come so far.
    pub generation: u64,
}

/// A range was merged into the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Join {
    /// It has the keys of both.
    pub left: GroupId,
    /// It has ceased.
    pub right: GroupId,
    /// The decision's name.
    pub id: RequestId,
    /// Index in the left range's log at which it was locked.
    pub left_at: u64,
}

/// A folded entry.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Task {
    /// Where the state stands after it.
    pub position: Position,
    /// Its records in order.
    pub steps: Vec<Step>,
    /// Changed rows of the spine's state.
    pub rows: Batch,
    /// Other ranges whose writes were numbered, up to these sequence numbers.
    pub assigned: Vec<(GroupId, u64)>,
    /// New ranges. This node holds a replica of each from here on, or will once the parent's has come
    /// so far.
    pub cuts: Vec<Cut>,
    /// Those of them whose replica begins here, as `rows` has it.
    pub begun: Vec<GroupId>,
    /// Those of them of which this node holds no replica.
    pub elsewhere: Vec<GroupId>,
    /// Ranges that ceased. Replicas here take over when they have come so far.
    pub merged: Vec<Join>,
    /// Transactions that change other ranges, and the index at which each has locked its keys.
    pub committed: Vec<(GroupId, RequestId, u64)>,
}

/// What steps come to.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    /// The change.
    pub batch: Batch,
    /// What watchers are owed, in the order of the steps.
    pub events: Vec<mvcc::Event>,
    /// Answers to give once the batch is in the store.
    pub replies: Vec<Answered>,
}

impl Applied {
    /// Adds what a step comes to.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn carry_out(
        &mut self,
        step: Step,
        applier: &mut mvcc::Applier<'_>,
    ) -> Result<(), ViewError> {
        let mut previous = None;
        if step.revision != 0 && !step.subs.is_empty() {
            applier.apply_share(
                step.revision,
                &step.effects,
                &step.subs,
                &mut self.batch,
                &mut self.events,
            )?;
        } else if step.revision != 0 {
            let wants_previous = step.reply.as_ref().is_some_and(Reply::wants_previous);
            previous = applier.apply(
                step.revision,
                &step.effects,
                wants_previous,
                &mut self.batch,
                &mut self.events,
            )?;
        }
        if let Some(reply) = step.reply {
            let (to, way) = (reply.to, reply.way);
            self.replies.push(Answered { to, outcome: reply.finish(previous), way });
        }
        Ok(())
    }
}
