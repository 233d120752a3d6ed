//! One group's log, taken as committed to its end; and what is written behind that.

use crate::group::{
    self, Append, Chance, Change, ChangeStep, Config, Effect, Entry, EntryKind, Group, HardState,
    Input, Position, Recovered, conf,
};
use crate::proto::internal::{ConfState, MemberChange};
use crate::{GroupId, NodeId};
use bytes::Bytes;
use prost::Message;

/// The entries after the stored state, in order, each with the membership from there on if it changes it.
pub(super) struct Log {
    node: NodeId,
    /// See above.
    pub(super) entries: Vec<(Entry, Option<Changed>)>,
    /// The membership at the end.
    pub(super) conf: ConfState,
    /// The last index that this member knew to be committed when it wrote that down last.
    pub(super) sure: u64,
    end: Position,
    reset: Option<Position>,
    hard_state: HardState,
    added: Vec<Entry>,
}

/// What consensus made of a change of the membership.
pub(super) type Changed = (Option<Change>, ConfState);

/// A group that is only asked what it would hand out draws nothing that matters.
struct NoChance;

impl Chance for NoChance {
    fn below(&mut self, _: u64) -> u64 {
        0
    }
}

impl Log {
    /// A leader acknowledges what a majority has written, and tells others of it later: what is at the
    /// end of this log may have been acknowledged, so all of it counts.
    ///
    /// # Errors
    /// Log and state cannot have come about together.
    pub(super) fn commit_all(
        group: GroupId,
        node: NodeId,
        mut log: Recovered,
    ) -> Result<Self, group::Error> {
        let reset = log.clone().check()?;
        if let Some(place) = reset {
            log.truncated = place;
            log.entries.clear();
            if log.hard_state.term < place.term {
                (log.hard_state.term, log.hard_state.vote) = (place.term, 0);
            }
        }
        let end = log.entries.last().map_or(log.truncated, Entry::position);
        let sure = log.hard_state.commit.max(log.applied.index);
        log.hard_state.commit = end.index.max(sure);
        let (hard_state, mut at) = (log.hard_state, log.applied.index);
        let mut machine = Group::new(Config::new(node, group), log, Box::new(NoChance))?;
        let (mut entries, mut changed, mut out) = (Vec::new(), None, Vec::new());
        while at < end.index {
            machine.step(Input::Wake, &mut out);
            let before = at;
            for effect in out.drain(..) {
                match effect {
                    Effect::ConfApplied { change, conf, .. } => changed = Some((change, conf)),
                    Effect::Commit(committed) => {
                        for entry in committed {
                            at = entry.index;
                            let is_change = entry.kind == EntryKind::Change;
                            entries.push((entry, changed.take_if(|_| is_change)));
                        }
                    }
                    _ => {}
                }
            }
            assert!(at > before, "what is committed is handed out: {at} of {}", end.index);
        }
        let conf = machine.conf();
        Ok(Self { node, entries, conf, sure, end, reset, hard_state, added: Vec::new() })
    }

    /// Index of the last entry, of those that were added as well.
    pub(super) fn last_index(&self) -> u64 {
        self.added.last().map_or(self.end.index, |entry| entry.index)
    }

    /// A later term than any that this member has heard of: nobody else has entries of it.
    fn term(&self) -> u64 {
        self.hard_state.term.max(self.end.term) + 1
    }

    /// Adds a command.
    pub(super) fn add(&mut self, data: impl Into<Bytes>) {
        let (index, term) = (self.last_index() + 1, self.term());
        self.added.push(Entry { index, term, data: data.into(), ..Entry::default() });
    }

    /// Adds the changes after which this member is alone, one after the other. `context` names what
    /// else they change.
    pub(super) fn add_changes_to_alone(&mut self, context: impl Fn(ChangeStep) -> MemberChange) {
        let me = self.node;
        if !self.conf.voters_outgoing.is_empty() {
            self.add_change(Change::default(), Bytes::new());
        }
        // What the joint membership leaves behind.
        let ConfState { voters, learners, learners_next, .. } = self.conf.clone();
        let votes = voters.contains(&me.0);
        let others = [voters, learners, learners_next].concat();
        let add = (!votes).then_some(ChangeStep::AddVoter(me));
        let others = others.into_iter().filter(|id| *id != me.0);
        let removals = others.map(|id| ChangeStep::Remove(NodeId(id)));
        for step in add.into_iter().chain(removals) {
            self.add_change(Change::one(step), context(step).encode_to_vec().into());
        }
        let voters = vec![me.0];
        self.conf = ConfState { voters, ..ConfState::default() };
    }

    fn add_change(&mut self, change: Change, context: Bytes) {
        let (index, term, kind) = (self.last_index() + 1, self.term(), EntryKind::Change);
        // Empty data leaves a joint membership.
        let data = if change.steps.is_empty() { Bytes::new() } else { change.encode() };
        self.added.push(Entry { index, term, kind, data, context });
    }

    /// Whether anything was added.
    pub(super) fn is_changed(&self) -> bool {
        !self.added.is_empty()
    }

    /// What is to be written: with it, all of the log is committed, and this member has voted for
    /// itself.
    pub(super) fn into_append(self) -> Append {
        let (term, commit) = (self.term(), self.last_index());
        let hard_state = HardState { term, vote: self.node.0, commit };
        Append { token: 0, reset: self.reset, hard_state, entries: self.added }
    }

    /// Whether a membership is this member and nobody else.
    pub(super) fn is_alone(&self) -> bool {
        let ConfState { voters, learners, voters_outgoing, .. } = &self.conf;
        *voters == [self.node.0]
            && learners.is_empty()
            && voters_outgoing.is_empty()
            && conf::has_member(&self.conf, self.node)
    }
}
