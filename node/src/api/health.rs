//! The health service of the gRPC project. The node knows no service by name but itself, the empty
//! name, and while it answers it serves.

use std::collections::BTreeMap;
use std::sync::Arc;

use flotilla_core::proto::health as pb;
use flotilla_core::proto::health::health_check_response::ServingStatus;
use futures::{Stream, StreamExt, stream};
use tonic::Status;

use super::Context;
use super::guard::Client;

const SERVING: pb::HealthCheckResponse =
    pb::HealthCheckResponse { status: ServingStatus::Serving as i32 };
const SERVICE_UNKNOWN: pb::HealthCheckResponse =
    pb::HealthCheckResponse { status: ServingStatus::ServiceUnknown as i32 };

pub(super) async fn check(
    _: &Context,
    request: pb::HealthCheckRequest,
) -> Result<pb::HealthCheckResponse, Status> {
    if request.service.is_empty() { Ok(SERVING) } else { Err(Status::not_found("unknown service")) }
}

pub(super) async fn list(
    _: &Context,
    _: pb::HealthListRequest,
) -> Result<pb::HealthListResponse, Status> {
    Ok(pb::HealthListResponse { statuses: BTreeMap::from([(String::new(), SERVING)]) })
}

/// One answer; a change would follow, and there is none until the connection ends.
pub(super) fn watch(
    _: Arc<Context>,
    _: Client,
    request: pb::HealthCheckRequest,
) -> impl Stream<Item = Result<pb::HealthCheckResponse, Status>> + Send {
    let status = if request.service.is_empty() { SERVING } else { SERVICE_UNKNOWN };
    stream::iter([Ok(status)]).chain(stream::pending())
}
