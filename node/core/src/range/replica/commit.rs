//! What consensus asks for, and the join: a committed write is applied when its number is known.

use std::mem;

use prost::Message;

use crate::Error;
use crate::auth::Pass;
use crate::group::{self, Entry, EntryKind, Ignored, Part};
use crate::mutant::{self, Mutant};
use crate::proto::internal::{ConfState, RaftMessage, RangeEntry, RangeWrite, Resolve};
use crate::range::latch::Guard;
use crate::range::numbering::{Numbering, Verdict};
use crate::range::replica::merge::is_finished;
use crate::range::replica::report::Reported;
use crate::range::replica::write::Waiting;
use crate::range::replica::{Effect, Replica, Task};
use crate::range::run;
use crate::range::stored::{self, Position, Stored};
use crate::spine::apply::{Content, Reply, Requester, Step, Way};
use crate::time::Length;
use crate::view::{Batch, View, ViewError};
use crate::{NodeId, command::RequestId};

/// A committed entry that is not joined yet.
#[derive(Debug)]
pub(super) struct Staged {
    pub(super) index: u64,
    term: u64,
    /// Sequence number of the first of the writes.
    first: u64,
    pub(super) writes: Vec<RangeWrite>,
    resolves: Vec<Resolve>,
    /// See `RangeEntry`.
    settles: u64,
    /// What the log has noted by then.
    noted: u64,
    /// The membership from here on, if it changes.
    conf: Option<ConfState>,
}

impl Staged {
    pub(super) fn seqs(&self) -> std::ops::Range<u64> {
        self.first..self.first + self.writes.len() as u64
    }
}

/// What was proposed by an earlier leadership is remembered this long: its clients have been told
/// of a time-out by then.
const PROPOSED_FORGET_AFTER: Length = Length::from_secs(60);

impl Replica {
    pub(super) fn on_group_effect(&mut self, effect: group::Effect) {
        match effect {
            group::Effect::Role(role) => self.on_role(role),
            group::Effect::Send(message) => {
                self.out.push(Effect::Send(RaftMessage { since: self.since(), ..message }));
            }
            group::Effect::SendSnapshot { to, message } => {
                self.out.push(Effect::SendSnapshot(to, message));
            }
            group::Effect::Append(append) => self.out.push(Effect::Append(append)),
            group::Effect::Truncate(position) => self.out.push(Effect::Truncate(position)),
            group::Effect::Install { mark } => self.on_install(mark),
            group::Effect::ConfApplied { index, change, conf } => {
                self.conf_applied = Some((index, change, conf));
            }
            group::Effect::Commit(entries) => entries.into_iter().for_each(|it| self.stage(it)),
            // A write is known by its request when it is joined.
            group::Effect::Proposed { .. } => {}
            group::Effect::Refused(refusal) => self.refusal = Some(refusal),
            // Reads take tickets of the spine.
            group::Effect::TicketReady { context, index } => {
                self.on_caught_up_to(context, Some(index));
            }
            group::Effect::TicketDropped { context } => self.on_caught_up_to(context, None),
            group::Effect::SnapshotRefused(reason) => {
                self.out.push(Effect::SnapshotRefused(reason));
            }
            // A replica that has nothing yet has lost nothing: the message was meant for one that
            // was here before. What that one had acknowledged is no reason to send it nothing.
            group::Effect::Ignored { from, kind, reason: Ignored::LostEntries }
                if self.applied.index == 0 =>
            {
                for message in self.group.has_nothing(from) {
                    self.out.push(Effect::Send(RaftMessage { since: self.since(), ..message }));
                }
                self.out.push(Effect::Ignored(from, kind, Ignored::Stale));
            }
            group::Effect::Ignored { from, kind, reason } => {
                self.out.push(Effect::Ignored(from, kind, reason));
            }
        }
    }

    fn on_role(&mut self, role: group::Role) {
        let (is_leader, was_leader) = (role.part == Part::Leader, self.role.part == Part::Leader);
        let is_new_term = role.term != self.role.term;
        if was_leader && (!is_leader || is_new_term) {
            self.stop_leading();
        }
        if is_leader && (!was_leader || is_new_term) {
            // Until the first entry of the term is joined, nobody knows where the inheritance ends.
            self.drain_index = Some(u64::MAX);
            self.noting = self.numbering.noted();
            // What an earlier leadership reported may have been lost with it.
            self.reported = Reported::default();
            self.doubt_members();
        }
        self.role = role;
        self.out.push(Effect::Role(role));
    }

    /// The leader's volatile state ends with the leadership. What was proposed stays remembered:
    /// it may still be committed.
    fn stop_leading(&mut self) {
        self.drain_index = None;
        self.latches.clear();
        for proposed in self.proposed.values_mut() {
            proposed.guard = None;
        }
        self.unapplied.clear();
        self.drop_tickets();
        for (_, waiting) in mem::take(&mut self.waiting) {
            match waiting {
                Waiting::Write { to, command, .. } => {
                    self.out.push(Effect::Unproposed(to, command));
                }
                Waiting::Prepare { id, .. } => self.out.push(Effect::PrepareFailed(id)),
            }
        }
        for (to, command) in mem::take(&mut self.parked) {
            self.out.push(Effect::Unproposed(to, command));
        }
        self.drop_gathered(Error::LeaderChanged);
        self.stop_txns();
        self.report_due = None;
        self.note_due = None;
    }

    /// Writes that were gathered and that consensus did not take: nothing of them is in any log.
    pub(super) fn drop_gathered(&mut self, error: Error) -> Vec<Guard> {
        self.writes_bytes = 0;
        let mut guards = self.drop_gathered_txns();
        for write in mem::take(&mut self.writes) {
            let to = requester(&write);
            if let Some(proposed) = self.proposed.remove(&to.id) {
                guards.extend(proposed.guard);
                self.out.push(Effect::Reply(to, Err(error)));
            }
        }
        guards
    }

    fn stage(&mut self, entry: Entry) {
        let (index, term) = (entry.index, entry.term);
        self.flushed.add(entry.memory_bytes() as u64);
        let conf = match entry.kind {
            EntryKind::Normal => None,
            EntryKind::Change => {
                let applied = self.conf_applied.take();
                let (at, _, conf) = applied.expect("a change is announced before its entry");
                assert!(at == index, "change of {at} announced for {index}");
                Some(conf)
            }
        };
        let data = if entry.kind == EntryKind::Normal { entry.data } else { Default::default() };
        let content = RangeEntry::decode(data)
            .unwrap_or_else(|error| panic!("committed entry {index} is damaged: {error}"));
        for run in &content.notes {
            self.numbering.learn(run);
        }
        if let Some(last) = content.notes.last() {
            self.numbering.set_noted(run::last(last));
        }
        let first = self.committed + 1;
        self.committed += content.writes.len() as u64;
        if self.drain_index == Some(u64::MAX) && term == self.role.term {
            self.drain_index = Some(index);
        }
        let noted = self.numbering.noted();
        let writes = content.writes;
        self.stage_txns(index, content.prepares, &content.resolves);
        let (resolves, settles) = (content.resolves, content.settles);
        let staged = Staged { index, term, first, writes, resolves, settles, noted, conf };
        self.staged.push_back(staged);
    }

    /// Hands on what is committed here and numbered there (I6). The order of the range's log is
    /// the order of the numbers (I3).
    pub(super) fn join(&mut self, view: &dyn View) -> Result<(), ViewError> {
        // What is staged while the state is replaced is contained in what comes, and what comes after
        // a removal is not this node's.
        while self.installing.is_none()
            && !self.is_removed()
            && !self.lacks_numbers()
            && (mutant::is(Mutant::MergeNotAwaited) || !self.awaits_merge(view)?)
            && let Some(staged) = self.staged.pop_front()
        {
            self.join_entry(staged);
        }
        Ok(())
    }

    /// Whether the next entry waits until a replica here has applied all of its range, whose keys
    /// are this range's from there on.
    fn awaits_merge(&mut self, view: &dyn View) -> Result<bool, ViewError> {
        let Some(front) = self.staged.front() else { return Ok(false) };
        for resolve in &front.resolves {
            let Some(merge) = self.merge_to_join(resolve) else { continue };
            if !is_finished(&merge, view)? {
                self.ask_to_finish(&merge);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether the next entry waits for the numbers of its writes.
    pub(super) fn lacks_numbers(&self) -> bool {
        let front = self.staged.front();
        front.is_some_and(|it| it.seqs().any(|seq| self.numbering.verdict(seq).is_none()))
    }

    fn join_entry(&mut self, staged: Staged) {
        let seqs = staged.seqs();
        assert!(
            staged.index > self.joined.index && seqs.start == self.joined.seq + 1,
            "entries are joined in order: {} with {seqs:?} after {:?}",
            staged.index,
            self.joined
        );
        let seq = seqs.end - 1;
        let mut steps = Vec::with_capacity(staged.writes.len());
        let mut resolved = Vec::new();
        let (mut children, mut ended) = (Vec::new(), Vec::new());
        for resolve in staged.resolves {
            let (split, merge) = (resolve.split.clone(), resolve.merge.clone());
            let id = self.join_resolve(staged.index, resolve, &mut steps);
            if let Some(merge) = merge.filter(|_| id.is_some()) {
                ended.push(self.take_over(&merge));
            }
            children.extend(split.filter(|_| id.is_some()).map(|split| self.split_off(&split)));
            resolved.extend(id);
        }
        for (seq, write) in seqs.zip(staged.writes) {
            let verdict = self.numbering.verdict(seq).expect("checked before");
            steps.push(self.join_write(staged.index, write, verdict));
        }
        self.joined = Position { index: staged.index, term: staged.term, seq };
        let is_conf_new = staged.conf.is_some();
        if let Some(conf) = staged.conf {
            self.join_conf(conf);
        }
        self.join_settled(staged.settles);
        self.numbering.set_applied(seq);
        let stored = Stored {
            position: self.joined,
            noted: staged.noted,
            conf: self.holders.conf.clone(),
            conf_changed: self.holders.changed_at,
            is_conf_settled: self.holders.is_settled,
            prepared: if mutant::is(Mutant::LocksNotStored) {
                Vec::new()
            } else {
                self.stored_prepared()
            },
            span: self.span.clone(),
            generation: self.generation,
        };
        let mut rows = Batch::default();
        stored.write(self.config.range, &mut rows);
        let mut begun = Vec::new();
        for (child, stored) in children {
            stored.write(child, &mut rows);
            stored::set_since(child, self.config.since, &mut rows);
            begun.push(child);
        }
        for right in &ended {
            stored::end(*right, &mut rows);
        }
        let (range, position) = (self.config.range, self.joined);
        let task = Task { range, position, steps, resolved, begun, ended, rows };
        self.out.push(Effect::Apply(task));
        if is_conf_new {
            self.on_conf_joined();
        }
    }

    fn join_write(&mut self, index: u64, write: RangeWrite, verdict: Verdict) -> Step {
        let to = requester(&write);
        let mut step = Step::default();
        let mut revision = 0;
        if let Verdict::Numbered(number) = verdict {
            (step.revision, revision) = (number, number);
            step.effects = write.effects;
        }
        if let Some(proposed) = self.proposed.remove(&to.id) {
            self.unapplied.extend(proposed.guard.map(|guard| (index, guard)));
            let content = match verdict.error() {
                Some(error) => Content::Refused(error),
                None => Content::Draft(proposed.draft),
            };
            let way = Way { begun: proposed.started, ..Way::default() };
            step.reply = Some(Reply { to, content, revision, way });
        }
        step
    }

    pub(super) fn on_applied(
        &mut self,
        position: Position,
        view: &dyn View,
    ) -> Result<(), ViewError> {
        let before = self.applied;
        assert!(
            position.index >= before.index,
            "the applied index of range {} never goes back: {position:?} after {before:?}",
            self.range()
        );
        let was_serving = self.is_serving();
        self.applied = position;
        let mut guards = Vec::new();
        while self.unapplied.front().is_some_and(|(index, _)| *index <= position.index) {
            guards.extend(self.unapplied.pop_front().map(|(_, guard)| guard));
        }
        self.unlatch(guards, view)?;
        self.drive(group::Input::Applied { index: position.index });
        self.ask_for_flush();
        if !was_serving && self.is_serving() {
            self.lock_again();
            self.unpark(view)?;
        }
        Ok(())
    }

    fn ask_for_flush(&mut self) {
        if self.flushed.is_due(self.applied.index, &self.config.limits.retention) {
            self.out.push(Effect::FlushStore);
        }
    }

    /// The store is durable: the log before it is needed only by followers that lag a little. What
    /// is staged is never cut off (I14): it is not applied.
    pub(super) fn on_flushed(&mut self, index: u64) {
        let applied = self.applied.index;
        let retention = &self.config.limits.retention;
        let index = self.flushed.advance(index, applied, &self.group, retention);
        self.drive(group::Input::Truncate { index });
    }

    /// The range's state was replaced: everything kept beside it starts anew. What this node
    /// proposed as a leader stays remembered: it may be among the entries that are still to come.
    /// If it is contained in the snapshot, its client hears of a time-out.
    pub(super) fn on_installed(&mut self, view: &dyn View) -> Result<(), ViewError> {
        let mark = self.installing.take().expect("nothing else is installed than was asked for");
        let stored = Stored::load(view, self.config.range)?
            .ok_or_else(|| ViewError("the installed snapshot holds no range".into()))?;
        self.holders.replace(&stored);
        let Stored { position, noted, prepared, span, generation, .. } = stored;
        assert!(
            position.index >= self.joined.index && position.index == mark.index,
            "a snapshot never takes the state back: {position:?} for {mark:?} after {:?}",
            self.joined
        );
        assert!(position.seq >= self.joined.seq && noted <= position.seq, "{position:?}, {noted}");
        self.numbering = Numbering::new(position.seq, noted);
        self.committed = position.seq;
        self.joined = position;
        self.applied = position;
        self.flushed.replace(position.index);
        (self.span, self.generation) = (span, generation);
        self.prepared = super::txn::from_stored(prepared, self.now);
        self.prepared_late.clear();
        // They are told of in the log before, and will be asked for again.
        self.resolved.clear();
        self.staged.clear();
        self.drive(group::Input::SnapshotInstalled);
        self.out.push(Effect::WantNumbers);
        self.ask_to_catch_up();
        Ok(())
    }

    pub(super) fn forget_proposed(&mut self) {
        if self.role.part != Part::Leader {
            let horizon = self.now - PROPOSED_FORGET_AFTER;
            self.proposed.retain(|_, proposed| proposed.started >= horizon);
        }
    }
}

pub(in crate::range::replica) fn requester(write: &RangeWrite) -> Requester {
    let id = RequestId { origin: write.origin, n: write.n };
    Requester { id, node: NodeId(write.node), pass: Pass::from_number(write.pass) }
}
