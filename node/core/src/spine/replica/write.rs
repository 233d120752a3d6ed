//! Writes of range 0 on the leader: latch, evaluate on complete state (I5), propose effects that
//! are decided (I4); or, when there is no effect, answer at a ticket (I7).

use bytes::Bytes;

use crate::auth::Pass;
use crate::command::{Answer, Command, RequestId};
use crate::mutant::{self, Mutant};
use crate::mvcc::{self, Evaluated, Head};
use crate::proto::etcdserverpb::{CompactionRequest, LeaseRevokeRequest};
use crate::proto::internal::{self, Lock, Record, record::Body};
use crate::range::latch::{Footprint, Guard, Mode, Point};
use crate::spine::apply::{Content, Requester};
use crate::spine::replica::Replica;
use crate::spine::state::Position;
use crate::time::Time;
use crate::txn::Job;
use crate::view::{View, ViewError};
use crate::{Error, GroupId, LeaseId, NodeId};

/// What waits for its latches.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    /// When it asked for them.
    pub(super) since: Time,
    pub(super) to: Option<Requester>,
    pub(super) work: Work,
}

/// What is done once latches are held.
#[derive(Clone, Debug)]
pub(super) enum Work {
    /// A client's write.
    Write(Command),
    /// A compaction.
    Compact { revision: i64 },
    /// A lease ends. The keys are those it had when the latches were asked for.
    Revoke { lease: i64, expired_in_term: u64, granted_at: u64 },
    /// Locks of a transaction over several ranges.
    Prepare { id: RequestId, locks: Vec<Lock> },
}

/// A record on its way through the log.
#[derive(Clone, Debug)]
pub(super) struct Proposed {
    /// When its latches were asked for.
    pub(super) started: Time,
    /// Where its client is.
    pub(super) node: NodeId,
    /// What it was let in with.
    pub(super) pass: Pass,
    /// Given back once the write is applied; `None` when the leadership it belonged to ended.
    pub(super) guard: Option<Guard>,
    /// The answer if it is folded as it stands; `None` when nobody waits.
    pub(super) content: Option<Content>,
}

impl Proposed {
    pub(super) fn requester(&self, id: RequestId) -> Requester {
        Requester { id, node: self.node, pass: self.pass }
    }
}

impl Replica {
    pub(super) fn begin_write(
        &mut self,
        to: Requester,
        command: Command,
        view: &dyn View,
    ) -> Result<(), ViewError> {
        let footprint = mvcc::footprint(&command).into();
        self.latch(
            footprint,
            Waiting { since: self.now, to: Some(to), work: Work::Write(command) },
            view,
        )
    }

    /// Compacts, when nobody is evaluating a read of the past.
    pub(super) fn begin_compact(
        &mut self,
        to: Requester,
        request: CompactionRequest,
        view: &dyn View,
    ) -> Result<(), ViewError> {
        let points = vec![(Point::Past, Mode::Write)];
        let work = Work::Compact { revision: request.revision };
        let waiting = Waiting { since: self.now, to: Some(to), work };
        self.latch(Footprint { points, spans: Vec::new() }, waiting, view)
    }

    /// Starts the end of a lease: by a client, or (without one) because it expired.
    pub(super) fn begin_revoke(
        &mut self,
        to: Option<Requester>,
        lease: i64,
        view: &dyn View,
    ) -> Result<(), ViewError> {
        let expired_in_term = if to.is_none() { self.status.term } else { 0 };
        let known = self.state.leases().get(&lease);
        let granted_at = known.map_or(0, |known| known.granted_at);
        if let Some(known) = known.filter(|known| !known.ranges.is_empty()) {
            let ranges = known.ranges.clone();
            self.begin_txn(to, Job::LeaseEnd { id: lease, expired_in_term, granted_at, ranges });
            return Ok(());
        }
        // Nobody can attach a key while the lease is latched. A key attached before the latches
        // were granted is seen when they are, and the footprint is drawn anew.
        let keys = self.own_lease_keys(lease, view)?;
        let mut points = vec![(Point::Lease(lease), Mode::Write)];
        points.extend(keys.into_iter().map(|key| (Point::Key(key), Mode::Write)));
        let work = Work::Revoke { lease, expired_in_term, granted_at };
        let waiting = Waiting { since: self.now, to, work };
        self.latch(Footprint { points, spans: Vec::new() }, waiting, view)
    }

    /// The keys of range 0 that are attached to a lease. Those of other ranges may be here still, of a
    /// lease of this name that was ended before: its changes there are decided and not applied.
    fn own_lease_keys(&self, lease: i64, view: &dyn View) -> Result<Vec<Bytes>, ViewError> {
        let mut keys = mvcc::lease_keys(view, LeaseId(lease))?;
        let ranges = self.state.ranges();
        if !ranges.is_empty() {
            keys.retain(|key| ranges.owner(key) == GroupId::SPINE);
        }
        Ok(keys)
    }

    pub(super) fn latch(
        &mut self,
        footprint: Footprint,
        waiting: Waiting,
        view: &dyn View,
    ) -> Result<(), ViewError> {
        let latched: Vec<_> = match &waiting.work {
            Work::Write(_) | Work::Compact { .. } | Work::Prepare { .. } => Vec::new(),
            Work::Revoke { .. } => footprint.points.clone(),
        };
        let (guard, is_granted) = self.latches.acquire(footprint);
        if !is_granted {
            self.waiting.insert(guard, waiting);
            return Ok(());
        }
        self.on_latched(guard, waiting, &latched, view)
    }

    /// Gives latches back and goes on with whoever waited for them.
    ///
    /// Whoever goes on may give back its latches at once. Then the one that is under way takes them
    /// over: thousands may wait for one key, and the stack is not theirs to fill.
    pub(super) fn unlatch(&mut self, guards: Vec<Guard>, view: &dyn View) -> Result<(), ViewError> {
        if let Some(released) = &mut self.released {
            released.extend(guards);
            return Ok(());
        }
        self.released = Some(guards);
        let mut result = Ok(());
        while let Some(guards) = self.released.as_mut().map(std::mem::take)
            && !guards.is_empty()
            && result.is_ok()
        {
            result = self.release(guards, view);
        }
        self.released = None;
        result
    }

    fn release(&mut self, guards: Vec<Guard>, view: &dyn View) -> Result<(), ViewError> {
        let mut granted = Vec::new();
        for guard in guards {
            self.latches.release(guard, &mut granted);
        }
        for guard in granted {
            let waiting = self.waiting.remove(&guard).expect("a granted guard was waiting");
            let latched = self.latches.points_of(guard);
            self.on_latched(guard, waiting, &latched, view)?;
        }
        Ok(())
    }

    fn on_latched(
        &mut self,
        guard: Guard,
        waiting: Waiting,
        latched: &[(Point, Mode)],
        view: &dyn View,
    ) -> Result<(), ViewError> {
        match waiting.work {
            Work::Write(command) if self.group.transferee().is_some() => {
                // It would be refused. Kept, it goes to the new leader.
                let to = waiting.to.expect("a write has a requester");
                self.parked.push_back((to, command));
                self.unlatch(vec![guard], view)
            }
            Work::Write(command) => {
                let to = waiting.to.expect("a write has a requester");
                self.evaluate(guard, to, command, waiting.since, view)
            }
            Work::Compact { revision } => {
                let body = Body::Compact(internal::Compact { revision });
                let content = Content::Done(Answer::Compact(Default::default()));
                self.propose(waiting.to, Some(guard), body, Some(content), view)
            }
            Work::Revoke { lease, expired_in_term, granted_at } => {
                let revoke = internal::LeaseRevoke {
                    id: lease,
                    expired_in_term,
                    granted_at,
                    ..internal::LeaseRevoke::default()
                };
                self.evaluate_revoke(guard, waiting.to, revoke, latched, view)
            }
            Work::Prepare { id, locks } => self.on_prepare_latched(guard, id, locks, view),
        }
    }

    fn evaluate(
        &mut self,
        guard: Guard,
        to: Requester,
        command: Command,
        since: Time,
        view: &dyn View,
    ) -> Result<(), ViewError> {
        let is_abandoned = to.node == self.node() && !self.open.contains_key(&to.id.n);
        if is_abandoned {
            return self.unlatch(vec![guard], view);
        }
        if !self.is_of_range_0(&command) {
            // Its keys were split off while it waited.
            self.unlatch(vec![guard], view)?;
            return self.route(to, command, view);
        }
        match mvcc::evaluate(view, self.applied_head(), &mvcc::FoldDecides, &command)? {
            Evaluated::NoEffect if mutant::is(Mutant::StaleFail) => {
                self.unlatch(vec![guard], view)?;
                self.answer_command(to, command, view)
            }
            Evaluated::NoEffect => {
                self.tickets.want_command(to, command, self.now);
                self.unlatch(vec![guard], view)
            }
            Evaluated::Effects { effects, draft, .. } => {
                let body = Body::Write(internal::Write { effects, pass: to.pass.number() });
                let (node, pass) = (to.node, to.pass);
                let (guard, content) = (Some(guard), Some(Content::Draft(draft)));
                let proposed = Proposed { started: since, node, pass, guard, content };
                self.propose_as(to, proposed, body, view)
            }
        }
    }

    fn evaluate_revoke(
        &mut self,
        guard: Guard,
        to: Option<Requester>,
        mut revoke: internal::LeaseRevoke,
        latched: &[(Point, Mode)],
        view: &dyn View,
    ) -> Result<(), ViewError> {
        let lease = revoke.id;
        if !self.state.leases().contains_key(&lease) {
            self.unlatch(vec![guard], view)?;
            if let Some(to) = to {
                // That the lease is gone is a read-only outcome, known for certain at a ticket.
                let request = LeaseRevokeRequest { id: lease };
                self.tickets.want_command(to, Command::LeaseRevoke(request), self.now);
            } else {
                self.revoking.remove(&lease);
            }
            return Ok(());
        }
        let keys = self.own_lease_keys(lease, view)?;
        // Points are kept sorted, and a lease may have very many keys.
        let is_latched = |key: &Bytes| {
            let place = Point::Key(key.clone());
            latched.binary_search_by(|(point, _)| point.cmp(&place)).is_ok()
        };
        if !keys.iter().all(is_latched) {
            self.unlatch(vec![guard], view)?;
            return self.begin_revoke(to, lease, view);
        }
        revoke.is_all_keys = keys.len() > mvcc::NAMED_KEYS_MAX;
        revoke.keys = if revoke.is_all_keys { Vec::new() } else { keys };
        revoke.pass = to.map_or(Pass::NODE, |to| to.pass).number();
        let body = Body::LeaseRevoke(revoke);
        let content = Content::Done(Answer::LeaseRevoke(Default::default()));
        self.propose(to, Some(guard), body, Some(content), view)
    }

    /// Puts a record into the entry being gathered. A request without requester is this node's own.
    pub(super) fn propose(
        &mut self,
        to: Option<Requester>,
        guard: Option<Guard>,
        body: Body,
        content: Option<Content>,
        view: &dyn View,
    ) -> Result<(), ViewError> {
        let to = to.unwrap_or_else(|| self.own_requester());
        let (started, node, pass) = (self.now, to.node, to.pass);
        let proposed = Proposed { started, node, pass, guard, content };
        self.propose_as(to, proposed, body, view)
    }

    fn propose_as(
        &mut self,
        to: Requester,
        proposed: Proposed,
        body: Body,
        view: &dyn View,
    ) -> Result<(), ViewError> {
        let record = Record { origin: to.id.origin, n: to.id.n, body: Some(body) };
        let is_too_large = self.is_too_large(&record);
        let is_duplicate = self.proposed.contains_key(&to.id);
        if is_too_large || is_duplicate {
            if is_too_large {
                if let Some(Body::LeaseRevoke(revoke)) = &record.body {
                    self.revoking.remove(&revoke.id);
                }
                self.reply(to, Err(Error::RequestTooLarge));
            }
            return self.unlatch(proposed.guard.into_iter().collect(), view);
        }
        self.proposed.insert(to.id, proposed);
        self.push_record(record, view)
    }

    pub(super) fn is_too_large(&self, record: &Record) -> bool {
        prost::Message::encoded_len(record) > self.record_bytes_max(record)
    }

    /// A client's proposal has etcd's limit. The keys that a delete or a lease names are not the
    /// client's bytes and may take more, as much as an append of the log takes.
    fn record_bytes_max(&self, record: &Record) -> usize {
        let is_resolved = match &record.body {
            Some(Body::Write(write)) => write.effects.iter().any(|effect| effect.is_delete),
            Some(Body::TxnCommit(commit)) => {
                let mut effects = commit.shares.iter().flat_map(|share| &share.effects);
                commit.split.is_some()
                    || commit.merge.is_some()
                    || effects.any(|effect| effect.is_delete)
            }
            Some(Body::LeaseRevoke(_)) => true,
            _ => false,
        };
        let limits = &self.config.limits;
        if is_resolved {
            limits.record_bytes_max.max(limits.request_bytes_max)
        } else {
            limits.request_bytes_max
        }
    }

    /// Where the store stands: what read-only outcomes are evaluated at.
    pub(super) fn applied_head(&self) -> Head {
        let Position { revision, compact_revision, .. } = self.applied;
        Head { revision, compact_revision }
    }
}
