//! Which peers are there: their connection stands and something was heard of them lately. Groups
//! that sleep rely on it, so every node makes itself heard once in a heartbeat interval, by one beat
//! for all of its groups. A beat also says whether its sender hears from the spine's leader: whoever
//! does not has his ranges led by others who do, as what he commits there is numbered by nobody.

use std::collections::{BTreeMap, BTreeSet};

use crate::range::replica::Input;
use crate::spine::replica::{Effect, Parcel, Replica};
use crate::time::Length;
use crate::view::{View, ViewError};
use crate::{GroupId, NodeId};

/// What takes longer the more ranges there are is done once in so many ticks.
const TICKS_PER_LOOK: usize = 25;

/// Election timeouts without a word of the spine's leader after which ranges are handed over: by then
/// there is another one, if there can be.
const CUT_OFF_TIMEOUTS: usize = 2;

/// Election timeouts that a flush of the log is waited for before others lead what is led here: slow
/// disks take less.
const STALLED_TIMEOUTS: u64 = 2;

/// What this node knows of its peers.
#[derive(Debug, Default)]
pub(super) struct Peers {
    ticks_count: usize,
    /// Ticks since something was heard of each.
    silent_ticks: BTreeMap<NodeId, usize>,
    alive: BTreeSet<NodeId>,
    /// Those that lead the spine or hear from who does, as their last beats say.
    following: BTreeSet<NodeId>,
    /// Ticks since this node did.
    cut_off_ticks: usize,
    /// Ticks since the log's disk has counted as stalled.
    stalled_ticks: usize,
}

impl Replica {
    pub(super) fn hear(&mut self, peer: NodeId) {
        self.peers.silent_ticks.insert(peer, 0);
    }

    pub(super) fn tick_peers(&mut self) {
        for silent_ticks in self.peers.silent_ticks.values_mut() {
            *silent_ticks += 1;
        }
        self.look_for_peers();
        let follows_spine = self.follows_spine();
        self.hand_over_if_cut_off(follows_spine);
        self.peers.ticks_count += 1;
        let is_due = self.peers.ticks_count.is_multiple_of(self.config.group.heartbeat_ticks);
        // Where there is one group only, it never sleeps.
        if is_due && !self.state.ranges().is_empty() {
            for peer in self.connected.keys() {
                self.out.push(Effect::Send(*peer, Parcel::Beat { follows_spine }));
            }
        }
    }

    pub(super) fn hear_beat(&mut self, peer: NodeId, follows_spine: bool) {
        if follows_spine {
            self.peers.following.insert(peer);
        } else {
            self.peers.following.remove(&peer);
        }
    }

    /// Whether this node leads the spine or hears from who does.
    fn follows_spine(&self) -> bool {
        let leader = self.status.leader;
        self.status.is_leader || leader.is_some_and(|leader| self.peers.alive.contains(&leader))
    }

    /// Without a leader of the spine nobody hears from one, and nothing is handed over.
    fn hand_over_if_cut_off(&mut self, follows_spine: bool) {
        if follows_spine {
            self.peers.cut_off_ticks = 0;
            return;
        }
        self.peers.cut_off_ticks += 1;
        let timeout = self.config.group.election_ticks;
        let (timeouts, since) =
            (self.peers.cut_off_ticks / timeout, self.peers.cut_off_ticks % timeout);
        if timeouts < CUT_OFF_TIMEOUTS || since != 0 {
            return;
        }
        let others: BTreeSet<NodeId> =
            self.peers.alive.intersection(&self.peers.following).copied().collect();
        if !others.is_empty() {
            self.tell_all(|| Input::CutOff(others.clone()));
        }
    }

    /// What is proposed here has no end while the log's disk does not answer. It is tried again as long
    /// as that lasts: who was to lead may not have come to it.
    pub(super) fn hand_over_if_stalled(&mut self, view: &dyn View) -> Result<(), ViewError> {
        if !self.is_disk_stalled() {
            self.peers.stalled_ticks = 0;
            return Ok(());
        }
        let is_due = self.peers.stalled_ticks.is_multiple_of(self.config.group.election_ticks);
        self.peers.stalled_ticks += 1;
        if !is_due {
            return Ok(());
        }
        self.tell_all(|| Input::DiskStalled);
        if self.group.transferee().is_some() {
            return Ok(());
        }
        self.on_hand_over(view)
    }

    /// Whether the log's disk has not answered for so long that this node is to lead nothing.
    pub fn is_disk_stalled(&self) -> bool {
        self.disk_stalled >= Length(self.config.election_timeout.0 * STALLED_TIMEOUTS)
    }

    /// Whether it is time to look what all ranges want.
    pub(super) fn is_look_due(&self) -> bool {
        self.peers.ticks_count.is_multiple_of(TICKS_PER_LOOK)
    }

    /// Tells every replica here when a peer has come or gone.
    pub(super) fn look_for_peers(&mut self) {
        let ticks_max = self.config.group.election_ticks;
        let heard = self.peers.silent_ticks.iter().filter(|(_, silent)| **silent <= ticks_max);
        let alive = heard.map(|(peer, _)| *peer).filter(|peer| self.connected.contains_key(peer));
        let alive: BTreeSet<NodeId> = alive.collect();
        if alive != self.peers.alive {
            self.peers.alive = alive.clone();
            self.tell_all(|| Input::Alive(alive.clone()));
        }
    }

    /// A replica may have begun after the last news.
    pub(super) fn tell_alive(&mut self, range: GroupId) {
        let alive = self.peers.alive.clone();
        self.tell(range, Input::Alive(alive));
    }
}
