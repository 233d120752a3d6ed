//! What consensus asks for: appends and messages go on to the driver, committed entries are folded
//! and handed to the store, and a change of role turns the leader's duties on or off.

use std::mem;

use prost::Message;

use crate::auth::{Forget, News};
use crate::command::{Answer, RequestId};
use crate::group::{self, Change, Entry, EntryKind, Part, Refusal};
use crate::proto::Span;
use crate::proto::internal::{self, MemberChange, Record, SpineEntry, TxnCommit, record::Body};
use crate::range::latch::Guard;
use crate::range::stored::Stored;
use crate::range::{self, run};
use crate::spine::apply::{Content, Cut, Join, Reply, Requester, Step, Task, Way};
use crate::spine::replica::write::Work;
use crate::spine::replica::{Effect, Parcel, Replica, Status};
use crate::spine::state::{Position, State, Verdict};
use crate::spine::txns;
use crate::view::{View, ViewError};
use crate::{Error, GroupId, txn};

/// What an entry comes to while its records are folded.
#[derive(Default)]
struct Folded {
    task: Task,
    /// Given back once the entry is applied.
    guards: Vec<Guard>,
    /// Told when all of the entry is folded.
    news: Vec<News>,
}

impl Replica {
    pub(super) fn on_group_effect(&mut self, effect: group::Effect) {
        match effect {
            group::Effect::Role(role) => self.on_role(role),
            group::Effect::Send(message) => {
                let to = crate::NodeId(message.to);
                self.out.push(Effect::Send(to, Parcel::Raft(message)));
            }
            group::Effect::SendSnapshot { to, message } => {
                self.out.push(Effect::SendSnapshot(to, message));
            }
            group::Effect::Append(append) => self.out.push(Effect::Append(append)),
            group::Effect::Truncate(position) => self.out.push(Effect::Truncate(position)),
            group::Effect::Install { mark } => self.out.push(Effect::Install(mark)),
            group::Effect::ConfApplied { index, change, conf } => {
                self.conf_applied = Some((index, change, conf));
            }
            group::Effect::Commit(entries) => self.on_commit(entries),
            // Where a proposal stands does not matter: it is known by its id when it is folded.
            group::Effect::Proposed { .. } => {}
            group::Effect::Refused(refusal) => self.refusal = Some(refusal),
            group::Effect::TicketReady { context, index } => self.on_ticket_ready(context, index),
            group::Effect::TicketDropped { context } => self.on_ticket_dropped(context),
            group::Effect::SnapshotRefused(reason) => {
                self.out.push(Effect::SnapshotRefused(reason));
            }
            group::Effect::Ignored { from, kind, reason } => {
                self.out.push(Effect::Ignored(from, kind, reason));
            }
        }
    }

    fn on_role(&mut self, role: group::Role) {
        let is_leader = role.part == Part::Leader;
        let was_leader = self.status.is_leader;
        let is_new_term = role.term != self.status.term;
        let is_new_leader = role.leader != self.status.leader || is_new_term;
        if was_leader && (!is_leader || is_new_term) {
            self.stop_leading();
        }
        self.status.term = role.term;
        self.status.leader = role.leader;
        self.status.is_leader = is_leader;
        if is_leader && (!was_leader || is_new_term) {
            // Until the first entry of the term is folded, nobody knows where the inheritance ends.
            self.drain_index = Some(u64::MAX);
        }
        if is_new_leader && role.leader.is_some() {
            self.leader_since = self.now;
            self.is_retry_due = true;
            self.is_unpark_due = true;
        }
        self.publish_status();
        // Who is told that leadership has moved finds that it has.
        if is_new_leader && role.leader.is_some() {
            self.on_leader_for_transfer();
        }
    }

    /// The leader's volatile state ends with the leadership. What was proposed stays remembered:
    /// it may still be folded.
    fn stop_leading(&mut self) {
        self.drain_index = None;
        self.latches.clear();
        for proposed in self.proposed.values_mut() {
            proposed.guard = None;
        }
        self.unapplied.clear();
        let waiting = mem::take(&mut self.waiting);
        for (_, waiting) in waiting {
            match (waiting.to, waiting.work) {
                (Some(to), Work::Write(command)) => self.refuse_unproposed(to, command),
                (_, Work::Prepare { id, .. }) => self.answer_prepare(GroupId::SPINE, id, None),
                _ => {}
            }
        }
        for record in mem::take(&mut self.records) {
            self.drop_unproposed(&record, Error::LeaderChanged);
        }
        self.records_bytes = 0;
        self.stop_refs();
        self.stop_txns();
        self.stop_leases();
        self.stop_changes();
    }

    /// A gathered record that consensus did not take: nothing of it is in any log.
    fn drop_unproposed(&mut self, record: &Record, error: Error) {
        let id = RequestId { origin: record.origin, n: record.n };
        match &record.body {
            Some(Body::LeaseRevoke(revoke)) => {
                self.revoking.remove(&revoke.id);
            }
            Some(Body::Refs(_)) => self.refs_done(),
            _ => {}
        }
        if let Some(proposed) = self.proposed.remove(&id) {
            self.reply(proposed.requester(id), Err(error));
        }
    }

    /// Proposes what was gathered; a refusal answers every request in it.
    pub(super) fn propose_records(&mut self, view: &dyn View) -> Result<(), ViewError> {
        if self.records.is_empty() {
            return Ok(());
        }
        self.records_bytes = 0;
        let entry = SpineEntry { records: mem::take(&mut self.records) };
        self.refusal = None;
        self.drive(group::Input::Propose(vec![entry.encode_to_vec().into()]));
        let Some(refusal) = self.refusal.take() else { return Ok(()) };
        let error = match refusal {
            Refusal::Full => Error::TooManyRequests,
            _ => Error::LeaderChanged,
        };
        let mut guards = Vec::new();
        for record in &entry.records {
            let id = RequestId { origin: record.origin, n: record.n };
            guards.extend(self.proposed.get(&id).and_then(|proposed| proposed.guard));
            self.drop_unproposed(record, error);
        }
        self.unlatch(guards, view)
    }

    fn on_commit(&mut self, entries: Vec<Entry>) {
        for entry in entries {
            let (index, term) = (entry.index, entry.term);
            self.flushed.add(entry.memory_bytes() as u64);
            self.state.enter(index, term);
            let mut folded = Folded::default();
            match entry.kind {
                EntryKind::Normal => self.fold_records(entry, &mut folded),
                EntryKind::Change => self.fold_change(entry, &mut folded),
            }
            let Folded { mut task, guards, news } = folded;
            self.publish_news(news);
            // With every entry: a batch of the store may end after any of them.
            self.state.write_windows(index - 1, &mut task.rows);
            if self.drain_index == Some(u64::MAX) && term == self.status.term {
                self.drain_index = Some(index);
            }
            if self.status.is_leader && !guards.is_empty() {
                self.unapplied.push_back((index, guards));
            }
            task.position = self.position();
            self.out.push(Effect::Apply(task));
        }
    }

    /// A pass names the entry of a change, so nobody must see the users as they are between two
    /// changes of one entry.
    fn publish_news(&mut self, news: Vec<News>) {
        for news in news {
            self.out.push(Effect::Auth(match news {
                News::Changed(_, forget) => self.state.auth_news(forget),
                token @ News::Token { .. } => token,
            }));
        }
    }

    fn fold_records(&mut self, entry: Entry, folded: &mut Folded) {
        if entry.data.is_empty() {
            return;
        }
        let records = SpineEntry::decode(entry.data)
            .unwrap_or_else(|error| panic!("committed entry {} is damaged: {error}", entry.index))
            .records;
        folded.task.steps.reserve(records.len());
        for record in records {
            let step = self.fold_record(record, folded);
            folded.task.steps.extend(step);
        }
    }

    fn fold_record(&mut self, record: Record, folded: &mut Folded) -> Option<Step> {
        let id = RequestId { origin: record.origin, n: record.n };
        let verdict = self.state.fold(&record, &mut folded.task.rows);
        let mut step = Step::default();
        if verdict == Verdict::Duplicate {
            let proposed = self.proposed.remove(&id);
            folded.guards.extend(proposed.and_then(|proposed| proposed.guard));
            // Locks that were asked for again, late, after the decision.
            let txn = match &record.body {
                Some(Body::TxnCommit(_)) => Some(id),
                Some(Body::TxnAbort(abort)) => Some(txns::id_of(abort.id.as_ref())),
                _ => None,
            };
            folded.guards.extend(txn.and_then(|id| self.forget_locks(id)));
            return None;
        }
        let body = record.body.expect("an empty record is not proposed");
        let body = match body {
            Body::Refs(refs) => {
                self.on_assigned(verdict, &mut folded.task);
                for reference in refs.refs.iter().filter(|reference| reference.settled > 0) {
                    self.tell_members_of(GroupId(reference.range));
                }
                return None;
            }
            Body::TxnCommit(commit) => return self.on_decided(id, commit, &verdict, folded),
            Body::TxnAbort(abort) => {
                let id = txns::id_of(abort.id.as_ref());
                self.on_ended(id, None, folded);
                return None;
            }
            body => body,
        };
        self.follow_leases(&body, &verdict);
        if let Body::Replicas(replicas) = &body {
            self.tell_members_of(GroupId(replicas.range));
        }
        if matches!(body, Body::Recovery(_)) {
            self.tell_members();
        }
        if let Verdict::AuthNews(news) = &verdict {
            folded.news.push(news.clone());
        }
        let is_cluster_changed = matches!(
            body,
            Body::MemberAttributes(_)
                | Body::MemberUrls(_)
                | Body::MemberDrain(_)
                | Body::Alarm(_)
                | Body::ClusterVersion(_)
        );
        if is_cluster_changed {
            self.publish_cluster();
        }
        if let Some(proposed) = self.proposed.remove(&id) {
            folded.guards.extend(proposed.guard);
            if verdict == Verdict::Ended {
                // It was not carried out: keys of other ranges are attached to the lease.
                self.revoke_anew(proposed.requester(id), &body);
            }
            let (to, begun) = (proposed.requester(id), proposed.started);
            let content = match &verdict {
                Verdict::Rejected(error) => proposed.content.map(|_| Content::Refused(*error)),
                Verdict::AuthNews(News::Token { token, .. }) => {
                    let token = token.clone();
                    Some(Content::Done(Answer::AuthToken(internal::AuthTokenAnswer { token })))
                }
                Verdict::Numbered(_)
                | Verdict::Done
                | Verdict::AuthNews(News::Changed(..))
                | Verdict::Assigned(_)
                | Verdict::Committed(_)
                | Verdict::Duplicate => proposed.content,
                Verdict::Ended => None,
            };
            let way = Way { begun, ..Way::default() };
            step.reply = content.and_then(|content| self.reply_later(to, content, way));
        }
        if let Verdict::Numbered(revision) = verdict {
            step.revision = revision;
            step.effects = match body {
                Body::Write(write) => write.effects,
                Body::LeaseRevoke(revoke) if revoke.is_all_keys => self.end_all_keys(revoke.id),
                Body::LeaseRevoke(revoke) => revoke
                    .keys
                    .into_iter()
                    .map(|key| internal::Effect { key, is_delete: true, ..Default::default() })
                    .collect(),
                _ => unreachable!("only writes and revocations have a revision"),
            };
        }
        Some(step)
    }

    /// Deletes what is attached to a lease in range 0, and not what an older lease of this name left
    /// behind in other ranges for the moment.
    fn end_all_keys(&self, lease: i64) -> Vec<internal::Effect> {
        let pieces = self.state.ranges().pieces(&Span::possible()).into_iter();
        let own = pieces.filter(|(range, _)| *range == GroupId::SPINE);
        own.map(|(_, piece)| {
            let (key, range_end) = piece.into_request();
            internal::Effect { key, range_end, lease, is_delete: true, ..Default::default() }
        })
        .collect()
    }

    /// Writes of other ranges were numbered.
    fn on_assigned(&mut self, verdict: Verdict, task: &mut Task) {
        self.refs_done();
        let Verdict::Assigned(assigned) = verdict else { return };
        for (range, run) in assigned {
            task.assigned.push((range, run::last(&run)));
            self.tell(range, range::replica::Input::Numbered(vec![run]));
        }
    }

    /// The spine has decided a transaction over several ranges.
    fn on_decided(
        &mut self,
        id: RequestId,
        commit: TxnCommit,
        verdict: &Verdict,
        folded: &mut Folded,
    ) -> Option<Step> {
        let Verdict::Committed(revision) = *verdict else {
            self.on_ended(id, Some(&commit), folded);
            let input = match verdict {
                Verdict::Rejected(error) => txn::Input::Rejected(*error),
                _ => txn::Input::Ended,
            };
            self.txns.input(id, input);
            return None;
        };
        folded.guards.extend(self.forget_locks(id));
        self.txns.input(id, txn::Input::Committed(revision, self.position().revision));
        self.tell_decided(id, Some(&commit));
        if let Some(end) = &commit.lease_end {
            self.on_lease_ended(end.id);
        }
        if let Some(split) = &commit.split {
            self.on_split(split, folded);
        }
        if let Some(merge) = &commit.merge {
            self.on_merge(id, merge, folded);
        }
        let mut step = None;
        for share in commit.shares {
            if share.range == GroupId::SPINE.0 {
                let (effects, subs) = (share.effects, share.subs);
                step = Some(Step { revision, effects, subs, reply: None });
            } else {
                folded.task.committed.push((GroupId(share.range), id, share.prepared_at));
            }
        }
        step
    }

    /// A range was cut. Range 0 applies that here; any other in its own log.
    fn on_split(&mut self, split: &internal::Split, folded: &mut Folded) {
        self.is_unpark_due = true;
        let child = self.state.ranges().owner(&split.key);
        let parent = GroupId(split.parent);
        let generation = self.state.ranges().get(parent).map_or(0, |parent| parent.generation);
        folded.task.cuts.push(Cut { parent, child, key: split.key.clone(), generation });
        if !self.is_here(child) {
            folded.task.elsewhere.push(child);
            return;
        }
        // Its replica may have begun before this, and have asked in vain.
        self.tell_members_of(child);
        if split.parent == GroupId::SPINE.0 {
            let span = self.state.ranges().get(child).expect("it was just made").span.clone();
            let ids = |are_learners: bool| {
                let members = self.state.members().values();
                members.filter(|it| it.is_learner == are_learners).map(|it| it.id).collect()
            };
            let (voters, learners) = (ids(false), ids(true));
            let conf = internal::ConfState { voters, learners, ..Default::default() };
            Stored::first(conf, span).write(child, &mut folded.task.rows);
            folded.task.begun.push(child);
        }
    }

    /// A range has ceased. Its replica here has, too, once the one that takes over has come so far.
    fn on_merge(&mut self, id: RequestId, merge: &internal::Merge, folded: &mut Folded) {
        self.is_unpark_due = true;
        let (left, right, left_at) = (GroupId(merge.left), GroupId(merge.right), merge.left_at);
        folded.task.committed.push((left, id, left_at));
        folded.task.merged.push(Join { left, right, id, left_at });
    }

    /// A transaction has ended without effect.
    fn on_ended(&mut self, id: RequestId, commit: Option<&TxnCommit>, folded: &mut Folded) {
        folded.guards.extend(self.forget_locks(id));
        if commit.is_none() {
            self.txns.input(id, txn::Input::Ended);
        }
        self.tell_decided(id, commit);
    }

    /// An answer that waits for the store. `None` when its client was answered before.
    fn reply_later(&mut self, to: Requester, content: Content, way: Way) -> Option<Reply> {
        if to.node == self.node() {
            // A proposal of the node itself has a number too, and nobody who waits.
            let is_client = to.id.origin == self.config.origin;
            let open = self.open.get_mut(&to.id.n).filter(|open| is_client && !open.is_decided)?;
            open.is_decided = true;
        }
        Some(Reply { to, content, revision: self.position().revision, way })
    }

    fn fold_change(&mut self, entry: Entry, folded: &mut Folded) {
        let applied = self.conf_applied.take();
        let (index, change, conf) = applied.expect("a change is announced before its entry");
        assert!(index == entry.index, "change of {index} announced for {}", entry.index);
        let mut member_change = MemberChange::decode(entry.context).unwrap_or_default();
        if change.as_ref().is_none_or(|change: &Change| change.steps.is_empty()) {
            member_change.kind = internal::member_change::Kind::None.into();
        }
        self.state.fold_change(&member_change, conf, &mut folded.task.rows);
        let reply = self.finish_change(&member_change, change.is_some());
        self.publish_cluster();
        self.tell_members();
        let is_gone = self.state.is_removed(self.node());
        if is_gone {
            self.out.push(Effect::Removed);
        }
        self.publish_status();
        let reply = reply.and_then(|(to, content)| self.reply_later(to, content, Way::default()));
        folded.task.steps.push(Step { reply, ..Step::default() });
    }

    pub(super) fn publish_status(&mut self) {
        // Who votes in the spine is no business of clients.
        let me = self.state.members().get(&self.node().0);
        self.status.is_learner = me.is_some_and(|member| member.is_learner);
        let status: Status = self.status;
        self.out.push(Effect::Status(status));
    }

    pub(super) fn on_applied(
        &mut self,
        position: Position,
        view: &dyn View,
    ) -> Result<(), ViewError> {
        let before = self.applied;
        assert!(
            position.index >= before.index,
            "the applied index never goes back: {position:?} after {before:?}"
        );
        let was_serving = self.is_serving();
        self.applied = position;
        let mut guards = Vec::new();
        while self.unapplied.front().is_some_and(|(index, _)| *index <= position.index) {
            guards.extend(self.unapplied.pop_front().expect("checked").1);
        }
        self.unlatch(guards, view)?;
        self.drive(group::Input::Applied { index: position.index });
        self.is_start_due |= !was_serving && self.is_serving();
        self.ask_for_flush();
        Ok(())
    }

    /// Everything inherited is applied: the leader may evaluate.
    pub(super) fn start_leading(&mut self, view: &dyn View) -> Result<(), ViewError> {
        self.start_leases();
        if self.state.cluster_version().is_empty() {
            let version = self.config.cluster_version.clone();
            let body = Body::ClusterVersion(internal::ClusterVersion { version });
            self.propose(None, None, body, None, view)?;
        }
        self.unpark(view)
    }

    fn ask_for_flush(&mut self) {
        if self.flushed.is_due(self.applied.index, &self.config.limits.retention) {
            self.out.push(Effect::FlushStore);
        }
    }

    /// The store is durable: the log before it is needed only by followers that lag a little.
    pub(super) fn on_flushed(&mut self, index: u64) {
        let applied = self.applied.index;
        let retention = &self.config.limits.retention;
        let index = self.flushed.advance(index, applied, &self.group, retention);
        self.drive(group::Input::Truncate { index });
    }

    /// The store was replaced: everything kept beside it starts anew.
    pub(super) fn on_installed(&mut self, view: &dyn View) -> Result<(), ViewError> {
        let state = State::load(view)?
            .ok_or_else(|| ViewError("the installed snapshot holds no state".into()))?;
        assert!(
            state.position().index >= self.state.position().index,
            "a snapshot never takes the state back"
        );
        self.state = state;
        self.applied = self.state.position();
        self.flushed.replace(self.applied.index);
        self.drop_attempts();
        // Also those that are to be elsewhere, and have said nothing since this machine began.
        self.ranges.find(view)?;
        self.tell_all(|| range::replica::Input::CatchUp);
        self.tell_members();
        self.drive(group::Input::SnapshotInstalled);
        self.publish_cluster();
        // Which users have lost their tokens meanwhile is not known.
        self.out.push(Effect::Auth(self.state.auth_news(Forget::All)));
        if self.state.is_removed(self.node()) {
            self.out.push(Effect::Removed);
        }
        self.publish_status();
        Ok(())
    }
}
