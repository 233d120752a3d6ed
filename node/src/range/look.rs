//! What placement asks of the spine's actor, and the heartbeats that pass through it.

use actix::prelude::*;
use flotilla_core::proto::internal::{
    Decision, Heartbeat, LeaseEnding, Member, RangeInfo, ReplicaProgress,
};
use flotilla_core::spine::{Parcel, Status};
use flotilla_core::{GroupId, NodeId};

use super::SpineActor;

/// Heartbeats that may wait for placement: about a second's of the largest cluster. A later one
/// says more than those before.
pub const HEARTBEATS_MAX: usize = 1_024;
/// Leases about to end that are told of.
const LEASES_ENDING_MAX: usize = 50;

/// Asks how the spine stands here.
#[derive(Debug, Message)]
#[rtype(result = "Looked")]
pub struct Look;

/// How the spine stands on this node, all at one moment.
#[derive(Debug, MessageResponse)]
pub struct Looked {
    /// Role, leader and term.
    pub status: Status,
    /// The members of the cluster.
    pub members: Vec<Member>,
    /// All ranges, as in `Replica::range_table`.
    pub ranges: Vec<RangeInfo>,
    /// How far the members have the spine's log. Of the leader only.
    pub replicas: Vec<ReplicaProgress>,
    /// A change of the membership is under way.
    pub is_changing: bool,
    /// Decisions of placement that have no outcome: their ids, and the milliseconds since 1970 at
    /// which they were made.
    pub open_decisions: Vec<(u64, u64)>,
    /// How many nodes are to hold each range.
    pub replicas_wanted: usize,
    /// Leases there are.
    pub leases_count: usize,
    /// Those that end first. Of the leader only.
    pub leases_ending: Vec<LeaseEnding>,
}

/// What this node has and does, on its way to the spine's leader. It may be lost.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Beat(pub Heartbeat);

impl SpineActor {
    /// To placement, which minds it if this node leads.
    pub(super) fn on_heartbeat(&self, from: NodeId, heartbeat: Heartbeat) {
        // When there is no room, the next does as well.
        let _ = self.parts.heartbeats.try_send((from, heartbeat));
    }
}

impl Handler<Look> for SpineActor {
    type Result = Looked;

    fn handle(&mut self, _: Look, _: &mut Self::Context) -> Looked {
        let replica = &self.parts.replica;
        let status = replica.status();
        let decisions = replica.state().decisions().iter();
        let is_open = |it: &&Decision| it.outcome.is_empty();
        let mut replicas = Vec::new();
        if status.is_leader {
            self.parts.meters.look(GroupId::SPINE, replica.group());
            replicas = self.parts.meters.replicas(GroupId::SPINE);
        }
        let ending = replica.leases_ending(LEASES_ENDING_MAX).into_iter();
        Looked {
            leases_count: replica.state().leases().len(),
            leases_ending: ending
                .map(|(id, left)| LeaseEnding {
                    lease: id.0,
                    seconds_left: left.secs,
                    ttl_seconds: left.ttl,
                })
                .collect(),
            status,
            members: replica.state().members().values().cloned().collect(),
            ranges: replica.range_table(),
            replicas,
            is_changing: !replica.state().conf().voters_outgoing.is_empty(),
            replicas_wanted: replica.state().replicas_wanted(),
            open_decisions: decisions.filter(is_open).map(|it| (it.id, it.time_ms)).collect(),
        }
    }
}

impl Handler<Beat> for SpineActor {
    type Result = ();

    fn handle(&mut self, Beat(heartbeat): Beat, _: &mut Self::Context) {
        let status = self.parts.replica.status();
        match status.leader {
            Some(_) if status.is_leader => {
                let me = NodeId(self.parts.board.member_id());
                self.on_heartbeat(me, heartbeat);
            }
            Some(leader) => self.parts.peers.send_one(leader, Parcel::Heartbeat(heartbeat)),
            None => {}
        }
    }
}
