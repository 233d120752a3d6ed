//! The state a request is answered from: a revision of a timeline, the compact revision and
//! what is known of leases. Owns the answers of all requests that read or change keys.

use std::collections::BTreeMap;

use flotilla_proto::etcdserverpb::{
    DeleteRangeRequest, LeaseRevokeResponse, PutRequest, RangeRequest, TxnRequest,
};

use crate::history::{Answer, Event};
use crate::model::draft::Draft;
use crate::model::read::ReadOrder;
use crate::model::{Refusal, Timeline};

/// The compact revision of a store that was never compacted.
pub const NEVER_COMPACTED: i64 = -1;

/// A state of a store.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// Where the keys are found.
    pub timeline: &'a Timeline,
    /// The current revision of the state.
    pub revision: i64,
    /// Its compact revision, or [`NEVER_COMPACTED`].
    pub compacted: i64,
    /// Its leases.
    pub leases: Leases<'a>,
}

/// Which leases exist.
#[derive(Clone, Copy, Debug)]
pub enum Leases<'a> {
    /// Exactly these, with their granted TTL in seconds.
    Known(&'a BTreeMap<i64, i64>),
    /// Every lease that is named; someone else judges that.
    Assumed,
}

/// What a request answers and changes.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// The answer, with headers that carry the revision only.
    pub answer: Answer,
    /// The events of the new revision, in order. None if the request changes no key.
    pub events: Vec<Event>,
    /// One for each read that was carried out, in order.
    pub orders: Vec<ReadOrder>,
}

impl Step {
    /// An answer that changes no key.
    pub fn answer(answer: Answer) -> Step {
        Step { answer, events: Vec::new(), orders: Vec::new() }
    }
}

impl<'a> View<'a> {
    /// Answers a read.
    pub fn read(&self, request: &RangeRequest) -> Result<Step, Refusal> {
        self.check_read_revision(request)?;
        let mut draft = Draft::new(self);
        let answer = draft.read(request);
        Ok(draft.into_step(Answer::Read(answer)))
    }

    /// Answers a put.
    pub fn put(&self, request: &PutRequest) -> Result<Step, Refusal> {
        self.check_lease(request)?;
        self.check_kept(request)?;
        let mut draft = Draft::new(self);
        let answer = draft.put(request)?;
        Ok(draft.into_step(Answer::Put(answer)))
    }

    /// Answers a delete.
    pub fn delete_range(&self, request: &DeleteRangeRequest) -> Step {
        let mut draft = Draft::new(self);
        let answer = draft.delete_range(request);
        draft.into_step(Answer::DeleteRange(answer))
    }

    /// Answers a transaction.
    pub fn txn(&self, request: &TxnRequest) -> Result<Step, Refusal> {
        self.check_txn(request)?;
        let mut draft = Draft::new(self);
        let answer = draft.txn(request)?;
        Ok(draft.into_step(Answer::Txn(answer)))
    }

    /// Answers the end of a lease, by a client's will or by its own: all keys attached to it are
    /// deleted, in key order.
    pub fn revoke(&self, lease: i64) -> Result<Step, Refusal> {
        if !self.has_lease(lease) {
            return Err(Refusal::LeaseNotFound);
        }
        let mut draft = Draft::new(self);
        for key in self.timeline.attached(lease, self.revision) {
            draft.remove(&key);
        }
        let header = draft.header();
        Ok(draft.into_step(Answer::LeaseRevoke(LeaseRevokeResponse { header })))
    }

    pub(super) fn has_lease(&self, lease: i64) -> bool {
        match self.leases {
            Leases::Known(leases) => leases.contains_key(&lease),
            Leases::Assumed => true,
        }
    }
}
