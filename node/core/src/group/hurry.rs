//! An election that is brought forward. When the connection to the leader's node breaks, its process
//! has mostly ended, and the others see the same at the same time. Nobody waits a whole election
//! timeout then, only for what a leader that lives would say meanwhile.
//!
//! It is a matter of time alone: votes are asked for before the term is raised, and whoever still hears of
//! the leader gives none.

use super::{Group, Part};
use crate::NodeId;

/// A leader that lives is heard of within one, unless a heartbeat is lost.
const HEARTBEATS_AWAITED: usize = 2;
/// The draw is from this part of an election timeout, so that one asks before the others.
const DRAWN_SHARE: usize = 3;

impl Group {
    /// The connection to a node has broken.
    pub(super) fn on_unreachable(&mut self, node: NodeId) {
        self.raft.report_unreachable(node.0);
        let is_asleep = self.is_asleep();
        let core = &mut self.raft.raft;
        let awaited = HEARTBEATS_AWAITED * core.heartbeat_timeout();
        let is_led_by_it = self.role.part == Part::Follower && self.role.leader == Some(node);
        // Behind a leader that sleeps nobody waits, and there may be thousands.
        if !is_led_by_it
            || is_asleep
            || !core.promotable()
            || !core.pre_vote
            || self.election_ticks <= awaited
        {
            return;
        }
        core.election_elapsed = core.election_elapsed.max(self.election_ticks - awaited);
        // One more, as a vote is given only by who has not heard of a leader for an election timeout.
        self.draw_timeout(self.election_ticks + 1, (self.election_ticks / DRAWN_SHARE).max(1));
    }
}
