//! Put: writes one key, optionally keeping the value or the lease it had.

use flotilla_proto::etcdserverpb::{PutRequest, PutResponse};

use crate::model::Refusal;
use crate::model::draft::Draft;
use crate::model::view::View;

impl View<'_> {
    pub(super) fn check_lease(&self, request: &PutRequest) -> Result<(), Refusal> {
        if request.lease != 0 && !self.has_lease(request.lease) {
            return Err(Refusal::LeaseNotFound);
        }
        Ok(())
    }

    pub(super) fn check_kept(&self, request: &PutRequest) -> Result<(), Refusal> {
        let keeps = request.ignore_value || request.ignore_lease;
        if keeps && self.timeline.get(&request.key, self.revision).is_none() {
            return Err(Refusal::KeyNotFound);
        }
        Ok(())
    }
}

impl Draft<'_> {
    /// Refuses only if the same transaction has deleted the key whose value or lease is to be
    /// kept. etcd ends the process there; refusing is what a store should do.
    pub(super) fn put(&mut self, request: &PutRequest) -> Result<PutResponse, Refusal> {
        let previous = self.get(&request.key).cloned();
        let (mut value, mut lease) = (request.value.clone(), request.lease);
        if request.ignore_value || request.ignore_lease {
            let previous = previous.as_ref().ok_or(Refusal::KeyNotFound)?;
            if request.ignore_value {
                value = previous.value.clone();
            }
            if request.ignore_lease {
                lease = previous.lease;
            }
        }
        self.write(&request.key, value, lease);
        let prev_kv = if request.prev_kv { previous } else { None };
        Ok(PutResponse { header: self.header(), prev_kv })
    }
}
