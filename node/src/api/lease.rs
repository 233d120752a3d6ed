//! Lease.

use std::sync::Arc;

use flotilla_core::auth::{Needs, Pass};
use flotilla_core::command::{Answer, Command};
use flotilla_core::proto::etcdserverpb as pb;
use flotilla_core::spine::state;
use flotilla_core::{Error, LeaseId, mvcc};
use futures::{Stream, StreamExt};
use tonic::Status;

use super::call::Requests;
use super::guard::{Client, Guard};
use super::status::IntoStatus;
use super::{Context, header, quota, read};
use crate::metrics::upstream;
use crate::router::expect_answer;
use crate::supervise::fatal;

/// Renewals of one stream that may be under way; they are answered in order.
const RENEWALS_MAX: usize = 64;

pub(super) async fn grant(
    context: &Context,
    client: &Client,
    mut request: pb::LeaseGrantRequest,
) -> Result<pb::LeaseGrantResponse, Error> {
    while request.id == 0 {
        request.id = rand::random::<i64>() & i64::MAX;
    }
    let command = Command::LeaseGrant(request);
    quota::check(context, &command).await?;
    let answer = client.submit(context, Pass::NODE, command).await?;
    let mut answer = expect_answer(answer, |answer| match answer {
        Answer::LeaseGrant(answer) => Some(answer),
        _ => None,
    });
    ::metrics::histogram!(upstream::LEASE_TTL).record(answer.ttl as f64);
    answer.header = header::complete(context, answer.header);
    Ok(answer)
}

pub(super) async fn revoke(
    context: &Context,
    client: &Client,
    request: pb::LeaseRevokeRequest,
) -> Result<pb::LeaseRevokeResponse, Error> {
    let pass = client.permit(context, || Needs::of_lease(LeaseId(request.id))).await?;
    let answer = client.submit(context, pass, Command::LeaseRevoke(request)).await?;
    let mut answer = expect_answer(answer, |answer| match answer {
        Answer::LeaseRevoke(answer) => Some(answer),
        _ => None,
    });
    answer.header = header::complete(context, answer.header);
    Ok(answer)
}

/// Ends, after the answers that are due, when the client has sent all it wanted to.
pub(super) fn keep_alive(
    context: Arc<Context>,
    client: Client,
    requests: Requests<pb::LeaseKeepAliveRequest>,
) -> impl Stream<Item = Result<pb::LeaseKeepAliveResponse, Status>> + Send {
    requests
        .map(move |request| {
            let (context, client) = (context.clone(), client.clone());
            async move { renew(&context, &client, request?).await.map_err(Error::into_status) }
        })
        .buffered(RENEWALS_MAX)
}

async fn renew(
    context: &Context,
    client: &Client,
    request: pb::LeaseKeepAliveRequest,
) -> Result<pb::LeaseKeepAliveResponse, Error> {
    // The header is of before the renewal.
    let before = header::complete(context, None);
    // It takes no place in the order.
    client.permit(context, || Needs::of_lease(LeaseId(request.id))).await?;
    let answer = client.submit(context, Pass::NODE, Command::LeaseKeepAlive(request)).await?;
    let answer = expect_answer(answer, |answer| match answer {
        Answer::LeaseKeepAlive(answer) => Some(answer),
        _ => None,
    });
    Ok(pb::LeaseKeepAliveResponse { header: before, ..answer })
}

pub(super) async fn time_to_live(
    context: &Context,
    client: &Client,
    request: pb::LeaseTimeToLiveRequest,
) -> Result<pb::LeaseTimeToLiveResponse, Error> {
    client.admit(context, Guard::User).await?;
    let answer = client.submit(context, Pass::NODE, Command::LeaseTimeToLive(request)).await?;
    let mut answer = expect_answer(answer, |answer| match answer {
        Answer::LeaseTimeToLive(answer) => Some(answer),
        _ => None,
    });
    if request.keys && answer.granted_ttl != 0 {
        // The leader's answer speaks of a state that this member may not have yet.
        let lease = LeaseId(request.id);
        let needs = || Needs::of_lease_keys(lease);
        let keys = |head| read::lease_keys(context, head, lease);
        let (head, keys) = client.read(context, false, needs, keys).await?;
        answer.keys = keys;
        answer.header = mvcc::header(head.revision);
    }
    answer.header = header::complete(context, answer.header);
    Ok(answer)
}

/// What this member knows, however old.
pub(super) async fn leases(
    context: &Context,
    client: &Client,
    _: pb::LeaseLeasesRequest,
) -> Result<pb::LeaseLeasesResponse, Error> {
    let ids = client.read(context, true, Needs::default, |_| lease_ids(context)).await?;
    if context.gate().is_enabled() {
        // Who may not see all that is attached to leases is told of none.
        let needs = || Needs { listed_leases: ids.iter().copied().collect(), ..Needs::default() };
        client.permit_read(context, needs).await?;
    }
    let leases = ids.into_iter().map(|id| pb::LeaseStatus { id: id.0 }).collect();
    Ok(pb::LeaseLeasesResponse { header: header::complete(context, None), leases })
}

async fn lease_ids(context: &Context) -> Result<Vec<LeaseId>, Error> {
    let store = context.store().clone();
    let listed = tokio::task::spawn_blocking(move || state::lease_ids(&store)).await;
    match listed {
        Ok(Ok(ids)) => Ok(ids),
        Ok(Err(error)) => fatal(&error.to_string()),
        // Only a node that stops drops the work; a panic has ended the process.
        Err(_) => Err(Error::Stopped),
    }
}
