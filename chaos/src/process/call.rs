//! One attempt of one call through the generated stubs, without any retry.

use flotilla_proto::etcdserverpb::kv_client::KvClient;
use flotilla_proto::etcdserverpb::lease_client::LeaseClient;
use tonic::Status;
use tonic::transport::Channel;

use crate::history::{Answer, Outcome, Request};
use crate::process::outcome::of_failure;

/// Largest answer that is taken, in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Sends a request once and tells what came back.
pub async fn call(channel: Channel, request: Request) -> Outcome {
    match attempt(channel, request).await {
        Ok(answer) => Outcome::Answered(answer),
        Err(status) => of_failure(&status),
    }
}

async fn attempt(channel: Channel, request: Request) -> Result<Answer, Status> {
    let mut kv = KvClient::new(channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX);
    let mut lease = LeaseClient::new(channel);
    Ok(match request {
        Request::Read(request) => Answer::Read(kv.range(request).await?.into_inner()),
        Request::Put(request) => Answer::Put(kv.put(request).await?.into_inner()),
        Request::DeleteRange(request) => {
            Answer::DeleteRange(kv.delete_range(request).await?.into_inner())
        }
        Request::Txn(request) => Answer::Txn(kv.txn(request).await?.into_inner()),
        Request::Compact(request) => Answer::Compact(kv.compact(request).await?.into_inner()),
        Request::LeaseGrant(request) => {
            Answer::LeaseGrant(lease.lease_grant(request).await?.into_inner())
        }
        Request::LeaseRevoke(request) => {
            Answer::LeaseRevoke(lease.lease_revoke(request).await?.into_inner())
        }
        Request::LeaseKeepAlive(request) => {
            let requests = tokio_stream::once(request);
            let mut answers = lease.lease_keep_alive(requests).await?.into_inner();
            let answer = answers.message().await?;
            Answer::LeaseKeepAlive(answer.ok_or_else(|| Status::unknown("the stream ended"))?)
        }
        Request::LeaseTimeToLive(request) => {
            Answer::LeaseTimeToLive(lease.lease_time_to_live(request).await?.into_inner())
        }
        Request::LeaseLeases(request) => {
            Answer::LeaseLeases(lease.lease_leases(request).await?.into_inner())
        }
    })
}
