//! etcd as one thread and a few maps: the whole history of every key, transactions, leases,
//! compaction. It is the yardstick for histories and for other stores, so it is written to be
//! seen to be right and shares no decision with the node.
//! It knows no clock (leases never expire by themselves), no sizes, no users.

mod agreement;
mod compare;
mod delete;
mod draft;
mod lease;
mod limits;
mod put;
mod read;
mod refusal;
pub mod requests;
mod timeline;
mod txn;
mod validate;
mod view;

use std::collections::BTreeMap;

use flotilla_proto::etcdserverpb::{CompactionRequest, CompactionResponse, ResponseHeader};

pub use agreement::{Difference, agrees};
pub use limits::Limits;
pub use read::{ReadOrder, SortKey};
pub use refusal::Refusal;
pub use timeline::Timeline;
pub use txn::{is_read_only, is_serializable};
pub use validate::validate;
pub use view::{Leases, NEVER_COMPACTED, Step, View};

use crate::history::{Answer, Event, Request};

/// A store that answers one request after the other.
#[derive(Clone, Debug)]
pub struct Model {
    timeline: Timeline,
    compacted: i64,
    /// Granted TTL in seconds, by lease.
    leases: BTreeMap<i64, i64>,
    limits: Limits,
}

impl Default for Model {
    fn default() -> Model {
        Model::new(Limits::default())
    }
}

impl Model {
    /// An empty store at [`crate::history::EMPTY_STORE_REVISION`].
    pub fn new(limits: Limits) -> Model {
        Model {
            timeline: Timeline::default(),
            compacted: NEVER_COMPACTED,
            leases: BTreeMap::new(),
            limits,
        }
    }

    /// Answers a request and carries it out. A refusal changes nothing.
    ///
    /// Where etcd leaves a choice to the server, the model takes one, and [`agrees`] accepts the
    /// others: a grant of lease 0 takes the lowest free id (see [`Model::take_lease_id`] for
    /// following another server), equal keys of a sorted read come in key order, a time to live
    /// is always the full one.
    pub fn apply(&mut self, request: &Request) -> Result<Step, Refusal> {
        let step = self.evaluate(request)?;
        match request {
            Request::Compact(request) => self.compacted = request.revision,
            Request::LeaseRevoke(request) => {
                self.leases.remove(&request.id);
            }
            Request::LeaseGrant(_) => {
                if let Answer::LeaseGrant(granted) = &step.answer {
                    self.leases.insert(granted.id, granted.ttl);
                }
            }
            Request::Read(_)
            | Request::Put(_)
            | Request::DeleteRange(_)
            | Request::Txn(_)
            | Request::LeaseKeepAlive(_)
            | Request::LeaseTimeToLive(_)
            | Request::LeaseLeases(_) => {}
        }
        self.append(step.events.clone());
        Ok(step)
    }

    /// What [`Model::apply`] would answer and change, without changing anything.
    pub fn evaluate(&self, request: &Request) -> Result<Step, Refusal> {
        validate(request, &self.limits)?;
        let view = self.view();
        match request {
            Request::Read(request) => view.read(request),
            Request::Put(request) => view.put(request),
            Request::DeleteRange(request) => Ok(view.delete_range(request)),
            Request::Txn(request) => view.txn(request),
            Request::Compact(request) => self.compact(request),
            Request::LeaseGrant(request) => self.grant(request),
            Request::LeaseRevoke(request) => view.revoke(request.id),
            Request::LeaseKeepAlive(request) => Ok(self.keep_alive(request)),
            Request::LeaseTimeToLive(request) => Ok(self.time_to_live(request)),
            Request::LeaseLeases(_) => Ok(self.list_leases()),
        }
    }

    /// The lease ran out: deletes its keys in one revision. Returns the events, none if no key
    /// was attached or there is no such lease.
    pub fn expire(&mut self, lease: i64) -> Vec<Event> {
        let Ok(step) = self.view().revoke(lease) else { return Vec::new() };
        self.leases.remove(&lease);
        self.append(step.events.clone());
        step.events
    }

    /// The request as the server that gave `answer` understood it: a grant of lease 0 becomes a
    /// grant of the lease the server picked. Everything else stays as it is.
    pub fn take_lease_id(request: &Request, answer: &Answer) -> Request {
        match (request, answer) {
            (Request::LeaseGrant(request), Answer::LeaseGrant(answer)) if request.id == 0 => {
                let mut request = *request;
                request.id = answer.id;
                Request::LeaseGrant(request)
            }
            _ => request.clone(),
        }
    }

    /// The current state.
    pub fn view(&self) -> View<'_> {
        View {
            timeline: &self.timeline,
            revision: self.timeline.revision(),
            compacted: self.compacted,
            leases: Leases::Known(&self.leases),
        }
    }

    /// Every revision so far.
    pub fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    /// The current revision.
    pub fn revision(&self) -> i64 {
        self.timeline.revision()
    }

    /// The compact revision; [`NEVER_COMPACTED`] at first.
    pub fn compacted(&self) -> i64 {
        self.compacted
    }

    /// Granted TTL in seconds of every live lease, by id.
    pub fn leases(&self) -> &BTreeMap<i64, i64> {
        &self.leases
    }

    fn append(&mut self, events: Vec<Event>) {
        if !events.is_empty() {
            self.timeline.append(self.timeline.revision() + 1, events);
        }
    }

    fn compact(&self, request: &CompactionRequest) -> Result<Step, Refusal> {
        if request.revision <= self.compacted {
            return Err(Refusal::Compacted);
        }
        if request.revision > self.revision() {
            return Err(Refusal::FutureRevision);
        }
        Ok(Step::answer(Answer::Compact(CompactionResponse { header: self.header() })))
    }

    fn header(&self) -> Option<ResponseHeader> {
        Some(ResponseHeader { revision: self.revision(), ..ResponseHeader::default() })
    }
}

#[cfg(test)]
mod tests;
