//! Carrying out what the machine asks for.

use std::time::Instant;

use flotilla_core::command::Outcome;
use flotilla_core::proto::internal::Ask;
use flotilla_core::range::replica::Input;
use flotilla_core::spine::{Cluster, Effect, Parcel, Status};
use flotilla_core::stage::Work;
use flotilla_core::time::Time;
use flotilla_core::{Error, GroupId, NodeId, group, remote};

use super::{ApplyMessage, Completion, EndRange, Mail, SpineActor, deliver};
use crate::failpoint::Failpoint;
use crate::metrics::upstream;
use crate::router::Phase;
use crate::supervise::fatal;

/// Questions of other nodes that are answered at once; further ones are refused.
const ANSWERS_MAX: usize = 64;

impl SpineActor {
    pub(super) fn carry_out(&mut self, effects: &mut Vec<Effect>) {
        for effect in effects.drain(..) {
            self.carry_out_one(effect);
        }
        if !self.is_gathering {
            self.parts.peers.flush();
        }
        self.parts.board.set_commit_index(self.parts.replica.group().commit());
    }

    fn carry_out_one(&mut self, effect: Effect) {
        match effect {
            Effect::Append(append) => {
                let now = self.now();
                self.unflushed.push_back((append.token, now));
                if self.parts.replica.status().is_leader {
                    self.moments.proposed(&append, now);
                }
                self.parts.outbox.append(append);
            }
            Effect::Truncate(position) => self.parts.outbox.truncate(position),
            Effect::Send(to, parcel) => self.parts.peers.gather(to, parcel),
            Effect::SendSnapshot(to, message) => self.parts.peers.send_snapshot(to, message),
            Effect::Install(mark) => {
                let staged = self.staged.take().expect("a snapshot is staged before its install");
                tracing::info!(index = mark.index, "installing a snapshot from the leader");
                self.parts.outbox.apply(ApplyMessage::Install(GroupId::SPINE, staged));
            }
            Effect::SnapshotRefused(reason) => {
                tracing::info!(%reason, "a received snapshot is not needed");
                // Its files are removed from the disk.
                let staged = self.staged.take();
                tokio::task::spawn_blocking(move || drop(staged));
            }
            Effect::Ignored(from, _, group::Ignored::LostEntries) => fatal(&format!(
                "member {from} leads and expects entries that this member acknowledged and does \
                 not have: its log was lost. Remove the member from the cluster and add it anew"
            )),
            Effect::Ignored(from, kind, reason) => {
                tracing::debug!(%from, kind, %reason, "ignored a message of a peer");
            }
            Effect::Apply(mut task) => {
                self.moments.folded(task.position.index, &mut task.steps);
                if self.parts.replica.status().is_leader {
                    self.parts.meters.count(GroupId::SPINE, &task.steps);
                }
                self.parts.outbox.apply(ApplyMessage::Work(Work::Spine(task)));
            }
            Effect::FlushStore => self.flush_store(),
            Effect::Reply(n, outcome) => self.reply(n, outcome),
            Effect::Deciding(n) => {
                let now = Instant::now();
                self.parts.pending.note(n, |trace| trace.reach_first(Phase::Propose, now));
            }
            Effect::TicketReady(n, result) => self.parts.pending.answer_ticket(n, result),
            Effect::Told(n, told) => self.parts.pending.tell(n, told),
            Effect::Answer(to, ask) => self.answer(to, ask),
            Effect::Cluster(cluster) => self.publish_cluster(cluster),
            Effect::Auth(news) => self.parts.gate.tell(news),
            Effect::Removed => self.on_removed(),
            Effect::Status(status) => self.publish_status(status),
            Effect::Range(range, input) => self.mail(range, input),
            Effect::Begin { range, since } => {
                let actor = self.address.clone().expect("an actor that was started has one");
                self.begin_empty(range, since, &actor);
            }
            Effect::Drop(range) => {
                tracing::info!(%range, "a replica of a range is of no use: it was merged");
                self.parts.outbox.apply(ApplyMessage::Work(Work::Drop(range)));
            }
            Effect::Forget(range) => {
                tracing::info!(%range, "what the log has of a merged range is of no use");
                self.parts.maker.forget(range);
            }
            Effect::End { range, keeps_votes } => {
                // What was sent to it comes first.
                if let Some(actor) = self.parts.ranges.remove(range) {
                    deliver(&actor, EndRange { keeps_votes });
                }
            }
            Effect::Leave(range) => {
                self.parts.meters.forget(range);
                tracing::info!(%range, "this node has no part in a range any more");
                self.parts.outbox.apply(ApplyMessage::Work(Work::Leave(range)));
            }
        }
    }

    /// Of one that nobody could carry out in time it is noted where it was kept, as far as this node
    /// knows: on its way to a leader, or by what was proposed since.
    fn reply(&self, n: u64, outcome: Outcome) {
        let is_late = matches!(
            outcome,
            Err(Error::Timeout | Error::TimeoutDueToLeaderFail | Error::TimeoutDueToConnectionLost)
        );
        if !is_late {
            self.parts.pending.answer(n, outcome);
            return;
        }
        let now = Instant::now();
        let (started, is_leader) = (self.parts.started, self.parts.replica.status().is_leader);
        self.parts.pending.answer_noting(n, outcome, |trace| {
            let since = now.saturating_duration_since(started).saturating_sub(trace.elapsed());
            let since = Time(u64::try_from(since.as_micros()).unwrap_or(u64::MAX));
            let kept_in = match self.moments.stuck(since) {
                _ if trace.has_reached(Phase::Propose) => Phase::Order,
                _ if !is_leader => Phase::Route,
                None => Phase::Propose,
                Some(way) => {
                    trace.follow_unapplied(&way, started);
                    if way.flushed > Time(0) { Phase::Replicate } else { Phase::Flush }
                }
            };
            trace.reach(kept_in, now);
        });
    }

    /// Something for the machine of a range. What a peer says may be lost, and a client may be
    /// refused.
    pub(super) fn mail(&mut self, range: GroupId, input: Input) {
        if matches!(input, Input::Decided(..)) {
            Failpoint::TxnDecided.reached();
        }
        let Some(actor) = self.parts.ranges.get(range) else {
            // The machine gives requests to replicas that have said something and have not ended.
            if let Input::Submit(to, _) = input {
                tracing::error!(%range, "a request was for a range that has no replica here");
                self.refused.push((range, to));
            }
            return;
        };
        match input {
            Input::Message(_) => {
                if actor.try_send(Mail(input)).is_err() {
                    ::metrics::counter!(crate::metrics::PEER_FRAMES_DROPPED).increment(1);
                }
            }
            Input::Submit(to, _) => {
                if actor.try_send(Mail(input)).is_err() {
                    self.refused.push((range, to));
                }
            }
            input => deliver(&actor, Mail(input)),
        }
    }

    /// Reads what another node wants to know, on a thread that may block.
    fn answer(&mut self, to: NodeId, ask: Ask) {
        if self.answers_count >= ANSWERS_MAX {
            self.parts.peers.gather(to, Parcel::Told(remote::refusal(&ask)));
            return;
        }
        self.answers_count += 1;
        let (store, board) = (self.parts.store.clone(), self.parts.board.clone());
        let completions = self.parts.completions.clone();
        tokio::task::spawn_blocking(move || {
            // The apply thread may be further than the machine knows, and may go on meanwhile.
            let spans = remote::spans(&ask);
            let is_here = || {
                let reach = board.reach();
                spans.iter().all(|span| reach.has_all(span))
            };
            let replacements = board.replacements();
            let told = match is_here() {
                true => remote::answer(&store, &ask).unwrap_or_else(|e| fatal(&e.to_string())),
                false => remote::refusal(&ask),
            };
            let is_good = board.replacements() == replacements && is_here();
            let told = if is_good { told } else { remote::refusal(&ask) };
            // The actor ends only with the process.
            let _ = completions.blocking_send(Completion::Told(to, told));
        });
    }

    fn flush_store(&self) {
        let index = self.parts.replica.applied().index;
        let store = self.parts.store.clone();
        let completions = self.parts.completions.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = store.flush() {
                fatal(&format!("the store cannot be made durable: {error}"));
            }
            // The actor ends only with the process.
            let _ = completions.blocking_send(Completion::Flushed(index));
        });
    }

    fn publish_cluster(&mut self, cluster: Cluster) {
        self.parts.peers.set_members(&cluster.members, &cluster.removed);
        self.parts.board.change(|notice| {
            notice.members = cluster.members;
            notice.alarms = cluster.alarms;
            notice.cluster_version = cluster.version;
            notice.removed = cluster.removed;
        });
    }

    fn publish_status(&self, status: Status) {
        let before = self.parts.board.notice().status;
        if before.leader != status.leader || before.term != status.term {
            if status.leader.is_some() && before.leader != status.leader {
                ::metrics::counter!(upstream::LEADER_CHANGES).increment(1);
            }
            match status.leader {
                Some(leader) => tracing::info!(%leader, term = status.term, "leader is known"),
                None => tracing::info!(term = status.term, "no leader is known"),
            }
        }
        self.parts.board.set_status(status);
    }

    pub(super) fn on_removed(&mut self) {
        if !self.is_removed {
            self.is_removed = true;
            tracing::warn!("this member was removed from the cluster; the process will stop");
            let stop = std::mem::replace(&mut self.parts.on_removed, Box::new(|| {}));
            stop();
        }
    }
}
