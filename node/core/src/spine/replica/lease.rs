//! Leases on the leader: granted and revoked through the log, renewed and timed in memory. A
//! leader ends an expired lease only while a quorum has just confirmed it and its own log moves,
//! so that one that was cut off, or whose disk hangs, never does.

use std::mem;

use crate::command::{Answer, Command};
use crate::lease::{self, Renewal};
use crate::proto::etcdserverpb as pb;
use crate::proto::internal::{self, record::Body};
use crate::spine::apply::{Content, Requester};
use crate::spine::replica::Replica;
use crate::spine::state::Verdict;
use crate::view::{View, ViewError};

impl Replica {
    pub(super) fn begin_grant(
        &mut self,
        to: Requester,
        request: pb::LeaseGrantRequest,
        view: &dyn View,
    ) -> Result<(), ViewError> {
        let ttl = match lease::effective_ttl(request.ttl, self.config.election_timeout) {
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
        match self.book.renew(id, self.now) {
            Renewal::Renewed { ttl } => self.answer_keep_alive(to, id, ttl),
            Renewal::Unknown => self.answer_keep_alive(to, id, 0),
            // Whether it lives is decided by the revocation that is due; the answer follows it.
            Renewal::Overdue => self.overdue.entry(id).or_default().push(to),
            Renewal::RenewedWithMark { ttl } => {
                let leases = vec![internal::LeaseRemaining { id, remaining_ttl: 0 }];
                let body = Body::LeaseCheckpoint(internal::LeaseCheckpoint { leases });
                self.propose(None, None, body, None, view)?;
                self.answer_keep_alive(to, id, ttl);
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
        let granted_ttl = self.state.leases().get(&request.id).map(|lease| lease.ttl);
        let ttl = granted_ttl.and_then(|_| self.book.remaining_secs(request.id, self.now));
        let revision = self.applied.revision;
        let answer = pb::LeaseTimeToLiveResponse {
            header: Some(pb::ResponseHeader { revision, ..Default::default() }),
            id: request.id,
            ttl: ttl.unwrap_or(-1),
            granted_ttl: granted_ttl.unwrap_or(0),
            keys: Vec::new(),
        };
        self.reply(to, Ok(Answer::LeaseTimeToLive(answer)));
        Ok(())
    }

    /// What a folded record means for the leases this leader times.
    pub(super) fn follow_leases(&mut self, body: &Body, verdict: &Verdict) {
        let is_done = matches!(verdict, Verdict::Done | Verdict::Numbered(_));
        match body {
            Body::LeaseGrant(grant) if is_done && self.is_serving() => {
                self.book.grant(grant.id, grant.ttl, self.now);
            }
            Body::LeaseRevoke(revoke) => {
                self.revoking.remove(&revoke.id);
                if is_done {
                    self.book.revoke(revoke.id);
                }
                for to in self.overdue.remove(&revoke.id).unwrap_or_default() {
                    self.answer_keep_alive(to, revoke.id, 0);
                }
            }
            _ => {}
        }
    }

    pub(super) fn start_leases(&mut self) {
        let leases = self.state.leases();
        let table = leases.iter().map(|(id, lease)| (*id, lease.ttl, lease.remaining_ttl));
        self.book.promote(table, self.now);
    }

    pub(super) fn stop_leases(&mut self) {
        self.book.demote();
        self.revoking.clear();
        self.confirmed = None;
        for (id, waiting) in mem::take(&mut self.overdue) {
            for to in waiting {
                let command = Command::LeaseKeepAlive(pb::LeaseKeepAliveRequest { id });
                self.refuse_unproposed(to, command);
            }
        }
    }

    /// A quorum has confirmed this leader within the last election timeout, and its log moves.
    fn may_expire(&self) -> bool {
        let timeout = self.config.election_timeout;
        self.confirmed.is_some_and(|at| self.now.since(at) < timeout)
            && self.disk_stalled < timeout
    }

    pub(super) fn tick_leases(&mut self, view: &dyn View) -> Result<(), ViewError> {
        if !self.is_serving() {
            return Ok(());
        }
        if self.book.is_anything_due(self.now) && !self.may_expire() {
            self.tickets.want_confirmation(self.now);
        }
        for id in self.book.due(self.now, self.may_expire()) {
            if self.revoking.insert(id) {
                self.begin_revoke(None, id, view)?;
            }
        }
        let marks = self.book.checkpoints(self.now);
        if !marks.is_empty() {
            let leases = marks
                .into_iter()
                .map(|(id, remaining_ttl)| internal::LeaseRemaining { id, remaining_ttl })
                .collect();
            let body = Body::LeaseCheckpoint(internal::LeaseCheckpoint { leases });
            self.propose(None, None, body, None, view)?;
        }
        Ok(())
    }
}
