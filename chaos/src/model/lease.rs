//! Lease requests, without a clock: a lease lives until it is revoked or declared expired.

use flotilla_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseLeasesResponse, LeaseStatus, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
};

use crate::history::Answer;
use crate::model::{Model, Refusal, Step};

/// What TimeToLive answers for a lease that does not exist.
const NO_SUCH_LEASE_TTL: i64 = -1;

impl Model {
    pub(super) fn grant(&self, request: &LeaseGrantRequest) -> Result<Step, Refusal> {
        let id = if request.id == 0 { self.lowest_free_lease() } else { request.id };
        if self.leases.contains_key(&id) {
            return Err(Refusal::LeaseExists);
        }
        Ok(Step::answer(Answer::LeaseGrant(LeaseGrantResponse {
            header: self.header(),
            id,
            ttl: request.ttl.max(self.limits.lease_ttl_min_seconds),
            error: String::new(),
        })))
    }

    pub(super) fn keep_alive(&self, request: &LeaseKeepAliveRequest) -> Step {
        Step::answer(Answer::LeaseKeepAlive(LeaseKeepAliveResponse {
            header: self.header(),
            id: request.id,
            ttl: self.leases.get(&request.id).copied().unwrap_or(0),
        }))
    }

    pub(super) fn time_to_live(&self, request: &LeaseTimeToLiveRequest) -> Step {
        let granted = self.leases.get(&request.id).copied();
        let keys = match granted {
            Some(_) if request.keys => self.timeline.attached(request.id, self.revision()),
            Some(_) | None => Vec::new(),
        };
        Step::answer(Answer::LeaseTimeToLive(LeaseTimeToLiveResponse {
            header: self.header(),
            id: request.id,
            ttl: granted.unwrap_or(NO_SUCH_LEASE_TTL),
            granted_ttl: granted.unwrap_or(0),
            keys,
        }))
    }

    pub(super) fn list_leases(&self) -> Step {
        let leases = self.leases.keys().map(|&id| LeaseStatus { id }).collect();
        Step::answer(Answer::LeaseLeases(LeaseLeasesResponse { header: self.header(), leases }))
    }

    fn lowest_free_lease(&self) -> i64 {
        let mut id = 1;
        while self.leases.contains_key(&id) {
            id += 1;
        }
        id
    }
}
