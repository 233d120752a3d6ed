//! Leases on the leader: granted and revoked through the log, renewed and timed in memory. A
//! leader ends an expired lease only while a quorum has just confirmed it and its own log moves,
//! so that one that was cut off, or whose disk hangs, never does.

use std::mem;

use crate::LeaseId;
use crate::command::{Answer, Command};
use crate::lease::{self, Absent, Renewal, TimeLeft};
use crate::proto::etcdserverpb as pb;
use crate::proto::internal::{self, record::Body};
use crate::spine::apply::{Content, Requester};
use crate::spine::replica::Replica;
use crate::spine::state::Verdict;
use crate::time::Length;
use crate::view::{View, ViewError};

/// What happened to leases on this node since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaseCounts {
    /// As the log has it.
    pub granted: u64,
    /// Ended by their clients or by themselves, as the log has it.
    pub revoked: u64,
    /// While this node led.
    pub renewed: u64,
    /// Found to have expired while this node led.
    pub expired: u64,
}

impl Replica {
    /// What happened to leases since the node started.
    pub fn lease_counts(&self) -> LeaseCounts {
        self.lease_counts
    }

    /// The leases that end first, and how long each still lives: at most `count_max`. Of the leader
    /// only.
    pub fn leases_ending(&self, count_max: usize) -> Vec<(LeaseId, TimeLeft)> {
        self.book.ending_first(self.now, count_max)
    }

    pub(super) fn begin_grant(
        &mut self,
        to: Requester,
        request: pb::LeaseGrantRequest,
        view: &dyn View,
    ) -> Result<(), ViewError> {
        let heartbeat = Length(self.config.tick.0 * self.config.group.heartbeat_ticks as u64);
        let secs_min = lease::ttl_secs_min(heartbeat, self.config.election_timeout);
        let ttl = match lease::ttl_effective(request.ttl, secs_min) {
            Ok(ttl) => ttl,
            Err(error) => {
                self.reply(to, Err(error));
                return Ok(());
            }
        };
        let answer = Answer::LeaseGrant(pb::LeaseGrantResponse {
            header: Some(pb::ResponseHeader::default()),
            id: request.id,
            ttl,
            error: String::new(),
        });
        let body = Body::LeaseGrant(internal::LeaseGrant { id: request.id, ttl });
        self.propose(Some(to), None, body, Some(Content::Done(answer)), view)
    }

    /// Renews a lease; the ticket before it has shown that this node still leads.
    pub(super) fn keep_alive(
        &mut self,
        to: Requester,
        id: i64,
        view: &dyn View,
    ) -> Result<(), ViewError> {
        if !self.is_serving() {
            let command = Command::LeaseKeepAlive(pb::LeaseKeepAliveRequest { id });
            return self.route(to, command, view);
        }
        match self.book.renew(self.now, LeaseId(id), true) {
            Ok(Renewal::Renewed { ttl }) => {
                self.lease_counts.renewed += 1;
                self.answer_keep_alive(to, id, ttl);
            }
            Err(Absent::Unknown) => self.answer_keep_alive(to, id, 0),
            // Whether it lives is decided by the revocation that is due; the answer follows it.
            Ok(Renewal::Expired) => self.overdue.entry(id).or_default().push(to),
            Ok(Renewal::ClearFirst) => {
                let is_under_way = self.clearing.contains_key(&id);
                self.clearing.entry(id).or_default().push(to);
                if !is_under_way {
                    let leases = vec![internal::LeaseRemaining { id, remaining_ttl: 0 }];
                    let body = Body::LeaseCheckpoint(internal::LeaseCheckpoint { leases });
                    self.propose(None, None, body, None, view)?;
                }
            }
            Err(Absent::NotLeader) => {
                let command = Command::LeaseKeepAlive(pb::LeaseKeepAliveRequest { id });
                return self.route(to, command, view);
            }
        }
        Ok(())
    }

    fn answer_keep_alive(&mut self, to: Requester, id: i64, ttl: i64) {
        let revision = self.applied.revision;
        let header = Some(pb::ResponseHeader { revision, ..Default::default() });
        let answer = pb::LeaseKeepAliveResponse { header, id, ttl };
        self.reply(to, Ok(Answer::LeaseKeepAlive(answer)));
    }

    pub(super) fn time_to_live(
        &mut self,
        to: Requester,
        request: pb::LeaseTimeToLiveRequest,
        view: &dyn View,
    ) -> Result<(), ViewError> {
        if !self.is_serving() {
            return self.route(to, Command::LeaseTimeToLive(request), view);
        }
        let left = match self.book.time_left(self.now, LeaseId(request.id)) {
            Ok(left) => left,
            Err(Absent::Unknown) => TimeLeft { secs: -1, ttl: 0 },
            Err(Absent::NotLeader) => {
                return self.route(to, Command::LeaseTimeToLive(request), view);
            }
        };
        let revision = self.applied.revision;
        let answer = pb::LeaseTimeToLiveResponse {
            header: Some(pb::ResponseHeader { revision, ..Default::default() }),
            id: request.id,
            ttl: left.secs,
            granted_ttl: left.ttl,
            keys: Vec::new(),
        };
        self.reply(to, Ok(Answer::LeaseTimeToLive(answer)));
        Ok(())
    }

    /// What a folded record means for the leases this leader times.
    pub(super) fn follow_leases(&mut self, body: &Body, verdict: &Verdict) {
        let is_done = matches!(verdict, Verdict::Done | Verdict::Numbered(_));
        match body {
            Body::LeaseGrant(grant) if is_done => {
                self.lease_counts.granted += 1;
                self.book.grant(self.now, LeaseId(grant.id), grant.ttl);
            }
            Body::LeaseCheckpoint(checkpoint) => {
                for mark in &checkpoint.leases {
                    self.follow_mark(mark);
                }
            }
            Body::LeaseRevoke(revoke) if *verdict == Verdict::Ended => {
                self.revoking.remove(&revoke.id);
            }
            Body::LeaseRevoke(revoke) => self.on_lease_ended(revoke.id),
            _ => {}
        }
    }

    pub(super) fn on_lease_ended(&mut self, id: i64) {
        self.revoking.remove(&id);
        if !self.state.leases().contains_key(&id) {
            self.lease_counts.revoked += 1;
            self.book.revoke(LeaseId(id));
        }
        let overdue = self.overdue.remove(&id).unwrap_or_default();
        let clearing = self.clearing.remove(&id).unwrap_or_default();
        for to in overdue.into_iter().chain(clearing) {
            self.answer_keep_alive(to, id, 0);
        }
    }

    /// A revocation was void because keys of other ranges are attached to the lease by now: a
    /// client's takes the other way.
    pub(super) fn revoke_anew(&mut self, to: Requester, body: &Body) {
        if let Body::LeaseRevoke(revoke) = body
            && revoke.expired_in_term == 0
        {
            let command = Command::LeaseRevoke(pb::LeaseRevokeRequest { id: revoke.id });
            self.refuse_unproposed(to, command);
            self.is_unpark_due = true;
        }
    }

    fn follow_mark(&mut self, mark: &internal::LeaseRemaining) {
        self.book.mark(LeaseId(mark.id), mark.remaining_ttl);
        if mark.remaining_ttl == 0 {
            let ttl = self.state.leases().get(&mark.id).map_or(0, |lease| lease.ttl);
            for to in self.clearing.remove(&mark.id).unwrap_or_default() {
                self.answer_keep_alive(to, mark.id, ttl);
            }
        }
    }

    pub(super) fn start_leases(&mut self) {
        let leases = self.state.leases();
        let table = leases.iter().map(|(id, lease)| (LeaseId(*id), lease.ttl, lease.remaining_ttl));
        self.book.promote(self.now, self.config.election_timeout, table);
    }

    pub(super) fn stop_leases(&mut self) {
        self.book.demote();
        self.revoking.clear();
        self.confirmed = None;
        let overdue = mem::take(&mut self.overdue);
        let clearing = mem::take(&mut self.clearing);
        for (id, waiting) in overdue.into_iter().chain(clearing) {
            for to in waiting {
                let command = Command::LeaseKeepAlive(pb::LeaseKeepAliveRequest { id });
                self.refuse_unproposed(to, command);
            }
        }
    }

    /// A quorum has confirmed this leader within the last election timeout, and its log moves.
    fn may_expire(&self) -> bool {
        let timeout = self.config.election_timeout;
        self.confirmed.is_some_and(|at| self.now.since(at) < timeout) && self.disk_stalled < timeout
    }

    pub(super) fn tick_leases(&mut self, view: &dyn View) -> Result<(), ViewError> {
        if !self.is_serving() {
            return Ok(());
        }
        let is_anything_due = self.book.next_deadline().is_some_and(|at| at <= self.now);
        if is_anything_due && !self.may_expire() {
            self.tickets.want_confirmation(self.now);
        }
        for LeaseId(id) in self.book.due(self.now, self.may_expire()) {
            if self.revoking.insert(id) {
                self.lease_counts.expired += 1;
                self.begin_revoke(None, id, view)?;
            }
        }
        let leases = self.book.marks(self.now);
        if !leases.is_empty() {
            let body = Body::LeaseCheckpoint(internal::LeaseCheckpoint { leases });
            self.propose(None, None, body, None, view)?;
        }
        Ok(())
    }
}
