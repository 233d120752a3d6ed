//! KV.Put, alone and within a transaction.

use super::Failure;
use super::draft::{THIS_REVISION, header};
use super::evaluate::LeaseTable;
use super::txn::Execution;
use crate::proto::etcdserverpb as pb;
use crate::proto::internal::Effect;
use crate::{Error, LeaseId};

/// True if the effect does not depend on the key's state, so that nothing has to be read.
pub(super) fn is_blind(request: &pb::PutRequest) -> bool {
    !request.ignore_value && !request.ignore_lease
}

/// The effect of a blind put.
pub(super) fn blind_effect(request: &pb::PutRequest) -> Effect {
    Effect {
        key: request.key.clone(),
        value: request.value.clone(),
        lease: request.lease,
        is_delete: false,
        range_end: Default::default(),
    }
}

/// Fails if the lease is unknown.
pub(super) fn check_lease(leases: &dyn LeaseTable, request: &pb::PutRequest) -> Result<(), Error> {
    if request.lease == 0 || leases.exists(LeaseId(request.lease)) {
        Ok(())
    } else {
        Err(Error::LeaseNotFound)
    }
}

/// Whether the put is possible on the state as it is.
///
/// # Errors
/// An unknown lease; a missing key whose value or lease should be kept.
pub(super) fn check(execution: &Execution<'_>, request: &pb::PutRequest) -> Result<(), Failure> {
    check_lease(execution.leases, request)?;
    if !is_blind(request) && execution.keys.get(&request.key)?.is_none() {
        return Err(Error::KeyNotFound.into());
    }
    Ok(())
}

/// Carries out a put that was found possible.
///
/// # Errors
/// The key whose value or lease should be kept was deleted earlier in the same transaction.
pub(super) fn execute(
    execution: &mut Execution<'_>,
    request: &pb::PutRequest,
) -> Result<pb::PutResponse, Failure> {
    let mut effect = blind_effect(request);
    let mut previous = None;
    if request.prev_kv || !is_blind(request) {
        previous = execution.keys.get(&request.key)?;
        if !is_blind(request) {
            let previous = previous.as_ref().ok_or(Error::KeyNotFound)?;
            if request.ignore_value {
                effect.value = previous.value.clone();
            }
            if request.ignore_lease {
                effect.lease = previous.lease;
            }
        }
    }
    execution.keys.put(effect.key.clone(), effect.value.clone(), effect.lease)?;
    execution.effects.push(effect);
    Ok(pb::PutResponse {
        header: header(THIS_REVISION),
        prev_kv: previous.filter(|_| request.prev_kv),
    })
}
