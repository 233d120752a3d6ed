//! The tape: every trouble of a run, when it came and from which chance it drew. A reduced run takes
//! its troubles from the tape of the whole one, so that leaving one out does not make others of the
//! rest. A whole run only records, and draws as if there were no tape.
//!
//! What a run does between its troubles comes from one stream of chance. Up to the first thing that
//! was left out a reduced run therefore is the whole run, to the byte; from there on it is another,
//! in which the same troubles come at the same moments.

use std::fmt;

use super::chance::Chance;
use super::event::{Event, NodeEvent};
use super::plan::Fault;
use super::world::{Phase, World};

/// Everything that was done to a run.
#[derive(Clone, Debug, Default)]
pub struct Tape {
    /// In the order in which it was.
    pub troubles: Vec<Trouble>,
}

/// One trouble.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Its place on the tape of the whole run, from one.
    pub number: usize,
    /// When, in microseconds.
    pub at: u64,
    /// What.
    pub kind: Kind,
    /// Its place among all that was planned, for those of one moment.
    nth: u64,
    /// From where it draws.
    before: Chance,
    /// Where the chance of the run stood after it.
    after: Chance,
    /// What it planned in turn.
    planned_count: u64,
}

/// A kind of trouble on the tape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// One that comes by and by.
    Fault(Fault),
    /// The membership is taken a step on.
    Members,
    /// Something in the middle of a cut or a merge.
    Strike,
    /// A node loses power right after it gave a vote.
    AfterVote {
        /// The node.
        node: u64,
        /// When it comes back, in microseconds.
        start_at: u64,
        /// That life of the node was over already.
        is_void: bool,
    },
}

impl Kind {
    /// Whether it is one of the same kind, of whichever node.
    pub fn is_like(self, other: Self) -> bool {
        let are_after_votes =
            matches!((self, other), (Self::AfterVote { .. }, Self::AfterVote { .. }));
        self == other || are_after_votes
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fault(fault) => write!(f, "{fault:?}"),
            Self::Members => f.write_str("Members"),
            Self::Strike => f.write_str("Strike"),
            Self::AfterVote { node, .. } => write!(f, "crash of node {node} after a vote"),
        }
    }
}

impl World {
    pub(super) fn is_replay(&self) -> bool {
        self.replayed.is_some()
    }

    /// Plans a trouble, which a replay has on its tape.
    pub(super) fn plan_drawn(&mut self, wait: u64, event: Event) {
        if self.is_replay() {
            self.queue.skip(1);
        } else {
            self.after(wait, event);
        }
    }

    /// Plans everything that is on the tape, if there is one to replay.
    pub(super) fn plan_replay(&mut self) {
        let Some(tape) = &self.replayed else { return };
        for (place, trouble) in tape.troubles.iter().enumerate() {
            self.queue.push_as(trouble.at, trouble.nth, Event::Replay(place));
        }
    }

    /// A trouble that was drawn comes, and is recorded.
    pub(super) fn happen_drawn(&mut self, event: &Event) {
        let before = self.chance.clone();
        let kind = match event {
            Event::AfterVote { node, life, start_at } => {
                let is_void = self
                    .nodes
                    .get(node)
                    .is_none_or(|node| node.life != *life || node.running.is_none());
                Kind::AfterVote { node: *node, start_at: *start_at, is_void }
            }
            _ if self.phase > Phase::Trouble => return,
            Event::Members => Kind::Members,
            Event::Strike => Kind::Strike,
            _ => Kind::Fault(self.draw_fault()),
        };
        let planned_count = self.queue.count();
        // Recorded before it happens, which may be the end of the run.
        self.tape.troubles.push(Trouble {
            number: self.tape.troubles.len() + 1,
            at: self.now,
            kind,
            nth: self.nth,
            after: before.clone(),
            before,
            planned_count: 0,
        });
        self.carry_out_trouble(self.tape.troubles.len(), kind);
        let (after, planned) = (self.chance.clone(), self.queue.count() - planned_count);
        let trouble = self.tape.troubles.last_mut().expect("recorded above");
        (trouble.after, trouble.planned_count) = (after, planned);
    }

    /// A trouble of the tape comes, if it is not left out.
    pub(super) fn replay(&mut self, place: usize) {
        let tape = self.replayed.as_ref().expect("what is replayed is on a tape");
        let trouble = tape.troubles[place].clone();
        let is_in_step = self.chance == trouble.before;
        if !self.reduction.keeps(&trouble) {
            if is_in_step {
                self.chance = trouble.after;
            }
            self.queue.skip(trouble.planned_count);
            return;
        }
        let (number, kind) = (trouble.number, trouble.kind);
        let own = std::mem::replace(&mut self.chance, trouble.before.clone());
        self.tape.troubles.push(trouble);
        if matches!(kind, Kind::Fault(_)) {
            self.draw_fault();
        }
        if let Kind::AfterVote { start_at, node, .. } = kind {
            let start = Event::Start(node);
            self.queue.push_as(start_at.max(self.now), self.nth + 1, start);
        }
        self.carry_out_trouble(number, kind);
        if !is_in_step {
            self.chance = own;
        }
    }

    fn carry_out_trouble(&mut self, number: usize, kind: Kind) {
        self.say(|| format!("trouble {number}: {kind}"));
        match kind {
            Kind::Fault(fault) => self.make_trouble(fault),
            Kind::Members => self.change_members(),
            Kind::Strike => self.strike(),
            Kind::AfterVote { is_void: true, .. } => {}
            Kind::AfterVote { node, .. } => {
                self.see("crash after a vote");
                let life = self.nodes.get(&node).map(|node| node.life);
                if let Some(life) = life {
                    self.happen_on(node, life, NodeEvent::Broken(0, 0));
                }
            }
        }
    }
}
