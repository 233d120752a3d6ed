//! Lock: whoever is first under a name holds its lock, for as long as its key is there.
//!
//! A holder that was held up may outlive its lease without knowing. What the lock guards should
//! therefore refuse whoever shows an older token than it has seen: the create revision of the key.

use bytes::Bytes;
use flotilla_core::proto::etcdserverpb as pb;
use flotilla_core::proto::v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};
use tonic::Status;

use super::Method;
use super::inside::Inside;
use super::queue::{self, Waiter, as_unknown};

const EXPIRED: &str = "mutex: session is expired";

/// Waits, however long, until the lock is held. Who hangs up before has left the queue.
pub(super) async fn lock(inside: Inside, request: LockRequest) -> Result<LockResponse, Status> {
    held(inside, request).await.map_err(as_unknown)
}

async fn held(inside: Inside, request: LockRequest) -> Result<LockResponse, Status> {
    let waiter = Waiter::new(inside, request.name, request.lease).await?;
    let standing = waiter.enter(Bytes::new()).await?;
    let leaving = waiter.leave_if_dropped();
    let mut header = standing.header;
    if !standing.is_first {
        waiter.until_first(standing.create_revision).await?;
        // The lease may have ended while it waited.
        let get = pb::RangeRequest { key: waiter.key.clone(), ..pb::RangeRequest::default() };
        let answer: pb::RangeResponse = waiter.inside.call(Method::Range, &get).await?;
        if answer.kvs.is_empty() {
            return Err(Status::unknown(EXPIRED));
        }
        header = answer.header;
    }
    leaving.stays();
    Ok(LockResponse { header, key: waiter.key })
}

pub(super) async fn unlock(
    inside: Inside,
    request: UnlockRequest,
) -> Result<UnlockResponse, Status> {
    let answer = queue::delete(&inside, request.key).await.map_err(as_unknown)?;
    Ok(UnlockResponse { header: answer.header })
}
