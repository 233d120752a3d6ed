//! Transactions over several ranges: those that this node coordinates, and the part of range 0.
//!
//! The locks of range 0 are in its leader's memory. The decision names the term of that leader and
//! is void in any other, so they are as good as those of other ranges, which are in their logs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::mem;

use bytes::Bytes;

use crate::auth::Pass;
use crate::command::{Answer, Command, Outcome, RequestId};
use crate::proto::Span;
use crate::proto::etcdserverpb as pb;
use crate::proto::internal::{self, Lock, Locks, Record, TxnAbort, TxnMessage};
use crate::proto::internal::{record::Body, txn_message};
use crate::range::latch::Guard;
use crate::range::replica::txn::UNWANTED_AFTER;
use crate::range::{lock, replica};
use crate::remote::Gathering;
use crate::spine::apply::Requester;
use crate::spine::ranges::Range;
use crate::spine::replica::write::{Waiting, Work};
use crate::spine::replica::{Effect, Parcel, Replica};
use crate::spine::txns;
use crate::time::Time;
use crate::txn::{self, Coordinator, Input, Job};
use crate::view::{View, ViewError};
use crate::{Error, GroupId, NodeId};

/// What this node does for transactions over several ranges.
#[derive(Default)]
pub(super) struct Txns {
    /// Those it coordinates.
    attempts: BTreeMap<RequestId, Attempt>,
    inputs: VecDeque<(RequestId, Input)>,
    /// Locks wanted in ranges that this node leads, and who wants them.
    wanted_by: BTreeMap<RequestId, (NodeId, Time)>,
    /// Locks of range 0 that this leader holds.
    locked: BTreeMap<RequestId, Locked>,
}

struct Attempt {
    coordinator: Coordinator,
    /// Nobody: a lease has expired.
    to: Option<Requester>,
    since: Time,
}

struct Locked {
    guard: Guard,
    since: Time,
}

impl Txns {
    pub(super) fn input(&mut self, id: RequestId, input: Input) {
        if self.attempts.contains_key(&id) {
            self.inputs.push_back((id, input));
        }
    }

    /// What an attempt that is under way is to do.
    pub(super) fn job(&self, id: RequestId) -> Option<&Job> {
        self.attempts.get(&id).map(|attempt| attempt.coordinator.job())
    }

    /// What it was let in with.
    pub(super) fn pass(&self, id: RequestId) -> Pass {
        let to = self.attempts.get(&id).and_then(|attempt| attempt.to);
        to.map_or(Pass::NODE, |to| to.pass)
    }

    pub(super) fn load_text(&self) -> String {
        format!("{} attempts, {} locks", self.attempts.len(), self.locked.len())
    }

    pub(super) fn is_step_due(&self) -> bool {
        !self.inputs.is_empty()
    }
}

// The coordinator.
impl Replica {
    /// Cuts a range, which the spine's leader does so that it has one order with everything else
    /// that changes the table.
    pub(super) fn begin_split(&mut self, to: Requester, key: Bytes) {
        let ranges = self.state.ranges();
        let range = ranges.owner(&key);
        // A request means the end of all keys by one zero byte.
        if key.is_empty() || key[..] == *b"\0" {
            self.reply(to, Err(Error::EmptyKey));
        } else if ranges.get(range).is_some_and(|it| it.span.start == key) {
            let answer = internal::SplitAnswer { range: range.0 };
            self.reply(to, Ok(Answer::Split(answer)));
        } else {
            let is_here = self.reach.has(range);
            self.begin_txn(Some(to), Job::Split { range, key, is_here });
        }
    }

    /// Merges a range into the one before it; by the spine's leader, as for a split.
    pub(super) fn begin_merge(&mut self, to: Requester, request: internal::MergeRequest) {
        let (left, right) = (GroupId(request.left), GroupId(request.right));
        match self.check_merge(left, right) {
            Ok(()) => self.begin_txn(Some(to), Job::Merge { left, right }),
            Err(error) => self.reply(to, Err(error)),
        }
    }

    fn check_merge(&self, left: GroupId, right: GroupId) -> Result<(), Error> {
        if left == GroupId::SPINE || right == GroupId::SPINE {
            return Err(Error::NotNeighbours);
        }
        let ranges = self.state.ranges();
        let (Some(stays), Some(ceases)) = (ranges.get(left), ranges.get(right)) else {
            return Err(Error::RangeNotFound);
        };
        if stays.span.end.as_ref() != Some(&ceases.span.start) {
            return Err(Error::NotNeighbours);
        }
        let members =
            |range: &Range| -> BTreeSet<NodeId> { range.replicas.iter().copied().collect() };
        if members(stays) != members(ceases) { Err(Error::ReplicasDiffer) } else { Ok(()) }
    }

    /// Begins an attempt.
    pub(super) fn begin_txn(&mut self, to: Option<Requester>, job: Job) {
        let id = self.own_requester().id;
        let coordinator = Coordinator::new(id, job, self.state.ranges());
        self.txns.attempts.insert(id, Attempt { coordinator, to, since: self.now });
        self.txns.input(id, Input::Tick);
    }

    pub(super) fn step_txns(&mut self, view: &dyn View) -> Result<(), ViewError> {
        while let Some((id, input)) = self.txns.inputs.pop_front() {
            let gathered = match &input {
                Input::Ticket(head) => match self.take_gathered(id, *head) {
                    Some(gathered) => gathered,
                    None => continue,
                },
                _ => Gathering::default(),
            };
            let Some(attempt) = self.txns.attempts.get_mut(&id) else { continue };
            if matches!(input, Input::Ticket(_)) {
                let reach = &self.reach;
                attempt.coordinator.look_again(|range| reach.has(range));
            }
            let mut out = Vec::new();
            let (now, ranges) = (self.now, self.state.ranges());
            if gathered.is_empty() {
                attempt.coordinator.step(now, view, ranges, input, &mut out)?;
            } else {
                let over = gathered.over(view)?;
                attempt.coordinator.step(now, &over, ranges, input, &mut out)?;
            }
            for effect in out {
                self.carry_out_txn(id, effect, view)?;
            }
        }
        Ok(())
    }

    fn carry_out_txn(
        &mut self,
        id: RequestId,
        effect: txn::Effect,
        view: &dyn View,
    ) -> Result<(), ViewError> {
        match effect {
            txn::Effect::Prepare(range, locks) => return self.send_prepare(id, range, locks, view),
            txn::Effect::Propose(record) if self.is_too_large(&record) => {
                self.end_attempt(id, Err(Error::RequestTooLarge));
                return self.propose_own(abort_record(id), view);
            }
            txn::Effect::Propose(mut record) => {
                if let Some(Body::TxnCommit(commit)) = &mut record.body {
                    commit.pass = self.txns.pass(id).number();
                    self.tell_deciding(id);
                }
                return self.propose_own(record, view);
            }
            txn::Effect::WantTicket => self.tickets.want_txn(id, self.now),
            txn::Effect::Abort => return self.propose_own(abort_record(id), view),
            txn::Effect::Reply(outcome) => self.end_attempt(id, outcome),
            txn::Effect::TryAgain(job) => {
                let attempt = self.txns.attempts.remove(&id).expect("it is under way");
                match (attempt.to, job) {
                    // Tried again by the next tick: what stood in the way may still do so.
                    (Some(to), Job::Change(command)) => self.refuse_unproposed(to, command),
                    (Some(to), Job::LeaseEnd { id, .. }) => {
                        let request = pb::LeaseRevokeRequest { id };
                        self.refuse_unproposed(to, Command::LeaseRevoke(request));
                    }
                    (None, Job::LeaseEnd { id, .. }) => {
                        self.revoking.remove(&id);
                    }
                    (Some(to), Job::Split { key, .. }) => {
                        let command = Command::Split(internal::SplitRequest { key });
                        self.refuse_unproposed(to, command);
                    }
                    (Some(to), Job::Merge { left, right }) => {
                        let request = internal::MergeRequest { left: left.0, right: right.0 };
                        self.refuse_unproposed(to, Command::Merge(request));
                    }
                    (None, Job::Change(_) | Job::Split { .. } | Job::Merge { .. }) => {}
                }
            }
        }
        Ok(())
    }

    fn tell_deciding(&mut self, id: RequestId) {
        let (me, origin) = (self.node(), self.config.origin);
        let to = self.txns.attempts.get(&id).and_then(|attempt| attempt.to);
        if let Some(to) = to.filter(|to| to.node == me && to.id.origin == origin) {
            self.out.push(Effect::Deciding(to.id.n));
        }
    }

    fn end_attempt(&mut self, id: RequestId, outcome: Outcome) {
        let attempt = self.txns.attempts.remove(&id).expect("it is under way");
        match (attempt.to, attempt.coordinator.job()) {
            (Some(to), _) => self.reply(to, outcome),
            (None, Job::LeaseEnd { id, .. }) => {
                self.revoking.remove(id);
            }
            (None, Job::Change(_) | Job::Split { .. } | Job::Merge { .. }) => {}
        }
    }

    /// Sends locks to whoever leads the range; if nobody is known, the coordinator asks again.
    fn send_prepare(
        &mut self,
        id: RequestId,
        range: GroupId,
        locks: Vec<Lock>,
        view: &dyn View,
    ) -> Result<(), ViewError> {
        let leader = match range {
            GroupId::SPINE if self.status.is_leader => Some(self.node()),
            GroupId::SPINE => self.leader_within_reach(),
            range => self.range_leader(range),
        };
        let Some(leader) = leader else { return Ok(()) };
        if leader == self.node() {
            return self.take_prepare(leader, id, range, locks, view);
        }
        let body = Some(txn_message::Body::Wanted(Locks { locks }));
        let message = TxnMessage { id: Some(txns::to_proto(id)), range: range.0, body };
        self.out.push(Effect::Send(leader, Parcel::Txn(message)));
        Ok(())
    }

    /// Puts a record of this node into the spine; it may be lost, and is then proposed again by
    /// whoever wants it.
    fn propose_own(&mut self, record: Record, view: &dyn View) -> Result<(), ViewError> {
        if self.status.is_leader {
            return self.on_record(record, view);
        }
        if let Some(leader) = self.leader_within_reach() {
            self.out.push(Effect::Send(leader, Parcel::Record(record)));
        }
        Ok(())
    }

    pub(super) fn on_record(&mut self, record: Record, view: &dyn View) -> Result<(), ViewError> {
        let is_expected = matches!(&record.body, Some(Body::TxnCommit(_) | Body::TxnAbort(_)));
        if self.is_serving() && is_expected {
            self.push_record(record, view)?;
        }
        Ok(())
    }

    pub(super) fn abort_txn(&mut self, id: RequestId) {
        let record = abort_record(id);
        if self.is_serving() {
            // Proposed with the turn.
            self.records_bytes += prost::Message::encoded_len(&record);
            self.records.push(record);
        } else if let Some(leader) = self.leader_within_reach() {
            self.out.push(Effect::Send(leader, Parcel::Record(record)));
        }
    }

    pub(super) fn tick_txns(&mut self) {
        let horizon = self.now - self.config.request_timeout;
        let late: Vec<RequestId> = self
            .txns
            .attempts
            .iter()
            .filter(|(_, attempt)| attempt.since <= horizon)
            .map(|(id, _)| *id)
            .collect();
        for id in late {
            // Its client was told of a time-out; who holds locks for it ends it.
            let coordinator = &self.txns.attempts[&id].coordinator;
            let is_merge = matches!(coordinator.job(), Job::Merge { .. });
            let is_open = coordinator.is_decided();
            let error = if is_merge && !is_open { Error::ReplicaBehind } else { Error::Timeout };
            self.end_attempt(id, Err(error));
            self.abort_txn(id);
        }
        // Coordinators ask again long before.
        self.txns.wanted_by.retain(|_, (_, since)| *since > horizon);
        let under_way = self.txns.attempts.keys().map(|id| (*id, Input::Tick));
        self.txns.inputs.extend(under_way);
        let stale: Vec<RequestId> = self
            .txns
            .locked
            .iter_mut()
            .filter(|(_, locked)| locked.since <= horizon)
            .map(|(id, locked)| {
                locked.since = self.now;
                *id
            })
            .collect();
        stale.into_iter().for_each(|id| self.abort_txn(id));
    }
}

// The leader of a range.
impl Replica {
    pub(super) fn on_txn_message(
        &mut self,
        from: NodeId,
        message: TxnMessage,
        view: &dyn View,
    ) -> Result<(), ViewError> {
        let (id, range) = (txns::id_of(message.id.as_ref()), GroupId(message.range));
        match message.body {
            Some(txn_message::Body::Wanted(Locks { locks })) => {
                return self.take_prepare(from, id, range, locks, view);
            }
            Some(txn_message::Body::PreparedAt(at)) => {
                self.txns.input(id, Input::Prepared(range, at));
            }
            Some(txn_message::Body::IsRefused(_)) => {
                self.txns.input(id, Input::PrepareFailed(range));
            }
            Some(txn_message::Body::Leader(leader)) => {
                let is_asked_at_once = self.take_hint(range, from, NodeId(leader));
                if is_asked_at_once {
                    self.txns.input(id, Input::AskAgain(range));
                }
            }
            None => {}
        }
        Ok(())
    }

    fn take_prepare(
        &mut self,
        from: NodeId,
        id: RequestId,
        range: GroupId,
        locks: Vec<Lock>,
        view: &dyn View,
    ) -> Result<(), ViewError> {
        self.txns.wanted_by.insert(id, (from, self.now));
        if range != GroupId::SPINE {
            if self.ranges.is_running(range) {
                self.tell(range, replica::Input::Prepare(id, locks));
            } else {
                self.name_leader(from, range, id);
            }
            return Ok(());
        }
        let is_waiting = self
            .waiting
            .values()
            .any(|waiting| matches!(waiting.work, Work::Prepare { id: other, .. } if other == id));
        if is_waiting {
            return Ok(());
        }
        if self.txns.locked.contains_key(&id) {
            self.answer_prepare(GroupId::SPINE, id, Some(self.status.term));
            return Ok(());
        }
        let is_ready = self.is_serving() && self.group.transferee().is_none();
        if !is_ready || !self.owns_all(&locks) {
            self.answer_prepare(GroupId::SPINE, id, None);
            return Ok(());
        }
        self.latch_prepare(id, locks, view)
    }

    /// There is no replica here that could lock anything; somebody thought there was.
    fn name_leader(&mut self, to: NodeId, range: GroupId, id: RequestId) {
        if to == self.node() {
            return;
        }
        let leader = self.hint(range).map_or(0, |leader| leader.0);
        let body = Some(txn_message::Body::Leader(leader));
        let message = TxnMessage { id: Some(txns::to_proto(id)), range: range.0, body };
        self.out.push(Effect::Send(to, Parcel::Txn(message)));
    }

    /// Whether range 0 owns everything that is to be locked in it; some may have been split off.
    fn owns_all(&self, locks: &[Lock]) -> bool {
        let ranges = self.state.ranges();
        let keys = locks.iter().filter(|lock| lock.lease == 0);
        let mut spans =
            keys.map(|lock| Span::from_request(lock.key.clone(), lock.range_end.clone()));
        spans.all(|span| ranges.overlapping(&span) == [GroupId::SPINE])
    }

    fn latch_prepare(
        &mut self,
        id: RequestId,
        locks: Vec<Lock>,
        view: &dyn View,
    ) -> Result<(), ViewError> {
        let ranges = self.state.ranges();
        let owns = |key: &[u8]| ranges.owner(key) == GroupId::SPINE;
        let locks = lock::with_attached_keys(view, locks, None, owns)?;
        let footprint = lock::footprint(&locks);
        self.latch(
            footprint,
            Waiting { since: self.now, to: None, work: Work::Prepare { id, locks } },
            view,
        )
    }

    /// The latches are held. A key may have been attached to a lease while they were waited for;
    /// then they are taken anew.
    pub(super) fn on_prepare_latched(
        &mut self,
        guard: Guard,
        id: RequestId,
        locks: Vec<Lock>,
        view: &dyn View,
    ) -> Result<(), ViewError> {
        // It was ended while it waited, or its coordinator is gone: nobody would give these back.
        let wanted = self.txns.wanted_by.get(&id);
        let is_wanted = wanted.is_some_and(|(_, at)| *at + UNWANTED_AFTER > self.now);
        if !is_wanted || self.state.decision(GroupId::SPINE, id).is_some() {
            return self.unlatch(vec![guard], view);
        }
        if !self.owns_all(&locks) {
            self.answer_prepare(GroupId::SPINE, id, None);
            return self.unlatch(vec![guard], view);
        }
        let ranges = self.state.ranges();
        let owns = |key: &[u8]| ranges.owner(key) == GroupId::SPINE;
        let needed = lock::with_attached_keys(view, locks.clone(), None, owns)?;
        if needed.len() > locks.len() {
            self.unlatch(vec![guard], view)?;
            return self.latch_prepare(id, needed, view);
        }
        self.txns.locked.insert(id, Locked { guard, since: self.now });
        self.answer_prepare(GroupId::SPINE, id, Some(self.status.term));
        Ok(())
    }

    /// Tells the coordinator of locks; it may be this node.
    pub(super) fn answer_prepare(&mut self, range: GroupId, id: RequestId, at: Option<u64>) {
        let Some((to, _)) = self.txns.wanted_by.get(&id).copied() else { return };
        if to == self.node() {
            let refused = Input::PrepareFailed(range);
            let input = at.map_or(refused, |at| Input::Prepared(range, at));
            self.txns.input(id, input);
            return;
        }
        // Who asked may have no replica of the range, and have guessed.
        let leader = self.ranges.leader(range).filter(|leader| *leader != self.node());
        let body = Some(match (at, leader) {
            (Some(at), _) => txn_message::Body::PreparedAt(at),
            (None, Some(leader)) => txn_message::Body::Leader(leader.0),
            (None, None) => txn_message::Body::IsRefused(true),
        });
        let message = TxnMessage { id: Some(txns::to_proto(id)), range: range.0, body };
        self.out.push(Effect::Send(to, Parcel::Txn(message)));
    }

    /// A transaction is decided. Returns its latches of range 0, which are given back once the
    /// entry is applied.
    pub(super) fn forget_locks(&mut self, id: RequestId) -> Option<Guard> {
        self.txns.wanted_by.remove(&id);
        self.txns.locked.remove(&id).map(|locked| locked.guard)
    }

    /// The latches are gone with the leadership.
    pub(super) fn stop_txns(&mut self) {
        self.txns.locked.clear();
        let is_lease_end =
            |attempt: &Attempt| matches!(attempt.coordinator.job(), Job::LeaseEnd { .. });
        let ids: Vec<RequestId> = self
            .txns
            .attempts
            .iter()
            .filter(|(_, attempt)| is_lease_end(attempt))
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            let attempt = self.txns.attempts.remove(&id).expect("it was just listed");
            let Job::LeaseEnd { id: lease, .. } = attempt.coordinator.job() else { continue };
            match attempt.to {
                Some(to) if attempt.coordinator.is_decided() => {
                    self.reply(to, Err(Error::TimeoutDueToLeaderFail));
                }
                Some(to) => {
                    let request = pb::LeaseRevokeRequest { id: *lease };
                    self.refuse_unproposed(to, Command::LeaseRevoke(request));
                }
                None => {}
            }
        }
    }

    /// The store was replaced: what was decided meanwhile is not known.
    pub(super) fn drop_attempts(&mut self) {
        for (_, attempt) in mem::take(&mut self.txns.attempts) {
            if let Some(to) = attempt.to {
                self.reply(to, Err(Error::Timeout));
            }
        }
    }
}

fn abort_record(id: RequestId) -> Record {
    let body = Some(Body::TxnAbort(TxnAbort { id: Some(txns::to_proto(id)) }));
    Record { body, ..Record::default() }
}
